//! Everything together for a while: what went in came out, once and in order, and nothing is left.
//!
//! One server on two waiting threads; clients that flood it, read slowly, close one half and reset;
//! timers, channels and signals all the while, and moments without descriptors. `AMY_SOAK_SECONDS`
//! says for how long; `ci/soak.sh` asks for minutes. From half a minute on, memory must stay where
//! it was after warm-up.

#![cfg(target_os = "linux")]

mod clients;
mod server;

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use server::Server;
use signal_hook::consts::SIGUSR1;
use std::{
    env, fs, io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Only something that hangs takes longer.
const LONG: Duration = Duration::from_secs(60);

/// How long a run must be for its memory to be judged.
const STEADY: Duration = Duration::from_secs(30);

/// What the clients see of the end, and what they did.
struct Field {
    address: SocketAddr,
    over: AtomicBool,
    echoes: AtomicU64,
    sessions: AtomicU64,
    resets: AtomicU64,
}

impl Field {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

#[test]
fn everything_at_once_loses_nothing_and_leaves_nothing() {
    let seconds = env::var("AMY_SOAK_SECONDS").ok().map_or(2, |n| n.parse().expect("a number"));
    let length = Duration::from_secs(seconds);
    let signals = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGUSR1, Arc::clone(&signals)).unwrap();

    let descriptors = descriptors();
    let start = Instant::now();
    let mut memory = Vec::new();
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let field = Field {
            address: listener.local_addr().unwrap(),
            over: AtomicBool::new(false),
            echoes: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            resets: AtomicU64::new(0),
        };
        let server = Server::new(listener);
        thread::scope(|scope| {
            let waiters: Vec<_> = (0..2).map(|_| scope.spawn(|| server.wait())).collect();
            let works: [fn(&Field); 5] = [
                clients::flood,
                clients::flood,
                clients::read_slowly,
                clients::close_one_half,
                clients::reset,
            ];
            let field = &field;
            let mut busy: Vec<_> =
                works.into_iter().map(|work| scope.spawn(move || work(field))).collect();
            busy.push(scope.spawn(|| server.send(field)));
            busy.push(scope.spawn(|| server.send_bounded(field)));
            busy.push(scope.spawn(|| server.set_timers(field)));
            busy.push(scope.spawn(|| server.interrupt(field)));
            // The limit of an emulated process is that of its emulator, which has to go on.
            if env::var_os("AMY_TEST_RUNNER").is_none() {
                busy.push(scope.spawn(|| exhaust_descriptors(field)));
            }

            while start.elapsed() < length {
                if busy.iter().chain(&waiters).any(|thread| thread.is_finished()) {
                    // It has said why. The others would go on for ever.
                    eprintln!("soak: a thread gave up");
                    std::process::exit(1);
                }
                memory.extend(resident_bytes().map(|bytes| (start.elapsed(), bytes)));
                thread::sleep(Duration::from_millis(50));
            }
            field.over.store(true, Ordering::SeqCst);
            busy.into_iter().for_each(|work| work.join().unwrap());
            server.finish();
            waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        });
        println!(
            "soak: {} echoes in {} sessions, {} of them reset; {server:?}",
            field.echoes.into_inner(),
            field.sessions.into_inner(),
            field.resets.into_inner(),
        );
        assert!(signals.load(Ordering::SeqCst), "no signal was delivered");
    }
    assert_eq!(self::descriptors(), descriptors);

    let most = |from: f64, to: f64| {
        let within = |at: &Duration| {
            let part = at.as_secs_f64() / length.as_secs_f64();
            part >= from && part < to
        };
        memory.iter().filter(|(at, _)| within(at)).map(|(_, bytes)| *bytes).max().unwrap_or(0)
    };
    let (early, late) = (most(0.2, 0.5), most(0.5, 1.0));
    println!("soak: {:.1?}, memory {} KiB, then {} KiB", start.elapsed(), early >> 10, late >> 10);
    if length >= STEADY {
        assert!(late <= early + early / 4 + (8 << 20), "memory grew from {early} to {late} bytes");
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Again and again, for a moment: whoever needs a new descriptor is refused, and comes back.
fn exhaust_descriptors(field: &Field) {
    let before = getrlimit(Resource::Nofile);
    while !field.is_over() {
        // 3 is in use, and may be asked for: `try_clone` asks for it or more (EINVAL in fcntl(2)).
        setrlimit(Resource::Nofile, Rlimit { current: Some(4), ..before }).unwrap();
        thread::sleep(Duration::from_millis(1));
        setrlimit(Resource::Nofile, before).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
}

/// Does it again as long as there is no descriptor for it.
fn patiently<T>(mut f: impl FnMut() -> io::Result<T>) -> T {
    loop {
        match f() {
            Err(error) if is_exhausted(&error) => thread::sleep(Duration::from_millis(1)),
            result => return result.unwrap(),
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::MFILE)
}

/// The second number of `/proc/self/statm` is in pages. Nothing when there is no descriptor.
fn resident_bytes() -> Option<usize> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    Some(pages * rustix::param::page_size())
}
