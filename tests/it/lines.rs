//! Promise 10, for lines: what comes out depends only on the bytes, one line that is too long is
//! one error, and the lines behind it are read as ever.

use crate::scripted::{Give, Source, pieces};
use amy::{FrameError, LineError, LineReader};
use proptest::{prelude::*, test_runner::RngSeed};
use std::{
    error::Error,
    io::{self, ErrorKind},
    str,
};

/// A line, or nothing where it is too long.
type Line = Option<Vec<u8>>;

/// A whole stream, as plainly as it can be cut.
fn oracle(stream: &[u8], limit: usize) -> Vec<Line> {
    let mut parts: Vec<&[u8]> = stream.split(|byte| *byte == b'\n').collect();
    let last = parts.pop().unwrap();
    let mut lines: Vec<&[u8]> =
        parts.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    if !last.is_empty() {
        lines.push(last);
    }
    lines.into_iter().map(|line| (line.len() <= limit).then(|| line.to_vec())).collect()
}

fn take(reader: &mut LineReader, most: usize) -> Vec<Line> {
    let lines = reader.iter_bytes_mut().take(most);
    lines.map(|line| line.ok().map(<[u8]>::to_vec)).collect()
}

fn read_to_end(reader: &mut LineReader, source: &mut Source) -> (Vec<Line>, io::Error) {
    let mut lines = Vec::new();
    loop {
        match reader.read(source) {
            Ok(_) => lines.extend(take(reader, usize::MAX)),
            Err(error) => return (lines, error),
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref());
    error.kind() == ErrorKind::BrokenPipe && reason == Some(&FrameError::Closed)
}

fn assert_agrees(stream: &[u8], limit: usize, script: Vec<Give>) {
    let context = format!("{stream:?} {limit} {script:?}");
    let mut reader = LineReader::new(limit);
    let (lines, error) = read_to_end(&mut reader, &mut Source::new(script));
    assert_eq!(lines, oracle(stream, limit), "{context}");
    assert!(is_closed(&error), "{context}");
    assert!(reader.is_empty());
}

const SMALL: [&[u8]; 10] = [
    b"\n\n\n",
    b"\r\n\r\r\n\r",
    b"ab\ncde\r\nf",
    b"ab\r\ncd\rx\ne\n",
    b"abc\r",
    b"abcdefghi\nj",
    b"abcdefghijkl",
    b"a\r\nbcdef\r\n\n",
    b"abc\r\nd\0\xff\n",
    b"\rabc\r\r\n",
];

#[test]
fn every_split_of_a_stream_gives_the_same_lines() {
    for stream in SMALL {
        for cuts in 0..1 << (stream.len() - 1) {
            for limit in [0, 2, 3, 12] {
                let pieces = pieces(stream, cuts).into_iter().map(Give::Bytes);
                let blocking = pieces.clone().flat_map(|piece| [piece, Give::Block]);
                assert_agrees(stream, limit, blocking.chain([Give::End]).collect());
                if limit == 2 {
                    assert_agrees(stream, limit, pieces.chain([Give::End]).collect());
                }
            }
        }
    }
}

#[test]
fn every_cut_of_a_stream_ends_with_its_last_line() {
    let stream = b"first\r\n\nsecond is long\nlast";
    for cut in 0..=stream.len() {
        for limit in [5, 6, 20] {
            let (lines, error) =
                read_to_end(&mut LineReader::new(limit), &mut Source::ending(&stream[..cut]));
            assert_eq!(lines, oracle(&stream[..cut], limit));
            assert!(is_closed(&error));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        rng_seed: RngSeed::Fixed(10),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_split_budget_and_way_of_taking_gives_the_same_lines(
        letters in prop::collection::vec(0..12_u8, 0..400),
        repeat in 1..60_usize,
        limit in prop_oneof![0..12_usize, 100..2000_usize],
        lengths in prop::collection::vec((1..400_usize, 0..4_u8), 1..20),
        budget in prop_oneof![1..100_usize, 1000..100_000_usize],
        ways in prop::collection::vec(0..4_u8, 1..8),
    ) {
        let alphabet = b"ab\n\n\rcd\r\0\xc3\xa9\xff";
        let stream = letters.iter().map(|at| alphabet[*at as usize]).collect::<Vec<_>>().repeat(repeat);
        let (mut script, mut rest) = (Vec::new(), stream.as_slice());
        for (length, odd) in lengths.iter().cycle() {
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
        script.push(Give::End);
        let mut source = Source::new(script);
        let mut reader = LineReader::new(limit).with_read_budget(budget);
        let mut lines = Vec::new();
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
            // Each leaves something at times, and none for ever.
            lines.extend(take(&mut reader, if *way < 2 { usize::MAX } else { *way as usize - 1 }));
        };
        prop_assert!(is_closed(&error));
        prop_assert!(reader.is_finished() && !reader.has_more() && reader.is_empty());
        prop_assert_eq!(lines, oracle(&stream, limit));
    }
}

#[test]
fn a_line_that_is_too_long_is_told_before_it_ends() {
    let mut reader = LineReader::new(3);
    reader.read(&mut Source::new([Give::Bytes(b"ok\nabcd".to_vec())])).unwrap();
    assert_eq!(take(&mut reader, 9), [Some(b"ok".to_vec()), None]);
    assert!(reader.is_empty());
    for _ in 0..3 {
        reader.read(&mut Source::new([Give::Bytes(b"more of it".to_vec())])).unwrap();
        assert_eq!(take(&mut reader, 9), []);
        assert!(reader.is_empty());
    }
    reader.read(&mut Source::new([Give::Bytes(b"\nok\n".to_vec())])).unwrap();
    assert_eq!(take(&mut reader, 9), [Some(b"ok".to_vec())]);
}

#[test]
fn the_end_of_a_line_does_not_count_against_the_limit() {
    let mut reader = LineReader::new(3);
    for (bytes, line) in [(b"abc\r".as_slice(), None), (b"\n", Some(Some(b"abc".to_vec())))] {
        reader.read(&mut Source::new([Give::Bytes(bytes.to_vec())])).unwrap();
        assert_eq!(take(&mut reader, 9), Vec::from_iter(line));
    }
    // A `\r` that turns out to be part of the line does.
    for (bytes, line) in [(b"abc\r".as_slice(), None), (b"\r\n", Some(None))] {
        reader.read(&mut Source::new([Give::Bytes(bytes.to_vec())])).unwrap();
        assert_eq!(take(&mut reader, 9), Vec::from_iter(line));
    }
}

#[test]
fn a_line_as_long_as_the_limit_fits_with_either_end() {
    for limit in [0, 5, 65 * 1024, 100_000, 300_000] {
        for end in [b"\n".as_slice(), b"\r\n"] {
            let mut bytes = vec![b'x'; limit];
            bytes.extend_from_slice(end);
            let mut source = Source::new([Give::Bytes(bytes)]);
            let mut reader = LineReader::new(limit);
            let mut lines = Vec::new();
            while reader.read(&mut source).unwrap() > 0 {
                lines.extend(take(&mut reader, 9));
            }
            assert_eq!(lines, [Some(vec![b'x'; limit])]);
        }
    }
}

#[test]
fn a_line_that_is_not_text_comes_back_in_its_error() {
    let mut reader = LineReader::new(80);
    reader.read(&mut Source::new([Give::Bytes(b"a\nb\xff\r\n\xc3\xa9\n".to_vec())])).unwrap();
    let mut lines = reader.iter_mut();
    assert_eq!(lines.next(), Some(Ok("a")));
    let error = lines.next().unwrap().unwrap_err();
    assert_eq!(error.to_string().split(':').next(), Some("line of 2 bytes is not text"));
    assert!(!format!("{error:?}").contains("255"));
    let source = error.source().and_then(|source| source.downcast_ref::<str::Utf8Error>());
    assert_eq!(source.map(|source| source.valid_up_to()), Some(1));
    assert!(LineError::TooLong { limit: 1 }.source().is_none());
    match &error {
        LineError::NotUtf8 { line, error } => {
            assert_eq!((line.as_slice(), error.valid_up_to()), (b"b\xff".as_slice(), 1));
        }
        other => panic!("{other}"),
    }
    assert_eq!(io::Error::from(error).kind(), ErrorKind::InvalidData);
    assert_eq!(lines.next(), Some(Ok("é")));
    assert_eq!(lines.next(), None);
}

#[test]
fn an_empty_reader_holds_neither_a_line_nor_a_part_of_one() {
    let mut reader = LineReader::new(80);
    assert!(reader.is_empty());
    reader.read(&mut Source::new([Give::Bytes(b"one\ntwo\nth".to_vec())])).unwrap();
    assert!(!reader.is_empty());
    assert_eq!(reader.iter_mut().next(), Some(Ok("one")));
    assert_eq!(take(&mut reader, 9), [Some(b"two".to_vec())]);
    assert!(!reader.is_empty(), "a part is in hand");
    reader.read(&mut Source::new([Give::Bytes(b"ree\n".to_vec())])).unwrap();
    let lines: Vec<_> = (&mut reader).into_iter().map(Result::unwrap).collect();
    assert_eq!(lines, ["three"]);
    assert!(reader.is_empty());
}

#[test]
fn a_partial_line_never_fills_the_reader_up() {
    let mut reader = LineReader::new(16);
    let mut lines = 0;
    for _ in 0..1000 {
        assert_eq!(reader.read(&mut Source::new([Give::Bytes(b"c\nab".to_vec())])).unwrap(), 4);
        lines += take(&mut reader, 9).len();
    }
    assert_eq!(lines, 1000);
}

#[test]
fn the_end_comes_after_the_last_line_without_asking_the_source() {
    let mut source = Source::ending(b"one\nlast");
    let mut reader = LineReader::new(16);
    assert_eq!(reader.read(&mut source).unwrap(), 8);
    assert!(reader.has_more() && reader.is_finished());
    assert_eq!(take(&mut reader, 9), [Some(b"one".to_vec()), Some(b"last".to_vec())]);
    let calls = source.calls;
    for _ in 0..2 {
        assert!(is_closed(&reader.read(&mut source).unwrap_err()));
    }
    assert_eq!(source.calls, calls);
}

#[test]
fn a_short_read_counts_as_drained_if_so_asked() {
    let mut source = Source::new([Give::Bytes(b"one\ntwo\nth".to_vec())]);
    let mut reader = LineReader::new(16);
    assert_eq!(reader.read_until_short(&mut source).unwrap(), 10);
    assert_eq!((source.calls, reader.has_more(), reader.is_finished()), (1, false, false));
    assert_eq!(take(&mut reader, 9), [Some(b"one".to_vec()), Some(b"two".to_vec())]);

    let mut source = Source::ending(&b"e\n".repeat(100_000));
    let mut lines = 0;
    let error = loop {
        match reader.read_until_short(&mut source) {
            Ok(_) => lines += take(&mut reader, usize::MAX).len(),
            Err(error) => break error,
        }
    };
    assert!(is_closed(&error) && reader.is_finished());
    assert_eq!(lines, 100_000);
}

#[test]
fn an_iterator_knows_how_many_lines_there_may_be() {
    let bytes = b"one\n\ntwo\r\n\n";
    for taken in 0..=4 {
        let mut reader = LineReader::new(16);
        reader.read(&mut Source::new([Give::Bytes(bytes.to_vec())])).unwrap();
        assert_eq!(take(&mut reader, taken).len(), taken);
        let (least, most) = reader.iter_mut().size_hint();
        assert_eq!(reader.iter_bytes_mut().size_hint(), (least, most));
        let left = take(&mut reader, usize::MAX).len();
        // No more than one for each byte: each has an end.
        assert!(least <= left && (left..=bytes.len()).contains(&most.unwrap()), "{least} {most:?}");
        assert_eq!(reader.iter_mut().size_hint(), (0, Some(0)));
    }
}

#[test]
fn a_failure_leaves_the_partial_line_for_later() {
    let mut source =
        Source::new([Give::Bytes(b"ha".to_vec()), Give::Fail(104), Give::Bytes(b"lf\n".to_vec())]);
    let mut reader = LineReader::new(16);
    assert_eq!(reader.read(&mut source).unwrap_err().raw_os_error(), Some(104));
    assert_eq!(reader.read(&mut source).unwrap(), 3);
    assert_eq!(take(&mut reader, 9), [Some(b"half".to_vec())]);
}

#[test]
fn a_long_line_in_single_bytes_takes_linear_time() {
    let length = 100_000;
    let bytes = std::iter::repeat_n(Give::Bytes(vec![b'x']), length);
    let script = bytes.flat_map(|byte| [byte, Give::Block]).chain([Give::Bytes(b"\n".to_vec())]);
    let mut source = Source::new(script);
    let mut reader = LineReader::new(length);
    for _ in 0..length {
        assert_eq!(reader.read(&mut source).unwrap(), 1);
        assert_eq!(reader.iter_mut().count(), 0);
    }
    reader.read(&mut source).unwrap();
    assert_eq!(take(&mut reader, 9), [Some(vec![b'x'; length])]);
}
