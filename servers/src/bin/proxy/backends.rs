//! Who is connected to next, and the checks that say who is up. Shared by all threads, without a lock.

use amy::{Event, IdMap, Poller, Receiver, Registrar, Timer};
use amy_servers::log;
use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// As many as there are bits to note who was tried.
pub(crate) const BACKENDS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balance {
    RoundRobin,
    LeastConnections,
}

#[derive(Debug)]
struct Backend {
    address: SocketAddr,
    /// Until the first check says otherwise.
    up: AtomicBool,
    /// Connections that are open or being opened, of all threads.
    active: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct Backends {
    all: Vec<Backend>,
    balance: Balance,
    turn: AtomicUsize,
}

/// One connection's share of a backend. Its drop takes it off the count.
#[derive(Debug)]
pub(crate) struct Share {
    backends: Arc<Backends>,
    pub(crate) index: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.backends.all[self.index].active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Backends {
    pub(crate) fn new(addresses: &[SocketAddr], balance: Balance) -> Backends {
        let all = addresses.iter().map(|&address| Backend {
            address,
            up: AtomicBool::new(true),
            active: AtomicUsize::new(0),
        });
        Backends { all: all.collect(), balance, turn: AtomicUsize::new(0) }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.all[index].address
    }

    /// The next one that is not in `tried` (a bit for each). One that is down is the last resort: the
    /// checks may be wrong, and a client that is refused for sure loses nothing by it.
    pub(crate) fn pick(self: &Arc<Backends>, tried: u64) -> Option<Share> {
        let index = self.choose(tried, true).or_else(|| self.choose(tried, false))?;
        self.all[index].active.fetch_add(1, Ordering::Relaxed);
        Some(Share { backends: Arc::clone(self), index })
    }

    fn choose(&self, tried: u64, up: bool) -> Option<usize> {
        let candidates = || {
            let all = self.all.iter().enumerate();
            all.filter(move |(i, b)| tried >> i & 1 == 0 && b.up.load(Ordering::Relaxed) == up)
        };
        // Others may go up or down between the two passes; then `nth` finds nobody, and the first
        // will do. Counted among the candidates alone, the turn of one that is down is shared by all.
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % candidates().count().max(1);
        match self.balance {
            Balance::RoundRobin => candidates().nth(first).or_else(|| candidates().next()),
            // Equals take turns, or the first would get all the connections that are short.
            Balance::LeastConnections => candidates()
                .skip(first)
                .chain(candidates().take(first))
                .min_by_key(|(_, backend)| backend.active.load(Ordering::Relaxed)),
        }
        .map(|(index, _)| index)
    }

    /// Says whether `index` is up, and returns whether that is news.
    pub(crate) fn mark(&self, index: usize, up: bool) -> bool {
        self.all[index].up.swap(up, Ordering::Relaxed) != up
    }
}

/// A connection that is being opened: writable when it is open or has failed.
pub(crate) fn connect(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok(socket),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Ok(socket)
        }
        Err(error) => Err(error),
    }
}

/// Whether a failed connect is no fault of the backend: this process or machine has run out of
/// something, and it passes.
pub(crate) fn is_ours(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // NOSPC is of `register`; ADDRNOTAVAIL and AGAIN mean that the ports have run out.
    let passing = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::NOSPC,
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
    ];
    passing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// When a backend is up again, and when it is down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    pub(crate) interval: Duration,
    /// Successes in a row after which it is up, and failures after which it is down.
    pub(crate) rise: usize,
    pub(crate) fall: usize,
}

/// The thread that checks.
pub(crate) struct Checker {
    poller: Poller,
    registrar: Registrar,
    backends: Arc<Backends>,
    checks: Checks,
    ticks: Timer,
    /// Those that a worker could not connect to, and has marked as down: to be said.
    failures: Receiver<(usize, io::Error)>,
    under_way: IdMap<(usize, Socket)>,
    /// For each backend, how many checks in a row did not agree with what is held of it.
    against: Vec<usize>,
}

impl Checker {
    pub(crate) fn new(
        poller: Poller,
        backends: Arc<Backends>,
        checks: Checks,
        failures: Receiver<(usize, io::Error)>,
    ) -> io::Result<Checker> {
        let registrar = poller.get_registrar();
        let ticks = registrar.set_interval(checks.interval)?;
        let against = vec![0; backends.len()];
        let under_way = IdMap::default();
        Ok(Checker { poller, registrar, backends, checks, ticks, failures, under_way, against })
    }

    /// Checks until every worker is gone.
    pub(crate) fn run(mut self) -> io::Result<()> {
        self.begin();
        loop {
            for n in self.poller.wait(None)?.to_vec() {
                if n.id == self.ticks.get_id() {
                    self.ticks.arm();
                    // One interval is long enough for a connection.
                    let late = self.under_way.drain().map(|(_, check)| check).collect::<Vec<_>>();
                    for (index, socket) in late {
                        self.registrar.deregister(socket)?;
                        self.judge(index, Err(io::ErrorKind::TimedOut.into()));
                    }
                    self.begin();
                } else if n.id == self.failures.get_id() {
                    loop {
                        match self.failures.try_recv() {
                            Ok((index, error)) => {
                                self.against[index] = 0;
                                self.say(index, Err(error));
                            }
                            Err(std::sync::mpsc::TryRecvError::Empty) => break,
                            Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(()),
                        }
                    }
                } else if n.event.writable() {
                    let Some((index, socket)) = self.under_way.remove(&n.id) else { continue };
                    let outcome = socket.take_error()?.map_or(Ok(()), Err);
                    self.registrar.deregister(socket)?;
                    self.judge(index, outcome);
                }
            }
        }
    }

    fn begin(&mut self) {
        for index in 0..self.backends.len() {
            let begun = connect(self.backends.address(index))
                .and_then(|socket| Ok((self.registrar.register(&socket, Event::Write)?, socket)));
            match begun {
                Ok((id, socket)) => {
                    self.under_way.insert(id, (index, socket));
                }
                // Says nothing about the backend.
                Err(error) if is_ours(&error) => {}
                Err(error) => self.judge(index, Err(error)),
            }
        }
    }

    fn judge(&mut self, index: usize, outcome: io::Result<()>) {
        let is_up = self.backends.all[index].up.load(Ordering::Relaxed);
        if outcome.is_ok() == is_up {
            self.against[index] = 0;
            return;
        }
        self.against[index] += 1;
        let enough = if is_up { self.checks.fall } else { self.checks.rise };
        if self.against[index] >= enough {
            self.against[index] = 0;
            if self.backends.mark(index, !is_up) {
                self.say(index, outcome);
            }
        }
    }

    /// On stderr, from this thread alone: a terminal that is stopped blocks nobody else.
    fn say(&self, index: usize, outcome: io::Result<()>) {
        let address = self.backends.address(index);
        match outcome {
            Ok(()) => log(format_args!("proxy: {address} is up")),
            Err(error) => log(format_args!("proxy: {address} is down: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(balance: Balance) -> Arc<Backends> {
        let addresses = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        Arc::new(Backends::new(&addresses, balance))
    }

    #[test]
    fn round_robin_shares_the_turn_of_one_that_is_down() {
        let backends = backends(Balance::RoundRobin);
        backends.mark(1, false);
        let mut counts = [0; 3];
        for _ in 0..100 {
            counts[backends.pick(0).unwrap().index] += 1;
        }
        assert_eq!(counts, [50, 0, 50]);
    }

    #[test]
    fn the_least_connections_are_kept_level() {
        let backends = backends(Balance::LeastConnections);
        let mut shares = (0..30).map(|_| backends.pick(0).unwrap()).collect::<Vec<_>>();
        let count = |shares: &[Share], index| shares.iter().filter(|s| s.index == index).count();
        assert_eq!([0, 1, 2].map(|index| count(&shares, index)), [10; 3]);

        shares.retain(|share| share.index != 2);
        shares.extend((0..10).map(|_| backends.pick(0).unwrap()));
        assert_eq!([0, 1, 2].map(|index| count(&shares, index)), [10; 3]);
    }

    #[test]
    fn each_is_tried_once_and_one_that_is_down_last() {
        for balance in [Balance::RoundRobin, Balance::LeastConnections] {
            let backends = backends(balance);
            backends.mark(0, false);
            let mut tried = 0;
            let mut order = Vec::new();
            while let Some(share) = backends.pick(tried) {
                tried |= 1 << share.index;
                order.push(share.index);
            }
            assert_eq!(order[2], 0, "{order:?}");
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
    }
}
