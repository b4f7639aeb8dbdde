//! An echo server whose two threads wait on one queue, and which checks everything it is told.

use crate::{Field, LONG, is_exhausted};
use amy::{
    Event, FrameReader, FrameWriter, IdMap, Interest, Notification, Notifier, Poller, Receiver,
    Registrar, Sender, SyncSender, Timer,
};
use rustix::{
    process::{Signal, kill_process},
    thread::{Pid, gettid},
};
use std::{
    collections::VecDeque,
    fmt,
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::TryRecvError,
    },
    thread,
    time::{Duration, Instant},
};

pub(crate) const FRAME_MAX: u32 = 1 << 20;
/// Those who do not read their echoes are not read from while this much waits for them.
const UNSENT_MAX: usize = 256 * 1024;
const BOUND: usize = 64;
const PERIOD: Duration = Duration::from_millis(3);

pub(crate) struct Server {
    poller: Mutex<Option<Poller>>,
    registrar: Registrar,
    listener: TcpListener,
    listener_id: usize,
    stop: Notifier,
    conns: Mutex<IdMap<Arc<Shared>>>,
    served: AtomicUsize,
    /// There was no descriptor for a connection, and no notification will tell of it again.
    refused: AtomicBool,
    refusals: AtomicU64,
    inboxes: [Inbox; 2],
    senders: Mutex<Option<(Sender<u64>, SyncSender<u64>)>>,
    timers: Mutex<Timers>,
    interval: Timer,
    started: Instant,
    ticks: AtomicU64,
    waiters: Mutex<Vec<Pid>>,
    signals: AtomicU64,
}

struct Shared {
    /// Told to a waiter that has not registered it again.
    owned: AtomicBool,
    conn: Mutex<Conn>,
}

struct Conn {
    sock: TcpStream,
    reader: FrameReader,
    writer: FrameWriter,
    /// The client sends no more.
    ended: bool,
}

/// A receiver that whichever waiter is told empties.
struct Inbox {
    id: usize,
    rx: Mutex<Receiver<u64>>,
    received: AtomicU64,
}

#[derive(Default)]
struct Timers {
    running: IdMap<(Instant, Timer)>,
    /// The last that were cancelled: a batch that was on its way may hold them.
    cancelled: VecDeque<usize>,
    told: u64,
    set: u64,
}

impl Server {
    pub(crate) fn new(listener: TcpListener) -> Server {
        let poller = Poller::with_capacity(64).unwrap();
        let registrar = poller.get_registrar();
        listener.set_nonblocking(true).unwrap();
        let listener_id = registrar.register(&listener, Event::Read).unwrap();
        let (tx, rx) = registrar.channel().unwrap();
        let (bounded_tx, bounded_rx) = registrar.sync_channel(BOUND).unwrap();
        let started = Instant::now();
        Server {
            poller: Mutex::new(Some(poller)),
            listener,
            listener_id,
            stop: registrar.notifier().unwrap(),
            conns: Mutex::default(),
            served: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
            refusals: AtomicU64::new(0),
            inboxes: [rx, bounded_rx].map(Inbox::new),
            senders: Mutex::new(Some((tx, bounded_tx))),
            timers: Mutex::default(),
            interval: registrar.set_interval(PERIOD).unwrap(),
            started,
            ticks: AtomicU64::new(0),
            waiters: Mutex::default(),
            signals: AtomicU64::new(0),
            registrar,
        }
    }

    /// One of the threads that wait.
    pub(crate) fn wait(&self) {
        let mut poller = self.poller.lock().unwrap().as_ref().unwrap().try_clone().unwrap();
        self.waiters.lock().unwrap().push(gettid());
        loop {
            let ticks = self.ticks.load(Ordering::SeqCst);
            let batch = poller.wait(LONG).unwrap();
            // The other one may be told everything.
            let idle = self.ticks.load(Ordering::SeqCst) == ticks;
            assert!(!(batch.is_empty() && idle), "everybody sleeps");
            for n in batch {
                if n.id == self.stop.get_id() {
                    // The other one is to stop as well.
                    self.stop.notify().unwrap();
                    return;
                }
                self.handle(n);
            }
        }
    }

    fn handle(&self, n: Notification) {
        if n.id == self.listener_id {
            return self.accept();
        }
        if n.id == self.interval.get_id() {
            self.ticks.fetch_add(self.interval.arm(), Ordering::SeqCst);
            if self.refused.swap(false, Ordering::SeqCst) {
                self.accept();
            }
            return;
        }
        if let Some(inbox) = self.inboxes.iter().find(|inbox| inbox.id == n.id) {
            return inbox.receive();
        }
        // Held while a connection is registered, so that it is here when it is told.
        let shared = self.conns.lock().unwrap().get(&n.id).cloned();
        match shared {
            Some(shared) => self.serve(n, &shared),
            None => self.timers.lock().unwrap().told(n.id),
        }
    }

    fn accept(&self) {
        loop {
            match self.listener.accept() {
                Ok((sock, _)) => {
                    sock.set_nonblocking(true).unwrap();
                    let mut conns = self.conns.lock().unwrap();
                    let id = self.registrar.register(&sock, Event::Read.once()).unwrap();
                    let (reader, writer) = (FrameReader::new(FRAME_MAX), FrameWriter::new());
                    let conn = Conn { sock, reader, writer, ended: false };
                    let shared = Shared { owned: AtomicBool::new(false), conn: Mutex::new(conn) };
                    conns.insert(id, Arc::new(shared));
                    self.served.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) if is_exhausted(&error) => {
                    self.refused.store(true, Ordering::SeqCst);
                    self.refusals.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn serve(&self, n: Notification, shared: &Shared) {
        let owned = shared.owned.swap(true, Ordering::SeqCst);
        assert!(!owned, "{n:?} was told to the other waiter, and not registered again");
        let mut conn = shared.conn.lock().unwrap();
        match conn.turn() {
            Some(interest) => {
                shared.owned.store(false, Ordering::SeqCst);
                self.registrar.reregister(n.id, &conn.sock, interest).unwrap();
            }
            None => {
                self.registrar.deregister(&conn.sock).unwrap();
                self.conns.lock().unwrap().remove(&n.id).expect("its owner alone removes it");
            }
        }
    }

    /// Sends as long as not too much waits to be received.
    pub(crate) fn send(&self, field: &Field) {
        let tx = self.senders.lock().unwrap().as_ref().unwrap().0.clone();
        let mut sent = 0;
        while !field.is_over() {
            for _ in 0..100 {
                tx.send(sent).unwrap();
                sent += 1;
            }
            while sent - self.inboxes[0].received.load(Ordering::SeqCst) > 1000 {
                thread::yield_now();
            }
        }
        self.inboxes[0].expect(sent);
    }

    pub(crate) fn send_bounded(&self, field: &Field) {
        let tx = self.senders.lock().unwrap().as_ref().unwrap().1.clone();
        let mut sent = 0;
        while !field.is_over() {
            tx.send(sent).unwrap();
            sent += 1;
            if sent % 16 == 0 {
                thread::yield_now();
            }
        }
        self.inboxes[1].expect(sent);
    }

    /// Sets timers, cancels some, and sees to it that all others are told.
    pub(crate) fn set_timers(&self, field: &Field) {
        let mut seed = 1_u64;
        while !field.is_over() {
            for _ in 0..20 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let after = Duration::from_micros(seed >> 50);
                let mut timers = self.timers.lock().unwrap();
                let due = Instant::now() + after;
                let timer = self.registrar.set_timeout(after).unwrap();
                let id = timer.get_id();
                timers.running.insert(id, (due, timer));
                timers.set += 1;
                if seed >> 40 & 3 == 0 {
                    timers.cancel(id);
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        let start = Instant::now();
        while !self.timers.lock().unwrap().running.is_empty() {
            assert!(start.elapsed() < LONG, "a timer was not told");
            thread::yield_now();
        }
    }

    /// Signals to the waiting threads, a thousand a second.
    pub(crate) fn interrupt(&self, field: &Field) {
        while !field.is_over() {
            for &waiter in self.waiters.lock().unwrap().iter() {
                // A signal to a thread's number goes to that thread if it does not block it.
                kill_process(waiter, Signal::USR1).unwrap();
                self.signals.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// When the clients are gone: sees to it that so is everything else, and stops the waiters.
    pub(crate) fn finish(&self) {
        *self.senders.lock().unwrap() = None;
        let start = Instant::now();
        while !self.conns.lock().unwrap().is_empty() {
            assert!(start.elapsed() < LONG, "a connection was not ended");
            thread::yield_now();
        }
        self.stop.notify().unwrap();
        *self.poller.lock().unwrap() = None;

        let ticks = u128::from(self.ticks.load(Ordering::SeqCst));
        let past = self.started.elapsed().as_nanos() / PERIOD.as_nanos();
        assert!(ticks <= past && ticks > 0, "{ticks} ticks in the time of {past}");
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timers = self.timers.lock().unwrap();
        f.debug_struct("Server")
            .field("connections", &self.served)
            .field("refused_for_a_while", &self.refusals)
            .field("received", &self.inboxes.each_ref().map(|i| i.received.load(Ordering::SeqCst)))
            .field("timers_set", &timers.set)
            .field("timers_told", &timers.told)
            .field("ticks", &self.ticks)
            .field("signals", &self.signals)
            .finish_non_exhaustive()
    }
}

impl Conn {
    /// Echoes a bounded amount, and returns what to wait for; `None` when the connection is over.
    fn turn(&mut self) -> Option<Interest> {
        if self.writer.flush(&mut self.sock).is_err() {
            return None;
        }
        if !self.ended && self.writer.queued_bytes() < UNSENT_MAX {
            match self.reader.read(&mut self.sock) {
                Ok(_) => {
                    for frame in self.reader.iter_mut() {
                        self.writer.push(frame).unwrap();
                    }
                }
                // All that the client sent before it closed its half.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.ended = true,
                Err(_) => return None,
            }
            if self.writer.flush(&mut self.sock).is_err() {
                return None;
            }
        }
        // What is registered again is told again if there is something left.
        match (self.ended, self.writer.is_empty()) {
            (true, true) => None,
            (false, true) => Some(Event::Read.once()),
            (false, false) if self.writer.queued_bytes() < UNSENT_MAX => Some(Event::Both.once()),
            _ => Some(Event::Write.once()),
        }
    }
}

impl Inbox {
    fn new(rx: Receiver<u64>) -> Inbox {
        Inbox { id: rx.get_id(), rx: Mutex::new(rx), received: AtomicU64::new(0) }
    }

    fn receive(&self) {
        let rx = self.rx.lock().unwrap();
        // Not all there may be: the rest is told again.
        for _ in 0..200 {
            match rx.try_recv() {
                Ok(number) => {
                    let expected = self.received.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(number, expected, "each message once and in order");
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn expect(&self, sent: u64) {
        let start = Instant::now();
        while self.received.load(Ordering::SeqCst) < sent {
            assert!(start.elapsed() < LONG, "a message was not received");
            thread::yield_now();
        }
        assert_eq!(self.received.load(Ordering::SeqCst), sent);
    }
}

impl Timers {
    fn told(&mut self, id: usize) {
        match self.running.remove(&id) {
            Some((due, _)) => {
                assert!(Instant::now() >= due, "told early");
                self.told += 1;
            }
            None => assert!(self.cancelled.contains(&id), "{id} is nobody's id, or told twice"),
        }
    }

    fn cancel(&mut self, id: usize) {
        self.running.remove(&id);
        self.cancelled.push_back(id);
        if self.cancelled.len() > 1000 {
            self.cancelled.pop_front();
        }
    }
}
