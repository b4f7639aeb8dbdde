//! Messages to peers and from them, each a frame. What cannot be sent soon is dropped: raft sends it again.
//!
//! A node connects to every other one to send, and only receives on what it accepts, so there are two
//! connections for each pair and no rule for which one stays.

use amy::{Event, FrameReader, FrameWriter, IdMap, Poller, Receiver, Registrar, SyncSender, Timer};
use amy_servers::accept;
use protobuf::Message as _;
use raft::eraftpb::Message;
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::BuildHasher,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{TryRecvError, TrySendError},
    time::Duration,
};

/// The longest message: a snapshot of all that a node may hold, and what is around it.
pub(crate) const FRAME_MAX: u32 = 256 << 20;
/// For a peer that does not read, no more than this and one message waits.
const QUEUE_MAX: usize = 16 << 20;
/// Strangers can connect, too. When there are so many connections, all of them are turned away.
const INCOMING_MAX: usize = 64;
/// How many messages may wait for the raft thread.
pub(crate) const HEARD_MAX: usize = 1024;
/// How long to wait for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// How long a peer's kernel may leave unanswered what was sent.
#[cfg(target_os = "linux")]
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long to rest before the next attempt: at first, and at most.
const REST: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Says what this is before all messages, so that a stray client or another cluster's node is refused.
const HELLO: &str = "amy-cluster/1";

/// What the raft thread is told.
pub(crate) enum FromPeers {
    Message(Message),
    /// Something on the way to this peer is gone.
    Lost(u64),
    /// Where this peer's clients connect.
    Clients(u64, String),
}

/// One that sends to us. Who it is stands in its first frame.
struct Incoming {
    sock: TcpStream,
    reader: FrameReader,
    from: Option<u64>,
}

/// One that we send to.
struct Outgoing {
    address: SocketAddr,
    state: State,
    /// How long to rest after the next failure.
    rest: Duration,
    /// It was said that something was lost, and nothing was sent since.
    told: bool,
}

enum State {
    Resting(Timer),
    Connecting(TcpStream, Timer),
    Connected(TcpStream, FrameWriter),
}

pub(crate) struct Transport {
    poller: Poller,
    registrar: Registrar,
    listener: TcpListener,
    listener_id: usize,
    accept_again: Option<Timer>,
    me: u64,
    /// Where our clients connect.
    clients: String,
    incoming: IdMap<Incoming>,
    outgoing: BTreeMap<u64, Outgoing>,
    /// Which peer a connection or a timer of `outgoing` belongs to.
    whose: IdMap<u64>,
    node: SyncSender<FromPeers>,
}

impl Transport {
    pub(crate) fn new(
        poller: Poller,
        listener: TcpListener,
        me: u64,
        clients: String,
        peers: &BTreeMap<u64, SocketAddr>,
        node: SyncSender<FromPeers>,
    ) -> io::Result<Transport> {
        let registrar = poller.get_registrar();
        listener.set_nonblocking(true)?;
        let listener_id = registrar.register(&listener, Event::Read)?;
        let (mut outgoing, mut whose) = (BTreeMap::new(), IdMap::default());
        for (&id, &address) in peers.iter().filter(|(id, _)| **id != me) {
            let timer = registrar.set_timeout(Duration::ZERO)?;
            whose.insert(timer.get_id(), id);
            let state = State::Resting(timer);
            outgoing.insert(id, Outgoing { address, state, rest: REST.0, told: false });
        }
        Ok(Transport {
            poller,
            registrar,
            listener,
            listener_id,
            accept_again: None,
            me,
            clients,
            incoming: IdMap::default(),
            outgoing,
            whose,
            node,
        })
    }

    /// Runs until nobody sends messages any more.
    pub(crate) fn run(mut self, messages: &Receiver<Message>) -> io::Result<()> {
        loop {
            for n in self.poller.wait(None)?.to_vec() {
                let again = self.accept_again.as_ref().map(Timer::get_id);
                if n.id == messages.get_id() {
                    if !self.send(messages) {
                        return Ok(());
                    }
                } else if n.id == self.listener_id || Some(n.id) == again {
                    self.accept()?;
                } else if let Some(&peer) = self.whose.get(&n.id) {
                    self.progress(peer, n.event, n.is_read_closed())?;
                } else if let Some(conn) = self.incoming.remove(&n.id) {
                    self.receive(n.id, conn);
                }
            }
        }
    }

    /// Sends what the raft thread gave, and returns whether there may be more.
    fn send(&mut self, messages: &Receiver<Message>) -> bool {
        let mut touched = Vec::new();
        let more = loop {
            match messages.try_recv() {
                Ok(message) => {
                    let Some(peer) = self.outgoing.get_mut(&message.to) else { continue };
                    let queued = match &mut peer.state {
                        State::Connected(_, writer) if writer.queued_bytes() <= QUEUE_MAX => {
                            let bytes = message.write_to_bytes().expect("a complete message");
                            writer.push(bytes).is_ok()
                        }
                        _ => false,
                    };
                    if queued {
                        peer.told = false;
                        touched.push(message.to);
                    } else {
                        self.lost(message.to);
                    }
                }
                Err(TryRecvError::Empty) => break true,
                Err(TryRecvError::Disconnected) => break false,
            }
        };
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            self.flush(id);
        }
        more
    }

    fn flush(&mut self, id: u64) {
        let Some(Outgoing { state: State::Connected(sock, writer), .. }) =
            self.outgoing.get_mut(&id)
        else {
            return;
        };
        if writer.is_writable() && writer.flush(sock).is_err() {
            self.disconnect(id);
        }
    }

    /// Tells the raft thread, once until something is sent again. If the thread is so far behind that it
    /// cannot be told, it hears of it with the next message.
    fn lost(&mut self, id: u64) {
        if let Some(peer) = self.outgoing.get_mut(&id).filter(|peer| !peer.told) {
            peer.told = self.node.try_send(FromPeers::Lost(id)).is_ok();
        }
    }

    /// Goes on with a connection that we send on.
    fn progress(&mut self, id: u64, event: Event, ended: bool) -> io::Result<()> {
        let Some(peer) = self.outgoing.get_mut(&id) else { return Ok(()) };
        match &mut peer.state {
            State::Resting(timer) => {
                self.whose.remove(&timer.get_id());
                match begin(peer.address) {
                    Ok(sock) => {
                        let deadline = self.registrar.set_timeout(CONNECT_PATIENCE)?;
                        self.whose.insert(deadline.get_id(), id);
                        self.whose.insert(self.registrar.register(&sock, Event::Both)?, id);
                        peer.state = State::Connecting(sock, deadline);
                    }
                    Err(_) => self.rest(id)?,
                }
            }
            State::Connecting(sock, deadline) => {
                // The deadline's own notification is one to read.
                let connected = event.writable() && matches!(sock.take_error(), Ok(None));
                self.whose.remove(&deadline.get_id());
                if !connected {
                    self.disconnect(id);
                    return Ok(());
                }
                let mut writer = FrameWriter::new()
                    .with_max_frame_size(FRAME_MAX)
                    .with_queue_limit(QUEUE_MAX + 2 * FRAME_MAX as usize);
                let hello = format!("{HELLO} {} {id} {}", self.me, self.clients);
                writer.push(hello).map_err(io::Error::from)?;
                let State::Connecting(sock, _) = std::mem::replace(
                    &mut peer.state,
                    State::Resting(self.registrar.set_timeout(REST.1)?),
                ) else {
                    unreachable!("it was one a moment ago")
                };
                peer.state = State::Connected(sock, writer);
                peer.rest = REST.0;
                self.flush(id);
            }
            // A peer says nothing here: what can be read is its end.
            State::Connected(..) if ended || !event.writable() => self.disconnect(id),
            State::Connected(_, writer) => {
                writer.writable();
                self.flush(id);
            }
        }
        Ok(())
    }

    /// Ends a connection that we send on, and tries again later.
    fn disconnect(&mut self, id: u64) {
        let Some(peer) = self.outgoing.get(&id) else { return };
        let was_connected = matches!(peer.state, State::Connected(..));
        self.whose.retain(|_, whose| *whose != id);
        // Without a timer nobody would connect again, and the node be half of one.
        self.rest(id).expect("a timer can be set");
        if was_connected {
            self.lost(id);
        }
    }

    /// Rests before the next attempt: a time that doubles, with a random part.
    fn rest(&mut self, id: u64) -> io::Result<()> {
        let Some(peer) = self.outgoing.get_mut(&id) else { return Ok(()) };
        let random = u32::try_from(RandomState::new().hash_one(id) % 1000).unwrap_or(0);
        let timer = self.registrar.set_timeout(peer.rest + peer.rest * random / 1000)?;
        self.whose.insert(timer.get_id(), id);
        peer.rest = (peer.rest * 2).min(REST.1);
        match std::mem::replace(&mut peer.state, State::Resting(timer)) {
            State::Resting(_) => {}
            State::Connecting(sock, _) | State::Connected(sock, _) => {
                let _ = self.registrar.deregister(sock);
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        self.accept_again = None;
        loop {
            match accept(&self.listener) {
                Ok(Some(sock)) => {
                    if self.incoming.len() >= INCOMING_MAX {
                        self.forget(|conn| conn.from.is_none());
                    }
                    if sock.set_nonblocking(true).is_ok() {
                        let id = self.registrar.register(&sock, Event::Read)?;
                        let reader = FrameReader::new(FRAME_MAX);
                        self.incoming.insert(id, Incoming { sock, reader, from: None });
                    }
                }
                Ok(None) => return Ok(()),
                // Out of descriptors: nobody would say when there is one again.
                Err(_) => {
                    self.accept_again = Some(self.registrar.set_timeout(REST.1)?);
                    return Ok(());
                }
            }
        }
    }

    /// Hands over what a peer sent. When the connection is ended or broken, or broke a rule, the peer
    /// connects again.
    fn receive(&mut self, id: usize, mut conn: Incoming) {
        let known = conn.from;
        if self.hand_over(&mut conn).is_err() {
            let _ = self.registrar.deregister(conn.sock);
            return;
        }
        if conn.from != known {
            // Its last one may have ended without a word, as when the machine lost its power.
            self.forget(|other| other.from == conn.from);
        }
        self.incoming.insert(id, conn);
    }

    fn hand_over(&self, conn: &mut Incoming) -> io::Result<()> {
        while conn.reader.read(&mut conn.sock)? > 0 {
            for frame in conn.reader.iter_mut() {
                let given = if let Some(from) = conn.from {
                    let message = Message::parse_from_bytes(frame).map_err(io::Error::other)?;
                    if message.from != from || message.to != self.me {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    self.node.try_send(FromPeers::Message(message))
                } else {
                    let hello = std::str::from_utf8(frame).map_err(io::Error::other)?;
                    let (from, clients) = introduced(hello, self.me)
                        .filter(|(from, _)| self.outgoing.contains_key(from))
                        .ok_or(io::ErrorKind::InvalidData)?;
                    conn.from = Some(from);
                    self.node.try_send(FromPeers::Clients(from, clients.to_owned()))
                };
                match given {
                    Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                    // Not to be dropped silently: its sender waits for what becomes of a snapshot,
                    // and learns from the end of the connection that it was lost.
                    Err(TrySendError::Full(_)) => return Err(io::ErrorKind::QuotaExceeded.into()),
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self, which: impl Fn(&Incoming) -> bool) {
        let ids: Vec<_> =
            self.incoming.iter().filter(|(_, c)| which(c)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(conn) = self.incoming.remove(&id) {
                let _ = self.registrar.deregister(conn.sock);
            }
        }
    }
}

/// Who says this hello to `me`, and where its clients connect.
fn introduced(hello: &str, me: u64) -> Option<(u64, &str)> {
    let mut words = hello.split(' ');
    if words.next()? != HELLO {
        return None;
    }
    let from = words.next()?.parse().ok()?;
    let to: u64 = words.next()?.parse().ok()?;
    let clients = words.next()?;
    (to == me && words.next().is_none()).then_some((from, clients))
}

/// A connection under way.
fn begin(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // Nothing comes back on this connection, so of a peer that is gone without a word only the kernel
    // hears nothing. By itself it would send again for a quarter of an hour.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(SILENCE_MAX))?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok(socket.into()),
        Err(e) if e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => Ok(socket.into()),
        Err(e) => Err(e),
    }
}
