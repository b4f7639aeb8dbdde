//! A server for files below a directory, and for a little JSON, over HTTP/1.1.
//!
//! ```text
//!              +----------+  connections  +------------------------------------+
//!  listener ---+ acceptor +-------------->|  thread with a poller              |
//!              +----------+   (channel)   |  wait -> read, understand, answer  +---- sockets
//!                    |                    +------------------------------------+
//!                    |                    +------------------------------------+
//!                    +------------------->|  thread with a poller  (--threads) +---- sockets
//!                                         +------------------------------------+
//! ```
//!
//! The acceptor deals connections out, and each thread does everything for its share of them: what a
//! request asks for is a file, which the kernel sends, or a line of JSON. Nothing is worth a hand-over.
//! A file that is not in the page cache makes its thread wait for the disk, and those who share it.

mod answer;
mod conn;
mod files;
mod request;

use amy::{Event, IdMap, Notification, Poller, Receiver, Registrar};
use amy_servers::{
    Accepted, Acceptor, Farewell, Next, Stop, Unfinished, listen, raise_descriptor_limit, run,
    within,
};
use conn::Conn;
use files::Root;
use std::{
    error::Error,
    io,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::TryRecvError,
    },
    thread,
    time::{Duration, Instant},
};

const HELP: &str = "\
A server for files and a little JSON over HTTP/1.1.

Usage: http --root DIR [OPTIONS]

  --root DIR           the directory whose files are served
  --listen ADDRESS     where to listen (127.0.0.1:8080)
  --threads N          how many threads serve (1)
  --connections N      how many at a time; more have to wait (10000)
  --idle SECONDS       when to leave who neither sends nor takes anything (60)
  --head-seconds S     how long the head of a request may take (10)
  --head-bytes N       how long it may be (16384)
  --body-bytes N       how long the body of a request may be (1048576)
  --help               this text

GET /api/status      counters, as JSON
POST /api/echo       what it was sent, if that is JSON";

/// What all threads share.
struct Server {
    root: Root,
    idle: Duration,
    head_timeout: Duration,
    head_max: usize,
    body_max: usize,
    started: Instant,
    connections: AtomicU64,
    requests: AtomicU64,
}

struct Options {
    root: PathBuf,
    listen: SocketAddr,
    threads: usize,
    connections: usize,
    idle: u64,
    head_seconds: u64,
    head_bytes: usize,
    body_bytes: usize,
}

fn main() -> ExitCode {
    run("http", HELP, parse, serve)
}

fn parse(mut args: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;

    let mut root = None;
    let mut options = Options {
        root: PathBuf::new(),
        listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
        threads: 1,
        connections: 10_000,
        idle: 60,
        head_seconds: 10,
        head_bytes: 16 * 1024,
        body_bytes: 1 << 20,
    };
    while let Some(arg) = args.next()? {
        match arg {
            Long("root") => root = Some(args.value()?.into()),
            Long("listen") => options.listen = args.value()?.parse()?,
            Long("threads") => {
                options.threads = args.value()?.parse_with(|n| within("--threads", n, 1..=256))?;
            }
            Long("connections") => {
                options.connections =
                    args.value()?.parse_with(|n| within("--connections", n, 1..=1_000_000))?;
            }
            Long("idle") => {
                options.idle = args.value()?.parse_with(|n| within("--idle", n, 1..=86_400))?;
            }
            Long("head-seconds") => {
                options.head_seconds =
                    args.value()?.parse_with(|n| within("--head-seconds", n, 1..=86_400))?;
            }
            Long("head-bytes") => {
                options.head_bytes =
                    args.value()?.parse_with(|n| within("--head-bytes", n, 64..=1 << 20))?;
            }
            Long("body-bytes") => {
                options.body_bytes =
                    args.value()?.parse_with(|n| within("--body-bytes", n, 0..=1 << 30))?;
            }
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    options.root = root.ok_or("--root is needed: the directory whose files are served")?;
    Ok(Some(options))
}

fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    raise_descriptor_limit();
    let stop = Stop::on_signals()?;
    let root = Root::open(&options.root)
        .map_err(|error| format!("cannot serve {}: {error}", options.root.display()))?;
    let listener = listen(options.listen)?;
    let server = Server {
        root,
        idle: Duration::from_secs(options.idle),
        head_timeout: Duration::from_secs(options.head_seconds),
        head_max: options.head_bytes,
        body_max: options.body_bytes,
        started: Instant::now(),
        connections: AtomicU64::new(0),
        requests: AtomicU64::new(0),
    };

    thread::scope(|scope| {
        let (mut receivers, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..options.threads {
            let poller = Poller::new()?;
            let registrar = poller.get_registrar();
            let (newcomers, accepted) = registrar.channel()?;
            receivers.push(newcomers);
            let server = &server;
            threads.push(scope.spawn(move || {
                let (conns, timers) = (IdMap::default(), IdMap::default());
                let unfinished = Unfinished::default();
                Thread { poller, registrar, accepted, server, conns, timers, unfinished }.run()
            }));
        }
        let acceptor = Acceptor::new(listener, stop, options.connections)?;
        println!("listening on {}; Ctrl-C ends", acceptor.local_addr()?);
        acceptor.run(&receivers)?;
        drop(receivers); // tells the threads to end
        for thread in threads {
            thread.join().expect("a thread panicked")?;
        }
        Ok(())
    })
}

/// A poller and its share of the connections.
struct Thread<'a> {
    poller: Poller,
    registrar: Registrar,
    accepted: Receiver<Accepted>,
    server: &'a Server,
    conns: IdMap<Conn>,
    /// From the id of a timer to that of its connection.
    timers: IdMap<usize>,
    unfinished: Unfinished,
}

impl Thread<'_> {
    /// Serves until nobody accepts connections any more, and the answers under way have left.
    fn run(mut self) -> io::Result<()> {
        let mut farewell = Farewell::default();
        loop {
            let timeout = self.unfinished.timeout().or_else(|| farewell.timeout());
            let batch = self.poller.wait(timeout)?.to_vec();
            for _ in 0..self.unfinished.len() {
                if let Some(id) = self.unfinished.pop() {
                    self.with(id, |conn, server| conn.turn(server));
                }
            }
            for n in batch {
                if self.told(n) && farewell.begin() {
                    let ids: Vec<_> = self.conns.keys().copied().collect();
                    for id in ids {
                        self.with(id, |conn, _| Ok(conn.finish()));
                    }
                }
            }
            if farewell.is_over(self.conns.len()) {
                return Ok(());
            }
        }
    }

    /// Does what a notification asks for, and returns whether it was that nobody accepts any more.
    fn told(&mut self, n: Notification) -> bool {
        if n.id == self.accepted.get_id() {
            loop {
                match self.accepted.try_recv() {
                    // A connection that fails at once is its own trouble.
                    Ok(accepted) => drop(self.add(accepted)),
                    Err(TryRecvError::Empty) => return false,
                    Err(TryRecvError::Disconnected) => return true,
                }
            }
        } else if let Some(id) = self.timers.get(&n.id).copied() {
            self.with(id, |conn, server| conn.rang(server));
        } else {
            self.with(n.id, |conn, server| {
                conn.readable |= n.event.readable();
                conn.turn(server)
            });
        }
        false
    }

    fn add(&mut self, Accepted { sock, place, .. }: Accepted) -> io::Result<()> {
        let timer = self.registrar.set_timeout(self.server.idle)?;
        let id = self.registrar.register(&sock, Event::Both)?;
        self.server.connections.fetch_add(1, Ordering::Relaxed);
        self.timers.insert(timer.get_id(), id);
        self.conns.insert(id, Conn::new(sock, place, timer, self.server.idle));
        Ok(())
    }

    fn with(&mut self, id: usize, turn: impl FnOnce(&mut Conn, &Server) -> io::Result<Next>) {
        // An id that is not there was on its way when its connection ended.
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match turn(conn, self.server) {
            Ok(Next::Wait) => {}
            Ok(Next::Again) => self.unfinished.push(id),
            Ok(Next::Remove) | Err(_) => {
                if let Some(conn) = self.conns.remove(&id) {
                    self.timers.remove(&conn.timer_id());
                    let _ = self.registrar.deregister(&conn.sock);
                }
            }
        }
    }
}
