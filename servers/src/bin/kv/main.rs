//! A key-value server that speaks the Redis protocol.
//!
//! ```text
//!              +----------+  clients   +-----------+  commands  +----------+   keys that   +---------+
//!  listener ---+ acceptor +----------->|  pollers  +----------->| workers  +-------------->|  store  |
//!              +----------+  (channel) | (--pollers|  (a batch  |(--workers|    changed    | (--data |
//!                                      |        N) |   of one   |        M)|               |     DIR)|
//!   sockets <------------------------->|           |   client)  |          |               |         |
//!                                      +-----------+            +----------+               +---------+
//!                                            ^    replies (channel)  |                          |
//!                                            +-----------------------+--------------------------+
//! ```
//!
//! The acceptor deals clients out; each poller's thread reads, parses and writes for its share of them.
//! Commands are carried out by the workers, or, without any, on the poller's own thread: a command
//! takes less time than handing it over, so that is the default. Expiry is one timer of the first
//! poller, set to the key that expires next.
//!
//! With `--data`, a last thread writes what changed to an embedded store, and under `--sync always`
//! replies are held back until what they tell of is on disk.

mod engine;
mod network;
mod store;

use amy::Poller;
use amy_servers::{Acceptor, Stop, listen, raise_descriptor_limit, resp::Limits, run, within};
use engine::Engine;
use network::{Hands, Network};
use std::{
    error::Error,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};
use store::{Store, Sync};

const HELP: &str = "\
A key-value server that speaks the Redis protocol.

Usage: kv [OPTIONS]

  --listen ADDRESS     where to listen (127.0.0.1:6379)
  --pollers N          threads that read and write (1)
  --workers N          threads that carry commands out (0: those that read and write)
  --connections N      how many clients at a time; more have to wait (10000)
  --idle SECONDS       when to leave a client that says nothing (300; 0: never)
  --request-bytes N    the most that one command may have (16777216)
  --data DIR           keep everything in a store in this directory
  --sync WHEN          with --data: always (acknowledge what is on disk) or
                       interval (on disk within a second) (always); while
                       the store cannot be written, writes are refused
  --help               this text";

struct Options {
    listen: SocketAddr,
    pollers: usize,
    workers: usize,
    connections: usize,
    idle: u64,
    limits: Limits,
    data: Option<PathBuf>,
    sync: Sync,
}

fn main() -> ExitCode {
    run("kv", HELP, parse, serve)
}

fn parse(mut args: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;

    let mut options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 6379)),
        pollers: 1,
        workers: 0,
        connections: 10_000,
        idle: 300,
        limits: Limits::default(),
        data: None,
        sync: Sync::Always,
    };
    while let Some(arg) = args.next()? {
        match arg {
            Long("listen") => options.listen = args.value()?.parse()?,
            Long("pollers") => {
                options.pollers = args.value()?.parse_with(|n| within("--pollers", n, 1..=256))?;
            }
            Long("workers") => {
                options.workers = args.value()?.parse_with(|n| within("--workers", n, 0..=256))?;
            }
            Long("connections") => {
                options.connections =
                    args.value()?.parse_with(|n| within("--connections", n, 1..=1_000_000))?;
            }
            Long("idle") => {
                options.idle = args.value()?.parse_with(|n| within("--idle", n, 0..=86_400))?;
            }
            Long("request-bytes") => {
                options.limits.bytes_max =
                    args.value()?.parse_with(|n| within("--request-bytes", n, 64..=512 << 20))?;
            }
            Long("data") => options.data = Some(args.value()?.into()),
            Long("sync") => {
                options.sync = args.value()?.parse_with(|when| match when {
                    "always" => Ok(Sync::Always),
                    "interval" => Ok(Sync::Interval),
                    _ => Err("--sync takes always or interval"),
                })?;
            }
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    raise_descriptor_limit();
    let stop = Stop::on_signals()?;
    let listener = listen(options.listen)?;

    let pollers: Vec<_> = (0..options.pollers).map(|_| Poller::new()).collect::<Result<_, _>>()?;
    let expiry = pollers[0].get_registrar().set_timeout(Duration::MAX)?;
    let engine = Arc::new(Engine::new(expiry, options.data.is_some().then_some(options.sync)));
    let store = match &options.data {
        Some(directory) => Some(Store::open(directory, &engine).map_err(|error| {
            format!("cannot open the store in {}: {error}", directory.display())
        })?),
        None => None,
    };

    thread::scope(|scope| {
        let mut hands = Hands { engine: Arc::clone(&engine), workers: Vec::new(), store: None };
        let mut saving = None;
        if let Some((store, desk)) = store {
            let engine = &engine;
            saving = Some(scope.spawn(move || store.run(engine, options.sync)));
            hands.store = Some(desk);
        }
        let mut workers = Vec::new();
        for _ in 0..options.workers {
            let (worker, jobs) = mpsc::channel();
            let hands = hands.clone();
            scope.spawn(move || hands.work(&jobs));
            workers.push(worker);
        }
        hands.workers = workers;

        let idle = (options.idle > 0).then(|| Duration::from_secs(options.idle));
        let (mut receivers, mut networks) = (Vec::new(), Vec::new());
        for poller in pollers {
            let (newcomers, accepted) = poller.get_registrar().channel()?;
            receivers.push(newcomers);
            let network = Network::new(poller, accepted, hands.clone(), options.limits, idle)?;
            networks.push(scope.spawn(|| network.run()));
        }
        drop(hands);

        let acceptor = Acceptor::new(listener, stop, options.connections)?;
        println!("listening on {}; Ctrl-C ends", acceptor.local_addr()?);
        acceptor.run(&receivers)?;
        // Tells the pollers' threads to end, and they the workers, and they the store.
        drop(receivers);
        for network in networks {
            network.join().expect("a thread of a poller panicked")?;
        }
        if let Some(saving) = saving {
            saving.join().expect("the store's thread panicked")?;
        }
        Ok(())
    })
}
