//! Events of the feature `tracing`; without it, nothing at all.
//!
//! A subscriber is the user's code, so no event is told while a lock is held.

#[cfg(feature = "tracing")]
macro_rules! trace {
    ($($event:tt)+) => { ::tracing::trace!(target: "amy", $($event)+) };
}

#[cfg(not(feature = "tracing"))]
macro_rules! trace {
    ($($event:tt)+) => {};
}

pub(crate) use trace;
