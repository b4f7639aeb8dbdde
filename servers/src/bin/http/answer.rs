//! What a request is answered: a head, and behind it bytes or a part of a file.

use crate::{
    Server,
    files::{File, Found},
    request::{Request, Status},
};
use bytes::{BufMut, BytesMut};
use serde_json::json;
use std::{ops::Range, os::fd::OwnedFd, sync::atomic::Ordering, time::SystemTime};

/// A file up to this size is read and leaves with its head, in one write.
const SMALL: u64 = 32 * 1024;

/// A part of a file that is still to be sent.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) fd: OwnedFd,
    pub(crate) offset: u64,
    pub(crate) left: u64,
}

/// Appends the answer to a request to `out`. Returns what has to follow it.
pub(crate) fn answer(
    server: &Server,
    request: &Request,
    body: &[u8],
    out: &mut BytesMut,
) -> Option<Sending> {
    let reads = matches!(request.method.as_str(), "GET" | "HEAD");
    let mut answer = Answer { request, out, server };
    match (request.path.as_str(), request.method.as_str()) {
        ("/api/status", _) if reads => {
            let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            let status = json!({
                "uptime_seconds": server.started.elapsed().as_secs(),
                "connections": count(&server.connections),
                "requests": count(&server.requests),
            });
            answer.json(200, &status);
        }
        ("/api/echo", "POST") => match serde_json::from_slice::<serde_json::Value>(body) {
            Ok(value) => answer.json(200, &json!({ "bytes": body.len(), "echo": value })),
            Err(error) => answer.json(400, &json!({ "error": error.to_string() })),
        },
        ("/api/status", _) => answer.not_allowed("GET, HEAD, OPTIONS"),
        ("/api/echo", _) => answer.not_allowed("POST, OPTIONS"),
        (path, _) if reads => match server.root.find(path) {
            Ok(Found::File(file)) => return answer.file(file),
            Ok(Found::Directory) => {
                // Two slashes at the beginning would lead to another host.
                let location = format!("Location: /{}/\r\n", path.trim_start_matches('/'));
                answer.bytes(301, &location, "text/plain", b"over there\n");
            }
            Err(status) => answer.error(status),
        },
        _ => answer.not_allowed("GET, HEAD, OPTIONS"),
    }
    None
}

/// Appends the answer to what is no request. The connection is closed behind it.
pub(crate) fn refuse(server: &Server, status: Status, out: &mut BytesMut) {
    let request = Request { method: "GET".into(), ..Request::default() };
    Answer { request: &request, out, server }.error(status);
}

struct Answer<'a> {
    request: &'a Request,
    out: &'a mut BytesMut,
    server: &'a Server,
}

impl Answer<'_> {
    fn json(&mut self, status: Status, value: &serde_json::Value) {
        self.bytes(status, "", "application/json", format!("{value}\n").as_bytes());
    }

    fn error(&mut self, status: Status) {
        let text = format!("{status} {}\n", reason(status));
        let more = if status == 503 { "Retry-After: 1\r\n" } else { "" };
        self.bytes(status, more, "text/plain; charset=utf-8", text.as_bytes());
    }

    fn not_allowed(&mut self, methods: &str) {
        let allow = format!("Allow: {methods}\r\n");
        if self.request.method == "OPTIONS" {
            self.head(204, &allow);
        } else {
            self.bytes(405, &allow, "text/plain; charset=utf-8", b"405 Method Not Allowed\n");
        }
    }

    fn bytes(&mut self, status: Status, more: &str, kind: &str, body: &[u8]) {
        let length = body.len();
        self.head(status, &format!("{more}Content-Type: {kind}\r\nContent-Length: {length}\r\n"));
        if self.request.method != "HEAD" {
            self.out.extend_from_slice(body);
        }
    }

    fn file(&mut self, file: File) -> Option<Sending> {
        let modified = httpdate::fmt_http_date(file.modified);
        let known =
            format!("ETag: {}\r\nLast-Modified: {modified}\r\nAccept-Ranges: bytes\r\n", file.tag);
        if file.is_known(self.request) {
            self.head(304, &known);
            return None;
        }
        let (status, range, more) = match file.part(self.request) {
            Ok(None) => (200, 0..file.size, String::new()),
            Ok(Some(range)) => {
                let (first, last, size) = (range.start, range.end - 1, file.size);
                (206, range, format!("Content-Range: bytes {first}-{last}/{size}\r\n"))
            }
            Err(status) => {
                let more = format!("Content-Range: bytes */{}\r\n", file.size);
                self.bytes(
                    status,
                    &more,
                    "text/plain; charset=utf-8",
                    b"416 Range Not Satisfiable\n",
                );
                return None;
            }
        };
        let Range { start, end } = range;
        let (length, kind) = (end - start, file.kind);
        // The digest of what a browser may make of it is not ours to guess at.
        self.head(
            status,
            &format!(
                "{known}{more}Content-Type: {kind}\r\nContent-Length: {length}\r\n\
                 X-Content-Type-Options: nosniff\r\n"
            ),
        );
        if self.request.method == "HEAD" || length == 0 {
            return None;
        }
        let mut sending = Sending { fd: file.fd, offset: start, left: length };
        if length <= SMALL {
            sending.read(self.out);
        }
        (sending.left > 0).then_some(sending)
    }

    /// The head. It says whether the connection stays where the version of the protocol does not.
    fn head(&mut self, status: Status, more: &str) {
        self.server.requests.fetch_add(1, Ordering::Relaxed);
        let stays = match (self.request.keep_alive, self.request.old) {
            (true, true) => "Connection: keep-alive\r\n",
            (true, false) => "",
            (false, _) => "Connection: close\r\n",
        };
        let date = httpdate::fmt_http_date(SystemTime::now());
        let reason = reason(status);
        let head = format!("HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n{more}{stays}\r\n");
        self.out.put_slice(head.as_bytes());
    }
}

impl Sending {
    /// Reads as much as there is. Of what is left, sending says why it is not there.
    fn read(&mut self, out: &mut BytesMut) {
        let before = out.len();
        let length = usize::try_from(self.left).unwrap_or(0);
        out.resize(before + length, 0);
        let read = rustix::io::pread(&self.fd, &mut out[before..], self.offset).unwrap_or(0);
        out.truncate(before + read);
        self.offset += read as u64;
        self.left -= read as u64;
    }
}

fn reason(status: Status) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}
