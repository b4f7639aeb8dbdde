//! A load balancer for TCP: to both sides it looks like the other one.
//!
//! ```text
//!              connections        +----------+  read, write, connect
//!  +--------+  (a channel each)   | worker 1 +<---------------------->  clients, backends
//!  |  main  +---------+---------->|  poller  |
//!  | accept |         |           +----+-----+
//!  +--------+         |                |  who is up, who has how many (atomics)
//!                     |           +----+-----+    failures    +---------+  connect
//!                     +---------->| worker 2 +--------------->| checker +<--------->  backends
//!                                 |  poller  |  (a channel)   |  poller |
//!                                 +----------+                +---------+
//! ```
//!
//! A worker keeps a session for its whole life: both sockets and its timers are with one poller, so no
//! session is ever locked. The checker is apart, so that the intervals of its checks do not depend on
//! the traffic, and it alone writes to stderr. Picking a backend needs no thread's answer: the counts
//! are atomics. Two threads that pick at the same time may see the same least; the next ones even it out.
//!
//! What a session promises:
//!
//! - An end is passed on when all before it has been, as an end of that direction alone. A session is
//!   over when both have ended. All else (a reset, a timeout, no backend) is a reset for both sides:
//!   half of an answer must never look like all of it.
//! - One read for each direction is held at most, so a reader that is slow makes its sender slow.
//! - A client is tried with each backend once. Bytes are moved only after one has been reached, so
//!   nothing is ever sent twice.

mod backends;
mod session;
mod worker;

use amy::{Event, Poller};
use amy_servers::{Acceptor, Stop, listen, raise_descriptor_limit, run, within};
use backends::{BACKENDS_MAX, Backends, Balance, Checker, Checks};
use std::{
    error::Error,
    net::SocketAddr,
    process::ExitCode,
    sync::{Arc, mpsc::TryRecvError},
    thread,
    time::Duration,
};
use worker::{Settings, Worker};

const HELP: &str = "\
Usage: proxy --backend ADDRESS [OPTIONS]

A TCP load balancer. Both sides see what they would see without it.

  --listen ADDRESS        where to listen [127.0.0.1:7300]
  --backend ADDRESS       whom to connect clients to; up to 64 of them
  --balance HOW           round-robin or least-connections [round-robin]
  --threads N             threads that move bytes [1]
  --connections N         clients at a time; the others wait [10000]
  --buffer BYTES          what is held for each direction at most [65536]
  --connect MILLISECONDS  how long to wait for a backend, before the next is tried [2000]
  --idle SECONDS          a session on which nothing moves is reset after that [300]
  --check MILLISECONDS    how often, and for how long, each backend is checked [1000]
  --rise N                checks in a row that bring a backend up [2]
  --fall N                failed checks in a row that take it down [3]
  --drain SECONDS         how long sessions may go on after SIGTERM or Ctrl-C; a second
                          signal ends them at once [30]
  -h, --help              print this

A backend that a client could not be connected to is down at once. When all are down, each is
tried nevertheless.";

struct Options {
    listen: SocketAddr,
    backends: Vec<SocketAddr>,
    balance: Balance,
    threads: usize,
    connections: usize,
    buffer: usize,
    connect: Duration,
    idle: Duration,
    checks: Checks,
    drain: Duration,
}

fn address(option: &str, text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{option} takes an address such as 127.0.0.1:7300"))
}

fn parse(mut args: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;

    let mut options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 7300)),
        backends: Vec::new(),
        balance: Balance::RoundRobin,
        threads: 1,
        connections: 10_000,
        buffer: 65_536,
        connect: Duration::from_secs(2),
        idle: Duration::from_secs(300),
        checks: Checks { interval: Duration::from_secs(1), rise: 2, fall: 3 },
        drain: Duration::from_secs(30),
    };
    while let Some(arg) = args.next()? {
        let option = match arg {
            Short('h') | Long("help") => return Ok(None),
            Long(name) => format!("--{name}"),
            other => return Err(other.unexpected()),
        };
        let mut value = || args.value()?.string();
        match option.as_str() {
            "--listen" => options.listen = address(&option, &value()?)?,
            "--backend" => options.backends.push(address(&option, &value()?)?),
            "--balance" => {
                options.balance = match value()?.as_str() {
                    "round-robin" => Balance::RoundRobin,
                    "least-connections" => Balance::LeastConnections,
                    _ => Err("--balance takes round-robin or least-connections")?,
                }
            }
            "--threads" => options.threads = within(&option, &value()?, 1..=256)?,
            "--connections" => options.connections = within(&option, &value()?, 1..=10_000_000)?,
            "--buffer" => options.buffer = within(&option, &value()?, 1..=16 << 20)?,
            "--connect" => {
                options.connect = Duration::from_millis(within(&option, &value()?, 1..=600_000)?);
            }
            "--idle" => {
                options.idle = Duration::from_secs(within(&option, &value()?, 1..=1 << 31)?)
            }
            "--check" => {
                let every = within(&option, &value()?, 1..=3_600_000)?;
                options.checks.interval = Duration::from_millis(every);
            }
            "--rise" => options.checks.rise = within(&option, &value()?, 1..=1000)?,
            "--fall" => options.checks.fall = within(&option, &value()?, 1..=1000)?,
            "--drain" => {
                options.drain = Duration::from_secs(within(&option, &value()?, 0..=1 << 31)?)
            }
            _ => return Err(lexopt::Error::UnexpectedOption(option)),
        }
    }
    match options.backends.len() {
        0 => Err("--backend is needed")?,
        1..=BACKENDS_MAX => Ok(Some(options)),
        _ => Err(format!("--backend can be given {BACKENDS_MAX} times"))?,
    }
}

/// How many sessions there are descriptors for. A client that is accepted needs a second one, so the
/// last ones must not all go to clients, who would then wait for each other.
fn sessions_max(options: &Options) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    // Each poller has a few; the checks have one for each backend; the rest is for the process.
    let others = 20 + 4 * options.threads + options.backends.len();
    (limit.saturating_sub(others) / 2).clamp(1, options.connections)
}

fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    raise_descriptor_limit();
    let stop = Stop::on_signals()?;
    let again = stop.try_clone()?;
    let listener = listen(options.listen)?;
    let acceptor = Acceptor::new(listener, stop, sessions_max(&options))?;

    let backends = Arc::new(Backends::new(&options.backends, options.balance));
    let poller = Poller::new()?;
    let (failures, failed) = poller.get_registrar().channel()?;
    let checker = Checker::new(poller, Arc::clone(&backends), options.checks, failed)?;
    let settings = Settings {
        backends,
        failures,
        connect_timeout: options.connect,
        idle: options.idle,
        buffer: options.buffer,
    };

    // The threads' results, which also tell by their end that the last thread is gone.
    let mut poller = Poller::new()?;
    let registrar = poller.get_registrar();
    let (done, results) = registrar.channel()?;
    let (mut senders, mut ends) = (Vec::new(), Vec::new());
    for number in 1..=options.threads {
        let (worker, sender, end) = Worker::new(settings.clone())?;
        senders.push(sender);
        ends.push(end);
        let done = done.clone();
        let name = format!("worker {number}");
        thread::Builder::new().name(name).spawn(move || done.send(worker.run()))?;
    }
    drop(settings);
    thread::Builder::new().name("checker".into()).spawn(move || done.send(checker.run()))?;

    println!("listening on {}", acceptor.local_addr()?);
    acceptor.run(&senders)?;
    drop(senders); // the workers go on until their sessions are over

    again.take();
    let again_id = registrar.register(&again, Event::Read)?;
    let late = registrar.set_timeout(options.drain)?;
    loop {
        for n in &poller.wait(None)? {
            if n.id == again_id || n.id == late.get_id() {
                for end in &ends {
                    let _ = end.notify(); // unless the worker has ended
                }
            }
        }
        loop {
            match results.try_recv() {
                Ok(result) => result?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }
}

fn main() -> ExitCode {
    run("proxy", HELP, parse, serve)
}
