//! What a client asks for, or the status that says why it is not understood. No byte is looked at twice
//! before a head is complete, however slowly it arrives.

use bytes::{Buf, BytesMut};
use std::{ops::ControlFlow, time::SystemTime};

/// The status of the answer to a request that breaks a rule.
pub(crate) type Status = u16;

const HEADERS_MAX: usize = 64;
/// How long the line before a chunk may be, and all the trailer's lines.
const CHUNK_LINE_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The path, still encoded and without the query.
    pub(crate) path: String,
    pub(crate) keep_alive: bool,
    pub(crate) old: bool,
    pub(crate) expects_continue: bool,
    pub(crate) range: Option<String>,
    pub(crate) if_range: Option<String>,
    pub(crate) if_none_match: Option<String>,
    pub(crate) if_modified_since: Option<SystemTime>,
}

/// Where the head in `input` ends, if all of it is there. `seen` is how much was looked at before.
/// Lines end in CRLF: whoever takes a bare LF for one may be told two requests where others see one.
pub(crate) fn head_end(
    input: &[u8],
    seen: &mut usize,
    limit: usize,
) -> Result<Option<usize>, Status> {
    while let Some(at) = memchr::memchr(b'\n', &input[*seen..]).map(|at| *seen + at) {
        *seen = at + 1;
        if at == 0 || input[at - 1] != b'\r' {
            return Err(400);
        }
        if at >= 3 && input[at - 2] == b'\n' {
            return if at < limit { Ok(Some(at + 1)) } else { Err(431) };
        }
    }
    *seen = input.len();
    match input.len() > limit {
        true if memchr::memchr(b'\n', input).is_none() => Err(414),
        true => Err(431),
        false => Ok(None),
    }
}

/// The request whose head this is, and how its body is framed.
pub(crate) fn parse(head: &[u8], body_max: usize) -> Result<(Request, Body), Status> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(httparse::Error::Version) => return Err(505),
        _ => return Err(400),
    }
    let old = parsed.version == Some(0);
    let mut request = Request { keep_alive: !old, old, ..Request::default() };
    request.method = parsed.method.unwrap_or_default().to_owned();
    request.path = path_of(parsed.path.unwrap_or_default(), &request.method)?.to_owned();

    let (mut hosts, mut length, mut coding, mut closes) = (0, None, None, false);
    for header in parsed.headers.iter() {
        let value = header.value.trim_ascii();
        let text = || std::str::from_utf8(value).ok().map(str::to_owned);
        match header.name.to_ascii_lowercase().as_str() {
            "host" => {
                hosts += 1;
                if value.iter().any(|byte| !byte.is_ascii_graphic() || b",/@?#".contains(byte)) {
                    return Err(400);
                }
            }
            // Of two there is no right one.
            "content-length" if length.is_some() => return Err(400),
            "content-length" => length = Some(decimal(value)?),
            "transfer-encoding" if coding.is_some() => return Err(400),
            "transfer-encoding" => coding = Some(value),
            "connection" => {
                for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    closes |= token.eq_ignore_ascii_case(b"close");
                    request.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            "expect" if value.eq_ignore_ascii_case(b"100-continue") => {
                request.expects_continue = !old;
            }
            "expect" => return Err(417),
            "range" => request.range = text(),
            "if-range" => request.if_range = text(),
            "if-none-match" => {
                // A list may come in several lines.
                let more = text().unwrap_or_default();
                let list = request.if_none_match.take();
                request.if_none_match = Some(list.map_or(more.clone(), |l| format!("{l},{more}")));
            }
            "if-modified-since" => {
                request.if_modified_since =
                    text().and_then(|date| httpdate::parse_http_date(&date).ok());
            }
            _ => {}
        }
    }
    request.keep_alive &= !closes;
    if hosts > 1 || (hosts == 0 && !old) {
        return Err(400);
    }
    let body = match (coding, length) {
        (Some(_), Some(_)) => return Err(400),
        (Some(_), None) if old => return Err(400),
        (Some(coding), None) if is_chunked(coding) => Body::Size,
        // The end of such a body can be known, but not what is in it.
        (Some(coding), None)
            if coding.rsplit(|byte| *byte == b',').next().is_some_and(is_chunked)
                && coding.contains(&b',') =>
        {
            return Err(501);
        }
        (Some(_), None) => return Err(400),
        (None, length) => match usize::try_from(length.unwrap_or(0)) {
            Ok(length) if length <= body_max => Body::Length(length),
            _ => return Err(413),
        },
    };
    Ok((request, body))
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// The path in a target, which may also be a whole URL, or `*` when the server as such is meant.
fn path_of<'a>(target: &'a str, method: &str) -> Result<&'a str, Status> {
    let path = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.starts_with('/') && !scheme.contains('?') => {
            if !scheme.eq_ignore_ascii_case("http") {
                return Err(400);
            }
            rest.find(['/', '?']).map_or("/", |at| &rest[at..])
        }
        _ => target,
    };
    match path.split('?').next().unwrap_or_default() {
        path if path.starts_with('/') => Ok(path),
        "*" if method == "OPTIONS" => Ok("*"),
        // A whole URL without a path.
        "" if path.len() < target.len() => Ok("/"),
        _ => Err(400),
    }
}

/// Digits and nothing else; too many of them are too much.
fn decimal(digits: &[u8]) -> Result<u64, Status> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(400);
    }
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(413)
}

/// What is still to come of a body.
#[derive(Debug)]
pub(crate) enum Body {
    /// As many bytes.
    Length(usize),
    /// The line that says how long the next chunk is.
    Size,
    /// As many bytes of a chunk, and what ends it.
    Chunk(usize),
    /// The lines after the last chunk, of which as many bytes have passed.
    Trailer(usize),
}

impl Body {
    /// Moves what there is of the body from `input` to `body`, and returns whether that was all.
    pub(crate) fn take(
        &mut self,
        input: &mut BytesMut,
        body: &mut BytesMut,
        limit: usize,
    ) -> Result<bool, Status> {
        loop {
            let step = match *self {
                Body::Length(left) => {
                    let taken = left.min(input.len());
                    body.extend_from_slice(&input.split_to(taken));
                    *self = Body::Length(left - taken);
                    return Ok(left == taken);
                }
                Body::Size => self.size(input, body.len(), limit)?,
                Body::Chunk(0) => match line_end(input, 0)? {
                    Some(0) => self.next(input, 2, Body::Size),
                    Some(_) => return Err(400),
                    None => ControlFlow::Break(false),
                },
                Body::Chunk(left) => {
                    let taken = left.min(input.len());
                    body.extend_from_slice(&input[..taken]);
                    let step = self.next(input, taken, Body::Chunk(left - taken));
                    if taken < left { ControlFlow::Break(false) } else { step }
                }
                Body::Trailer(passed) => match line_end(input, CHUNK_LINE_MAX - passed)? {
                    Some(0) => {
                        input.advance(2);
                        ControlFlow::Break(true)
                    }
                    Some(line) if passed + line + 2 > CHUNK_LINE_MAX => return Err(431),
                    Some(line) => self.next(input, line + 2, Body::Trailer(passed + line + 2)),
                    None => ControlFlow::Break(false),
                },
            };
            if let ControlFlow::Break(whole) = step {
                return Ok(whole);
            }
        }
    }

    fn next(&mut self, input: &mut BytesMut, used: usize, next: Body) -> ControlFlow<bool> {
        input.advance(used);
        *self = next;
        ControlFlow::Continue(())
    }

    fn size(
        &mut self,
        input: &mut BytesMut,
        so_far: usize,
        limit: usize,
    ) -> Result<ControlFlow<bool>, Status> {
        // The parser takes no digits for a zero.
        if input.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
            return Err(400);
        }
        let Some(line) = line_end(input, CHUNK_LINE_MAX)? else {
            return Ok(ControlFlow::Break(false));
        };
        match httparse::parse_chunk_size(&input[..line + 2]) {
            Ok(httparse::Status::Complete((_, 0))) => {
                Ok(self.next(input, line + 2, Body::Trailer(0)))
            }
            Ok(httparse::Status::Complete((_, size))) => match usize::try_from(size) {
                Ok(size) if size <= limit - so_far => {
                    Ok(self.next(input, line + 2, Body::Chunk(size)))
                }
                _ => Err(413),
            },
            _ => Err(400),
        }
    }
}

/// How long the line at the beginning of `input` is, without its CRLF, if its end is there.
fn line_end(input: &[u8], limit: usize) -> Result<Option<usize>, Status> {
    match memchr::memchr(b'\n', &input[..input.len().min(limit + 2)]) {
        Some(at) if at > 0 && input[at - 1] == b'\r' => Ok(Some(at - 1)),
        Some(_) => Err(400),
        None if input.len() >= limit + 2 => Err(400),
        None => Ok(None),
    }
}
