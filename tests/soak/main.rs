//! Everything together for a while: what went in came out, once and in order, and nothing is left.
//!
//! One server on two waiting threads; clients that flood it, read slowly, close one half and reset;
//! timers, channels and signals all the while. `AMY_SOAK_SECONDS` says for how long; `ci/soak.sh`
//! asks for minutes. From half a minute on, memory must stay where it was after warm-up.

#![cfg(target_os = "linux")]

mod clients;
mod server;

use server::Server;
use signal_hook::consts::SIGUSR1;
use std::{
    env, fs,
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

            while start.elapsed() < length {
                if busy.iter().chain(&waiters).any(|thread| thread.is_finished()) {
                    // It has said why. The others would go on for ever.
                    eprintln!("soak: a thread gave up");
                    std::process::exit(1);
                }
                memory.push((start.elapsed(), resident_bytes()));
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

/// The second number of `/proc/self/statm` is in pages.
fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}
