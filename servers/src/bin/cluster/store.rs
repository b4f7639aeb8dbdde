//! What a node must not forget: its vote, its log and its last snapshot. On disk before anybody is told.

use protobuf::Message as _;
use raft::{
    Error, GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata},
    util::limit_size,
};
use redb::{Database, ReadableTable, TableDefinition};
use std::{collections::VecDeque, error, path::Path};

type Result<T> = std::result::Result<T, Box<dyn error::Error>>;

/// Entries by their index.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// The rest, under the names below.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const HARD_STATE: &str = "hard state";
const SNAPSHOT: &str = "snapshot";
/// Who this is, and among whom: another's directory is not to be mistaken for one's own.
const IDENTITY: &str = "identity";

/// How many entries stay behind a snapshot, so that who is a little late needs no snapshot, and how many
/// bytes at most: they are in memory, too.
const KEPT_BEHIND: usize = 1000;
const KEPT_BEHIND_BYTES: usize = 4 << 20;

/// The store's own cache. The log is read from memory, and from disk only at the start.
const CACHE_BYTES: usize = 8 << 20;

/// The disk, and in memory what raft asks for all the time.
pub(crate) struct Store {
    db: Database,
    hard_state: HardState,
    conf_state: ConfState,
    /// Of the last snapshot; what it holds is on disk alone.
    snapshot: SnapshotMetadata,
    snapshot_bytes: usize,
    /// Never empty: the first is the one before the log's first, of which only the index and the
    /// term matter.
    log: VecDeque<Entry>,
    /// How much was appended since the last snapshot.
    grown: usize,
}

impl Store {
    /// Opens or makes the store of node `id` among `voters`, and gives what the last snapshot holds.
    pub(crate) fn open(
        directory: &Path,
        id: u64,
        voters: &[u64],
    ) -> Result<(Store, Option<Vec<u8>>)> {
        std::fs::create_dir_all(directory)?;
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(directory.join("cluster.redb"))?;
        let mut conf_state = ConfState::default();
        conf_state.set_voters(voters.to_vec());
        let identity = format!("node {id} of {voters:?}");
        let (mut hard_state, mut snapshot) = (HardState::default(), Snapshot::default());
        let mut log = VecDeque::new();

        let txn = db.begin_write()?;
        {
            let mut meta = txn.open_table(META)?;
            let found = meta.get(IDENTITY)?.map(|found| found.value().to_vec());
            match found {
                None => drop(meta.insert(IDENTITY, identity.as_bytes())?),
                Some(found) if found == identity.as_bytes() => {}
                Some(found) => {
                    let found = String::from_utf8_lossy(&found);
                    let directory = directory.display();
                    return Err(format!("{directory} is of {found}, not of {identity}").into());
                }
            }
            if let Some(found) = meta.get(HARD_STATE)? {
                hard_state.merge_from_bytes(found.value())?;
            }
            if let Some(found) = meta.get(SNAPSHOT)? {
                snapshot.merge_from_bytes(found.value())?;
            }
            let mut table = txn.open_table(LOG)?;
            for row in table.iter()? {
                let mut entry = Entry::default();
                entry.merge_from_bytes(row?.1.value())?;
                log.push_back(entry);
            }
            if log.is_empty() {
                log.push_back(before(snapshot.get_metadata()));
                table.insert(log[0].index, bytes(&log[0]).as_slice())?;
            }
        }
        txn.commit()?;
        let restored = (snapshot.get_metadata().index > 0).then(|| snapshot.data.to_vec());
        let (snapshot_bytes, snapshot) = (snapshot.data.len(), snapshot.take_metadata());
        let store = Store { db, hard_state, conf_state, snapshot, snapshot_bytes, log, grown: 0 };
        Ok((store, restored))
    }

    /// What the last snapshot includes: the index of its last entry.
    pub(crate) fn snapshot_index(&self) -> u64 {
        self.snapshot.index
    }

    /// How many bytes the last snapshot has, and how many were appended since.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.snapshot_bytes, self.grown)
    }

    /// Puts a snapshot from the leader, entries and the hard state on disk, in one transaction that has
    /// reached the disk on return.
    pub(crate) fn persist(
        &mut self,
        snapshot: &Snapshot,
        entries: &[Entry],
        hard_state: &HardState,
    ) -> Result<()> {
        let txn = self.db.begin_write()?;
        {
            let (mut meta, mut table) = (txn.open_table(META)?, txn.open_table(LOG)?);
            meta.insert(HARD_STATE, bytes(hard_state).as_slice())?;
            if !snapshot.is_empty() {
                // It stands for all that came before, and what came after was another history.
                table.retain(|_, _| false)?;
                self.log.clear();
                self.log.push_back(before(snapshot.get_metadata()));
                table.insert(self.log[0].index, bytes(&self.log[0]).as_slice())?;
                meta.insert(SNAPSHOT, bytes(snapshot).as_slice())?;
                self.snapshot = snapshot.get_metadata().clone();
                self.snapshot_bytes = snapshot.data.len();
                self.grown = 0;
            }
            if let Some(first) = entries.first() {
                // A new leader's entries replace those of an old one that were never committed.
                table.retain_in(first.index.., |_, _| false)?;
                self.log.truncate(self.position(first.index));
            }
            for entry in entries {
                let bytes = bytes(entry);
                self.grown += bytes.len();
                table.insert(entry.index, bytes.as_slice())?;
                self.log.push_back(entry.clone());
            }
        }
        txn.commit()?;
        self.hard_state = hard_state.clone();
        Ok(())
    }

    /// Puts a snapshot of the state after the entry of `index` on disk, and forgets most of the log
    /// before it.
    pub(crate) fn compact(
        &mut self,
        index: u64,
        data: Vec<u8>,
        hard_state: &HardState,
    ) -> Result<()> {
        let mut snapshot = Snapshot { data: data.into(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = self.log[self.position(index)].term;
        metadata.set_conf_state(self.conf_state.clone());

        let last = self.position(index);
        let (mut kept, mut bytes_kept) = (0, 0);
        for entry in self.log.range(..=last).rev().take(KEPT_BEHIND) {
            bytes_kept += entry.data.len();
            if bytes_kept > KEPT_BEHIND_BYTES {
                break;
            }
            kept += 1;
        }
        // The one before those that are kept; the snapshot's own if there are none.
        let first = self.log[last.saturating_sub(kept)].index;
        let txn = self.db.begin_write()?;
        {
            let (mut meta, mut table) = (txn.open_table(META)?, txn.open_table(LOG)?);
            // With it, since a restart begins at the snapshot: what it holds must count as committed.
            meta.insert(HARD_STATE, bytes(hard_state).as_slice())?;
            meta.insert(SNAPSHOT, bytes(&snapshot).as_slice())?;
            table.retain_in(..first, |_, _| false)?;
        }
        txn.commit()?;
        self.log.drain(..self.position(first));
        self.hard_state = hard_state.clone();
        self.snapshot_bytes = snapshot.data.len();
        self.snapshot = snapshot.take_metadata();
        self.grown = 0;
        Ok(())
    }

    /// Where the entry of `index` is in `log`, if it is not before it.
    fn position(&self, index: u64) -> usize {
        usize::try_from(index - self.log[0].index).expect("a log in memory has usize indices")
    }
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.log[0].index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let mut entries = Vec::new();
        entries.extend(self.log.range(self.position(low)..self.position(high)).cloned());
        limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.log[0].index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let entry = self.log.get(self.position(index));
        entry.map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log[0].index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log[0].index + self.log.len() as u64 - 1)
    }

    /// From disk: a follower that is far behind is rare, and the state is in memory once already.
    fn snapshot(&self, least: u64, _: u64) -> raft::Result<Snapshot> {
        if self.snapshot.index < least.max(1) {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let read = || -> Result<Snapshot> {
            let meta = self.db.begin_read()?.open_table(META)?;
            let mut snapshot = Snapshot::default();
            if let Some(found) = meta.get(SNAPSHOT)? {
                snapshot.merge_from_bytes(found.value())?;
            }
            Ok(snapshot)
        };
        read().map_err(|error| Error::Store(StorageError::Other(error.to_string().into())))
    }
}

/// Stands before a log that begins after a snapshot.
fn before(snapshot: &SnapshotMetadata) -> Entry {
    Entry { index: snapshot.index, term: snapshot.term, ..Entry::default() }
}

fn bytes(message: &impl protobuf::Message) -> Vec<u8> {
    message.write_to_bytes().expect("a message in memory is complete")
}
