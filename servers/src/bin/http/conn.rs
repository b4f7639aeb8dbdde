//! One connection: a request at a time, and the next one when its answer has left.

use crate::{
    Server,
    answer::{self, Sending},
    request::{self, Body, Request, Status},
};
use amy::Timer;
use amy_servers::{Filled, LINGER, Next, Place, drain, fill};
use bytes::{Buf, BytesMut};
use rustix::net::{SendFlags, send};
use std::{
    io::{self, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

/// How much of files is sent, and how much is read, before another connection has its turn.
const TURN: usize = 1 << 20;

/// How much is read ahead of what is understood.
const INPUT_MAX: usize = 64 * 1024;

pub(crate) struct Conn {
    pub(crate) sock: TcpStream,
    _place: Place,
    /// Rings at `rings`, which is no later than `deadline`.
    timer: Timer,
    rings: Instant,
    /// When to stop waiting for what the connection waits for.
    deadline: Instant,
    input: BytesMut,
    output: BytesMut,
    state: State,
    sending: Option<Sending>,
    /// There may be something to read. Nobody will say so again.
    pub(crate) readable: bool,
    /// The client will send nothing more.
    ended: bool,
    /// No further request is answered.
    closes: bool,
}

/// The socket, for what a file follows. The kernel puts both into the same segments (send(2), MSG_MORE),
/// where a head alone would wake the client for itself.
struct BeforeFile<'a>(&'a TcpStream);

impl Write for BeforeFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum State {
    /// A head comes, of which so many bytes were looked at.
    Head(usize),
    Body(Box<Request>, Body, BytesMut),
    /// Everything was sent; what arrives is thrown away.
    Lingering,
}

impl Conn {
    pub(crate) fn new(sock: TcpStream, place: Place, timer: Timer, idle: Duration) -> Conn {
        let deadline = Instant::now() + idle;
        Conn {
            sock,
            _place: place,
            timer,
            rings: deadline,
            deadline,
            input: BytesMut::new(),
            output: BytesMut::new(),
            state: State::Head(0),
            sending: None,
            readable: false,
            ended: false,
            closes: false,
        }
    }

    pub(crate) fn timer_id(&self) -> usize {
        self.timer.get_id()
    }

    /// Goes as far as it can without waiting, and no further than a turn.
    pub(crate) fn turn(&mut self, server: &Server) -> io::Result<Next> {
        let (mut to_send, mut to_read) = (TURN, TURN);
        loop {
            if !self.send(&mut to_send, server)? {
                return Ok(if to_send == 0 { Next::Again } else { Next::Wait });
            }
            if self.closes && !matches!(self.state, State::Lingering) {
                self.state = State::Lingering;
                self.sock.shutdown(Shutdown::Write)?;
                self.wait_for(LINGER)?;
            }
            if self.understand(server)? {
                continue;
            }
            if self.ended {
                return Ok(Next::Remove);
            }
            if !self.readable {
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                return Ok(Next::Wait);
            }
            if to_read == 0 {
                return Ok(Next::Again);
            }
            let (before, empty) = (self.input.len(), self.input.is_empty());
            match fill(&mut self.sock, &mut self.input, before + to_read.min(INPUT_MAX))? {
                Filled::More => {}
                Filled::Drained => self.readable = false,
                Filled::Ended => (self.readable, self.ended) = (false, true),
            }
            to_read = to_read.saturating_sub(self.input.len() - before);
            match self.state {
                // All of a head has to come in time, however steadily it trickles.
                State::Head(_) if empty && !self.input.is_empty() => {
                    self.wait_for(server.head_timeout)?;
                }
                State::Head(_) => {}
                State::Body(..) => self.wait_for(server.idle)?,
                State::Lingering => self.input.clear(),
            }
        }
    }

    /// To be called when the timer was told; whether the connection is to be removed.
    pub(crate) fn rang(&mut self, server: &Server) -> io::Result<Next> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            self.rings = self.deadline;
            self.timer.reset(left)?;
            return Ok(Next::Wait);
        }
        let waits_for_client = self.output.is_empty() && self.sending.is_none();
        match self.state {
            State::Head(_) if self.input.is_empty() => Ok(Next::Remove),
            State::Head(_) | State::Body(..) if waits_for_client => {
                self.refuse(408, server);
                self.turn(server)
            }
            _ => Ok(Next::Remove),
        }
    }

    /// Answers what is under way, and nothing that comes later.
    pub(crate) fn finish(&mut self) -> Next {
        let rests = matches!(self.state, State::Head(_) | State::Lingering);
        self.closes = true;
        let unsent = !self.output.is_empty() || self.sending.is_some();
        if rests && !unsent { Next::Remove } else { Next::Wait }
    }

    /// Sends what there is. Returns whether all of it has left.
    fn send(&mut self, left: &mut usize, server: &Server) -> io::Result<bool> {
        let before = self.output.len();
        let mut sent = if self.sending.is_some() {
            drain(&mut BeforeFile(&self.sock), &mut self.output)?
        } else {
            drain(&mut self.sock, &mut self.output)?
        };
        let mut moved = before > self.output.len();
        while let (true, Some(sending)) = (sent, &mut self.sending) {
            if *left == 0 {
                break;
            }
            let count = usize::try_from(sending.left).unwrap_or(usize::MAX).min(*left);
            match rustix::fs::sendfile(&self.sock, &sending.fd, Some(&mut sending.offset), count) {
                // It has become shorter: what the head promised cannot be kept.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    moved = true;
                    *left -= count;
                    sending.left -= count as u64;
                    if sending.left == 0 {
                        self.sending = None;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => sent = false,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if moved && !matches!(self.state, State::Lingering) {
            self.wait_for(server.idle)?;
        }
        Ok(sent && self.sending.is_none())
    }

    /// Takes the next step in what has arrived; false if more has to arrive for it.
    fn understand(&mut self, server: &Server) -> io::Result<bool> {
        let step = match &mut self.state {
            State::Lingering => return Ok(false),
            State::Head(seen) => match request::head_end(&self.input, seen, server.head_max) {
                Ok(None) => return Ok(false),
                Ok(Some(end)) => {
                    request::parse(&self.input[..end], server.body_max).map(|parsed| {
                        self.input.advance(end);
                        let (request, body) = parsed;
                        if request.expects_continue && self.input.is_empty() {
                            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                        }
                        self.state = State::Body(Box::new(request), body, BytesMut::new());
                        false
                    })
                }
                Err(status) => Err(status),
            },
            State::Body(_, body, received) => {
                match body.take(&mut self.input, received, server.body_max) {
                    Ok(false) => return Ok(false),
                    whole => whole,
                }
            }
        };
        match step {
            Ok(false) => self.wait_for(server.idle)?,
            Ok(true) => {
                let state = std::mem::replace(&mut self.state, State::Head(0));
                let State::Body(request, _, body) = state else { unreachable!("it was a body") };
                self.closes |= !request.keep_alive;
                let request = Request { keep_alive: !self.closes, ..*request };
                self.sending = answer::answer(server, &request, &body, &mut self.output);
                let next = if self.input.is_empty() { server.idle } else { server.head_timeout };
                self.wait_for(next)?;
            }
            Err(status) => self.refuse(status, server),
        }
        Ok(true)
    }

    fn refuse(&mut self, status: Status, server: &Server) {
        answer::refuse(server, status, &mut self.output);
        self.closes = true;
    }

    /// Sets the deadline. The timer is touched only if it would ring too late.
    fn wait_for(&mut self, time: Duration) -> io::Result<()> {
        self.deadline = Instant::now() + time;
        if self.deadline < self.rings {
            self.rings = self.deadline;
            self.timer.reset(time)?;
        }
        Ok(())
    }
}
