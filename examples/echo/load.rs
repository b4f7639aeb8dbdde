//! The clients: a few threads, each with a poller and a share of the connections.
//!
//! This is the other common layout: one thread that waits and owns its sockets. Every byte that comes
//! back is compared with what was sent.

use crate::server::FRAME_MAX;
use amy::{Event, FrameReader, FrameWriter, IdMap, Poller};
use hdrhistogram::Histogram;
use std::{
    collections::VecDeque,
    fmt, io,
    net::{SocketAddr, TcpStream},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

const THREADS_MAX: usize = 2;
const PROGRESS: Duration = Duration::from_millis(500);
/// Nothing more is sent on a connection while this much of it waits.
const UNSENT_MAX: usize = 256 * 1024;
/// How long echoes may take to come in after the last frame was sent.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// What to put on the server.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) time: Duration,
    pub(crate) size: usize,
    pub(crate) pipeline: usize,
}

impl Default for Load {
    fn default() -> Load {
        Load { connections: 64, time: Duration::from_secs(3), size: 64, pipeline: 1 }
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) messages: u64,
    elapsed: Duration,
    latency: Histogram<u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        writeln!(
            f,
            "{} messages, each echoed byte for byte: {:.0} messages/s",
            self.messages,
            self.messages as f64 / self.elapsed.as_secs_f64()
        )?;
        write!(f, "latency in us:")?;
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            write!(f, "  {name} {:.1}", micros(self.latency.value_at_quantile(quantile)))?;
        }
        write!(f, "  max {:.1}", micros(self.latency.max()))
    }
}

impl Load {
    /// Runs to its end, and calls `progress` with the number of echoes so far every now and then.
    pub(crate) fn run(
        &self,
        server: SocketAddr,
        mut progress: impl FnMut(u64),
    ) -> io::Result<Report> {
        let threads = THREADS_MAX.min(self.connections);
        let echoed = AtomicU64::new(0);
        let mut latency = new_histogram();
        let start = Instant::now();

        thread::scope(|scope| {
            let (done, results) = mpsc::channel();
            for number in 0..threads {
                let share = (number..self.connections).step_by(threads);
                let (done, echoed) = (done.clone(), &echoed);
                scope.spawn(move || {
                    let client = Client::connect(self, share, server);
                    let _ = done.send(client.and_then(|client| client.run(echoed)));
                });
            }
            drop(done);
            loop {
                match results.recv_timeout(PROGRESS) {
                    Ok(result) => latency += result?,
                    Err(RecvTimeoutError::Timeout) => progress(echoed.load(Ordering::Relaxed)),
                    Err(RecvTimeoutError::Disconnected) => return io::Result::Ok(()),
                }
            }
        })?;
        Ok(Report { messages: echoed.into_inner(), elapsed: start.elapsed(), latency })
    }
}

/// One thread's share.
struct Client<'a> {
    load: &'a Load,
    poller: Poller,
    connections: IdMap<Conn>,
    /// A place to make what is to be sent, and what should have come back.
    scratch: Vec<u8>,
    latency: Histogram<u64>,
}

impl Client<'_> {
    fn connect(
        load: &Load,
        share: impl Iterator<Item = usize>,
        server: SocketAddr,
    ) -> io::Result<Client<'_>> {
        let poller = Poller::new()?;
        let registrar = poller.get_registrar();
        let mut connections = IdMap::default();
        for number in share {
            let sock = TcpStream::connect(server)?;
            sock.set_nonblocking(true)?;
            sock.set_nodelay(true)?;
            let id = registrar.register(&sock, Event::Both)?;
            connections.insert(id, Conn::new(sock, number as u64));
        }
        let (scratch, latency) = (vec![0; load.size], new_histogram());
        Ok(Client { load, poller, connections, scratch, latency })
    }

    fn run(mut self, echoed: &AtomicU64) -> io::Result<Histogram<u64>> {
        let registrar = self.poller.get_registrar();
        let end = registrar.set_timeout(self.load.time)?;
        let too_late = registrar.set_timeout(self.load.time + DRAIN_MAX)?;

        let mut sending = true;
        let mut awaited: usize = 0;
        for conn in self.connections.values_mut() {
            awaited += conn.send(self.load.pipeline, &mut self.scratch)?;
        }
        while sending || awaited > 0 {
            for n in self.poller.wait(None)? {
                if n.id == end.get_id() {
                    sending = false;
                } else if n.id == too_late.get_id() {
                    let message = format!("{awaited} echoes did not come in {DRAIN_MAX:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                } else if let Some(conn) = self.connections.get_mut(&n.id) {
                    let came = conn.receive(&mut self.scratch, &mut self.latency)?;
                    echoed.fetch_add(came as u64, Ordering::Relaxed);
                    awaited -= came;
                    if sending {
                        awaited += conn.send(self.load.pipeline, &mut self.scratch)?;
                    } else {
                        conn.writer.write(&mut conn.sock, None)?;
                    }
                }
            }
        }
        Ok(self.latency)
    }
}

struct Conn {
    sock: TcpStream,
    reader: FrameReader,
    writer: FrameWriter,
    /// Makes the frames of one connection differ from those of another.
    number: u64,
    /// When each frame that is on its way was sent, the oldest first.
    sent: VecDeque<Instant>,
    /// How many frames have come back.
    returned: u64,
}

impl Conn {
    fn new(sock: TcpStream, number: u64) -> Conn {
        Conn {
            sock,
            reader: FrameReader::new(FRAME_MAX),
            writer: FrameWriter::new(),
            number,
            sent: VecDeque::new(),
            returned: 0,
        }
    }

    /// Brings the frames on their way up to `pipeline`, and returns how many were sent for that.
    fn send(&mut self, pipeline: usize, scratch: &mut [u8]) -> io::Result<usize> {
        let before = self.sent.len();
        while self.sent.len() < pipeline && self.writer.queued_bytes() < UNSENT_MAX {
            fill(scratch, self.number, self.returned + self.sent.len() as u64);
            self.writer.push(&*scratch)?;
            self.sent.push_back(Instant::now());
        }
        self.writer.flush(&mut self.sock)?;
        Ok(self.sent.len() - before)
    }

    /// Takes what came back, compares it, and returns how many frames there were.
    fn receive(&mut self, scratch: &mut [u8], latency: &mut Histogram<u64>) -> io::Result<usize> {
        let before = self.returned;
        while self.reader.read(&mut self.sock)? > 0 {
            let now = Instant::now();
            for frame in self.reader.iter_mut() {
                fill(scratch, self.number, self.returned);
                let sent = self.sent.pop_front().filter(|_| *frame == *scratch);
                let Some(sent) = sent else {
                    let message = format!(
                        "echo {} of connection {} differs from what was sent",
                        self.returned, self.number
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                };
                let nanos = now.duration_since(sent).as_nanos();
                latency.saturating_record(u64::try_from(nanos).unwrap_or(u64::MAX));
                self.returned += 1;
            }
        }
        Ok(usize::try_from(self.returned - before).expect("as many as were sent"))
    }
}

/// What frame `number` of a connection carries: different for each, and easy to make again.
fn fill(frame: &mut [u8], connection: u64, number: u64) {
    let mut state = (connection << 32 ^ number).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for chunk in frame.chunks_mut(8) {
        // Xorshift, by G. Marsaglia.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// Nanoseconds, up to a minute, to three digits.
fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are sound")
}
