//! A source and a sink that do what an input tells them, call by call, and keep the books.

use arbitrary::{Arbitrary, Result, Unstructured};
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice, Read, Write},
};

/// The codes that a source or a sink fails with: one that std knows, and one that it does not.
const CODES: [i32; 2] = [104, 9999];

/// More than this is not made of any input, so that an execution stays short.
const STREAM_MAX: usize = 160 * 1024;
const FLOOD_MAX: usize = 2048;

/// A length of up to 65,535 bytes. Long ones are rare, and so the inputs of a run are short on
/// average, whatever the fuzzer prefers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length(pub(crate) usize);

impl<'a> Arbitrary<'a> for Length {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Length> {
        let (bytes, halved) = u.arbitrary::<(u16, u8)>()?;
        Ok(Length(usize::from(bytes >> (halved % 16))))
    }
}

/// A piece of a stream. Long pieces are described, or the fuzzer would have to find each byte.
#[derive(Arbitrary, Debug)]
pub(crate) enum Piece<'a> {
    Bytes(&'a [u8]),
    /// A frame with a message of so many bytes.
    Frame(u8),
    LongFrame(Length),
    /// A header that announces so many bytes, and none of them.
    Header(u32),
    /// So many bytes, at most `FLOOD_MAX`, all the same: a flood of empty frames or lines, say.
    Fill(u8, Length),
    /// A line of so many bytes.
    Line(u8),
    LongLine(Length),
    LineWithReturn(u8),
}

/// Writes the pieces out.
pub(crate) fn stream(pieces: &[Piece<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        match *piece {
            Piece::Bytes(bytes) => out.extend_from_slice(bytes),
            Piece::Frame(length) => frame(&mut out, length.into()),
            Piece::LongFrame(length) => frame(&mut out, length.0 * 2),
            Piece::Header(length) => out.extend_from_slice(&length.to_be_bytes()),
            Piece::Fill(byte, length) => {
                out.resize(out.len() + length.0.min(FLOOD_MAX), byte);
            }
            Piece::Line(length) => line(&mut out, length.into(), "\n"),
            Piece::LongLine(length) => line(&mut out, length.0 * 2, "\n"),
            Piece::LineWithReturn(length) => line(&mut out, length.into(), "\r\n"),
        }
        out.truncate(STREAM_MAX);
    }
    out
}

fn frame(out: &mut Vec<u8>, length: usize) {
    let header = u32::try_from(length).expect("a length that a test makes");
    out.extend_from_slice(&header.to_be_bytes());
    message(out, length);
}

fn line(out: &mut Vec<u8>, length: usize, end: &str) {
    out.resize(out.len() + length, b'x');
    out.extend_from_slice(end.as_bytes());
}

/// So many bytes that show where they belong: they repeat only after 251.
pub(crate) fn message(out: &mut Vec<u8>, length: usize) {
    const PATTERN: [u8; 251] = {
        let mut pattern = [0; 251];
        let mut at = 0;
        while at < pattern.len() {
            pattern[at] = at as u8;
            at += 1;
        }
        pattern
    };
    let end = out.len() + length;
    while out.len() < end {
        let left = end - out.len();
        out.extend_from_slice(&PATTERN[..left.min(PATTERN.len())]);
    }
}

/// What a source does at one call.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Give {
    /// Gives at most so many bytes, at least one.
    Some(u8),
    Many(Length),
    All,
    Block,
    Interrupt,
    /// Interrupts so often in a row.
    Storm(u8),
    Fail(bool),
    /// Says that it has ended, whether or not bytes are left.
    End,
    /// Claims to have given so many bytes, and wrote none.
    Claim(Length),
    /// Fills its room with this byte, and claims so many of them.
    Scratch(u8, Length),
    /// Claims so many bytes more than there was room for.
    Overclaim(Length),
}

/// A source. When its script is over it gives everything, and then an end.
pub(crate) struct Source {
    stream: Vec<u8>,
    given: usize,
    script: VecDeque<Give>,
    /// A byte that is in the room only if it came from somewhere else.
    foreign: Option<u8>,

    pub(crate) calls: usize,
    /// All that the source ever returned, true or claimed.
    pub(crate) delivered: Vec<u8>,
    pub(crate) ended: bool,
    pub(crate) overclaimed: Option<(usize, usize)>,
    /// Errors of its own, in their order.
    pub(crate) failures: VecDeque<i32>,
    pub(crate) last: Last,
}

/// How the last call ended, as far as the reader can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Filled,
    Short,
    Blocked,
    Interrupted,
    Other,
}

impl Source {
    pub(crate) fn new(stream: Vec<u8>, script: Vec<Give>, foreign: Option<u8>) -> Source {
        Source {
            stream,
            given: 0,
            script: script.into(),
            foreign,
            calls: 0,
            delivered: Vec::new(),
            ended: false,
            overclaimed: None,
            failures: VecDeque::new(),
            last: Last::Other,
        }
    }

    fn give(&mut self, room: &mut [u8], most: usize) -> io::Result<usize> {
        let rest = &self.stream[self.given..];
        let n = rest.len().min(room.len()).min(most.max(1));
        room[..n].copy_from_slice(&rest[..n]);
        self.given += n;
        self.returns(room, n)
    }

    fn returns(&mut self, room: &[u8], n: usize) -> io::Result<usize> {
        self.delivered.extend_from_slice(&room[..n]);
        self.ended = n == 0;
        self.last = if n == room.len() { Last::Filled } else { Last::Short };
        Ok(n)
    }

    fn look_for_foreign_bytes(&self, room: &[u8]) {
        if let Some(foreign) = self.foreign {
            assert!(!room.contains(&foreign), "the room shows what another reader received");
        }
    }
}

impl Read for Source {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        assert!(!self.ended && self.overclaimed.is_none(), "a source that is over was asked");
        assert!(!room.is_empty(), "without room, an end cannot be told from nothing");
        self.calls += 1;
        self.last = Last::Other;
        match self.script.pop_front().unwrap_or(Give::All) {
            Give::Some(n) => self.give(room, n.into()),
            Give::Many(n) => self.give(room, n.0),
            Give::All => self.give(room, usize::MAX),
            Give::Block => {
                self.last = Last::Blocked;
                Err(ErrorKind::WouldBlock.into())
            }
            Give::Interrupt => {
                self.last = Last::Interrupted;
                Err(ErrorKind::Interrupted.into())
            }
            Give::Storm(n) => {
                if n > 1 {
                    self.script.push_front(Give::Storm(n - 1));
                }
                self.last = Last::Interrupted;
                Err(ErrorKind::Interrupted.into())
            }
            Give::Fail(which) => {
                let code = CODES[usize::from(which)];
                self.failures.push_back(code);
                Err(io::Error::from_raw_os_error(code))
            }
            Give::End => self.returns(room, 0),
            Give::Claim(n) => {
                self.look_for_foreign_bytes(room);
                self.returns(room, n.0.min(room.len()))
            }
            Give::Scratch(byte, n) => {
                self.look_for_foreign_bytes(room);
                if Some(byte) == self.foreign {
                    self.foreign = None;
                }
                room.fill(byte);
                self.returns(room, n.0.min(room.len()))
            }
            Give::Overclaim(n) => {
                let claimed = room.len() + n.0.max(1);
                self.overclaimed = Some((claimed, room.len()));
                Ok(claimed)
            }
        }
    }
}

/// What a sink does at one call.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Take {
    /// Takes at most so many bytes; with 0 it says that it takes no more.
    Some(u8),
    Many(Length),
    All,
    Block,
    Interrupt,
    Storm(u8),
    Fail(bool),
    /// Claims so many bytes more than there were.
    Overclaim(Length),
}

/// A sink. When its script is over it takes everything.
pub(crate) struct Sink {
    script: VecDeque<Take>,

    pub(crate) calls: usize,
    pub(crate) taken: Vec<u8>,
    pub(crate) blocked: bool,
    /// What it did that it cannot be forgiven.
    pub(crate) failed: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Code(i32),
    Zero,
    Overclaimed,
}

impl Sink {
    pub(crate) fn new(script: Vec<Take>) -> Sink {
        Sink { script: script.into(), calls: 0, taken: Vec::new(), blocked: false, failed: None }
    }

    fn take(&mut self, pieces: &[IoSlice<'_>], most: usize) -> usize {
        let before = self.taken.len();
        for piece in pieces {
            let left = most - (self.taken.len() - before);
            self.taken.extend_from_slice(&piece[..piece.len().min(left)]);
        }
        self.taken.len() - before
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(self.failed.is_none(), "a sink that failed was asked again");
        assert!(pieces.iter().all(|piece| !piece.is_empty()), "an empty write says nothing");
        assert!(!pieces.is_empty());
        self.calls += 1;
        self.blocked = false;
        let most = match self.script.pop_front().unwrap_or(Take::All) {
            Take::Some(n) => n.into(),
            Take::Many(n) => n.0,
            Take::All => usize::MAX,
            Take::Block => {
                self.blocked = true;
                return Err(ErrorKind::WouldBlock.into());
            }
            Take::Interrupt => return Err(ErrorKind::Interrupted.into()),
            Take::Storm(n) => {
                if n > 1 {
                    self.script.push_front(Take::Storm(n - 1));
                }
                return Err(ErrorKind::Interrupted.into());
            }
            Take::Fail(which) => {
                let code = CODES[usize::from(which)];
                self.failed = Some(Failure::Code(code));
                return Err(io::Error::from_raw_os_error(code));
            }
            Take::Overclaim(n) => {
                self.failed = Some(Failure::Overclaimed);
                let offered = pieces.iter().map(|piece| piece.len()).sum::<usize>();
                return Ok(offered + n.0.max(1));
            }
        };
        let n = self.take(pieces, most);
        if n == 0 {
            self.failed = Some(Failure::Zero);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `u.arbitrary()` for a list that is at most so long.
pub(crate) fn list<'a, T: Arbitrary<'a>>(u: &mut Unstructured<'a>, most: usize) -> Result<Vec<T>> {
    u.arbitrary_iter()?.take(most).collect()
}
