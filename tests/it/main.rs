//! The promises of the crate, one file for each, in one binary.

mod bounded;
mod channels;
mod common;
mod ends_and_errors;
mod fork_exec;
mod from_anywhere;
mod guide;
mod ids;
mod interest;
mod lifetimes;
mod nesting;
mod nothing_lost;
mod notifiers;
mod removal;
mod support;
mod tidy;
mod timers;
mod waiters;
mod waiting;
