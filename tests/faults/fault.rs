//! The fault that was announced, and what may be seen of it.

use amy::{Notification, Notifier, Poller, Timeout};
use rustix::io::Errno;
use std::{
    collections::BTreeMap,
    env, fs, io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The calls that make what a poller needs: all that may fail [`Poller::new`].
pub(crate) const MAKING: &[&str] =
    &["epoll_create1", "eventfd2", "timerfd_create", "epoll_ctl", "pipe2", "fcntl", "ioctl"];
/// The call that registers, changes and removes.
pub(crate) const REGISTERING: &[&str] = &["epoll_ctl"];
/// The call that sets the one alarm.
pub(crate) const ALARM: &[&str] = &["timerfd_settime"];
/// The call that wakes a sleeper.
const WAKING: &[&str] = &["write"];
/// The calls that wait.
pub(crate) const WAITING: &[&str] = &["epoll_pwait", "ppoll"];

/// Only something that hangs takes longer.
const LONG: Duration = Duration::from_secs(20);

/// How often to look where a failed wake may have left a waiter asleep.
const SHORT: Duration = Duration::from_millis(20);

const ERRNOS: [(&str, Errno); 15] = [
    ("EAGAIN", Errno::AGAIN),
    ("EBADF", Errno::BADF),
    ("ECANCELED", Errno::CANCELED),
    ("EEXIST", Errno::EXIST),
    ("EINTR", Errno::INTR),
    ("EINVAL", Errno::INVAL),
    ("EIO", Errno::IO),
    ("ELOOP", Errno::LOOP),
    ("EMFILE", Errno::MFILE),
    ("ENFILE", Errno::NFILE),
    ("ENODEV", Errno::NODEV),
    ("ENOENT", Errno::NOENT),
    ("ENOMEM", Errno::NOMEM),
    ("ENOSPC", Errno::NOSPC),
    ("EPERM", Errno::PERM),
];

/// A system call and the error with which it fails, once, several times, or not at all.
struct Fault {
    call: String,
    /// `None` if the call is only held up.
    errno: Option<Errno>,
}

/// What a scenario is told of faults, and what it saw of them.
pub(crate) struct Faults {
    announced: Option<Fault>,
    reported: AtomicUsize,
}

/// Runs a scenario, alone in this process, and sees to it that no descriptor is left.
pub(crate) fn scenario(body: impl FnOnce(&Faults)) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone: MutexGuard<'_, ()> = ALONE.lock().unwrap_or_else(PoisonError::into_inner);

    let faults = Faults { announced: announced(), reported: AtomicUsize::new(0) };
    let before = descriptors();
    body(&faults);
    assert_eq!(descriptors(), before, "descriptors after the scenario, and before it");
    eprintln!("reported: {}", faults.reported.into_inner());
}

impl Faults {
    /// Makes a call of the library of which `calls` are the system calls that may fail it.
    ///
    /// If it fails, that is with the fault that was announced, as it is, and no descriptor is left;
    /// and it does not fail again.
    pub(crate) fn call<T>(&self, calls: &[&str], call: impl FnMut() -> io::Result<T>) -> T {
        self.call_or(calls, call, || {})
    }

    /// The same, with a look at what must be as before if the call fails.
    pub(crate) fn call_or<T>(
        &self,
        calls: &[&str],
        mut call: impl FnMut() -> io::Result<T>,
        unchanged: impl FnOnce(),
    ) -> T {
        let before = descriptors();
        call().unwrap_or_else(|error| {
            self.report(calls, &error);
            assert_eq!(descriptors(), before, "descriptors after a failed call, and before it");
            unchanged();
            call().expect("it works the second time")
        })
    }

    /// Notifies. If the wake fails, what was to be told is told by the next `wait` all the same.
    pub(crate) fn notify(&self, notifier: &Notifier) {
        if let Err(error) = notifier.notify() {
            self.report(WAKING, &error);
        }
    }

    fn report(&self, calls: &[&str], error: &io::Error) {
        let fault = self.announced.as_ref();
        let fault = fault.unwrap_or_else(|| panic!("{error} though nothing was to fail"));
        assert_eq!(error.raw_os_error(), fault.errno.map(Errno::raw_os_error), "{error}");
        assert!(calls.contains(&&*fault.call), "{} failed one of {calls:?}", fault.call);
        self.reported.fetch_add(1, Ordering::Relaxed);
    }

    /// What one `wait` returns.
    pub(crate) fn wait(
        &self,
        poller: &mut Poller,
        timeout: impl Into<Timeout>,
    ) -> Vec<Notification> {
        let timeout = timeout.into().duration();
        self.call(WAITING, || Ok(poller.wait(timeout)?.to_vec()))
    }

    /// What the next `wait` returns, which has something to return.
    pub(crate) fn next(&self, poller: &mut Poller) -> Vec<Notification> {
        if self.loses_wakes() {
            // A waiter that could not be woken finds what there is when it looks.
            for _ in 0..LONG.as_millis() / SHORT.as_millis() {
                let batch = self.wait(poller, SHORT);
                if !batch.is_empty() {
                    return batch;
                }
            }
        }
        let batch = self.wait(poller, LONG);
        assert!(!batch.is_empty(), "nothing was told");
        batch
    }

    /// Waits until each of `ids` was told once, and nothing else.
    pub(crate) fn expect(&self, poller: &mut Poller, ids: &[usize]) {
        let mut missing = ids.to_vec();
        while !missing.is_empty() {
            for n in self.next(poller) {
                let place = missing.iter().position(|&id| id == n.id);
                let place = place.unwrap_or_else(|| panic!("{n:?} was told, not {missing:?}"));
                missing.remove(place);
            }
        }
    }

    /// Whether wakes fail for good: what the kernel said of them is all that can be done.
    pub(crate) fn loses_wakes(&self) -> bool {
        self.announced.as_ref().is_some_and(|f| f.call == "write" && f.errno == Some(Errno::IO))
    }

    /// Whether the first wake that each thread makes takes seconds.
    pub(crate) fn stall_wakes(&self) -> bool {
        self.announced.as_ref().is_some_and(|fault| fault.call == "write" && fault.errno.is_none())
    }
}

/// `AMY_FAULT="epoll_ctl ENOSPC"`, or `"write delay"`.
fn announced() -> Option<Fault> {
    let both = env::var("AMY_FAULT").ok().filter(|both| !both.is_empty())?;
    let (call, name) = both.split_once(' ').expect("AMY_FAULT names a call and an error");
    if name == "delay" {
        return Some(Fault { call: call.to_string(), errno: None });
    }
    let known = ERRNOS.iter().find(|known| known.0 == name);
    let (_, errno) = known.unwrap_or_else(|| panic!("{name} is not in the table"));
    Some(Fault { call: call.to_string(), errno: Some(*errno) })
}

/// The open descriptors of this process and what each is, but for those that list them.
fn descriptors() -> BTreeMap<u32, String> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let numbers: Vec<u32> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap())
        .collect();
    numbers
        .into_iter()
        .filter_map(|number| {
            let link = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
            let link = link.into_os_string().into_string().unwrap();
            (!link.starts_with("/proc/")).then_some((number, link))
        })
        .collect()
}
