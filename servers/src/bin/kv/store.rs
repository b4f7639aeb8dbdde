//! What is on disk: a thread that writes what has changed, all of it in one transaction.
//!
//! Replies wait at the [`Desk`] until what they tell of is on disk: all of them under `--sync always`,
//! and under `--sync interval` those of clients that change more than the disk can take. Whoever comes
//! while a transaction is written waits for the next one, so many clients share one fsync(2).
//!
//! A store that cannot be written is tried again each second. Meanwhile the engine refuses whatever
//! would change something, and replies that waited become errors: what they tell of is in memory, and
//! may be lost.
//!
//! A value is written whole, a list of a million items as well when one is pushed. What changes a large
//! collection often wants another store.

use crate::{
    engine::{Batch, Engine},
    network::Reply,
};
use amy::Sender;
use amy_servers::{data::Entry, log, resp};
use bytes::Bytes;
use redb::{Database, ReadableTable, TableDefinition};
use std::{
    error::Error,
    fs, mem,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");

/// How long what is acknowledged at once may take to be on disk.
const INTERVAL: Duration = Duration::from_secs(1);

/// When to try again after the store could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// What a client is told whose commands were carried out when the store could not be written.
const FAILED: &str = "MISCONF the store cannot be written now; what was changed may be lost";

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// When it is on disk.
    Always,
    /// At once; it is on disk within a second.
    Interval,
}

/// A reply that has to wait for a batch to be on disk.
pub(crate) struct Held {
    pub(crate) batch: u64,
    /// To how many commands it is the reply.
    pub(crate) commands: usize,
    pub(crate) poller: Sender<Reply>,
    pub(crate) reply: Reply,
}

/// Where replies wait for the store, and where it learns that there is something to write. When the
/// last one is dropped, the store writes what is left and ends.
#[derive(Clone)]
pub(crate) struct Desk {
    waiting: Arc<Mutex<Waiting>>,
    wake: SyncSender<()>,
}

#[derive(Default)]
struct Waiting {
    /// The last batch that is on disk.
    saved: u64,
    failed: bool,
    held: Vec<Held>,
}

pub(crate) struct Store {
    path: PathBuf,
    /// One that has failed is closed, and opened again for the next try.
    database: Option<Database>,
    waiting: Arc<Mutex<Waiting>>,
    wakes: Receiver<()>,
}

impl Desk {
    /// There is something to write.
    pub(crate) fn wake(&self) {
        // If it has not seen the last time yet, it will see this with it.
        let _ = self.wake.try_send(());
    }

    /// Takes a reply and sends it on when its time has come; gives it back if that is now.
    pub(crate) fn hold(&self, mut held: Held) -> Option<Reply> {
        let mut waiting = lock(&self.waiting);
        if held.batch <= waiting.saved {
            return Some(held.reply);
        }
        if waiting.failed {
            held.fail();
            return Some(held.reply);
        }
        waiting.held.push(held);
        drop(waiting);
        self.wake();
        None
    }
}

impl Held {
    fn fail(&mut self) {
        self.reply.bytes.clear();
        (0..self.commands).for_each(|_| resp::error(&mut self.reply.bytes, FAILED));
    }

    fn send(self) {
        // A poller that has ended has no client left.
        let _ = self.poller.send(self.reply);
    }
}

impl Store {
    /// Opens the store in `directory`, or makes one, and puts what it holds into `engine`.
    pub(crate) fn open(directory: &Path, engine: &Engine) -> Result<(Store, Desk), Box<dyn Error>> {
        fs::create_dir_all(directory)?;
        let path = directory.join("kv.redb");
        let database = Database::create(&path)?;
        let writing = database.begin_write()?;
        for pair in writing.open_table(TABLE)?.range::<&[u8]>(..)? {
            let (key, entry) = pair?;
            let entry: Entry = postcard::from_bytes(entry.value())?;
            engine.load(Bytes::copy_from_slice(key.value()), entry);
        }
        writing.commit()?; // which makes the table, if there was none
        let waiting = Arc::<Mutex<Waiting>>::default();
        // One is enough: the store looks at everything when it wakes.
        let (wake, wakes) = sync_channel(1);
        let desk = Desk { waiting: Arc::clone(&waiting), wake };
        Ok((Store { path, database: Some(database), waiting, wakes }, desk))
    }

    /// Writes what changes until nobody is left who could change anything.
    ///
    /// # Errors
    ///
    /// If what is left then cannot be written.
    pub(crate) fn run(mut self, engine: &Engine, sync: Sync) -> Result<(), String> {
        loop {
            if !engine.is_unsaved() {
                if self.wakes.recv().is_err() {
                    return Ok(());
                }
                // Perhaps a wake for what was written since: a transaction of nothing is an fsync, too.
                continue;
            }
            if sync == Sync::Interval {
                self.pause(INTERVAL, || engine.is_full());
            }
            let batch = engine.batch();
            match self.write(&batch) {
                Ok(()) => {
                    engine.saved(&batch);
                    self.succeeded(engine, &batch);
                }
                Err(error) => {
                    self.failed(engine, &*error);
                    if !self.pause(RETRY, || false) {
                        let keys = batch.entries.len();
                        return Err(format!(
                            "what changed last is not in the store, {keys} keys: {error}"
                        ));
                    }
                }
            }
        }
    }

    /// Lets so much time pass, or less if there is no need to wait any more. Returns whether there still
    /// is somebody who could change anything.
    fn pause(&self, time: Duration, is_over: impl Fn() -> bool) -> bool {
        let end = Instant::now() + time;
        while !is_over() {
            match self.wakes.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }

    fn succeeded(&self, engine: &Engine, batch: &Batch) {
        let mut waiting = lock(&self.waiting);
        waiting.saved = batch.number;
        if mem::take(&mut waiting.failed) {
            engine.refuses.store(false, Ordering::SeqCst);
            log(format_args!("kv: the store can be written again"));
        }
        let (ready, held) =
            mem::take(&mut waiting.held).into_iter().partition(|held| held.batch <= batch.number);
        waiting.held = held;
        drop(waiting);
        ready.into_iter().for_each(|held: Held| held.send());
    }

    fn failed(&self, engine: &Engine, error: &dyn Error) {
        engine.refuses.store(true, Ordering::SeqCst);
        let mut waiting = lock(&self.waiting);
        if !mem::replace(&mut waiting.failed, true) {
            log(format_args!("kv: the store cannot be written, and writes are refused: {error}"));
        }
        let held = mem::take(&mut waiting.held);
        drop(waiting);
        for mut held in held {
            held.fail();
            held.send();
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), Box<dyn Error>> {
        let database = match self.database.take() {
            Some(database) => database,
            None => Database::create(&self.path)?,
        };
        put(&database, batch)?;
        self.database = Some(database);
        Ok(())
    }
}

fn put(database: &Database, batch: &Batch) -> Result<(), Box<dyn Error>> {
    let writing = database.begin_write()?;
    {
        let mut table = writing.open_table(TABLE)?;
        for (key, entry) in &batch.entries {
            match entry {
                Some(entry) => {
                    let entry = postcard::to_stdvec(entry).expect("memory is all it needs");
                    table.insert(&key[..], &entry[..])?;
                }
                None => {
                    table.remove(&key[..])?;
                }
            }
        }
    }
    writing.commit()?;
    Ok(())
}

/// Nothing that can fail half-way runs under this lock.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
