//! The state of `kv`, the same on three or five machines, for as long as most of them are up.
//!
//! ```text
//!               connections          requests           messages
//!  +----------+   (channel)  +---------+ (channel) +------+ (channel) +-----------+
//!  | acceptor +------------->| clients +---------->| raft +---------->| transport |
//!  +----------+              |         |<----------+      |<----------+           |
//!       ^                    +---------+  answers  +------+  messages +-----------+
//!       |                      ^  |               ticks ^ |            ^   |
//!     listener,         read,  |  v  write        (timer) v     read,  |   v  write
//!   Ctrl-C, SIGTERM           sockets                   disk          peers
//! ```
//!
//! Four threads, each with a poller of its own. Only the raft thread touches the state and the disk, and
//! it alone ever waits for anything but its poller: for the disk. What comes meanwhile shares the next
//! write, so many clients cost the disk hardly more than one.
//!
//! Consensus is the `raft` crate's; see `node.rs` for the order in which things become true.

mod clients;
mod history;
mod node;
mod self_test;
mod store;
mod transport;

use amy::Poller;
use amy_servers::{Acceptor, Stop, log, raise_descriptor_limit, run, within};
use lexopt::{Arg, Parser, ValueExt};
use std::{
    collections::BTreeMap,
    error::Error,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

const HELP: &str = "\
The same keys and values on several machines; for clients of the Redis protocol.

Usage: cluster --id N --peers N=ADDRESS,... --listen ADDRESS --data DIR
       cluster --self-test [--nodes N]

  --id N               which of the peers this one is
  --peers LIST         all nodes, 1=10.0.0.1:7001,2=10.0.0.2:7001,...: the same list on each. What
                       connects there is trusted: keep it a network of their own
  --listen ADDRESS     where clients connect
  --advertise ADDRESS  where clients are sent to when this node leads (what --listen says)
  --data DIR           where the log and the snapshots are
  --snapshot-bytes N   a snapshot is taken when the log has grown by so much, and by more than the
                       last one has (4194304)
  --connections N      how many clients at a time (10000)
  --idle SECONDS       when a client that says nothing is sent away (300)
  --self-test          start nodes on this machine, kill them under load, and check what clients saw
  --nodes N            how many, for --self-test (3)
  --help               this

Ask any node: one that does not lead answers -MOVED with the address of the one that does, which
cluster clients follow (redis-cli -c). CLUSTER INFO tells how a node sees itself.";

/// What is done wrong on purpose, to see the self-test fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A SET is acknowledged when it is proposed.
    EarlyAnswers,
    /// Reads are answered by whoever is asked, from what it has.
    StaleReads,
    /// Nothing that was on disk is there after a restart.
    Forgetting,
}

impl Fault {
    const ALL: [Fault; 3] = [Fault::EarlyAnswers, Fault::StaleReads, Fault::Forgetting];

    fn name(self) -> &'static str {
        match self {
            Fault::EarlyAnswers => "early-answers",
            Fault::StaleReads => "stale-reads",
            Fault::Forgetting => "forgetting",
        }
    }
}

struct Options {
    id: u64,
    peers: BTreeMap<u64, SocketAddr>,
    listen: SocketAddr,
    advertise: Option<SocketAddr>,
    data: PathBuf,
    snapshot_bytes: usize,
    connections: usize,
    idle: Duration,
    fault: Option<Fault>,
}

enum Task {
    Serve(Options),
    SelfTest(u64, Option<Fault>),
}

fn main() -> ExitCode {
    run("cluster", HELP, parse, |task| match task {
        Task::Serve(options) => serve(&options),
        Task::SelfTest(nodes, fault) => self_test::run(nodes, fault),
    })
}

fn parse(mut args: Parser) -> Result<Option<Task>, lexopt::Error> {
    let (mut id, mut peers, mut listen, mut data) = (None, None, None, None);
    let (mut advertise, mut fault, mut self_test, mut nodes) = (None, None, false, 3);
    let (mut snapshot_bytes, mut connections, mut idle) = (4 << 20, 10_000, 300);
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("id") => id = Some(within("--id", &args.value()?.string()?, 1..=u64::MAX)?),
            Arg::Long("peers") => peers = Some(peers_of(&args.value()?.string()?)?),
            Arg::Long("listen") => listen = Some(address("--listen", &args.value()?.string()?)?),
            Arg::Long("advertise") => {
                advertise = Some(address("--advertise", &args.value()?.string()?)?);
            }
            Arg::Long("data") => data = Some(PathBuf::from(args.value()?)),
            Arg::Long("snapshot-bytes") => {
                let value = args.value()?.string()?;
                snapshot_bytes = within("--snapshot-bytes", &value, 1024..=1 << 30)?;
            }
            Arg::Long("connections") => {
                connections = within("--connections", &args.value()?.string()?, 1..=1_000_000)?;
            }
            Arg::Long("idle") => idle = within("--idle", &args.value()?.string()?, 1..=86_400)?,
            Arg::Long("self-test") => self_test = true,
            Arg::Long("nodes") => nodes = within("--nodes", &args.value()?.string()?, 3..=7)?,
            // Not in the help: nobody is to run a cluster with it.
            Arg::Long("fault") => {
                let name = args.value()?.string()?;
                let found = Fault::ALL.into_iter().find(|fault| fault.name() == name);
                fault = Some(found.ok_or_else(|| format!("no such fault: {name}"))?);
            }
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    if self_test {
        return Ok(Some(Task::SelfTest(nodes, fault)));
    }
    let id = id.ok_or("--id is needed")?;
    let peers: BTreeMap<u64, SocketAddr> = peers.ok_or("--peers is needed")?;
    let listen = listen.ok_or("--listen is needed")?;
    let data = data.ok_or("--data is needed")?;
    if !peers.contains_key(&id) {
        return Err(format!("--id {id} is none of --peers").into());
    }
    let idle = Duration::from_secs(idle);
    Ok(Some(Task::Serve(Options {
        id,
        peers,
        listen,
        advertise,
        data,
        snapshot_bytes,
        connections,
        idle,
        fault,
    })))
}

fn address(option: &str, text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{option} takes an address and a port, 127.0.0.1:6379 say"))
}

fn peers_of(text: &str) -> Result<BTreeMap<u64, SocketAddr>, String> {
    let mut peers = BTreeMap::new();
    for pair in text.split(',') {
        let (id, at) = pair.split_once('=').ok_or("--peers takes N=ADDRESS,N=ADDRESS,...")?;
        let at = address("--peers", at)?;
        if at.port() == 0 {
            return Err("--peers takes ports that the others know, not 0".to_owned());
        }
        if peers.values().any(|other| *other == at) {
            return Err(format!("--peers has {at} twice"));
        }
        if peers.insert(within("--peers", id, 1..=u64::MAX)?, at).is_some() {
            return Err(format!("--peers has node {id} twice"));
        }
    }
    match peers.len() {
        1 | 3 | 5 | 7 => Ok(peers),
        // Of four, three have to be up, so one may fail, as of three.
        n => Err(format!("--peers takes 1, 3, 5 or 7 nodes, not {n}")),
    }
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    raise_descriptor_limit();
    if options.fault == Some(Fault::Forgetting) {
        let _ = std::fs::remove_dir_all(&options.data);
    }
    // As in `or_exit`.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let stop = Stop::on_signals()?;
    let at = options.peers[&options.id];
    let peers_listener = TcpListener::bind(at).map_err(|error| format!("{at}: {error}"))?;
    let listener = TcpListener::bind(options.listen)
        .map_err(|error| format!("{}: {error}", options.listen))?;
    let acceptor = Acceptor::new(listener, stop, options.connections)?;
    let address = acceptor.local_addr()?;
    let advertised = options.advertise.unwrap_or(address).to_string();

    let [of_clients, of_node, of_transport] = [Poller::new()?, Poller::new()?, Poller::new()?];
    let (accepted_tx, accepted) = of_clients.get_registrar().channel()?;
    let (answers_tx, answers) = of_clients.get_registrar().channel()?;
    let (requests_tx, requests) = of_node.get_registrar().channel()?;
    let (heard_tx, heard) = of_node.get_registrar().sync_channel(transport::HEARD_MAX)?;
    let (messages_tx, messages) = of_transport.get_registrar().channel()?;
    let node = node::Node::new(options, advertised.clone(), answers_tx, messages_tx)?;
    let clients = clients::Clients::new(of_clients, options.idle, requests_tx);
    let transport = transport::Transport::new(
        of_transport,
        peers_listener,
        options.id,
        advertised,
        &options.peers,
        heard_tx,
    )?;
    println!("listening on {address}");

    // Each ends when the one before it has dropped its senders: the clients first, the peers last.
    std::thread::scope(|scope| {
        scope.spawn(move || or_exit(clients.run(&accepted, &answers)));
        scope.spawn(move || or_exit(node.run(of_node, &requests, &heard)));
        scope.spawn(move || or_exit(transport.run(&messages)));
        Ok(acceptor.run(&[accepted_tx])?)
    })
}

/// A node without one of its threads is worse than none: the others go on without it.
fn or_exit<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        log(format_args!("cluster: {error}"));
        std::process::exit(1);
    }
}
