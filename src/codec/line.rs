//! Lines: bytes up to `\n` or `\r\n`, neither of which is part of the line.

use super::inbox::{Cut, Drained, FrameError, Front, Inbox};
use memchr::memchr;
use std::{
    error, fmt,
    io::{self, ErrorKind, Read},
    iter::FusedIterator,
    str::{self, Utf8Error},
};

/// Reads lines, over any [`Read`] that does not block.
///
/// A line ends with `\n`; a `\r` right before it belongs to the end, not to the line. A `\r`
/// anywhere else, and any other byte, is part of a line. The last line of a stream needs no end,
/// and then nothing is cut off from it; if it is empty, it is no line. What comes out depends only
/// on the bytes, not on how they were split, delayed or interrupted.
///
/// A line longer than the limit becomes one error among the lines, as soon as it is known to be too
/// long. Nothing of it is kept, what follows up to its end is dropped as it comes in, and the lines
/// behind it are read as ever.
///
/// When to read, and what memory that takes, is as for a [`FrameReader`](crate::FrameReader).
///
/// # Examples
///
/// ```
/// use amy::LineReader;
///
/// # fn main() -> std::io::Result<()> {
/// let mut reader = LineReader::new(80);
/// reader.read(&mut b"GET /\r\nHost: a\n\nno end".as_slice())?;
///
/// let lines: Vec<&str> = reader.iter_mut().collect::<Result<_, _>>()?;
/// assert_eq!(lines, ["GET /", "Host: a", "", "no end"]); // the stream has ended
/// # Ok(())
/// # }
/// ```
pub struct LineReader {
    inbox: Inbox,
    cut: LineCut,
}

impl LineReader {
    /// A reader for lines of at most `max_line_size` bytes, their ends not counted.
    #[must_use]
    pub const fn new(max_line_size: usize) -> LineReader {
        let cut = LineCut { limit: max_line_size, searched: 0, newline: None, skipping: false };
        LineReader { inbox: Inbox::new(), cut }
    }

    /// The same, with so many bytes, at least 1, as the most that one `read` brings. It may
    /// bring less.
    #[must_use]
    pub fn with_read_budget(mut self, bytes: usize) -> LineReader {
        self.inbox.set_budget(bytes);
        self
    }

    /// Reads until the source has nothing more or the budget is spent, and returns how many bytes
    /// came.
    ///
    /// `Ok(0)` means that nothing came: either the source has nothing now, or there are lines in
    /// hand that have to be taken first. [`has_more`](LineReader::has_more) tells which.
    ///
    /// Lines come before any error: what follows them is remembered, and the first `read` after
    /// they were taken tells it without asking the source. At the end of the stream, a last line
    /// without an end is a line.
    ///
    /// An interrupted source is asked again, though not for ever.
    ///
    /// # Errors
    ///
    /// For good, the same at each later call, and with a [`FrameError`] inside:
    /// * `BrokenPipe`: the stream ended.
    /// * `InvalidData`: the source is broken, and claims to have read more than was asked for.
    ///
    /// And any error of the source itself but `WouldBlock` and `Interrupted`, as it is and once.
    /// What was received stays, and the next call asks the source again.
    pub fn read<S: Read + ?Sized>(&mut self, source: &mut S) -> io::Result<usize> {
        self.inbox.read(&mut self.cut, source, Drained::WouldBlock)
    }

    /// As [`read`](LineReader::read), but a source that gives less than it was asked for is taken
    /// to be drained. When that is right is told at
    /// [`FrameReader::read_until_short`](crate::FrameReader::read_until_short).
    ///
    /// # Errors
    ///
    /// As `read`.
    pub fn read_until_short<S: Read + ?Sized>(&mut self, source: &mut S) -> io::Result<usize> {
        self.inbox.read(&mut self.cut, source, Drained::Short)
    }

    /// The complete lines in hand, as text. Each is given once, and is removed by that; those that
    /// are not taken stay.
    ///
    /// Nothing is copied, but for a line that is not UTF-8: its error carries it.
    #[inline]
    pub fn iter_mut(&mut self) -> LineIter<'_> {
        LineIter { lines: self.iter_bytes_mut() }
    }

    /// The complete lines in hand, as bytes. Each is given once, and is removed by that; those that
    /// are not taken stay.
    ///
    /// # Examples
    ///
    /// ```
    /// use amy::{LineError, LineReader};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut reader = LineReader::new(4);
    /// reader.read(&mut b"\xff\ntoo long\nlast\n".as_slice())?;
    ///
    /// let mut lines = reader.iter_bytes_mut();
    /// assert_eq!(lines.next(), Some(Ok(b"\xff".as_slice())));
    /// assert_eq!(lines.next(), Some(Err(LineError::TooLong { limit: 4 })));
    /// assert_eq!(lines.next(), Some(Ok(b"last".as_slice())));
    /// assert_eq!(lines.next(), None);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn iter_bytes_mut(&mut self) -> LineBytesIter<'_> {
        let ended = self.inbox.is_ended();
        let (bytes, taken) = self.inbox.bytes_and_taken();
        LineBytesIter { rest: &bytes[*taken..], taken, cut: &mut self.cut, ended }
    }

    /// Whether another `read` may bring something without a further notification: bytes, or the
    /// news of an end or an error. If not, the last `read` drained the source, and the reader gives
    /// up what it no longer needs: without anything in hand it holds no buffer then.
    #[must_use]
    pub fn has_more(&mut self) -> bool {
        self.inbox.has_more_or_rest()
    }

    /// Whether no lines will come after those in hand; the next `read` says why.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.inbox.is_finished()
    }

    /// Whether nothing is in hand, neither a complete line nor a part of one. What is dropped of a
    /// line that is too long is not in hand.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inbox.is_empty()
    }
}

impl<'a> IntoIterator for &'a mut LineReader {
    type Item = Result<&'a str, LineError>;
    type IntoIter = LineIter<'a>;

    fn into_iter(self) -> LineIter<'a> {
        self.iter_mut()
    }
}

/// Sizes and states: what peers send may be secret.
impl fmt::Debug for LineReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineReader")
            .field("max_line_size", &self.cut.limit)
            .field("inside_too_long_line", &self.cut.skipping)
            .field("inbox", &self.inbox)
            .finish()
    }
}

/// Why a [`LineReader`] gives an error in the place of a line.
///
/// Becomes an [`io::Error`] of the kind `InvalidData` under `?`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineError {
    /// The line is longer than the limit, and was dropped.
    TooLong {
        /// What the reader accepts.
        limit: usize,
    },
    /// The line is not UTF-8.
    NotUtf8 {
        /// The line, without its end.
        line: Vec<u8>,
        /// Where it is not.
        error: Utf8Error,
    },
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineError::TooLong { limit } => write!(f, "line is over the limit of {limit} bytes"),
            LineError::NotUtf8 { line, error } => {
                write!(f, "line of {} bytes is not text: {error}", line.len())
            }
        }
    }
}

/// Sizes: what peers send may be secret.
impl fmt::Debug for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LineError({self})")
    }
}

impl error::Error for LineError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            LineError::TooLong { .. } => None,
            LineError::NotUtf8 { error, .. } => Some(error),
        }
    }
}

impl From<LineError> for io::Error {
    fn from(error: LineError) -> io::Error {
        io::Error::new(ErrorKind::InvalidData, error)
    }
}

struct LineCut {
    limit: usize,
    /// So many of the bytes in hand are known to hold no newline.
    searched: usize,
    /// Where the first newline in hand is, if it was found already.
    newline: Option<usize>,
    /// Up to the next newline everything belongs to a line that is too long, and was told.
    skipping: bool,
}

impl LineCut {
    /// Where the first newline is. No byte is looked at twice.
    #[inline]
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.newline.is_none() {
            self.newline = memchr(b'\n', &bytes[self.searched..]).map(|at| self.searched + at);
            self.searched = bytes.len();
        }
        self.newline
    }

    /// Forgets what is known of the bytes in hand, as they are about to be removed.
    #[inline]
    fn forget(&mut self) {
        self.searched = 0;
        self.newline = None;
    }

    /// Whether bytes without a newline are too long for a line, whatever follows.
    fn overflows(&self, bytes: &[u8], ended: bool) -> bool {
        let may_shrink = !ended && bytes.last() == Some(&b'\r');
        bytes.len() - usize::from(may_shrink) > self.limit
    }
}

impl Cut for LineCut {
    fn front(&mut self, bytes: &[u8], ended: bool) -> Front {
        if bytes.is_empty() {
            return if ended { Front::Never(FrameError::Closed) } else { self.part() };
        }
        if self.skipping {
            let end = memchr(b'\n', bytes);
            self.skipping = end.is_none();
            return Front::Skip(end.map_or(bytes.len(), |at| at + 1));
        }
        if self.find(bytes).is_some() || ended || self.overflows(bytes, ended) {
            return Front::Whole;
        }
        self.part()
    }
}

impl LineCut {
    fn part(&self) -> Front {
        Front::Part { within: self.limit.saturating_add(2) }
    }
}

/// The complete lines in the hand of a [`LineReader`] as text, each given once.
///
/// Made by [`LineReader::iter_mut`].
pub struct LineIter<'a> {
    lines: LineBytesIter<'a>,
}

impl<'a> Iterator for LineIter<'a> {
    type Item = Result<&'a str, LineError>;

    #[inline]
    fn next(&mut self) -> Option<Result<&'a str, LineError>> {
        Some(self.lines.next()?.and_then(|line| {
            str::from_utf8(line).map_err(|error| LineError::NotUtf8 { line: line.to_vec(), error })
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lines.size_hint()
    }
}

impl FusedIterator for LineIter<'_> {}

/// Sizes: what peers send may be secret.
impl fmt::Debug for LineIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineIter").field("in_hand", &self.lines.rest.len()).finish_non_exhaustive()
    }
}

/// The complete lines in the hand of a [`LineReader`] as bytes, each given once.
///
/// Made by [`LineReader::iter_bytes_mut`].
pub struct LineBytesIter<'a> {
    rest: &'a [u8],
    /// Counts on as lines are given, so that those not given stay.
    taken: &'a mut usize,
    cut: &'a mut LineCut,
    ended: bool,
}

impl<'a> LineBytesIter<'a> {
    #[inline]
    fn remove(&mut self, n: usize) {
        self.cut.forget();
        self.rest = &self.rest[n..];
        *self.taken += n;
    }

    /// What there is without a newline: mostly nothing that could be given.
    #[cold]
    fn unterminated(&mut self) -> Option<Result<&'a [u8], LineError>> {
        let line = self.rest;
        if self.cut.overflows(line, self.ended) {
            self.remove(line.len());
            self.cut.skipping = true;
            return Some(Err(LineError::TooLong { limit: self.cut.limit }));
        }
        if self.ended && !line.is_empty() {
            self.remove(line.len());
            return Some(Ok(line));
        }
        None
    }
}

impl<'a> Iterator for LineBytesIter<'a> {
    type Item = Result<&'a [u8], LineError>;

    #[inline]
    fn next(&mut self) -> Option<Result<&'a [u8], LineError>> {
        debug_assert!(!self.cut.skipping || self.rest.is_empty());
        let Some(end) = self.cut.find(self.rest) else { return self.unterminated() };
        let line = &self.rest[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.remove(end + 1);
        if line.len() > self.cut.limit {
            return Some(Err(LineError::TooLong { limit: self.cut.limit }));
        }
        Some(Ok(line))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.rest.len()))
    }
}

impl FusedIterator for LineBytesIter<'_> {}

/// Sizes: what peers send may be secret.
impl fmt::Debug for LineBytesIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineBytesIter").field("in_hand", &self.rest.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_is_searched_twice() {
        let mut cut = LineCut { limit: 80, searched: 0, newline: None, skipping: false };
        let bytes = b"abc\ndef";
        for end in 1..4 {
            assert_eq!(cut.find(&bytes[..end]), None);
            assert_eq!(cut.searched, end);
        }
        // Were the beginning searched again, its newline would be found.
        assert_eq!(cut.find(b"\n\n\n\n"), Some(3));
        assert_eq!(cut.find(bytes), Some(3));
    }

    #[test]
    fn a_line_is_whole_when_it_ends_the_stream_ends_or_it_is_too_long() {
        for (bytes, ended, front) in [
            ("", false, "part"),
            ("", true, "never"),
            ("abc", false, "part"),
            ("abc", true, "whole"),
            ("ab\n", false, "whole"),
            ("ab\n", true, "whole"),
            ("abcd", false, "whole"),
            ("abcd", true, "whole"),
        ] {
            let mut cut = LineCut { limit: 3, searched: 0, newline: None, skipping: false };
            let is = match cut.front(bytes.as_bytes(), ended) {
                Front::Whole => "whole",
                Front::Part { within: 5 } => "part",
                Front::Never(FrameError::Closed) => "never",
                _ => "another",
            };
            assert_eq!(is, front, "{bytes:?} {ended}");
        }
    }

    #[test]
    fn a_line_overflows_when_no_end_could_make_it_fit() {
        let cut = LineCut { limit: 3, searched: 0, newline: None, skipping: false };
        for (bytes, more, ended) in [
            ("", false, false),
            ("abc", false, false),
            ("abc\r", false, true),
            ("abcd", true, true),
            ("ab\r", false, false),
            ("abcd\r", true, true),
        ] {
            assert_eq!(cut.overflows(bytes.as_bytes(), false), more, "{bytes:?}");
            assert_eq!(cut.overflows(bytes.as_bytes(), true), ended, "{bytes:?} at the end");
        }
    }
}
