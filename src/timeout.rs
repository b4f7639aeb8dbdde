//! How long to wait: whole milliseconds, a [`Duration`], or for ever.

use std::time::Duration;

/// How long a wait may last or a timer runs: milliseconds as `usize`, a [`Duration`], or `None`
/// for ever.
///
/// Nobody needs to name this type: every call that takes one takes `impl Into<Timeout>`.
///
/// # Examples
///
/// ```
/// use amy::Timeout;
/// use std::time::Duration;
///
/// assert_eq!(Timeout::from(50), Timeout::from(Duration::from_millis(50)));
/// assert_eq!(Timeout::from(Some(Duration::ZERO)), Timeout::from(0));
/// assert_eq!(Timeout::from(None).duration(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(Option<Duration>);

impl Timeout {
    /// The time, or `None` for one that never passes.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        self.0
    }
}

/// Milliseconds.
impl From<usize> for Timeout {
    fn from(millis: usize) -> Timeout {
        Timeout(Some(Duration::from_millis(millis as u64)))
    }
}

impl From<Duration> for Timeout {
    fn from(duration: Duration) -> Timeout {
        Timeout(Some(duration))
    }
}

/// `None` is for ever.
impl From<Option<Duration>> for Timeout {
    fn from(duration: Option<Duration>) -> Timeout {
        Timeout(duration)
    }
}
