//! What readers and writers hold and allocate, counted per thread.

use amy::{FrameError, FrameReader, FrameWriter, LineReader};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{self, ErrorKind, Read, Write},
};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    allocations: usize,
    held: isize,
    peak: isize,
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { allocations: 0, held: 0, peak: 0 }) };
}

fn count(allocations: usize, bytes: isize) {
    // Fails when the thread ends, after its last test.
    let _ = COUNTS.try_with(|counts| {
        let mut now = counts.get();
        now.allocations += allocations;
        now.held += bytes;
        now.peak = now.peak.max(now.held);
        counts.set(now);
    });
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap()
}

// SAFETY: each call is passed on to the system's allocator as it came; counting allocates nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, signed(layout.size()));
        // SAFETY: the caller promised what this needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(0, -signed(layout.size()));
        // SAFETY: the caller promised what this needs.
        unsafe { System.dealloc(place, layout) }
    }
}

/// What `work` allocated, still holds, and held at most.
fn measure<T>(work: impl FnOnce() -> T) -> (T, Counts) {
    let before = COUNTS.get();
    COUNTS.set(Counts { peak: before.held, ..before });
    let result = work();
    let after = COUNTS.get();
    let counts = Counts {
        allocations: after.allocations - before.allocations,
        held: after.held - before.held,
        peak: after.peak - before.held,
    };
    (result, counts)
}

/// The room that each thread has for its readers.
const SPARE: isize = 65 * 1024;

/// Gives its bytes, so many at a time at most, blocking after each `block` of them.
struct Source<'a> {
    bytes: &'a [u8],
    block: usize,
    left: usize,
}

impl<'a> Source<'a> {
    fn new(bytes: &'a [u8]) -> Source<'a> {
        Source::blocking(bytes, usize::MAX)
    }

    fn blocking(bytes: &'a [u8], block: usize) -> Source<'a> {
        Source { bytes, block, left: block }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let n = self.left.min(self.bytes.len());
        if n == 0 {
            self.left = self.block;
            return Err(ErrorKind::WouldBlock.into());
        }
        let n = self.bytes[..n].as_ref().read(room)?;
        self.bytes = &self.bytes[n..];
        self.left -= n;
        Ok(n)
    }
}

struct Blocked;

impl Write for Blocked {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes so many bytes, and blocks then.
struct Takes(usize);

impl Write for Takes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.0);
        self.0 -= n;
        if n == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stream(length: usize, frames: usize) -> Vec<u8> {
    let mut frame = u32::try_from(length).unwrap().to_be_bytes().to_vec();
    frame.resize(4 + length, 7);
    frame.repeat(frames)
}

/// Makes this thread keep its spare buffers, as any use does.
fn warm_up() {
    let bytes = stream(100, 2000);
    FrameReader::new(1000).read(&mut Source::new(&bytes)).unwrap();
}

#[test]
fn a_frame_over_the_limit_is_refused_before_anything_is_allocated_for_it() {
    warm_up();
    let header = 0x4000_0000_u32.to_be_bytes();
    let mut reader = FrameReader::new(1024);
    let (error, counts) = measure(|| reader.read(&mut Source::new(&header)).unwrap_err());
    let reason = error.get_ref().unwrap().downcast_ref::<FrameError>();
    assert_eq!(reason, Some(&FrameError::TooLong { length: 1 << 30, limit: 1024 }));
    assert!(counts.peak < 512, "{counts:?}");
}

#[test]
fn a_header_alone_costs_no_more_than_it_is_long() {
    let header = 0x4000_0000_u32.to_be_bytes();
    let mut readers: Vec<FrameReader> =
        std::iter::repeat_with(|| FrameReader::new(0x7fff_ffff)).take(1000).collect();
    let ((), counts) = measure(|| {
        for reader in &mut readers {
            assert_eq!(reader.read(&mut Source::new(&header)).unwrap(), 4);
        }
    });
    assert!(counts.peak <= SPARE + 1000 * 64, "{counts:?}");
}

#[test]
fn memory_for_a_partial_frame_follows_what_was_received() {
    let bytes = stream(8 << 20, 1);
    for block in [usize::MAX, 150_000, 1000] {
        let mut reader = FrameReader::new(16 << 20);
        let mut source = Source::blocking(&bytes, block);
        let mut received = 0;
        let ((), counts) = measure(|| {
            while reader.iter_mut().next().is_none() {
                let (n, counts) = measure(|| reader.read(&mut source).unwrap());
                received += signed(n);
                // Growing may need both places for a moment.
                let most = SPARE + 3 * received.max(SPARE);
                assert!(counts.peak <= most, "{counts:?} after {received}");
            }
        });
        assert!(counts.peak <= 2 * (8 << 20), "{counts:?}");
        assert!(counts.held <= (8 << 20) + 2 * SPARE, "{counts:?}");
    }
}

#[test]
fn half_a_frame_is_kept_in_a_place_of_its_size() {
    warm_up();
    for received in [1, 50, 200, 3000, 10_000, 40_000] {
        let bytes = &stream(60_000, 1)[..received];
        let mut readers: Vec<FrameReader> =
            std::iter::repeat_with(|| FrameReader::new(60_000)).take(100).collect();
        let ((), counts) = measure(|| {
            for reader in &mut readers {
                while reader.read(&mut Source::new(bytes)).unwrap() == 0 {}
            }
        });
        let each = signed(received).max(64) * 2;
        assert!(counts.held <= 100 * each + SPARE, "{received}: {counts:?}");
    }
}

#[test]
fn an_idle_reader_holds_nothing() {
    let bytes = stream(100, 50);
    let mut frames = FrameReader::new(1000);
    let mut lines = LineReader::new(1000);
    let mut work = || {
        let mut source = Source::new(&bytes);
        while frames.read(&mut source).unwrap() > 0 {
            assert_eq!(frames.iter_mut().count(), 50);
        }
        let mut source = Source::new(b"one\ntwo\n");
        while lines.read(&mut source).unwrap() > 0 {
            assert_eq!(lines.iter_mut().count(), 2);
        }
    };
    work(); // so that this thread's spare buffers are there
    let ((), counts) = measure(work);
    assert_eq!(counts.held, 0);
    assert_eq!(counts.allocations, 0);
}

#[test]
fn readers_that_were_not_asked_again_hold_no_more_than_came_last_but_for_one() {
    warm_up();
    let bytes = stream(100, 2);
    let mut readers: Vec<FrameReader> =
        std::iter::repeat_with(|| FrameReader::new(1000)).take(1000).collect();
    let ((), counts) = measure(|| {
        for reader in &mut readers {
            reader.read(&mut Source::new(&bytes)).unwrap();
            assert_eq!(reader.iter_mut().count(), 2);
        }
    });
    assert!(counts.held <= 1000 * 256 + SPARE, "{counts:?}");
}

#[test]
fn a_reader_that_has_nothing_more_holds_nothing() {
    let bytes = stream(100, 2);
    let mut readers: Vec<FrameReader> =
        std::iter::repeat_with(|| FrameReader::new(1000)).take(1001).collect();
    let serve = |readers: &mut [FrameReader]| {
        for reader in readers {
            reader.read(&mut Source::new(&bytes)).unwrap();
            assert_eq!(reader.iter_mut().count(), 2);
            assert!(!reader.has_more());
        }
    };
    serve(&mut readers[..1]); // so that this thread's spare buffers are there
    let ((), counts) = measure(|| serve(&mut readers[1..]));
    assert_eq!((counts.held, counts.allocations), (0, 0), "{counts:?}");
}

#[test]
fn reading_allocates_nothing_once_warm() {
    // With frames that end with what came, and with frames that do not.
    for (length, block) in [(16, 20 * 50), (256, 777), (1000, 50_000), (100, 33)] {
        let bytes = stream(length, 2000);
        let mut source = Source::blocking(&bytes, block);
        let mut reader = FrameReader::new(1000);
        let mut frames = 0;
        let mut turns = |most: usize| {
            for _ in 0..most {
                reader.read(&mut source).unwrap();
                frames += reader.iter_mut().count();
            }
        };
        turns(10);
        let ((), counts) = measure(|| turns(bytes.len() / block - 10));
        assert_eq!(counts.allocations, 0, "{length} {block}");
        assert!(frames > 1900);
    }
}

#[test]
fn a_frame_of_a_mebibyte_finds_its_place_again() {
    let length = 1 << 20;
    let bytes = stream(length, 20);
    let mut source = Source::blocking(&bytes, 4 + length);
    let mut reader = FrameReader::new(1 << 20);
    let mut serve = |most: usize| {
        let mut frames = 0;
        while frames < most {
            reader.read(&mut source).unwrap();
            frames += reader.iter_mut().count();
        }
    };
    serve(2);
    let ((), counts) = measure(|| serve(18));
    assert_eq!(counts.allocations, 0);
}

#[test]
fn a_long_frame_moves_a_few_times_as_it_comes() {
    warm_up();
    let bytes = stream(8 << 20, 1);
    let mut source = Source::new(&bytes);
    let mut reader = FrameReader::new(8 << 20);
    let (n, counts) = measure(|| {
        let mut n = 0;
        while n == 0 {
            reader.read(&mut source).unwrap();
            n = reader.iter_mut().count();
        }
        n
    });
    assert_eq!(n, 1);
    // Each place is twice as large as the one before.
    assert!(counts.allocations <= 10, "{counts:?}");
}

#[test]
fn lines_allocate_nothing_once_warm() {
    let bytes = b"a line of some length\r\n".repeat(10_000);
    let mut source = Source::blocking(&bytes, 700);
    let mut reader = LineReader::new(100);
    let mut lines = 0;
    let mut turns = |most: usize| {
        for _ in 0..most {
            reader.read_until_short(&mut source).unwrap();
            lines += reader.iter_mut().filter(Result::is_ok).count();
        }
    };
    turns(10);
    let ((), counts) = measure(|| turns(2 * (bytes.len() / 700) - 10));
    assert_eq!(counts.allocations, 0);
    assert!(lines > 9900);
}

#[test]
fn a_line_that_never_ends_costs_no_more_than_the_limit() {
    warm_up();
    let bytes = vec![b'x'; 10 << 20];
    let mut reader = LineReader::new(200_000);
    let mut source = Source::new(&bytes);
    let (errors, counts) = measure(|| {
        let mut errors = 0;
        while reader.read(&mut source).unwrap() > 0 {
            errors += reader.iter_mut().filter(Result::is_err).count();
        }
        errors
    });
    assert_eq!(errors, 1);
    assert!(counts.peak <= 400_000 + SPARE, "{counts:?}");
}

#[test]
fn owned_frames_keep_no_more_than_four_times_their_size() {
    warm_up();
    let bytes = stream(1000, 3);
    let mut reader = FrameReader::new(1000);
    let (frames, counts) = measure(|| {
        reader.read(&mut Source::new(&bytes)).unwrap();
        let frames: Vec<_> = reader.take_frames().collect();
        assert_eq!(reader.read(&mut Source::new(&[])).unwrap(), 0);
        frames
    });
    assert_eq!(frames.len(), 3);
    assert!(counts.held <= 4 * 3012 + 500, "{counts:?}");
}

#[test]
fn owned_frames_keep_nothing_of_a_long_frame_behind_them() {
    warm_up();
    let mut bytes = stream(10, 3);
    bytes.extend_from_slice(&stream(1 << 20, 1));
    let mut reader = FrameReader::new(1 << 20);
    let (frames, counts) = measure(|| {
        reader.read(&mut Source::new(&bytes)).unwrap();
        let frames: Vec<_> = reader.take_frames().collect();
        drop(reader);
        frames
    });
    assert_eq!(frames.len(), 3);
    assert!(counts.held <= 500, "{counts:?}");
}

#[test]
fn a_long_frame_is_owned_without_a_copy() {
    let bytes = stream(300_000, 1);
    let mut reader = FrameReader::new(1 << 20);
    let mut source = Source::new(&bytes);
    while reader.read(&mut source).unwrap() > 0 {}
    let (frames, counts) = measure(|| reader.take_frames().collect::<Vec<_>>());
    assert_eq!(frames[0].len(), 300_000);
    assert!(counts.peak < 500, "{counts:?}");
}

#[test]
fn writing_short_frames_allocates_nothing_once_warm() {
    let mut writer = FrameWriter::new();
    let mut turns = |most: usize| {
        for _ in 0..most {
            for _ in 0..100 {
                writer.push([7; 100]).unwrap();
            }
            assert!(writer.flush(&mut io::sink()).unwrap());
        }
    };
    turns(2);
    let ((), counts) = measure(|| turns(1000));
    assert_eq!((counts.allocations, counts.held), (0, 0));
}

#[test]
fn a_long_frame_is_sent_from_where_it_is() {
    let mut writer = FrameWriter::new();
    writer.write(&mut io::sink(), vec![7; 100_000]).unwrap();
    let frame = vec![7; 100_000];
    let ((), counts) = measure(|| {
        assert!(writer.write(&mut io::sink(), frame).unwrap());
    });
    assert!(counts.peak < 1000, "{counts:?}");
    assert!(counts.held <= -100_000, "{counts:?}");
}

#[test]
fn an_idle_writer_holds_nothing_and_a_blocked_one_what_waits() {
    let mut writers: Vec<FrameWriter> =
        std::iter::repeat_with(FrameWriter::new).take(1000).collect();
    // A large buffer is this thread's spare one now.
    let mut large = FrameWriter::new();
    (0..600).for_each(|_| large.push([7; 100]).unwrap());
    large.flush(&mut io::sink()).unwrap();

    let ((), counts) = measure(|| {
        for writer in &mut writers {
            assert!(!writer.write(&mut Blocked, vec![7; 100]).unwrap());
        }
    });
    assert!(counts.held <= 1000 * 256 + SPARE, "{counts:?}");
    let ((), counts) = measure(|| {
        for writer in &mut writers {
            assert!(writer.flush(&mut io::sink()).unwrap());
        }
    });
    assert!(counts.held <= -1000 * 104, "{counts:?}");
}

#[test]
fn a_writer_that_got_most_of_it_out_holds_what_is_left() {
    let mut writers: Vec<FrameWriter> = std::iter::repeat_with(FrameWriter::new).take(20).collect();
    let ((), counts) = measure(|| {
        for writer in &mut writers {
            (0..1000).for_each(|_| writer.push([7; 100]).unwrap());
            assert!(!writer.flush(&mut Takes(999 * 104)).unwrap());
            assert_eq!(writer.queued_bytes(), 104);
        }
    });
    // What they do not need is this thread's spare buffer.
    assert!(counts.held <= 2 * 104_000 + 20 * 256, "{counts:?}");
}
