//! Carries commands out, on whatever thread has them.
//!
//! The keys are spread over shards, each with a lock of its own, so that threads are seldom in each
//! other's way. A command on several keys holds the locks of all of them, in order, and is atomic.
//!
//! If there is a store, each shard knows which of its keys the store does not have yet, and in which
//! batch they will be written. A batch is everything that has changed up to a moment at which all
//! shards were locked: what was done at once is on disk at once, or not at all.

use crate::store::Sync;
use amy::Timer;
use amy_servers::{
    data::{Command, Data, Entry},
    resp,
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

const SHARDS: usize = 64;

/// What a command is told that was not carried out because the store cannot be written.
const REFUSED: &str = "MISCONF the store cannot be written now; nothing was changed";

/// How many keys of a shard are taken away before others have their turn.
const EXPIRED_AT_ONCE: usize = 1000;

/// With so many keys not on disk, clients that change more wait for it whatever was agreed.
const UNSAVED_MAX: usize = 64 * 1024;

#[derive(Default)]
struct Shard {
    data: Data,
    /// The keys that the store does not have as they are here, and the batch in which it gets them.
    unsaved: HashMap<Bytes, u64>,
}

/// What is to be written at once: the keys that have changed, and what they stand for.
pub(crate) struct Batch {
    pub(crate) number: u64,
    pub(crate) entries: Vec<(Bytes, Option<Entry>)>,
}

/// The keys, and what is known of the server.
pub(crate) struct Engine {
    shards: Vec<Mutex<Shard>>,
    /// Whether there is a store, and when it acknowledges.
    sync: Option<Sync>,
    /// The batch that gets what changes now. It is raised while all shards are locked.
    batch: AtomicU64,
    /// How many keys are unsaved, in all shards.
    unsaved: AtomicUsize,
    /// The store cannot be written: nothing may change but by the passing of time.
    pub(crate) refuses: AtomicBool,
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
    /// How many there are.
    pub(crate) replies: usize,
    /// The batch that has to be on disk before the client may know of them.
    pub(crate) after: Option<u64>,
    /// There is something to do for the store that it does not know of.
    pub(crate) wakes: bool,
    /// The client wants to leave.
    pub(crate) quits: bool,
}

impl Engine {
    pub(crate) fn new(expiry: Timer, sync: Option<Sync>) -> Engine {
        Engine {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            sync,
            batch: AtomicU64::new(1),
            unsaved: AtomicUsize::new(0),
            refuses: AtomicBool::new(false),
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
        for args in commands {
            outcome.replies += 1;
            if let Some(command) = Command::find(&args[0]) {
                if command.writes && self.refuses.load(Ordering::SeqCst) {
                    resp::error(out, REFUSED);
                } else {
                    self.on_keys(command, now, args, out, &mut outcome);
                }
            } else if self.on_connection(args, out) {
                outcome.quits = true;
                break;
            }
        }
        let done = u64::try_from(outcome.replies).unwrap_or(u64::MAX);
        self.commands.fetch_add(done, Ordering::Relaxed);
        outcome
    }

    fn on_keys(
        &self,
        command: &Command,
        now: u64,
        args: &[Bytes],
        out: &mut BytesMut,
        outcome: &mut Outcome,
    ) {
        let mut keys = command.keys(args);
        if let (Some(key), None) = (keys.next(), keys.next()) {
            let mut shard = lock(&self.shards[self.shard_of(key)]);
            shard.data.apply(command, now, args, out);
            self.note(&mut shard, command, key, outcome);
            return self.watch_expiry(shard);
        }
        let step = if command.name == "MSET" { 2 } else { 1 };
        if args.len() < 2 || args[1..].len() % step != 0 {
            // Any shard knows what is wrong with that.
            return lock(&self.shards[0]).data.apply(command, now, args, out);
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
            locked[place].data.apply(command, now, &args, &mut reply);
            self.note(&mut locked[place], command, &one[0], outcome);
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

    /// Notes what the store has to know of a key that was changed, or read. Its shard is still locked
    /// since then, so it is of one batch with what else the command does.
    fn note(&self, shard: &mut Shard, command: &Command, key: &Bytes, outcome: &mut Outcome) {
        let Some(sync) = self.sync else { return };
        if command.writes {
            let (batch, unsaved, wakes) = self.change(shard, key);
            outcome.wakes |= wakes;
            if sync == Sync::Always || unsaved > UNSAVED_MAX {
                outcome.after = outcome.after.max(Some(batch));
            }
        } else if sync == Sync::Always {
            // Nobody is to see what a crash could still undo.
            outcome.after = outcome.after.max(shard.unsaved.get(key).copied());
        }
    }

    /// Puts a key among those that are unsaved. Returns the batch it is in, how many there are, and
    /// whether the store has to be woken for it.
    fn change(&self, shard: &mut Shard, key: &Bytes) -> (u64, usize, bool) {
        let batch = self.batch.load(Ordering::SeqCst);
        if let Some(before) = shard.unsaved.get_mut(key) {
            *before = batch;
            return (batch, self.unsaved.load(Ordering::SeqCst), false);
        }
        // What has arrived shares a buffer with all of its request.
        shard.unsaved.insert(Bytes::copy_from_slice(key), batch);
        let unsaved = self.unsaved.fetch_add(1, Ordering::SeqCst) + 1;
        (batch, unsaved, unsaved == 1 || unsaved == UNSAVED_MAX + 1)
    }

    /// Whether there is something that the store does not have.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.unsaved.load(Ordering::SeqCst) > 0
    }

    /// Whether so much is unsaved that clients wait for it.
    pub(crate) fn is_full(&self) -> bool {
        self.unsaved.load(Ordering::SeqCst) > UNSAVED_MAX
    }

    /// All that is unsaved at one moment. What changes from now on is for the next batch.
    pub(crate) fn batch(&self) -> Batch {
        let shards: Vec<_> = self.shards.iter().map(lock).collect();
        let number = self.batch.fetch_add(1, Ordering::SeqCst);
        let entries = shards.iter().flat_map(|shard| {
            shard.unsaved.keys().map(|key| (key.clone(), shard.data.entry(key).cloned()))
        });
        Batch { number, entries: entries.collect() }
    }

    /// The batch is on disk. Those of its keys that have changed since are of a later one.
    pub(crate) fn saved(&self, batch: &Batch) {
        for (key, _) in &batch.entries {
            let mut shard = lock(&self.shards[self.shard_of(key)]);
            if shard.unsaved.get(key).is_some_and(|number| *number <= batch.number) {
                shard.unsaved.remove(key);
                self.unsaved.fetch_sub(1, Ordering::SeqCst);
            }
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
            // What clients say of themselves. Nobody asks for it.
            (b"CLIENT", [sub, rest @ ..]) => {
                let sub = String::from_utf8_lossy(sub).to_lowercase();
                match (sub.as_str(), rest.len()) {
                    ("setname", 1) | ("setinfo", 2) => resp::simple(out, "OK"),
                    ("setname" | "setinfo", _) => wrong_arguments(out, &format!("client|{sub}")),
                    _ => unknown_subcommand(out, &args[1], "client"),
                }
            }
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
            (b"CONFIG", [sub, ..]) if !sub.eq_ignore_ascii_case(b"get") => {
                unknown_subcommand(out, sub, "config");
            }
            (b"INFO", _) => resp::bulk(out, self.info().as_bytes()),
            (b"PING" | b"ECHO" | b"SELECT" | b"CLIENT" | b"CONFIG", _) => {
                wrong_arguments(out, &String::from_utf8_lossy(&args[0]).to_lowercase());
            }
            _ => resp::error(out, &format!("ERR unknown command '{}'", brief(&args[0]))),
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
            let shard = lock(shard);
            keys += shard.data.len();
            used += shard.data.used();
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

    /// Takes away what has expired. Returns whether the store has to be woken for it.
    pub(crate) fn expire(&self) -> bool {
        self.expiry_at.store(u64::MAX, Ordering::SeqCst);
        let mut wakes = false;
        for shard in &self.shards {
            let mut shard = lock(shard);
            let gone = shard.data.expire(now(), EXPIRED_AT_ONCE);
            if self.sync.is_some() {
                gone.iter().for_each(|key| wakes |= self.change(&mut shard, key).2);
            }
            self.watch_expiry(shard);
        }
        wakes
    }

    /// Sets the timer if a shard's next key expires before all that it is set for.
    fn watch_expiry(&self, shard: MutexGuard<'_, Shard>) {
        let Some(next) = shard.data.next_expiry() else { return };
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
        let mut shard = lock(&self.shards[self.shard_of(&key)]);
        shard.data.insert(key, entry);
        self.watch_expiry(shard);
    }

    fn shard_of(&self, key: &[u8]) -> usize {
        let hash = self.hasher.hash_one(key).to_ne_bytes();
        usize::from(hash[0]) % SHARDS
    }
}

/// Nothing that can fail half-way runs under these locks.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wrong_arguments(out: &mut BytesMut, name: &str) {
    resp::error(out, &format!("ERR wrong number of arguments for '{name}' command"));
}

fn unknown_subcommand(out: &mut BytesMut, sub: &[u8], command: &str) {
    resp::error(out, &format!("ERR unknown subcommand '{}' of '{command}'", brief(sub)));
}

/// What a client sent, to be told back to it.
fn brief(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(128).collect()
}

/// Milliseconds since 1970: expiry has to hold over a restart.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Executes one command, given in words.
    fn run(engine: &Engine, words: &str) -> (String, Outcome) {
        let args = words.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
        let mut out = BytesMut::new();
        let outcome = engine.execute(&[args], &mut out);
        (String::from_utf8(out.to_vec()).unwrap(), outcome)
    }

    fn engine(sync: Option<Sync>) -> (amy::Poller, Engine) {
        let poller = amy::Poller::new().unwrap();
        let timer = poller.get_registrar().set_timeout(Duration::MAX).unwrap();
        (poller, Engine::new(timer, sync))
    }

    #[test]
    fn a_reply_waits_for_what_it_tells_of() {
        let (_poller, engine) = engine(Some(Sync::Always));
        assert_eq!(run(&engine, "GET a").1.after, None);
        let set = run(&engine, "SET a 1").1;
        assert_eq!((set.after, set.wakes), (Some(1), true));
        assert_eq!(run(&engine, "GET a").1.after, Some(1));
        assert_eq!(run(&engine, "GET b").1.after, None);
        let batch = engine.batch();
        let set = run(&engine, "SET b 1").1;
        assert_eq!((set.after, set.wakes), (Some(2), false));
        assert_eq!(run(&engine, "MGET a b").1.after, Some(2));
        assert_eq!(run(&engine, "EXISTS a c").1.after, Some(1));
        engine.saved(&batch);
        assert_eq!(run(&engine, "GET a").1.after, None);
        assert_eq!(run(&engine, "GET b").1.after, Some(2));
        engine.saved(&engine.batch());
        assert!(!engine.is_unsaved());
    }

    #[test]
    fn a_key_that_changes_while_it_is_written_is_in_the_next_batch_too() {
        let (_poller, engine) = engine(Some(Sync::Always));
        run(&engine, "LPUSH a 1");
        let first = engine.batch();
        run(&engine, "LPUSH a 2");
        engine.saved(&first);
        assert!(engine.is_unsaved());
        let second = engine.batch();
        assert_eq!((first.entries.len(), second.entries.len()), (1, 1));
        assert_ne!(first.entries, second.entries);
        // One that could not be written is in it as well.
        run(&engine, "DEL a");
        let third = engine.batch();
        assert_eq!(third.entries, [(Bytes::from("a"), None)]);
        engine.saved(&third);
        assert!(!engine.is_unsaved());
    }

    #[test]
    fn who_changes_more_than_the_disk_can_take_waits_for_it() {
        let (_poller, engine) = engine(Some(Sync::Interval));
        for n in 0..UNSAVED_MAX {
            let outcome = run(&engine, &format!("SET {n} x")).1;
            assert_eq!((outcome.after, outcome.wakes), (None, n == 0));
        }
        assert!(!engine.is_full());
        let outcome = run(&engine, "SET one-more x").1;
        assert_eq!((outcome.after, outcome.wakes), (Some(1), true));
        assert!(engine.is_full());
        assert_eq!(run(&engine, "GET 0").1.after, None);
        let batch = engine.batch();
        assert_eq!(batch.entries.len(), UNSAVED_MAX + 1);
        engine.saved(&batch);
        assert_eq!(run(&engine, "SET one-more x").1.after, None);
    }

    #[test]
    fn without_a_store_nothing_waits_for_it() {
        let (_poller, engine) = engine(None);
        let outcome = run(&engine, "SET a 1").1;
        assert_eq!((outcome.after, outcome.wakes, engine.is_unsaved()), (None, false, false));
    }

    #[test]
    fn what_cannot_be_kept_is_refused_and_what_is_there_can_be_read() {
        let (_poller, engine) = engine(Some(Sync::Interval));
        run(&engine, "SET a 1");
        engine.refuses.store(true, Ordering::SeqCst);
        assert_eq!(run(&engine, "SET a 2").0, format!("-{REFUSED}\r\n"));
        assert_eq!(run(&engine, "GET a").0, "$1\r\n1\r\n");
    }
}
