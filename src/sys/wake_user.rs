//! Wakes a waiter through a user event of the queue's own, where the kernel has one.

use super::{kevent::Kqueue, kevents::Change};
use std::io;

/// Adds the event, and fails where the kernel knows none (NetBSD before 10, OpenBSD before 7.8)
/// or has no more of them (OpenBSD counts them for each process).
pub(super) fn add(kqueue: &Kqueue) -> io::Result<()> {
    kqueue.change_one(Change::add_user_event())
}

/// Triggers the event; the one waiter that is told of it takes it.
pub(super) fn trigger(kqueue: &Kqueue) -> io::Result<()> {
    kqueue.change_one(Change::trigger_user_event())
}
