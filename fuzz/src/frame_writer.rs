//! A `FrameWriter` into a sink that does anything: what came out is a prefix of what was queued.

use crate::scripted::{self, Failure, Sink, Take};
use amy::{FrameWriter, Refusal, Refused};
use arbitrary::{Arbitrary, Result, Unstructured};
use std::io::{self, ErrorKind};

/// What a writer queues, unless told otherwise.
const QUEUE_LIMIT: usize = 16 * 1024 * 1024;

/// See [`run`].
#[derive(Debug)]
pub struct Input {
    max_frame_size: Option<u16>,
    queue_limit: Option<u16>,
    script: Vec<Take>,
    steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Input> {
        Ok(Input {
            max_frame_size: u.arbitrary()?,
            queue_limit: u.arbitrary()?,
            script: scripted::list(u, 32)?,
            steps: scripted::list(u, 32)?,
        })
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    /// Queues a message, borrowed or given away.
    Push(Length, bool),
    Write(Length),
    WriteNone,
    Flush,
    Writable,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Length {
    Short(u8),
    Long(u16),
    /// About where a message is no longer copied.
    Middle(i8),
}

impl Length {
    fn bytes(self) -> usize {
        match self {
            Length::Short(n) => n.into(),
            Length::Long(n) => n.into(),
            Length::Middle(n) => 4096_usize.saturating_add_signed(n.into()),
        }
    }
}

/// Queues and writes as the steps say, and compares with a list of all bytes that were queued.
pub fn run(input: Input) {
    let mut writer = FrameWriter::new();
    if let Some(bytes) = input.max_frame_size {
        writer = writer.with_max_frame_size(bytes.into());
    }
    if let Some(bytes) = input.queue_limit {
        writer = writer.with_queue_limit(bytes.into());
    }
    let mut play = Play {
        writer,
        sink: Sink::new(input.script),
        max_frame_size: input.max_frame_size.map_or(u32::MAX as usize, usize::from),
        queue_limit: input.queue_limit.map_or(QUEUE_LIMIT, |bytes| usize::from(bytes).max(4)),
        queued: Vec::new(),
        compared: 0,
        writable: true,
        error: None,
    };
    play.check();
    for step in input.steps {
        play.step(step);
    }
    // The script ends, and then the sink takes everything.
    while play.error.is_none() && !play.writer.is_empty() {
        play.flush();
    }
}

struct Play {
    writer: FrameWriter,
    sink: Sink,
    max_frame_size: usize,
    queue_limit: usize,
    /// Every byte that was ever queued.
    queued: Vec<u8>,
    /// How many bytes in the sink were found to be right.
    compared: usize,
    writable: bool,
    /// The error that broke the writer.
    error: Option<(ErrorKind, Option<i32>, String)>,
}

impl Play {
    fn step(&mut self, step: Step) {
        match step {
            Step::Push(length, borrowed) => self.push(length.bytes(), borrowed),
            Step::Write(length) => self.write(length.bytes()),
            Step::WriteNone => {
                let calls = self.sink.calls;
                let result = self.writer.write(&mut self.sink, None);
                self.check_flushed(result, calls);
            }
            Step::Flush => self.flush(),
            Step::Writable => {
                self.writer.writable();
                self.writable = true;
            }
        }
        self.check();
    }

    /// A message that says where it belongs.
    fn message(&self, length: usize) -> Vec<u8> {
        let mut message = vec![self.queued.len() as u8; length.min(1)];
        scripted::message(&mut message, length.saturating_sub(1));
        message
    }

    fn waiting(&self) -> usize {
        self.queued.len() - self.sink.taken.len()
    }

    /// Why a message of this length has to be refused.
    fn refusal(&self, length: usize) -> Option<Refusal> {
        if self.error.is_some() {
            return Some(Refusal::Broken);
        }
        let limit = self.queue_limit.saturating_sub(4).min(self.max_frame_size);
        if length > limit {
            return Some(Refusal::TooLong { length, limit });
        }
        let queued = self.waiting();
        (queued + 4 + length > self.queue_limit).then_some(Refusal::Full {
            length,
            queued,
            limit: self.queue_limit,
        })
    }

    fn accepted(&mut self, message: &[u8]) {
        self.queued.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        self.queued.extend_from_slice(message);
    }

    fn push(&mut self, length: usize, borrowed: bool) {
        let message = self.message(length);
        let expected = self.refusal(length);
        let calls = self.sink.calls;
        let result = if borrowed {
            self.writer.push(message.as_slice()).map_err(|refused| {
                let reason = refused.reason();
                (refused.into_frame().to_vec(), reason)
            })
        } else {
            self.writer.push(message.clone()).map_err(|refused| {
                let reason = refused.reason();
                (refused.into_frame(), reason)
            })
        };
        assert_eq!(self.sink.calls, calls, "a push writes nothing");
        match (result, expected) {
            (Ok(()), None) => self.accepted(&message),
            (Err((frame, reason)), Some(expected)) => {
                assert_eq!(reason, expected);
                assert!(frame == message, "a message comes back as it was");
            }
            (result, expected) => panic!("{result:?}, and expected was {expected:?}"),
        }
    }

    fn write(&mut self, length: usize) {
        let message = self.message(length);
        let refusal = self.refusal(length);
        let calls = self.sink.calls;
        if refusal.is_none() {
            self.accepted(&message);
        }
        let result = self.writer.write(&mut self.sink, message.clone());
        match refusal {
            None if self.writable => self.check_flushed(result, calls),
            None => {
                assert!(!result.expect("nothing was tried"), "something waits");
                assert_eq!(self.sink.calls, calls, "it is not believed to be writable");
            }
            Some(Refusal::Broken) => self.check_flushed(result, calls),
            Some(expected) => {
                let error = result.expect_err("the message does not fit");
                let kind = match expected {
                    Refusal::TooLong { .. } => ErrorKind::InvalidInput,
                    _ => ErrorKind::QuotaExceeded,
                };
                assert_eq!(error.kind(), kind);
                let refused = error.downcast::<Refused<Vec<u8>>>().expect("the message");
                assert_eq!(refused.reason(), expected);
                assert!(refused.into_frame() == message, "a message comes back as it was");
                assert_eq!(self.sink.calls, calls, "a message that is refused writes nothing");
            }
        }
    }

    fn flush(&mut self) {
        let calls = self.sink.calls;
        let result = self.writer.flush(&mut self.sink);
        self.check_flushed(result, calls);
        self.check();
    }

    /// What a call that tries to write has to answer, `calls` being the sink's count before.
    fn check_flushed(&mut self, result: io::Result<bool>, calls: usize) {
        let asked = self.sink.calls - calls;
        if let Some((kind, code, text)) = &self.error {
            let error = result.expect_err("a broken writer stays broken");
            assert_eq!((error.kind(), error.raw_os_error()), (*kind, *code));
            assert_eq!(error.to_string(), *text);
            return assert_eq!(asked, 0, "a broken writer writes nothing");
        }
        if let Some(failure) = self.sink.failed {
            let error = result.expect_err("the sink failed");
            match failure {
                Failure::Code(code) => assert_eq!(error.raw_os_error(), Some(code)),
                Failure::Zero => assert_eq!(error.kind(), ErrorKind::WriteZero),
                Failure::Overclaimed => assert_eq!(error.kind(), ErrorKind::InvalidData),
            }
            self.writable = false;
            self.error = Some((error.kind(), error.raw_os_error(), error.to_string()));
            return;
        }
        let all = result.expect("the sink did not fail");
        assert_eq!(all, self.waiting() == 0);
        if asked > 0 {
            self.writable = !self.sink.blocked;
            assert!(all || self.sink.blocked || asked >= 16, "it gave up early");
        } else {
            assert!(all, "something waits, and nothing was tried");
            self.writable = true;
        }
    }

    fn check(&mut self) {
        let new = self.compared..self.sink.taken.len();
        assert!(self.queued.len() >= new.end, "more came out than was queued");
        let prefix = self.queued[new.clone()] == self.sink.taken[new.clone()];
        assert!(prefix, "what came out is not a prefix of what was queued");
        self.compared = new.end;
        assert_eq!(self.writer.sent_bytes(), new.end as u64);
        assert_eq!(self.writer.queued_bytes(), self.waiting());
        assert_eq!(self.writer.is_empty(), self.waiting() == 0);
        assert_eq!(self.writer.is_writable(), self.writable && self.error.is_none());
        assert!(self.waiting() <= self.queue_limit);
    }
}
