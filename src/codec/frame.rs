//! Frames: a length of four bytes, the most significant first, then so many bytes of message.

use super::{
    inbox::{Cut, Drained, FrameError, Front, Inbox},
    outbox::{Flushed, Outbox},
};
use bytes::{Buf, Bytes};
use std::{
    error, fmt,
    io::{self, ErrorKind, Read, Write},
    iter::FusedIterator,
};

/// The wire format, for both sides.
const HEADER: usize = 4;

#[inline]
const fn encode(length: u32) -> [u8; HEADER] {
    length.to_be_bytes()
}

/// The same for a length that is known to fit.
#[inline]
const fn encode_short(length: usize) -> [u8; HEADER] {
    debug_assert!(length < LONG);
    let [.., a, b, c, d] = length.to_be_bytes();
    [a, b, c, d]
}

#[inline]
const fn decode(header: [u8; HEADER]) -> u32 {
    u32::from_be_bytes(header)
}

/// The longest message that the address space could hold together with its header.
const LONGEST: u32 = if usize::BITS > 32 { u32::MAX } else { i32::MAX as u32 - 4 };

/// A frame of this length or more is sent from where it is; copying a shorter one costs less than
/// one more piece in a write.
const LONG: usize = 16 * 1024;

/// What a writer queues, unless its user says otherwise.
const QUEUE_LIMIT: usize = 16 * 1024 * 1024;

/// Reads messages that are each preceded by their length, over any [`Read`] that does not block.
///
/// On the wire, a frame is four bytes that say how long the message is, the most significant first,
/// and then the message. An empty message is a message. What comes out depends only on the bytes,
/// not on how they were split, delayed or interrupted.
///
/// The reader does not hold the socket: it is lent at each call. Lending another one than before
/// mixes two streams, which cannot be noticed here.
///
/// # Reading under edge triggering
///
/// One call of [`read`](FrameReader::read) brings at most 64 KiB or so, in order that one peer
/// cannot keep the thread for itself. So call it again until it has nothing more:
///
/// ```
/// # use amy::FrameReader;
/// # use std::io::{self, Read};
/// # fn serve(reader: &mut FrameReader, sock: &mut impl Read) -> io::Result<()> {
/// loop {
///     reader.read(sock)?;
///     for msg in reader.iter_mut() {
///         println!("{} bytes", msg.len());
///     }
///     if !reader.has_more() {
///         return Ok(()); // drained: the next notification tells of more
///     }
/// }
/// # }
/// ```
///
/// `while reader.read(&mut sock)? > 0 { .. }` around the `for` does the same, at the price of one
/// more attempt to read. To be fair to other connections, read once per turn, and if
/// [`has_more`](FrameReader::has_more), remember the id and come back after the others had theirs;
/// [`Registrar::reregister`](crate::Registrar::reregister) can do the remembering, since it reports
/// again what is ready.
///
/// # Memory
///
/// A reader holds no buffer until the first byte, and none once everything was taken and
/// [`has_more`](FrameReader::has_more) or `read` had nothing more. In between it holds a few times
/// what the last `read` left; and while the source has more, up to 64 KiB, or as much again, beyond
/// what was received, whatever the headers claim. Each thread keeps one
/// buffer to read into, of 1 MiB at most, for all its readers, and lets one of them have another
/// until that one's `has_more` or `read` is called: so who takes messages at once does not pay for
/// moving them.
///
/// # Examples
///
/// ```
/// use amy::{FrameReader, FrameWriter};
/// use std::{io, net::{TcpListener, TcpStream}, str};
///
/// # fn main() -> io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut sock = TcpStream::connect(listener.local_addr()?)?;
/// let mut peer = listener.accept()?.0;
///
/// let mut writer = FrameWriter::new();
/// writer.write(&mut peer, b"one".to_vec())?;
/// writer.write(&mut peer, b"two".to_vec())?;
/// drop(peer);
///
/// let mut reader = FrameReader::new(1024 * 1024);
/// let mut received = Vec::new();
/// let end = loop {
///     if let Err(error) = reader.read(&mut sock) {
///         break error;
///     }
///     for msg in reader.iter_mut() {
///         received.push(str::from_utf8(&msg).unwrap().to_string());
///     }
/// };
/// assert_eq!(received, ["one", "two"]);
/// assert_eq!(end.kind(), io::ErrorKind::BrokenPipe);
/// # Ok(())
/// # }
/// ```
pub struct FrameReader {
    inbox: Inbox,
    cut: FrameCut,
}

impl FrameReader {
    /// A reader that refuses messages of more than `max_frame_size` bytes; the length in front does
    /// not count.
    #[must_use]
    pub const fn new(max_frame_size: u32) -> FrameReader {
        let limit = if max_frame_size < LONGEST { max_frame_size } else { LONGEST };
        FrameReader { inbox: Inbox::new(), cut: FrameCut { limit } }
    }

    /// The same, with so many bytes, at least 1, as the most that one `read` brings. It may
    /// bring less.
    ///
    /// # Examples
    ///
    /// ```
    /// use amy::FrameReader;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut source = [0; 4 * 100].as_slice(); // a hundred empty frames
    /// let mut reader = FrameReader::new(1024).with_read_budget(40);
    ///
    /// reader.read(&mut source)?;
    /// assert!(reader.iter_mut().count() <= 10);
    /// assert!(reader.has_more()); // come back after the others had their turn
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_read_budget(mut self, bytes: usize) -> FrameReader {
        self.inbox.set_budget(bytes);
        self
    }

    /// Reads until the source has nothing more or the budget is spent, and returns how many bytes
    /// came.
    ///
    /// `Ok(0)` means that nothing came: either the source has nothing now, or there are messages in
    /// hand that have to be taken first. [`has_more`](FrameReader::has_more) tells which.
    ///
    /// Complete messages come before any error. What follows them is remembered, and the first
    /// `read` after they were taken tells it without asking the source. If there are none, this
    /// `read` tells it, also if bytes came.
    ///
    /// An interrupted source is asked again, though not for ever. A source that blocks is asked
    /// again, too, after a whole message came; with one, use
    /// [`read_until_short`](FrameReader::read_until_short).
    ///
    /// # Errors
    ///
    /// For good, the same at each later call, and with a [`FrameError`] inside:
    /// * `BrokenPipe`: the stream ended, and not inside a frame.
    /// * `UnexpectedEof`: the stream ended inside a frame.
    /// * `InvalidData`: a message is longer than the limit; or the source is broken, and claims to
    ///   have read more than was asked for.
    ///
    /// And any error of the source itself but `WouldBlock` and `Interrupted`, as it is and once.
    /// What was received stays, and the next call asks the source again.
    pub fn read<S: Read + ?Sized>(&mut self, source: &mut S) -> io::Result<usize> {
        self.inbox.read(&mut self.cut, source, Drained::WouldBlock)
    }

    /// As [`read`](FrameReader::read), but a source that gives less than it was asked for is taken
    /// to be drained: mostly one system call instead of two.
    ///
    /// This is right for stream sockets, and only as long as the peer has not closed: an end that
    /// came together with the last bytes is not reported a second time under edge triggering. So
    /// ask the notification:
    ///
    /// ```
    /// # use amy::{FrameReader, Notification};
    /// # fn serve(
    /// #     n: Notification,
    /// #     reader: &mut FrameReader,
    /// #     sock: &mut std::net::TcpStream,
    /// # ) -> std::io::Result<()> {
    /// if n.is_read_closed() {
    ///     reader.read(sock)?;
    /// } else {
    ///     reader.read_until_short(sock)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As `read`.
    pub fn read_until_short<S: Read + ?Sized>(&mut self, source: &mut S) -> io::Result<usize> {
        self.inbox.read(&mut self.cut, source, Drained::Short)
    }

    /// The complete messages in hand. Each is given once, and is removed by that; those that are
    /// not taken stay.
    ///
    /// Nothing is copied: a message borrows the reader. To keep messages, or to send them to
    /// another thread, use [`take_frames`](FrameReader::take_frames).
    #[inline]
    pub fn iter_mut(&mut self) -> FrameIter<'_> {
        let limit = self.cut.limit;
        let (bytes, taken) = self.inbox.bytes_and_taken();
        FrameIter { bytes, at: *taken, taken, limit }
    }

    /// Takes the complete messages in hand as owned ones that share one buffer.
    ///
    /// They are taken at once, whether they are iterated over or not. Any of them keeps the bytes
    /// of all of them in memory, at most four times those: copy those that are to be kept long.
    ///
    /// # Examples
    ///
    /// ```
    /// use amy::FrameReader;
    /// use std::thread;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut reader = FrameReader::new(1024);
    /// reader.read(&mut b"\0\0\0\x02hi\0\0\0\0".as_slice())?;
    ///
    /// let frames = reader.take_frames();
    /// let worker = thread::spawn(move || frames.map(|msg| msg.len()).collect::<Vec<_>>());
    /// assert_eq!(worker.join().unwrap(), [2, 0]);
    /// assert!(reader.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_frames(&mut self) -> OwnedFrames {
        let (rest, limit) = (self.inbox.bytes(), self.cut.limit);
        let mut complete = 0;
        FrameIter { bytes: rest, at: 0, taken: &mut complete, limit }.for_each(drop);
        OwnedFrames { rest: self.inbox.take(complete) }
    }

    /// Whether another `read` may bring something without a further notification: bytes, or the
    /// news of an end or an error. If not, the last `read` drained the source, and the reader gives
    /// up what it no longer needs: without anything in hand it holds no buffer then.
    #[must_use]
    pub fn has_more(&mut self) -> bool {
        self.inbox.has_more_or_rest() || (self.refuses_next() && !self.inbox.is_told())
    }

    /// Whether no messages will come after those in hand; the next `read` says why.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.inbox.is_finished() || self.refuses_next()
    }

    /// Whether nothing is in hand, neither a complete message nor a part of one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inbox.is_empty()
    }

    fn refuses_next(&self) -> bool {
        matches!(self.cut.look(self.inbox.bytes(), false), Front::Never(_))
    }
}

impl<'a> IntoIterator for &'a mut FrameReader {
    type Item = &'a [u8];
    type IntoIter = FrameIter<'a>;

    fn into_iter(self) -> FrameIter<'a> {
        self.iter_mut()
    }
}

/// Sizes and states: what peers send may be secret.
impl fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReader")
            .field("max_frame_size", &self.cut.limit)
            .field("inbox", &self.inbox)
            .finish()
    }
}

struct FrameCut {
    limit: u32,
}

impl FrameCut {
    #[inline]
    fn look(&self, bytes: &[u8], ended: bool) -> Front {
        let expected = match bytes.first_chunk() {
            Some(header) => {
                let length = decode(*header);
                if length > self.limit {
                    return Front::Never(FrameError::TooLong { length, limit: self.limit });
                }
                HEADER + length as usize
            }
            None => HEADER,
        };
        let received = bytes.len();
        if received >= expected {
            Front::Whole
        } else if !ended {
            Front::Part { within: expected }
        } else if received == 0 {
            Front::Never(FrameError::Closed)
        } else {
            Front::Never(FrameError::Truncated { received, expected })
        }
    }
}

impl Cut for FrameCut {
    #[inline]
    fn front(&mut self, bytes: &[u8], ended: bool) -> Front {
        self.look(bytes, ended)
    }
}

/// The complete messages in the hand of a [`FrameReader`], each given once.
///
/// Made by [`FrameReader::iter_mut`].
pub struct FrameIter<'a> {
    /// What is in hand, and before it what was taken.
    bytes: &'a [u8],
    /// Where the next frame begins. An index, since where a frame ends is then both what is checked
    /// and where the next one begins: each has to wait for the one before it.
    at: usize,
    /// The same for the reader, so that what is not given stays. Only written.
    taken: &'a mut usize,
    limit: u32,
}

impl<'a> Iterator for FrameIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let length = decode(*self.bytes.get(self.at..)?.first_chunk()?);
        let begin = self.at + HEADER;
        let end = begin.checked_add(length as usize)?;
        let frame = self.bytes.get(begin..end)?;
        if length > self.limit {
            return None;
        }
        self.at = end;
        *self.taken = end;
        Some(frame)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some((self.bytes.len() - self.at) / HEADER))
    }
}

impl FusedIterator for FrameIter<'_> {}

/// Sizes: what peers send may be secret.
impl fmt::Debug for FrameIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameIter")
            .field("in_hand", &(self.bytes.len() - self.at))
            .finish_non_exhaustive()
    }
}

/// Messages that share one buffer and belong to no reader any more.
///
/// Made by [`FrameReader::take_frames`]. Can be sent to another thread as a whole.
#[derive(Clone)]
pub struct OwnedFrames {
    /// Complete frames within the limit, and nothing else.
    rest: Bytes,
}

impl Iterator for OwnedFrames {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let length = decode(*self.rest.first_chunk()?) as usize;
        self.rest.advance(HEADER);
        Some(self.rest.split_to(length))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(!self.rest.is_empty()), Some(self.rest.len() / HEADER))
    }
}

impl FusedIterator for OwnedFrames {}

/// Sizes: what peers send may be secret.
impl fmt::Debug for OwnedFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedFrames").field("bytes", &self.rest.len()).finish()
    }
}

/// Queues messages, each preceded by its length, and writes them over any [`Write`] that does not
/// block.
///
/// The wire format is that of [`FrameReader`]. Many short messages leave in one write; long ones
/// are not copied. The writer does not hold the socket: it is lent at each call.
///
/// # Memory
///
/// The queue has a limit, 16 MiB unless [told otherwise](FrameWriter::with_queue_limit), which also
/// bounds the work of one [`flush`](FrameWriter::flush). A message that does not fit is refused and
/// comes back. A writer whose queue is empty holds no buffer.
///
/// # After an error
///
/// What the sink took is always a beginning of what was queued; after an error it cannot be known
/// how much of that the peer will see, and nothing is sent a second time. So the writer is broken
/// from then on, and says the same at each call. [`sent_bytes`](FrameWriter::sent_bytes) and
/// [`queued_bytes`](FrameWriter::queued_bytes) say how far it came.
///
/// # Examples
///
/// ```
/// use amy::FrameWriter;
///
/// # fn main() -> std::io::Result<()> {
/// let mut sock = Vec::new(); // a `Write` that takes everything
/// let mut writer = FrameWriter::new();
///
/// writer.push("queued").unwrap();
/// writer.write(&mut sock, b"written".to_vec())?; // the queued one goes first
///
/// assert!(writer.is_empty());
/// assert_eq!(sock, b"\0\0\0\x06queued\0\0\0\x07written");
/// # Ok(())
/// # }
/// ```
pub struct FrameWriter {
    outbox: Outbox,
    frame_limit: u32,
    /// Messages that are shorter may be queued, and are copied then. 0 once broken.
    short: usize,
    writable: bool,
    sent: u64,
    broken: Option<Box<Broken>>,
}

impl Default for FrameWriter {
    fn default() -> FrameWriter {
        FrameWriter::new()
    }
}

impl FrameWriter {
    /// A writer for a sink that is believed to be writable, as a new socket is.
    #[must_use]
    pub const fn new() -> FrameWriter {
        FrameWriter {
            outbox: Outbox::new(QUEUE_LIMIT),
            frame_limit: u32::MAX,
            short: LONG,
            writable: true,
            sent: 0,
            broken: None,
        }
    }

    /// The same, but messages of more than `bytes` are refused; without this, only those whose
    /// length does not fit into four bytes.
    #[must_use]
    pub fn with_max_frame_size(mut self, bytes: u32) -> FrameWriter {
        self.frame_limit = bytes;
        self.with_limits()
    }

    /// The same, with so many bytes, at least 4, as the most that may wait, each message's length
    /// of four bytes included.
    #[must_use]
    pub fn with_queue_limit(mut self, bytes: usize) -> FrameWriter {
        self.outbox.set_limit(bytes.max(HEADER));
        self.with_limits()
    }

    fn with_limits(mut self) -> FrameWriter {
        self.update_short();
        self
    }

    /// To be called when a limit has changed, or the writer is broken.
    fn update_short(&mut self) {
        self.short = if self.broken.is_some() { 0 } else { LONG.min(self.longest() + 1) };
    }

    /// The longest message that an empty queue has room for.
    fn longest(&self) -> usize {
        (self.outbox.limit() - HEADER).min(self.frame_limit as usize)
    }

    /// Queues a message without writing anything.
    ///
    /// A long `Vec` is kept as it is; a short message is copied, and so is one that is borrowed.
    ///
    /// # Errors
    ///
    /// Gives the message back, with the reason, if it is too long, if the queue is full, or if the
    /// writer is broken. Nothing of it was queued, and what was queued before stays.
    ///
    /// # Examples
    ///
    /// ```
    /// use amy::{FrameWriter, Refusal};
    ///
    /// let mut writer = FrameWriter::new().with_queue_limit(16);
    /// writer.push("0123456789").unwrap();
    ///
    /// let refused = writer.push("9876543210").unwrap_err();
    /// assert_eq!(refused.reason(), Refusal::Full { length: 10, queued: 14, limit: 16 });
    /// assert_eq!(refused.into_frame(), "9876543210");
    /// ```
    ///
    /// # Panics
    ///
    /// If the message has another length as a slice than as a `Vec`.
    #[inline]
    pub fn push<F: AsRef<[u8]> + Into<Vec<u8>>>(&mut self, frame: F) -> Result<(), Refused<F>> {
        let bytes = frame.as_ref();
        if bytes.len() < self.short && self.outbox.copy(encode_short(bytes.len()), bytes) {
            Ok(())
        } else {
            self.push_long(frame)
        }
    }

    /// Queues what is not copied, and finds the reason for what is refused.
    fn push_long<F: AsRef<[u8]> + Into<Vec<u8>>>(&mut self, frame: F) -> Result<(), Refused<F>> {
        let length = match self.admit(frame.as_ref().len()) {
            Ok(length) => length,
            Err(reason) => return Err(Refused { frame, reason }),
        };
        let bytes = frame.into();
        assert_eq!(bytes.len(), length as usize, "a frame has one length");
        self.outbox.keep(encode(length), bytes);
        Ok(())
    }

    /// The length for the header of a message that may be queued.
    fn admit(&self, length: usize) -> Result<u32, Refusal> {
        if self.broken.is_some() {
            return Err(Refusal::Broken);
        }
        // What would not even fit into an empty queue would never be accepted: not `Full`.
        let limit = self.longest();
        match u32::try_from(length) {
            Ok(header) if length <= limit => {
                if !self.outbox.has_room(HEADER + length) {
                    let (queued, limit) = (self.outbox.len(), self.outbox.limit());
                    return Err(Refusal::Full { length, queued, limit });
                }
                Ok(header)
            }
            _ => Err(Refusal::TooLong { length, limit }),
        }
    }

    /// Writes until nothing is left or the sink would block; true means that nothing is left.
    ///
    /// Does not ask whether the sink is [believed to be writable](FrameWriter::is_writable). After
    /// false, wait for the notification that the socket is writable, and call again; but if
    /// `is_writable` is still true the sink only was interrupted over and over, and no
    /// notification will come.
    ///
    /// # Errors
    ///
    /// Any error of the sink itself but `WouldBlock` and `Interrupted`, as it is; `WriteZero` if it
    /// takes nothing; `InvalidData` if it claims to have written more than there was. From then on
    /// the writer is broken, and each call returns an error of the same kind, code and text.
    ///
    /// # Examples
    ///
    /// ```
    /// use amy::FrameWriter;
    /// use std::{io::Read, os::unix::net::UnixStream};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (mut sock, mut peer) = UnixStream::pair()?;
    /// sock.set_nonblocking(true)?;
    /// let mut writer = FrameWriter::new();
    /// writer.push(vec![7; 4 << 20]).unwrap();
    ///
    /// assert!(!writer.flush(&mut sock)?); // more than the socket takes at once
    /// assert!(!writer.is_writable() && writer.queued_bytes() > 0);
    /// peer.read_exact(&mut [0; 1000])?; // now a poller would say `Write`
    /// # let mut all = vec![0; (4 << 20) + 4 - 1000];
    /// # let reader = std::thread::spawn(move || peer.read_exact(&mut all));
    /// while !writer.flush(&mut sock)? {}
    /// assert_eq!(writer.sent_bytes(), (4 << 20) + 4);
    /// # reader.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn flush<S: Write + ?Sized>(&mut self, sink: &mut S) -> io::Result<bool> {
        if let Some(broken) = &self.broken {
            return Err(broken.again());
        }
        match self.outbox.flush(sink, &mut self.sent) {
            Ok(flushed) => {
                self.writable = flushed != Flushed::WouldBlock;
                Ok(flushed == Flushed::All)
            }
            Err(error) => {
                self.broken = Some(Box::new(Broken::from(&error)));
                self.update_short();
                Err(error)
            }
        }
    }

    /// Queues `data`, if any, and writes; true means that nothing is left.
    ///
    /// `None` is for when the socket became writable, and always tries. With data, nothing is tried
    /// if the socket is believed not to be [writable](FrameWriter::is_writable): the data only
    /// joins the queue.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the message is too long, `QuotaExceeded` if the queue is full: nothing of
    /// it was queued, nothing was written, and the writer goes on unharmed. The message comes back
    /// through [`io::Error::downcast`] as a [`Refused<Vec<u8>>`](Refused).
    ///
    /// Else as [`flush`](FrameWriter::flush). The data of that call is then part of what was
    /// queued, unless the writer was broken before.
    ///
    /// # Examples
    ///
    /// ```
    /// use amy::{FrameWriter, Refused};
    /// use std::io::ErrorKind;
    ///
    /// let mut writer = FrameWriter::new().with_max_frame_size(4);
    /// let error = writer.write(&mut Vec::new(), b"too long".to_vec()).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidInput);
    ///
    /// let refused = error.downcast::<Refused<Vec<u8>>>().unwrap();
    /// assert_eq!(refused.into_frame(), b"too long");
    /// ```
    pub fn write<S: Write + ?Sized>(
        &mut self,
        sink: &mut S,
        data: impl Into<Option<Vec<u8>>>,
    ) -> io::Result<bool> {
        if let Some(broken) = &self.broken {
            return Err(broken.again());
        }
        if let Some(data) = data.into() {
            self.push(data).map_err(|refused| io::Error::new(refused.reason.kind(), refused))?;
            if !self.writable {
                return Ok(false);
            }
        }
        self.flush(sink)
    }

    /// Says that the socket became writable, which [`write`](FrameWriter::write) then believes.
    /// Writes nothing by itself.
    pub fn writable(&mut self) {
        self.writable = true;
    }

    /// Whether the sink is believed to take more: it has not said `WouldBlock` since it was new or
    /// [became writable](FrameWriter::writable).
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable && self.broken.is_none()
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outbox.len() == 0
    }

    /// How many bytes wait to be written, each message's length of four bytes included.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.outbox.len()
    }

    /// How many bytes sinks took since the writer was made. Together with
    /// [`queued_bytes`](FrameWriter::queued_bytes) this is all that ever was queued.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent
    }
}

/// Sizes and states: what is sent may be secret.
impl fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameWriter")
            .field("queued", &self.outbox)
            .field("queue_limit", &self.outbox.limit())
            .field("max_frame_size", &self.frame_limit)
            .field("writable", &self.is_writable())
            .field("sent_bytes", &self.sent)
            .field("broken", &self.broken)
            .finish()
    }
}

/// What broke a writer, kept to be said again.
#[derive(Debug)]
struct Broken {
    kind: ErrorKind,
    code: Option<i32>,
    text: String,
}

impl From<&io::Error> for Broken {
    fn from(error: &io::Error) -> Broken {
        Broken { kind: error.kind(), code: error.raw_os_error(), text: error.to_string() }
    }
}

impl Broken {
    fn again(&self) -> io::Error {
        match self.code {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.kind, self.text.clone()),
        }
    }
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It would not be accepted by an empty queue either.
    TooLong {
        /// The length of the message.
        length: usize,
        /// The longest that the writer accepts.
        limit: usize,
    },
    /// There is no room until more was written.
    Full {
        /// The length of the message.
        length: usize,
        /// How many bytes wait.
        queued: usize,
        /// How many may wait.
        limit: usize,
    },
    /// An earlier write failed, and nothing will be sent any more.
    Broken,
}

impl Refusal {
    /// `InvalidInput` if the message is too long, `QuotaExceeded` if the queue is full,
    /// `BrokenPipe` if the writer is broken.
    const fn kind(self) -> ErrorKind {
        match self {
            Refusal::TooLong { .. } => ErrorKind::InvalidInput,
            Refusal::Full { .. } => ErrorKind::QuotaExceeded,
            Refusal::Broken => ErrorKind::BrokenPipe,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::TooLong { length, limit } => {
                write!(f, "frame of {length} bytes is over the limit of {limit}")
            }
            Refusal::Full { length, queued, limit } => {
                write!(f, "frame of {length} bytes does not fit: {queued} of {limit} are queued")
            }
            Refusal::Broken => f.write_str("an earlier write failed"),
        }
    }
}

impl error::Error for Refusal {}

/// A message that was not queued, and why.
///
/// Returned by [`FrameWriter::push`], and found in the [`io::Error`] that [`FrameWriter::write`]
/// returns. The `?` operator makes an [`io::Error`] of it that keeps the [`Refusal`] alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Refused<F> {
    frame: F,
    reason: Refusal,
}

impl<F> Refused<F> {
    /// The message, as it was handed in.
    pub fn into_frame(self) -> F {
        self.frame
    }

    /// Why it was not queued.
    pub fn reason(&self) -> Refusal {
        self.reason
    }
}

impl<F> fmt::Display for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

/// The reason: what is sent may be secret.
impl<F> fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<F> error::Error for Refused<F> {}

/// Leaves the message behind, which may be borrowed, and keeps the reason.
impl<F> From<Refused<F>> for io::Error {
    fn from(refused: Refused<F>) -> io::Error {
        io::Error::new(refused.reason.kind(), refused.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_address_space_limits_a_frame_to_less_than_its_header_can_say() {
        let longest = u64::from(LONGEST);
        assert!(longest == u64::from(u32::MAX) || usize::BITS == 32);
        assert!(longest + HEADER as u64 <= isize::MAX as u64);
    }

    #[test]
    fn a_length_that_does_not_fit_into_its_header_is_refused() {
        let writer = FrameWriter::new().with_queue_limit(usize::MAX);
        let limit = (usize::MAX - HEADER).min(u32::MAX as usize);
        assert_eq!(writer.admit(limit), Ok(u32::try_from(limit).unwrap()));
        // Of these a 32-bit system has only the last.
        let lengths = [1 << 32, (1 << 32) + 5, u64::MAX].map(usize::try_from);
        for length in lengths.into_iter().flatten().chain([usize::MAX]) {
            assert_eq!(writer.admit(length), Err(Refusal::TooLong { length, limit }));
        }
    }

    /// Takes everything, and notes how long the pieces of each write were.
    #[derive(Default)]
    struct Pieces(Vec<Vec<usize>>);

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[io::IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
            self.0.push(pieces.iter().map(|piece| piece.len()).collect());
            Ok(pieces.iter().map(|piece| piece.len()).sum())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_message_is_copied_unless_it_is_long() {
        let writers: [fn() -> FrameWriter; 4] = [
            FrameWriter::new,
            || FrameWriter::new().with_queue_limit(1 << 20),
            || FrameWriter::new().with_max_frame_size(20_000),
            // Long ones are not refused by a limit that they just meet.
            || FrameWriter::new().with_max_frame_size(16_384).with_queue_limit(16_388),
        ];
        for writer in writers {
            for (length, pieces) in
                [(0, vec![4]), (16_383, vec![16_387]), (16_384, vec![4, 16_384])]
            {
                let (mut writer, mut sink) = (writer(), Pieces::default());
                writer.push(vec![7; length]).unwrap();
                assert!(writer.flush(&mut sink).unwrap());
                assert_eq!(sink.0, [pieces]);
            }
        }
    }

    #[test]
    fn a_short_message_is_copied_also_if_it_just_fits() {
        let (mut writer, mut sink) = (FrameWriter::new().with_queue_limit(20), Pieces::default());
        for _ in 0..2 {
            writer.push(vec![7; 6]).unwrap();
        }
        assert!(writer.flush(&mut sink).unwrap());
        writer.push(vec![7; 16]).unwrap();
        assert!(writer.flush(&mut sink).unwrap());
        assert_eq!(sink.0, [[20], [20]]);
    }

    #[test]
    fn a_limit_that_is_lowered_counts_what_is_queued_before() {
        let mut writer = FrameWriter::new();
        writer.push("0123456789").unwrap();
        let mut writer = writer.with_queue_limit(12);
        for length in [0, 8] {
            let refused = writer.push(vec![7; length]).unwrap_err();
            assert_eq!(refused.reason(), Refusal::Full { length, queued: 14, limit: 12 });
        }
        let refused = writer.push(vec![7; 9]).unwrap_err();
        assert_eq!(refused.reason(), Refusal::TooLong { length: 9, limit: 8 });
        let mut sink = Pieces::default();
        assert!(writer.flush(&mut sink).unwrap());
        writer.push(vec![7; 8]).unwrap();
        assert!(writer.flush(&mut sink).unwrap());
        assert_eq!(sink.0, [[14], [12]]);
    }

    #[test]
    fn a_broken_writer_stays_broken_with_other_limits() {
        let mut writer = FrameWriter::new();
        writer.push("lost").unwrap();
        assert!(writer.flush(&mut [0; 3].as_mut_slice()).is_err());
        let mut writer = writer.with_queue_limit(1 << 20).with_max_frame_size(100);
        for frame in ["", "a frame"] {
            assert_eq!(writer.push(frame).unwrap_err().reason(), Refusal::Broken);
        }
    }

    #[test]
    fn a_header_is_the_length_with_the_most_significant_byte_first() {
        assert_eq!(encode(0x0102_0304), [1, 2, 3, 4]);
        assert_eq!(decode([1, 2, 3, 4]), 0x0102_0304);
    }

    #[test]
    fn readers_and_writers_may_change_threads() {
        fn check<T: Send + Sync>() {}
        check::<FrameReader>();
        check::<FrameWriter>();
        check::<OwnedFrames>();
        check::<Refused<Vec<u8>>>();
    }
}
