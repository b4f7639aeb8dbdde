//! A connection: TLS in the middle, frames above, a socket below.
//!
//! An edge of the socket says nothing of what rustls holds, or of what waits in a frame writer. So each
//! turn goes through all layers, from the socket's writing side up and down again, and ends only when
//! the socket itself would block, or with [`Next::Again`].

use amy::{FrameError, FrameReader, FrameWriter, Notification};
use amy_servers::{Next, Place};
use rustls::{ServerConfig, ServerConnection};
use std::{
    error::Error,
    io::{self, ErrorKind, Write},
    net::TcpStream,
    sync::Arc,
};

/// A client that does not read its echoes is not read from while this much waits for it, beside the
/// 64 KiB that rustls may hold encrypted.
const UNSENT_MAX: usize = 256 * 1024;

/// How many records may be read in one turn, before it is the others' turn.
const READS: usize = 16;

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) sock: TcpStream,
    tls: ServerConnection,
    reader: FrameReader,
    writer: FrameWriter,
    /// There may be something to read. Nobody will say so again.
    readable: bool,
    /// The client has said that it is done (close_notify); it gets the rest of its echoes.
    finished: bool,
    /// Something came or left since this was last asked for.
    pub(crate) moved: bool,
    _place: Place,
}

impl Conn {
    pub(crate) fn new(
        sock: TcpStream,
        place: Place,
        config: &Arc<ServerConfig>,
        frame_max: u32,
    ) -> Result<Conn, rustls::Error> {
        Ok(Conn {
            sock,
            tls: ServerConnection::new(Arc::clone(config))?,
            reader: FrameReader::new(frame_max),
            writer: FrameWriter::new(),
            readable: false,
            finished: false,
            moved: false,
            _place: place,
        })
    }

    pub(crate) fn note(&mut self, n: Notification) {
        self.readable |= n.event.readable();
    }

    /// Goes on with the handshake, and returns whether it is done.
    pub(crate) fn handshake(&mut self) -> io::Result<bool> {
        loop {
            if !self.write_records()? {
                return Ok(false);
            }
            if !self.tls.is_handshaking() {
                return Ok(true);
            }
            if !self.readable || !self.read_records()? {
                return Ok(false);
            }
        }
    }

    /// Echoes a bounded amount.
    pub(crate) fn turn(&mut self) -> io::Result<Next> {
        for _ in 0..READS {
            // What waits above goes down first. Each round of it empties rustls's buffer, which is
            // smaller than what may wait.
            loop {
                if !self.write_records()? {
                    return Ok(Next::Wait);
                }
                if self.writer.is_empty() {
                    break;
                }
                self.writer.writable();
                self.writer.write(&mut Plain(&mut self.tls), None)?;
            }
            if self.finished {
                return Ok(Next::Remove);
            }
            match self.echo() {
                Ok(()) => {}
                Err(error) if is_end(&error) => {
                    self.finished = true;
                    continue;
                }
                Err(error) => return Err(error),
            }
            if self.writer.is_empty() && !self.tls.wants_write() {
                if !self.readable {
                    return Ok(Next::Wait);
                }
                self.read_records()?;
            }
        }
        Ok(Next::Again)
    }

    /// Echoes what rustls has decrypted.
    fn echo(&mut self) -> io::Result<()> {
        while self.writer.queued_bytes() <= UNSENT_MAX
            && self.reader.read(&mut self.tls.reader())? > 0
        {
            for frame in self.reader.iter_mut() {
                self.writer.push(frame)?;
            }
            self.writer.flush(&mut Plain(&mut self.tls))?;
        }
        Ok(())
    }

    /// Says that nothing more will come, if the socket takes it now. After [`Next::Remove`] it is the
    /// answer to the client's own.
    pub(crate) fn close(&mut self) {
        self.tls.send_close_notify();
        let _ = self.write_records();
    }

    /// Makes the end of the socket a reset, which no client takes for an end.
    pub(crate) fn reset(&self) {
        let linger = Some(std::time::Duration::ZERO);
        let _ = socket2::SockRef::from(&self.sock).set_linger(linger);
    }

    /// Writes what rustls has encrypted, and returns whether all of it has left.
    fn write_records(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.sock) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => self.moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads once and decrypts that, and returns whether there may be more.
    fn read_records(&mut self) -> io::Result<bool> {
        match self.tls.read_tls(&mut self.sock) {
            // The end of the socket. Whether it is one of the connection, the reader says.
            Ok(0) => {
                self.readable = self.tls.is_handshaking();
                if self.readable {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(_) => self.moved = true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(false);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        }
        if let Err(error) = self.tls.process_new_packets() {
            // The alert that says why.
            let _ = self.write_records();
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(true)
    }
}

/// What is written is encrypted. Where rustls says that it took nothing, a writer has to wait.
struct Plain<'a>(&'a mut ServerConnection);

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.writer().write(bytes)? {
            0 if !bytes.is_empty() => Err(ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether it is a clean end between two frames: announced by the client's close_notify. An end of the
/// socket without that is an error, as somebody in between may have cut it off.
fn is_end(error: &io::Error) -> bool {
    let inner = error.get_ref().map(|inner| inner as &(dyn Error + 'static));
    inner.and_then(|inner| inner.downcast_ref()) == Some(&FrameError::Closed)
}
