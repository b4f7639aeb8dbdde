//! Messages to a thread that waits in a poller: as many as will go, and one at a time back and forth.

use crate::{
    harness::{Contender, Took, Turn, Work},
    kit,
};
use rustix::event::epoll::{self, EventData, EventFlags};
use std::{
    collections::VecDeque,
    ops::Range,
    os::fd::OwnedFd,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

/// A channel into a poller.
pub trait Mailbox: 'static {
    type Sender: Clone + Send + 'static;
    /// What becomes the receiver on the thread where it is to be used.
    type Seed: Send + 'static;
    type Receiver: 'static;

    fn make() -> (Self::Sender, Self::Seed);
    fn open(seed: Self::Seed) -> Self::Receiver;
    fn send(sender: &mut Self::Sender, message: u64);
    /// Waits until so many messages have come, and adds them up.
    fn take(receiver: &mut Self::Receiver, count: u64) -> u64;
}

macro_rules! contenders {
    ($turn:ident $arguments:tt: $($name:literal $mailbox:ty),* $(,)?) => {
        vec![$(Contender::new($name, move || $turn::<$mailbox> $arguments)),*]
    };
}

pub fn works() -> Vec<Work> {
    let mut works = Vec::new();
    for producers in [1, 2] {
        let plural = if producers == 1 { "producer" } else { "producers" };
        let mut work =
            Work::new("channel", format!("channel-{producers}"), format!("{producers} {plural}"));
        work.unit = "message";
        work.ops = 100_000;
        work.rounds = 31;
        work.contenders = contenders![throughput (producers):
            "raw" Raw, "raw, fused" Fused, "amy" Amy, "amy 0.10" Amy010,
            "crossbeam + mio" CrossbeamMio<false>, "crossbeam + mio, flag" CrossbeamMio<true>,
            "crossbeam + polling" CrossbeamPolling, "calloop" Calloop, "tokio" Tokio,
        ];
        works.push(work);
    }
    let mut work = Work::new("ping-pong", "ping-pong", "two pollers");
    work.unit = "round trip";
    work.ops = 300;
    work.rounds = 61;
    work.counted = Some((50, 250));
    work.contenders = contenders![ping_pong ():
        "raw" Raw, "raw, fused" Fused, "amy" Amy, "amy 0.10" Amy010,
        "crossbeam + mio" CrossbeamMio<false>, "crossbeam + mio, flag" CrossbeamMio<true>,
        "crossbeam + polling" CrossbeamPolling, "calloop" Calloop, "tokio" Tokio,
    ];
    works.push(work);
    // What a send costs by itself: the receiver runs on the same thread and is never asleep.
    let mut work = Work::new("channel", "send", "one thread, 100 at a time");
    work.unit = "message";
    work.ops = 20_000;
    work.contenders = contenders![alone ():
        "raw" Raw, "raw, fused" Fused, "amy" Amy, "amy 0.10" Amy010,
        "crossbeam + mio" CrossbeamMio<false>, "crossbeam + mio, flag" CrossbeamMio<true>,
        "crossbeam + polling" CrossbeamPolling, "calloop" Calloop, "tokio" Tokio,
    ];
    works.push(work);
    works
}

fn throughput<M: Mailbox>(producers: usize) -> Turn {
    let (sender, seed) = M::make();
    let mut receiver = M::open(seed);
    let mut senders = vec![sender; producers];
    Box::new(move |ops| {
        let share = ops / producers as u64;
        let start = Barrier::new(producers + 1);
        let mut sum = 0;
        let took = thread::scope(|scope| {
            let start = &start;
            let produce = |sender: &mut M::Sender, numbers: Range<u64>| {
                start.wait();
                Took::of(|| {
                    for number in numbers {
                        M::send(sender, number);
                    }
                })
            };
            let senders: Vec<_> = senders
                .iter_mut()
                .zip(0..)
                .map(|(sender, at)| {
                    scope.spawn(move || produce(sender, at * share..(at + 1) * share))
                })
                .collect();
            start.wait();
            let mut took = Took::of(|| sum = M::take(&mut receiver, share * producers as u64));
            for sender in senders {
                took.cpu_ns += sender.join().expect("a producer").cpu_ns;
            }
            took
        });
        let all = share * producers as u64;
        assert_eq!(sum, all * (all - 1) / 2, "every message comes once");
        took
    })
}

fn ping_pong<M: Mailbox>() -> Turn {
    // Made for each turn, since one side is opened on the other thread.
    Box::new(move |ops| {
        let (mut there, theirs) = M::make();
        let (mut here, mine) = M::make();
        let mut mine = M::open(mine);
        let ready = Barrier::new(2);
        thread::scope(|scope| {
            let ready = &ready;
            let other = scope.spawn(move || {
                let mut theirs = M::open(theirs);
                ready.wait();
                let cpu = kit::thread_cpu();
                for _ in 0..ops {
                    let message = M::take(&mut theirs, 1);
                    M::send(&mut here, message + 1);
                }
                kit::thread_cpu() - cpu
            });
            ready.wait();
            let mut each = Vec::with_capacity(ops as usize);
            let mut took = Took::of(|| {
                for number in 0..ops {
                    let start = Instant::now();
                    M::send(&mut there, number);
                    assert_eq!(M::take(&mut mine, 1), number + 1);
                    each.push(kit::since(start) as u64);
                }
            });
            took.cpu_ns += other.join().expect("the other side");
            took.each = each;
            took
        })
    })
}

fn alone<M: Mailbox>() -> Turn {
    let (mut sender, seed) = M::make();
    let mut receiver = M::open(seed);
    Box::new(move |ops| {
        Took::of(|| {
            for _ in 0..ops / 100 {
                for number in 0..100 {
                    M::send(&mut sender, number);
                }
                assert_eq!(M::take(&mut receiver, 100), 4950, "every message comes once");
            }
        })
    })
}

/// std's queue, and an eventfd behind a flag that says whether it has been written. A sender that
/// stalls between setting the flag and writing holds up all the others: that is the price of the
/// simplicity, and amy does not ask for it.
struct Raw;

#[derive(Clone)]
struct RawSender {
    queue: mpsc::Sender<u64>,
    wake: Arc<(OwnedFd, AtomicBool)>,
}

struct RawReceiver {
    poll: OwnedFd,
    queue: mpsc::Receiver<u64>,
    wake: Arc<(OwnedFd, AtomicBool)>,
    events: Vec<epoll::Event>,
}

/// An eventfd, and an epoll descriptor that waits for it.
fn wake_descriptors() -> (OwnedFd, OwnedFd) {
    let wake = kit::eventfds(1).remove(0);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a queue");
    let edge = EventFlags::IN | EventFlags::ET;
    epoll::add(&poll, &wake, EventData::new_u64(1), edge).expect("room");
    (poll, wake)
}

fn write_one(wake: &OwnedFd) {
    rustix::io::write(wake, &1u64.to_ne_bytes()).expect("room in the counter");
}

impl Mailbox for Raw {
    type Sender = RawSender;
    type Seed = RawSeed;
    type Receiver = RawReceiver;

    fn make() -> (RawSender, RawSeed) {
        let (poll, wake) = wake_descriptors();
        let wake = Arc::new((wake, AtomicBool::new(false)));
        let (sender, receiver) = mpsc::channel();
        (RawSender { queue: sender, wake: Arc::clone(&wake) }, (poll, receiver, wake))
    }

    fn open((poll, queue, wake): RawSeed) -> RawReceiver {
        RawReceiver { poll, queue, wake, events: Vec::with_capacity(1024) }
    }

    fn send(sender: &mut RawSender, message: u64) {
        sender.queue.send(message).expect("a receiver");
        if !sender.wake.1.swap(true, Ordering::AcqRel) {
            write_one(&sender.wake.0);
        }
    }

    fn take(receiver: &mut RawReceiver, count: u64) -> u64 {
        let (mut taken, mut sum) = (0, 0);
        while taken < count {
            receiver.events.clear();
            let events = rustix::buffer::spare_capacity(&mut receiver.events);
            epoll::wait(&receiver.poll, events, None).expect("a wait");
            receiver.wake.1.swap(false, Ordering::AcqRel);
            for message in receiver.queue.try_iter() {
                taken += 1;
                sum += message;
            }
        }
        sum
    }
}

type RawSeed = (OwnedFd, mpsc::Receiver<u64>, Arc<(OwnedFd, AtomicBool)>);

/// A queue that belongs to the poller: it says under the queue's lock that it will sleep, and only
/// then a sender writes.
struct Fused;

struct FusedShared {
    wake: OwnedFd,
    /// The messages, and whether the receiver sleeps and nobody has woken it.
    queue: Mutex<(VecDeque<u64>, bool)>,
}

struct FusedReceiver {
    poll: OwnedFd,
    shared: Arc<FusedShared>,
    at_hand: VecDeque<u64>,
    events: Vec<epoll::Event>,
}

impl Mailbox for Fused {
    type Sender = Arc<FusedShared>;
    type Seed = (OwnedFd, Arc<FusedShared>);
    type Receiver = FusedReceiver;

    fn make() -> (Arc<FusedShared>, Self::Seed) {
        let (poll, wake) = wake_descriptors();
        let shared = Arc::new(FusedShared { wake, queue: Mutex::default() });
        (Arc::clone(&shared), (poll, shared))
    }

    fn open((poll, shared): Self::Seed) -> FusedReceiver {
        FusedReceiver { poll, shared, at_hand: VecDeque::new(), events: Vec::with_capacity(1024) }
    }

    fn send(shared: &mut Arc<FusedShared>, message: u64) {
        let mut queue = shared.queue.lock().expect("a lock");
        queue.0.push_back(message);
        let asleep = std::mem::take(&mut queue.1);
        drop(queue);
        if asleep {
            write_one(&shared.wake);
        }
    }

    fn take(receiver: &mut FusedReceiver, count: u64) -> u64 {
        let (mut taken, mut sum) = (0, 0);
        while taken < count {
            let mut queue = receiver.shared.queue.lock().expect("a lock");
            std::mem::swap(&mut queue.0, &mut receiver.at_hand);
            queue.1 = receiver.at_hand.is_empty();
            drop(queue);
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let timeout = (!receiver.at_hand.is_empty()).then_some(&timeout);
            receiver.events.clear();
            let events = rustix::buffer::spare_capacity(&mut receiver.events);
            epoll::wait(&receiver.poll, events, timeout).expect("a wait");
            for message in receiver.at_hand.drain(..) {
                taken += 1;
                sum += message;
            }
        }
        sum
    }
}

struct Amy;

impl Mailbox for Amy {
    type Sender = amy::Sender<u64>;
    type Seed = (amy::Poller, amy::Receiver<u64>);
    type Receiver = (amy::Poller, amy::Receiver<u64>);

    fn make() -> (Self::Sender, Self::Seed) {
        let poller = amy::Poller::new().expect("a poller");
        let (sender, receiver) = poller.get_registrar().channel().expect("a channel");
        (sender, (poller, receiver))
    }

    fn open(seed: Self::Seed) -> Self::Receiver {
        seed
    }

    fn send(sender: &mut Self::Sender, message: u64) {
        sender.send(message).expect("a receiver");
    }

    fn take((poller, receiver): &mut Self::Receiver, count: u64) -> u64 {
        let (mut taken, mut sum) = (0, 0);
        while taken < count {
            for n in poller.wait(None).expect("a wait") {
                assert_eq!(n.id, receiver.get_id());
                for message in receiver.try_iter() {
                    taken += 1;
                    sum += message;
                }
            }
        }
        sum
    }
}

struct Amy010;

impl Mailbox for Amy010 {
    type Sender = amy010::Sender<u64>;
    type Seed = (amy010::Poller, amy010::Receiver<u64>);
    type Receiver = (amy010::Poller, amy010::Receiver<u64>);

    fn make() -> (Self::Sender, Self::Seed) {
        let poller = amy010::Poller::new().expect("a poller");
        let (sender, receiver) = poller.get_registrar().channel().expect("a channel");
        (sender, (poller, receiver))
    }

    fn open(seed: Self::Seed) -> Self::Receiver {
        seed
    }

    fn send(sender: &mut Self::Sender, message: u64) {
        sender.send(message).expect("a receiver");
    }

    fn take((poller, receiver): &mut Self::Receiver, count: u64) -> u64 {
        let (mut taken, mut sum) = (0, 0);
        while taken < count {
            for n in poller.wait(1_000_000).expect("a wait") {
                assert_eq!(n.id, receiver.get_id());
                while let Ok(message) = receiver.try_recv() {
                    taken += 1;
                    sum += message;
                }
            }
        }
        sum
    }
}

/// A waker beside the queue, written for each message or (`FLAG`) only by the first since the last
/// look.
struct CrossbeamMio<const FLAG: bool>;

struct CrossbeamSender<W> {
    queue: crossbeam_channel::Sender<u64>,
    waker: Arc<W>,
    announced: Arc<AtomicBool>,
}

impl<W> Clone for CrossbeamSender<W> {
    fn clone(&self) -> CrossbeamSender<W> {
        CrossbeamSender {
            queue: self.queue.clone(),
            waker: Arc::clone(&self.waker),
            announced: Arc::clone(&self.announced),
        }
    }
}

type CrossbeamSeed<P> =
    (P, crossbeam_channel::Receiver<u64>, Arc<AtomicBool>, Arc<dyn Send + Sync>);

impl<const FLAG: bool> Mailbox for CrossbeamMio<FLAG> {
    type Sender = CrossbeamSender<mio::Waker>;
    type Seed = CrossbeamSeed<mio::Poll>;
    type Receiver = (CrossbeamSeed<mio::Poll>, mio::Events);

    fn make() -> (Self::Sender, Self::Seed) {
        let poll = mio::Poll::new().expect("a poll");
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(1)).expect("a waker"));
        let (sender, receiver) = crossbeam_channel::unbounded();
        let announced = Arc::new(AtomicBool::new(false));
        let seed = (poll, receiver, Arc::clone(&announced), Arc::clone(&waker) as _);
        (CrossbeamSender { queue: sender, waker, announced }, seed)
    }

    fn open(seed: Self::Seed) -> Self::Receiver {
        (seed, mio::Events::with_capacity(1024))
    }

    fn send(sender: &mut Self::Sender, message: u64) {
        sender.queue.send(message).expect("a receiver");
        if !FLAG || !sender.announced.swap(true, Ordering::AcqRel) {
            sender.waker.wake().expect("a wake");
        }
    }

    fn take((seed, events): &mut Self::Receiver, count: u64) -> u64 {
        let (poll, queue, announced, _) = seed;
        let (mut taken, mut sum) = (0, 0);
        while taken < count {
            poll.poll(events, None).expect("a poll");
            if FLAG {
                announced.swap(false, Ordering::AcqRel);
            }
            for message in queue.try_iter() {
                taken += 1;
                sum += message;
            }
        }
        sum
    }
}

/// polling's own `notify`, which has such a flag inside.
struct CrossbeamPolling;

impl Mailbox for CrossbeamPolling {
    type Sender = CrossbeamSender<polling::Poller>;
    type Seed = CrossbeamSeed<Arc<polling::Poller>>;
    type Receiver = (CrossbeamSeed<Arc<polling::Poller>>, polling::Events);

    fn make() -> (Self::Sender, Self::Seed) {
        let poller = Arc::new(polling::Poller::new().expect("a poller"));
        let (sender, receiver) = crossbeam_channel::unbounded();
        let announced = Arc::new(AtomicBool::new(false));
        let seed =
            (Arc::clone(&poller), receiver, Arc::clone(&announced), Arc::clone(&poller) as _);
        (CrossbeamSender { queue: sender, waker: poller, announced }, seed)
    }

    fn open(seed: Self::Seed) -> Self::Receiver {
        (seed, polling::Events::with_capacity(1024.try_into().expect("more than none")))
    }

    fn send(sender: &mut Self::Sender, message: u64) {
        sender.queue.send(message).expect("a receiver");
        sender.waker.notify().expect("a wake");
    }

    fn take((seed, events): &mut Self::Receiver, count: u64) -> u64 {
        let (mut taken, mut sum) = (0, 0);
        while taken < count {
            events.clear();
            seed.0.wait(events, None).expect("a wait");
            for message in seed.1.try_iter() {
                taken += 1;
                sum += message;
            }
        }
        sum
    }
}

struct Calloop;

impl Mailbox for Calloop {
    type Sender = calloop::channel::Sender<u64>;
    type Seed = calloop::channel::Channel<u64>;
    type Receiver = calloop::EventLoop<'static, (u64, u64)>;

    fn make() -> (Self::Sender, Self::Seed) {
        calloop::channel::channel()
    }

    fn open(seed: Self::Seed) -> Self::Receiver {
        let events = calloop::EventLoop::try_new().expect("a loop");
        let count = |event, _: &mut (), seen: &mut (u64, u64)| {
            if let calloop::channel::Event::Msg(message) = event {
                seen.0 += 1;
                seen.1 += message;
            }
        };
        events.handle().insert_source(seed, count).expect("room");
        events
    }

    fn send(sender: &mut Self::Sender, message: u64) {
        sender.send(message).expect("a receiver");
    }

    fn take(events: &mut Self::Receiver, count: u64) -> u64 {
        let mut seen = (0, 0);
        while seen.0 < count {
            events.dispatch(None, &mut seen).expect("a dispatch");
        }
        seen.1
    }
}

struct Tokio;

impl Mailbox for Tokio {
    type Sender = tokio::sync::mpsc::UnboundedSender<u64>;
    type Seed = tokio::sync::mpsc::UnboundedReceiver<u64>;
    type Receiver = (tokio::runtime::Runtime, Self::Seed);

    fn make() -> (Self::Sender, Self::Seed) {
        tokio::sync::mpsc::unbounded_channel()
    }

    fn open(seed: Self::Seed) -> Self::Receiver {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        (runtime, seed)
    }

    fn send(sender: &mut Self::Sender, message: u64) {
        sender.send(message).expect("a receiver");
    }

    fn take((runtime, receiver): &mut Self::Receiver, count: u64) -> u64 {
        runtime.block_on(async {
            let mut sum = 0;
            for _ in 0..count {
                sum += receiver.recv().await.expect("a sender");
            }
            sum
        })
    }
}

/// How the channels of one poller add up; see the growth section.
pub fn many(channels: usize) -> Turn {
    let mut poller = amy::Poller::new().expect("a poller");
    let registrar = poller.get_registrar();
    let mut inboxes = amy::IdMap::default();
    let mut senders = Vec::new();
    for _ in 0..channels {
        let (sender, receiver) = registrar.channel::<u64>().expect("a channel");
        inboxes.insert(receiver.get_id(), receiver);
        senders.push(sender);
    }
    let mut random = kit::Random::new(3);
    let received = AtomicU64::new(0);
    Box::new(move |ops| {
        let before = received.load(Ordering::Relaxed);
        let took = Took::of(|| {
            for number in 0..ops {
                senders[random.below(channels)].send(number).expect("a receiver");
                for n in poller.wait(None).expect("a wait") {
                    assert_eq!(inboxes[&n.id].try_recv(), Ok(number));
                    received.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        assert_eq!(received.load(Ordering::Relaxed) - before, ops, "every message comes once");
        took
    })
}
