//! Ctrl-C and SIGTERM as something to wait for.

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    low_level::pipe,
};
use std::{
    io,
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
        for signal in [SIGINT, SIGTERM] {
            pipe::register(signal, stopper.try_clone()?)?;
        }
        Ok(Stop(stop))
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
