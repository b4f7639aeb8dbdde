//! `kevent`, the one system call that needs unsafe code.
//!
//! rustix has it too, but hides the `fflags` that carry the error of a socket, has no user events
//! on NetBSD and OpenBSD, and counts a timer in units that older systems do not know and that lose
//! its fraction. The struct and the numbers are libc's; everything else goes through rustix.

#![allow(unsafe_code)]

use super::{
    kevents::{Action, BATCH, Change, Filter, Kevent, Outcome, timeout},
    native as c,
};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr,
    time::Duration,
};

/// As many changes as one call makes.
pub(super) const CHANGES: usize = 6;

#[derive(Debug)]
pub(super) struct Kqueue {
    fd: OwnedFd,
}

impl Kqueue {
    pub(super) fn new() -> io::Result<Kqueue> {
        let fd = c::kqueue()?;
        // There is no call everywhere that does both. A child that is forked does not inherit a
        // kqueue; it is `exec` without `fork` that would.
        fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        Ok(Kqueue { fd })
    }

    /// Makes all changes, in their order, whatever becomes of each.
    ///
    /// Without `EV_RECEIPT` and room for every answer, the kernel would stop at the first that
    /// fails.
    pub(super) fn change<'a>(
        &self,
        changes: &[Change],
        outcomes: &'a mut [Outcome; CHANGES],
    ) -> io::Result<&'a [Outcome]> {
        let outcomes = &mut outcomes[..changes.len()];
        outcomes.fill(Ok(()));

        let mut list = [const { MaybeUninit::uninit() }; CHANGES];
        for (raw, change) in list.iter_mut().zip(changes) {
            raw.write(kevent(change, true));
        }
        let mut receipts = [const { MaybeUninit::uninit() }; CHANGES];
        let receipts = &mut receipts[..changes.len()];
        let received = match self.call(&list[..changes.len()], receipts, Some(Duration::ZERO)) {
            Ok(received) => received,
            // The changes were made; only the waiting that was not asked for has been interrupted.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for (outcome, receipt) in outcomes.iter_mut().zip(&receipts[..received]) {
            // SAFETY: `call` returned how many from the start the kernel has written.
            let receipt = unsafe { receipt.assume_init() };
            let errno = i32::try_from(receipt.data).unwrap_or(0);
            if receipt.flags & c::EV_ERROR != 0 && errno != 0 {
                *outcome = Err(Errno::from_raw_os_error(errno));
            }
        }
        Ok(outcomes)
    }

    /// Makes one change.
    pub(super) fn change_one(&self, change: Change) -> io::Result<()> {
        let list = [MaybeUninit::new(kevent(&change, false))];
        match self.call(&list, &mut [], Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits for at most `room` kevents, and hands over each.
    pub(super) fn wait(
        &self,
        room: usize,
        limit: Option<Duration>,
        mut hand_over: impl FnMut(Kevent),
    ) -> io::Result<()> {
        let mut events = [const { MaybeUninit::uninit() }; BATCH];
        let events = &mut events[..room.min(BATCH)];
        let happened = self.call(&[], events, limit.map(timeout))?;
        for event in &events[..happened] {
            // SAFETY: `call` returned how many from the start the kernel has written.
            let event = unsafe { event.assume_init() };
            if let Some(event) = understood(&event) {
                hand_over(event);
            }
        }
        Ok(())
    }

    /// Makes `changes`, all of which are initialised, and returns how many of `events` are then.
    fn call(
        &self,
        changes: &[MaybeUninit<c::kevent>],
        events: &mut [MaybeUninit<c::kevent>],
        limit: Option<Duration>,
    ) -> io::Result<usize> {
        let limit = limit.map(|limit| c::timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(i32::MAX.into()),
            tv_nsec: limit.subsec_nanos() as _,
        });
        // SAFETY: both lists are valid for their lengths, for reading and for writing, and so is
        // the time, until the call returns; the kernel keeps none of them. The first is initialised
        // by the two callers that pass one. That a number in it may be closed by now is an error to
        // the kernel and no more, and every descriptor of a caller's is borrowed until the call is
        // over.
        let happened = unsafe {
            c::kevent(
                self.fd.as_raw_fd(),
                changes.as_ptr().cast(),
                count(changes.len()),
                events.as_mut_ptr().cast(),
                count(events.len()),
                limit.as_ref().map_or(ptr::null(), ptr::from_ref),
            )
        };
        usize::try_from(happened).map_err(|_| io::Error::last_os_error())
    }
}

impl AsFd for Kqueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A length of at most [`BATCH`], which fits whatever type the system counts in.
fn count<T: TryFrom<usize> + Default>(len: usize) -> T {
    debug_assert!(len <= BATCH);
    T::try_from(len).unwrap_or_default()
}

/// The kernel's form of a change.
fn kevent(change: &Change, receipt: bool) -> c::kevent {
    // SAFETY: it consists of integers and one pointer, for all of which zero is a value. Systems
    // differ in what there is besides the fields below.
    let mut raw: c::kevent = unsafe { MaybeUninit::zeroed().assume_init() };
    raw.ident = change.ident;
    if receipt {
        raw.flags = c::EV_RECEIPT;
    }
    raw.udata = ptr::without_provenance_mut(change.udata);
    raw.filter = match change.filter {
        Filter::Read => c::EVFILT_READ,
        Filter::Write => c::EVFILT_WRITE,
        Filter::Except => {
            raw.fflags = c::NOTE_OOB;
            c::EVFILT_EXCEPT
        }
        Filter::User => c::EVFILT_USER,
        Filter::Timer => c::EVFILT_TIMER,
    };
    match change.action {
        Action::Add { edge, once } => {
            raw.flags |= c::EV_ADD;
            if edge {
                raw.flags |= c::EV_CLEAR;
            }
            if once {
                raw.flags |= c::EV_DISPATCH;
            }
        }
        Action::Start { millis } => {
            raw.flags |= c::EV_ADD | c::EV_ONESHOT;
            // Without a unit in `fflags`, milliseconds on every system.
            raw.data = millis as _;
        }
        // With EV_CLEAR, FreeBSD would clear what is triggered here.
        Action::Trigger => raw.fflags = c::NOTE_TRIGGER,
        Action::Delete => raw.flags |= c::EV_DELETE,
    }
    raw
}

/// What matters of a kevent, or nothing if it is of a filter that is not used here.
fn understood(raw: &c::kevent) -> Option<Kevent> {
    let filter = match raw.filter {
        c::EVFILT_READ => Filter::Read,
        c::EVFILT_WRITE => Filter::Write,
        c::EVFILT_EXCEPT => Filter::Except,
        c::EVFILT_USER => Filter::User,
        c::EVFILT_TIMER => Filter::Timer,
        _ => return None,
    };
    let eof = raw.flags & c::EV_EOF != 0;
    let error = raw.flags & c::EV_ERROR != 0 || (eof && raw.fflags != 0);
    Some(Kevent { ident: raw.ident, filter, udata: raw.udata.addr(), eof, error })
}
