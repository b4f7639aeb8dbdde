//! One node's consensus: an existing engine, fed with ticks, messages and proposals, on a thread of its own.
//!
//! The order is what makes an answer true: entries reach the disk, then a majority, then the state, then the
//! client. A read asks a majority whether this still is the leader (`ReadOnlyOption::Safe`), and is answered
//! from the state once that has everything which was committed when it asked.

use crate::{
    Fault, Options,
    store::Store,
    transport::{FRAME_MAX, FromPeers},
};
use amy::{Poller, Receiver, Sender, Timer};
use amy_servers::{data, data::Data, log, resp};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::{
    Config, RawNode, SnapshotStatus, StateRole,
    eraftpb::{Entry, Message},
};
use std::{
    collections::{BTreeMap, VecDeque},
    error::Error,
    sync::mpsc::TryRecvError,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const TICK: Duration = Duration::from_millis(50);
/// A leader is missed after one to two seconds: a disk that is busy for a moment is no reason to elect.
const ELECTION_TICKS: usize = 20;
const HEARTBEAT_TICKS: usize = 3;
/// When a write that was not committed is answered with that it may happen yet: ten seconds.
const PATIENCE_TICKS: u64 = 200;

const MESSAGE_BYTES: u64 = 1 << 20;
/// What may wait for being committed. Above it, proposals are refused.
const UNCOMMITTED_BYTES: u64 = 64 << 20;

/// Keys and values together, so that a snapshot of them fits into one message.
const STATE_MAX: usize = 64 << 20;
/// What a key costs besides its bytes.
const KEY_OVERHEAD: usize = 64;
/// How many keys that have expired are taken away before each command.
const EXPIRE_MAX: usize = 16;

/// What a client asks.
pub(crate) struct Request {
    /// Who asks, and which of its requests it is: they come back with the answer.
    pub(crate) ticket: (usize, u64),
    pub(crate) command: Command,
}

pub(crate) enum Command {
    /// Leaves the state as it is.
    Read(Vec<Bytes>),
    /// Goes through the log.
    Write(Vec<Bytes>),
    /// About this node alone, from memory.
    Info,
    /// Who leads, as cluster clients ask for it.
    Slots,
    /// The answer is known. It comes back in its turn.
    Say(BytesMut),
}

pub(crate) struct Answer {
    pub(crate) ticket: (usize, u64),
    pub(crate) bytes: BytesMut,
}

/// A proposal on its way.
struct Write {
    ticket: (usize, u64),
    term: u64,
    since: u64,
}

struct Read {
    ticket: (usize, u64),
    args: Vec<Bytes>,
}

pub(crate) struct Node {
    raft: RawNode<Store>,
    data: Data,
    /// No entry has an earlier time than one before it, whatever the leaders' clocks say.
    clock: u64,
    ticks: u64,
    /// By the index that each has if it is committed.
    writes: BTreeMap<u64, Write>,
    /// Not asked for yet.
    reads: Vec<Read>,
    /// Asked for together, under a number.
    asked: VecDeque<(u64, Vec<Read>)>,
    /// To be answered when the entry of that index is applied.
    confirmed: VecDeque<(u64, Vec<Read>)>,
    questions: u64,
    /// Where clients connect, of all nodes that are known.
    clients: BTreeMap<u64, String>,
    answers: Sender<Answer>,
    messages: Sender<Message>,
    snapshot_bytes: usize,
    fault: Option<Fault>,
}

impl Node {
    pub(crate) fn new(
        options: &Options,
        clients: String,
        answers: Sender<Answer>,
        messages: Sender<Message>,
    ) -> Result<Node, Box<dyn Error>> {
        let voters: Vec<u64> = options.peers.keys().copied().collect();
        let (store, snapshot) = Store::open(&options.data, options.id, &voters)?;
        let (data, clock) = snapshot.map_or(Ok((Data::default(), 0)), |bytes| restore(&bytes))?;
        let config = Config {
            id: options.id,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            // Everything after it is in the log, and is applied again.
            applied: store.snapshot_index(),
            max_size_per_msg: MESSAGE_BYTES,
            max_committed_size_per_ready: MESSAGE_BYTES * 4,
            max_uncommitted_size: UNCOMMITTED_BYTES,
            // A leader that hears of no majority knows that it is none, and one who was away does not
            // disturb those who were not.
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        Ok(Node {
            raft: RawNode::new(&config, store, &logger)?,
            data,
            clock,
            ticks: 0,
            writes: BTreeMap::new(),
            reads: Vec::new(),
            asked: VecDeque::new(),
            confirmed: VecDeque::new(),
            questions: 0,
            clients: BTreeMap::from([(options.id, clients)]),
            answers,
            messages,
            snapshot_bytes: options.snapshot_bytes,
            fault: options.fault,
        })
    }

    /// Runs until nobody asks any more.
    pub(crate) fn run(
        mut self,
        mut poller: Poller,
        requests: &Receiver<Request>,
        peers: &Receiver<FromPeers>,
    ) -> Result<(), Box<dyn Error>> {
        let tick = poller.get_registrar().set_interval(TICK)?;
        loop {
            for n in poller.wait(None)? {
                if n.id == tick.get_id() {
                    self.tick(&tick);
                } else if n.id == peers.get_id() {
                    peers.try_iter().for_each(|event| self.hear(event));
                } else if n.id == requests.get_id() {
                    // All that came meanwhile share one write to the disk.
                    loop {
                        match requests.try_recv() {
                            Ok(request) => self.ask(request),
                            Err(TryRecvError::Empty) => break,
                            Err(TryRecvError::Disconnected) => return Ok(()),
                        }
                    }
                }
            }
            self.confirm();
            while self.raft.has_ready() {
                self.ready()?;
                self.confirm();
            }
            self.compact()?;
        }
    }

    /// One tick, also if several have passed: they passed for this thread alone, and nobody is to be
    /// deposed for that.
    fn tick(&mut self, tick: &Timer) {
        tick.arm();
        self.ticks += 1;
        self.raft.tick();
        let late = |write: &Write| self.ticks - write.since > PATIENCE_TICKS;
        while self.writes.first_entry().is_some_and(|write| late(write.get())) {
            if let Some((_, write)) = self.writes.pop_first() {
                self.uncertain(write.ticket);
            }
        }
    }

    fn hear(&mut self, event: FromPeers) {
        match event {
            // What it refuses was for another term, or is no message between nodes.
            FromPeers::Message(message) => drop(self.raft.step(message)),
            FromPeers::Lost(id) => {
                self.raft.report_unreachable(id);
                // Without this a leader would wait for ever for what becomes of a snapshot. That it
                // arrived, the follower says itself.
                self.raft.report_snapshot(id, SnapshotStatus::Failure);
            }
            FromPeers::Clients(id, address) => drop(self.clients.insert(id, address)),
        }
    }

    fn ask(&mut self, Request { ticket, command }: Request) {
        match command {
            Command::Info => self.answer(ticket, |out, node| node.info(out)),
            Command::Say(bytes) => drop(self.answers.send(Answer { ticket, bytes })),
            Command::Slots => self.answer(ticket, |out, node| node.slots(out)),
            Command::Read(args) if self.fault == Some(Fault::StaleReads) => {
                self.read(Read { ticket, args });
            }
            _ if self.raft.raft.state != StateRole::Leader => self.elsewhere(ticket),
            Command::Read(args) => self.reads.push(Read { ticket, args }),
            Command::Write(args) => {
                self.clock = self.now();
                if self.raft.propose(Vec::new(), encode(self.clock, &args)).is_err() {
                    return self.answer(ticket, |out, _| {
                        resp::error(out, "BUSY too much waits for being replicated");
                    });
                }
                let index = self.raft.raft.raft_log.last_index();
                let write = Write { ticket, term: self.raft.raft.term, since: self.ticks };
                if self.fault == Some(Fault::EarlyAnswers) && args[0].eq_ignore_ascii_case(b"SET") {
                    return self.answer(ticket, |out, _| resp::simple(out, "OK"));
                }
                // One of an earlier term had this index, and is lost: what took its place never was
                // its entry.
                if let Some(lost) = self.writes.insert(index, write) {
                    self.elsewhere(lost.ticket);
                }
            }
        }
    }

    /// Asks a majority for all reads that have come, or answers them if this is no leader any more.
    fn confirm(&mut self) {
        if self.raft.raft.state != StateRole::Leader {
            let asked = self.asked.drain(..).flat_map(|(_, reads)| reads);
            let unanswered: Vec<_> = asked.chain(self.reads.drain(..)).collect();
            unanswered.into_iter().for_each(|read| self.elsewhere(read.ticket));
        } else if !self.reads.is_empty() && self.raft.raft.commit_to_current_term() {
            // Before that, what earlier leaders committed is not known: raft would not answer.
            self.questions += 1;
            self.asked.push_back((self.questions, std::mem::take(&mut self.reads)));
            self.raft.read_index(self.questions.to_be_bytes().to_vec());
        }
    }

    /// Does what raft has ready, in the order that its documentation asks for.
    fn ready(&mut self) -> Result<(), Box<dyn Error>> {
        let mut ready = self.raft.ready();
        // A leader's, which may leave before its own disk has the entries: it counts itself only later.
        self.send(ready.take_messages());
        if !ready.snapshot().is_empty() {
            (self.data, self.clock) = restore(&ready.snapshot().data)?;
            // What was waiting for these entries cannot be told apart any more.
            let later = self.writes.split_off(&(ready.snapshot().get_metadata().index + 1));
            for (_, write) in std::mem::replace(&mut self.writes, later) {
                self.uncertain(write.ticket);
            }
        }
        // A commit index alone need not be kept: a majority knows it.
        if ready.must_sync() {
            let hard_state = self.raft.raft.hard_state();
            let (snapshot, entries) = (ready.snapshot(), ready.entries());
            self.raft.raft.raft_log.store.persist(snapshot, entries, &hard_state)?;
        }
        // A follower's word, which must not be forgotten.
        self.send(ready.take_persisted_messages());
        self.apply(ready.take_committed_entries())?;
        for state in ready.take_read_states() {
            let question = u64::from_be_bytes(state.request_ctx.as_slice().try_into()?);
            while self.asked.front().is_some_and(|(asked, _)| *asked <= question) {
                let reads = self.asked.pop_front().map(|(_, reads)| reads);
                self.confirmed.push_back((state.index, reads.unwrap_or_default()));
            }
        }
        let mut light = self.raft.advance_append(ready);
        self.send(light.take_messages());
        self.apply(light.take_committed_entries())?;
        self.raft.advance_apply();

        let applied = self.raft.raft.raft_log.applied;
        while self.confirmed.front().is_some_and(|(index, _)| *index <= applied) {
            let reads = self.confirmed.pop_front().map(|(_, reads)| reads);
            reads.into_iter().flatten().for_each(|read| self.read(read));
        }
        Ok(())
    }

    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            // Nobody sends only at the end.
            let _ = self.messages.send(message);
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), Box<dyn Error>> {
        for entry in entries {
            let mut out = BytesMut::new();
            // An empty one is a new leader's.
            if !entry.data.is_empty() {
                let (now, args) = decode(entry.data).ok_or("an entry of the log is no command")?;
                self.clock = self.clock.max(now);
                // If this node did not know what the others do, it would hold something else.
                let command =
                    data::Command::find(&args[0]).ok_or("an unknown command in the log")?;
                self.data.expire(now, EXPIRE_MAX);
                if command.name != "DEL" && self.is_full() {
                    resp::error(&mut out, "OOM the state is as large as it may be");
                } else {
                    self.data.apply(command, now, &args, &mut out);
                }
            }
            match self.writes.remove(&entry.index) {
                Some(write) if write.term == entry.term => {
                    let _ = self.answers.send(Answer { ticket: write.ticket, bytes: out });
                }
                Some(write) => self.elsewhere(write.ticket),
                None => {}
            }
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<(), Box<dyn Error>> {
        let applied = self.raft.raft.raft_log.applied;
        let store = &mut self.raft.raft.raft_log.store;
        let (snapshot, grown) = store.sizes();
        // Also more than the last snapshot, or each few writes to a large state would write all of it.
        if grown > self.snapshot_bytes.max(snapshot) && applied > store.snapshot_index() {
            let mut data = self.clock.to_be_bytes().to_vec();
            data.extend(self.data.snapshot());
            if data.len() > FRAME_MAX as usize {
                log(format_args!(
                    "cluster: a snapshot of {} bytes is more than a peer takes",
                    data.len()
                ));
            }
            let hard_state = self.raft.raft.hard_state();
            self.raft.raft.raft_log.store.compact(applied, data, &hard_state)?;
        }
        Ok(())
    }

    /// Milliseconds since 1970, and not before the time of any entry.
    fn now(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.clock.max(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }

    /// Decided by the state alone, so all nodes decide alike.
    fn is_full(&self) -> bool {
        self.data.used() + self.data.len() * KEY_OVERHEAD > STATE_MAX
    }

    fn read(&mut self, read: Read) {
        let (mut bytes, now) = (BytesMut::new(), self.now());
        if let Some(command) = data::Command::find(&read.args[0]) {
            self.data.apply(command, now, &read.args, &mut bytes);
        }
        let _ = self.answers.send(Answer { ticket: read.ticket, bytes });
    }

    fn answer(&self, ticket: (usize, u64), write: impl FnOnce(&mut BytesMut, &Node)) {
        let mut bytes = BytesMut::new();
        write(&mut bytes, self);
        let _ = self.answers.send(Answer { ticket, bytes });
    }

    /// It was not done, and is to be asked of the leader.
    fn elsewhere(&self, ticket: (usize, u64)) {
        self.answer(ticket, |out, node| match node.clients.get(&node.raft.raft.leader_id) {
            Some(address) if node.raft.raft.leader_id != node.raft.raft.id => {
                resp::error(out, &format!("MOVED 0 {address}"));
            }
            _ => resp::error(out, "CLUSTERDOWN no leader at the moment; nothing was done"),
        });
    }

    /// It may have been done, or may be yet.
    fn uncertain(&self, ticket: (usize, u64)) {
        self.answer(ticket, |out, _| {
            resp::error(out, "UNCERTAIN no majority in time; it may happen yet");
        });
    }

    /// This node's view, as lines.
    fn info(&self, out: &mut BytesMut) {
        let raft = &self.raft.raft;
        let lines = format!(
            "id:{}\r\nrole:{:?}\r\nleader:{}\r\nterm:{}\r\ncommitted:{}\r\napplied:{}\r\n\
             snapshot:{}\r\nlast:{}\r\ndigest:{:016x}\r\n",
            raft.id,
            raft.state,
            raft.leader_id,
            raft.term,
            raft.raft_log.committed,
            raft.raft_log.applied,
            raft.raft_log.store.snapshot_index(),
            raft.raft_log.last_index(),
            digest(&self.data.snapshot()),
        );
        resp::bulk(out, lines.as_bytes());
    }

    /// All slots are the leader's.
    fn slots(&self, out: &mut BytesMut) {
        let leader = self.raft.raft.leader_id;
        let address = self.clients.get(&leader).and_then(|address| address.rsplit_once(':'));
        let Some((host, port)) = address else { return resp::array(out, 0) };
        resp::array(out, 1);
        resp::array(out, 3);
        resp::integer(out, 0);
        resp::integer(out, 16383);
        resp::array(out, 3);
        resp::bulk(out, host.as_bytes());
        resp::integer(out, port.parse().unwrap_or(0));
        resp::bulk(out, format!("{leader:040x}").as_bytes());
    }
}

/// FNV-1a: to compare states, not to protect them.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What a snapshot holds: the clock, then the state.
fn restore(snapshot: &[u8]) -> Result<(Data, u64), Box<dyn Error>> {
    let (clock, data) = snapshot.split_first_chunk().ok_or("a snapshot without a clock")?;
    Ok((Data::restore(data)?, u64::from_be_bytes(*clock)))
}

/// An entry of the log: the leader's time, so that what expires does so on all nodes alike, and the words.
fn encode(now: u64, args: &[Bytes]) -> Vec<u8> {
    let mut entry = now.to_be_bytes().to_vec();
    for arg in args {
        entry.put_u32(u32::try_from(arg.len()).expect("the parser's limit is lower"));
        entry.put_slice(arg);
    }
    entry
}

fn decode(mut entry: Bytes) -> Option<(u64, Vec<Bytes>)> {
    let now = entry.try_get_u64().ok()?;
    let mut args = Vec::new();
    while entry.has_remaining() {
        let length = usize::try_from(entry.try_get_u32().ok()?).ok()?;
        if length > entry.remaining() {
            return None;
        }
        args.push(entry.split_to(length));
    }
    Some((now, args))
}
