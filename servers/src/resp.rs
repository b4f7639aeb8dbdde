//! The Redis protocol, version 2 (RESP2): commands as they arrive, replies as they leave.
//!
//! A command is an array of bulk strings, or, typed by hand, a line of words. What has arrived is
//! looked at once: a command that trickles in byte by byte costs no more than one that comes whole.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::{error, fmt};

/// The longest line: the header of an array or a string, or a command typed by hand.
const LINE_MAX: usize = 64 * 1024;

/// What a command may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many arguments, its name included.
    pub args_max: usize,
    /// How many bytes all of its arguments have together.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { args_max: 64 * 1024, bytes_max: 16 * 1024 * 1024 }
    }
}

/// Why a client's bytes are not the protocol. There is no next command to be found behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// A line without an end.
    LineTooLong,
    /// The number of arguments is none, or over the limit.
    InvalidCount,
    /// A length is none, or brings the command over its limit.
    InvalidLength,
    /// Where a string should begin, or where it should end.
    Expected(char),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            ProtocolError::LineTooLong => f.write_str("too big inline request"),
            ProtocolError::InvalidCount => f.write_str("invalid multibulk length"),
            ProtocolError::InvalidLength => f.write_str("invalid bulk length"),
            ProtocolError::Expected(what) => write!(f, "expected {what:?}"),
        }
    }
}

impl error::Error for ProtocolError {}

/// Cuts what one client sends into commands, its arguments in the order in which they came.
#[derive(Debug, Default)]
pub struct Parser {
    limits: Limits,
    args: Vec<Bytes>,
    /// How many arguments of a command that has begun are still to come.
    missing: usize,
    /// The length of the one that comes next, if its header has arrived.
    length: Option<usize>,
    /// How many bytes the command may still have.
    allowed: usize,
    /// How much of the line in hand was looked at for its end.
    searched: usize,
}

impl Parser {
    /// A parser that refuses what is over `limits`.
    pub fn new(limits: Limits) -> Parser {
        Parser { limits, ..Parser::default() }
    }

    /// Takes the next command off the front of `input`; `None` if it has not arrived as a whole.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes. The client should be told, and then be left.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            if self.missing == 0 {
                let Some(line) = self.line(input)? else { return Ok(None) };
                if line.first() != Some(&b'*') {
                    let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
                    let words: Vec<_> = words.map(|word| line.slice_ref(word)).collect();
                    if words.len() > self.limits.args_max {
                        return Err(ProtocolError::InvalidCount);
                    }
                    if words.is_empty() {
                        continue;
                    }
                    return Ok(Some(words));
                }
                // Redis takes an empty array, and one of less than nothing, for no command at all.
                let count = number(&line[1..]).ok_or(ProtocolError::InvalidCount)?;
                let Ok(count @ 1..) = usize::try_from(count) else { continue };
                if count > self.limits.args_max {
                    return Err(ProtocolError::InvalidCount);
                }
                self.missing = count;
                self.allowed = self.limits.bytes_max;
                // Not what is announced, but what is likely.
                self.args = Vec::with_capacity(count.min(16));
            }
            let length = match self.length {
                Some(length) => length,
                None => {
                    let Some(line) = self.line(input)? else { return Ok(None) };
                    if line.first() != Some(&b'$') {
                        return Err(ProtocolError::Expected('$'));
                    }
                    let length = number(&line[1..]).and_then(|n| usize::try_from(n).ok());
                    let length = length.filter(|length| *length <= self.allowed);
                    let length = length.ok_or(ProtocolError::InvalidLength)?;
                    self.allowed -= length;
                    *self.length.insert(length)
                }
            };
            if input.len() < length + 2 {
                return Ok(None);
            }
            let arg = input.split_to(length).freeze();
            if !input.starts_with(b"\r\n") {
                return Err(ProtocolError::Expected('\r'));
            }
            input.advance(2);
            self.args.push(arg);
            self.length = None;
            self.missing -= 1;
            if self.missing == 0 {
                return Ok(Some(std::mem::take(&mut self.args)));
            }
        }
    }

    /// How many bytes have to be in hand before [`Parser::next`] gets any further.
    pub fn needs(&self) -> usize {
        self.length.map_or(self.searched + 1, |length| length + 2)
    }

    /// Takes a line without its end, if all of it is there.
    fn line(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, ProtocolError> {
        let Some(end) = memchr::memchr(b'\n', &input[self.searched..]) else {
            self.searched = input.len();
            let too_long = input.len() > LINE_MAX;
            return if too_long { Err(ProtocolError::LineTooLong) } else { Ok(None) };
        };
        let mut line = input.split_to(self.searched + end).freeze();
        input.advance(1);
        self.searched = 0;
        if line.len() > LINE_MAX {
            return Err(ProtocolError::LineTooLong);
        }
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Ok(Some(line))
    }
}

/// The number that `digits` are in decimal, if they are one and nothing else.
pub fn number(digits: &[u8]) -> Option<i64> {
    // A sign alone, a plus and blanks are no numbers to Redis either.
    if digits.first() == Some(&b'+') {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `+OK` and its like.
pub fn simple(out: &mut BytesMut, text: &str) {
    line(out, b'+', text.as_bytes());
}

/// An error: by convention its first word says of which kind. Line breaks in it become blanks.
pub fn error(out: &mut BytesMut, text: &str) {
    line(out, b'-', text.replace(['\r', '\n'], " ").as_bytes());
}

/// A whole number.
pub fn integer(out: &mut BytesMut, number: i64) {
    line(out, b':', itoa::Buffer::new().format(number).as_bytes());
}

/// A string of any bytes.
pub fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    line(out, b'$', itoa::Buffer::new().format(bytes.len()).as_bytes());
    out.reserve(bytes.len() + 2);
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

/// The absence of a string.
pub fn null(out: &mut BytesMut) {
    out.put_slice(b"$-1\r\n");
}

/// The header of so many replies that follow and are one.
pub fn array(out: &mut BytesMut, len: usize) {
    line(out, b'*', itoa::Buffer::new().format(len).as_bytes());
}

fn line(out: &mut BytesMut, kind: u8, text: &[u8]) {
    out.reserve(text.len() + 3);
    out.put_u8(kind);
    out.put_slice(text);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    type Commands = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

    /// What comes out when `pieces` arrive one after the other.
    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Commands {
        let mut parser = Parser::new(Limits { args_max: 4, bytes_max: 20 });
        let (mut input, mut commands) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            input.put_slice(piece);
            loop {
                match parser.next(&mut input) {
                    Ok(Some(args)) => commands.push(args.iter().map(|a| a.to_vec()).collect()),
                    Ok(None) => break,
                    Err(error) => return (commands, Some(error)),
                }
            }
            assert!(input.len() < parser.needs(), "it waits for what it has");
        }
        (commands, None)
    }

    fn words(commands: &[&[&str]]) -> Vec<Vec<Vec<u8>>> {
        let command = |words: &&[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
        commands.iter().map(command).collect()
    }

    #[test]
    fn any_split_gives_the_same_commands() {
        let stream = b"*1\r\n$4\r\nPING\r\n\r\n*0\r\n*-1\r\nget  k\r\n*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\n\r\n\r\n\r\nECHO x\n";
        let expected =
            (words(&[&["PING"], &["get", "k"], &["SET", "", "\r\n\r\n"], &["ECHO", "x"]]), None);
        assert_eq!(parse([&stream[..]]), expected);
        assert_eq!(parse(stream.chunks(1)), expected);
        for first in 0..stream.len() {
            for second in first..stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(parse(pieces), expected, "{first} {second}");
            }
        }
    }

    #[test]
    fn what_is_no_command_is_refused_behind_those_that_are() {
        use ProtocolError::{Expected, InvalidCount, InvalidLength};
        for (bytes, error) in [
            (&b"*x\r\n"[..], InvalidCount),
            (b"*5\r\n", InvalidCount),
            (b"*99999999999999999999\r\n", InvalidCount),
            (b"*+1\r\n$4\r\nPING\r\n", InvalidCount),
            (b"a b c d e\r\n", InvalidCount),
            (b"*1\r\n$-1\r\n", InvalidLength),
            (b"*1\r\n$21\r\n", InvalidLength),
            (b"*2\r\n$15\r\n012345678901234\r\n$6\r\n", InvalidLength),
            (b"*1\r\n$x\r\n", InvalidLength),
            (b"*1\r\n:4\r\n", Expected('$')),
            (b"*1\r\n$4\r\nPINGx\r\n", Expected('\r')),
        ] {
            let stream = [b"PING\r\n", bytes].concat();
            let expected = (words(&[&["PING"]]), Some(error));
            assert_eq!(parse([&stream[..]]), expected, "{bytes:?}");
            assert_eq!(parse(stream.chunks(1)), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let long = vec![b'x'; LINE_MAX + 1];
        assert_eq!(parse([&long[..]]), (Vec::new(), Some(ProtocolError::LineTooLong)));
        assert_eq!(parse(long.chunks(1000)), (Vec::new(), Some(ProtocolError::LineTooLong)));
    }

    #[test]
    fn replies_are_as_the_protocol_has_them() {
        let mut out = BytesMut::new();
        simple(&mut out, "OK");
        error(&mut out, "ERR one\r\ntwo");
        integer(&mut out, -42);
        bulk(&mut out, b"a\r\nb");
        null(&mut out);
        array(&mut out, 2);
        assert_eq!(out, "+OK\r\n-ERR one  two\r\n:-42\r\n$4\r\na\r\nb\r\n$-1\r\n*2\r\n");
    }
}
