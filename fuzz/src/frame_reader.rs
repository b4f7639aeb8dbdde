//! A `FrameReader` over a source that does anything, against the stream cut by hand.

use crate::{
    reading::{self, Door, Got, Item, Plain, Step, Way},
    scripted::{self, Give, Piece, Source},
};
use amy::{FrameError, FrameReader, OwnedFrames};
use arbitrary::{Arbitrary, Result, Unstructured};
use std::io;

/// See [`run`].
#[derive(Debug)]
pub struct Input<'a> {
    limit: u32,
    budget: Option<u16>,
    script: Vec<Give>,
    steps: Vec<Step>,
    stream: Vec<Piece<'a>>,
}

impl<'a> Arbitrary<'a> for Input<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Input<'a>> {
        Ok(Input {
            limit: if u.arbitrary()? { u.arbitrary::<u8>()?.into() } else { u.arbitrary()? },
            budget: u.arbitrary()?,
            script: scripted::list(u, 32)?,
            steps: scripted::list(u, 32)?,
            stream: scripted::list(u, 32)?,
        })
    }
}

/// Reads the stream as the script gives it, taking some, all or none of the messages in between.
pub fn run(input: Input<'_>) {
    let mut reader = FrameReader::new(input.limit);
    let budget = input.budget.map(|budget| usize::from(budget).max(1));
    if let Some(budget) = budget {
        reader = reader.with_read_budget(budget);
    }
    let door = Frames { reader, limit: input.limit, owned: Vec::new() };
    let stream = scripted::stream(&input.stream);
    let door = reading::play(door, budget, stream, input.script, input.steps);
    for (owned, expected) in door.owned {
        assert!(owned.eq(expected), "messages that were taken do not change");
    }
}

struct Frames {
    reader: FrameReader,
    limit: u32,
    /// Messages that were taken as owned ones, and what they were then.
    owned: Vec<(OwnedFrames, Vec<Vec<u8>>)>,
}

impl Door for Frames {
    fn read(&mut self, source: &mut Source, until_short: bool) -> io::Result<usize> {
        if until_short { self.reader.read_until_short(source) } else { self.reader.read(source) }
    }

    fn take(&mut self, way: Way, most: usize) -> Vec<Got> {
        let frames: Vec<Vec<u8>> = match way {
            Way::Usual => self.reader.iter_mut().take(most).map(<[u8]>::to_vec).collect(),
            Way::Other => {
                let owned = self.reader.take_frames();
                let frames: Vec<Vec<u8>> = owned.clone().map(|frame| frame.to_vec()).collect();
                let (least, most) = owned.size_hint();
                assert!(least <= frames.len() && most.is_some_and(|most| frames.len() <= most));
                self.owned.push((owned, frames.clone()));
                frames
            }
        };
        frames.into_iter().map(Got::Bytes).collect()
    }

    fn takes_all(way: Way) -> bool {
        matches!(way, Way::Other)
    }

    fn has_more(&mut self) -> bool {
        self.reader.has_more()
    }

    fn is_finished(&self) -> bool {
        self.reader.is_finished()
    }

    fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    fn cut(&self, delivered: &[u8], ended: bool) -> Plain {
        let mut plain = Plain::default();
        let mut at = 0;
        loop {
            let received = delivered.len() - at;
            plain.rest = received;
            let mut expected = 4;
            if received >= 4 {
                let length = u32::from_be_bytes(delivered[at..at + 4].try_into().unwrap());
                if length > self.limit {
                    plain.never = Some(FrameError::TooLong { length, limit: self.limit });
                    return plain;
                }
                expected += length as usize;
            }
            if received < expected {
                plain.never = match (ended, received) {
                    (false, _) => None,
                    (true, 0) => Some(FrameError::Closed),
                    (true, _) => Some(FrameError::Truncated { received, expected }),
                };
                return plain;
            }
            plain.items.push(Item::Message(at + 4..at + expected));
            at += expected;
        }
    }
}
