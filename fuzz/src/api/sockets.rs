//! Pairs of sockets, with what is on its way in them and what is registered of them.

use super::{Slot, new_id, unless_gone};
use amy::{Event, Interest, Notification, Registrar};
use arbitrary::{Arbitrary, Result, Unstructured};
use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
};

/// How many bytes may be on their way, so few that a socket always has room for more.
const UNREAD_MAX: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A new pair, in the place of the one that is there.
    Open(Slot),
    Register(End, Ask),
    Reregister(End, Ask),
    /// With the id 0, which nothing has.
    ReregisterNothing(End, Ask),
    Deregister(End),
    DeregisterAndClose(End),
    Write(End, u8),
    /// Reads until it would block.
    Read(End),
    ReadOne(End),
    ShutdownWrite(End),
    Close(End),
}

/// Each choice takes one byte of the fuzzer's, so that it finds its way.
impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Step> {
        Ok(match u.int_in_range(0..=10_u8)? {
            0 => Step::Open(u.arbitrary()?),
            1 => Step::Register(u.arbitrary()?, u.arbitrary()?),
            2 => Step::Reregister(u.arbitrary()?, u.arbitrary()?),
            3 => Step::ReregisterNothing(u.arbitrary()?, u.arbitrary()?),
            4 => Step::Deregister(u.arbitrary()?),
            5 => Step::DeregisterAndClose(u.arbitrary()?),
            6 => Step::Write(u.arbitrary()?, u.arbitrary()?),
            7 => Step::Read(u.arbitrary()?),
            8 => Step::ReadOne(u.arbitrary()?),
            9 => Step::ShutdownWrite(u.arbitrary()?),
            _ => Step::Close(u.arbitrary()?),
        })
    }
}

/// One end of a pair.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct End {
    pair: Slot,
    right: bool,
}

impl End {
    fn index(self) -> usize {
        self.pair.index() * 2 + usize::from(self.right)
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Ask {
    read: bool,
    write: bool,
    once: bool,
    level: bool,
    priority: bool,
}

impl Ask {
    /// Nothing cannot be asked for: that stands for reading.
    fn event(self) -> Event {
        match (self.read, self.write) {
            (true, true) => Event::Both,
            (false, true) => Event::Write,
            (_, false) => Event::Read,
        }
    }

    fn interest(self) -> Interest {
        let mut interest = Interest::from(self.event());
        if self.once {
            interest = interest.once();
        }
        if self.level {
            interest = interest.level();
        }
        if self.priority {
            interest = interest.priority();
        }
        interest
    }
}

struct Socket {
    stream: UnixStream,
    /// How many bytes are there to be read.
    unread: usize,
    /// The other end writes no more.
    ended: bool,
    registration: Option<Registration>,
}

struct Registration {
    id: usize,
    ask: Ask,
    /// It was to be told once, and was.
    spent: bool,
    /// Something happened that has to be told, if it is still so.
    edge: bool,
    /// Nothing happened since it was told.
    quiet: bool,
}

impl Socket {
    /// What of the event holds now. There is always room to write.
    fn ready(&self, event: Event) -> Option<Event> {
        let readable = event.readable() && (self.unread > 0 || self.ended);
        match (readable, event.writable()) {
            (true, true) => Some(Event::Both),
            (true, false) => Some(Event::Read),
            (false, true) => Some(Event::Write),
            (false, false) => None,
        }
    }

    /// Something happened on this end, or on the other; `edge` if it made this one readable.
    fn stirred(&mut self, edge: bool) {
        let holds = |event| self.ready(event).is_some();
        let Some(ask) = self.registration.as_ref().map(|registration| registration.ask) else {
            return;
        };
        let holds = holds(ask.event());
        if let Some(registration) = &mut self.registration {
            registration.quiet = false;
            registration.edge |= edge && (ask.event().readable() || self.ended);
            registration.edge &= holds;
        }
    }

    fn must_tell(&self) -> Option<usize> {
        let registration = self.registration.as_ref()?;
        self.ready(registration.ask.event())?;
        let due = registration.edge || registration.ask.level;
        (due && !registration.spent).then_some(registration.id)
    }
}

#[derive(Default)]
pub(super) struct Sockets {
    ends: [Option<Socket>; 4],
}

impl Sockets {
    pub(super) fn step(&mut self, step: Step, registrar: &Registrar, gone: bool) {
        match step {
            Step::Open(pair) => self.open(pair),
            Step::Register(end, ask) => self.register(end, ask, registrar, gone),
            Step::Reregister(end, ask) => self.reregister(end, ask, registrar, gone),
            Step::ReregisterNothing(end, ask) => {
                let Some(socket) = &self.ends[end.index()] else { return };
                let error = registrar.reregister(0, &socket.stream, ask.interest()).unwrap_err();
                let kind = if gone { ErrorKind::BrokenPipe } else { ErrorKind::InvalidInput };
                assert_eq!(error.kind(), kind);
            }
            Step::Deregister(end) => self.deregister(end, registrar, gone),
            Step::DeregisterAndClose(end) => {
                if let Some(socket) = self.ends[end.index()].take() {
                    let result = registrar.deregister(socket.stream);
                    assert_eq!(result.is_ok(), socket.registration.is_some());
                    self.peer_closed(end);
                }
            }
            Step::Write(end, bytes) => self.write(end, bytes),
            Step::Read(end) => self.read(end),
            Step::ReadOne(end) => self.read_one(end),
            Step::ShutdownWrite(end) => {
                let Some(socket) = &mut self.ends[end.index()] else { return };
                // Fails if the other end is gone.
                let _ = socket.stream.shutdown(Shutdown::Write);
                socket.stirred(false);
                self.peer_closed(end);
            }
            Step::Close(end) => {
                if self.ends[end.index()].take().is_some() {
                    self.peer_closed(end);
                }
            }
        }
    }

    pub(super) fn must_tell(&self) -> impl Iterator<Item = usize> {
        self.ends.iter().flatten().filter_map(Socket::must_tell)
    }

    /// Whether the notification is of a socket, and then it must be right.
    pub(super) fn told(&mut self, n: Notification) -> bool {
        for socket in self.ends.iter_mut().flatten() {
            let Some(registration) = &socket.registration else { continue };
            if registration.id != n.id {
                continue;
            }
            let ask = registration.ask;
            assert!(!registration.spent, "{n:?} was to be told once");
            assert!(ask.level || !registration.quiet, "{n:?} was told, and nothing happened since");
            assert_eq!(Some(n.event), socket.ready(ask.event()));
            let closed = n.is_read_closed() || n.is_write_closed() || n.is_error();
            assert!(!closed || socket.ended, "{n:?}, and the other end is open");
            if let Some(registration) = &mut socket.registration {
                registration.spent = ask.once;
                registration.quiet = true;
                registration.edge = false;
            }
            return true;
        }
        false
    }

    pub(super) fn forget_registrations(&mut self) {
        for socket in self.ends.iter_mut().flatten() {
            socket.registration = None;
        }
    }

    fn open(&mut self, pair: Slot) {
        let (left, right) = UnixStream::pair().unwrap();
        for (stream, right) in [(left, false), (right, true)] {
            stream.set_nonblocking(true).unwrap();
            let socket = Socket { stream, unread: 0, ended: false, registration: None };
            self.ends[End { pair, right }.index()] = Some(socket);
        }
    }

    fn register(&mut self, end: End, ask: Ask, registrar: &Registrar, gone: bool) {
        let Some(socket) = &mut self.ends[end.index()] else { return };
        let result = registrar.register(&socket.stream, ask.interest());
        if socket.registration.is_some() {
            return assert_eq!(result.unwrap_err().kind(), ErrorKind::AlreadyExists);
        }
        if let Some(id) = unless_gone(result, gone) {
            let id = new_id(id);
            let edge = socket.ready(ask.event()).is_some();
            let registration = Registration { id, ask, spent: false, edge, quiet: false };
            socket.registration = Some(registration);
        }
    }

    fn reregister(&mut self, end: End, ask: Ask, registrar: &Registrar, gone: bool) {
        let Some(socket) = &mut self.ends[end.index()] else { return };
        let id = socket.registration.as_ref().map_or(1, |registration| registration.id);
        let result = registrar.reregister(id, &socket.stream, ask.interest());
        let edge = socket.ready(ask.event()).is_some();
        let Some(registration) = &mut socket.registration else {
            let kind = if gone { ErrorKind::BrokenPipe } else { ErrorKind::NotFound };
            return assert_eq!(result.unwrap_err().kind(), kind);
        };
        result.unwrap();
        *registration = Registration { id, ask, spent: false, edge, quiet: false };
    }

    fn deregister(&mut self, end: End, registrar: &Registrar, gone: bool) {
        let Some(socket) = &mut self.ends[end.index()] else { return };
        let result = registrar.deregister(&socket.stream);
        if socket.registration.take().is_some() {
            return result.unwrap();
        }
        let kind = if gone { ErrorKind::BrokenPipe } else { ErrorKind::NotFound };
        assert_eq!(result.unwrap_err().kind(), kind);
    }

    /// A socket, and the one at the other end.
    fn both(&mut self, end: End) -> (&mut Option<Socket>, &mut Option<Socket>) {
        let index = end.index();
        let [a, b] = self.ends.get_disjoint_mut([index, index ^ 1]).unwrap();
        (a, b)
    }

    fn write(&mut self, end: End, bytes: u8) {
        let (here, there) = self.both(end);
        let (Some(here), Some(there)) = (here, there) else { return };
        let n = usize::from(bytes) % 4 + 1;
        if there.unread + n > UNREAD_MAX || there.ended {
            return;
        }
        assert_eq!(here.stream.write(&[bytes; 4][..n]).unwrap(), n);
        here.stirred(false);
        there.unread += n;
        there.stirred(true);
    }

    fn read(&mut self, end: End) {
        let (here, there) = self.both(end);
        let Some(here) = here else { return };
        loop {
            match here.stream.read(&mut [0; 8]) {
                Ok(0) => {
                    assert!(here.ended);
                    break;
                }
                Ok(n) => here.unread = here.unread.checked_sub(n).expect("only what was written"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(!here.ended);
                    break;
                }
                // The other end was closed before it had read everything. Told once.
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
        assert_eq!(here.unread, 0);
        here.stirred(false);
        if let Some(there) = there {
            there.stirred(false);
        }
    }

    fn read_one(&mut self, end: End) {
        let (here, there) = self.both(end);
        let Some(here) = here else { return };
        if here.unread > 0 {
            assert_eq!(here.stream.read(&mut [0]).unwrap(), 1);
            here.unread -= 1;
        }
        here.stirred(false);
        if let Some(there) = there {
            there.stirred(false);
        }
    }

    /// This end writes no more.
    fn peer_closed(&mut self, end: End) {
        if let (_, Some(there)) = self.both(end) {
            there.ended = true;
            there.stirred(true);
        }
    }
}
