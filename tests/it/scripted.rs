//! A source and a sink that do what a test tells them, step by step.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice, Read, Write},
};

/// What a source does at one call.
#[derive(Clone, Debug)]
pub(crate) enum Give {
    /// Gives these bytes; those for which there is no room, at the next call.
    Bytes(Vec<u8>),
    Block,
    Interrupt,
    /// Fails with this code of the system.
    Fail(i32),
    End,
    /// Claims to have given so many bytes, and wrote none.
    Claim(usize),
    /// Fills its room with these bytes, and claims so many of them.
    Scratch(u8, usize),
    /// Claims so many bytes more than there was room for.
    Overclaim(usize),
}

/// A source; when its script is over it would block.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) script: VecDeque<Give>,
    pub(crate) calls: usize,
    /// How much of the first step's bytes were given.
    given: usize,
}

impl Source {
    pub(crate) fn new(script: impl IntoIterator<Item = Give>) -> Source {
        Source { script: script.into_iter().collect(), ..Source::default() }
    }

    /// The whole of `bytes`, as fast as it is wanted, and then an end.
    pub(crate) fn ending(bytes: &[u8]) -> Source {
        Source::new([Give::Bytes(bytes.to_vec()), Give::End])
    }
}

impl Read for Source {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        match self.script.pop_front().unwrap_or(Give::Block) {
            Give::Bytes(bytes) => {
                let rest = &bytes[self.given..];
                let n = rest.len().min(room.len());
                room[..n].copy_from_slice(&rest[..n]);
                self.given = if n == rest.len() { 0 } else { self.given + n };
                if self.given > 0 {
                    self.script.push_front(Give::Bytes(bytes));
                }
                Ok(n)
            }
            Give::Block => Err(ErrorKind::WouldBlock.into()),
            Give::Interrupt => Err(ErrorKind::Interrupted.into()),
            Give::Fail(code) => Err(io::Error::from_raw_os_error(code)),
            Give::End => Ok(0),
            Give::Claim(n) => Ok(n.min(room.len())),
            Give::Scratch(byte, n) => {
                room.fill(byte);
                Ok(n)
            }
            Give::Overclaim(n) => Ok(room.len() + n),
        }
    }
}

/// `bytes` cut behind each position whose bit is set.
pub(crate) fn pieces(bytes: &[u8], cuts: usize) -> Vec<Vec<u8>> {
    let mut pieces = vec![Vec::new()];
    for (at, byte) in bytes.iter().enumerate() {
        pieces.last_mut().unwrap().push(*byte);
        if cuts & 1 << at != 0 && at + 1 < bytes.len() {
            pieces.push(Vec::new());
        }
    }
    pieces
}

/// What a sink does at one call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Take {
    /// Takes at most so many bytes.
    Bytes(usize),
    Block,
    Interrupt,
    /// Fails with this code of the system.
    Fail(i32),
    /// Claims so many bytes more than there were.
    Overclaim(usize),
}

/// A sink; when its script is over it takes everything.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub(crate) script: VecDeque<Take>,
    pub(crate) taken: Vec<u8>,
    pub(crate) calls: usize,
}

impl Sink {
    pub(crate) fn new(script: impl IntoIterator<Item = Take>) -> Sink {
        Sink { script: script.into_iter().collect(), ..Sink::default() }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.calls += 1;
        assert!(pieces.iter().all(|piece| !piece.is_empty()), "an empty write says nothing");
        let offered = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        match self.script.pop_front().unwrap_or(Take::Bytes(usize::MAX)) {
            Take::Bytes(most) => {
                let n = offered.min(most);
                let end = self.taken.len() + n;
                for piece in pieces {
                    let left = end - self.taken.len();
                    self.taken.extend_from_slice(&piece[..piece.len().min(left)]);
                }
                Ok(n)
            }
            Take::Block => Err(ErrorKind::WouldBlock.into()),
            Take::Interrupt => Err(ErrorKind::Interrupted.into()),
            Take::Fail(code) => Err(io::Error::from_raw_os_error(code)),
            Take::Overclaim(n) => Ok(offered + n),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
