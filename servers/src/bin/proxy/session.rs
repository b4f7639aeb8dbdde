//! A client and a backend, and what is on its way between them. Knows nothing of pollers.

use amy::Notification;
use amy_servers::drain;
use bytes::BytesMut;
use socket2::SockRef;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

/// How often a direction may be read in one turn, before it is the others' turn.
const READS: usize = 4;

/// One of the two sockets, and what its edges have told that was not used up yet.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) sock: TcpStream,
    pub(crate) id: usize,
    readable: bool,
    writable: bool,
    /// The end or an error may wait behind the data. A read that is short does not exclude it.
    closed: bool,
}

impl End {
    pub(crate) fn new(sock: TcpStream, id: usize) -> End {
        End { sock, id, readable: false, writable: false, closed: false }
    }

    pub(crate) fn note(&mut self, n: Notification) {
        self.readable |= n.event.readable();
        self.writable |= n.event.writable();
        self.closed |= n.is_read_closed() || n.is_error();
    }

    /// Makes its closing a reset: the peer must not take it for an end. See socket(7), SO_LINGER.
    pub(crate) fn reset(&self) {
        let _ = SockRef::from(&self.sock).set_linger(Some(Duration::ZERO));
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// What was read and not written yet: never more than one read. While there is any, nothing is
    /// read, so that a sender is as slow as its receiver. Without a buffer when it is empty.
    rest: BytesMut,
    ended: bool,
    /// The end has been passed on, too: nothing more will happen here.
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The sockets will say when there is more to do.
    Waits,
    /// There is more to do now, of which no notification will tell.
    More,
}

impl Flow {
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Moves what there is, up to a bound, and sets `moved` if there was any. `space` is anybody's.
    pub(crate) fn turn(
        &mut self,
        from: &mut End,
        to: &mut End,
        space: &mut [u8],
        moved: &mut bool,
    ) -> io::Result<Turn> {
        for _ in 0..READS {
            if !self.rest.is_empty() {
                if !to.writable {
                    return Ok(Turn::Waits);
                }
                let before = self.rest.len();
                to.writable = drain(&mut to.sock, &mut self.rest)?;
                *moved |= self.rest.len() < before;
                if !to.writable {
                    return Ok(Turn::Waits);
                }
                self.rest = BytesMut::new();
            }
            if self.ended {
                if !self.over {
                    self.over = true;
                    to.sock.shutdown(Shutdown::Write)?;
                }
                return Ok(Turn::Waits);
            }
            if !from.readable {
                return Ok(Turn::Waits);
            }
            match from.sock.read(space) {
                Ok(0) => self.ended = true,
                Ok(read) => {
                    *moved = true;
                    // Less than there was room for: that was all, and more makes an edge (epoll(7)).
                    from.readable = read == space.len() || from.closed;
                    let written = match to.sock.write(&space[..read]) {
                        Ok(written) => written,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                        Err(error) => return Err(error),
                    };
                    // It stays writable after a short write, until another one says that it is not.
                    to.writable = true;
                    self.rest.extend_from_slice(&space[written..read]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => from.readable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Turn::More)
    }
}
