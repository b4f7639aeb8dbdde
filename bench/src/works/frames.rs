//! Messages with their length in front, and lines: taken apart and put together in memory, and sent
//! through a socket pair.

use crate::harness::{Contender, Took, Turn, Work};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    os::unix::net::UnixStream,
};
use tokio_util::codec::{Decoder, Encoder, Framed, LengthDelimitedCodec, LinesCodec};

/// What one read of a source in memory brings at the most, and what a reader by hand asks for.
const CHUNK: usize = 64 * 1024;

pub fn works() -> Vec<Work> {
    let sizes =
        [(16, "16 B"), (256, "256 B"), (4096, "4 KiB"), (65_536, "64 KiB"), (1 << 20, "1 MiB")];
    let mut works = Vec::new();
    for (size, name) in sizes {
        let count = (512 * 1024 / size).clamp(2, 8192);
        let mut work = Work::new("decode", format!("decode-{size}"), name);
        work.unit = "frame";
        work.per_op = count as u64;
        work.rounds = 61;
        work.ops = 4;
        work.contenders = vec![
            Contender::new("raw", move || decode(RawReader::default(), size, count)),
            Contender::new("amy", move || decode(amy::FrameReader::new(1 << 24), size, count)),
            Contender::new("amy 0.10", move || {
                decode(amy010::FrameReader::new(1 << 24), size, count)
            }),
            Contender::new("tokio-util", move || decode(TokioReader::new(), size, count)),
        ];
        works.push(work);
    }
    for (size, name) in sizes {
        let count = (256 * 1024 / size).clamp(2, 4096);
        let mut work = Work::new("encode", format!("encode-{size}"), name);
        work.unit = "frame";
        work.per_op = count as u64;
        work.rounds = 61;
        work.ops = 8;
        work.contenders = vec![
            Contender::new("raw", move || encode(RawWriter::default(), size, count)),
            Contender::new("amy", move || encode(AmyWriter::new(), size, count)),
            Contender::new("amy 0.10", move || encode(Amy010Writer::new(), size, count)),
            Contender::new("tokio-util", move || encode(TokioWriter::new(), size, count)),
        ];
        works.push(work);
    }

    let mut work = Work::new("lines", "lines", "80 B, as checked `&str`");
    work.unit = "line";
    work.per_op = 4096;
    work.rounds = 61;
    work.ops = 4;
    work.contenders = vec![
        Contender::new("raw", || lines(RawLines::default())),
        Contender::new("amy", || lines(amy::LineReader::new(1024))),
        // With a smaller buffer it stops at the first line that a read cut in two.
        Contender::new("amy 0.10", || lines(amy010::LineReader::new(512 * 1024))),
        Contender::new("tokio-util", || lines(TokioLines::new())),
    ];
    works.push(work);

    for (size, name) in &sizes[..3] {
        let (size, count) = (*size, (48 * 1024 / (size + 4)).min(1024));
        let mut work = Work::new("socketpair", format!("socketpair-{size}"), *name);
        work.unit = "frame";
        work.per_op = count as u64;
        work.ops = 32;
        work.counted = (size == 256).then_some((4, 24));
        work.contenders = vec![
            Contender::new("raw", move || {
                socketpair(RawWriter::default(), RawReader::default(), size, count)
            }),
            Contender::new("amy", move || {
                socketpair(AmyWriter::new(), amy::FrameReader::new(1 << 24), size, count)
            }),
            Contender::new("amy 0.10", move || {
                socketpair(Amy010Writer::new(), amy010::FrameReader::new(1 << 24), size, count)
            }),
            Contender::new("tokio", move || tokio_socketpair(size, count)),
        ];
        works.push(work);
    }
    works
}

/// A source in memory that would block where a socket with nothing more to read would.
struct Source<'a>(&'a [u8]);

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(self.0.len()).min(CHUNK);
        let (taken, rest) = self.0.split_at(count);
        buffer[..count].copy_from_slice(taken);
        self.0 = rest;
        Ok(count)
    }
}

/// A sink that takes everything and only counts, so that the writers are all there is to measure.
#[derive(Default)]
struct Sink(u64);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += std::hint::black_box(bytes).len() as u64;
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let all = slices.iter().map(|slice| std::hint::black_box(slice).len()).sum();
        self.0 += all as u64;
        Ok(all)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is done with a message: enough that it must have been found, and no more. How many there
/// were, their bytes and the sum of their first ones are in one number: of two, the compiler makes a
/// vector that may be spilled within a contender's loop, and then it is the spill that is measured.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Tally(u64);

impl Tally {
    const BYTES: u32 = 24;
    const COUNT: u32 = 48;

    #[inline]
    fn add(&mut self, message: &[u8]) {
        let first = message.first().map_or(0, |&first| u64::from(first));
        self.0 += (1 << Tally::COUNT) + ((message.len() as u64) << Tally::BYTES) + first;
    }

    fn count(self) -> u64 {
        self.0 >> Tally::COUNT
    }

    fn of(messages: &[Vec<u8>]) -> Tally {
        let mut tally = Tally::default();
        messages.iter().for_each(|message| tally.add(message));
        tally
    }
}

/// Reads all that a source has.
trait ReadsFrames<S: Read>: 'static {
    fn drain(&mut self, source: &mut S, tally: &mut Tally);
}

fn messages(size: usize, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![number as u8; size]).collect()
}

fn on_the_wire(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    for message in messages {
        wire.extend_from_slice(&(message.len() as u32).to_be_bytes());
        wire.extend_from_slice(message);
    }
    wire
}

fn decode(mut reader: impl for<'a> ReadsFrames<Source<'a>>, size: usize, count: usize) -> Turn {
    let messages = messages(size, count);
    let (wire, expected) = (on_the_wire(&messages), Tally::of(&messages));
    Box::new(move |ops| {
        Took::of(|| {
            for _ in 0..ops {
                let mut tally = Tally::default();
                reader.drain(&mut Source(&wire), &mut tally);
                assert_eq!(tally, expected, "every frame comes once");
            }
        })
    })
}

/// One buffer, slices of it, and what is incomplete moved to the front.
#[derive(Default)]
struct RawReader {
    buffer: Vec<u8>,
    filled: usize,
}

impl<S: Read> ReadsFrames<S> for RawReader {
    fn drain(&mut self, source: &mut S, tally: &mut Tally) {
        loop {
            if self.buffer.len() < self.filled + CHUNK {
                self.buffer.resize(self.filled + CHUNK, 0);
            }
            match source.read(&mut self.buffer[self.filled..]) {
                Ok(count) => self.filled += count,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return;
                }
            }
            let mut rest = &self.buffer[..self.filled];
            while let Some((header, behind)) = rest.split_first_chunk() {
                let length = u32::from_be_bytes(*header) as usize;
                assert!(length <= 1 << 24, "within the limit");
                if length > behind.len() {
                    break;
                }
                tally.add(&behind[..length]);
                rest = &behind[length..];
            }
            let done = self.filled - rest.len();
            self.buffer.copy_within(done..self.filled, 0);
            self.filled -= done;
        }
    }
}

impl<S: Read> ReadsFrames<S> for amy::FrameReader {
    fn drain(&mut self, source: &mut S, tally: &mut Tally) {
        loop {
            self.read(source).expect("a read");
            for message in self.iter_mut() {
                tally.add(message);
            }
            if !self.has_more() {
                return;
            }
        }
    }
}

impl<S: Read> ReadsFrames<S> for amy010::FrameReader {
    fn drain(&mut self, source: &mut S, tally: &mut Tally) {
        self.read(source).expect("a read");
        for message in self.iter_mut() {
            tally.add(&message);
        }
    }
}

struct TokioReader {
    codec: LengthDelimitedCodec,
    buffer: BytesMut,
}

impl TokioReader {
    fn new() -> TokioReader {
        TokioReader { codec: codec(), buffer: BytesMut::new() }
    }
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(1 << 24).new_codec()
}

/// Reads as `FramedRead` does: into the spare room of its buffer, of at least 8 KiB.
fn fill(buffer: &mut BytesMut, source: &mut Source<'_>) -> bool {
    buffer.reserve(8 * 1024);
    let count = (buffer.capacity() - buffer.len()).min(source.0.len()).min(CHUNK);
    let (taken, rest) = source.0.split_at(count);
    buffer.extend_from_slice(taken);
    source.0 = rest;
    count > 0
}

impl ReadsFrames<Source<'_>> for TokioReader {
    fn drain(&mut self, source: &mut Source<'_>, tally: &mut Tally) {
        while fill(&mut self.buffer, source) {
            while let Some(message) = self.codec.decode(&mut self.buffer).expect("a frame") {
                tally.add(&message);
            }
        }
    }
}

/// Queues messages, and sends them off at the end of a batch.
trait WritesFrames: 'static {
    /// A message in the form in which it is handed over.
    type Message;

    fn message(bytes: Vec<u8>) -> Self::Message;
    fn queue(&mut self, message: &Self::Message, sink: &mut impl Write);
    fn flush(&mut self, sink: &mut impl Write);
}

/// How many messages are queued before they are sent.
fn batch(size: usize) -> usize {
    (16 * 1024 / size).clamp(1, 64)
}

fn encode<W: WritesFrames>(mut writer: W, size: usize, count: usize) -> Turn {
    let messages: Vec<_> = messages(size, count).into_iter().map(W::message).collect();
    Box::new(move |ops| {
        let mut sink = Sink::default();
        let took = Took::of(|| {
            for _ in 0..ops {
                for batch in messages.chunks(batch(size)) {
                    for message in batch {
                        writer.queue(message, &mut sink);
                    }
                    writer.flush(&mut sink);
                }
            }
        });
        assert_eq!(sink.0, ops * (count * (size + 4)) as u64, "every byte is written once");
        took
    })
}

/// Everything copied into one buffer, which is kept.
#[derive(Default)]
struct RawWriter(Vec<u8>);

impl WritesFrames for RawWriter {
    type Message = Vec<u8>;

    fn message(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    #[inline]
    fn queue(&mut self, message: &Vec<u8>, _: &mut impl Write) {
        self.0.extend_from_slice(&(message.len() as u32).to_be_bytes());
        self.0.extend_from_slice(message);
    }

    fn flush(&mut self, sink: &mut impl Write) {
        sink.write_all(&self.0).expect("a write");
        self.0.clear();
    }
}

struct AmyWriter(amy::FrameWriter);

impl AmyWriter {
    fn new() -> AmyWriter {
        AmyWriter(amy::FrameWriter::new())
    }
}

impl WritesFrames for AmyWriter {
    type Message = Vec<u8>;

    fn message(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    #[inline]
    fn queue(&mut self, message: &Vec<u8>, _: &mut impl Write) {
        assert!(self.0.push(message.as_slice()).is_ok(), "room in the queue");
    }

    fn flush(&mut self, sink: &mut impl Write) {
        assert!(self.0.flush(sink).expect("a write"), "nothing is left");
    }
}

struct Amy010Writer(amy010::FrameWriter);

impl Amy010Writer {
    fn new() -> Amy010Writer {
        Amy010Writer(amy010::FrameWriter::new())
    }
}

impl WritesFrames for Amy010Writer {
    type Message = Vec<u8>;

    fn message(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    fn queue(&mut self, message: &Vec<u8>, sink: &mut impl Write) {
        // It takes messages by value, and writes at once.
        self.0.write(sink, Some(message.clone())).expect("a write");
    }

    fn flush(&mut self, sink: &mut impl Write) {
        self.0.writable();
        self.0.write(sink, None).expect("a write");
    }
}

struct TokioWriter {
    codec: LengthDelimitedCodec,
    buffer: BytesMut,
}

impl TokioWriter {
    fn new() -> TokioWriter {
        TokioWriter { codec: codec(), buffer: BytesMut::new() }
    }
}

impl WritesFrames for TokioWriter {
    type Message = Bytes;

    fn message(bytes: Vec<u8>) -> Bytes {
        bytes.into()
    }

    #[inline]
    fn queue(&mut self, message: &Bytes, _: &mut impl Write) {
        self.codec.encode(message.clone(), &mut self.buffer).expect("within the limit");
    }

    fn flush(&mut self, sink: &mut impl Write) {
        sink.write_all(&self.buffer).expect("a write");
        self.buffer.clear();
    }
}

/// Reads all lines that a source has.
trait ReadsLines: 'static {
    fn drain(&mut self, source: &mut Source<'_>, tally: &mut Tally);
}

fn lines(mut reader: impl ReadsLines) -> Turn {
    let messages: Vec<Vec<u8>> =
        (0..4096).map(|number| vec![b'a' + (number % 26) as u8; 80]).collect();
    let expected = Tally::of(&messages);
    let wire: Vec<u8> =
        messages.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect();
    Box::new(move |ops| {
        Took::of(|| {
            for _ in 0..ops {
                let mut tally = Tally::default();
                reader.drain(&mut Source(&wire), &mut tally);
                assert_eq!(tally, expected, "every line comes once");
            }
        })
    })
}

/// One buffer; `memchr` finds the end of a line, and each line is checked.
#[derive(Default)]
struct RawLines {
    buffer: Vec<u8>,
    filled: usize,
}

impl ReadsLines for RawLines {
    fn drain(&mut self, source: &mut Source<'_>, tally: &mut Tally) {
        loop {
            if self.buffer.len() < self.filled + CHUNK {
                self.buffer.resize(self.filled + CHUNK, 0);
            }
            match source.read(&mut self.buffer[self.filled..]) {
                Ok(count) => self.filled += count,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return;
                }
            }
            let mut rest = &self.buffer[..self.filled];
            while let Some(end) = memchr::memchr(b'\n', rest) {
                let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
                tally.add(std::str::from_utf8(line).expect("text").as_bytes());
                rest = &rest[end + 1..];
            }
            let done = self.filled - rest.len();
            self.buffer.copy_within(done..self.filled, 0);
            self.filled -= done;
        }
    }
}

impl ReadsLines for amy::LineReader {
    fn drain(&mut self, source: &mut Source<'_>, tally: &mut Tally) {
        loop {
            self.read(source).expect("a read");
            for line in self.iter_mut() {
                tally.add(line.expect("text").as_bytes());
            }
            if !self.has_more() {
                return;
            }
        }
    }
}

impl ReadsLines for amy010::LineReader {
    fn drain(&mut self, source: &mut Source<'_>, tally: &mut Tally) {
        // What a read brings has to be taken before there is room for more; at the end of the
        // source it says that nothing came.
        while self.read(source).is_ok_and(|count| count > 0) {
            for line in self.iter_mut() {
                tally.add(line.expect("text").strip_suffix('\n').expect("an end").as_bytes());
            }
        }
    }
}

struct TokioLines {
    codec: LinesCodec,
    buffer: BytesMut,
}

impl TokioLines {
    fn new() -> TokioLines {
        TokioLines { codec: LinesCodec::new_with_max_length(1024), buffer: BytesMut::new() }
    }
}

impl ReadsLines for TokioLines {
    fn drain(&mut self, source: &mut Source<'_>, tally: &mut Tally) {
        while fill(&mut self.buffer, source) {
            while let Some(line) = self.codec.decode(&mut self.buffer).expect("a line") {
                tally.add(line.as_bytes());
            }
        }
    }
}

/// All messages of a turn are queued, flushed into one end and read from the other.
fn socketpair<W: WritesFrames>(
    mut writer: W,
    mut reader: impl ReadsFrames<UnixStream>,
    size: usize,
    count: usize,
) -> Turn {
    let messages = messages(size, count);
    let expected = Tally::of(&messages);
    let messages: Vec<_> = messages.into_iter().map(W::message).collect();
    let (mut here, mut there) = UnixStream::pair().expect("a pair");
    here.set_nonblocking(true).expect("a mode");
    there.set_nonblocking(true).expect("a mode");
    Box::new(move |ops| {
        Took::of(|| {
            for _ in 0..ops {
                let mut tally = Tally::default();
                for message in &messages {
                    writer.queue(message, &mut here);
                }
                while tally.count() < expected.count() {
                    writer.flush(&mut here);
                    reader.drain(&mut there, &mut tally);
                }
                assert_eq!(tally, expected, "every frame comes once");
            }
        })
    })
}

fn tokio_socketpair(size: usize, count: usize) -> Turn {
    let messages = messages(size, count);
    let expected = Tally::of(&messages);
    let messages: Vec<_> = messages.into_iter().map(Bytes::from).collect();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (here, there) = {
        let _inside = runtime.enter();
        tokio::net::UnixStream::pair().expect("a pair")
    };
    let mut here = Framed::new(here, codec());
    // Else it writes whenever 8 KiB have come together.
    here.set_backpressure_boundary(1 << 20);
    let mut there = Framed::new(there, codec());
    Box::new(move |ops| {
        Took::of(|| {
            runtime.block_on(async {
                for _ in 0..ops {
                    let mut tally = Tally::default();
                    for message in &messages {
                        here.feed(message.clone()).await.expect("room");
                    }
                    // All of it fits into the socket, so this never waits for the other end.
                    SinkExt::<Bytes>::flush(&mut here).await.expect("room");
                    while tally.count() < expected.count() {
                        let message = there.next().await.expect("more").expect("a frame");
                        tally.add(&message);
                    }
                    assert_eq!(tally, expected, "every frame comes once");
                }
            });
        })
    })
}
