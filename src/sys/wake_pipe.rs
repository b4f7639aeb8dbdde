//! Wakes a waiter through a pipe, where there is no eventfd or user event.

use super::WAKE_NEEDS_DRAINING;
use rustix::{
    io::{self, Errno},
    pipe::pipe,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[derive(Debug)]
pub(super) struct Wake {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Wake {
    pub(super) fn new() -> io::Result<Wake> {
        // pipe2 is not everywhere, so the flags follow; on the systems that lack it a process that
        // forks and execs in between on another thread inherits the two.
        let (reader, writer) = pipe()?;
        for end in [&reader, &writer] {
            io::fcntl_setfd(end, io::FdFlags::CLOEXEC)?;
            io::ioctl_fionbio(end, true)?;
        }
        Ok(Wake { reader, writer })
    }

    pub(super) fn wake(&self) -> io::Result<()> {
        if WAKE_NEEDS_DRAINING {
            self.drain();
        }
        loop {
            match io::write(&self.writer, &[1]) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                // Nobody reads for the sake of reading, so the pipe fills up once in a while. The
                // bytes in it were announced before; the one to come is a new edge.
                Err(Errno::AGAIN) => self.drain(),
                Err(error) => return Err(error),
            }
        }
    }

    fn drain(&self) {
        let mut dustbin = [0; 4096];
        while matches!(io::read(&self.reader, &mut dustbin), Ok(n) if n == dustbin.len()) {}
    }
}

/// The descriptor to wait for.
impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
