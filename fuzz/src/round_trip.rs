//! What a `FrameWriter` queues, a `FrameReader` gives, whatever is between them.

use crate::scripted;
use amy::{FrameError, FrameReader, FrameWriter};
use arbitrary::{Arbitrary, Result, Unstructured};
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
};

/// See [`run`].
#[derive(Debug)]
pub struct Input {
    budget: Option<u16>,
    /// How many bytes the wire holds.
    capacity: u16,
    writes: Vec<Piece>,
    reads: Vec<Piece>,
    steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Input> {
        Ok(Input {
            budget: u.arbitrary()?,
            capacity: u.arbitrary()?,
            writes: scripted::list(u, 32)?,
            reads: scripted::list(u, 32)?,
            steps: scripted::list(u, 32)?,
        })
    }
}

/// How much the wire takes or gives at one call.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Piece {
    Some(u8),
    Many(u16),
    Block,
    Interrupt,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Push(u8),
    PushLong(u16),
    Write(u8),
    Flush,
    Read,
    ReadUntilShort,
    Take(u8),
    TakeFrames,
}

/// Plays the steps, then moves what is left, and compares the messages.
pub fn run(input: Input) {
    let mut reader = FrameReader::new(u32::MAX);
    if let Some(budget) = input.budget {
        reader = reader.with_read_budget(budget.into());
    }
    let mut play = Play {
        writer: FrameWriter::new(),
        reader,
        wire: Wire {
            capacity: usize::from(input.capacity).max(1),
            bytes: VecDeque::new(),
            closed: false,
            writes: input.writes.into(),
            reads: input.reads.into(),
        },
        sent: VecDeque::new(),
    };
    for step in input.steps {
        play.step(step);
    }
    play.finish();
}

struct Play {
    writer: FrameWriter,
    reader: FrameReader,
    wire: Wire,
    /// The messages that were queued and not yet received.
    sent: VecDeque<Vec<u8>>,
}

impl Play {
    fn step(&mut self, step: Step) {
        match step {
            Step::Push(length) => self.push(length.into()),
            Step::PushLong(length) => self.push(length.into()),
            Step::Write(length) => {
                let message = self.message(length.into());
                self.sent.push_back(message.clone());
                self.writer.write(&mut self.wire, message).unwrap();
            }
            Step::Flush => {
                self.writer.flush(&mut self.wire).unwrap();
            }
            Step::Read => {
                self.reader.read(&mut self.wire).unwrap();
            }
            Step::ReadUntilShort => {
                self.reader.read_until_short(&mut self.wire).unwrap();
            }
            Step::Take(most) => self.take(most.into()),
            Step::TakeFrames => {
                for frame in self.reader.take_frames() {
                    assert!(
                        self.sent.pop_front().is_some_and(|sent| frame == sent),
                        "another message"
                    );
                }
            }
        }
    }

    fn message(&self, length: usize) -> Vec<u8> {
        let mut message = vec![self.sent.len() as u8; length.min(1)];
        scripted::message(&mut message, length.saturating_sub(1));
        message
    }

    fn push(&mut self, length: usize) {
        let message = self.message(length);
        self.writer.push(message.as_slice()).unwrap();
        self.sent.push_back(message);
    }

    fn take(&mut self, most: usize) {
        for frame in self.reader.iter_mut().take(most) {
            assert!(self.sent.pop_front().is_some_and(|sent| frame == sent), "another message");
        }
    }

    fn finish(&mut self) {
        self.wire.capacity = usize::MAX;
        self.reader =
            std::mem::replace(&mut self.reader, FrameReader::new(0)).with_read_budget(64 * 1024);
        // Each turn uses up the scripts, or moves everything.
        while !self.writer.flush(&mut self.wire).unwrap() {}
        self.wire.closed = true;
        let error = loop {
            if let Err(error) = self.reader.read(&mut self.wire) {
                break error;
            }
            self.take(usize::MAX);
        };
        let reason = error.get_ref().and_then(|inner| inner.downcast_ref());
        assert_eq!(reason, Some(&FrameError::Closed));
        assert!(self.sent.is_empty(), "{} messages were lost", self.sent.len());
        assert!(self.writer.is_empty() && self.reader.is_empty());
    }
}

/// Bytes on their way, of which each call moves as many as a script says, and then as many as
/// there are.
struct Wire {
    capacity: usize,
    bytes: VecDeque<u8>,
    closed: bool,
    writes: VecDeque<Piece>,
    reads: VecDeque<Piece>,
}

impl Wire {
    fn most(script: &mut VecDeque<Piece>) -> io::Result<usize> {
        match script.pop_front() {
            None => Ok(usize::MAX),
            Some(Piece::Some(n)) => Ok(usize::from(n).max(1)),
            Some(Piece::Many(n)) => Ok(usize::from(n).max(1)),
            Some(Piece::Block) => Err(ErrorKind::WouldBlock.into()),
            Some(Piece::Interrupt) => Err(ErrorKind::Interrupted.into()),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = Wire::most(&mut self.writes)?.min(self.capacity - self.bytes.len());
        if most == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let n = bytes.len().min(most);
        self.bytes.extend(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Wire {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let most = Wire::most(&mut self.reads)?.min(room.len());
        if self.bytes.is_empty() && !self.closed {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.bytes.read(&mut room[..most])
    }
}
