//! The server: one thread waits, the other owns the listener and the connections.
//!
//! ```text
//!            register, deregister
//!        +-------------------------+
//!        v                         |
//!   +---------+   batches    +-----+----+    read, write
//!   | poller  +------------->|  worker  +<---------------->  sockets
//!   +---------+   (channel)  +----------+
//! ```
//!
//! The poller's thread never touches a socket, and the worker never waits in the kernel. More workers
//! would each have a channel and a share of the connections.

use amy::{Event, FrameReader, FrameWriter, IdMap, Notification, Poller, Registrar, Timer};
use std::{
    collections::VecDeque,
    fmt, io,
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, TryRecvError},
    },
    thread,
    time::Duration,
};

/// The longest frame that a client may send.
pub(crate) const FRAME_MAX: u32 = 1 << 20;

/// A client that does not read its echoes is not read from while this much waits for it.
const UNSENT_MAX: usize = 256 * 1024;

/// How long to rest when the process is out of descriptors and a connection cannot be accepted.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What was served so far.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) connections: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [connections, messages, bytes] =
            [&self.connections, &self.messages, &self.bytes].map(|n| n.load(Ordering::Relaxed));
        write!(f, "served {connections} connections, {messages} messages, {bytes} bytes")
    }
}

/// Serves until something can be read from `stop`, or it ends.
pub(crate) fn run(listener: TcpListener, stop: &UnixStream, served: &Served) -> io::Result<()> {
    let mut poller = Poller::new()?;
    let registrar = poller.get_registrar();
    let stop_id = registrar.register(stop, Event::Read)?;
    let worker = Worker::new(listener, registrar, served)?;

    thread::scope(|scope| {
        let (tx, rx) = mpsc::channel();
        let worker = scope.spawn(move || worker.run(&rx));
        loop {
            let notifications = poller.wait(None)?;
            let stopped = notifications.iter().any(|n| n.id == stop_id);
            // One message for a whole batch: a thread that is woken for each would cost more than
            // all the rest. It fails when the worker has ended, which then says why.
            if stopped || tx.send(notifications.to_vec()).is_err() {
                break;
            }
        }
        drop(tx); // ends the worker
        worker.join().expect("the worker panicked")
    })
}

struct Conn {
    sock: TcpStream,
    reader: FrameReader,
    writer: FrameWriter,
    /// There may be something to read. Nobody will say so again.
    readable: bool,
    /// The end may have come, with data or alone. Nobody will say that again, either.
    ended: bool,
}

impl Conn {
    /// Echoes a bounded amount, and returns whether there is more to do at once.
    fn turn(&mut self, served: &Served) -> io::Result<bool> {
        self.writer.write(&mut self.sock, None)?;
        if !self.readable || self.writer.queued_bytes() > UNSENT_MAX {
            // Of those who do not read, we read no more; a Write notification brings us back.
            return Ok(false);
        }
        if self.ended {
            self.reader.read(&mut self.sock)?;
        } else {
            self.reader.read_until_short(&mut self.sock)?;
        }
        for frame in self.reader.iter_mut() {
            served.messages.fetch_add(1, Ordering::Relaxed);
            served.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
            self.writer.push(frame)?;
        }
        self.writer.flush(&mut self.sock)?;
        self.readable = self.reader.has_more();
        Ok(self.readable)
    }
}

struct Worker<'a> {
    listener: TcpListener,
    listener_id: usize,
    registrar: Registrar,
    connections: IdMap<Conn>,
    /// Those who had more to read than one turn allows. They get no further notification.
    unfinished: VecDeque<usize>,
    /// Set while there was no descriptor left for the next connection.
    accept_again: Option<Timer>,
    served: &'a Served,
}

impl<'a> Worker<'a> {
    fn new(
        listener: TcpListener,
        registrar: Registrar,
        served: &'a Served,
    ) -> io::Result<Worker<'a>> {
        listener.set_nonblocking(true)?;
        let listener_id = registrar.register(&listener, Event::Read)?;
        Ok(Worker {
            listener,
            listener_id,
            registrar,
            connections: IdMap::default(),
            unfinished: VecDeque::new(),
            accept_again: None,
            served,
        })
    }

    fn run(mut self, batches: &Receiver<Vec<Notification>>) -> io::Result<()> {
        loop {
            // Whoever is unfinished gets one turn for each batch, so that nobody starves.
            let batch = if self.unfinished.is_empty() {
                let Ok(batch) = batches.recv() else { return Ok(()) };
                batch
            } else {
                match batches.try_recv() {
                    Ok(batch) => batch,
                    Err(TryRecvError::Empty) => Vec::new(),
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            };
            let unfinished = self.unfinished.len();
            for n in batch {
                let retry = self.accept_again.as_ref().map(Timer::get_id);
                if n.id == self.listener_id || Some(n.id) == retry {
                    self.accept()?;
                } else if let Some(conn) = self.connections.get_mut(&n.id) {
                    conn.readable |= n.event.readable();
                    conn.ended |= n.is_read_closed();
                    self.serve(n.id);
                }
                // Any other id was on its way when its connection ended.
            }
            for _ in 0..unfinished {
                if let Some(id) = self.unfinished.pop_front() {
                    self.serve(id);
                }
            }
        }
    }

    /// Accepts until there is nobody left: the listener is edge-triggered, too.
    fn accept(&mut self) -> io::Result<()> {
        self.accept_again = None;
        loop {
            match self.listener.accept() {
                Ok((sock, _)) => {
                    // A connection that fails at once is its own trouble.
                    if self.add(sock).is_ok() {
                        self.served.connections.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The client has hung up already; see accept(2) for others of this kind.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) => {}
                // Out of descriptors or memory. The edge is spent, so nobody would say when there is
                // room again: ask in a while.
                Err(_) => {
                    self.accept_again = Some(self.registrar.set_timeout(ACCEPT_REST)?);
                    return Ok(());
                }
            }
        }
    }

    fn add(&mut self, sock: TcpStream) -> io::Result<()> {
        sock.set_nonblocking(true)?;
        sock.set_nodelay(true)?;
        let id = self.registrar.register(&sock, Event::Both)?;
        let conn = Conn {
            sock,
            reader: FrameReader::new(FRAME_MAX),
            writer: FrameWriter::new(),
            readable: false,
            ended: false,
        };
        self.connections.insert(id, conn);
        Ok(())
    }

    fn serve(&mut self, id: usize) {
        let Some(conn) = self.connections.get_mut(&id) else { return };
        match conn.turn(self.served) {
            Ok(false) => {}
            Ok(true) => self.unfinished.push_back(id),
            // The end, a broken rule or a broken connection: all the same to an echo.
            Err(_) => {
                if let Some(conn) = self.connections.remove(&id) {
                    let _ = self.registrar.deregister(conn.sock);
                }
            }
        }
    }
}
