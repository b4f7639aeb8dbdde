//! What both readers promise, held against what the source knows that it gave.
//!
//! After each call all that was delivered is cut anew, from its first byte on, by a function that
//! knows nothing of buffers. Everything that the reader says has to follow from that.

use crate::scripted::{Give, Last, Length, Source};
use amy::{FrameError, LineReader};
use arbitrary::Arbitrary;
use std::{
    io::{self, ErrorKind},
    ops::Range,
    str::{self, Utf8Error},
};

/// What one `read` brings, unless told otherwise.
const BUDGET: usize = 65 * 1024;

/// A source may be interrupted no more often than this before `read` returns.
const PATIENCE: usize = 16;

/// What the user does.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Step {
    Read,
    ReadUntilShort,
    /// Takes at most so many messages.
    Take(Way, u8),
    TakeAll(Way),
    /// Another reader on the same thread receives so many bytes, and is dropped.
    Neighbour(Length),
}

/// How messages are taken; each reader has two ways.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Way {
    Usual,
    Other,
}

/// What a stream holds, cut plainly.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    pub(crate) items: Vec<Item>,
    /// How many bytes behind the items are kept, as a part of the next one.
    pub(crate) rest: usize,
    /// Why nothing comes after the items.
    pub(crate) never: Option<FrameError>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Message(Range<usize>),
    TooLong { limit: usize },
}

/// What a reader gave for an item.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Bytes(Vec<u8>),
    Text(String),
    NotText(Vec<u8>, Utf8Error),
    TooLong { limit: usize },
}

/// A reader, as this module drives it.
pub(crate) trait Door {
    fn read(&mut self, source: &mut Source, until_short: bool) -> io::Result<usize>;
    /// Takes at most so many; all of them where only that is possible.
    fn take(&mut self, way: Way, most: usize) -> Vec<Got>;
    /// Whether this way takes all in any case.
    fn takes_all(way: Way) -> bool;
    fn has_more(&mut self) -> bool;
    fn is_finished(&self) -> bool;
    fn is_empty(&self) -> bool;
    /// Cuts all that was delivered, plainly.
    fn cut(&self, delivered: &[u8], ended: bool) -> Plain;
}

pub(crate) struct Play<D> {
    door: D,
    source: Source,
    budget: usize,
    foreign: Option<u8>,
    plain: Plain,
    /// How many of the items were taken.
    taken: usize,
    /// The last word of the reader.
    told: Option<FrameError>,
}

/// Plays `script` and `steps`, then reads to the end, and returns the reader.
pub(crate) fn play<D: Door>(
    door: D,
    budget: Option<usize>,
    mut stream: Vec<u8>,
    script: Vec<Give>,
    steps: Vec<Step>,
) -> D {
    let budget = budget.unwrap_or(BUDGET);
    // A small budget makes many calls of a long stream.
    stream.truncate(budget.saturating_mul(64));
    let foreign = (1..=u8::MAX).find(|byte| !stream.contains(byte));
    let source = Source::new(stream, script, foreign);
    let plain = door.cut(&[], false);
    let mut play = Play { door, source, budget, foreign, plain, taken: 0, told: None };
    play.check();
    for step in steps {
        play.step(step);
    }
    // The source ends, so this does; each turn takes a step of the script or a budget's worth.
    while play.told.is_none() {
        play.read(false);
        play.take(Way::Usual, usize::MAX);
    }
    play.read(false);
    play.door
}

impl<D: Door> Play<D> {
    fn step(&mut self, step: Step) {
        match step {
            Step::Read => self.read(false),
            Step::ReadUntilShort => self.read(true),
            Step::Take(way, most) => self.take(way, most.into()),
            Step::TakeAll(way) => self.take(way, usize::MAX),
            Step::Neighbour(bytes) => {
                let bytes = vec![self.foreign.unwrap_or(b'?'); bytes.0];
                let _ = LineReader::new(usize::MAX).read(&mut bytes.as_slice());
            }
        }
        self.check();
    }

    fn in_hand(&self) -> usize {
        self.plain.items.len() - self.taken
    }

    fn read(&mut self, until_short: bool) {
        let calls = self.source.calls;
        let delivered = self.source.delivered.len();
        let had_in_hand = self.in_hand() > 0;
        let was_over = self.source.ended || self.source.overclaimed.is_some();
        let had_failed = !self.source.failures.is_empty();
        let was_told = self.told;

        let result = self.door.read(&mut self.source, until_short);

        let came = self.source.delivered.len() - delivered;
        let asked = self.source.calls - calls;
        if came > 0 || self.source.ended {
            self.plain = self.door.cut(&self.source.delivered, self.source.ended);
        }
        assert!(came <= self.budget, "{came} bytes came, and the budget is {}", self.budget);
        // Each call brings a byte, or is one of so many interruptions in a row, or the last one.
        assert!(asked <= (came + 1) * PATIENCE, "{asked} calls for {came} bytes");
        if was_over || had_failed || was_told.is_some() {
            assert_eq!(asked, 0, "what is known need not be asked for");
        }
        match result {
            Ok(n) => self.check_came(n, came, asked, had_in_hand, until_short),
            Err(error) => self.check_error(&error),
        }
        if let Some(was_told) = was_told {
            assert_eq!(self.told, Some(was_told), "the last word stays");
        }
        self.check();
    }

    fn check_came(
        &mut self,
        n: usize,
        came: usize,
        asked: usize,
        had_in_hand: bool,
        until_short: bool,
    ) {
        assert_eq!(n, came);
        assert_eq!(self.told, None, "an error for good is told for ever");
        if self.in_hand() == 0 {
            assert_eq!(self.end(), None, "nothing has to come before it");
            assert!(self.source.failures.is_empty(), "nothing has to come before it");
        }
        if !had_in_hand && asked == 0 {
            panic!("nothing in hand, nothing known, and the source was not asked");
        }
        let drained = match self.source.last {
            Last::Blocked => true,
            Last::Short => until_short,
            Last::Filled | Last::Interrupted | Last::Other => false,
        };
        if !self.door.has_more() {
            assert!(asked > 0 && drained, "there may be more: {:?}", self.source.last);
        }
        if asked > 0 && self.source.last == Last::Blocked {
            assert!(!self.door.has_more(), "the source was drained");
        }
    }

    fn check_error(&mut self, error: &io::Error) {
        assert_eq!(self.in_hand(), 0, "complete messages come before {error}");
        let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<FrameError>());
        let Some(&reason) = reason else {
            let failure = self.source.failures.pop_front();
            assert_eq!(error.raw_os_error(), Some(failure.expect("an error of the source")));
            assert_eq!(self.end(), None, "what is for good comes first");
            return;
        };
        assert_eq!(Some(reason), self.end());
        let kind = match reason {
            FrameError::Closed => ErrorKind::BrokenPipe,
            FrameError::Truncated { .. } => ErrorKind::UnexpectedEof,
            _ => ErrorKind::InvalidData,
        };
        assert_eq!(error.kind(), kind);
        self.told = Some(reason);
    }

    /// Why nothing comes behind what is in hand.
    fn end(&self) -> Option<FrameError> {
        let overclaimed = self.source.overclaimed;
        self.plain
            .never
            .or(overclaimed.map(|(claimed, offered)| FrameError::Overclaimed { claimed, offered }))
    }

    fn take(&mut self, way: Way, most: usize) {
        let expected = if D::takes_all(way) { self.in_hand() } else { self.in_hand().min(most) };
        let got = self.door.take(way, most);
        assert_eq!(got.len(), expected, "messages were in hand");
        for (item, got) in self.plain.items[self.taken..].iter().zip(&got) {
            self.check_item(item, got);
        }
        self.taken += expected;
        self.check();
    }

    fn check_item(&self, item: &Item, got: &Got) {
        let message = match item {
            Item::TooLong { limit } => {
                return assert!(*got == Got::TooLong { limit: *limit }, "it was too long");
            }
            Item::Message(range) => &self.source.delivered[range.clone()],
        };
        match got {
            // A flood of empty messages: to compare nothing with nothing takes longer than to look.
            Got::Bytes(bytes) if message.is_empty() => assert!(bytes.is_empty(), "another message"),
            Got::Bytes(bytes) => assert!(bytes == message, "another message"),
            Got::Text(text) => assert!(text.as_bytes() == message, "another line"),
            Got::NotText(bytes, error) => {
                assert!(bytes == message, "another line");
                assert_eq!(Some(*error), str::from_utf8(message).err());
            }
            Got::TooLong { .. } => panic!("a line of {} bytes is not too long", message.len()),
        }
    }

    /// What holds between any two calls.
    fn check(&mut self) {
        let over = self.source.ended || self.source.overclaimed.is_some();
        let refuses = self.in_hand() == 0 && self.plain.never.is_some();
        assert_eq!(self.door.is_finished(), over || refuses);
        assert_eq!(self.door.is_empty(), self.in_hand() == 0 && self.plain.rest == 0);
        if self.told.is_some() {
            assert!(!self.door.has_more(), "all is told");
        } else if over || refuses || !self.source.failures.is_empty() {
            assert!(self.door.has_more(), "an end or an error is still to be told");
        }
    }
}
