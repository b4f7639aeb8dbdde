//! What the tests of several promises need.

use amy::{Poller, Timeout};
use rustix::thread::{Pid, gettid};
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Milliseconds after which something hangs. Nothing takes this long but a failure.
pub(crate) const LONG: usize = 60_000;

/// The ids that one `wait` reports. A wait for `LONG` must not take that long: what it finds at its
/// end was there before, and nobody woke it.
pub(crate) fn told(poller: &mut Poller, timeout: impl Into<Timeout>) -> Vec<usize> {
    let timeout = timeout.into();
    let start = Instant::now();
    let ids = poller.wait(timeout).unwrap().iter().map(|n| n.id).collect();
    let hung = timeout == LONG.into() && start.elapsed() >= Duration::from_millis(LONG as u64);
    assert!(!hung, "a wait hung, and then found {ids:?}");
    ids
}

/// Runs `body` in a process of its own, where no other test opens or closes descriptors.
///
/// `test` is the path of the test that calls this: the process runs it again, and nothing else.
pub(crate) fn in_own_process(test: &str, body: impl FnOnce()) {
    const MARK: &str = "AMY_TEST_IN_OWN_PROCESS";
    if env::var_os(MARK).is_some() {
        return body();
    }
    let output = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(MARK, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{test} in a process of its own: {}\n{stdout}\n{stderr}",
        output.status
    );
}

/// The open descriptors of this process, and what each is.
pub(crate) fn descriptors() -> BTreeMap<u32, String> {
    let numbers: Vec<u32> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap())
        .collect();
    // The listing's own descriptor is closed by now, and has no link any more.
    numbers
        .into_iter()
        .filter_map(|number| {
            let link = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
            Some((number, link.into_os_string().into_string().unwrap()))
        })
        .collect()
}

/// Counts the writes that a poller's notifiers make in order to wake it: nobody reads them, so they
/// add up in its eventfd (or pipe).
pub(crate) struct Wakes {
    descriptor: u32,
    link: String,
}

impl Wakes {
    /// Only where no other thread opens descriptors.
    pub(crate) fn of_a_new_poller() -> (Poller, Wakes) {
        let before = descriptors();
        let poller = Poller::new().unwrap();
        let mut new = descriptors().into_iter().filter(|(number, _)| !before.contains_key(number));
        let (descriptor, link) =
            new.find(|(_, link)| link.contains("eventfd") || link.starts_with("pipe:")).unwrap();
        (poller, Wakes { descriptor, link })
    }

    pub(crate) fn count(&self) -> u64 {
        if self.link.starts_with("pipe:") {
            let pipe = File::open(format!("/proc/self/fd/{}", self.descriptor)).unwrap();
            return rustix::io::ioctl_fionread(&pipe).unwrap();
        }
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.descriptor)).unwrap();
        let count = info.lines().find_map(|line| line.strip_prefix("eventfd-count:")).unwrap();
        u64::from_str_radix(count.trim(), 16).unwrap()
    }
}

/// Lets one thread see that another one sleeps in the kernel.
#[derive(Default)]
pub(crate) struct Bed {
    thread: OnceLock<Pid>,
}

impl Bed {
    /// To be called by the thread in question, just before the call that is to sleep.
    pub(crate) fn lie_down(&self) {
        self.thread.set(gettid()).unwrap();
    }

    /// Returns when that thread sleeps.
    pub(crate) fn watch(&self) {
        eventually("a thread sleeps", || {
            let Some(thread) = self.thread.get() else { return false };
            let path = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
            let stat = fs::read_to_string(path).unwrap();
            let state = stat.rsplit(')').next().unwrap().trim_start();
            state.starts_with('S')
        });
    }
}

/// Returns when `condition` holds, for which other threads are needed.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_millis(LONG as u64), "it never came: {what}");
        thread::yield_now();
    }
}

/// Runs `work` while `noise` runs on `threads` others, and ends those whatever happens.
pub(crate) fn among<R>(threads: usize, noise: impl Fn() + Sync, work: impl FnOnce() -> R) -> R {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    noise();
                }
            });
        }
        let result = catch_unwind(AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Numbers that look random and are the same in every run (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}
