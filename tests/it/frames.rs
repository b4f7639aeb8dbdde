//! Promise 10: what comes out depends only on the bytes, complete frames come first, and memory
//! and work follow what was received.

use crate::scripted::{Give, Sink, Source, Take, pieces};
use amy::{FrameError, FrameReader, FrameWriter, Refusal, Refused};
use proptest::{prelude::*, test_runner::RngSeed};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    str, thread,
};

const ECONNRESET: i32 = 104;
const EPIPE: i32 = 32;

/// A stream, as plainly as it can be cut: its frames, and why there are no more.
fn oracle(mut stream: &[u8], limit: usize) -> (Vec<Vec<u8>>, FrameError) {
    let mut frames = Vec::new();
    loop {
        let received = stream.len();
        if received == 0 {
            return (frames, FrameError::Closed);
        }
        if received < 4 {
            return (frames, FrameError::Truncated { received, expected: 4 });
        }
        let length = u32::from_be_bytes([stream[0], stream[1], stream[2], stream[3]]);
        let expected = 4 + length as usize;
        if length as usize > limit {
            return (frames, FrameError::TooLong { length, limit: u32::try_from(limit).unwrap() });
        }
        if received < expected {
            return (frames, FrameError::Truncated { received, expected });
        }
        frames.push(stream[4..expected].to_vec());
        stream = &stream[expected..];
    }
}

fn stream(frames: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend_from_slice(&u32::try_from(frame.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(frame);
    }
    bytes
}

fn reason(error: &io::Error) -> Option<FrameError> {
    error.get_ref()?.downcast_ref().copied()
}

fn take_all(reader: &mut FrameReader) -> Vec<Vec<u8>> {
    reader.iter_mut().map(<[u8]>::to_vec).collect()
}

/// Reads as if each time the source blocks a notification came, up to an error.
fn read_to_end(reader: &mut FrameReader, source: &mut impl Read) -> (Vec<Vec<u8>>, io::Error) {
    let mut frames = Vec::new();
    loop {
        match reader.read(source) {
            Ok(_) => frames.extend(take_all(reader)),
            Err(error) => return (frames, error),
        }
    }
}

fn assert_agrees(stream: &[u8], limit: u32, script: Vec<Give>) {
    let context = format!("{script:?}");
    let mut reader = FrameReader::new(limit);
    let (frames, error) = read_to_end(&mut reader, &mut Source::new(script));
    let (expected, end) = oracle(stream, limit as usize);
    assert_eq!(frames, expected, "{context}");
    assert_eq!(reason(&error), Some(end), "{context}");
    assert!(take_all(&mut reader).is_empty());
}

/// Streams of at most twelve bytes, with every kind of end.
fn small_streams() -> Vec<Vec<u8>> {
    let mut refused = stream(&[b"a"]);
    refused.extend_from_slice(&[0, 0, 0, 5, 1, 2]);
    vec![
        stream(&[b"", b"", b""]),
        stream(&[b"abcd", b""]),
        stream(&[b"", b"abcd"]),
        stream(&[b"a", b"bc"]),
        stream(&[b"a", b"bc"])[..10].to_vec(),
        stream(&[b"a", b"bc"])[..7].to_vec(),
        refused,
        vec![0x40, 0, 0, 0],
    ]
}

#[test]
fn every_split_of_a_stream_gives_the_same_frames() {
    for stream in small_streams() {
        for cuts in 0..1 << (stream.len() - 1) {
            let pieces = pieces(&stream, cuts).into_iter().map(Give::Bytes);
            assert_agrees(&stream, 4, pieces.clone().chain([Give::End]).collect());
            let blocking = pieces.flat_map(|piece| [Give::Block, piece, Give::Block]);
            assert_agrees(&stream, 4, blocking.chain([Give::End]).collect());
        }
    }
}

#[test]
fn a_source_that_blocks_or_is_interrupted_before_each_byte_changes_nothing() {
    for stream in small_streams() {
        for odd in [Give::Block, Give::Interrupt] {
            let bytes = stream.iter().map(|byte| Give::Bytes(vec![*byte]));
            let script = bytes.flat_map(|byte| [odd.clone(), byte]);
            assert_agrees(&stream, 4, script.chain([odd.clone(), Give::End]).collect());
        }
    }
}

#[test]
fn every_cut_of_a_stream_is_told_from_a_clean_end() {
    let whole = stream(&[b"first", b"", b"the third"]);
    for cut in 0..=whole.len() {
        let (frames, error) =
            read_to_end(&mut FrameReader::new(16), &mut Source::ending(&whole[..cut]));
        let (expected, end) = oracle(&whole[..cut], 16);
        assert_eq!(frames, expected);
        assert_eq!(reason(&error), Some(end));
        let kind = match end {
            FrameError::Closed => ErrorKind::BrokenPipe,
            _ => ErrorKind::UnexpectedEof,
        };
        assert_eq!(error.kind(), kind);
    }
}

fn chaos() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((1..70_000_usize, 0..4_u8), 1..40)
}

/// `stream` in pieces of these lengths, over and over, with what goes wrong between them.
fn script(stream: &[u8], chaos: &[(usize, u8)]) -> Vec<Give> {
    let (mut script, mut rest) = (Vec::new(), stream);
    for (length, odd) in chaos.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        match odd {
            0 => script.push(Give::Block),
            1 => script.push(Give::Interrupt),
            _ => {}
        }
        let (piece, behind) = rest.split_at((*length).min(rest.len()));
        script.push(Give::Bytes(piece.to_vec()));
        rest = behind;
    }
    script
}

fn some_frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let length = prop_oneof![4 => 0..40_usize, 2 => 0..20_000_usize, 1 => 60_000..200_000_usize];
    let frame = (length, any::<u8>()).prop_map(|(length, first)| {
        (0..251).map(|at| first.wrapping_add(at)).cycle().take(length).collect::<Vec<u8>>()
    });
    prop::collection::vec(frame, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        rng_seed: RngSeed::Fixed(10),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_split_budget_and_way_of_taking_gives_the_same_frames(
        frames in some_frames(),
        chaos in chaos(),
        cut in 0..1_000_000_usize,
        budget in prop_oneof![1..300_usize, 1000..300_000_usize],
        ways in prop::collection::vec(0..5_u8, 1..10),
    ) {
        let whole = stream(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
        // In half of the cases the stream is truncated somewhere.
        let bytes = &whole[..if cut % 2 == 0 { whole.len() } else { cut % (whole.len() + 1) }];
        let limit = 150_000;
        let mut source = Source::new(script(bytes, &chaos).into_iter().chain([Give::End]));
        let mut reader = FrameReader::new(limit).with_read_budget(budget);
        let mut got = Vec::new();
        let mut ways = ways.iter().cycle();
        let error = loop {
            let way = ways.next().unwrap();
            let read = if *way == 0 {
                reader.read_until_short(&mut source)
            } else {
                reader.read(&mut source)
            };
            match read {
                Err(error) => break error,
                Ok(n) => prop_assert!(n <= budget),
            }
            match way {
                0 | 1 => got.extend(take_all(&mut reader)),
                2 => got.extend(reader.iter_mut().take(3).map(<[u8]>::to_vec)),
                3 => got.extend(reader.take_frames().map(|frame| frame.to_vec())),
                _ => {}
            }
            // What is in hand never keeps a user from the rest for ever.
            if *way == 4 && reader.has_more() {
                got.extend(reader.iter_mut().take(1).map(<[u8]>::to_vec));
            }
        };
        let (expected, end) = oracle(bytes, limit as usize);
        prop_assert!(got == expected, "{} frames instead of {}", got.len(), expected.len());
        prop_assert_eq!(reason(&error), Some(end));
        prop_assert!(reader.is_finished());
        prop_assert!(!reader.has_more());
    }

    #[test]
    fn any_sink_gets_what_was_queued_in_order(
        frames in some_frames(),
        takes in prop::collection::vec((1..70_000_usize, 0..4_u8), 1..40),
        ways in prop::collection::vec(0..4_u8, 1..10),
    ) {
        let expected = stream(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let script = takes.iter().flat_map(|(most, odd)| match odd {
            0 => vec![Take::Block, Take::Bytes(*most)],
            1 => vec![Take::Interrupt, Take::Bytes(*most)],
            _ => vec![Take::Bytes(*most)],
        });
        let mut sink = Sink::new(script);
        let mut writer = FrameWriter::new();
        let mut queued = 0;
        for (frame, way) in frames.into_iter().zip(ways.iter().cycle()) {
            queued += 4 + frame.len();
            match way {
                0 => writer.push(frame).unwrap(),
                1 => writer.push(frame.as_slice()).unwrap(),
                2 => drop(writer.write(&mut sink, frame).unwrap()),
                _ => {
                    writer.push(bytes::Bytes::from(frame)).unwrap();
                    writer.writable();
                    writer.write(&mut sink, None).unwrap();
                }
            }
            prop_assert_eq!(writer.queued_bytes() + sink.taken.len(), queued);
            prop_assert_eq!(writer.sent_bytes(), sink.taken.len() as u64);
            prop_assert!(expected.starts_with(&sink.taken));
        }
        while !writer.flush(&mut sink).unwrap() {}
        prop_assert!(sink.taken == expected);
        prop_assert!(writer.is_empty());
    }
}

#[test]
fn an_empty_frame_is_a_frame() {
    let mut reader = FrameReader::new(0);
    let flood = stream(&[b"".as_slice(); 1000]);
    let (frames, error) = read_to_end(&mut reader, &mut Source::ending(&flood));
    assert_eq!(frames, vec![Vec::<u8>::new(); 1000]);
    assert_eq!(reason(&error), Some(FrameError::Closed));
}

#[test]
fn an_empty_frame_ends_no_call_and_waits_for_nothing() {
    let bytes = stream(&[b"", b"x"]);
    let mut source = Source::new([Give::Bytes(bytes), Give::Block]);
    let mut reader = FrameReader::new(16);
    assert_eq!(reader.read(&mut source).unwrap(), 9);
    assert_eq!(take_all(&mut reader), [b"".to_vec(), b"x".to_vec()]);
    let mut source = Source::new([Give::Bytes(stream(&[b""]))]);
    assert_eq!(reader.read(&mut source).unwrap(), 4);
    assert_eq!(take_all(&mut reader), [b""]);
    assert_eq!(reader.read(&mut source).unwrap(), 0);
}

#[test]
fn nothing_now_is_a_value() {
    let mut reader = FrameReader::new(16);
    assert_eq!(reader.read(&mut Source::new([])).unwrap(), 0);
    assert!(!reader.has_more() && !reader.is_finished() && reader.is_empty());
    let mut part = Source::new([Give::Bytes(vec![0, 0])]);
    assert_eq!(reader.read(&mut part).unwrap(), 2);
    assert!(!reader.has_more() && !reader.is_finished() && !reader.is_empty());
    assert_eq!(reader.read(&mut part).unwrap(), 0);
}

#[test]
fn an_end_behind_frames_is_told_next_without_asking_the_source() {
    let mut truncated = stream(&[b"one"]);
    truncated.extend_from_slice(&[0, 0]);
    let truncation = FrameError::Truncated { received: 2, expected: 4 };
    for (bytes, end) in [(stream(&[b"one"]), FrameError::Closed), (truncated, truncation)] {
        let mut source = Source::ending(&bytes);
        let mut reader = FrameReader::new(16);
        assert_eq!(reader.read(&mut source).unwrap(), bytes.len());
        assert!(reader.is_finished() && reader.has_more());
        assert_eq!(take_all(&mut reader), [b"one"]);
        let calls = source.calls;
        for _ in 0..3 {
            assert_eq!(reason(&reader.read(&mut source).unwrap_err()), Some(end));
            assert!(reader.is_finished() && !reader.has_more());
        }
        assert_eq!(source.calls, calls);
    }
}

#[test]
fn an_end_waits_for_frames_that_were_not_taken() {
    let mut source = Source::ending(&stream(&[b"one", b"two"]));
    let mut reader = FrameReader::new(16);
    reader.read(&mut source).unwrap();
    assert_eq!(reader.iter_mut().next(), Some(b"one".as_slice()));
    assert_eq!(reader.read(&mut source).unwrap(), 0);
    assert!(reader.has_more());
    assert_eq!(take_all(&mut reader), [b"two"]);
    assert_eq!(reader.read(&mut source).unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn an_end_with_no_frame_in_hand_is_told_at_once() {
    let mut reader = FrameReader::new(16);
    let error = reader.read(&mut Source::ending(&[0, 0, 0, 9, 1])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(error.to_string(), "the stream ended after 5 of the 13 bytes of a frame");
}

#[test]
fn a_frame_over_the_limit_is_refused_behind_the_frames_before_it() {
    let mut bytes = stream(&[b"ok"]);
    bytes.extend_from_slice(&[0, 0, 0, 3, 7, 7, 7]);
    let mut source = Source::new([Give::Bytes(bytes)]);
    let mut reader = FrameReader::new(2);
    assert_eq!(reader.read(&mut source).unwrap(), 13);
    assert_eq!(take_all(&mut reader), [b"ok"]);
    assert!(reader.is_finished() && reader.has_more());
    let calls = source.calls;
    for _ in 0..3 {
        let error = reader.read(&mut source).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(reason(&error), Some(FrameError::TooLong { length: 3, limit: 2 }));
        assert!(take_all(&mut reader).is_empty() && !reader.has_more());
        assert_eq!(reader.take_frames().count(), 0);
    }
    assert_eq!(source.calls, calls);
}

#[test]
fn a_failure_at_each_byte_is_passed_on_once_behind_complete_frames() {
    let bytes = stream(&[b"ab", b"", b"c"]);
    for at in 0..=bytes.len() {
        let mut source = Source::new([
            Give::Bytes(bytes[..at].to_vec()),
            Give::Fail(ECONNRESET),
            Give::Bytes(bytes[at..].to_vec()),
            Give::End,
        ]);
        source.script.retain(|step| !matches!(step, Give::Bytes(bytes) if bytes.is_empty()));
        let mut reader = FrameReader::new(16);
        let mut frames = Vec::new();
        let mut errors = Vec::new();
        while errors.len() < 2 {
            match reader.read(&mut source) {
                Ok(_) => frames.extend(take_all(&mut reader)),
                Err(error) => {
                    if errors.is_empty() {
                        assert_eq!(frames, oracle(&bytes[..at], 16).0);
                    }
                    errors.push(error);
                }
            }
        }
        assert_eq!(errors[0].raw_os_error(), Some(ECONNRESET));
        assert_eq!(reason(&errors[1]), Some(FrameError::Closed));
        assert_eq!(frames, [b"ab".as_slice(), b"", b"c"]);
    }
}

#[test]
fn an_interrupted_source_is_asked_again_but_not_for_ever() {
    let interrupted = std::iter::repeat_n(Give::Interrupt, 1000);
    let mut source = Source::new(interrupted);
    let mut reader = FrameReader::new(16);
    assert_eq!(reader.read(&mut source).unwrap(), 0);
    assert!(source.calls < 100);
    assert!(reader.has_more());
}

#[test]
fn interruptions_count_only_in_a_row() {
    let bytes = stream(&[&[7; 96]]);
    let script = bytes.iter().flat_map(|byte| [Give::Interrupt, Give::Bytes(vec![*byte])]);
    let mut reader = FrameReader::new(100);
    assert_eq!(reader.read(&mut Source::new(script)).unwrap(), 100);

    let mut sink = Sink::new([Take::Interrupt, Take::Bytes(1)].repeat(99));
    let mut writer = FrameWriter::new();
    assert!(writer.write(&mut sink, vec![7; 96]).unwrap());
}

#[test]
fn a_source_that_claims_too_much_is_refused_and_shows_nothing() {
    let mut source =
        Source::new([Give::Bytes(stream(&[b"ok"])), Give::Overclaim(1), Give::Bytes(vec![0; 4])]);
    let mut reader = FrameReader::new(16);
    assert_eq!(reader.read(&mut source).unwrap(), 6);
    assert_eq!(take_all(&mut reader), [b"ok"]);
    for _ in 0..2 {
        let error = reader.read(&mut source).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(matches!(reason(&error), Some(FrameError::Overclaimed { .. })), "{error}");
        assert!(take_all(&mut reader).is_empty());
    }
}

#[test]
fn a_source_that_writes_nothing_is_shown_no_bytes_of_another() {
    // One that uses all its room as scratch, one that is honest, one that is dropped half-way.
    let mut scratch = FrameReader::new(1 << 20);
    let zeros = Give::Bytes(vec![0; 4]);
    scratch.read(&mut Source::new([zeros, Give::Scratch(0xAA, 3), Give::Block])).unwrap();
    drop(take_all(&mut scratch));
    let mut honest = FrameReader::new(1 << 20);
    let secret = stream(&[&[0xBB; 70_000], &[0xBB; 300_000], &[0xBB; 10]]);
    read_to_end(&mut honest, &mut Source::ending(&secret));
    let mut dropped = FrameReader::new(1 << 20);
    dropped.read(&mut Source::new([Give::Bytes(secret[..3000].to_vec())])).unwrap();
    drop(dropped);

    let mut header = 60_000_u32.to_be_bytes().to_vec();
    header.push(1);
    let lies = std::iter::repeat_n(Give::Claim(20_000), 10);
    let mut lied_to = FrameReader::new(1 << 20);
    lied_to.read(&mut Source::new([Give::Bytes(header)].into_iter().chain(lies))).unwrap();
    let frames = take_all(&mut lied_to); // and some that are empty, of zeros
    assert_eq!(frames[0].len(), 60_000);
    assert_eq!(frames[0][0], 1);
    assert!(frames[0][1..].iter().all(|byte| *byte == 0), "another connection's bytes");
}

#[test]
fn one_read_does_a_bounded_amount_of_work() {
    let bytes = stream(&[&[7; 60]]).repeat(20_000);
    let mut source = Source::ending(&bytes);
    let mut reader = FrameReader::new(64);
    let (mut frames, mut reads) = (0, 0);
    while let Ok(n) = reader.read(&mut source) {
        assert!(n <= 65 * 1024);
        assert!(reader.has_more());
        frames += reader.iter_mut().count();
        reads += 1;
    }
    assert_eq!(frames, 20_000);
    assert!(reads >= bytes.len() / (65 * 1024));
}

#[test]
fn what_is_not_taken_holds_up_what_would_come() {
    let mut source = Source::ending(&stream(&[b"0123456789"]).repeat(100_000));
    let mut reader = FrameReader::new(16).with_read_budget(1000);
    let mut total = 0;
    for _ in 0..1000 {
        total += reader.read(&mut source).unwrap();
        assert!(reader.has_more());
    }
    assert!(total <= 2000, "{total} bytes in hand");
    assert_eq!(reader.read(&mut source).unwrap(), 0);
    assert_eq!(reader.iter_mut().count(), total / 14);
    assert!(reader.read(&mut source).unwrap() > 0);
}

#[test]
fn a_short_read_counts_as_drained_if_so_asked() {
    let bytes = stream(&[b"0123456789"]);
    let mut source = Source::new([Give::Bytes(bytes.clone())]);
    let mut reader = FrameReader::new(16);
    assert_eq!(reader.read_until_short(&mut source).unwrap(), 14);
    assert_eq!((source.calls, reader.has_more()), (1, false));
    assert_eq!(reader.iter_mut().count(), 1);

    // As much as there was room for says nothing: it has to be asked again.
    let mut source = Source::new([Give::Bytes(bytes.repeat(4000))]);
    let mut frames = 0;
    loop {
        reader.read_until_short(&mut source).unwrap();
        frames += reader.iter_mut().count();
        if !reader.has_more() {
            break;
        }
    }
    assert_eq!(frames, 4000);
    assert!(source.script.is_empty());

    let mut refused = Source::new([Give::Bytes(vec![0, 0, 0, 17])]);
    let error = reader.read_until_short(&mut refused).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[test]
fn frames_that_are_not_taken_stay() {
    let mut reader = FrameReader::new(16);
    reader.read(&mut Source::new([Give::Bytes(stream(&[b"1", b"2", b"3"]))])).unwrap();
    assert_eq!(reader.iter_mut().next(), Some(b"1".as_slice()));
    reader.read(&mut Source::new([Give::Bytes(stream(&[b"4"]))])).unwrap();
    assert_eq!(reader.iter_mut().nth(1), Some(b"3".as_slice()));
    assert!(!reader.is_empty());
    assert_eq!(take_all(&mut reader), [b"4"]);
    assert!(reader.is_empty());
}

#[test]
fn frames_may_be_collected_and_are_text_when_the_peer_sent_text() {
    let mut reader = FrameReader::new(16);
    reader.read(&mut Source::new([Give::Bytes(stream(&[b"one", b"two"]))])).unwrap();
    let frames: Vec<&[u8]> = (&mut reader).into_iter().collect();
    assert_eq!(frames, [b"one", b"two"]);
    reader.read(&mut Source::new([Give::Bytes(stream(&[b"three"]))])).unwrap();
    for msg in reader.iter_mut() {
        #[allow(clippy::needless_borrow)] // as programs for the predecessor have it
        let text = str::from_utf8(&msg).unwrap();
        assert_eq!(text, "three");
    }
}

#[test]
fn an_iterator_knows_how_many_frames_there_may_be() {
    let bytes = stream(&[b"one", b"", b"three", b""]);
    for taken in 0..=4 {
        let left = 4 - taken;
        // A header is as little as one can be.
        let likely = left..=bytes.len() / 4;
        let reader = || {
            let mut reader = FrameReader::new(16);
            reader.read(&mut Source::new([Give::Bytes(bytes.clone())])).unwrap();
            assert_eq!(reader.iter_mut().take(taken).count(), taken);
            reader
        };
        let mut here = reader();
        let (least, most) = here.iter_mut().size_hint();
        assert!(least <= left && likely.contains(&most.unwrap()), "{least} {most:?}");
        assert_eq!(here.iter_mut().count(), left);
        assert_eq!(here.iter_mut().size_hint(), (0, Some(0)));

        let owned = reader().take_frames();
        let (least, most) = owned.size_hint();
        assert!(least <= left && likely.contains(&most.unwrap()), "{least} {most:?}");
        assert_eq!(least > 0, left > 0, "all that it holds are frames");
        assert_eq!(owned.count(), left);
    }
}

#[test]
fn owned_frames_outlive_the_reader_and_leave_the_rest() {
    let big = vec![9; 100_000];
    let mut bytes = stream(&[b"one", &big, b"", b"two"]);
    bytes.extend_from_slice(&[0, 0, 0, 2, b'h']);
    let mut source = Source::new([Give::Bytes(bytes), Give::Block, Give::Bytes(vec![b'i'])]);
    let mut reader = FrameReader::new(1 << 20);
    let mut batches = Vec::new();
    for _ in 0..10 {
        reader.read(&mut source).unwrap();
        batches.push(reader.take_frames());
    }
    assert!(reader.is_empty());
    drop(reader);
    let frames = thread::spawn(move || batches.into_iter().flatten().collect::<Vec<_>>());
    assert_eq!(frames.join().unwrap(), [b"one", big.as_slice(), b"", b"two", b"hi"]);
}

#[test]
fn a_broken_writer_sent_a_prefix_of_what_was_queued_and_says_so_for_ever() {
    let long = vec![5; 20_000];
    let frames: [&[u8]; 4] = [b"first", &long, b"", b"last"];
    let whole = stream(&frames);
    // At each byte near the borders of frames and pieces, and now and then between them.
    let near = |at: &usize| *at < 30 || *at > 20_000 || at % 1000 == 0;
    for at in (0..whole.len()).filter(near) {
        let takes = if at == 0 { vec![] } else { vec![Take::Bytes(at)] };
        let mut sink = Sink::new(takes.into_iter().chain([Take::Fail(EPIPE)]));
        let mut writer = FrameWriter::new();
        frames.iter().for_each(|frame| writer.push(*frame).unwrap());
        let first = writer.flush(&mut sink).unwrap_err();
        assert_eq!(first.raw_os_error(), Some(EPIPE));
        assert_eq!(sink.taken, whole[..at]);
        assert_eq!(writer.sent_bytes(), at as u64);
        assert_eq!(writer.queued_bytes(), whole.len() - at);
        assert!(!writer.is_writable());

        let calls = sink.calls;
        writer.writable();
        for _ in 0..2 {
            for again in [writer.flush(&mut sink), writer.write(&mut sink, b"more".to_vec())] {
                assert_eq!(again.unwrap_err().raw_os_error(), Some(EPIPE));
            }
            let refused = writer.push("more").unwrap_err();
            assert_eq!((refused.reason(), refused.into_frame()), (Refusal::Broken, "more"));
        }
        assert_eq!(sink.calls, calls);
        assert_eq!(writer.queued_bytes(), whole.len() - at);
    }
}

#[test]
fn a_sink_that_takes_nothing_or_claims_too_much_breaks_the_writer() {
    let odd =
        [(Take::Bytes(0), ErrorKind::WriteZero), (Take::Overclaim(1), ErrorKind::InvalidData)];
    for (take, kind) in odd {
        for length in [3, 20_000] {
            let mut sink = Sink::new([take]);
            let mut writer = FrameWriter::new();
            let first = writer.write(&mut sink, vec![0; length]).unwrap_err();
            let again = writer.write(&mut sink, None).unwrap_err();
            assert_eq!(first.kind(), kind);
            assert_eq!((again.kind(), again.to_string()), (kind, first.to_string()));
            assert_eq!((writer.sent_bytes(), sink.calls), (0, 1));
        }
    }
}

#[test]
fn an_interrupted_sink_is_asked_again_but_not_for_ever() {
    let mut sink = Sink::new(std::iter::repeat_n(Take::Interrupt, 100));
    let mut writer = FrameWriter::new();
    assert!(!writer.write(&mut sink, b"x".to_vec()).unwrap());
    assert!(writer.is_writable() && sink.calls < 100);
    while !writer.flush(&mut sink).unwrap() {}
    assert_eq!(sink.taken, b"\0\0\0\x01x");
}

#[test]
fn an_empty_frame_goes_out_and_holds_nothing_up() {
    let mut sink = Sink::default();
    let mut writer = FrameWriter::new();
    assert!(writer.write(&mut sink, Vec::new()).unwrap());
    assert!(writer.write(&mut sink, Some(b"x".to_vec())).unwrap());
    assert!(writer.write(&mut sink, None).unwrap());
    assert_eq!(sink.taken, b"\0\0\0\0\0\0\0\x01x");
    assert_eq!(sink.calls, 2); // nothing queued, nothing written
}

#[test]
fn many_frames_leave_in_one_write() {
    let mut sink = Sink::default();
    let mut writer = FrameWriter::new();
    for _ in 0..1000 {
        writer.push([7; 16]).unwrap();
    }
    writer.push(vec![8; 100_000]).unwrap();
    writer.push("end").unwrap();
    assert!(writer.flush(&mut sink).unwrap());
    assert_eq!(sink.calls, 1);
    assert_eq!(sink.taken.len(), 1000 * 20 + 100_004 + 7);
}

#[test]
fn data_only_joins_the_queue_while_the_sink_is_not_writable() {
    let mut sink = Sink::new([Take::Bytes(2), Take::Block]);
    let mut writer = FrameWriter::new();
    assert!(writer.is_writable());
    assert!(!writer.write(&mut sink, b"a".to_vec()).unwrap());
    assert!(!writer.is_writable() && !writer.is_empty());
    assert!(!writer.write(&mut sink, b"b".to_vec()).unwrap());
    assert_eq!(sink.calls, 2);
    writer.writable();
    assert!(writer.is_writable());
    assert!(writer.write(&mut sink, b"c".to_vec()).unwrap());
    assert_eq!(sink.taken, stream(&[b"a", b"b", b"c"]));

    let mut sink = Sink::new([Take::Block]);
    assert!(!writer.write(&mut sink, b"d".to_vec()).unwrap());
    assert!(writer.write(&mut sink, None).unwrap(), "without data it always tries");
    assert!(writer.is_writable() && writer.is_empty());
}

#[test]
fn a_refused_frame_comes_back_and_harms_nothing() {
    let mut sink = Sink::default();
    let mut writer = FrameWriter::new().with_queue_limit(24).with_max_frame_size(10);
    writer.push("0123456789").unwrap();

    let refused = writer.push("123456789AB").unwrap_err();
    assert_eq!(refused.reason(), Refusal::TooLong { length: 11, limit: 10 });
    assert_eq!(refused.to_string(), "frame of 11 bytes is over the limit of 10");
    let refused = writer.push("1234567").unwrap_err();
    assert_eq!(refused.reason(), Refusal::Full { length: 7, queued: 14, limit: 24 });
    assert_eq!(refused.into_frame(), "1234567");

    let error = writer.write(&mut sink, vec![1; 11]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.downcast::<Refused<Vec<u8>>>().unwrap().into_frame(), [1; 11]);
    let error = writer.write(&mut sink, vec![2; 7]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
    assert_eq!(error.downcast::<Refused<Vec<u8>>>().unwrap().into_frame(), [2; 7]);

    assert_eq!((writer.queued_bytes(), sink.calls), (14, 0));
    writer.push("123456").unwrap();
    assert!(writer.write(&mut sink, None).unwrap());
    assert_eq!(sink.taken, stream(&[b"0123456789", b"123456"]));
}

#[test]
fn what_an_empty_queue_would_refuse_is_too_long_and_not_full() {
    let mut writer = FrameWriter::new().with_queue_limit(10);
    let refused = writer.push("1234567").unwrap_err();
    assert_eq!(refused.reason(), Refusal::TooLong { length: 7, limit: 6 });
    writer.push("123456").unwrap();
}

#[test]
fn a_queue_takes_what_just_fits_and_nothing_more() {
    for length in [0, 1, 100, 20_000] {
        let frame = vec![7; length];
        let mut writer = FrameWriter::new().with_queue_limit(4 + length);
        let refused = writer.push(vec![7; length + 1]).unwrap_err();
        assert_eq!(refused.reason(), Refusal::TooLong { length: length + 1, limit: length });
        writer.push(frame.clone()).unwrap();
        let refused = writer.push("").unwrap_err();
        let (queued, limit) = (4 + length, 4 + length);
        assert_eq!(refused.reason(), Refusal::Full { length: 0, queued, limit });
        let mut sink = Sink::default();
        assert!(writer.flush(&mut sink).unwrap());
        assert_eq!(sink.taken, stream(&[&frame]));
    }
}

#[test]
fn a_refused_frame_is_the_last_word_also_before_an_error_of_the_source() {
    let mut bytes = stream(&[b"a"]);
    bytes.extend_from_slice(&[0, 0, 0, 5]);
    let mut source = Source::new([Give::Bytes(bytes), Give::Fail(ECONNRESET)]);
    let mut reader = FrameReader::new(4);
    assert_eq!(reader.read(&mut source).unwrap(), 9);
    assert_eq!(take_all(&mut reader), [b"a"]);

    for _ in 0..2 {
        let error = reader.read(&mut source).unwrap_err();
        assert_eq!(reason(&error), Some(FrameError::TooLong { length: 5, limit: 4 }));
        assert!(!reader.has_more());
    }
    assert_eq!(source.calls, 2);
}

#[test]
fn the_smallest_queue_has_room_for_an_empty_frame() {
    for limit in 0..=4 {
        let mut writer = FrameWriter::new().with_queue_limit(limit);
        let refused = writer.push("a").unwrap_err();
        assert_eq!(refused.reason(), Refusal::TooLong { length: 1, limit: 0 });
        writer.push("").unwrap();
        let refused = writer.push("").unwrap_err();
        assert_eq!(refused.reason(), Refusal::Full { length: 0, queued: 4, limit: 4 });
    }
}

#[test]
fn nothing_that_is_printed_shows_what_peers_send() {
    let secret = b"tomorrow at noon";
    let mut reader = FrameReader::new(64);
    reader.read(&mut Source::new([Give::Bytes(stream(&[secret]))])).unwrap();
    let mut writer = FrameWriter::new().with_queue_limit(20);
    writer.push(secret).unwrap();
    let refused = writer.push(secret).unwrap_err();
    let printed = [
        format!("{reader:?}"),
        format!("{:?}", reader.iter_mut()),
        format!("{:?}", reader.take_frames()),
        format!("{writer:?} {refused:?} {refused}"),
    ];
    for text in printed {
        assert!(!text.contains("noon") && !text.contains("116, 111, 109"), "{text}");
    }
}

/// What a frame of this size is made of.
fn fill(size: usize) -> u8 {
    u8::try_from(size % 251).unwrap()
}

#[test]
fn frames_of_all_sizes_cross_a_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sock = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut peer = listener.accept().unwrap().0;
    let sizes = [0, 1, 15, 4095, 4096, 65_531, 65_532, 65_536, 65_537, 1 << 20, 0, 3 << 20];
    let sender = thread::spawn(move || {
        let mut writer = FrameWriter::new();
        for _ in 0..3 {
            for size in sizes {
                writer.push(vec![fill(size); size]).unwrap();
            }
            assert!(writer.flush(&mut peer).unwrap());
        }
        peer.shutdown(Shutdown::Write).unwrap();
        peer
    });
    let mut reader = FrameReader::new(4 << 20);
    let (frames, error) = read_to_end(&mut reader, &mut &sock);
    assert_eq!(reason(&error), Some(FrameError::Closed));
    assert_eq!(frames.len(), 3 * sizes.len());
    for (frame, size) in frames.iter().zip(sizes.iter().cycle()) {
        assert_eq!(frame.len(), *size);
        assert!(frame.iter().all(|byte| *byte == fill(*size)));
    }
    sender.join().unwrap();
}

#[test]
fn a_sink_without_gathering_gets_the_same() {
    struct Plain(Vec<u8>);
    impl Write for Plain {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(3000);
            self.0.extend_from_slice(&bytes[..n]);
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let long = vec![3; 50_000];
    let frames: Vec<&[u8]> = [b"a".as_slice(), &long].repeat(50);
    let mut sink = Plain(Vec::new());
    let mut writer = FrameWriter::new();
    frames.iter().for_each(|frame| writer.push(*frame).unwrap());
    assert!(writer.flush(&mut sink).unwrap());
    assert!(sink.0 == stream(&frames));
}
