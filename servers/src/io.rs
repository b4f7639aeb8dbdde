//! Bytes from and to a non-blocking socket, as many as there are and no more than a bound.

use bytes::{Buf, BytesMut};
use std::io::{self, Read, Write};

/// How much is asked for at once.
const CHUNK: usize = 16 * 1024;

/// Why [`fill`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// There is nothing more to read now: a notification will say when there is.
    Drained,
    /// There may be more, of which no notification will tell.
    More,
    /// The peer has closed its half.
    Ended,
}

/// Reads into `buffer` until there is nothing more, or it holds `limit` bytes.
///
/// # Errors
///
/// Those of read(2), but for EAGAIN and EINTR. What was read before stays in `buffer`.
pub fn fill(sock: &mut impl Read, buffer: &mut BytesMut, limit: usize) -> io::Result<Filled> {
    while buffer.len() < limit {
        let old = buffer.len();
        buffer.resize(old + CHUNK.min(limit - old), 0);
        let read = sock.read(&mut buffer[old..]);
        buffer.truncate(old + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Ok(Filled::Ended),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Filled::Drained),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Filled::More)
}

/// Writes what `buffer` holds, and returns whether all of it has left.
///
/// # Errors
///
/// Those of write(2), but for EAGAIN and EINTR.
pub fn drain(sock: &mut impl Write, buffer: &mut BytesMut) -> io::Result<bool> {
    while !buffer.is_empty() {
        match sock.write(buffer) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => buffer.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
