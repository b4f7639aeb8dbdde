//! Files below a directory, and none from anywhere else.

use crate::request::{Request, Status};
use rustix::{
    fs::{self, CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{
    ffi::CString,
    io,
    ops::Range,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The directory whose files are served.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

#[derive(Debug)]
pub(crate) enum Found {
    File(File),
    /// A directory, asked for without the slash at the end that its links need.
    Directory,
}

#[derive(Debug)]
pub(crate) struct File {
    pub(crate) fd: OwnedFd,
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
    pub(crate) tag: String,
    pub(crate) kind: &'static str,
}

impl Root {
    /// Fails also on a kernel where a path could lead out of the directory.
    pub(crate) fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Root(fs::openat(CWD, path, flags, Mode::empty())?);
        match root.beneath(c".") {
            Err(Errno::NOSYS) => {
                let why = "openat2 is needed to stay in the root (Linux 5.6)";
                Err(io::Error::new(io::ErrorKind::Unsupported, why))
            }
            opened => opened.map(|_| root).map_err(io::Error::from),
        }
    }

    /// The kernel walks the path, and refuses each step out, also by a symlink that is put there at
    /// this moment. Checking first and opening later could not see that.
    fn beneath(&self, path: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
        // A FIFO that nobody writes to would block.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        fs::openat2(&self.0, path, flags, Mode::empty(), resolve)
    }

    /// What is at the encoded path, which begins with a slash.
    pub(crate) fn find(&self, path: &str) -> Result<Found, Status> {
        let decoded = decode(path)?;
        let mut relative = Vec::with_capacity(decoded.len() + 10);
        for part in decoded.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(400),
                // Not meant for the public, but for the one directory that is (RFC 8615).
                [b'.', ..] if part != b".well-known" => return Err(404),
                part => relative.extend_from_slice(part),
            }
            relative.push(b'/');
        }
        if decoded.ends_with(b"/") {
            relative.extend_from_slice(b"index.html");
        } else {
            relative.pop();
        }
        let kind = kind(&relative);
        let relative = CString::new(relative).map_err(|_| 400_u16)?;
        let fd = self.beneath(&relative).map_err(|errno| match errno {
            Errno::ACCESS | Errno::PERM => 403_u16,
            // Out of descriptors or memory, or a directory was moved meanwhile: later, perhaps.
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => 503,
            _ => 404,
        })?;
        let stat = fs::fstat(&fd).map_err(|_| 500_u16)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory if !decoded.ends_with(b"/") => return Ok(Found::Directory),
            _ => return Err(404),
        }
        let size = u64::try_from(stat.st_size).map_err(|_| 500_u16)?;
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        let tag = format!("\"{seconds:x}-{:x}-{size:x}\"", stat.st_mtime_nsec);
        let modified = UNIX_EPOCH + Duration::from_secs(seconds);
        Ok(Found::File(File { fd, size, modified, tag, kind }))
    }
}

impl File {
    /// Whether the client has it already (RFC 9110, 13.2.2).
    pub(crate) fn is_known(&self, request: &Request) -> bool {
        match (&request.if_none_match, request.if_modified_since) {
            (Some(tags), _) => tags
                .split(',')
                .map(|tag| tag.trim().trim_start_matches("W/"))
                .any(|tag| tag == "*" || tag == self.tag),
            (None, Some(since)) => self.modified <= since,
            (None, None) => false,
        }
    }

    /// The part that is asked for, `None` for all of it. 416 if there is no such part. What is not
    /// understood, and several parts at once, mean all of it, as RFC 9110, 14.2 allows.
    pub(crate) fn part(&self, request: &Request) -> Result<Option<Range<u64>>, Status> {
        let changed = request.if_range.as_ref().is_some_and(|known| {
            *known != self.tag && httpdate::parse_http_date(known).ok() != Some(self.modified)
        });
        let range = request.range.as_deref().and_then(|range| range.strip_prefix("bytes="));
        let Some((first, last)) = range.and_then(|range| range.trim().split_once('-')) else {
            return Ok(None);
        };
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            // More digits than fit mean beyond any end.
            true if !text.is_empty() => Some(text.parse().unwrap_or(u64::MAX)),
            _ => None,
        };
        let range = match (number(first), number(last)) {
            _ if changed => return Ok(None),
            (Some(first), Some(last)) if first <= last => {
                first..last.saturating_add(1).min(self.size)
            }
            (Some(first), None) if last.is_empty() => first..self.size,
            (None, Some(length)) if first.is_empty() => self.size.saturating_sub(length)..self.size,
            _ => return Ok(None),
        };
        if range.start < range.end { Ok(Some(range)) } else { Err(416) }
    }
}

/// Undoes percent-encoding; half an escape is refused, so that there is one reading of each path.
fn decode(path: &str) -> Result<Vec<u8>, Status> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let (mut bytes, mut decoded) = (path.bytes(), Vec::with_capacity(path.len()));
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => u8::try_from(high * 16 + low).map_err(|_| 400_u16)?,
                _ => return Err(400),
            },
            byte => byte,
        });
    }
    Ok(decoded)
}

fn kind(path: &[u8]) -> &'static str {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let Some(dot) = name.iter().rposition(|byte| *byte == b'.') else {
        return "application/octet-stream";
    };
    match name[dot + 1..].to_ascii_lowercase().as_slice() {
        b"html" | b"htm" => "text/html; charset=utf-8",
        b"css" => "text/css; charset=utf-8",
        b"js" | b"mjs" => "text/javascript; charset=utf-8",
        b"txt" | b"md" => "text/plain; charset=utf-8",
        b"json" | b"map" => "application/json",
        b"xml" => "application/xml",
        b"wasm" => "application/wasm",
        b"pdf" => "application/pdf",
        b"png" => "image/png",
        b"jpg" | b"jpeg" => "image/jpeg",
        b"gif" => "image/gif",
        b"webp" => "image/webp",
        b"avif" => "image/avif",
        b"svg" => "image/svg+xml",
        b"ico" => "image/x-icon",
        b"woff2" => "font/woff2",
        b"mp4" => "video/mp4",
        b"webm" => "video/webm",
        b"mp3" => "audio/mpeg",
        _ => "application/octet-stream",
    }
}
