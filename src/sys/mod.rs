//! The seam: what amy asks of a kernel, and the one place that knows which kernel it is.
//!
//! A backend is a type `Queue` with the methods below. It keeps no table of descriptors: the
//! kernel has one, and a copy goes stale as soon as a descriptor is closed without being removed.
//!
//! * `new` makes everything the queue will ever need, close-on-exec, so that no later call can run
//!   out of descriptors; what it made is closed when the queue is dropped.
//! * `add`, `modify` and `remove` take effect at once, from any thread, also on a thread that is
//!   waiting. `add` of a descriptor that is there fails with `EEXIST` where the kernel can tell,
//!   and otherwise takes the place of what was there; `modify` and `remove` of one that is not fail
//!   with `ENOENT`. `modify` reports again what is ready. A call that fails leaves all as it was.
//! * `wait` appends at most `room` notifications, `room` being at least 1, and tells whether the
//!   alarm or a wake was among what happened. It may come back early and with nothing, and it
//!   returns `EINTR` as an error. When it returns an error, it took nothing.
//! * `wake` makes one `wait` return that has begun or will begin. Wakes may collapse into one.
//! * `set_alarm` replaces the one alarm of the queue: after that long, never earlier, one `wait`
//!   returns and says so. Zero is "at once".
//! * The queue's own descriptor is readable when `wait` would return something.

#[cfg(not(any(
    target_os = "android",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "illumos",
    target_os = "linux",
    target_os = "netbsd",
    target_os = "openbsd",
    target_vendor = "apple",
)))]
compile_error!("amy needs a system with epoll or kqueue");

#[forbid(unsafe_code)]
#[cfg(all(
    not(any(amy_kqueue, amy_loom)),
    any(target_os = "android", target_os = "illumos", target_os = "linux")
))]
#[path = "epoll.rs"]
mod queue;
#[forbid(unsafe_code)]
#[cfg(all(
    not(amy_loom),
    any(amy_kqueue, not(any(target_os = "android", target_os = "illumos", target_os = "linux")))
))]
#[path = "kqueue.rs"]
mod queue;
#[forbid(unsafe_code)]
#[cfg(amy_loom)]
#[path = "model.rs"]
mod queue;
#[cfg(all(test, amy_loom))]
pub(crate) use queue::Disturbance;
pub(crate) use queue::Queue;

#[forbid(unsafe_code)]
#[cfg(all(
    not(any(amy_kqueue, amy_loom, amy_pipe)),
    any(target_os = "android", target_os = "illumos", target_os = "linux")
))]
#[path = "wake_eventfd.rs"]
mod wake;
#[forbid(unsafe_code)]
#[cfg(all(
    not(amy_loom),
    any(
        amy_kqueue,
        amy_pipe,
        not(any(target_os = "android", target_os = "illumos", target_os = "linux"))
    )
))]
#[path = "wake_pipe.rs"]
mod wake;
#[forbid(unsafe_code)]
#[cfg(any(
    amy_kqueue,
    not(any(target_os = "android", target_os = "illumos", target_os = "linux"))
))]
mod wake_user;

/// The rules are compiled for the tests of every system: hardly anyone tests where they are used.
#[forbid(unsafe_code)]
#[cfg(any(
    test,
    amy_kqueue,
    not(any(target_os = "android", target_os = "illumos", target_os = "linux"))
))]
mod kevents;
#[cfg(any(
    amy_kqueue,
    not(any(target_os = "android", target_os = "illumos", target_os = "linux"))
))]
mod kevent;

/// What `kevent.rs` needs of the system's own names.
#[cfg(not(any(target_os = "android", target_os = "illumos", target_os = "linux")))]
mod native {
    pub(super) use libc::{
        EV_ADD, EV_CLEAR, EV_DELETE, EV_DISPATCH, EV_EOF, EV_ERROR, EV_ONESHOT, EV_RECEIPT,
        EVFILT_READ, EVFILT_TIMER, EVFILT_USER, EVFILT_WRITE, NOTE_TRIGGER, kevent, timespec,
    };
    #[cfg(not(any(target_os = "freebsd", target_os = "netbsd")))]
    pub(super) use libc::{EVFILT_EXCEPT, NOTE_OOB};
    pub(super) use rustix::event::kqueue::kqueue;

    /// There is no such filter, and these are refused.
    #[cfg(target_os = "freebsd")]
    pub(super) const EVFILT_EXCEPT: i16 = i16::MIN;
    #[cfg(target_os = "netbsd")]
    pub(super) const EVFILT_EXCEPT: u32 = u32::MAX;
    #[cfg(any(target_os = "freebsd", target_os = "netbsd"))]
    pub(super) const NOTE_OOB: u32 = 0;
}
#[cfg(amy_kqueue)]
#[path = "libkqueue.rs"]
mod native;

use crate::notification::{Interest, Notification};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

/// Whether a write to a wake descriptor that was readable before goes unnoticed under edge
/// triggering (illumos: <https://github.com/tokio-rs/mio/pull/1826>).
#[cfg(not(amy_loom))]
const WAKE_NEEDS_DRAINING: bool = cfg!(target_os = "illumos");

/// Whether to wake through a pipe also where there is something better, to test the pipe.
#[cfg_attr(not(amy_kqueue), allow(dead_code))]
const PIPE_ONLY: bool = cfg!(amy_pipe);

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
