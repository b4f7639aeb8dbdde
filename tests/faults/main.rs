//! Scenarios that hold while a system call fails, whichever it is.
//!
//! As tests, they show what holds when nothing fails. `ci/faults.sh` runs each of them hundreds of
//! times under strace, which has one system call fail without being made, and says which in
//! `AMY_FAULT`. So that every index of every call can be tried, a scenario makes its calls in the same
//! order each time, as far as threads allow.

#![cfg(all(target_os = "linux", not(amy_kqueue)))]

mod fault;

mod channels;
mod frames;
mod lifetimes;
mod nesting;
mod registrations;
mod stalled;
mod timers;
mod waiters;
mod waiting;
