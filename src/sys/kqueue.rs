//! kqueue, with a user event (or a pipe) to wake it and a timer event for its alarm.
//!
//! What to ask and what the answers mean is in `kevents.rs`, the call itself in `kevent.rs`.

use super::{
    Inner, PIPE_ONLY,
    kevent::{CHANGES, Kqueue},
    kevents::{self, Batch, Change, Changes, OURS, Once, Told, Verdict},
    wake::Wake as Pipe,
    wake_user,
};
use crate::{
    notification::{Event, Interest, Notification},
    sync::{Mutex, lock},
};
use rustix::{
    fs::{FileType, fstat},
    io::Errno,
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

#[derive(Debug)]
pub(crate) struct Queue {
    kqueue: Kqueue,
    /// What wakes, where it is not a user event.
    pipe: Option<Pipe>,
    /// The number of the timer event that was set last.
    alarm: Mutex<usize>,
    once: Mutex<Once>,
}

impl Queue {
    pub(crate) fn new() -> io::Result<Queue> {
        let kqueue = Kqueue::new()?;
        let pipe = if PIPE_ONLY || wake_user::add(&kqueue).is_err() {
            let pipe = Pipe::new()?;
            watch(&kqueue, pipe.as_fd(), OURS, Event::Read.into())?;
            Some(pipe)
        } else {
            None
        };
        Ok(Queue { kqueue, pipe, alarm: Mutex::new(0), once: Mutex::new(Once::default()) })
    }

    /// A descriptor that is there already is registered anew: the kernel cannot be asked.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, id: usize, interest: Interest) -> io::Result<()> {
        if !may_be_watched(fd)? {
            return Err(Errno::PERM.into());
        }
        self.watch(fd, id, interest)?;
        Ok(())
    }

    /// Adding a filter reports what is ready. Should the kernel have no memory for that, the
    /// descriptor is not registered any more.
    pub(crate) fn modify(
        &self,
        fd: BorrowedFd<'_>,
        id: usize,
        interest: Interest,
    ) -> io::Result<()> {
        match self.watch(fd, id, interest) {
            Ok(true) => Ok(()),
            Ok(false) => {
                forget(&self.kqueue, fd)?;
                Err(not_there(fd, Errno::NOENT.into()))
            }
            Err(error) => Err(not_there(fd, error)),
        }
    }

    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if forget(&self.kqueue, fd)? { Ok(()) } else { Err(not_there(fd, Errno::NOENT.into())) }
    }

    pub(crate) fn wait(
        &self,
        room: usize,
        timeout: Option<Duration>,
        out: &mut Vec<Notification>,
    ) -> io::Result<Inner> {
        let mut inner = Inner::default();
        let mut batch = Batch::new(out);
        self.kqueue.wait(room, timeout, |kevent| match kevent.told() {
            Told::Ready(n) => batch.push(n, || lock(&self.once).tells(kevent.ident, n.id)),
            Told::Alarm => inner.alarm = true,
            Told::Wake => inner.woken = true,
        })?;
        Ok(inner)
    }

    pub(crate) fn wake(&self) -> io::Result<()> {
        match &self.pipe {
            Some(pipe) => Ok(pipe.wake()?),
            None => wake_user::trigger(&self.kqueue),
        }
    }

    /// Changing a timer that is there has no effect on some systems, and without it there would
    /// be none if a new one is refused. So the new one comes first, under another number.
    pub(crate) fn set_alarm(&self, after: Duration) -> io::Result<()> {
        let mut last = lock(&self.alarm);
        let next = 1 - *last;
        self.kqueue.change_one(Change::start_timer(next, after))?;
        // It has gone off, or was never set, or is gone now.
        let _ = self.kqueue.change_one(Change::stop_timer(*last));
        *last = next;
        Ok(())
    }

    /// Watches a descriptor under an id, and says whether it was watched before.
    fn watch(&self, fd: BorrowedFd<'_>, id: usize, interest: Interest) -> io::Result<bool> {
        let udata = kevents::udata(id, interest.event())?;
        // Noted first: it may be told before the call is over.
        lock(&self.once).register(ident(fd), id, interest);
        watch(&self.kqueue, fd, udata, interest)
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kqueue.as_fd()
    }
}

/// Watches a descriptor in one way and no other, and says whether it was watched before.
fn watch(
    kqueue: &Kqueue,
    fd: BorrowedFd<'_>,
    udata: usize,
    interest: Interest,
) -> io::Result<bool> {
    let changes = Changes::watching(ident(fd), udata, interest);
    let verdict = apply(kqueue, &changes)?;
    if let Some(errno) = verdict.refused {
        forget(kqueue, fd)?;
        return Err(errno.into());
    }
    if verdict.lost_pipe {
        // If this is refused as well, a write tells.
        apply(kqueue, &Changes::watching_a_lost_pipe(ident(fd), udata, interest))?;
    }
    Ok(verdict.known)
}

/// Ends the watching of a descriptor, and says whether it was watched.
fn forget(kqueue: &Kqueue, fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(apply(kqueue, &Changes::forgetting(ident(fd)))?.known)
}

fn apply(kqueue: &Kqueue, changes: &Changes) -> io::Result<Verdict> {
    let mut outcomes = [Ok(()); CHANGES];
    let outcomes = kqueue.change(changes.as_slice(), &mut outcomes)?;
    Ok(Verdict::of(changes.as_slice(), outcomes))
}

fn ident(fd: BorrowedFd<'_>) -> usize {
    // A borrowed descriptor is never negative.
    usize::try_from(fd.as_raw_fd()).unwrap_or(usize::MAX)
}

/// Whether epoll would take it. kqueues do take files, and then report them for ever (FreeBSD) or
/// once (others), which nobody can use to wait for anything.
fn may_be_watched(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let kind = FileType::from_raw_mode(fstat(fd)?.st_mode);
    Ok(!matches!(kind, FileType::RegularFile | FileType::Directory | FileType::BlockDevice))
}

/// `error`, unless it is about what can never have been registered.
fn not_there(fd: BorrowedFd<'_>, error: io::Error) -> io::Error {
    if may_be_watched(fd).unwrap_or(true) { error } else { Errno::PERM.into() }
}
