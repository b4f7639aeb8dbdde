//! Nodes as processes of their own, killed, paused and started again under load, and what their clients saw
//! held against what one machine could have answered.

use crate::{
    Fault,
    history::{Op, Record, first_violation},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::{BTreeMap, hash_map::RandomState},
    env,
    error::Error,
    fs,
    hash::BuildHasher,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const CLIENTS: u64 = 6;
/// The first of them are registers, the others counters.
const KEYS: usize = 12;
const REGISTERS: usize = 8;
/// After it, nobody knows whether a write is done.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long load goes on between one trouble and the next.
const CALM: Duration = Duration::from_millis(1200);
const BRIEFLY: Duration = Duration::from_millis(200);
/// A leader or an equal state takes longer only if something is broken.
const LONG: Duration = Duration::from_secs(20);
/// Between a client's operations: the checker's time grows with the square of their number.
const PAUSE: Duration = Duration::from_millis(4);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs all of it, and prints what happened. The error is what does not hold.
pub(crate) fn run(count: u64, fault: Option<Fault>) -> Result<()> {
    let nodes = Nodes::start(count, fault)?;
    let load = Load::new(&nodes);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (load, nodes) = (&load, &nodes);
                scope.spawn(move || Client::new(number, nodes).work(load))
            })
            .collect();
        let troubled = nodes.trouble(&load);
        load.stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| "a client panicked")?;
        }
        troubled
    })?;
    load.verdict(&nodes)
}

/// A node's process, while there is one.
struct Running {
    child: Child,
    clients: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Nodes {
    began: Instant,
    directory: PathBuf,
    peers: BTreeMap<u64, SocketAddr>,
    running: Mutex<BTreeMap<u64, Running>>,
    fault: Option<Fault>,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.lock().clear();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Nodes {
    fn start(count: u64, fault: Option<Fault>) -> Result<Nodes> {
        let directory = env::temp_dir().join(format!("amy-cluster-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let mut peers = BTreeMap::new();
        for (id, listener) in (1..=count).zip(reserve(count)?) {
            peers.insert(id, listener.local_addr()?);
        }
        let running = Mutex::new(BTreeMap::new());
        let nodes = Nodes { began: Instant::now(), directory, peers, running, fault };
        for id in 1..=count {
            nodes.restart(id)?;
        }
        nodes.say(format!("{count} nodes started"));
        Ok(nodes)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Running>> {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn say(&self, what: impl AsRef<str>) {
        println!("{:5.1} s  {}", self.began.elapsed().as_secs_f64(), what.as_ref());
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn restart(&self, id: u64) -> Result<()> {
        let peers: Vec<String> =
            self.peers.iter().map(|(id, address)| format!("{id}={address}")).collect();
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["--id", &id.to_string(), "--peers", &peers.join(","), "--listen", "127.0.0.1:0"])
            .args(["--snapshot-bytes", "65536", "--data"])
            .arg(self.directory.join(id.to_string()));
        if let Some(fault) = self.fault {
            command.args(["--fault", fault.name()]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().strip_prefix("listening on ").and_then(|at| at.parse().ok());
        let mut running = Running { child, clients: SocketAddr::from(([0; 4], 0)) };
        running.clients = address.ok_or_else(|| format!("node {id} does not start"))?;
        self.lock().insert(id, running);
        Ok(())
    }

    fn kill(&self, id: u64) {
        // SIGKILL, in its drop.
        let running = self.lock().remove(&id);
        drop(running);
    }

    fn signal(&self, id: u64, signal: Signal) -> Result<()> {
        let nodes = self.lock();
        let child = &nodes.get(&id).ok_or("no such node")?.child;
        let pid = Pid::from_raw(i32::try_from(child.id())?).ok_or("no such process")?;
        Ok(kill_process(pid, signal)?)
    }

    /// What a node says about itself.
    fn info(&self, id: u64) -> Result<BTreeMap<String, String>> {
        let address = self.lock().get(&id).ok_or("not running")?.clients;
        let lines = Connection::to(address)?.call(&["CLUSTER", "INFO"])?;
        let pairs = lines.lines().filter_map(|line| line.split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Waits for a leader that is not `but`, and says who it is.
    fn leader(&self, but: Option<u64>) -> Result<u64> {
        let start = Instant::now();
        while start.elapsed() < LONG {
            for &id in self.peers.keys().filter(|id| Some(**id) != but) {
                let role = self.info(id).ok().and_then(|mut info| info.remove("role"));
                if role.is_some_and(|role| role == "Leader") {
                    self.say(format!("node {id} leads"));
                    return Ok(id);
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err("there is no leader".into())
    }

    /// All that happens while the clients work.
    fn trouble(&self, load: &Load) -> Result<()> {
        let mut leader = self.leader(None)?;
        thread::sleep(CALM);
        for _ in 0..2 {
            self.kill(leader);
            self.say(format!("node {leader}, the leader, was killed"));
            let next = self.leader(Some(leader))?;
            thread::sleep(CALM);
            self.restart(leader)?;
            self.say(format!("node {leader} is back"));
            thread::sleep(CALM);
            leader = next;
        }
        let leader = self.leader(None)?;
        self.signal(leader, Signal::STOP)?;
        self.say(format!("node {leader}, the leader, is stalled"));
        self.leader(Some(leader))?;
        // Soon enough that it is asked what came before it was stalled, and late enough that somebody
        // else has written.
        thread::sleep(BRIEFLY);
        self.signal(leader, Signal::CONT)?;
        self.say(format!("node {leader} goes on as if nothing had happened"));
        thread::sleep(CALM);

        self.isolate(load)?;

        for &id in self.peers.keys() {
            self.kill(id);
        }
        self.say("all nodes were killed");
        for &id in self.peers.keys() {
            self.restart(id)?;
        }
        self.say("all nodes are back");
        self.leader(None)?;
        thread::sleep(CALM);
        Ok(())
    }

    /// Leaves the leader alone, then the others without it, then the first alone again. What a node
    /// says while it is alone cannot be known to the others, nor the other way round, so whoever answers
    /// without having asked a majority is found out here, whatever the other clients do.
    fn isolate(&self, load: &Load) -> Result<()> {
        let leader = self.leader(None)?;
        let others = || self.peers.keys().filter(|id| **id != leader);
        let mut client = Client::new(CLIENTS, self);

        others().for_each(|&id| self.kill(id));
        self.say(format!("all nodes but {leader}, the leader, were killed"));
        let end = Instant::now() + CALM;
        client.until = Some(end);
        thread::scope(|scope| {
            scope.spawn(|| {
                while Instant::now() < end {
                    client.enter(load);
                    thread::sleep(PAUSE);
                }
            });
            thread::sleep(CALM);
            // Which ends the wait for an answer, too.
            self.kill(leader);
        });
        others().try_for_each(|&id| self.restart(id))?;
        self.say("it was killed, and the others are back, who know nothing of what it did alone");
        self.leader(Some(leader))?;
        client.until = Some(Instant::now() + LONG);
        (0..REGISTERS).for_each(|key| client.put(load, key));

        others().for_each(|&id| self.kill(id));
        self.restart(leader)?;
        self.say(format!(
            "node {leader} is back, and knows nothing of what they did; they were killed"
        ));
        client.until = Some(Instant::now() + BRIEFLY);
        (0..REGISTERS).for_each(|key| client.get(load, key));
        others().try_for_each(|&id| self.restart(id))?;
        self.say("they are back");
        self.leader(None)?;
        thread::sleep(CALM);
        Ok(())
    }

    /// Waits until all nodes have applied as much, and gives their digests.
    fn agreement(&self) -> Result<String> {
        let start = Instant::now();
        loop {
            let states: Vec<_> = self.peers.keys().map(|&id| self.info(id)).collect();
            let states: Vec<_> = states.into_iter().flatten().collect();
            let all = |name: &str| states.iter().map(|s| s.get(name).cloned()).collect::<Vec<_>>();
            let same = |name: &str| all(name).windows(2).all(|pair| pair[0] == pair[1]);
            if states.len() == self.peers.len() && same("applied") && all("applied") == all("last")
            {
                if !same("digest") {
                    return Err(format!("the nodes differ: {:?}", all("digest")).into());
                }
                let [applied, digest] = ["applied", "digest"].map(|name| all(name).remove(0));
                let (applied, digest) = (applied.unwrap_or_default(), digest.unwrap_or_default());
                let snapshots: Vec<_> = all("snapshot").into_iter().flatten().collect();
                return Ok(format!(
                    "{applied} entries applied, digest {digest}, snapshots at {}",
                    snapshots.join(", ")
                ));
            }
            if start.elapsed() > LONG {
                return Err("the nodes do not catch up".into());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Addresses that are free, and stay so for as long as the listeners are kept.
///
/// On Linux of a host in 127/8 of our own, so that nobody else takes a port while its node is down.
fn reserve(count: u64) -> io::Result<Vec<TcpListener>> {
    let [_, a, b, c] = (std::process::id() & 0x00ff_ffff | 1).to_be_bytes();
    let host = if cfg!(target_os = "linux") {
        Ipv4Addr::new(127, a.saturating_add(1), b, c)
    } else {
        Ipv4Addr::LOCALHOST
    };
    (0..count).map(|_| TcpListener::bind((IpAddr::V4(host), 0))).collect()
}

/// What the clients do and see.
struct Load {
    stop: AtomicBool,
    records: Mutex<Vec<Record>>,
    /// Writes that were acknowledged and that nobody overwrites: their number is the value.
    ledger: Mutex<Vec<u64>>,
    /// For values that are never written twice, so that it is known whose a read has seen.
    next: AtomicU64,
    /// When the last write was acknowledged, and the longest time without one.
    acknowledged: Mutex<(u64, u64)>,
}

impl Load {
    fn new(nodes: &Nodes) -> Load {
        Load {
            stop: AtomicBool::new(false),
            records: Mutex::new(Vec::new()),
            ledger: Mutex::new(Vec::new()),
            next: AtomicU64::new(1),
            acknowledged: Mutex::new((nodes.now(), 0)),
        }
    }

    fn record(&self, record: Record) {
        if let (false, Some(at)) = (matches!(record.op, Op::Get(_)), record.returned) {
            let mut acknowledged = self.acknowledged.lock().expect("no client panics with it");
            let (last, longest) = *acknowledged;
            *acknowledged = (last.max(at), longest.max(at.saturating_sub(last)));
        }
        self.records.lock().expect("no client panics with it").push(record);
    }

    fn verdict(self, nodes: &Nodes) -> Result<()> {
        let mut client = Client::new(CLIENTS, nodes);
        client.until = Some(Instant::now() + LONG);
        for key in 0..KEYS {
            client.get(&self, key);
        }
        let ledger = std::mem::take(&mut *self.ledger.lock().expect("no client panics with it"));
        let mut lost = Vec::new();
        for number in &ledger {
            match client.ask(&["GET", &format!("ledger:{number}")], false) {
                Outcome::Done(value) if value == number.to_string() => {}
                Outcome::Done(_) => lost.push(*number),
                _ => return Err("the acknowledged writes cannot be read back".into()),
            }
        }
        let agreement = nodes.agreement();

        let records = self.records.into_inner().expect("no client panics with it");
        let unknown = records.iter().filter(|record| record.returned.is_none()).count();
        let longest = self.acknowledged.into_inner().expect("no client panics with it").1;
        println!(
            "history:       {} operations of {CLIENTS} clients on {KEYS} keys, {unknown} of unknown outcome;\n\
             \x20              {} ms the longest without an acknowledged write",
            records.len(),
            longest / 1_000_000,
        );
        println!(
            "acknowledged:  {} writes that nobody overwrote, {} lost",
            ledger.len(),
            lost.len()
        );
        match &agreement {
            Ok(line) => println!("state:         the same on {} nodes: {line}", nodes.peers.len()),
            Err(error) => println!("state:         {error}"),
        }
        let start = Instant::now();
        let mut broken = Vec::new();
        for key in 0..KEYS {
            let of_key: Vec<&Record> = records.iter().filter(|record| record.key == key).collect();
            broken.extend(first_violation(&of_key).map(|at| (at, key)));
        }
        let seconds = start.elapsed().as_secs_f64();
        match broken.iter().min() {
            None => println!("linearizable:  yes, each key by itself; checked in {seconds:.1} s"),
            Some(&(at, key)) => {
                println!(
                    "linearizable:  no, {} of {KEYS} keys are not. No order explains the last of these of \
                     key {key}:",
                    broken.len(),
                );
                let mut before: Vec<_> = records.iter().filter(|r| r.key == key).collect();
                before.retain(|record| record.invoked <= at);
                before.sort_by_key(|record| {
                    (record.returned.is_none_or(|end| end > at), record.returned)
                });
                let from = before.partition_point(|r| r.returned.is_some_and(|end| end <= at));
                for record in &before[from.saturating_sub(10)..from] {
                    println!("    {record}");
                }
            }
        }
        agreement?;
        if lost.is_empty() && broken.is_empty() && !ledger.is_empty() {
            println!("self-test passed");
            return Ok(());
        }
        Err("self-test failed".into())
    }
}

/// What became of a request.
enum Outcome {
    Done(String),
    /// Nobody knows.
    Unknown,
    /// It was not done, and there is no more time.
    GivenUp,
}

/// Asks one node after the other, and follows to the leader.
struct Client<'a> {
    nodes: &'a Nodes,
    connection: Option<Connection>,
    random: u64,
    /// When to give up; else when the load ends.
    until: Option<Instant>,
}

impl<'a> Client<'a> {
    fn new(number: u64, nodes: &'a Nodes) -> Client<'a> {
        let random = RandomState::new().hash_one(number) | 1;
        Client { nodes, connection: None, random, until: None }
    }

    /// xorshift64: which key comes next need not be a secret.
    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 33).unwrap_or(0) % below
    }

    fn work(mut self, load: &Load) {
        let until = Instant::now() + LONG * 4;
        self.until = Some(until);
        while !load.stop.load(Ordering::Relaxed) && Instant::now() < until {
            let key = self.random(KEYS);
            match self.random(5) {
                0 | 1 => self.get(load, key),
                2 => self.enter(load),
                _ => self.put(load, key),
            }
            // From time to time ask somebody else, who may or may not know the leader.
            if self.random(50) == 0 {
                self.connection = None;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Writes what nobody overwrites.
    fn enter(&mut self, load: &Load) {
        let number = load.next.fetch_add(1, Ordering::Relaxed);
        let words = ["SET", &format!("ledger:{number}"), &number.to_string()];
        if let Outcome::Done(_) = self.ask(&words, true) {
            load.ledger.lock().expect("no client panics with it").push(number);
        }
    }

    fn put(&mut self, load: &Load, key: usize) {
        let value = load.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("key:{key}");
        let invoked = self.nodes.now();
        let outcome = if key < REGISTERS {
            self.ask(&["SET", &name, &value.to_string()], true)
        } else {
            self.ask(&["INCR", &name], true)
        };
        let (answer, returned) = match outcome {
            Outcome::Done(answer) => (answer.parse().ok(), Some(self.nodes.now())),
            Outcome::Unknown => (None, None),
            Outcome::GivenUp => return,
        };
        let op = if key < REGISTERS { Op::Set(value) } else { Op::Incr(answer) };
        load.record(Record { key, op, invoked, returned });
    }

    fn get(&mut self, load: &Load, key: usize) {
        let invoked = self.nodes.now();
        if let Outcome::Done(value) = self.ask(&["GET", &format!("key:{key}")], false) {
            let returned = Some(self.nodes.now());
            let op = Op::Get(value.parse().unwrap_or(0));
            load.record(Record { key, op, invoked, returned });
        }
    }

    /// Until there is an answer. A read that got none is asked again; a write is not, since it may
    /// have been done.
    fn ask(&mut self, words: &[&str], is_write: bool) -> Outcome {
        while self.until.is_none_or(|until| Instant::now() < until) {
            let Some(connection) = self.connect() else {
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            match connection.call(words) {
                Ok(answer) => match answer.split(' ').collect::<Vec<_>>()[..] {
                    ["-MOVED", _, address] => {
                        let address = address.parse().ok();
                        self.connection = address.and_then(|at| Connection::to(at).ok());
                    }
                    ["-CLUSTERDOWN" | "-BUSY", ..] => {
                        self.connection = None;
                        thread::sleep(Duration::from_millis(20));
                    }
                    [word, ..] if word.starts_with('-') => {
                        self.connection = None;
                        return Outcome::Unknown;
                    }
                    _ => return Outcome::Done(answer),
                },
                Err(_) => {
                    self.connection = None;
                    if is_write {
                        return Outcome::Unknown;
                    }
                }
            }
        }
        Outcome::GivenUp
    }

    fn connect(&mut self) -> Option<&mut Connection> {
        if self.connection.is_none() {
            let addresses: Vec<_> = self.nodes.lock().values().map(|node| node.clients).collect();
            if !addresses.is_empty() {
                let address = addresses[self.random(addresses.len())];
                self.connection = Connection::to(address).ok();
            }
        }
        self.connection.as_mut()
    }
}

/// A blocking connection of the Redis protocol, for answers of one line or one string.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn to(address: SocketAddr) -> io::Result<Connection> {
        let sock = TcpStream::connect_timeout(&address, PATIENCE)?;
        sock.set_nodelay(true)?;
        sock.set_read_timeout(Some(PATIENCE))?;
        sock.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection(BufReader::new(sock)))
    }

    /// The answer; an error of the protocol is one that begins with `-`, and nil is an empty one.
    fn call(&mut self, words: &[&str]) -> io::Result<String> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        Ok(match line.split_at_checked(1) {
            Some(("$", "-1")) => String::new(),
            Some(("$", length)) => {
                let mut text = vec![0; length.parse::<usize>().map_err(io::Error::other)? + 2];
                self.0.read_exact(&mut text)?;
                text.truncate(text.len() - 2);
                String::from_utf8(text).map_err(io::Error::other)?
            }
            Some(("-", _)) => line.to_owned(),
            Some((_, rest)) => rest.to_owned(),
            None => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}
