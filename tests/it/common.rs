//! What the tests share: connected pairs, waits that end, threads known to be asleep.

use amy::{Notification, Poller, Registrar, Timeout};
use std::{
    env, fs,
    io::{self, ErrorKind, Read},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Only something that hangs takes longer.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn new_poller() -> (Poller, Registrar) {
    let poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    (poller, registrar)
}

/// Two ends that do not block. What is written to one can be read from the other when the write
/// has returned.
pub(crate) fn unix_pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

/// Two ends that do not block. What is written to one takes a moment to reach the other.
pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (b, _) = listener.accept().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

/// Reads until nothing is left or the stream ends, and returns what came before that.
pub(crate) fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    match from.read_to_end(&mut all) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error} after {all:?}"),
        _ => all,
    }
}

/// The one notification that comes next.
pub(crate) fn next(poller: &mut Poller) -> Notification {
    let batch = poller.wait(LONG).unwrap();
    assert_eq!(batch.len(), 1, "{batch:?}");
    batch[0]
}

/// Waits until `id` is told, whatever else is.
pub(crate) fn wait_for(poller: &mut Poller, id: usize) -> Notification {
    let start = Instant::now();
    while start.elapsed() < LONG {
        if let Some(n) = poller.wait(LONG).unwrap().iter().find(|n| n.id == id) {
            return *n;
        }
    }
    panic!("{id} was not told");
}

/// Waits until as many notifications were told as there are `ids`, and checks that each id was
/// among them once.
pub(crate) fn wait_for_each(poller: &mut Poller, ids: &[usize]) {
    let mut told = Vec::new();
    while told.len() < ids.len() {
        let batch = poller.wait(LONG).unwrap();
        assert!(!batch.is_empty(), "{} of {} were told", told.len(), ids.len());
        told.extend(batch.iter().map(|n| n.id));
    }
    assert_eq!(sorted(told), sorted(ids.to_vec()));
}

/// The ids that one `wait` reports. A wait for `LONG` must not take that long: what it finds at its
/// end was there before, and nobody woke it.
pub(crate) fn told(poller: &mut Poller, timeout: impl Into<Timeout>) -> Vec<usize> {
    let timeout = timeout.into();
    let start = Instant::now();
    let ids = poller.wait(timeout).unwrap().iter().map(|n| n.id).collect();
    let hung = timeout == LONG.into() && start.elapsed() >= LONG;
    assert!(!hung, "a wait hung, and then found {ids:?}");
    ids
}

/// The ids of what is ready now.
pub(crate) fn look(poller: &mut Poller) -> Vec<usize> {
    told(poller, 0)
}

pub(crate) fn sorted(mut ids: Vec<usize>) -> Vec<usize> {
    ids.sort_unstable();
    ids
}

/// Waits until `condition` holds, giving way to other threads.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "it never came to this: {what}");
        thread::yield_now();
    }
}

/// Runs `body` on a thread of its own, and fails if it hangs.
pub(crate) fn in_time<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = mpsc::channel();
    let thread = thread::spawn(move || {
        let result = body();
        let _ = done.send(());
        result
    });
    // Disconnected is a panic, which `join` hands on.
    assert_ne!(is_done.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Timeout), "it hangs");
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// A thread that is in `wait`.
pub(crate) struct Sleeper {
    thread: thread::JoinHandle<Woken>,
}

/// How a [`Sleeper`] came back.
pub(crate) struct Woken {
    pub(crate) poller: Poller,
    pub(crate) result: io::Result<Vec<Notification>>,
    /// Measured around the call.
    pub(crate) waited: Duration,
}

impl Sleeper {
    /// Has a thread wait, and returns when it is asleep in the kernel (or came back from it). No
    /// other thread may fall asleep on the same queue or wake up meanwhile.
    pub(crate) fn start(mut poller: Poller, timeout: impl Into<Timeout>) -> Sleeper {
        let timeout = timeout.into();
        let registrar = poller.get_registrar();
        let others = sleepers(&registrar);
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            tell.send(this_thread()).unwrap();
            let start = Instant::now();
            let result = poller.wait(timeout).map(|batch| batch.to_vec());
            Woken { poller, result, waited: start.elapsed() }
        });
        let id = told.recv().unwrap();
        until("the thread sleeps", || {
            thread.is_finished() || (sleepers(&registrar) > others && is_blocked(&id))
        });
        Sleeper { thread }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it came back.
    pub(crate) fn join(self) -> Woken {
        until("the sleeper woke up", || self.is_done());
        self.thread.join().unwrap()
    }

    /// Waits until it came back, and returns the ids that it was told.
    pub(crate) fn ids(self) -> Vec<usize> {
        self.join().ids()
    }
}

impl Woken {
    pub(crate) fn ids(&self) -> Vec<usize> {
        self.result.as_ref().unwrap().iter().map(|n| n.id).collect()
    }
}

/// How many threads are in the kernel or about to be, which a registrar shows in its `Debug` text.
pub(crate) fn sleepers(registrar: &Registrar) -> usize {
    let text = format!("{registrar:?}");
    let (_, number) = text.split_once("asleep: ").expect("the number of sleepers");
    number.split(',').next().unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
pub(crate) type ThreadId = rustix::thread::Pid;
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct ThreadId;

#[cfg(target_os = "linux")]
pub(crate) fn this_thread() -> ThreadId {
    rustix::thread::gettid()
}

#[cfg(target_os = "linux")]
fn is_blocked(thread: &ThreadId) -> bool {
    let path = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    fs::read_to_string(path).is_ok_and(|stat| stat.rsplit(") ").next().unwrap().starts_with('S'))
}

/// Elsewhere a thread that is about to sleep has to do.
#[cfg(not(target_os = "linux"))]
pub(crate) fn this_thread() -> ThreadId {
    ThreadId
}

#[cfg(not(target_os = "linux"))]
fn is_blocked(_: &ThreadId) -> bool {
    true
}

/// Runs the rest of a test in a process of its own, where no other test opens descriptors or gets
/// signals: this binary is run again for this one test.
pub(crate) fn alone(body: impl FnOnce()) {
    if is_alone() {
        return body();
    }
    let output = this_test_alone().output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(" 1 passed"), "{text}\n{errors}");
}

pub(crate) fn is_alone() -> bool {
    env::var_os(ALONE).is_some()
}

const ALONE: &str = "AMY_TEST_ALONE";

/// The command that runs this test in a process of its own, through what `AMY_TEST_RUNNER` says where
/// the binary is one of another processor.
pub(crate) fn this_test_alone() -> Command {
    let runner = env::var("AMY_TEST_RUNNER").unwrap_or_default();
    let binary = env::current_exe().unwrap().into_os_string().into_string().unwrap();
    let mut words = runner.split_whitespace().chain([binary.as_str()]);
    let mut command = Command::new(words.next().expect("the binary at least"));
    let thread = thread::current();
    command.args(words);
    command.args(["--exact", thread.name().expect("the name of a test"), "--nocapture"]);
    command.env(ALONE, "1");
    command
}

/// The numbers of the descriptors that this process has, but for the one used to find out.
pub(crate) fn descriptors() -> Vec<u32> {
    let numbers = fs::read_dir("/dev/fd").unwrap();
    let mut numbers: Vec<u32> = numbers
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    // It is closed by now, so that it cannot be found open.
    numbers.retain(|number| fs::exists(format!("/dev/fd/{number}")).unwrap_or(true));
    numbers.sort_unstable();
    numbers
}

/// The open descriptors of this process, and what each is.
#[cfg(target_os = "linux")]
pub(crate) fn open_files() -> std::collections::BTreeMap<u32, String> {
    let link = |number| fs::read_link(format!("/proc/self/fd/{number}"));
    let named = descriptors().into_iter().filter_map(|number| Some((number, link(number).ok()?)));
    named.map(|(number, link)| (number, link.into_os_string().into_string().unwrap())).collect()
}

/// Counts the writes that a poller's notifiers make in order to wake it: nobody reads them, so they
/// add up in its eventfd (or pipe).
#[cfg(target_os = "linux")]
pub(crate) struct Wakes {
    descriptor: u32,
    link: String,
}

#[cfg(target_os = "linux")]
impl Wakes {
    /// Only where no other thread opens descriptors.
    pub(crate) fn of_a_new_poller() -> (Poller, Wakes) {
        let before = open_files();
        let poller = Poller::new().unwrap();
        let mut new = open_files().into_iter().filter(|(number, _)| !before.contains_key(number));
        let (descriptor, link) =
            new.find(|(_, link)| link.contains("eventfd") || link.starts_with("pipe:")).unwrap();
        (poller, Wakes { descriptor, link })
    }

    pub(crate) fn count(&self) -> u64 {
        if self.link.starts_with("pipe:") {
            let pipe = fs::File::open(format!("/proc/self/fd/{}", self.descriptor)).unwrap();
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
    thread: OnceLock<ThreadId>,
}

impl Bed {
    /// To be called by the thread in question, just before the call that is to sleep.
    pub(crate) fn lie_down(&self) {
        self.thread.set(this_thread()).unwrap();
    }

    /// Returns when that thread sleeps.
    pub(crate) fn watch(&self) {
        until("a thread sleeps", || self.thread.get().is_some_and(is_blocked));
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
