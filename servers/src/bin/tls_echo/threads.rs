//! The two kinds of threads: those that shake hands, and those that echo.

use crate::conn::Conn;
use amy::{Event, IdMap, Poller, Receiver, Registrar, Sender, Timer};
use amy_servers::{Accepted, Idle, Next, Unfinished};
use rustls::ServerConfig;
use std::{
    io,
    sync::{Arc, mpsc::TryRecvError},
    time::Duration,
};

/// Shakes hands with any number of clients, who may take their time, and gives them away then.
pub(crate) struct Handshaker {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) frame_max: u32,
    pub(crate) timeout: Duration,
    poller: Poller,
    registrar: Registrar,
    accepted: Receiver<Accepted>,
    connections: IdMap<(Conn, Timer)>,
    timers: IdMap<usize>,
    echoers: Vec<Sender<Conn>>,
    /// Whose turn it is.
    next: usize,
}

impl Handshaker {
    pub(crate) fn new(
        config: Arc<ServerConfig>,
        frame_max: u32,
        timeout: Duration,
        echoers: Vec<Sender<Conn>>,
        next: usize,
    ) -> io::Result<(Handshaker, Sender<Accepted>)> {
        let poller = Poller::new()?;
        let registrar = poller.get_registrar();
        let (sender, accepted) = registrar.channel()?;
        let handshaker = Handshaker {
            config,
            frame_max,
            timeout,
            poller,
            registrar,
            accepted,
            connections: IdMap::default(),
            timers: IdMap::default(),
            echoers,
            next,
        };
        Ok((handshaker, sender))
    }

    /// Until nobody hands out connections any more: then those that are not done never will be.
    pub(crate) fn run(mut self) -> io::Result<()> {
        loop {
            for n in self.poller.wait(None)?.to_vec() {
                if n.id == self.accepted.get_id() {
                    if !self.accept()? {
                        return Ok(());
                    }
                } else if let Some(id) = self.timers.get(&n.id).copied() {
                    self.remove(id)?; // its time is up
                } else if let Some((conn, _)) = self.connections.get_mut(&n.id) {
                    conn.note(n);
                    match conn.handshake() {
                        Ok(false) => {}
                        Ok(true) => {
                            let Some(conn) = self.remove(n.id)? else { continue };
                            self.next = (self.next + 1) % self.echoers.len();
                            if self.echoers[self.next].send(conn).is_err() {
                                return Ok(()); // it has failed, and says so
                            }
                        }
                        Err(_) => drop(self.remove(n.id)?),
                    }
                }
                // Any other id was on its way when its connection was removed.
            }
        }
    }

    fn accept(&mut self) -> io::Result<bool> {
        loop {
            match self.accepted.try_recv() {
                Ok(Accepted { sock, place, .. }) => {
                    let Ok(conn) = Conn::new(sock, place, &self.config, self.frame_max) else {
                        continue;
                    };
                    // Refused, if the kernel has room for no more registrations.
                    let Ok(id) = self.registrar.register(&conn.sock, Event::Both) else { continue };
                    let timer = self.registrar.set_timeout(self.timeout)?;
                    self.timers.insert(timer.get_id(), id);
                    self.connections.insert(id, (conn, timer));
                }
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    fn remove(&mut self, id: usize) -> io::Result<Option<Conn>> {
        let Some((conn, timer)) = self.connections.remove(&id) else { return Ok(None) };
        self.timers.remove(&timer.get_id());
        self.registrar.deregister(&conn.sock)?;
        Ok(Some(conn))
    }
}

/// Echoes for those who have shaken hands.
pub(crate) struct Echoer {
    poller: Poller,
    registrar: Registrar,
    arrivals: Receiver<Conn>,
    connections: IdMap<(Conn, Idle)>,
    timers: IdMap<usize>,
    unfinished: Unfinished,
    idle: Duration,
}

impl Echoer {
    pub(crate) fn new(idle: Duration) -> io::Result<(Echoer, Sender<Conn>)> {
        let poller = Poller::new()?;
        let registrar = poller.get_registrar();
        let (sender, arrivals) = registrar.channel()?;
        let echoer = Echoer {
            poller,
            registrar,
            arrivals,
            connections: IdMap::default(),
            timers: IdMap::default(),
            unfinished: Unfinished::default(),
            idle,
        };
        Ok((echoer, sender))
    }

    /// Until nobody shakes hands any more. Clients are told that it was the end.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut batch = Vec::new();
        loop {
            batch.clear();
            batch.extend_from_slice(&self.poller.wait(self.unfinished.timeout())?);
            let unfinished = self.unfinished.len();
            for n in batch.drain(..) {
                if n.id == self.arrivals.get_id() {
                    if !self.welcome()? {
                        self.connections.values_mut().for_each(|(conn, _)| conn.close());
                        return Ok(());
                    }
                } else if let Some(id) = self.timers.get(&n.id).copied() {
                    let over = self.connections.get(&id).map_or(Ok(false), |(_, i)| i.is_over())?;
                    if over {
                        self.remove(id, true);
                    }
                } else if let Some((conn, _)) = self.connections.get_mut(&n.id) {
                    conn.note(n);
                    self.turn(n.id);
                }
            }
            // Whoever is unfinished gets one turn for each batch, so that nobody starves.
            for _ in 0..unfinished {
                if let Some(id) = self.unfinished.pop() {
                    self.turn(id);
                }
            }
        }
    }

    fn welcome(&mut self) -> io::Result<bool> {
        loop {
            match self.arrivals.try_recv() {
                Ok(conn) => {
                    let Ok(id) = self.registrar.register(&conn.sock, Event::Both) else { continue };
                    let idle = Idle::new(&self.registrar, self.idle)?;
                    self.timers.insert(idle.get_id(), id);
                    self.connections.insert(id, (conn, idle));
                    // The first frames may have come with the end of the handshake, and be in
                    // rustls's buffer already: of those the socket says nothing. (A socket that is
                    // writable is told once when it is registered, but that is no promise of theirs.)
                    self.turn(id);
                }
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    fn turn(&mut self, id: usize) {
        let Some((conn, idle)) = self.connections.get_mut(&id) else { return };
        let turn = conn.turn();
        if std::mem::take(&mut conn.moved) {
            idle.touch();
        }
        match turn {
            Ok(Next::Wait) => {}
            Ok(Next::Again) => self.unfinished.push(id),
            Ok(Next::Remove) => self.remove(id, true),
            Err(_) => self.remove(id, false),
        }
    }

    /// Ends it with a close_notify, or, if something is wrong, without.
    fn remove(&mut self, id: usize, clean: bool) {
        let Some((mut conn, idle)) = self.connections.remove(&id) else { return };
        self.timers.remove(&idle.get_id());
        if clean {
            conn.close()
        } else {
            conn.reset()
        }
        let _ = self.registrar.deregister(conn.sock); // closed all the same
    }
}
