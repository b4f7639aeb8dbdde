//! A thread with a poller of its own and the sessions that it was given.

use crate::{
    backends::{Backends, Share, connect, is_ours},
    session::{End, Flow, Turn},
};
use amy::{Event, IdMap, Notification, Notifier, Poller, Receiver, Registrar, Sender, Timer};
use amy_servers::{Accepted, Idle, Place, Unfinished};
use socket2::Socket;
use std::{
    collections::VecDeque,
    io,
    net::TcpStream,
    sync::{Arc, mpsc::TryRecvError},
    time::Duration,
};

/// How long to rest when there is no descriptor for a connection to a backend.
const REST: Duration = Duration::from_millis(100);

/// What all workers are told at the start.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) backends: Arc<Backends>,
    /// Backends that could not be connected to, and have been marked.
    pub(crate) failures: Sender<(usize, io::Error)>,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle: Duration,
    pub(crate) buffer: usize,
}

enum Backend {
    /// There was no descriptor for it: the worker tries again after a rest.
    Starved,
    Connecting {
        socket: Socket,
        id: usize,
        timeout: Timer,
    },
    Open(End),
}

struct Session {
    client: End,
    backend: Backend,
    /// Which backends this client was not connected to, a bit for each.
    tried: u64,
    share: Option<Share>,
    idle: Idle,
    up: Flow,
    down: Flow,
    _place: Place,
}

pub(crate) struct Worker {
    poller: Poller,
    registrar: Registrar,
    settings: Settings,
    accepted: Receiver<Accepted>,
    end: Notifier,
    /// By the id of the client's socket.
    sessions: IdMap<Session>,
    /// From the ids of the backends' sockets, and of timers, to the client's.
    owners: IdMap<usize>,
    unfinished: Unfinished,
    /// Those who wait for a descriptor, and the end of the rest.
    starved: VecDeque<usize>,
    again: Option<Timer>,
    /// Where a read goes; what the other side takes at once is never copied.
    space: Box<[u8]>,
}

impl Worker {
    /// A worker, who hands it connections, and who ends it with all that is under way.
    pub(crate) fn new(settings: Settings) -> io::Result<(Worker, Sender<Accepted>, Notifier)> {
        let poller = Poller::new()?;
        let registrar = poller.get_registrar();
        let (sender, accepted) = registrar.channel()?;
        let end = registrar.notifier()?;
        let worker = Worker {
            poller,
            registrar,
            accepted,
            end: end.clone(),
            sessions: IdMap::default(),
            owners: IdMap::default(),
            unfinished: Unfinished::default(),
            starved: VecDeque::new(),
            again: None,
            space: vec![0; settings.buffer].into(),
            settings,
        };
        Ok((worker, sender, end))
    }

    /// Serves until nobody hands out connections any more and the last session is over, or until it
    /// is told to end.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut draining = false;
        while !draining || !self.sessions.is_empty() {
            batch.clear();
            batch.extend_from_slice(&self.poller.wait(self.unfinished.timeout())?);
            // Whoever is unfinished gets one turn for each batch, so that nobody starves.
            let unfinished = self.unfinished.len();
            for n in batch.drain(..) {
                if n.id == self.accepted.get_id() {
                    draining = self.accept()?;
                } else if n.id == self.end.get_id() {
                    let all = self.sessions.keys().copied().collect::<Vec<_>>();
                    all.into_iter().for_each(|id| self.reset(id));
                    return Ok(());
                } else if self.again.as_ref().is_some_and(|again| again.get_id() == n.id) {
                    self.again = None;
                    self.feed()?;
                } else {
                    self.tell(n)?;
                }
            }
            for _ in 0..unfinished {
                if let Some(id) = self.unfinished.pop() {
                    self.turn(id);
                }
            }
        }
        Ok(())
    }

    /// Takes the new connections, and returns whether there will be no more.
    fn accept(&mut self) -> io::Result<bool> {
        loop {
            match self.accepted.try_recv() {
                Ok(accepted) => self.add(accepted)?,
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => return Ok(true),
            }
        }
    }

    fn add(&mut self, Accepted { sock, place, .. }: Accepted) -> io::Result<()> {
        let id = match self.registrar.register(&sock, Event::Both) {
            Ok(id) => id,
            // The kernel has room for no more registrations (ENOSPC): this client is refused.
            Err(error) if is_ours(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let idle = Idle::new(&self.registrar, self.settings.idle)?;
        self.owners.insert(idle.get_id(), id);
        let session = Session {
            client: End::new(sock, id),
            backend: Backend::Starved,
            tried: 0,
            share: None,
            idle,
            up: Flow::default(),
            down: Flow::default(),
            _place: place,
        };
        self.sessions.insert(id, session);
        // Behind those who wait already.
        if self.starved.is_empty() { self.open(id) } else { self.starve(id) }
    }

    fn starve(&mut self, id: usize) -> io::Result<()> {
        self.starved.push_back(id);
        if self.again.is_none() {
            self.again = Some(self.registrar.set_timeout(REST)?);
        }
        Ok(())
    }

    /// Opens connections for those who wait, until there is no descriptor again.
    fn feed(&mut self) -> io::Result<()> {
        for id in std::mem::take(&mut self.starved) {
            if self.again.is_some() {
                self.starved.push_back(id);
            } else {
                self.open(id)?;
            }
        }
        Ok(())
    }

    /// Begins a connection to the next backend. Without one, the client is refused.
    fn open(&mut self, id: usize) -> io::Result<()> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let mut tried = session.tried;
        while let Some(share) = self.settings.backends.pick(tried) {
            let index = share.index;
            match self.begin(index) {
                Ok((socket, backend_id, timeout)) => {
                    self.owners.insert(timeout.get_id(), id);
                    self.owners.insert(backend_id, id);
                    let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
                    session.share = Some(share);
                    session.backend = Backend::Connecting { socket, id: backend_id, timeout };
                    return Ok(());
                }
                Err(error) if is_ours(&error) => return self.starve(id),
                Err(error) => {
                    tried |= 1 << index;
                    self.settings.mark_down(index, error);
                }
            }
        }
        self.reset(id);
        Ok(())
    }

    fn begin(&self, index: usize) -> io::Result<(Socket, usize, Timer)> {
        let socket = connect(self.settings.backends.address(index))?;
        let id = self.registrar.register(&socket, Event::Both)?;
        Ok((socket, id, self.registrar.set_timeout(self.settings.connect_timeout)?))
    }

    /// A notification for one of a session's sockets or timers.
    fn tell(&mut self, n: Notification) -> io::Result<()> {
        let id = self.owners.get(&n.id).copied().unwrap_or(n.id);
        // Any other id was on its way when its session ended.
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        if n.id == session.idle.get_id() {
            if session.idle.is_over()? {
                self.reset(id);
            }
            return Ok(());
        }
        if n.id == id {
            session.client.note(n);
        }
        match &mut session.backend {
            Backend::Open(end) => {
                if n.id == end.id {
                    end.note(n);
                }
                self.turn(id);
            }
            // The client has gone before there was somebody for it.
            _ if n.id == id && n.is_error() => self.reset(id),
            Backend::Starved => {}
            Backend::Connecting { socket, id: backend_id, timeout } => {
                let outcome = if n.id == timeout.get_id() {
                    Err(io::ErrorKind::TimedOut.into())
                } else if n.id == *backend_id && n.event.writable() {
                    socket.take_error().and_then(|error| error.map_or(Ok(()), Err))
                } else {
                    return Ok(());
                };
                return self.connected(id, n, outcome);
            }
        }
        Ok(())
    }

    fn connected(&mut self, id: usize, n: Notification, outcome: io::Result<()>) -> io::Result<()> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let before = std::mem::replace(&mut session.backend, Backend::Starved);
        let Backend::Connecting { socket, id: backend_id, timeout } = before else {
            session.backend = before;
            return Ok(());
        };
        self.owners.remove(&timeout.get_id());
        match outcome {
            Ok(()) => {
                let mut end = End::new(TcpStream::from(socket), backend_id);
                end.note(n);
                session.backend = Backend::Open(end);
                session.idle.touch();
                self.turn(id);
                Ok(())
            }
            Err(error) => {
                self.owners.remove(&backend_id);
                self.registrar.deregister(socket)?;
                if let Some(share) = session.share.take() {
                    session.tried |= 1 << share.index;
                    self.settings.mark_down(share.index, error);
                }
                self.open(id)
            }
        }
    }

    /// Moves bytes in both directions.
    fn turn(&mut self, id: usize) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Session { client, backend: Backend::Open(backend), up, down, .. } = session else {
            return;
        };
        let mut moved = false;
        let ways = [
            up.turn(client, backend, &mut self.space, &mut moved),
            // Also when the first failed: a backend may have answered before it hung up.
            down.turn(backend, client, &mut self.space, &mut moved),
        ];
        if moved {
            session.idle.touch();
        }
        if session.up.is_over() && session.down.is_over() {
            self.remove(id);
        } else if ways.iter().any(Result::is_err) {
            self.reset(id);
        } else if ways.iter().any(|way| matches!(way, Ok(Turn::More))) {
            self.unfinished.push(id);
        }
    }

    /// Ends a session that is not over, and makes sure that neither side takes it for one that is.
    fn reset(&mut self, id: usize) {
        let Some(session) = self.sessions.get(&id) else { return };
        session.client.reset();
        if let Backend::Open(backend) = &session.backend {
            backend.reset();
        }
        self.remove(id);
    }

    fn remove(&mut self, id: usize) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.owners.remove(&session.idle.get_id());
        // What fails here is closed all the same.
        let _ = self.registrar.deregister(session.client.sock);
        match session.backend {
            Backend::Starved => {}
            Backend::Connecting { socket, id, timeout } => {
                self.owners.remove(&id);
                self.owners.remove(&timeout.get_id());
                let _ = self.registrar.deregister(socket);
            }
            Backend::Open(end) => {
                self.owners.remove(&end.id);
                let _ = self.registrar.deregister(end.sock);
            }
        }
    }
}

impl Settings {
    fn mark_down(&self, index: usize, error: io::Error) {
        if self.backends.mark(index, false) {
            // The checker outlives the workers; without it nobody is left who would say it.
            let _ = self.failures.send((index, error));
        }
    }
}
