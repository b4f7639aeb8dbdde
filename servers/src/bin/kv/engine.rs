//! Carries commands out, on whatever thread has them.
//!
//! The keys are spread over shards, each with a lock of its own, so that threads are seldom in each
//! other's way. A command on several keys holds the locks of all of them, in order, and is atomic.

use amy::Timer;
use amy_servers::{
    data::{Command, Data, Entry},
    resp,
};
use bytes::{Bytes, BytesMut};
use std::{
    hash::{BuildHasher, RandomState},
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

const SHARDS: usize = 64;

/// How many keys of a shard are taken away before others have their turn.
const EXPIRED_AT_ONCE: usize = 1000;

/// The keys, and what is known of the server.
pub(crate) struct Engine {
    shards: Vec<Mutex<Data>>,
    hasher: RandomState,
    /// Rings when the next key expires; reset from whatever thread shortens that time.
    expiry: Timer,
    /// For when it is set, in milliseconds since 1970.
    expiry_at: AtomicU64,
    started: Instant,
    commands: AtomicU64,
    pub(crate) clients: AtomicUsize,
}

/// What came of some commands, beside their replies.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Keys that may have changed.
    pub(crate) touched: Vec<Bytes>,
    /// The client wants to leave.
    pub(crate) quits: bool,
}

impl Engine {
    pub(crate) fn new(expiry: Timer) -> Engine {
        Engine {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            expiry,
            expiry_at: AtomicU64::new(u64::MAX),
            started: Instant::now(),
            commands: AtomicU64::new(0),
            clients: AtomicUsize::new(0),
        }
    }

    /// Carries the commands of one client out, in their order, and appends the replies.
    pub(crate) fn execute(&self, commands: &[Vec<Bytes>], out: &mut BytesMut) -> Outcome {
        let (now, mut outcome) = (now(), Outcome::default());
        let mut done = 0;
        for args in commands {
            done += 1;
            if let Some(command) = Command::find(&args[0]) {
                self.on_keys(command, now, args, out);
                if command.writes {
                    outcome.touched.extend(command.keys(args).cloned());
                }
            } else if self.on_connection(args, out) {
                outcome.quits = true;
                break;
            }
        }
        self.commands.fetch_add(done, Ordering::Relaxed);
        outcome
    }

    fn on_keys(&self, command: &Command, now: u64, args: &[Bytes], out: &mut BytesMut) {
        let mut keys = command.keys(args);
        if let (Some(key), None) = (keys.next(), keys.next()) {
            let mut data = lock(&self.shards[self.shard_of(key)]);
            data.apply(command, now, args, out);
            return self.watch_expiry(data);
        }
        let step = if command.name == "MSET" { 2 } else { 1 };
        if args.len() < 2 || args[1..].len() % step != 0 {
            // Any shard knows what is wrong with that.
            return lock(&self.shards[0]).apply(command, now, args, out);
        }
        let mut shards: Vec<usize> = command.keys(args).map(|key| self.shard_of(key)).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut locked: Vec<_> = shards.iter().map(|shard| lock(&self.shards[*shard])).collect();
        let (mut sum, mut reply) = (0, BytesMut::new());
        if command.name == "MGET" {
            resp::array(out, args.len() - 1);
        }
        for one in args[1..].chunks(step) {
            let place = shards.binary_search(&self.shard_of(&one[0])).expect("a locked shard");
            let args = [&args[..1], one].concat();
            reply.clear();
            locked[place].apply(command, now, &args, &mut reply);
            match command.name {
                // Without the header of an array of one.
                "MGET" => out.extend_from_slice(&reply["*1\r\n".len()..]),
                _ => sum += resp::number(&reply[1..reply.len() - 2]).unwrap_or(0),
            }
        }
        match command.name {
            "MGET" => {}
            "MSET" => resp::simple(out, "OK"),
            _ => resp::integer(out, sum),
        }
    }

    /// A command that is about no key. Returns whether it is the last one.
    fn on_connection(&self, args: &[Bytes], out: &mut BytesMut) -> bool {
        let name = args[0].to_ascii_uppercase();
        match (name.as_slice(), &args[1..]) {
            (b"PING", []) => resp::simple(out, "PONG"),
            (b"PING" | b"ECHO", [text]) => resp::bulk(out, text),
            (b"QUIT", _) => {
                resp::simple(out, "OK");
                return true;
            }
            (b"HELLO", [version, ..]) if version != "2" => {
                resp::error(out, "NOPROTO unsupported protocol version");
            }
            (b"HELLO", _) => {
                resp::array(out, 6);
                for (key, value) in [("server", "amy-kv"), ("version", env!("CARGO_PKG_VERSION"))] {
                    resp::bulk(out, key.as_bytes());
                    resp::bulk(out, value.as_bytes());
                }
                resp::bulk(out, b"proto");
                resp::integer(out, 2);
            }
            (b"SELECT", [number]) if number == "0" => resp::simple(out, "OK"),
            (b"SELECT", [_]) => resp::error(out, "ERR DB index is out of range"),
            (b"CLIENT", [_, ..]) => resp::simple(out, "OK"),
            (b"COMMAND", [sub]) if sub.eq_ignore_ascii_case(b"count") => {
                resp::integer(out, i64::try_from(Command::all().len()).unwrap_or(i64::MAX));
            }
            (b"COMMAND", []) => {
                resp::array(out, Command::all().len());
                for command in Command::all() {
                    command.describe(out);
                }
            }
            // Clients that complete what is typed ask for more than is known here.
            (b"COMMAND", _) => resp::array(out, 0),
            (b"CONFIG", [get, _, ..]) if get.eq_ignore_ascii_case(b"get") => {
                self.config(&args[2..], out);
            }
            (b"INFO", _) => resp::bulk(out, self.info().as_bytes()),
            (b"PING" | b"ECHO" | b"SELECT" | b"CLIENT" | b"CONFIG", _) => {
                let name = String::from_utf8_lossy(&args[0]).to_lowercase();
                resp::error(out, &format!("ERR wrong number of arguments for '{name}' command"));
            }
            _ => {
                let name = String::from_utf8_lossy(&args[0]);
                let name: String = name.chars().take(128).collect();
                resp::error(out, &format!("ERR unknown command '{name}'"));
            }
        }
        false
    }

    /// What `redis-benchmark` and others want to know of a server's persistence.
    fn config(&self, names: &[Bytes], out: &mut BytesMut) {
        let known = [("save", ""), ("appendonly", "no")];
        let asked = known.iter().filter(|(name, _)| {
            names
                .iter()
                .any(|pattern| pattern == "*" || pattern.eq_ignore_ascii_case(name.as_bytes()))
        });
        let asked: Vec<_> = asked.collect();
        resp::array(out, 2 * asked.len());
        for (name, value) in asked {
            resp::bulk(out, name.as_bytes());
            resp::bulk(out, value.as_bytes());
        }
    }

    fn info(&self) -> String {
        let (mut keys, mut used) = (0, 0);
        for shard in &self.shards {
            let data = lock(shard);
            keys += data.len();
            used += data.used();
        }
        format!(
            "# Server\r\nserver_name:amy-kv\r\nprocess_id:{}\r\n\
             uptime_in_seconds:{}\r\n\r\n# Clients\r\nconnected_clients:{}\r\n\r\n# Memory\r\n\
             used_memory_dataset:{used}\r\n\r\n# Stats\r\ntotal_commands_processed:{}\r\n\r\n\
             # Keyspace\r\ndb0:keys={keys}\r\n",
            std::process::id(),
            self.started.elapsed().as_secs(),
            self.clients.load(Ordering::Relaxed),
            self.commands.load(Ordering::Relaxed),
        )
    }

    /// The id that is told when keys have expired.
    pub(crate) fn expiry_id(&self) -> usize {
        self.expiry.get_id()
    }

    /// Takes away what has expired, and returns the keys.
    pub(crate) fn expire(&self) -> Vec<Bytes> {
        self.expiry_at.store(u64::MAX, Ordering::SeqCst);
        let mut gone = Vec::new();
        for shard in &self.shards {
            let mut data = lock(shard);
            gone.extend(data.expire(now(), EXPIRED_AT_ONCE));
            self.watch_expiry(data);
        }
        gone
    }

    /// Sets the timer if a shard's next key expires before all that it is set for.
    fn watch_expiry(&self, data: MutexGuard<'_, Data>) {
        let Some(next) = data.next_expiry() else { return };
        if next < self.expiry_at.fetch_min(next, Ordering::SeqCst) {
            // A poller that is gone expires nothing more.
            let _ = self.set_expiry();
        }
    }

    fn set_expiry(&self) -> io::Result<()> {
        loop {
            let at = self.expiry_at.load(Ordering::SeqCst);
            self.expiry.reset(Duration::from_millis(at.saturating_sub(now())))?;
            // Another thread may have set it for a sooner key meanwhile, and been overruled.
            if self.expiry_at.load(Ordering::SeqCst) == at {
                return Ok(());
            }
        }
    }

    /// Puts what a store holds where it belongs.
    pub(crate) fn load(&self, key: Bytes, entry: Entry) {
        let mut data = lock(&self.shards[self.shard_of(&key)]);
        data.insert(key, entry);
        self.watch_expiry(data);
    }

    /// What a key stands for now, for a store to write; `None` if it is not there.
    pub(crate) fn entry(&self, key: &[u8]) -> Option<Entry> {
        lock(&self.shards[self.shard_of(key)]).entry(key).cloned()
    }

    fn shard_of(&self, key: &[u8]) -> usize {
        let hash = self.hasher.hash_one(key).to_ne_bytes();
        usize::from(hash[0]) % SHARDS
    }
}

/// Nothing that can fail half-way runs under these locks.
fn lock(shard: &Mutex<Data>) -> MutexGuard<'_, Data> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970: expiry has to hold over a restart.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
