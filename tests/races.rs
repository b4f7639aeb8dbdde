//! Many threads at once: no id is told after its `deregister`, none that nobody has, no edge is lost.
//!
//! Some threads register, change, remove, close and reopen (so that descriptor numbers are used again
//! all the time), set and cancel timers, notify and send; others wait and write down what they are told.
//! Everybody takes a number from one counter before and after a call, and when a round is over what was
//! told is held against what was done.
//!
//! `AMY_RACE_OPERATIONS` says how many operations there are to be; `ci/races.sh` asks for more of them.

use amy::{Event, IdMap, Interest, Notifier, Poller, Receiver, Registrar, Sender, Timer};
use std::{
    env,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::TryRecvError,
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// Only something that hangs takes longer.
const LONG: Duration = Duration::from_secs(60);

const MUTATORS: usize = 4;
/// Short enough that the log of a round is small.
const OPERATIONS_A_ROUND: u64 = 100_000;

#[test]
fn nothing_is_lost_or_told_late_among_many_threads() {
    let operations = env::var("AMY_RACE_OPERATIONS").ok();
    let operations = operations.map_or(OPERATIONS_A_ROUND, |n| n.parse().expect("a number"));

    let start = Instant::now();
    let mut totals = Totals::default();
    let mut newest = 0;
    let mut round = 0;
    while totals.operations < operations {
        round += 1;
        let share =
            (operations - totals.operations).min(OPERATIONS_A_ROUND).div_ceil(MUTATORS as u64);
        newest = play(round, share, newest, &mut totals);
        if round % 500 == 0 {
            println!("races: {} operations after {:.0?}", totals.operations, start.elapsed());
        }
    }
    println!("races: {totals:?} in {round} rounds, {:.1?}", start.elapsed());
}

#[derive(Debug, Default)]
struct Totals {
    operations: u64,
    ids: usize,
    removed: usize,
    edges_awaited: u64,
    told: usize,
}

/// What everybody takes numbers from, and where those who await an edge are told of it.
struct Board {
    clock: AtomicU64,
    /// How many operations were begun.
    begun: AtomicU64,
    /// When each id was told last; ids that far apart are not in use at the same time.
    told: Vec<AtomicU64>,
    desks: Vec<Desk>,
}

/// Where a mutator waits, and the receiver that it shares with the waiters.
#[derive(Default)]
struct Desk {
    mutator: OnceLock<Thread>,
    awaited: AtomicUsize,
    inbox: Mutex<Option<Inbox>>,
    /// How many messages had been received when there was none left.
    received: AtomicU64,
}

struct Inbox {
    rx: Receiver<u64>,
    next: u64,
}

impl Board {
    const IDS: usize = 1 << 18;

    fn new() -> Board {
        let told = (0..Board::IDS).map(|_| AtomicU64::new(0)).collect();
        let desks = (0..MUTATORS).map(|_| Desk::default()).collect();
        Board { clock: AtomicU64::new(1), begun: AtomicU64::new(0), told, desks }
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// For a waiter: receives what there is, if `id` is a receiver, and wakes who awaits it.
    fn tell(&self, id: usize, now: u64) {
        self.told[id % Board::IDS].fetch_max(now, Ordering::SeqCst);
        for desk in &self.desks {
            desk.receive(id);
            if desk.awaited.load(Ordering::SeqCst) == id {
                desk.mutator.get().expect("a thread").unpark();
            }
        }
    }

    /// Whether some `wait` that returned after `since` has told `id`.
    fn was_told(&self, id: usize, since: u64) -> bool {
        self.told[id % Board::IDS].load(Ordering::SeqCst) > since
    }
}

impl Desk {
    /// Receives what there is, if the receiver is the one of `id`: nobody is woken for what is
    /// received in the name of another.
    fn receive(&self, id: usize) {
        let mut inbox = self.inbox.lock().unwrap();
        let Some(Inbox { rx, next }) = inbox.as_mut().filter(|inbox| inbox.rx.get_id() == id)
        else {
            return;
        };
        loop {
            match rx.try_recv() {
                Ok(number) => {
                    assert_eq!(number, *next, "from one sender, in its order");
                    *next += 1;
                }
                // Disconnected when the mutator is done.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    self.received.store(*next, Ordering::SeqCst);
                    return;
                }
            }
        }
    }

    /// Waits until something holds that a waiter brings about when it is told of `id`.
    fn wait_until(&self, id: usize, holds: impl Fn() -> bool) {
        // Set before looking: a waiter that made it hold since then finds this.
        self.awaited.store(id, Ordering::SeqCst);
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < LONG, "nobody was told of {id}");
            thread::park_timeout(LONG);
        }
        self.awaited.store(0, Ordering::SeqCst);
    }
}

/// One notification: the numbers were taken before and after the `wait` that told it.
struct Told {
    id: usize,
    began: u64,
    ended: u64,
}

/// What a mutator did.
#[derive(Default)]
struct Deeds {
    operations: u64,
    edges_awaited: u64,
    born: Vec<usize>,
    /// Ids that no `wait` may tell that began later.
    dead: Vec<(usize, u64)>,
    /// How often an id may be told at the most. Ids that may be told any number of times are not here.
    most: IdMap<u64>,
    /// Ids that no `wait` may tell that began after the first number and returned before the second.
    silent: Vec<(usize, u64, u64)>,
}

/// Plays one round, checks it, and returns the newest id.
fn play(round: u64, share: u64, newest: usize, totals: &mut Totals) -> usize {
    let mut random = Random::new(round);
    let board = Board::new();
    let poller = Poller::with_capacity([1, 2, 5, 1024][random.below(4)]).unwrap();
    let registrar = poller.get_registrar();
    let stop = registrar.notifier().unwrap();
    let waiters = 1 + random.below(3);
    // Where everything is awaited, threads take turns; where little is, they race.
    let haste = 1 + random.below(16);

    let (told, deeds) = thread::scope(|scope| {
        let waiters: Vec<_> = (0..waiters)
            .map(|_| {
                let poller = poller.try_clone().unwrap();
                scope.spawn(|| wait(poller, &board, &stop))
            })
            .collect();
        let mutators: Vec<_> = (0..MUTATORS)
            .map(|number| {
                let random = Random::new(round * MUTATORS as u64 + number as u64);
                let mutator =
                    Mutator::new(registrar.clone(), &board, &board.desks[number], random, haste);
                scope.spawn(move || mutator.run(share))
            })
            .collect();
        let deeds: Vec<Deeds> = mutators.into_iter().map(|m| m.join().unwrap()).collect();
        stop.notify().unwrap();
        let told: Vec<Told> = waiters.into_iter().flat_map(|w| w.join().unwrap()).collect();
        (told, deeds)
    });

    totals.told += told.len();
    for deeds in &deeds {
        totals.operations += deeds.operations;
        totals.ids += deeds.born.len();
        totals.removed += deeds.dead.len();
        totals.edges_awaited += deeds.edges_awaited;
    }
    check(round, newest, stop.get_id(), &told, &deeds)
}

fn check(round: u64, newest: usize, stop: usize, told: &[Told], deeds: &[Deeds]) -> usize {
    let mut born = IdMap::default();
    born.insert(stop, 0_u64);
    for &id in deeds.iter().flat_map(|deeds| &deeds.born) {
        assert!(id > newest, "round {round}: {id} was handed out before");
        assert!(born.insert(id, 0).is_none(), "round {round}: {id} was handed out twice");
    }
    let dead: IdMap<u64> = deeds.iter().flat_map(|deeds| deeds.dead.iter().copied()).collect();
    let mut silent: IdMap<Vec<(u64, u64)>> = IdMap::default();
    for &(id, from, to) in deeds.iter().flat_map(|deeds| &deeds.silent) {
        silent.entry(id).or_default().push((from, to));
    }

    for &Told { id, began, ended } in told {
        let times = born.get_mut(&id);
        *times.unwrap_or_else(|| panic!("round {round}: {id} is nobody's id")) += 1;
        if let Some(&removed) = dead.get(&id) {
            assert!(
                began < removed,
                "round {round}: {id}, removed at {removed}, told {began}..{ended}"
            );
        }
        if let Some(silent) = silent.get(&id) {
            // The first that ends after `began`; they are in order and do not overlap.
            let next = silent.partition_point(|&(_, to)| to <= ended);
            if let Some(&(from, to)) = silent.get(next) {
                assert!(
                    began < from,
                    "round {round}: {id}, empty {from}..{to}, told {began}..{ended}"
                );
            }
        }
    }
    for (id, most) in deeds.iter().flat_map(|deeds| &deeds.most) {
        assert!(born[id] <= *most, "round {round}: {id} told {} times, not {most}", born[id]);
    }
    born.into_keys().max().unwrap_or(newest)
}

fn wait(mut poller: Poller, board: &Board, stop: &Notifier) -> Vec<Told> {
    let mut log = Vec::new();
    loop {
        let begun = board.begun.load(Ordering::Relaxed);
        let began = board.now();
        // Longer than a mutator waits, which so is the first to see what is lost.
        let batch = poller.wait(2 * LONG).unwrap();
        let ended = board.now();
        // The other waiters may be told everything, for as long as a busy machine likes.
        let idle = board.begun.load(Ordering::Relaxed) == begun;
        assert!(!(batch.is_empty() && idle), "everybody sleeps");
        let mut over = false;
        for n in batch {
            log.push(Told { id: n.id, began, ended });
            board.tell(n.id, ended);
            over |= n.id == stop.get_id();
        }
        if over {
            // The others are to stop as well.
            stop.notify().unwrap();
            return log;
        }
    }
}

/// A thread that does everything that a registrar can do.
struct Mutator<'a> {
    registrar: Registrar,
    board: &'a Board,
    desk: &'a Desk,
    random: Random,
    /// Awaits one in so many of the things that it may await or not.
    haste: usize,
    deeds: Deeds,
    sockets: Vec<Socket>,
    timers: Vec<Timer>,
    notifiers: Vec<(Notifier, u64)>,
    channel: Option<Channel>,
}

struct Socket {
    here: UnixStream,
    there: UnixStream,
    registration: Option<Registration>,
    /// Each edge is awaited before the next; else edges run into one another.
    careful: bool,
}

#[derive(Clone, Copy)]
struct Registration {
    id: usize,
    interest: Interest,
    /// How often it may be told, if it was only ever registered to be told once.
    most: Option<u64>,
    /// It was told once, and is silent until it is registered again.
    spent: bool,
    /// When it last became ready.
    edge: Option<u64>,
}

struct Channel {
    tx: Sender<u64>,
    sent: u64,
    /// Since when it has been empty.
    empty: u64,
}

impl<'a> Mutator<'a> {
    fn new(
        registrar: Registrar,
        board: &'a Board,
        desk: &'a Desk,
        random: Random,
        haste: usize,
    ) -> Mutator<'a> {
        let sockets = (0..8).map(|number| Socket::new(number % haste == 0)).collect();
        Mutator {
            registrar,
            board,
            desk,
            random,
            haste,
            deeds: Deeds::default(),
            sockets,
            timers: Vec::new(),
            notifiers: Vec::new(),
            channel: None,
        }
    }

    fn run(mut self, operations: u64) -> Deeds {
        self.desk.mutator.set(thread::current()).expect("a desk of its own");
        while self.deeds.operations < operations {
            match self.random.below(16) {
                0..10 => self.socket(),
                10..12 => self.timer(),
                12..15 => self.notifier(),
                _ => self.channel(),
            }
        }
        for number in 0..self.sockets.len() {
            self.settle(number);
            self.deregister(number);
        }
        while let Some((notifier, notified)) = self.notifiers.pop() {
            self.deeds.most.insert(notifier.get_id(), notified);
        }
        self.deeds
    }

    /// Counts an operation, and takes a number before it.
    fn begin(&mut self) -> u64 {
        self.deeds.operations += 1;
        self.board.begun.fetch_add(1, Ordering::Relaxed);
        self.board.now()
    }

    fn bear(&mut self, id: usize) -> usize {
        self.deeds.born.push(id);
        id
    }

    fn bury(&mut self, id: usize) {
        self.deeds.dead.push((id, self.board.now()));
    }

    fn await_told(&mut self, id: usize, since: u64) {
        self.deeds.edges_awaited += 1;
        self.desk.wait_until(id, || self.board.was_told(id, since));
    }

    fn socket(&mut self) {
        let number = self.random.below(self.sockets.len());
        let registered = self.sockets[number].registration.is_some();
        match self.random.below(8) {
            _ if !registered => self.register(number),
            0..4 => self.send_byte(number),
            4..6 => self.reregister(number),
            6 => {
                self.settle(number);
                self.deregister(number);
            }
            _ => self.reopen(number),
        }
        if self.sockets[number].careful {
            self.settle(number);
        }
    }

    fn register(&mut self, number: usize) {
        let interest = self.interest();
        let since = self.begin();
        let id = self.registrar.register(&self.sockets[number].there, interest).unwrap();
        self.bear(id);
        let most = interest_is_once(interest).then_some(1);
        let registration = Registration { id, interest, most, spent: false, edge: None };
        let socket = &mut self.sockets[number];
        let spent = socket.is_ready(interest);
        let edge = spent.then_some(since);
        socket.registration = Some(Registration { spent, edge, ..registration });
    }

    fn reregister(&mut self, number: usize) {
        let interest = self.interest();
        let since = self.begin();
        let socket = &mut self.sockets[number];
        let before = socket.registration.expect("it is registered");
        self.registrar.reregister(before.id, &socket.there, interest).unwrap();
        let spent = socket.is_ready(interest);
        let most = before.most.filter(|_| interest_is_once(interest)).map(|most| most + 1);
        let edge = spent.then_some(since);
        socket.registration = Some(Registration { interest, most, spent, edge, ..before });
    }

    /// A byte arrives: an edge for those who ask for reading.
    fn send_byte(&mut self, number: usize) {
        let since = self.begin();
        let socket = &mut self.sockets[number];
        if self.random.below(2) == 0 {
            socket.drain();
        }
        match socket.here.write(b"x") {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
        if let Some(registration) = &mut socket.registration {
            let once = interest_is_once(registration.interest);
            if registration.interest.event().readable() && !(once && registration.spent) {
                registration.edge = Some(since);
                registration.spent = true;
            }
        }
    }

    fn deregister(&mut self, number: usize) {
        let Some(Registration { id, most, .. }) = self.sockets[number].registration.take() else {
            return;
        };
        self.begin();
        self.registrar.deregister(&self.sockets[number].there).unwrap();
        self.bury(id);
        if let Some(most) = most {
            self.deeds.most.insert(id, most);
        }
    }

    /// Closes it, and opens another, which takes a number that was just given up, here or by
    /// another thread. What is only closed may be told until the kernel has let go of it.
    fn reopen(&mut self, number: usize) {
        if self.random.below(4) > 0 {
            self.deregister(number);
        }
        self.begin();
        let old = self.sockets.swap_remove(number);
        let careful = old.careful;
        drop(old);
        self.sockets.push(Socket::new(careful));
        let last = self.sockets.len() - 1;
        self.sockets.swap(number, last);
    }

    /// Waits for the edge that the socket's last change must have given.
    fn settle(&mut self, number: usize) {
        let registration = self.sockets[number].registration.as_mut();
        if let Some((id, since)) = registration.and_then(|r| Some((r.id, r.edge.take()?))) {
            self.await_told(id, since);
        }
    }

    fn timer(&mut self) {
        let since = self.begin();
        let after = Duration::from_micros(self.random.below(300) as u64);
        match self.random.below(8) {
            0 => {
                let timer = self.registrar.set_timeout(after).unwrap();
                let id = self.bear(timer.get_id());
                self.await_told(id, since);
                self.cancel(timer);
            }
            1 => {
                let timer = self.registrar.set_interval(after + Duration::from_micros(1)).unwrap();
                let id = self.bear(timer.get_id());
                self.await_told(id, since);
                let since = self.begin();
                assert!(timer.arm() > 0);
                self.await_told(id, since);
                self.cancel(timer);
            }
            2..5 if !self.timers.is_empty() => {
                let place = self.random.below(self.timers.len());
                let timer = self.timers.swap_remove(place);
                self.cancel(timer);
            }
            5 if !self.timers.is_empty() => {
                let place = self.random.below(self.timers.len());
                self.timers[place].reset(after).unwrap();
            }
            _ => {
                let timer = self.registrar.set_timeout(after).unwrap();
                self.bear(timer.get_id());
                self.timers.push(timer);
            }
        }
    }

    fn cancel(&mut self, timer: Timer) {
        self.begin();
        let id = timer.get_id();
        self.registrar.cancel_timeout(timer).unwrap();
        self.bury(id);
    }

    fn notifier(&mut self) {
        if self.notifiers.len() < 4 {
            self.begin();
            let notifier = self.registrar.notifier().unwrap();
            self.bear(notifier.get_id());
            self.notifiers.push((notifier, 0));
        }
        let place = self.random.below(self.notifiers.len());
        let since = self.begin();
        let (notifier, notified) = &mut self.notifiers[place];
        notifier.notify().unwrap();
        *notified += 1;
        let (id, notified) = (notifier.get_id(), *notified);
        match self.random.below(8) {
            0..4 if self.random.below(self.haste) == 0 => self.await_told(id, since),
            7 => {
                self.notifiers.swap_remove(place);
                self.deeds.most.insert(id, notified);
            }
            _ => {}
        }
    }

    /// Sends, and waits until all of it is received; or drops the receiver with messages in it.
    fn channel(&mut self) {
        let mut channel = match self.channel.take() {
            Some(channel) => channel,
            None => {
                self.begin();
                let (tx, rx) = self.registrar.channel().unwrap();
                let empty = self.board.now();
                self.bear(rx.get_id());
                *self.desk.inbox.lock().unwrap() = Some(Inbox { rx, next: 0 });
                self.desk.received.store(0, Ordering::SeqCst);
                Channel { tx, sent: 0, empty }
            }
        };
        let id = channel.tx.get_id();
        let since = self.begin();
        self.deeds.silent.push((id, channel.empty, since));
        for _ in 0..1 + self.random.below(4) {
            channel.tx.send(channel.sent).unwrap();
            channel.sent += 1;
        }
        if self.random.below(8) == 0 {
            *self.desk.inbox.lock().unwrap() = None;
            self.bury(id);
            assert_eq!(channel.tx.send(7).unwrap_err().0, 7);
            return;
        }
        self.deeds.edges_awaited += 1;
        let sent = channel.sent;
        self.desk.wait_until(id, || self.desk.received.load(Ordering::SeqCst) == sent);
        channel.empty = self.board.now();
        self.channel = Some(channel);
    }

    fn interest(&mut self) -> Interest {
        let event = [Event::Read, Event::Write, Event::Both][self.random.below(3)];
        if self.random.below(4) == 0 { event.once() } else { event.into() }
    }
}

impl Socket {
    fn new(careful: bool) -> Socket {
        let (here, there) = UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        there.set_nonblocking(true).unwrap();
        Socket { here, there, registration: None, careful }
    }

    fn drain(&mut self) {
        while self.there.read(&mut [0; 256]).is_ok_and(|n| n == 256) {}
    }

    /// Whether there is something to tell of it under `interest`. There is always room to write.
    fn is_ready(&self, interest: Interest) -> bool {
        interest.event().writable() || rustix::io::ioctl_fionread(&self.there).unwrap() > 0
    }
}

fn interest_is_once(interest: Interest) -> bool {
    interest == interest.once()
}

/// The same numbers each time (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit as u64).unwrap()
    }
}
