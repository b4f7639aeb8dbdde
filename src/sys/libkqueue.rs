//! libkqueue in place of a kernel's kqueue, to try the backend on Linux.
//!
//! It has the names and numbers that `kevent.rs` uses, as in the library's `sys/event.h`.

#![allow(unsafe_code)]

pub(super) use libc::timespec;

use std::{
    ffi::{c_int, c_short, c_uint, c_ushort, c_void},
    io,
    os::fd::{FromRawFd, OwnedFd},
};

/// The kernel's form of a change and of an event.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub(super) struct kevent {
    pub(super) ident: usize,
    pub(super) filter: c_short,
    pub(super) flags: c_ushort,
    pub(super) fflags: c_uint,
    pub(super) data: isize,
    pub(super) udata: *mut c_void,
}

pub(super) const EVFILT_READ: c_short = -1;
pub(super) const EVFILT_WRITE: c_short = -2;
pub(super) const EVFILT_TIMER: c_short = -7;
pub(super) const EVFILT_USER: c_short = -11;
/// There is none; the library refuses this number.
pub(super) const EVFILT_EXCEPT: c_short = c_short::MIN;

pub(super) const EV_ADD: c_ushort = 0x0001;
pub(super) const EV_DELETE: c_ushort = 0x0002;
pub(super) const EV_ONESHOT: c_ushort = 0x0010;
pub(super) const EV_CLEAR: c_ushort = 0x0020;
pub(super) const EV_RECEIPT: c_ushort = 0x0040;
pub(super) const EV_DISPATCH: c_ushort = 0x0080;
pub(super) const EV_ERROR: c_ushort = 0x4000;
pub(super) const EV_EOF: c_ushort = 0x8000;

pub(super) const NOTE_TRIGGER: c_uint = 0x0100_0000;
pub(super) const NOTE_OOB: c_uint = 0;

#[link(name = "kqueue")]
unsafe extern "C" {
    #[link_name = "kqueue"]
    safe fn open() -> c_int;

    pub(super) fn kevent(
        kq: c_int,
        changelist: *const kevent,
        nchanges: c_int,
        eventlist: *mut kevent,
        nevents: c_int,
        timeout: *const timespec,
    ) -> c_int;
}

pub(super) fn kqueue() -> io::Result<OwnedFd> {
    let fd = open();
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the library has just opened it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
