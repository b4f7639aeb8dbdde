//! Ctrl-C and SIGTERM as something to wait for.

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    low_level::pipe,
};
use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

/// Readable from the first SIGINT or SIGTERM on: register it for [`amy::Event::Read`].
///
/// The handler writes a byte to a socket and does nothing else, so it may run at any moment
/// (signal-safety(7)).
#[derive(Debug)]
pub struct Stop(UnixStream);

impl Stop {
    /// Takes both signals over, for the process.
    ///
    /// # Errors
    ///
    /// Those of socketpair(2) and sigaction(2).
    pub fn on_signals() -> io::Result<Stop> {
        let (stop, stopper) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        for signal in [SIGINT, SIGTERM] {
            pipe::register(signal, stopper.try_clone()?)?;
        }
        Ok(Stop(stop))
    }

    /// Another handle to the same signals, for who goes on when an [`Acceptor`](crate::Acceptor) has
    /// ended. What one handle takes, the other does not see.
    ///
    /// # Errors
    ///
    /// Those of fcntl(2).
    pub fn try_clone(&self) -> io::Result<Stop> {
        Ok(Stop(self.0.try_clone()?))
    }

    /// Takes one signal, so that this is readable again only if there is a second one. Whether there
    /// was one to take; does not wait for it.
    pub fn take(&self) -> bool {
        matches!((&self.0).read(&mut [0]), Ok(1))
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
