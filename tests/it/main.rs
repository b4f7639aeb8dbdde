//! The promises of the crate, one file for each, in one binary.

mod bounded;
mod channels;
mod common;
mod ends_and_errors;
mod fork_exec;
mod frames;
mod from_anywhere;
mod guide;
mod ids;
mod interest;
mod lifetimes;
mod lines;
mod nesting;
mod nothing_lost;
mod notifiers;
mod portability;
mod removal;
mod scripted;
mod tidy;
mod timers;
mod waiters;
mod waiting;
