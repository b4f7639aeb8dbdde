//! Clients' connections: requests in, answers out in the order of the requests.

use crate::node::{Answer, Command, Request};
use amy::{Event, IdMap, Poller, Receiver, Registrar, Sender};
use amy_servers::{
    Accepted, Filled, Idle, Place, data, drain, fill, resp,
    resp::{Limits, Parser},
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::VecDeque,
    io,
    net::{Shutdown, TcpStream},
    sync::mpsc::TryRecvError,
    time::Duration,
};

/// How long a request may be, and of how many words.
const LIMITS: Limits = Limits { args_max: 1024, bytes_max: 1 << 20 };
/// How much of what a client sends is kept until it is complete: a word, and the line before it.
const INPUT_MAX: usize = LIMITS.bytes_max + (64 << 10);
/// A client that does not read its answers is not read from while this much waits for it.
const OUTPUT_MAX: usize = 256 << 10;
/// How many of a client's requests may be on their way: each may have an answer as long as a request.
const REQUESTS_MAX: usize = 32;

struct Conn {
    sock: TcpStream,
    input: BytesMut,
    parser: Parser,
    output: BytesMut,
    idle: Idle,
    /// There may be more to read, of which nobody will tell.
    readable: bool,
    ended: bool,
    /// The last thing to be sent is on its way.
    closing: bool,
    /// The number of the next request, and of the one that is to be answered next.
    next: u64,
    /// Those on their way, in order: each has its answer or waits for it.
    waiting: VecDeque<Option<BytesMut>>,
    /// Whether those are writes. A read may overtake a write, so a client's requests of one kind
    /// are all answered before those of the other are handed on.
    writes: bool,
    /// The request that waits for that.
    held: Option<Command>,
    _place: Place,
}

pub(crate) struct Clients {
    poller: Poller,
    registrar: Registrar,
    idle: Duration,
    connections: IdMap<Conn>,
    /// Whose timer it is.
    timers: IdMap<usize>,
    requests: Sender<Request>,
}

impl Clients {
    pub(crate) fn new(poller: Poller, idle: Duration, requests: Sender<Request>) -> Clients {
        let registrar = poller.get_registrar();
        let (connections, timers) = (IdMap::default(), IdMap::default());
        Clients { poller, registrar, idle, connections, timers, requests }
    }

    /// Runs until there are no new connections any more.
    pub(crate) fn run(
        mut self,
        accepted: &Receiver<Accepted>,
        answers: &Receiver<Answer>,
    ) -> io::Result<()> {
        loop {
            for n in self.poller.wait(None)?.to_vec() {
                if n.id == accepted.get_id() {
                    loop {
                        match accepted.try_recv() {
                            // One that cannot be added is closed, which is its own trouble.
                            Ok(accepted) => drop(self.add(accepted)),
                            Err(TryRecvError::Empty) => break,
                            Err(TryRecvError::Disconnected) => return Ok(()),
                        }
                    }
                } else if n.id == answers.get_id() {
                    self.answer(answers);
                } else if let Some(&id) = self.timers.get(&n.id) {
                    self.rest(id)?;
                } else if let Some(conn) = self.connections.get_mut(&n.id) {
                    conn.readable |= n.event.readable();
                    self.turn(n.id);
                }
            }
        }
    }

    fn add(&mut self, Accepted { sock, place, .. }: Accepted) -> io::Result<()> {
        let id = self.registrar.register(&sock, Event::Both)?;
        let idle = Idle::new(&self.registrar, self.idle)?;
        self.timers.insert(idle.get_id(), id);
        let conn = Conn {
            sock,
            input: BytesMut::new(),
            parser: Parser::new(LIMITS),
            output: BytesMut::new(),
            idle,
            readable: false,
            ended: false,
            closing: false,
            next: 0,
            waiting: VecDeque::new(),
            writes: false,
            held: None,
            _place: place,
        };
        self.connections.insert(id, conn);
        Ok(())
    }

    /// Puts answers where they belong, and sends what is next.
    fn answer(&mut self, answers: &Receiver<Answer>) {
        let mut touched = Vec::new();
        for Answer { ticket: (id, number), bytes } in answers.try_iter() {
            // Of a connection that has ended there is nobody to tell.
            let Some(conn) = self.connections.get_mut(&id) else { continue };
            let first = conn.next - conn.waiting.len() as u64;
            let position = usize::try_from(number - first).expect("no more than REQUESTS_MAX");
            conn.waiting[position] = Some(bytes);
            touched.push(id);
        }
        touched.sort_unstable();
        touched.dedup();
        touched.into_iter().for_each(|id| self.turn(id));
    }

    /// The idle timer has fired. Who waits for an answer is not idle.
    fn rest(&mut self, id: usize) -> io::Result<()> {
        let Some(conn) = self.connections.get_mut(&id) else { return Ok(()) };
        if !conn.waiting.is_empty() {
            conn.idle.touch();
        }
        if conn.idle.is_over()? {
            self.remove(id);
        }
        Ok(())
    }

    fn remove(&mut self, id: usize) {
        if let Some(conn) = self.connections.remove(&id) {
            self.timers.remove(&conn.idle.get_id());
            let _ = self.registrar.deregister(conn.sock);
        }
    }

    fn turn(&mut self, id: usize) {
        let Some(conn) = self.connections.get_mut(&id) else { return };
        match conn.turn(id, &self.requests) {
            Ok(true) => {}
            Ok(false) | Err(_) => self.remove(id),
        }
    }
}

impl Conn {
    /// Does what can be done now, and returns whether the connection stays.
    fn turn(&mut self, id: usize, requests: &Sender<Request>) -> io::Result<bool> {
        loop {
            while let Some(answer) = self.waiting.front_mut().and_then(Option::take) {
                self.waiting.pop_front();
                self.output.extend_from_slice(&answer);
            }
            drain(&mut self.sock, &mut self.output)?;
            // What keeps us from going on is over when an answer comes, or the socket is writable.
            if self.output.len() > OUTPUT_MAX || !self.hand_on(id, requests)? {
                return Ok(true);
            }
            if self.waiting.front().is_some_and(Option::is_some) {
                continue;
            }
            if self.ended {
                return Ok(!self.waiting.is_empty() || !self.output.is_empty());
            }
            if self.closing {
                if self.waiting.is_empty() && self.output.is_empty() {
                    // Closing with bytes unread would reset the connection, and the answer be lost.
                    self.sock.shutdown(Shutdown::Write)?;
                }
                self.input.clear();
            }
            if !self.readable {
                return Ok(true);
            }
            match fill(&mut self.sock, &mut self.input, INPUT_MAX)? {
                Filled::More => {}
                Filled::Drained => self.readable = false,
                Filled::Ended => self.ended = true,
            }
            if !self.closing {
                self.idle.touch();
            }
        }
    }

    /// Hands complete requests on, and returns whether more bytes are needed for the next.
    fn hand_on(&mut self, id: usize, requests: &Sender<Request>) -> io::Result<bool> {
        while !self.closing {
            let command = match self.held.take() {
                Some(command) => command,
                None => match self.parser.next(&mut self.input) {
                    Ok(Some(args)) => command(args),
                    Ok(None) => return Ok(true),
                    Err(error) => {
                        // The last answer: where the next request begins is not known any more.
                        self.next += 1;
                        self.waiting.push_back(Some(reply(resp::error, &format!("ERR {error}"))));
                        self.closing = true;
                        break;
                    }
                },
            };
            let writes = matches!(command, Command::Write(_));
            let full = self.waiting.len() >= REQUESTS_MAX;
            if full || (writes != self.writes && !self.waiting.is_empty()) {
                self.held = Some(command);
                return Ok(false);
            }
            self.writes = writes;
            let ticket = (id, self.next);
            self.next += 1;
            self.waiting.push_back(None);
            // The raft thread is gone only when the process ends.
            requests.send(Request { ticket, command }).map_err(io::Error::other)?;
        }
        Ok(true)
    }
}

fn reply(write: fn(&mut BytesMut, &str), text: &str) -> BytesMut {
    let mut out = BytesMut::new();
    write(&mut out, text);
    out
}

/// What a request asks, or what to say to it.
fn command(args: Vec<Bytes>) -> Command {
    let name = args[0].to_ascii_uppercase();
    match (name.as_slice(), args.len()) {
        (b"CLUSTER", 2) if args[1].eq_ignore_ascii_case(b"INFO") => Command::Info,
        (b"CLUSTER", 2) if args[1].eq_ignore_ascii_case(b"SLOTS") => Command::Slots,
        (b"PING", 1) => Command::Say(reply(resp::simple, "PONG")),
        // redis-cli asks for it when a person types.
        (b"COMMAND", _) => Command::Say(BytesMut::from("*0\r\n")),
        _ => match data::Command::find(&name) {
            Some(command) if command.writes => Command::Write(args),
            Some(_) => Command::Read(args),
            None => {
                let name = String::from_utf8_lossy(&args[0]);
                Command::Say(reply(resp::error, &format!("ERR unknown command '{name}'")))
            }
        },
    }
}
