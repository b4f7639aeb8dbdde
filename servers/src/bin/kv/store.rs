//! What is on disk: a thread that writes the keys which changed, many in one transaction.
//!
//! Under `--sync always` replies wait here until what they acknowledge is on disk. Whoever comes while
//! a transaction is written joins the next one, so many clients share one fsync(2).

use crate::{engine::Engine, network::Reply};
use amy::Sender;
use amy_servers::data::Entry;
use bytes::Bytes;
use redb::{Database, ReadableTable, TableDefinition};
use std::{
    collections::HashSet,
    error::Error,
    fs,
    path::Path,
    process,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");

/// How many waiting changes one transaction takes.
const CHANGES_AT_ONCE: usize = 4096;

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// When it is on disk.
    Always,
    /// At once; it is on disk within a second.
    Interval,
}

/// Keys that changed, and the reply that has to wait for them.
pub(crate) struct Change {
    pub(crate) keys: Vec<Bytes>,
    pub(crate) reply: Option<(Sender<Reply>, Reply)>,
}

pub(crate) struct Store {
    database: Database,
}

impl Store {
    /// Opens the store in `directory`, or makes one, and puts what it holds into `engine`.
    pub(crate) fn open(directory: &Path, engine: &Engine) -> Result<Store, Box<dyn Error>> {
        fs::create_dir_all(directory)?;
        let database = Database::create(directory.join("kv.redb"))?;
        let writing = database.begin_write()?;
        for pair in writing.open_table(TABLE)?.range::<&[u8]>(..)? {
            let (key, entry) = pair?;
            let entry: Entry = postcard::from_bytes(entry.value())?;
            engine.load(Bytes::copy_from_slice(key.value()), entry);
        }
        writing.commit()?; // which makes the table, if there was none
        Ok(Store { database })
    }

    /// Writes what changes until nobody is left who could change anything.
    ///
    /// If the store fails, the process ends: whatever was acknowledged is on disk, and nothing more
    /// will be acknowledged.
    pub(crate) fn run(&self, engine: &Arc<Engine>, changes: &Receiver<Change>, sync: Sync) {
        let ended = match sync {
            Sync::Always => self.write_always(engine, changes),
            Sync::Interval => self.write_each_second(engine, changes),
        };
        if let Err(error) = ended {
            eprintln!("kv: the store failed: {error}");
            process::exit(1);
        }
    }

    fn write_always(
        &self,
        engine: &Engine,
        changes: &Receiver<Change>,
    ) -> Result<(), Box<dyn Error>> {
        while let Ok(first) = changes.recv() {
            let more = changes.try_iter().take(CHANGES_AT_ONCE - 1);
            let (mut keys, mut replies) = (HashSet::new(), Vec::new());
            for change in std::iter::once(first).chain(more) {
                keys.extend(change.keys);
                replies.extend(change.reply);
            }
            self.write(engine, &keys)?;
            for (poller, reply) in replies {
                // A poller that has ended has no client left.
                let _ = poller.send(reply);
            }
        }
        Ok(())
    }

    fn write_each_second(
        &self,
        engine: &Engine,
        changes: &Receiver<Change>,
    ) -> Result<(), Box<dyn Error>> {
        loop {
            let Ok(first) = changes.recv() else { return Ok(()) };
            let mut keys: HashSet<_> = first.keys.into_iter().collect();
            let end = Instant::now() + Duration::from_secs(1);
            let over = loop {
                match changes.recv_timeout(end.saturating_duration_since(Instant::now())) {
                    Ok(change) => keys.extend(change.keys),
                    Err(RecvTimeoutError::Timeout) => break false,
                    Err(RecvTimeoutError::Disconnected) => break true,
                }
            };
            self.write(engine, &keys)?;
            if over {
                return Ok(());
            }
        }
    }

    /// Writes what the keys stand for now, which is what they were changed to or something newer.
    fn write(&self, engine: &Engine, keys: &HashSet<Bytes>) -> Result<(), Box<dyn Error>> {
        let writing = self.database.begin_write()?;
        {
            let mut table = writing.open_table(TABLE)?;
            for key in keys {
                match engine.entry(key) {
                    Some(entry) => {
                        let entry = postcard::to_stdvec(&entry).expect("memory is all it needs");
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
}
