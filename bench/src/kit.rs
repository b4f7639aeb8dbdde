//! Clocks, descriptors and the counting allocator: what every work needs and nobody is measured by.

use rustix::{
    event::{EventfdFlags, eventfd},
    io::IoSlice,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    os::fd::OwnedFd,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Instant,
};

/// Processor time of the calling thread, in nanoseconds.
pub fn thread_cpu() -> f64 {
    nanos(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time of all threads of the process, in nanoseconds.
pub fn process_cpu() -> f64 {
    nanos(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Through libc: rustix looks for the vDSO where valgrind has none.
fn nanos(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for a write, and lives until the call returns.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "a clock that exists");
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

pub fn since(start: Instant) -> f64 {
    start.elapsed().as_nanos() as f64
}

/// A clock cheap enough to be read around a single system call.
#[inline]
#[cfg(target_arch = "x86_64")]
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and it reads no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A clock for where there is no cheaper one.
#[cfg(not(target_arch = "x86_64"))]
pub fn ticks() -> u64 {
    nanos(libc::CLOCK_MONOTONIC) as u64
}

static TICK_NANOS: std::sync::OnceLock<f64> = std::sync::OnceLock::new();

/// Finds out how long a tick lasts. Not done where instructions are counted: it takes as many as fit
/// into a while.
pub fn calibrate() {
    let (start, before) = (Instant::now(), ticks());
    while since(start) < 5e7 {}
    let _ = TICK_NANOS.set(since(start) / (ticks() - before) as f64);
}

/// How many nanoseconds one of [`ticks`] lasts.
pub fn tick_nanos() -> f64 {
    *TICK_NANOS.get().expect("a calibrated clock")
}

/// Descriptors that become readable when told so.
pub fn eventfds(count: usize) -> Vec<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    (0..count).map(|_| eventfd(0, flags).expect("a descriptor")).collect()
}

/// Makes an eventfd readable: a new edge each time. By `writev`, which nobody else here calls on an
/// eventfd, so that the harness's own calls can be told from the contender's.
pub fn make_ready(fd: &OwnedFd) {
    rustix::io::writev(fd, &[IoSlice::new(&1u64.to_ne_bytes())]).expect("room in the counter");
}

/// As many descriptors as the system lets the process have.
pub fn lift_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many descriptors the process has open.
pub fn open_descriptors() -> i64 {
    // One of them is the one that reads the directory.
    std::fs::read_dir("/proc/self/fd").expect("procfs").count() as i64 - 1
}

/// How many more the process may open. amy 0.10 leaves a queue open for each poller that it had.
pub fn descriptors_left() -> u64 {
    lift_descriptor_limit().saturating_sub(open_descriptors().unsigned_abs())
}

/// Numbers that look random and are the same in every run (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// The system's allocator, with a count of what is asked of it.
pub struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicI64 = AtomicI64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often memory was asked for so far.
pub fn allocations() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// How many bytes are in use now.
pub fn live_bytes() -> i64 {
    LIVE.load(Ordering::Relaxed)
}

// SAFETY: every call goes to the system's allocator, which keeps the promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps `alloc`'s conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps `alloc_zeroed`'s conditions.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: the caller keeps `realloc`'s conditions.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps `dealloc`'s conditions.
        unsafe { System.dealloc(block, layout) }
    }
}

fn count(bytes: i64) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    LIVE.fetch_add(bytes, Ordering::Relaxed);
}
