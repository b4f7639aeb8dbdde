//! The end of those who say nothing, at the price of one timer that is seldom touched.

use amy::{Registrar, Timer};
use std::{
    io,
    time::{Duration, Instant},
};

/// Tells a connection's thread that nothing has happened on it for a while.
///
/// Activity only notes the time. The timer runs on, and is set again for the rest when it fires, so a
/// busy connection costs one timer operation for each whole period.
#[derive(Debug)]
pub struct Idle {
    timer: Timer,
    allowed: Duration,
    last: Instant,
}

impl Idle {
    /// Starts now.
    ///
    /// # Errors
    ///
    /// Those of [`Registrar::set_timeout`].
    pub fn new(registrar: &Registrar, allowed: Duration) -> io::Result<Idle> {
        Ok(Idle { timer: registrar.set_timeout(allowed)?, allowed, last: Instant::now() })
    }

    /// The id of the notification after which to ask [`Idle::is_over`].
    pub fn get_id(&self) -> usize {
        self.timer.get_id()
    }

    /// Something happened.
    pub fn touch(&mut self) {
        self.last = Instant::now();
    }

    /// Whether nothing has happened for as long as is allowed. If something has, the timer is set again.
    ///
    /// # Errors
    ///
    /// Those of [`Timer::reset`].
    pub fn is_over(&self) -> io::Result<bool> {
        let rest = self.allowed.saturating_sub(self.last.elapsed());
        if rest.is_zero() {
            return Ok(true);
        }
        self.timer.reset(rest)?;
        Ok(false)
    }
}
