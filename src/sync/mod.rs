//! The locks, the atomics and the clock of the library, in one place so that a model checker can
//! take theirs.
//!
//! Nothing here runs a user's code while a lock is held, so a poisoned lock can only mean that an
//! assertion of ours failed; the data behind it is whole, and other threads go on.

#[cfg(amy_loom)]
pub(crate) mod model;

#[cfg(not(amy_loom))]
pub(crate) use std::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

#[cfg(amy_loom)]
pub(crate) use {
    loom::sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    model::Instant,
};

/// Never the checker's: no argument here rests on what a reference count synchronizes.
pub(crate) use std::sync::Arc;

/// Declares a static, which is new in each execution of a model.
macro_rules! global {
    (static $name:ident: $type:ty = $value:expr;) => {
        #[cfg(not(amy_loom))]
        static $name: $type = $value;
        #[cfg(amy_loom)]
        loom::lazy_static! { static ref $name: $type = $value; }
    };
}

/// Whether the bug of this name is to be there, so that a model can be seen to fail. It is `false`
/// wherever the library is not a model.
macro_rules! seeded {
    ($bug:literal) => {{
        #[cfg(not(amy_loom))]
        let seeded = false;
        #[cfg(amy_loom)]
        let seeded = $crate::sync::model::is_seeded($bug);
        seeded
    }};
}

pub(crate) use {global, seeded};

/// Locks `mutex`, poisoned or not.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(amy_loom)]
    model::before_lock();
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Locks a `mutex` for which threads fight all the time. To the models it is a lock like any other.
///
/// Whoever finds it taken stays away for a while, longer each time (in all some microseconds), and
/// sleeps only then. Meanwhile the other goes on with all that it needs in its processor's cache,
/// where two that alternate would fetch it from each other for every message.
#[inline]
pub(crate) fn lock_in_turns<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(not(amy_loom))]
    for patience in 4..9 {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(std::sync::TryLockError::Poisoned(error)) => return error.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => {
                for _ in 0..1 << patience {
                    std::hint::spin_loop();
                }
            }
        }
    }
    lock(mutex)
}

/// Waits on `condvar`, poisoned or not.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner)
}
