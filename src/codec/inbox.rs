//! What a reader has received and nobody has taken yet: one buffer, and the loop that fills it.
//!
//! # The buffer
//!
//! ```text
//! buf   | taken | in hand            | room for the source   | untouched, all zero |
//!       0       start                end                     touched               len
//! ```
//!
//! All of it is initialised at all times, and it never holds what another reader received. A reader
//! borrows the thread's spare buffer when it reads, and gives it back as soon as the source is
//! drained: if little is left in hand, that moves into a buffer of its own size. So what a reader
//! holds follows what it received; while it is known that more is there, it keeps what it has.
//! So does one reader of each thread that has whole messages, until it is asked for more: who takes
//! them at once never sees them moved.
//!
//! Nothing can be given back when the last message was taken: the messages borrow the buffer, and
//! may outlive the iterator that gave them. Whoever asks next whether there is more, or reads, does
//! it.

use super::spare::{self, CHUNK, Owner};
use std::{
    error, fmt,
    io::{self, ErrorKind, Read},
};

/// How many bytes one `read` brings, unless its user says otherwise.
const BUDGET: usize = CHUNK;

/// A source is offered room in proportion to what it gave before, and little before it gave
/// anything: what was offered has to be zeroed before another reader may have it.
const OFFER_FIRST: usize = 2 * 1024;
const OFFER_LEAST: usize = 512;
/// After so many reads in a row that brought less than half of what was offered, that is halved:
/// not at the first one, since a second read where more comes costs more than the zeros do.
const SHRINK_AFTER: u8 = 4;

/// How often in a row a source may be interrupted before `read` returns.
pub(super) const INTERRUPTIONS: u32 = 16;

/// Why a [`FrameReader`](crate::FrameReader) or a [`LineReader`](crate::LineReader) has nothing
/// more to give: what the peer did, in numbers.
///
/// `read` wraps it into an [`io::Error`], and says the same at each later call.
///
/// # Examples
///
/// ```
/// use amy::{FrameError, FrameReader};
/// use std::io::ErrorKind;
///
/// let mut reader = FrameReader::new(65_536);
/// let error = reader.read(&mut [0, 1, 0x11, 0x70].as_slice()).unwrap_err();
///
/// assert_eq!(error.kind(), ErrorKind::InvalidData);
/// assert_eq!(error.to_string(), "frame of 70000 bytes is over the limit of 65536");
/// let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<FrameError>());
/// assert_eq!(reason, Some(&FrameError::TooLong { length: 70_000, limit: 65_536 }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The stream ended between two messages (`BrokenPipe`).
    Closed,
    /// The stream ended inside a frame (`UnexpectedEof`).
    Truncated {
        /// How many bytes of the frame arrived, its header included.
        received: usize,
        /// How many it has, its header included; or 4, if not even the header arrived.
        expected: usize,
    },
    /// A header announces a frame over the limit (`InvalidData`). Nothing was allocated for it, and
    /// where the next frame begins cannot be known.
    TooLong {
        /// What the header says.
        length: u32,
        /// What the reader accepts.
        limit: u32,
    },
    /// The source claims to have read more than it had room for (`InvalidData`). None of it is
    /// shown.
    Overclaimed {
        /// What the source returned.
        claimed: usize,
        /// What it was offered.
        offered: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Closed => f.write_str("the peer closed the stream"),
            FrameError::Truncated { received, expected } => {
                write!(f, "the stream ended after {received} of the {expected} bytes of a frame")
            }
            FrameError::TooLong { length, limit } => {
                write!(f, "frame of {length} bytes is over the limit of {limit}")
            }
            FrameError::Overclaimed { claimed, offered } => {
                write!(f, "the source claims to have read {claimed} bytes into {offered}")
            }
        }
    }
}

impl error::Error for FrameError {}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> io::Error {
        let kind = match error {
            FrameError::Closed => ErrorKind::BrokenPipe,
            FrameError::Truncated { .. } => ErrorKind::UnexpectedEof,
            FrameError::TooLong { .. } | FrameError::Overclaimed { .. } => ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

/// How bytes are cut into messages.
pub(super) trait Cut {
    /// What the bytes in hand begin with; `ended` if no more will follow them.
    fn front(&mut self, bytes: &[u8], ended: bool) -> Front;
}

/// What the bytes in hand begin with.
pub(super) enum Front {
    /// Something that can be taken.
    Whole,
    /// A part of something, or nothing yet; all of it is no longer than `within`.
    Part { within: usize },
    /// So many bytes, at least one, that nobody wants.
    Skip(usize),
    /// Something after which nothing can be taken any more.
    Never(FrameError),
}

/// When the source is taken to be drained.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Drained {
    /// When it would block.
    WouldBlock,
    /// Also when it gave less than it was offered.
    Short,
}

/// See the module.
pub(super) struct Inbox {
    buf: Vec<u8>,
    start: usize,
    end: usize,
    touched: usize,
    /// Who this is to the spare buffers; nobody until the first one is needed.
    owner: Owner,
    /// How much the source is offered next.
    offer: usize,
    /// How many reads in a row brought less than half of that.
    less: u8,
    budget: usize,
    /// The source may have more, as far as is known; also if it failed.
    more: bool,
    /// The source said that it has ended.
    ended: bool,
    /// The source broke its contract, and is not asked again.
    overclaimed: Option<Box<FrameError>>,
    /// An error of the source, to be told when what is in hand was taken.
    failed: Option<io::Error>,
    /// The user knows that nothing more will come.
    told: bool,
    /// This is the one that keeps its buffer. See `keeps`.
    kept: bool,
}

impl Inbox {
    pub(super) const fn new() -> Inbox {
        Inbox {
            buf: Vec::new(),
            start: 0,
            end: 0,
            touched: 0,
            owner: Owner::NOBODY,
            offer: OFFER_FIRST,
            less: 0,
            budget: BUDGET,
            more: false,
            ended: false,
            overclaimed: None,
            failed: None,
            told: false,
            kept: false,
        }
    }

    pub(super) fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes.max(1);
    }

    /// What was received and not taken.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// The same with what was taken before it, and where to write down how much that is.
    #[inline]
    pub(super) fn bytes_and_taken(&mut self) -> (&[u8], &mut usize) {
        (&self.buf[..self.end], &mut self.start)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The source said that it has ended.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Nothing more will arrive.
    pub(super) fn is_finished(&self) -> bool {
        self.ended || self.overclaimed.is_some()
    }

    pub(super) fn has_more(&self) -> bool {
        self.more || (self.is_finished() && !self.told)
    }

    /// The same; and if not, nothing is kept that is not needed until there is.
    pub(super) fn has_more_or_rest(&mut self) -> bool {
        let more = self.has_more();
        if !more {
            self.settle();
        }
        more
    }

    /// The user was told that nothing more will come.
    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// Reads until the source is drained or the budget is spent. See `FrameReader::read`.
    pub(super) fn read(
        &mut self,
        cut: &mut impl Cut,
        source: &mut (impl Read + ?Sized),
        drained: Drained,
    ) -> io::Result<usize> {
        let mut got = 0;
        let result = self.fill(cut, source, drained, &mut got);
        if !matches!(result, Ok(true)) || !self.keeps() {
            self.settle();
        }
        result.map(|_whole| got)
    }

    /// Returns whether something whole is in hand.
    fn fill(
        &mut self,
        cut: &mut impl Cut,
        source: &mut (impl Read + ?Sized),
        drained: Drained,
        got: &mut usize,
    ) -> io::Result<bool> {
        let mut interruptions = 0;
        self.more = !self.is_finished();
        loop {
            let (whole, within) = match self.front(cut) {
                Front::Never(error) => return Err(self.tell(error)),
                Front::Whole => (true, usize::MAX),
                Front::Part { within } => (false, within),
                Front::Skip(_) => continue,
            };
            if !whole {
                if let Some(error) = &self.overclaimed {
                    let error = **error;
                    return Err(self.tell(error));
                }
                if let Some(error) = self.failed.take() {
                    return Err(error);
                }
            }
            if !self.more || self.failed.is_some() {
                return Ok(whole);
            }

            let room = self.make_room(whole, within, *got);
            if room == 0 {
                return Ok(whole);
            }
            self.touched = self.touched.max(self.end + room);
            match source.read(&mut self.buf[self.end..self.end + room]) {
                Ok(0) => {
                    self.ended = true;
                    self.more = false;
                }
                Ok(n) if n > room => {
                    let error = FrameError::Overclaimed { claimed: n, offered: room };
                    self.overclaimed = Some(Box::new(error));
                    self.more = false;
                }
                Ok(n) => {
                    self.end += n;
                    *got += n;
                    interruptions = 0;
                    self.learn(n, room);
                    self.more = n == room || drained == Drained::WouldBlock;
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        self.more = false;
                        return Ok(whole);
                    }
                    ErrorKind::Interrupted => {
                        interruptions += 1;
                        if interruptions == INTERRUPTIONS {
                            return Ok(whole);
                        }
                    }
                    // Behind what is in hand; without anything in hand it is told at once, above.
                    _ => self.failed = Some(error),
                },
            }
        }
    }

    fn front(&mut self, cut: &mut impl Cut) -> Front {
        let front = cut.front(&self.buf[self.start..self.end], self.ended);
        if let Front::Skip(n) = front {
            self.start += n;
        }
        front
    }

    fn tell(&mut self, error: FrameError) -> io::Error {
        self.more = false;
        self.told = true;
        // It may have come behind the bytes that are refused.
        self.failed = None;
        error.into()
    }

    /// How much the source may be offered behind `end`: 0 if what is in hand has to be taken first,
    /// or if the budget is spent.
    fn make_room(&mut self, whole: bool, within: usize, got: usize) -> usize {
        if self.buf.is_empty() {
            return self.first_room();
        }
        let have = self.end - self.start;
        let spent = if whole { got.max(have) } else { got };
        let allowed = self.budget.saturating_sub(spent).min(self.offer);
        if allowed == 0 {
            return 0;
        }
        if have == 0 {
            (self.start, self.end) = (0, 0);
        }
        // Moves no more than about to arrive, so that the work stays linear in what arrives.
        if self.buf.len() < CHUNK && have <= self.offer {
            let mut large = Vec::new();
            let touched = spare::take_large(&mut large, self.owner);
            self.move_to(large, touched);
        }
        let must_move = !whole && self.end == self.buf.len();
        let may_move = have <= self.start && self.buf.len() - self.end < allowed;
        if self.start > 0 && (must_move || may_move) {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, have);
        }
        if !whole && self.end == self.buf.len() {
            // Whatever a header claims: no further ahead of what was received than this.
            let len = within.min((have + CHUNK).max(2 * have));
            self.buf.reserve_exact(len - self.buf.len());
            self.buf.resize(len, 0);
        }
        let room = (self.buf.len() - self.end).min(allowed);
        // A long frame is read to its end and no further, so that the next one need not be moved.
        if within > CHUNK && !whole { room.min(within - have) } else { room }
    }

    /// The same where nothing is in hand and no buffer is held, which has nothing to move.
    #[inline]
    fn first_room(&mut self) -> usize {
        if self.owner == Owner::NOBODY {
            self.owner = Owner::new();
        }
        (self.start, self.end) = (0, 0);
        self.touched = spare::take_large(&mut self.buf, self.owner);
        self.budget.min(self.offer).min(self.buf.len())
    }

    #[inline]
    fn learn(&mut self, n: usize, offered: usize) {
        if n == self.offer {
            self.offer = (4 * self.offer).min(self.budget.max(CHUNK));
        } else if n < self.offer / 2 && offered == self.offer {
            self.less += 1;
            if self.less < SHRINK_AFTER && n >= self.offer / 8 {
                return;
            }
            self.offer = (self.offer / 2).max(OFFER_LEAST);
        }
        self.less = 0;
    }

    /// Whether the buffer stays until the user has asked for more: what is in hand is about to be
    /// taken, and would be moved for nothing. One reader of each thread may, so that those who are
    /// not asked do not all hold a large one. Something whole is in hand.
    #[inline]
    fn keeps(&mut self) -> bool {
        if self.more || !spare::is_large(self.buf.len()) {
            return false;
        }
        if !self.kept {
            self.kept = spare::keep();
        }
        self.kept
    }

    /// Gives back what is not needed until the source has something again.
    fn settle(&mut self) {
        if std::mem::take(&mut self.kept) {
            spare::end_keep();
        }
        debug_assert!(self.start <= self.end && self.end <= self.buf.len());
        debug_assert!(self.end <= self.touched && self.touched <= self.buf.len());
        let have = self.end - self.start;
        if have == 0 {
            spare::give(&mut self.buf, self.touched, self.owner);
            (self.start, self.end, self.touched) = (0, 0, 0);
        } else if self.more {
            // It is about to be used again.
        } else if have <= CHUNK / 4 {
            if self.buf.len() > 4 * have.max(64) {
                self.move_to(spare::take_small(have), 0);
            }
        } else if self.buf.len() > (have + CHUNK).max(2 * have) {
            self.buf.copy_within(self.start..self.end, 0);
            self.buf.truncate(2 * have);
            self.buf.shrink_to_fit();
            (self.start, self.end, self.touched) = (0, have, self.touched.min(2 * have));
        }
    }

    /// Moves what is in hand to a buffer that has room for it, and is zero behind `touched`.
    fn move_to(&mut self, buf: Vec<u8>, touched: usize) {
        let have = self.end - self.start;
        let mut old = std::mem::replace(&mut self.buf, buf);
        self.buf[..have].copy_from_slice(&old[self.start..self.end]);
        spare::give(&mut old, self.touched, self.owner);
        (self.start, self.end, self.touched) = (0, have, touched.max(have));
    }

    /// Takes the first `n` bytes in hand, to be shared and kept as long as wanted.
    pub(super) fn take(&mut self, n: usize) -> bytes::Bytes {
        if n <= self.buf.len() / 4 {
            let taken = bytes::Bytes::copy_from_slice(&self.bytes()[..n]);
            self.start += n;
            return taken;
        }
        let rest = &self.buf[self.start + n..self.end];
        let have = rest.len();
        let mut new = if have == 0 { Vec::new() } else { spare::take_small(have) };
        new[..have].copy_from_slice(rest);
        let mut old = std::mem::replace(&mut self.buf, new);
        old.truncate(self.start + n);
        let taken = bytes::Bytes::from(old).slice(self.start..);
        (self.start, self.end, self.touched) = (0, have, have);
        taken
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.start = self.end;
        self.settle();
    }
}

/// Sizes and states: what peers send may be secret.
impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("in_hand", &(self.end - self.start))
            .field("buffer", &self.buf.len())
            .field("budget", &self.budget)
            .field("has_more", &self.has_more())
            .field("ended", &self.ended)
            .field("overclaimed", &self.overclaimed)
            .field("failed", &self.failed)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of a known length, without headers.
    struct Fixed(usize);

    impl Cut for Fixed {
        fn front(&mut self, bytes: &[u8], ended: bool) -> Front {
            match bytes.len() {
                0 if ended => Front::Never(FrameError::Closed),
                have if have < self.0 => Front::Part { within: self.0 },
                _ => Front::Whole,
            }
        }
    }

    /// Gives what is asked for, up to so many bytes.
    struct Give(usize);

    impl Read for Give {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let n = room.len().min(self.0);
            room[..n].fill(7);
            self.0 -= n;
            if n == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(n) }
        }
    }

    #[test]
    fn the_buffer_grows_with_what_came_and_to_the_end_of_a_message_exactly() {
        let mut inbox = Inbox::new();
        let mut source = Give(usize::MAX);
        let length = 1_000_000;
        while inbox.bytes().len() < length {
            inbox.read(&mut Fixed(length), &mut source, Drained::WouldBlock).unwrap();
            let have = inbox.bytes().len();
            assert!(inbox.buf.len() <= (have + CHUNK).max(2 * have));
        }
        assert_eq!((inbox.bytes().len(), inbox.buf.len()), (length, length));
    }

    #[test]
    fn a_part_moves_to_a_place_of_its_size_when_the_source_is_drained() {
        for (part, most) in [(1, 64), (100, 400), (10_000, 40_000), (30_000, 30_000 + CHUNK)] {
            let mut inbox = Inbox::new();
            inbox.read(&mut Fixed(50_000), &mut Give(part), Drained::WouldBlock).unwrap();
            assert_eq!(inbox.bytes(), vec![7; part]);
            assert!(inbox.buf.len() <= most, "{} for {part}", inbox.buf.len());
        }
    }

    #[test]
    fn a_large_buffer_shrinks_to_a_part_when_the_source_is_drained() {
        let mut inbox = Inbox::new();
        let mut source = Give(1_000_000 + 150_000);
        while inbox.bytes().len() < 1_000_000 {
            inbox.read(&mut Fixed(1_000_000), &mut source, Drained::WouldBlock).unwrap();
        }
        *inbox.bytes_and_taken().1 += 1_000_000;
        while inbox.has_more() {
            inbox.read(&mut Fixed(1_000_000), &mut source, Drained::WouldBlock).unwrap();
        }
        assert_eq!(inbox.bytes(), vec![7; 150_000]);
        assert!(inbox.buf.capacity() <= 300_000);
    }

    #[test]
    fn a_long_message_is_read_to_its_end_and_no_further() {
        let mut inbox = Inbox::new();
        let mut source = Give(usize::MAX);
        for _ in 0..3 {
            while inbox.bytes().len() < 200_000 {
                inbox.read(&mut Fixed(200_000), &mut source, Drained::WouldBlock).unwrap();
            }
            assert_eq!((inbox.start, inbox.end), (0, 200_000));
            *inbox.bytes_and_taken().1 += 200_000;
            inbox.buf.resize(300_000, 0); // room for more than one
        }
    }

    #[test]
    fn nothing_is_held_when_nothing_is_in_hand() {
        let mut inbox = Inbox::new();
        inbox.read(&mut Fixed(10), &mut Give(20), Drained::WouldBlock).unwrap();
        *inbox.bytes_and_taken().1 += 20;
        assert_eq!(inbox.read(&mut Fixed(10), &mut Give(0), Drained::WouldBlock).unwrap(), 0);
        assert_eq!((inbox.buf.capacity(), inbox.touched), (0, 0));
    }

    fn received(inbox: &mut Inbox, source: &mut Give, drained: Drained) -> usize {
        inbox.read(&mut Fixed(10), source, drained).unwrap();
        inbox.buf.len()
    }

    #[test]
    fn one_reader_of_a_thread_keeps_what_is_about_to_be_taken_where_it_came() {
        let mut readers = [Inbox::new(), Inbox::new(), Inbox::new()];
        for drained in [Drained::WouldBlock, Drained::Short] {
            let lens = readers.each_mut().map(|inbox| received(inbox, &mut Give(10), drained));
            assert_eq!(lens, [CHUNK, 64, 64]);
            // All of them give it back, and another one may.
            for inbox in &mut readers {
                assert!(!inbox.has_more_or_rest());
                assert_eq!((inbox.buf.len(), inbox.bytes()), (64, [7; 10].as_slice()));
                *inbox.bytes_and_taken().1 += 10;
                assert!(!inbox.has_more_or_rest());
                assert_eq!(inbox.buf.len(), 0);
            }
        }
    }

    #[test]
    fn nobody_keeps_a_part_or_waits_for_one_that_is_gone() {
        let (mut one, mut other) = (Inbox::new(), Inbox::new());
        assert_eq!(received(&mut one, &mut Give(9), Drained::Short), 64);
        assert_eq!(received(&mut other, &mut Give(10), Drained::Short), CHUNK);
        drop(other);
        assert_eq!(received(&mut one, &mut Give(1), Drained::Short), CHUNK);
        // Who reads again, and has nothing whole any more, gives it back.
        *one.bytes_and_taken().1 += 10;
        assert_eq!(received(&mut one, &mut Give(9), Drained::Short), 64);
        other = Inbox::new();
        assert_eq!(received(&mut other, &mut Give(10), Drained::Short), CHUNK);
    }

    #[test]
    fn who_has_more_leaves_it_to_another_to_keep_a_buffer() {
        let (mut one, mut other) = (Inbox::new(), Inbox::new());
        one.set_budget(20);
        assert_eq!(received(&mut one, &mut Give(30), Drained::Short), CHUNK);
        assert!(one.has_more_or_rest());
        assert_eq!(received(&mut other, &mut Give(10), Drained::Short), CHUNK);
    }

    #[test]
    fn what_is_too_long_to_be_given_back_is_not_kept_for_being_taken() {
        let (mut one, mut other) = (Inbox::new(), Inbox::new());
        one.set_budget(usize::MAX);
        one.read(&mut Fixed(2 << 20), &mut Give(2 << 20), Drained::WouldBlock).unwrap();
        assert_eq!((one.bytes().len(), one.kept), (2 << 20, false));
        assert_eq!(received(&mut other, &mut Give(10), Drained::WouldBlock), CHUNK);
    }

    #[test]
    fn a_source_is_offered_in_proportion_to_what_it_gave() {
        let mut inbox = Inbox::new();
        for _ in 0..10 {
            inbox.read(&mut Fixed(10), &mut Give(10), Drained::WouldBlock).unwrap();
            *inbox.bytes_and_taken().1 += 10;
        }
        assert_eq!(inbox.offer, OFFER_LEAST);
        inbox.read(&mut Fixed(10), &mut Give(usize::MAX), Drained::WouldBlock).unwrap();
        assert_eq!(inbox.offer, CHUNK);
    }

    #[test]
    fn readers_may_change_threads() {
        fn check<T: Send + Sync>() {}
        check::<Inbox>();
    }

    /// So many bytes of buffer, of which these are in hand.
    fn holding(len: usize, hand: std::ops::Range<usize>) -> Inbox {
        let mut inbox = Inbox::new();
        inbox.buf = vec![0; len];
        (inbox.start, inbox.end, inbox.touched) = (hand.start, hand.end, hand.end);
        inbox.set_budget(usize::MAX);
        inbox
    }

    /// What a message of unknown length begins with.
    const WHOLE: (bool, usize) = (true, usize::MAX);

    #[test]
    fn room_is_what_budget_offer_and_buffer_allow() {
        let cases = [
            // offer, budget, whole, came before, and the room
            (1000, 5000, WHOLE, 10, 1000),
            (1000, 500, WHOLE, 10, 399),  // 101 in hand count
            (1000, 500, WHOLE, 300, 200), // or more, if more came
            (1000, 100, WHOLE, 0, 0),
            (1000, 100, (false, 200), 0, 100), // not while no message is whole
            (1000, 100, (false, 200), 99, 1),
            (1000, 100, (false, 200), 100, 0),
            (1000, 100, (false, 200), 101, 0),
            (usize::MAX, usize::MAX, WHOLE, 0, 3 * CHUNK - 200),
            // What is long is read to its end, what is not as far as there is room.
            (usize::MAX, usize::MAX, (false, CHUNK + 1), 0, CHUNK + 1 - 101),
            (usize::MAX, usize::MAX, (false, CHUNK), 0, 3 * CHUNK - 200),
            (usize::MAX, usize::MAX, (false, 4 * CHUNK), 0, 3 * CHUNK - 200),
        ];
        for (offer, budget, (whole, within), got, room) in cases {
            let mut inbox = holding(3 * CHUNK, 99..200);
            (inbox.offer, inbox.budget) = (offer, budget);
            assert_eq!(inbox.make_room(whole, within, got), room, "{offer} {budget} {whole} {got}");
            assert_eq!((inbox.start, inbox.end, inbox.buf.len()), (99, 200, 3 * CHUNK));
        }
    }

    #[test]
    fn bytes_move_only_for_room_and_only_where_few_do() {
        const PART: (bool, usize) = (false, usize::MAX);
        let cases = [
            // buffer, in hand, offer, what is in front; then the buffer, in hand and the room
            (CHUNK, 700..700, 10, WHOLE, CHUNK, 0..0, 10),
            (0, 0..0, 10, WHOLE, CHUNK, 0..0, 10),
            // A small buffer is left for a large one, unless more would move than may come.
            (64, 10..20, 10, PART, CHUNK, 0..10, 10),
            (64, 10..20, 10, WHOLE, CHUNK, 0..10, 10),
            (64, 10..20, 9, WHOLE, 64, 10..20, 9),
            (64, 10..20, 9, PART, 64, 10..20, 9),
            (CHUNK - 1, 10..20, 10, PART, CHUNK, 0..10, 10),
            (CHUNK, 10..20, 10, PART, CHUNK, 10..20, 10),
            // Without enough room for what is offered, half of a buffer moves to its front.
            (CHUNK, 20..CHUNK - 5, 5, WHOLE, CHUNK, 20..CHUNK - 5, 5),
            (CHUNK, CHUNK - 15..CHUNK - 5, 5, WHOLE, CHUNK, CHUNK - 15..CHUNK - 5, 5),
            (CHUNK, CHUNK - 15..CHUNK - 5, 6, WHOLE, CHUNK, 0..10, 6),
            (CHUNK, CHUNK / 2..CHUNK, 6, WHOLE, CHUNK, 0..CHUNK / 2, 6),
            (CHUNK, CHUNK / 2 - 1..CHUNK, 6, WHOLE, CHUNK, CHUNK / 2 - 1..CHUNK, 0),
            (CHUNK, CHUNK / 2 - 3..CHUNK - 3, 6, WHOLE, CHUNK, CHUNK / 2 - 3..CHUNK - 3, 3),
            // Where a message cannot end without room, all of it moves,
            (CHUNK, CHUNK / 2 - 1..CHUNK, 6, PART, CHUNK, 0..CHUNK / 2 + 1, 6),
            (CHUNK, CHUNK / 2 - 3..CHUNK - 3, 6, PART, CHUNK, CHUNK / 2 - 3..CHUNK - 3, 3),
            (CHUNK, 1..CHUNK, 6, PART, CHUNK, 0..CHUNK - 1, 1),
            (CHUNK, 1..CHUNK, 6, WHOLE, CHUNK, 1..CHUNK, 0),
            // or the buffer grows: by a chunk, to twice its length, or to the end of the message.
            (100, 0..100, 6, PART, 100 + CHUNK, 0..100, 6),
            (2 * CHUNK, 0..2 * CHUNK, 6, PART, 4 * CHUNK, 0..2 * CHUNK, 6),
            (2 * CHUNK, 0..2 * CHUNK, 6, (false, 2 * CHUNK + 4), 2 * CHUNK + 4, 0..2 * CHUNK, 4),
            (2 * CHUNK, 0..2 * CHUNK, 6, WHOLE, 2 * CHUNK, 0..2 * CHUNK, 0),
        ];
        for (len, hand, offer, (whole, within), new_len, new_hand, room) in cases {
            let case = format!("{len} {hand:?} {offer} {whole}");
            let mut inbox = holding(len, hand.clone());
            inbox.offer = offer;
            for (at, byte) in inbox.buf[hand].iter_mut().enumerate() {
                *byte = at.to_le_bytes()[0];
            }
            let bytes = inbox.bytes().to_vec();
            assert_eq!(inbox.make_room(whole, within, 0), room, "{case}");
            assert_eq!((inbox.buf.len(), inbox.start..inbox.end), (new_len, new_hand), "{case}");
            assert_eq!(inbox.bytes(), bytes, "{case}");
        }
    }

    #[test]
    fn an_offer_follows_what_came() {
        let most = 2 * CHUNK;
        let cases = [
            // offer, of which was offered, and came; then the offer
            (8000, 8000, 8000, 4 * 8000),
            (CHUNK, CHUNK, CHUNK, most),
            (most, most, most, most),
            (8000, 8000, 7999, 8000),
            (8000, 8000, 1000, 8000),
            (8000, 8000, 999, 4000),
            (8000, 7999, 999, 8000), // there was no room for more
            (1000, 1000, 1, 512),
            (512, 512, 1, 512),
        ];
        for (offer, offered, came, next) in cases {
            let mut inbox = Inbox::new();
            (inbox.offer, inbox.budget) = (offer, most);
            inbox.learn(came, offered);
            assert_eq!(inbox.offer, next, "{offer} {offered} {came}");
        }
        for (came, last) in [(3999, 4000), (4000, 8000)] {
            let mut inbox = Inbox::new();
            inbox.offer = 8000;
            for _ in 1..SHRINK_AFTER {
                inbox.learn(1000, 8000);
                assert_eq!(inbox.offer, 8000);
            }
            inbox.learn(came, 8000);
            assert_eq!((inbox.offer, inbox.less), (last, 0));
        }
        let mut inbox = Inbox::new();
        (inbox.offer, inbox.budget) = (CHUNK, 10);
        inbox.learn(CHUNK, CHUNK);
        assert_eq!(inbox.offer, CHUNK);
    }

    #[test]
    fn what_is_kept_until_more_comes_has_about_its_size() {
        let cases = [
            // buffer, in hand; then the buffer and where that is
            (CHUNK, 500..500, 0, 0..0),
            (CHUNK, 500..501, 64, 0..1),
            (256, 5..6, 256, 5..6),
            (257, 5..6, 64, 0..1),
            (4000, 5..1005, 4000, 5..1005),
            (4001, 5..1005, 1024, 0..1000),
            (80_000, 7..7 + CHUNK / 4, 32 * 1024, 0..CHUNK / 4),
            // What is more is moved within its buffer, if that is far too long.
            (80_000, 7..8 + CHUNK / 4, 80_000, 7..8 + CHUNK / 4),
            (CHUNK + 20_000, 7..20_007, CHUNK + 20_000, 7..20_007),
            (CHUNK + 20_001, 7..20_007, 40_000, 0..20_000),
            (4 * CHUNK, 7..7 + 2 * CHUNK, 4 * CHUNK, 7..7 + 2 * CHUNK),
            (4 * CHUNK + 1, 7..7 + 2 * CHUNK, 4 * CHUNK, 0..2 * CHUNK),
        ];
        for (len, hand, new_len, new_hand) in cases {
            let mut inbox = holding(len, hand.clone());
            inbox.more = true;
            inbox.settle();
            if !hand.is_empty() {
                assert_eq!((inbox.buf.len(), inbox.start..inbox.end), (len, hand.clone()));
            }
            inbox = holding(len, hand.clone());
            inbox.touched = len;
            inbox.settle();
            let now = (inbox.buf.len(), inbox.start..inbox.end);
            assert_eq!(now, (new_len, new_hand.clone()), "{len} {hand:?}");
            // All of the buffer had been written to; of a new one, what was moved.
            let moved = new_len <= 32 * 1024 && new_len != len;
            assert_eq!(inbox.touched, if moved { new_hand.end } else { new_len });
        }
    }

    #[test]
    fn a_reader_gets_its_own_buffer_back_as_it_was() {
        let (mut one, mut other) = (Inbox::new(), Inbox::new());
        for inbox in [&mut one, &mut other] {
            inbox.read(&mut Fixed(20), &mut Give(20), Drained::WouldBlock).unwrap();
            *inbox.bytes_and_taken().1 += 20;
            assert!(!inbox.has_more_or_rest());
            assert_eq!((inbox.buf.len(), inbox.touched), (0, 0));
        }
        other.make_room(false, 20, 0);
        assert_eq!((other.touched, other.buf[19]), (OFFER_FIRST, 7));
        drop(other);
        one.make_room(false, 20, 0);
        assert_eq!((one.touched, one.buf[19]), (0, 0), "another's");
    }

    #[test]
    fn what_is_taken_is_copied_where_its_buffer_would_be_kept_for_little() {
        let mut inbox = holding(CHUNK, 10..CHUNK / 2);
        assert_eq!(inbox.take(CHUNK / 4).len(), CHUNK / 4);
        assert_eq!((inbox.start, inbox.buf.len()), (10 + CHUNK / 4, CHUNK));

        let mut inbox = holding(CHUNK, 10..CHUNK / 2);
        inbox.buf[10 + CHUNK / 4 + 1] = 7;
        assert_eq!(inbox.take(CHUNK / 4 + 1).len(), CHUNK / 4 + 1);
        assert_eq!((inbox.start, inbox.bytes()[0], inbox.bytes().len()), (0, 7, CHUNK / 4 - 11));

        let mut inbox = holding(CHUNK, 10..CHUNK / 2);
        assert_eq!(inbox.take(CHUNK / 2 - 10).len(), CHUNK / 2 - 10);
        assert_eq!(inbox.buf.capacity(), 0);
    }
}
