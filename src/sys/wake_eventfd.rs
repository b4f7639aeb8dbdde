//! Wakes a waiter through an eventfd: a write is an edge, and nobody needs to read.

use super::WAKE_NEEDS_DRAINING;
use rustix::{
    event::{EventfdFlags, eventfd},
    io::{self, Errno},
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[derive(Debug)]
pub(super) struct Wake {
    counter: OwnedFd,
}

impl Wake {
    pub(super) fn new() -> io::Result<Wake> {
        let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Wake { counter })
    }

    pub(super) fn wake(&self) -> io::Result<()> {
        if WAKE_NEEDS_DRAINING {
            self.drain();
        }
        loop {
            match io::write(&self.counter, &1u64.to_ne_bytes()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                // Nobody reads, so after 2^64 - 2 wakes the counter is full; see eventfd(2).
                Err(Errno::AGAIN) => self.drain(),
                Err(error) => return Err(error),
            }
        }
    }

    fn drain(&self) {
        // Nothing to read is as good as read.
        let _ = io::read(&self.counter, &mut [0; 8]);
    }
}

/// The descriptor to wait for.
impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_counter_does_not_hold_a_wake_up() {
        let wake = Wake::new().unwrap();
        io::write(&wake.counter, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        wake.wake().unwrap();
        let mut count = [0; 8];
        io::read(&wake.counter, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }
}
