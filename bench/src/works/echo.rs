//! A server that sends every frame back, over TCP on the loopback. The load comes from one thread that
//! talks to all connections through epoll; what counts is the processor time of the server's threads.

use crate::{
    harness::{Contender, Took, Turn, Work},
    kit,
    works::wait::Raw,
};
use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use rustix::{
    event::epoll::{self, EventData, EventFlags},
    net::sockopt,
};
use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// The length of a message.
const MESSAGE: usize = 64;
/// How many events one wait may bring: little enough that two waiters share the work.
const EVENTS: usize = 128;
const ROOM: usize = 64 * 1024;

pub fn works() -> Vec<Work> {
    let mut works = Vec::new();
    for connections in [1, 64, 1000, 8000] {
        for depth in [1, 16] {
            let plural = if connections == 1 { "connection" } else { "connections" };
            let mut work = Work::new(
                "echo",
                format!("echo-{connections}-{depth}"),
                format!("{connections} {plural}, {depth} in flight"),
            );
            work.unit = "request";
            let least = if depth == 1 { 600 } else { 6000 };
            work.ops = least.max(connections as u64 * depth as u64 * 2);
            // Each contender needs two descriptors a connection.
            work.fresh = connections >= 1000;
            work.counted = match (connections, depth) {
                (1, 1) => Some((100, 600)),
                (64, 16) => Some((2048, 8192)),
                _ => None,
            };
            work.rounds = match connections {
                8000 => 5,
                1000 => 9,
                _ => 41,
            };
            let with = |serve: Serve| move || turn(serve, connections, depth);
            work.contenders = vec![
                Contender::new("raw", with(raw)),
                Contender::new("raw, hand-over", with(raw_hand_over)),
                Contender::new("raw, two waiters", with(raw_two)),
                Contender::new("amy", with(amy)),
                Contender::new("amy, hand-over", with(amy_hand_over)).against("raw, hand-over"),
                Contender::new("amy, two waiters", with(amy_waiters::<2>))
                    .against("raw, two waiters"),
                Contender::new("amy, two pollers", with(amy_pollers::<2>)),
                Contender::new("amy 0.10", with(amy010)),
                Contender::new("mio", with(mio)),
                Contender::new("tokio", with(|listener, open| tokio(1, listener, open))),
                Contender::new(
                    "tokio, two threads",
                    with(|listener, open| tokio(2, listener, open)),
                ),
            ];
            works.push(work);
        }
    }
    works
}

/// Starts a server. It ends when all the connections that it has accepted, which are `open`, have
/// been closed again.
type Serve = fn(TcpListener, usize) -> Vec<JoinHandle<()>>;

struct Client {
    address: SocketAddr,
    poll: OwnedFd,
    sockets: Vec<TcpStream>,
    /// How many bytes of its batch each socket has got back.
    received: Vec<usize>,
    batch: Vec<u8>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr, connections: usize, depth: usize) -> Client {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a queue");
        let mut batch = Vec::new();
        for number in 0..depth {
            batch.extend_from_slice(&(MESSAGE as u32).to_be_bytes());
            batch.extend_from_slice(&[number as u8; MESSAGE]);
        }
        let sockets: Vec<TcpStream> = (0..connections)
            .map(|number| {
                let socket = TcpStream::connect(address).expect("a connection");
                socket.set_nonblocking(true).expect("a mode");
                socket.set_nodelay(true).expect("a mode");
                let edge = EventFlags::IN | EventFlags::ET;
                epoll::add(&poll, &socket, EventData::new_u64(number as u64), edge).expect("room");
                socket
            })
            .collect();
        Client {
            address,
            poll,
            received: vec![0; sockets.len()],
            sockets,
            batch,
            events: Vec::with_capacity(1024),
            buffer: vec![0; ROOM],
        }
    }

    /// So many requests, as many as there may be of each connection in flight.
    fn run(&mut self, requests: usize, depth: usize) {
        let batches = requests / depth;
        let (mut sent, mut done) = (0, 0);
        for socket in self.sockets.iter().take(batches) {
            (&*socket).write_all(&self.batch).expect("room");
            sent += 1;
        }
        while done < batches {
            self.events.clear();
            let events = rustix::buffer::spare_capacity(&mut self.events);
            epoll::wait(&self.poll, events, None).expect("a wait");
            for event in &self.events {
                let data = event.data;
                let number = data.u64() as usize;
                let mut socket = &self.sockets[number];
                let received = &mut self.received[number];
                loop {
                    let count = match socket.read(&mut self.buffer) {
                        Ok(0) => panic!("{} closed a connection", self.address),
                        Ok(count) => count,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => panic!("{error}"),
                    };
                    let expected = &self.batch[*received..*received + count];
                    assert_eq!(&self.buffer[..count], expected, "what was sent comes back");
                    *received += count;
                    if *received < self.batch.len() {
                        continue;
                    }
                    *received = 0;
                    done += 1;
                    if sent < batches {
                        socket.write_all(&self.batch).expect("room");
                        sent += 1;
                    }
                    break;
                }
            }
        }
    }
}

/// Resets the connections, so that none lingers and thousands can be made again at once.
impl Drop for Client {
    fn drop(&mut self) {
        for socket in &self.sockets {
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
}

fn turn(serve: Serve, connections: usize, depth: usize) -> Turn {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    rustix::net::listen(&listener, 4096).expect("a longer queue");
    probe(&listener).expect("options of TCP");
    let address = listener.local_addr().expect("an address");
    let threads = serve(listener, connections);

    // The client is a thread of its own for as long as the contender lives: by its name, those who
    // count system calls know whose to leave out.
    let (orders, received) = mpsc::channel::<usize>();
    let (results, took) = mpsc::channel();
    let client = thread::Builder::new()
        .name("load".into())
        .spawn(move || {
            let mut client = Client::connect(address, connections, depth);
            // Everybody is connected, accepted and registered.
            results.send(Took::of(|| client.run(connections * depth, depth))).expect("a listener");
            for requests in received {
                let (server, own) = (kit::process_cpu(), kit::thread_cpu());
                let mut took = Took::of(|| client.run(requests, depth));
                let own = kit::thread_cpu() - own;
                took.cpu_ns = kit::process_cpu() - server - own;
                results.send(took).expect("somebody who asked");
            }
        })
        .expect("a thread");

    took.recv().expect("a client that is ready");
    let mut running = Running { orders: Some(orders), client: Some(client), threads };
    Box::new(move |ops| {
        running.order(ops as usize);
        took.recv().expect("a result")
    })
}

/// Has the kernel ask idle peers whether they live, on the connections that `listener` accepts.
///
/// A client resets thousands at once, more than the loopback queues (net.core.netdev_max_backlog). A reset that
/// was dropped there is not sent again, and a server would wait for the end of that connection for ever.
fn probe(listener: &TcpListener) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(listener, Duration::from_secs(5))?;
    sockopt::set_tcp_keepintvl(listener, Duration::from_secs(5))?;
    sockopt::set_socket_keepalive(listener, true)
}

struct Running {
    orders: Option<mpsc::Sender<usize>>,
    client: Option<JoinHandle<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    fn order(&mut self, requests: usize) {
        self.orders.as_ref().expect("a client").send(requests).expect("a client");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.orders.take());
        self.client.take().expect("a client").join().expect("a client that ends well");
        for thread in self.threads.drain(..) {
            thread.join().expect("a server that ends well");
        }
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::spawn(run)
}

fn accept_all(listener: &TcpListener, mut add: impl FnMut(TcpStream)) {
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(true).expect("a mode");
                socket.set_nodelay(true).expect("a mode");
                add(socket);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A connection by hand: what is incomplete or could not be sent is kept, and nothing else.
struct ByHand<S> {
    socket: S,
    part: Vec<u8>,
    unsent: Vec<u8>,
}

/// What serves one connection after the other.
struct Buffers {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Buffers {
    fn new() -> Buffers {
        Buffers { input: vec![0; ROOM], output: Vec::with_capacity(ROOM) }
    }
}

impl<S: Read + Write> ByHand<S> {
    fn new(socket: S) -> ByHand<S> {
        ByHand { socket, part: Vec::new(), unsent: Vec::new() }
    }

    /// Answers what has come, and says whether the connection goes on.
    fn serve(&mut self, buffers: &mut Buffers) -> bool {
        if !self.unsent.is_empty() {
            std::mem::swap(&mut self.unsent, &mut buffers.output);
            if !self.send(&mut buffers.output) {
                return false;
            }
        }
        loop {
            let held = self.part.len();
            buffers.input[..held].copy_from_slice(&self.part);
            self.part.clear();
            let room = ROOM - held;
            let (count, over) = match self.socket.read(&mut buffers.input[held..]) {
                Ok(0) => return false,
                Ok(count) => (count, count < room),
                Err(error) if error.kind() == ErrorKind::WouldBlock => (0, true),
                Err(_) => return false,
            };
            let mut rest = &buffers.input[..held + count];
            while let Some((header, behind)) = rest.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*header) as usize;
                assert!(length <= ROOM - 4, "within the limit");
                if length > behind.len() {
                    break;
                }
                buffers.output.extend_from_slice(header);
                buffers.output.extend_from_slice(&behind[..length]);
                rest = &behind[length..];
            }
            self.part.extend_from_slice(rest);
            if !buffers.output.is_empty() && !self.send(&mut buffers.output) {
                return false;
            }
            if over {
                return true;
            }
        }
    }

    fn send(&mut self, output: &mut Vec<u8>) -> bool {
        let mut sent = 0;
        while sent < output.len() {
            match self.socket.write(&output[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        self.unsent.extend_from_slice(&output[sent..]);
        output.clear();
        true
    }
}

const RAW_EDGE: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);
const LISTENER: u64 = u64::MAX;

fn raw_queue(listener: &TcpListener) -> OwnedFd {
    listener.set_nonblocking(true).expect("a mode");
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a queue");
    let edge = EventFlags::IN | EventFlags::ET;
    epoll::add(&queue, listener, EventData::new_u64(LISTENER), edge).expect("room");
    queue
}

fn raw(listener: TcpListener, mut open: usize) -> Vec<JoinHandle<()>> {
    vec![spawn(move || {
        let queue = raw_queue(&listener);
        let mut connections = Vec::new();
        let mut buffers = Buffers::new();
        let mut events = Vec::with_capacity(EVENTS);
        while open > 0 {
            events.clear();
            epoll::wait(&queue, rustix::buffer::spare_capacity(&mut events), None).expect("a wait");
            for event in &events {
                let data = event.data;
                if data.u64() == LISTENER {
                    accept_all(&listener, |socket| {
                        let token = EventData::new_u64(connections.len() as u64);
                        epoll::add(&queue, &socket, token, RAW_EDGE).expect("room");
                        connections.push(Some(ByHand::new(socket)));
                    });
                } else {
                    let place = &mut connections[data.u64() as usize];
                    let Some(connection) = place else { continue };
                    if !connection.serve(&mut buffers) {
                        *place = None;
                        open -= 1;
                    }
                }
            }
        }
    })]
}

fn raw_hand_over(listener: TcpListener, open: usize) -> Vec<JoinHandle<()>> {
    let queue = Arc::new(raw_queue(&listener));
    let stop = Arc::new(kit::eventfds(1).remove(0));
    let (theirs, kept) = (Arc::clone(&queue), Arc::clone(&stop));
    let (batches, received) = mpsc::channel::<Vec<u64>>();
    let poller = spawn(move || {
        let mut events = Vec::<epoll::Event>::with_capacity(EVENTS);
        loop {
            events.clear();
            epoll::wait(&*theirs, rustix::buffer::spare_capacity(&mut events), None)
                .expect("a wait");
            let batch = events.iter().map(|event| event.data).map(EventData::u64).collect();
            if batches.send(batch).is_err() {
                drop(kept);
                return;
            }
        }
    });
    let worker = spawn(move || {
        let mut connections = Vec::new();
        let mut buffers = Buffers::new();
        let mut left = open;
        while left > 0 {
            for token in received.recv().expect("a poller") {
                if token == LISTENER {
                    accept_all(&listener, |socket| {
                        let token = EventData::new_u64(connections.len() as u64);
                        epoll::add(&*queue, &socket, token, RAW_EDGE).expect("room");
                        connections.push(Some(ByHand::new(socket)));
                    });
                } else {
                    let place = &mut connections[token as usize];
                    let Some(connection) = place else { continue };
                    if !connection.serve(&mut buffers) {
                        *place = None;
                        left -= 1;
                    }
                }
            }
        }
        drop(received);
        end_waits(&queue, &stop);
    });
    vec![worker, poller]
}

type Shared<C> = RwLock<Vec<Arc<Mutex<Option<C>>>>>;

fn raw_two(listener: TcpListener, open: usize) -> Vec<JoinHandle<()>> {
    let queue = raw_queue(&listener);
    let connections = Shared::<ByHand<TcpStream>>::default();
    let stop = kit::eventfds(1).remove(0);
    let shared = Arc::new((queue, listener, connections, AtomicUsize::new(open), stop));
    (0..2)
        .map(|_| {
            let shared = Arc::clone(&shared);
            spawn(move || {
                let (queue, listener, connections, open, stop) = &*shared;
                let mut buffers = Buffers::new();
                let mut events = Vec::<epoll::Event>::with_capacity(EVENTS);
                while open.load(Ordering::Acquire) > 0 {
                    events.clear();
                    epoll::wait(queue, rustix::buffer::spare_capacity(&mut events), None)
                        .expect("a wait");
                    for event in &events {
                        let data = event.data;
                        if data.u64() == LISTENER {
                            accept_all(listener, |socket| {
                                let mut all = connections.write().expect("a lock");
                                let token = EventData::new_u64(all.len() as u64);
                                epoll::add(queue, &socket, token, RAW_EDGE).expect("room");
                                all.push(Arc::new(Mutex::new(Some(ByHand::new(socket)))));
                            });
                            continue;
                        }
                        let place = data.u64() as usize;
                        let place = Arc::clone(&connections.read().expect("a lock")[place]);
                        let mut place = place.lock().expect("a lock");
                        let Some(connection) = &mut *place else { continue };
                        if !connection.serve(&mut buffers) {
                            *place = None;
                            if open.fetch_sub(1, Ordering::AcqRel) == 1 {
                                end_waits(queue, stop);
                            }
                        }
                    }
                }
            })
        })
        .collect()
}

/// Ends every wait for as long as `stop` is open.
fn end_waits(queue: &OwnedFd, stop: &OwnedFd) {
    kit::make_ready(stop);
    epoll::add(queue, stop, EventData::new_u64(0), EventFlags::IN).expect("room");
}

/// A connection as the guide has it.
struct Connection {
    socket: TcpStream,
    reader: amy::FrameReader,
    writer: amy::FrameWriter,
}

impl Connection {
    fn new(socket: TcpStream) -> Connection {
        Connection {
            socket,
            reader: amy::FrameReader::new(ROOM as u32),
            writer: amy::FrameWriter::new(),
        }
    }

    fn serve(&mut self, n: amy::Notification) -> bool {
        if n.event.writable() && !self.writer.is_empty() && self.flush().is_err() {
            return false;
        }
        loop {
            let read = if n.is_read_closed() {
                self.reader.read(&mut self.socket)
            } else {
                self.reader.read_until_short(&mut self.socket)
            };
            if read.is_err() {
                return false;
            }
            for message in self.reader.iter_mut() {
                if self.writer.push(message).is_err() {
                    return false;
                }
            }
            if self.flush().is_err() {
                return false;
            }
            if !self.reader.has_more() {
                return true;
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<bool> {
        if self.writer.is_empty() { Ok(true) } else { self.writer.flush(&mut self.socket) }
    }
}

fn amy(listener: TcpListener, mut open: usize) -> Vec<JoinHandle<()>> {
    vec![spawn(move || {
        listener.set_nonblocking(true).expect("a mode");
        let mut poller = amy::Poller::with_capacity(EVENTS).expect("a poller");
        let registrar = poller.get_registrar();
        let listener_id = registrar.register(&listener, amy::Event::Read).expect("room");
        let mut connections = amy::IdMap::default();
        while open > 0 {
            for n in poller.wait(None).expect("a wait") {
                if n.id == listener_id {
                    accept_all(&listener, |socket| {
                        let id = registrar.register(&socket, amy::Event::Both).expect("room");
                        connections.insert(id, Connection::new(socket));
                    });
                } else if let Some(connection) = connections.get_mut(&n.id) {
                    if !connection.serve(n) {
                        connections.remove(&n.id);
                        open -= 1;
                    }
                }
            }
        }
    })]
}

fn amy_hand_over(listener: TcpListener, open: usize) -> Vec<JoinHandle<()>> {
    listener.set_nonblocking(true).expect("a mode");
    let mut poller = amy::Poller::with_capacity(EVENTS).expect("a poller");
    let registrar = poller.get_registrar();
    let notifier = registrar.notifier().expect("a notifier");
    let (batches, received) = mpsc::channel::<Vec<amy::Notification>>();
    let poller = spawn(move || {
        loop {
            let batch = poller.wait(None).expect("a wait").to_vec();
            if batches.send(batch).is_err() {
                return;
            }
        }
    });
    let worker = spawn(move || {
        let listener_id = registrar.register(&listener, amy::Event::Read).expect("room");
        let mut connections = amy::IdMap::default();
        let mut left = open;
        while left > 0 {
            for n in received.recv().expect("a poller") {
                if n.id == listener_id {
                    accept_all(&listener, |socket| {
                        let id = registrar.register(&socket, amy::Event::Both).expect("room");
                        connections.insert(id, Connection::new(socket));
                    });
                } else if let Some(connection) = connections.get_mut(&n.id) {
                    if !connection.serve(n) {
                        connections.remove(&n.id);
                        left -= 1;
                    }
                }
            }
        }
        drop(received);
        notifier.notify().expect("a poller");
    });
    vec![worker, poller]
}

/// The same with so many waiters; see the growth section.
pub fn with_waiters<const WAITERS: usize>() -> Turn {
    turn(amy_waiters::<WAITERS>, 64, 16)
}

fn amy_waiters<const WAITERS: usize>(listener: TcpListener, open: usize) -> Vec<JoinHandle<()>> {
    listener.set_nonblocking(true).expect("a mode");
    let poller = amy::Poller::with_capacity(EVENTS).expect("a poller");
    let registrar = poller.get_registrar();
    let listener_id = registrar.register(&listener, amy::Event::Read).expect("room");
    let notifier = registrar.notifier().expect("a notifier");
    let connections = RwLock::new(amy::IdMap::<Arc<Mutex<Connection>>>::default());
    let shared = Arc::new((registrar, listener, connections, notifier, AtomicUsize::new(open)));
    (0..WAITERS)
        .map(|_| {
            let mut poller = poller.try_clone().expect("another waiter");
            let shared = Arc::clone(&shared);
            spawn(move || {
                let (registrar, listener, connections, notifier, open) = &*shared;
                while open.load(Ordering::Acquire) > 0 {
                    for n in poller.wait(None).expect("a wait") {
                        if n.id == listener_id {
                            accept_all(listener, |socket| {
                                let mut all = connections.write().expect("a lock");
                                let id =
                                    registrar.register(&socket, amy::Event::Both).expect("room");
                                all.insert(id, Arc::new(Mutex::new(Connection::new(socket))));
                            });
                            continue;
                        }
                        let known = connections.read().expect("a lock").get(&n.id).cloned();
                        let Some(connection) = known else { continue };
                        if connection.lock().expect("a lock").serve(n) {
                            continue;
                        }
                        if connections.write().expect("a lock").remove(&n.id).is_some()
                            && open.fetch_sub(1, Ordering::AcqRel) == 1
                        {
                            notifier.notify().expect("a poller");
                        }
                    }
                }
                // The next waiter has to see it too.
                let _ = notifier.notify();
            })
        })
        .collect()
}

/// A poller for each thread. The first accepts, and deals the connections out in turn.
fn amy_pollers<const POLLERS: usize>(listener: TcpListener, open: usize) -> Vec<JoinHandle<()>> {
    listener.set_nonblocking(true).expect("a mode");
    let (dealers, hands): (Vec<_>, Vec<_>) = (0..POLLERS)
        .map(|_| {
            let poller = amy::Poller::with_capacity(EVENTS).expect("a poller");
            let (dealer, hand) = poller.get_registrar().channel().expect("a channel");
            (dealer, (poller, hand))
        })
        .unzip();
    let mut listener = Some((listener, dealers));
    hands
        .into_iter()
        .enumerate()
        .map(|(number, (poller, hand))| {
            let listener = listener.take();
            // Of those dealt in turn: rounded up for the first ones.
            let share = (open + POLLERS - 1 - number) / POLLERS;
            spawn(move || serve_hand(poller, listener, &hand, share))
        })
        .collect()
}

fn serve_hand(
    mut poller: amy::Poller,
    listener: Option<(TcpListener, Vec<amy::Sender<TcpStream>>)>,
    hand: &amy::Receiver<TcpStream>,
    mut open: usize,
) {
    let registrar = poller.get_registrar();
    let listener = listener.map(|(listener, dealers)| {
        let id = registrar.register(&listener, amy::Event::Read).expect("room");
        (id, listener, dealers)
    });
    let mut dealt = 0;
    let mut connections = amy::IdMap::default();
    while open > 0 {
        for n in poller.wait(None).expect("a wait") {
            if n.id == hand.get_id() {
                for socket in hand {
                    let id = registrar.register(&socket, amy::Event::Both).expect("room");
                    connections.insert(id, Connection::new(socket));
                }
            } else if let Some(connection) = connections.get_mut(&n.id) {
                if !connection.serve(n) {
                    connections.remove(&n.id);
                    open -= 1;
                }
            } else if let Some((id, listener, dealers)) = &listener {
                if n.id == *id {
                    accept_all(listener, |socket| {
                        dealers[dealt % dealers.len()].send(socket).expect("a thread");
                        dealt += 1;
                    });
                }
            }
        }
    }
}

fn amy010(listener: TcpListener, mut open: usize) -> Vec<JoinHandle<()>> {
    vec![spawn(move || {
        listener.set_nonblocking(true).expect("a mode");
        let mut poller = amy010::Poller::new().expect("a poller");
        let registrar = poller.get_registrar();
        let listener_id =
            registrar.register(&Raw(listener.as_raw_fd()), amy010::Event::Read).expect("room");
        let mut connections = HashMap::new();
        while open > 0 {
            for n in poller.wait(1_000_000).expect("a wait") {
                if n.id == listener_id {
                    accept_all(&listener, |socket| {
                        let id = registrar
                            .register(&Raw(socket.as_raw_fd()), amy010::Event::Both)
                            .expect("room");
                        let reader = amy010::FrameReader::new(ROOM as u32);
                        connections.insert(id, (socket, reader, amy010::FrameWriter::new()));
                    });
                } else if let Some((socket, reader, writer)) = connections.get_mut(&n.id) {
                    if n.event.writable() {
                        writer.writable();
                    }
                    let mut lives = reader.read(socket).is_ok();
                    for message in reader.iter_mut() {
                        lives &= writer.write(socket, Some(message)).is_ok();
                    }
                    lives &= writer.write(socket, None).is_ok();
                    if !lives {
                        connections.remove(&n.id);
                        open -= 1;
                    }
                }
            }
        }
    })]
}

fn mio(listener: TcpListener, mut open: usize) -> Vec<JoinHandle<()>> {
    vec![spawn(move || {
        const LISTENER: mio::Token = mio::Token(usize::MAX);
        listener.set_nonblocking(true).expect("a mode");
        let mut listener = mio::net::TcpListener::from_std(listener);
        let mut poll = mio::Poll::new().expect("a poll");
        poll.registry().register(&mut listener, LISTENER, mio::Interest::READABLE).expect("room");
        let mut events = mio::Events::with_capacity(EVENTS);
        let mut connections: Vec<Option<ByHand<mio::net::TcpStream>>> = Vec::new();
        let mut buffers = Buffers::new();
        while open > 0 {
            poll.poll(&mut events, None).expect("a poll");
            for event in &events {
                if event.token() == LISTENER {
                    while let Ok((mut socket, _)) = listener.accept() {
                        socket.set_nodelay(true).expect("a mode");
                        let token = mio::Token(connections.len());
                        let both = mio::Interest::READABLE | mio::Interest::WRITABLE;
                        poll.registry().register(&mut socket, token, both).expect("room");
                        connections.push(Some(ByHand::new(socket)));
                    }
                    continue;
                }
                let place = &mut connections[event.token().0];
                let Some(connection) = place else { continue };
                if !connection.serve(&mut buffers) {
                    *place = None;
                    open -= 1;
                }
            }
        }
    })]
}

fn tokio(threads: usize, listener: TcpListener, open: usize) -> Vec<JoinHandle<()>> {
    vec![spawn(move || {
        let mut builder = if threads == 1 {
            tokio::runtime::Builder::new_current_thread()
        } else {
            tokio::runtime::Builder::new_multi_thread()
        };
        let runtime = builder.worker_threads(threads).enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            listener.set_nonblocking(true).expect("a mode");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let mut tasks = Vec::new();
            for _ in 0..open {
                let (socket, _) = listener.accept().await.expect("a connection");
                socket.set_nodelay(true).expect("a mode");
                tasks.push(tokio::spawn(serve(socket)));
            }
            for task in tasks {
                task.await.expect("a task that ends well");
            }
        });
    })]
}

/// Answers all that has come, and then sends the answers together.
async fn serve(socket: tokio::net::TcpStream) {
    let codec = LengthDelimitedCodec::builder().max_frame_length(ROOM).new_codec();
    let mut framed = Framed::new(socket, codec);
    while let Some(Ok(message)) = framed.next().await {
        if framed.feed(message.freeze()).await.is_err() {
            return;
        }
        while let Some(next) = framed.next().now_or_never() {
            let Some(Ok(message)) = next else { return };
            if framed.feed(message.freeze()).await.is_err() {
                return;
            }
        }
        if SinkExt::<Bytes>::flush(&mut framed).await.is_err() {
            return;
        }
    }
}
