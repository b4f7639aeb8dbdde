//! The seam: what amy asks of a kernel, and the one place that knows which kernel it is.
//!
//! A backend is a type `Queue` with the methods below. It keeps no table of descriptors: the
//! kernel has one, and a copy goes stale as soon as a descriptor is closed without being removed.
//!
//! * `new` makes everything the queue will ever need, close-on-exec, so that no later call can run
//!   out of descriptors; what it made is closed when the queue is dropped.
//! * `add`, `modify` and `remove` take effect at once, from any thread, also on a thread that is
//!   waiting. `add` of a descriptor that is there fails with `EEXIST` where the kernel can tell,
//!   `modify` and `remove` of one that is not fail with `ENOENT`. `modify` reports again what is
//!   ready. A call that fails leaves all as it was.
//! * `wait` appends at most `room` notifications, `room` being at least 1, and tells whether the
//!   alarm or a wake was among what happened. It may come back early and with nothing, and it returns
//!   `EINTR` as an error. When it returns an error, it took nothing.
//! * `wake` makes one `wait` return that has begun or will begin. Wakes may collapse into one.
//! * `set_alarm` replaces the one alarm of the queue: after that long, never earlier, one `wait`
//!   returns and says so. Zero is "at once".
//! * The queue's own descriptor is readable when `wait` would return something.

#[forbid(unsafe_code)]
#[cfg(any(target_os = "linux", target_os = "android", target_os = "illumos"))]
mod epoll;
#[cfg(any(target_os = "linux", target_os = "android", target_os = "illumos"))]
pub(crate) use epoll::Queue;

#[forbid(unsafe_code)]
#[cfg(all(any(target_os = "linux", target_os = "android", target_os = "illumos"), not(amy_pipe)))]
#[path = "wake_eventfd.rs"]
mod wake;
#[forbid(unsafe_code)]
#[cfg(amy_pipe)]
#[path = "wake_pipe.rs"]
mod wake;

use crate::notification::{Interest, Notification};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

/// Whether a write to a wake descriptor that was readable before goes unnoticed under edge
/// triggering (illumos: <https://github.com/tokio-rs/mio/pull/1826>).
const WAKE_NEEDS_DRAINING: bool = cfg!(target_os = "illumos");

/// What besides notifications came out of a `wait`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inner {
    /// The alarm went off, and is not set any more.
    pub(crate) alarm: bool,
    /// A `wake` was taken: no other `wait` returns for it.
    pub(crate) woken: bool,
}

/// The contract, so that a backend that drifts from it fails to build here.
const _: () = {
    const fn as_fd<T: AsFd>() {}
    as_fd::<Queue>();
    let _: fn() -> io::Result<Queue> = Queue::new;
    let _: fn(&Queue, BorrowedFd<'_>, usize, Interest) -> io::Result<()> = Queue::add;
    let _: fn(&Queue, BorrowedFd<'_>, usize, Interest) -> io::Result<()> = Queue::modify;
    let _: fn(&Queue, BorrowedFd<'_>) -> io::Result<()> = Queue::remove;
    let _: fn(&Queue, usize, Option<Duration>, &mut Vec<Notification>) -> io::Result<Inner> =
        Queue::wait;
    let _: fn(&Queue) -> io::Result<()> = Queue::wake;
    let _: fn(&Queue, Duration) -> io::Result<()> = Queue::set_alarm;
};
