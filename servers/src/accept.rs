//! Connections up to a limit. Whoever is above it waits in the kernel's backlog and is served in the end.

use crate::Stop;
use amy::{Event, Notifier, Poller, Sender, Timer};
use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// How long to rest when the process is out of descriptors and a connection cannot be accepted.
const REST: Duration = Duration::from_millis(100);

/// How many connections the kernel may keep ready, if the system allows as many (`somaxconn`). With the
/// 128 of std, a burst of clients overruns the queue, and each that is dropped waits a second to try again.
const BACKLOG: i32 = 4096;

/// A new connection, non-blocking, without Nagle's delay.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub sock: TcpStream,
    /// Keep it for as long as the connection is open.
    pub place: Place,
}

/// One of the connections that may be open at a time. Its drop makes room for another.
#[derive(Debug)]
pub struct Place(Arc<Places>);

#[derive(Debug)]
struct Places {
    taken: AtomicUsize,
    limit: usize,
    freed: Notifier,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Only the acceptor adds, and it stops at the limit: below it nobody waits for a place. A
        // poller that is gone accepts nothing more.
        if self.0.taken.fetch_sub(1, Ordering::AcqRel) == self.0.limit {
            let _ = self.0.freed.notify();
        }
    }
}

/// The thread that accepts, and waits for the end.
#[derive(Debug)]
pub struct Acceptor {
    poller: Poller,
    listener: TcpListener,
    /// Keeps what `stop_id` is registered for.
    _stop: Stop,
    stop_id: usize,
    places: Arc<Places>,
    /// Set while there was no descriptor left for the next connection.
    again: Option<Timer>,
}

impl Acceptor {
    /// For `listener`, with at most `limit` connections at a time.
    ///
    /// # Errors
    ///
    /// Those of [`Poller::new`], [`amy::Registrar::register`] and listen(2).
    pub fn new(listener: TcpListener, stop: Stop, limit: usize) -> io::Result<Acceptor> {
        let poller = Poller::new()?;
        let registrar = poller.get_registrar();
        listener.set_nonblocking(true)?;
        // Again, for a listener that listens already: this changes the queue's length alone.
        rustix::net::listen(&listener, BACKLOG)?;
        registrar.register(&listener, Event::Read)?;
        let stop_id = registrar.register(&stop, Event::Read)?;
        let places =
            Arc::new(Places { taken: AtomicUsize::new(0), limit, freed: registrar.notifier()? });
        Ok(Acceptor { poller, listener, _stop: stop, stop_id, places, again: None })
    }

    /// Hands the connections out, to one receiver after the other, until a signal says to end, or
    /// one of the receivers is gone. Then nobody listens any more.
    ///
    /// # Errors
    ///
    /// Those of [`Poller::wait`] and accept(2), but for those that a client or a lack of
    /// descriptors causes.
    pub fn run(mut self, receivers: &[Sender<Accepted>]) -> io::Result<()> {
        let registrar = self.poller.get_registrar();
        let mut receivers = receivers.iter().cycle();
        while !self.poller.wait(None)?.iter().any(|n| n.id == self.stop_id) {
            // A connection, a place that was freed, the end of a rest: all mean to try again.
            self.again = None;
            while self.places.taken.load(Ordering::Acquire) < self.places.limit {
                match accept(&self.listener) {
                    Ok(Some(sock)) => {
                        self.places.taken.fetch_add(1, Ordering::AcqRel);
                        let place = Place(Arc::clone(&self.places));
                        // A connection that fails at once is its own trouble.
                        if sock.set_nonblocking(true).and(sock.set_nodelay(true)).is_err() {
                            continue;
                        }
                        let Some(receiver) = receivers.next() else { return Ok(()) };
                        if receiver.send(Accepted { sock, place }).is_err() {
                            return Ok(());
                        }
                    }
                    Ok(None) => break,
                    // Out of descriptors or memory. The edge is spent, so nobody would say when
                    // there is room again: ask in a while.
                    Err(_) => {
                        self.again = Some(registrar.set_timeout(REST)?);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A listener, or the line to say when there can be none.
///
/// # Errors
///
/// A line with the address and what the system said.
pub fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Takes the next connection from a non-blocking listener; `None` if there is none now.
///
/// # Errors
///
/// Those of accept(2) that say nothing of the connection: no descriptor or no memory is left.
pub fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    loop {
        match listener.accept() {
            Ok((sock, _)) => return Ok(Some(sock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // The client has hung up already; see accept(2) for others of this kind.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

/// As many descriptors as the system lets this process have.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it, fewer connections can be open, and the rest wait.
    let _ = setrlimit(Resource::Nofile, limit);
}
