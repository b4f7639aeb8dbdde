//! The clock of the models, their seeded bugs, and a way to stall a thread between two steps.

use super::{AtomicU64, Condvar, Mutex, Ordering};
use std::{cell::Cell, sync::OnceLock, time::Duration};

loom::lazy_static! {
    static ref NOW: AtomicU64 = AtomicU64::new(0);
    static ref RELEASED: Mutex<bool> = Mutex::new(false);
    static ref RELEASE: Condvar = Condvar::new();
}

loom::thread_local! {
    static LOCKS_BEFORE_STALL: Cell<Option<u32>> = Cell::new(None);
}

/// How far the clock runs while it is read once, at the end: longer than any model waits.
const ONE_SECOND: u64 = 1_000_000_000;

/// A time of the model's clock, which stands still but for [`pass`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    /// From here on the clock runs: whatever has been or will be set is due before long.
    pub(crate) const END: Instant = Instant(Duration::from_secs(1 << 32));

    /// A thread may read a time that is past, as one may that is interrupted right after reading.
    pub(crate) fn now() -> Instant {
        let now = Duration::from_nanos(NOW.load(Ordering::Acquire));
        if now < Instant::END.0 {
            return Instant(now);
        }
        Instant(Duration::from_nanos(NOW.fetch_add(ONE_SECOND, Ordering::AcqRel)))
    }

    pub(crate) fn after_start(time: Duration) -> Instant {
        Instant(time)
    }

    pub(crate) fn elapsed(self) -> Duration {
        Instant::now().0.saturating_sub(self.0)
    }

    pub(crate) fn saturating_add(self, time: Duration) -> Instant {
        Instant(self.0.saturating_add(time))
    }
}

/// Lets time pass, unless it has passed.
pub(crate) fn pass(until: Instant) {
    let nanos = u64::try_from(until.0.as_nanos()).expect("no later than the end");
    NOW.fetch_max(nanos, Ordering::AcqRel);
}

/// Has this thread stall for as long as the others can go on, before it takes its lock number `n`
/// from here, counted from 0.
pub(crate) fn stall_before_lock(n: u32) {
    LOCKS_BEFORE_STALL.with(|left| left.set(Some(n)));
}

/// Lets those go on that stall, now and from now on.
pub(crate) fn release_stalled() {
    *RELEASED.lock().unwrap() = true;
    RELEASE.notify_all();
}

pub(super) fn before_lock() {
    // Destructors of other thread-locals may lock when this one is gone.
    let stalls = LOCKS_BEFORE_STALL.try_with(|left| {
        let now = left.get() == Some(0);
        left.set(left.get().and_then(|n| n.checked_sub(1)));
        now
    });
    if stalls.unwrap_or(false) {
        let mut released = RELEASED.lock().unwrap();
        while !*released {
            released = RELEASE.wait(released).unwrap();
        }
    }
}

/// The name of the seeded bug that this process is to have.
pub(crate) const SEEDED: &str = "AMY_SEEDED";

pub(crate) fn is_seeded(bug: &str) -> bool {
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    WANTED.get_or_init(|| std::env::var(SEEDED).ok()).as_deref() == Some(bug)
}
