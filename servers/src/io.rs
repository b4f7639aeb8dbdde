//! Bytes from and to a non-blocking socket, as many as there are and no more than a bound.

use bytes::{Buf, BytesMut};
use std::{
    cell::RefCell,
    io::{self, Read, Write},
};

/// How much is asked for at once.
const CHUNK: usize = 64 * 1024;

thread_local! {
    /// What is read comes here first: a buffer of its own size would have to be zeroed for each read,
    /// and held by connections that are idle.
    static ARRIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

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
    ARRIVED.with_borrow_mut(|arrived| {
        while buffer.len() < limit {
            let room = CHUNK.min(limit - buffer.len());
            match sock.read(&mut arrived[..room]) {
                Ok(0) => return Ok(Filled::Ended),
                Ok(read) => buffer.extend_from_slice(&arrived[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Filled::Drained);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Filled::More)
    })
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
