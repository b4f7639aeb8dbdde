//! A thread with a poller and its share of the clients: reads commands, sees to it that they are
//! carried out, and writes the replies in their order.
//!
//! Of one client, one batch of commands is under way at a time. What it sends meanwhile waits, first
//! here, then in the kernel, and then with the client.

use crate::{
    engine::Engine,
    store::{Desk, Held},
};
use amy::{Event, IdMap, Notification, Poller, Receiver, Registrar, Sender};
use amy_servers::{
    Accepted, Farewell, Filled, Idle, LINGER, Next, Place, Unfinished, drain, fill,
    resp::{self, Limits, Parser, ProtocolError},
};
use bytes::{Bytes, BytesMut};
use std::{
    io,
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, TryRecvError},
    },
    time::Duration,
};

/// How many commands are carried out before another client has its turn.
const BATCH: usize = 256;

/// How much is read ahead of what is carried out.
const INPUT_MAX: usize = 64 * 1024;

/// A client that does not read its replies is not read from while this much waits for it.
const UNSENT_MAX: usize = 256 * 1024;

/// Commands on their way to a worker.
pub(crate) struct Job {
    client: usize,
    commands: Vec<Vec<Bytes>>,
    poller: Sender<Reply>,
}

/// What came of them, on its way back.
pub(crate) struct Reply {
    client: usize,
    pub(crate) bytes: BytesMut,
    quits: bool,
}

/// What carries commands out, in its parts.
#[derive(Clone)]
pub(crate) struct Hands {
    pub(crate) engine: Arc<Engine>,
    /// Empty if the threads with the pollers do it.
    pub(crate) workers: Vec<mpsc::Sender<Job>>,
    pub(crate) store: Option<Desk>,
}

impl Hands {
    /// Carries commands out on this thread. Returns the reply, unless the store has it now and sends it
    /// on when what it acknowledges is on disk.
    fn execute(
        &self,
        client: usize,
        commands: &[Vec<Bytes>],
        poller: &Sender<Reply>,
    ) -> Option<Reply> {
        let mut bytes = BytesMut::new();
        let outcome = self.engine.execute(commands, &mut bytes);
        let reply = Reply { client, bytes, quits: outcome.quits };
        let Some(store) = &self.store else { return Some(reply) };
        if let Some(batch) = outcome.after {
            let (commands, poller) = (outcome.replies, poller.clone());
            return store.hold(Held { batch, commands, poller, reply });
        }
        if outcome.wakes {
            store.wake();
        }
        Some(reply)
    }

    /// What a worker does.
    pub(crate) fn work(&self, jobs: &mpsc::Receiver<Job>) {
        for job in jobs {
            if let Some(reply) = self.execute(job.client, &job.commands, &job.poller) {
                // A poller that has ended has no client left.
                let _ = job.poller.send(reply);
            }
        }
    }
}

struct Client {
    sock: TcpStream,
    _place: Place,
    idle: Option<Idle>,
    parser: Parser,
    input: BytesMut,
    output: BytesMut,
    /// There may be something to read. Nobody will say so again.
    readable: bool,
    /// It will send nothing more.
    ended: bool,
    /// Commands of it are under way.
    busy: bool,
    /// What it sent is no command; to be told behind the replies to those that were.
    refused: Option<ProtocolError>,
    /// It leaves when it has taken its replies.
    leaves: bool,
    /// It has taken them; what it still sends is thrown away.
    lingers: bool,
}

pub(crate) struct Network {
    poller: Poller,
    registrar: Registrar,
    newcomers: Receiver<Accepted>,
    replies: Receiver<Reply>,
    reply: Sender<Reply>,
    hands: Hands,
    limits: Limits,
    idle: Option<Duration>,
    clients: IdMap<Client>,
    /// From the id of an idle client's timer to the client's.
    timers: IdMap<usize>,
    unfinished: Unfinished,
    farewell: Farewell,
}

impl Network {
    pub(crate) fn new(
        poller: Poller,
        newcomers: Receiver<Accepted>,
        hands: Hands,
        limits: Limits,
        idle: Option<Duration>,
    ) -> io::Result<Network> {
        let registrar = poller.get_registrar();
        let (reply, replies) = registrar.channel()?;
        let (clients, timers) = (IdMap::default(), IdMap::default());
        let (unfinished, farewell) = (Unfinished::default(), Farewell::default());
        Ok(Network {
            poller,
            registrar,
            newcomers,
            replies,
            reply,
            hands,
            limits,
            idle,
            clients,
            timers,
            unfinished,
            farewell,
        })
    }

    /// Serves until nobody accepts clients any more, and those here have their replies.
    pub(crate) fn run(mut self) -> io::Result<()> {
        loop {
            let timeout = self.unfinished.timeout().or_else(|| self.farewell.timeout());
            let batch = self.poller.wait(timeout)?.to_vec();
            for _ in 0..self.unfinished.len() {
                if let Some(id) = self.unfinished.pop() {
                    self.turn(id);
                }
            }
            for n in batch {
                if self.told(n)? && self.farewell.begin() {
                    self.clients.values_mut().for_each(|client| client.leaves = true);
                    let ids: Vec<_> = self.clients.keys().copied().collect();
                    ids.into_iter().for_each(|id| self.turn(id));
                }
            }
            if self.farewell.is_over(self.clients.len()) {
                return Ok(());
            }
        }
    }

    /// Does what a notification asks for, and returns whether it was that nobody accepts any more.
    fn told(&mut self, n: Notification) -> io::Result<bool> {
        if n.id == self.newcomers.get_id() {
            loop {
                match self.newcomers.try_recv() {
                    // A connection that fails at once is its own trouble.
                    Ok(accepted) => drop(self.add(accepted)),
                    Err(TryRecvError::Empty) => return Ok(false),
                    Err(TryRecvError::Disconnected) => return Ok(true),
                }
            }
        } else if n.id == self.replies.get_id() {
            while let Ok(reply) = self.replies.try_recv() {
                let id = reply.client;
                if let Some(client) = self.clients.get_mut(&id) {
                    client.take(reply);
                }
                self.turn(id);
            }
        } else if n.id == self.hands.engine.expiry_id() {
            if let (true, Some(store)) = (self.hands.engine.expire(), &self.hands.store) {
                store.wake();
            }
        } else if let Some(id) = self.timers.get(&n.id).copied() {
            if self.clients.get_mut(&id).is_some_and(Client::is_idle) {
                self.remove(id);
            }
        } else if let Some(client) = self.clients.get_mut(&n.id) {
            client.readable |= n.event.readable();
            self.turn(n.id);
        }
        Ok(false)
    }

    fn add(&mut self, Accepted { sock, place, .. }: Accepted) -> io::Result<()> {
        let idle = self.idle.map(|allowed| Idle::new(&self.registrar, allowed)).transpose()?;
        let id = self.registrar.register(&sock, Event::Both)?;
        if let Some(idle) = &idle {
            self.timers.insert(idle.get_id(), id);
        }
        self.hands.engine.clients.fetch_add(1, Ordering::Relaxed);
        let client = Client {
            sock,
            _place: place,
            idle,
            parser: Parser::new(self.limits),
            input: BytesMut::new(),
            output: BytesMut::new(),
            readable: false,
            ended: false,
            busy: false,
            refused: None,
            leaves: false,
            lingers: false,
        };
        self.clients.insert(id, client);
        Ok(())
    }

    fn turn(&mut self, id: usize) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        match client.turn(id, &self.hands, &self.reply) {
            Ok(Next::Wait) => {}
            Ok(Next::Again) => self.unfinished.push(id),
            Ok(Next::Remove) if self.linger(id).is_ok_and(|lingers| lingers) => {}
            Ok(Next::Remove) | Err(_) => self.remove(id),
        }
    }

    /// Keeps a client that has its last reply until it has seen the end, or for a short time: what is
    /// there unread when a socket is closed resets the connection, and may overtake the reply.
    fn linger(&mut self, id: usize) -> io::Result<bool> {
        let Some(client) = self.clients.get_mut(&id) else { return Ok(false) };
        if client.lingers || client.ended || self.farewell.timeout().is_some() {
            return Ok(false);
        }
        client.sock.shutdown(Shutdown::Write)?;
        client.lingers = true;
        let idle = Idle::new(&self.registrar, LINGER)?;
        self.timers.insert(idle.get_id(), id);
        if let Some(idle) = client.idle.replace(idle) {
            self.timers.remove(&idle.get_id());
        }
        self.unfinished.push(id);
        Ok(true)
    }

    fn remove(&mut self, id: usize) {
        let Some(client) = self.clients.remove(&id) else { return };
        if let Some(idle) = &client.idle {
            self.timers.remove(&idle.get_id());
        }
        self.hands.engine.clients.fetch_sub(1, Ordering::Relaxed);
        let _ = self.registrar.deregister(&client.sock);
    }
}

impl Client {
    /// Goes as far as it can without waiting, but not further than one batch.
    fn turn(&mut self, id: usize, hands: &Hands, poller: &Sender<Reply>) -> io::Result<Next> {
        if self.lingers {
            return self.throw_away();
        }
        if let Some(error) = self.refused.filter(|_| !self.busy) {
            if !self.leaves {
                resp::error(&mut self.output, &format!("ERR {error}"));
                self.leaves = true;
            }
        }
        let sent = drain(&mut self.sock, &mut self.output)?;
        if self.busy || self.output.len() > UNSENT_MAX {
            return Ok(Next::Wait);
        }
        if self.leaves {
            return Ok(if sent { Next::Remove } else { Next::Wait });
        }
        if self.readable {
            let limit = INPUT_MAX.max(self.parser.needs());
            match fill(&mut self.sock, &mut self.input, limit)? {
                Filled::More => {}
                Filled::Drained => self.readable = false,
                Filled::Ended => (self.readable, self.ended) = (false, true),
            }
            if let Some(idle) = &mut self.idle {
                idle.touch();
            }
        }
        let commands = self.take_commands();
        let all = commands.len() < BATCH && self.refused.is_none();
        if !commands.is_empty() {
            let workers = &hands.workers;
            if workers.is_empty() {
                match hands.execute(id, &commands, poller) {
                    Some(reply) => self.take(reply),
                    None => self.busy = true,
                }
            } else {
                let job = Job { client: id, commands, poller: poller.clone() };
                workers[id % workers.len()].send(job).map_err(|_| io::ErrorKind::BrokenPipe)?;
                self.busy = true;
            }
        }
        if self.busy {
            return Ok(Next::Wait);
        }
        let sent = drain(&mut self.sock, &mut self.output)?;
        self.leaves |= self.ended && all;
        if self.refused.is_some() {
            return Ok(Next::Again);
        }
        if self.leaves {
            return Ok(if sent { Next::Remove } else { Next::Wait });
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Ok(if self.readable || !all { Next::Again } else { Next::Wait })
    }

    fn throw_away(&mut self) -> io::Result<Next> {
        self.input.clear();
        match fill(&mut self.sock, &mut self.input, INPUT_MAX)? {
            Filled::More => Ok(Next::Again),
            Filled::Drained => Ok(Next::Wait),
            Filled::Ended => Ok(Next::Remove),
        }
    }

    /// Whether its time is over; to be asked when its timer was told.
    fn is_idle(&mut self) -> bool {
        let Some(idle) = &mut self.idle else { return false };
        if self.busy {
            idle.touch();
        }
        // One that cannot be watched any more must not stay for ever.
        idle.is_over().unwrap_or(true)
    }

    /// The commands in hand, no more than a batch. Behind those comes an error, if there is one.
    fn take_commands(&mut self) -> Vec<Vec<Bytes>> {
        let mut commands = Vec::new();
        while commands.len() < BATCH {
            match self.parser.next(&mut self.input) {
                Ok(Some(command)) => commands.push(command),
                Ok(None) => break,
                Err(error) => {
                    self.refused = Some(error);
                    break;
                }
            }
        }
        commands
    }

    fn take(&mut self, reply: Reply) {
        self.busy = false;
        self.leaves |= reply.quits;
        if self.output.is_empty() {
            self.output = reply.bytes;
        } else {
            self.output.extend_from_slice(&reply.bytes);
        }
    }
}
