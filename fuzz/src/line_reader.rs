//! A `LineReader` over a source that does anything, against `split` at the newlines.

use crate::{
    reading::{self, Door, Got, Item, Plain, Step, Way},
    scripted::{self, Give, Piece, Source},
};
use amy::{FrameError, LineError, LineReader};
use arbitrary::{Arbitrary, Result, Unstructured};
use std::io;

/// See [`run`].
#[derive(Debug)]
pub struct Input<'a> {
    limit: usize,
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

/// Reads the stream as the script gives it, taking some, all or none of the lines in between.
pub fn run(input: Input<'_>) {
    let mut reader = LineReader::new(input.limit);
    let budget = input.budget.map(|budget| usize::from(budget).max(1));
    if let Some(budget) = budget {
        reader = reader.with_read_budget(budget);
    }
    let door = Lines { reader, limit: input.limit };
    reading::play(door, budget, scripted::stream(&input.stream), input.script, input.steps);
}

struct Lines {
    reader: LineReader,
    limit: usize,
}

impl Door for Lines {
    fn read(&mut self, source: &mut Source, until_short: bool) -> io::Result<usize> {
        if until_short { self.reader.read_until_short(source) } else { self.reader.read(source) }
    }

    fn take(&mut self, way: Way, most: usize) -> Vec<Got> {
        let error = |error| match error {
            LineError::TooLong { limit } => Got::TooLong { limit },
            LineError::NotUtf8 { line, error } => Got::NotText(line, error),
            other => panic!("an error that is not known: {other}"),
        };
        match way {
            Way::Usual => {
                let lines = self.reader.iter_mut().take(most);
                lines.map(|line| line.map_or_else(error, |text| Got::Text(text.into()))).collect()
            }
            Way::Other => {
                let lines = self.reader.iter_bytes_mut().take(most);
                lines.map(|line| line.map_or_else(error, |line| Got::Bytes(line.into()))).collect()
            }
        }
    }

    fn takes_all(_: Way) -> bool {
        false
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
        let item = |line: &[u8], start: usize| match line.len() {
            length if length > self.limit => Item::TooLong { limit: self.limit },
            length => Item::Message(start..start + length),
        };
        let mut plain = Plain::default();
        let mut start = 0;
        let mut lines = delivered.split(|&byte| byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            let without_return = line.strip_suffix(b"\r").unwrap_or(line);
            if lines.peek().is_some() {
                plain.items.push(item(without_return, start));
                start += line.len() + 1;
                continue;
            }
            // The last one has no end. A return may still turn out to belong to one, until the
            // stream is over.
            let least = if ended { line } else { without_return };
            if least.len() > self.limit || (ended && !line.is_empty()) {
                plain.items.push(item(least, start));
            } else {
                plain.rest = line.len();
            }
        }
        plain.never = ended.then_some(FrameError::Closed);
        plain
    }
}
