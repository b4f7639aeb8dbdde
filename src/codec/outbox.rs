//! What a writer has queued and no sink has taken yet, and the loop that empties it.
//!
//! Short frames are copied behind each other, headers included, so that many leave in one write. A
//! long frame stays where it is; only its header is copied, and the place where it belongs is
//! noted. So no system call is spent on a header, and no copy on a long frame.

use super::{
    inbox::INTERRUPTIONS,
    spare::{self, CHUNK},
};
use std::{
    collections::VecDeque,
    fmt,
    io::{self, ErrorKind, IoSlice, Write},
};

/// How many pieces one write gathers.
const PIECES: usize = 32;

/// See the module.
pub(super) struct Outbox {
    /// Copies, and behind them what earlier ones left. It ends where the limit does, or before: so
    /// all that a short frame is compared with is the length of this.
    near: Vec<u8>,
    /// Where in `near` the copies end.
    end: usize,
    /// How much of `near` went out.
    sent: usize,
    /// Long pieces that wait, of which there is one at least.
    long: Option<Box<Long>>,
    /// The most that may wait.
    limit: usize,
}

/// The long pieces that wait. Apart, so that a writer without any is small.
#[derive(Default)]
struct Long {
    pieces: VecDeque<Piece>,
    /// How much of the first one went out; only when all of `near` before it did.
    sent: usize,
    /// What is left of all of them.
    left: usize,
}

/// A long piece, which goes out before `near[at]`.
struct Piece {
    at: usize,
    bytes: Vec<u8>,
}

impl Outbox {
    /// An empty one for at most `limit` bytes.
    pub(super) const fn new(limit: usize) -> Outbox {
        Outbox { near: Vec::new(), end: 0, sent: 0, long: None, limit }
    }

    /// The most that may wait.
    #[inline]
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.keep_limit();
    }

    /// How many bytes wait.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.end - self.sent + self.long_left()
    }

    #[inline]
    fn long_left(&self) -> usize {
        self.long.as_ref().map_or(0, |long| long.left)
    }

    /// Whether the limit leaves room for so many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        // The limit may have been lowered with more than that in the queue.
        bytes <= self.limit.saturating_sub(self.len())
    }

    /// Queues a copy of both if the limit leaves room, and says whether it does.
    #[inline]
    pub(super) fn copy(&mut self, header: [u8; 4], bytes: &[u8]) -> bool {
        let end = self.end + header.len() + bytes.len();
        if end > self.near.len() {
            return self.copy_slowly(header, bytes);
        }
        let (head, body) = self.near[self.end..end].split_at_mut(header.len());
        head.copy_from_slice(&header);
        body.copy_from_slice(bytes);
        self.end = end;
        true
    }

    #[inline(never)]
    fn copy_slowly(&mut self, header: [u8; 4], bytes: &[u8]) -> bool {
        let needed = header.len() + bytes.len();
        if !self.has_room(needed) {
            return false;
        }
        self.make_room(needed);
        self.copy(header, bytes)
    }

    /// Queues a copy of the header, and `bytes`, of which there is at least one, as they are. The
    /// limit leaves room for both.
    pub(super) fn keep(&mut self, header: [u8; 4], bytes: Vec<u8>) {
        debug_assert!(!bytes.is_empty());
        assert!(self.copy(header, &[]), "the limit leaves room");
        let long = self.long.get_or_insert_default();
        long.left += bytes.len();
        long.pieces.push_back(Piece { at: self.end, bytes });
        self.keep_limit();
    }

    /// Makes `near` longer by what is needed, for which the limit leaves room.
    fn make_room(&mut self, needed: usize) {
        if self.near.capacity() == 0 {
            spare::take_outgoing(&mut self.near);
        } else if self.sent >= self.end / 2 {
            // Moves no more than went out since the last time.
            self.forget_sent();
        }
        let end = self.end + needed;
        if self.near.len() < end {
            // Ahead of what is needed, so that this is done seldom; not far ahead, since zeros take
            // memory where mere capacity may not.
            self.near.resize(end + end.min(CHUNK), 0);
        }
        self.keep_limit();
    }

    /// To be called when `near` became longer, or the limit nearer.
    fn keep_limit(&mut self) {
        let left = self.limit.saturating_sub(self.long_left()).saturating_add(self.sent);
        self.near.truncate(left.max(self.end));
    }

    fn forget_sent(&mut self) {
        self.near.copy_within(self.sent..self.end, 0);
        self.end -= self.sent;
        for piece in self.long.iter_mut().flat_map(|long| &mut long.pieces) {
            piece.at -= self.sent;
        }
        self.sent = 0;
    }

    /// Writes until nothing is left or the sink would block, and says which. Adds what went out to
    /// `sent`.
    // Inlined, so that the result is not handed on through memory, which delayed each flush.
    #[inline(always)]
    pub(super) fn flush(
        &mut self,
        sink: &mut (impl Write + ?Sized),
        sent: &mut u64,
    ) -> io::Result<Flushed> {
        let mut interruptions = 0;
        while self.len() > 0 {
            match self.write_once(sink) {
                Ok(n) => {
                    *sent += n as u64;
                    interruptions = 0;
                    self.advance(n);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        self.shrink();
                        return Ok(Flushed::WouldBlock);
                    }
                    ErrorKind::Interrupted => {
                        interruptions += 1;
                        if interruptions == INTERRUPTIONS {
                            return Ok(Flushed::Interrupted);
                        }
                    }
                    _ => return Err(error),
                },
            }
        }
        self.let_go();
        Ok(Flushed::All)
    }

    /// Who has nothing that waits holds nothing.
    #[inline]
    fn let_go(&mut self) {
        spare::give_outgoing(&mut self.near);
        self.end = 0;
        self.sent = 0;
        debug_assert!(self.long.is_none());
    }

    /// One write of what is next; at least one byte is offered, and at least one went out.
    #[inline]
    fn write_once(&self, sink: &mut (impl Write + ?Sized)) -> io::Result<usize> {
        let (written, offered) = if self.long.is_none() {
            let bytes = &self.near[self.sent..self.end];
            (sink.write(bytes)?, bytes.len())
        } else {
            self.write_pieces(sink)?
        };
        if written == 0 || written > offered {
            return Err(Self::wrong(written, offered));
        }
        Ok(written)
    }

    /// The same where long pieces are next. Returns what was written, and offered.
    #[inline(never)]
    fn write_pieces(&self, sink: &mut (impl Write + ?Sized)) -> io::Result<(usize, usize)> {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let (count, offered) = self.gather(&mut pieces);
        Ok((sink.write_vectored(&pieces[..count])?, offered))
    }

    #[cold]
    fn wrong(written: usize, offered: usize) -> io::Error {
        if written == 0 {
            return io::Error::new(ErrorKind::WriteZero, "the sink takes no more bytes");
        }
        let text = format!("the sink claims to have written {written} of {offered} bytes");
        io::Error::new(ErrorKind::InvalidData, text)
    }

    /// Lists what is next, without empty pieces. Returns how many pieces, and their bytes.
    fn gather<'a>(&'a self, pieces: &mut [IoSlice<'a>; PIECES]) -> (usize, usize) {
        let (mut count, mut offered) = (0, 0);
        let mut add = |bytes: &'a [u8]| {
            if !bytes.is_empty() && count < PIECES {
                pieces[count] = IoSlice::new(bytes);
                count += 1;
                offered += bytes.len();
            }
        };
        let (mut from, mut skip) = (self.sent, self.long.as_ref().map_or(0, |long| long.sent));
        for piece in self.long.iter().flat_map(|long| &long.pieces).take(PIECES) {
            add(&self.near[from..piece.at]);
            add(&piece.bytes[skip..]);
            (from, skip) = (piece.at, 0);
        }
        // If there are more long pieces, there are enough pieces already.
        add(&self.near[from..self.end]);
        (count, offered)
    }

    /// Notes that the next `n` bytes went out.
    #[inline]
    fn advance(&mut self, n: usize) {
        let behind = if self.long.is_none() { n } else { self.advance_long(n) };
        self.sent += behind;
        debug_assert!(self.sent <= self.end);
    }

    /// The same up to the last long piece. Returns how many of the bytes are behind it.
    #[inline(never)]
    fn advance_long(&mut self, mut n: usize) -> usize {
        let Some(long) = &mut self.long else { return n };
        while let Some(piece) = long.pieces.front() {
            let near = n.min(piece.at - self.sent);
            self.sent += near;
            n -= near;
            let left = piece.bytes.len() - long.sent;
            if n < left {
                long.sent += n;
                long.left -= n;
                return 0;
            }
            n -= left;
            long.left -= left;
            long.sent = 0;
            long.pieces.pop_front();
        }
        self.long = None;
        n
    }

    /// While the sink would block, holds little more than what waits.
    fn shrink(&mut self) {
        let waiting = self.end - self.sent;
        if self.near.capacity() > 4 * waiting {
            self.forget_sent();
            let small = self.near[..self.end].to_vec();
            spare::give_outgoing(&mut std::mem::replace(&mut self.near, small));
        }
    }
}

/// How a flush ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing is left.
    All,
    /// The rest has to wait until the sink is writable.
    WouldBlock,
    /// The rest may be tried again at once.
    Interrupted,
}

/// Sizes: what is sent may be secret.
impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("bytes", &self.len())
            .field("long_frames", &self.long.as_ref().map_or(0, |long| long.pieces.len()))
            .field("buffer", &self.near.capacity())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gathered_is_what_is_next() {
        let mut outbox = Outbox::new(usize::MAX);
        let mut expected = Vec::new();
        for at in 0..3 * PIECES {
            let header = [u8::try_from(at).unwrap(); 4];
            expected.extend_from_slice(&header);
            match at % 3 {
                0 => assert!(outbox.copy(header, &[])),
                1 => outbox.keep(header, vec![8]),
                _ => outbox.keep(header, vec![7; 10]),
            }
            let behind: [&[u8]; 3] = [&[], &[8], &[7; 10]];
            expected.extend_from_slice(behind[at % 3]);
        }
        let mut gone = 0;
        while outbox.len() > 0 {
            assert_eq!(outbox.len(), expected.len() - gone);
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let (count, offered) = outbox.gather(&mut pieces);
            let bytes: Vec<u8> = pieces[..count].iter().flat_map(|piece| piece.to_vec()).collect();
            assert!(pieces[..count].iter().all(|piece| !piece.is_empty()));
            assert_eq!(offered, bytes.len());
            assert!(expected[gone..].starts_with(&bytes));
            let n = offered.min(3);
            gone += n;
            outbox.advance(n);
        }
        assert_eq!(gone, expected.len());
    }

    #[test]
    fn what_went_out_makes_room_for_what_comes() {
        let mut outbox = Outbox::new(usize::MAX);
        assert!(outbox.copy([0; 4], &[]));
        for _ in 0..100_000 {
            assert!(outbox.copy([1; 4], &[]));
            outbox.keep([2; 4], vec![3; 5]);
            outbox.advance(13);
        }
        assert_eq!((outbox.len(), outbox.long.as_ref().unwrap().pieces.len()), (4, 1));
        assert!(outbox.near.capacity() < 1000);
    }

    #[test]
    fn long_pieces_stay_where_they_belong_when_what_is_before_them_moves() {
        let mut outbox = Outbox::new(usize::MAX);
        assert!(outbox.copy([1; 4], &[1; 96]));
        outbox.keep([2; 4], vec![3; 50]);
        outbox.keep([4; 4], vec![5; 50]);
        outbox.advance(60);
        outbox.forget_sent();
        let mut sink = Vec::new();
        assert!(outbox.flush(&mut sink, &mut 0).unwrap() == Flushed::All);
        let left = [vec![1; 40], vec![2; 4], vec![3; 50], vec![4; 4], vec![5; 50]].concat();
        assert_eq!(sink, left);
    }

    /// With so much queued in a buffer that it fills, and so much of that sent.
    fn full(length: usize, sent: usize) -> Outbox {
        let mut outbox = Outbox::new(usize::MAX);
        outbox.near = vec![0; length];
        outbox.end = length;
        outbox.sent = sent;
        outbox
    }

    #[test]
    fn what_fits_moves_nothing() {
        let mut outbox = full(100, 60);
        outbox.end = 90;
        assert!(outbox.copy([1; 4], &[1; 6]));
        assert_eq!((outbox.sent, outbox.end, outbox.near.len()), (60, 100, 100));
        assert!(outbox.copy([1; 4], &[]));
        assert_eq!((outbox.sent, outbox.end, outbox.near.len()), (0, 44, 100));
    }

    #[test]
    fn no_more_moves_than_went_out() {
        for (sent, left) in [(50, 0), (49, 49)] {
            let mut outbox = full(100, sent);
            assert!(outbox.copy([1; 4], &[]));
            assert_eq!(outbox.sent, left);
        }
    }

    #[test]
    fn a_buffer_grows_ahead_of_what_is_needed_and_no_further_than_the_limit() {
        for (limit, length) in [(1000, 208), (208, 208), (207, 207), (104, 104)] {
            let mut outbox = full(100, 0);
            outbox.limit = limit;
            assert!(outbox.copy([1; 4], &[]));
            assert_eq!((outbox.end, outbox.near.len()), (104, length));
        }
        for (end, length) in [(CHUNK, 2 * CHUNK), (CHUNK + 1, 2 * CHUNK + 1)] {
            let mut outbox = full(end - 4, 0);
            assert!(outbox.copy([1; 4], &[]));
            assert_eq!((outbox.end, outbox.near.len()), (end, length));
        }
        let mut outbox = full(100, 0);
        outbox.limit = 103;
        assert!(!outbox.copy([1; 4], &[]));
        assert_eq!((outbox.end, outbox.near.len()), (100, 100));
        outbox.sent = 1;
        assert!(outbox.copy([1; 4], &[]));
        assert_eq!((outbox.end, outbox.near.len()), (104, 104));
    }

    #[test]
    fn what_is_kept_takes_room_from_what_is_copied() {
        let mut outbox = Outbox::new(100);
        outbox.near = vec![0; 100];
        outbox.keep([1; 4], vec![1; 50]);
        assert_eq!(outbox.near.len(), 50);
        assert!(!outbox.copy([1; 4], &[0; 43]));
        assert!(outbox.copy([1; 4], &[0; 42]));
        outbox.advance(100);
        assert!(outbox.copy([1; 4], &[0; 96]));
        assert_eq!(outbox.len(), 100);
    }

    #[test]
    fn a_lower_limit_leaves_what_is_queued() {
        let mut outbox = full(200, 0);
        outbox.end = 100;
        for (limit, length) in [(150, 150), (50, 100)] {
            outbox.set_limit(limit);
            assert_eq!((outbox.end, outbox.near.len()), (100, length));
        }
        assert!(!outbox.copy([1; 4], &[]));
        outbox.advance(54);
        assert!(outbox.copy([1; 4], &[]));
    }

    #[test]
    fn who_has_nothing_that_waits_holds_nothing() {
        let mut outbox = Outbox::new(usize::MAX);
        assert!(outbox.copy([0; 4], &[7; 50]));
        outbox.keep([1; 4], vec![8; 50]);
        let (mut sink, mut sent) = (Vec::new(), 0);
        assert!(outbox.flush(&mut sink, &mut sent).unwrap() == Flushed::All);
        assert_eq!((sink.len(), sent, outbox.len()), (108, 108, 0));
        assert_eq!((outbox.near.capacity(), outbox.long.is_none()), (0, true));
    }

    #[test]
    fn a_blocked_writer_leaves_a_buffer_of_four_times_what_waits() {
        for (waiting, sent) in [(25, 1), (24, 0)] {
            let mut outbox = full(100, 1);
            outbox.end = 1 + waiting;
            outbox.shrink();
            assert_eq!(outbox.sent, sent);
            assert_eq!(outbox.len(), waiting);
        }
    }
}
