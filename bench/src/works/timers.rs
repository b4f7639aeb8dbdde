//! Timers: a thousand are running while each operation sets one and cancels the oldest, as a server
//! does that watches for idle connections; and a thousand that all come due.

use crate::{
    harness::{Contender, Took, Turn, Work},
    kit,
};
use rustix::event::{Timespec, epoll};
use std::{
    cell::Cell,
    collections::VecDeque,
    future::Future,
    os::fd::OwnedFd,
    pin::Pin,
    rc::Rc,
    task::{Context, Waker},
    thread,
    time::{Duration, Instant},
};

/// How many timers run beside the one that is set and the one that is cancelled.
const RUNNING: usize = 1000;
/// Every so often a server also waits.
const OPS_PER_WAIT: u64 = 32;
const FAR: Duration = Duration::from_secs(30);

pub fn works() -> Vec<Work> {
    let mut set = Work::new("timers", "timer-set", "set + cancel, 1,000 running");
    set.unit = "set + cancel";
    set.ops = 3200;
    set.rounds = 101;
    set.counted = Some((64, 1088));
    set.contenders = vec![
        Contender::new("raw", || set_and_cancel(Heap::new(), RUNNING)),
        Contender::new("amy", || set_and_cancel(Amy::new(), RUNNING)),
        Contender::new("amy 0.10", || set_and_cancel(Amy010::new(), RUNNING)),
        Contender::new("calloop", || set_and_cancel(Calloop::new(), RUNNING)),
        Contender::new("tokio", tokio_set_and_cancel),
    ];

    let mut fire = Work::new("timers", "timer-fire", "set and told, 1,000 at once");
    fire.unit = "timer";
    fire.per_op = 1000;
    fire.ops = 1;
    fire.rounds = 61;
    fire.contenders = vec![
        Contender::new("raw", || come_due(Heap::new())),
        Contender::new("amy", || come_due(Amy::new())),
        Contender::new("amy 0.10", || come_due(Amy010::new())),
        Contender::new("calloop", || come_due(Calloop::new())),
        Contender::new("tokio", tokio_come_due),
    ];
    vec![set, fire]
}

/// Something that keeps timers.
pub trait Keeper {
    type Timer;
    fn set(&mut self, after: Duration) -> Self::Timer;
    fn cancel(&mut self, timer: Self::Timer);
    /// Looks for what has happened, without waiting, and says how many timers were told.
    fn look(&mut self) -> usize;
}

pub fn set_and_cancel<K: Keeper + 'static>(mut keeper: K, running: usize) -> Turn {
    let mut timers: VecDeque<K::Timer> = (0..running).map(|_| keeper.set(FAR)).collect();
    Box::new(move |ops| {
        Took::of(|| {
            for op in 0..ops {
                timers.push_back(keeper.set(FAR));
                let oldest = timers.pop_front().expect("a timer");
                keeper.cancel(oldest);
                if op % OPS_PER_WAIT == 0 {
                    assert_eq!(keeper.look(), 0, "nothing is due for half a minute");
                }
            }
        })
    })
}

/// The delays of the timers that come due: within a millisecond, in no particular order.
fn delays() -> impl Iterator<Item = Duration> {
    (0..1000).map(|number| Duration::from_micros(number * 387 % 1000))
}

fn come_due<K: Keeper + 'static>(mut keeper: K) -> Turn {
    Box::new(move |ops| {
        let (start, cpu) = (Instant::now(), kit::thread_cpu());
        for _ in 0..ops {
            let timers: Vec<K::Timer> = delays().map(|after| keeper.set(after)).collect();
            thread::sleep(Duration::from_millis(3));
            let mut told = 0;
            while told < timers.len() {
                told += keeper.look();
            }
            assert_eq!(told, timers.len(), "every timer is told once");
        }
        let cpu = kit::thread_cpu() - cpu;
        Took::new(kit::since(start), cpu)
    })
}

/// A heap in which each timer knows its place, for one thread.
struct Heap {
    started: Instant,
    poll: OwnedFd,
    events: Vec<epoll::Event>,
    heap: Vec<(u64, usize)>,
    places: Vec<usize>,
    free: Vec<usize>,
}

const NOWHERE: usize = usize::MAX;

impl Heap {
    fn new() -> Heap {
        Heap {
            started: Instant::now(),
            poll: epoll::create(epoll::CreateFlags::CLOEXEC).expect("a queue"),
            events: Vec::with_capacity(1024),
            heap: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    fn put(&mut self, place: usize, entry: (u64, usize)) {
        self.heap[place] = entry;
        self.places[entry.1] = place;
    }

    fn remove(&mut self, place: usize) {
        let (_, slot) = self.heap.swap_remove(place);
        self.places[slot] = NOWHERE;
        if place < self.heap.len() {
            let place = self.rise(place);
            self.sink(place);
        }
    }

    fn rise(&mut self, mut place: usize) -> usize {
        let entry = self.heap[place];
        while place > 0 && entry < self.heap[(place - 1) / 2] {
            self.put(place, self.heap[(place - 1) / 2]);
            place = (place - 1) / 2;
        }
        self.put(place, entry);
        place
    }

    fn sink(&mut self, mut place: usize) {
        let entry = self.heap[place];
        loop {
            let mut child = 2 * place + 1;
            if child + 1 < self.heap.len() && self.heap[child + 1] < self.heap[child] {
                child += 1;
            }
            if child >= self.heap.len() || entry <= self.heap[child] {
                break;
            }
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, entry);
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}

impl Keeper for Heap {
    type Timer = usize;

    fn set(&mut self, after: Duration) -> usize {
        let at = self.now() + after.as_nanos() as u64;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push(NOWHERE);
            self.places.len() - 1
        });
        self.heap.push((at, slot));
        self.rise(self.heap.len() - 1);
        slot
    }

    fn cancel(&mut self, slot: usize) {
        if self.places[slot] != NOWHERE {
            self.remove(self.places[slot]);
        }
        self.free.push(slot);
    }

    fn look(&mut self) -> usize {
        self.events.clear();
        let events = rustix::buffer::spare_capacity(&mut self.events);
        epoll::wait(&self.poll, events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("a wait");
        let now = self.now();
        let mut told = 0;
        while self.heap.first().is_some_and(|entry| entry.0 <= now) {
            self.remove(0);
            told += 1;
        }
        told
    }
}

pub struct Amy {
    poller: amy::Poller,
    registrar: amy::Registrar,
}

impl Amy {
    pub fn new() -> Amy {
        let poller = amy::Poller::new().expect("a poller");
        Amy { registrar: poller.get_registrar(), poller }
    }
}

impl Keeper for Amy {
    type Timer = amy::Timer;

    fn set(&mut self, after: Duration) -> amy::Timer {
        self.registrar.set_timeout(after).expect("a timer")
    }

    fn cancel(&mut self, timer: amy::Timer) {
        self.registrar.cancel_timeout(timer).expect("its end");
    }

    fn look(&mut self) -> usize {
        self.poller.wait(0).expect("a wait").len()
    }
}

struct Amy010 {
    poller: amy010::Poller,
    registrar: amy010::Registrar,
}

impl Amy010 {
    fn new() -> Amy010 {
        let poller = amy010::Poller::new().expect("a poller");
        Amy010 { registrar: poller.get_registrar(), poller }
    }
}

impl Keeper for Amy010 {
    type Timer = usize;

    fn set(&mut self, after: Duration) -> usize {
        // Zero would never be told.
        let millis = after.as_millis().max(1) as usize;
        self.registrar.set_timeout(millis).expect("a timer")
    }

    fn cancel(&mut self, timer: usize) {
        self.registrar.cancel_timeout(timer).expect("its end");
    }

    fn look(&mut self) -> usize {
        self.poller.wait(0).expect("a wait").len()
    }
}

struct Calloop {
    events: calloop::EventLoop<'static, usize>,
}

impl Calloop {
    fn new() -> Calloop {
        Calloop { events: calloop::EventLoop::try_new().expect("a loop") }
    }
}

impl Keeper for Calloop {
    type Timer = calloop::RegistrationToken;

    fn set(&mut self, after: Duration) -> calloop::RegistrationToken {
        use calloop::timer::{TimeoutAction, Timer};
        self.events
            .handle()
            .insert_source(Timer::from_duration(after), |_, _, told| {
                *told += 1;
                TimeoutAction::Drop
            })
            .expect("a timer")
    }

    fn cancel(&mut self, timer: calloop::RegistrationToken) {
        self.events.handle().remove(timer);
    }

    fn look(&mut self) -> usize {
        let mut told = 0;
        self.events.dispatch(Some(Duration::ZERO), &mut told).expect("a dispatch");
        told
    }
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A sleep that runs: the first poll is what sets it.
pub fn sleep(after: Duration) -> Pin<Box<tokio::time::Sleep>> {
    let mut sleep = Box::pin(tokio::time::sleep(after));
    assert!(sleep.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    sleep
}

fn tokio_set_and_cancel() -> Turn {
    let runtime = current_thread();
    let mut sleeps: VecDeque<_> =
        runtime.block_on(async { (0..RUNNING).map(|_| sleep(FAR)).collect() });
    Box::new(move |ops| {
        Took::of(|| {
            runtime.block_on(async {
                for op in 0..ops {
                    sleeps.push_back(sleep(FAR));
                    drop(sleeps.pop_front());
                    if op % OPS_PER_WAIT == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            });
        })
    })
}

fn tokio_come_due() -> Turn {
    let runtime = current_thread();
    Box::new(move |ops| {
        let (start, cpu) = (Instant::now(), kit::thread_cpu());
        let local = tokio::task::LocalSet::new();
        let told = Rc::new(Cell::new(0));
        for _ in 0..ops {
            for after in delays() {
                let told = Rc::clone(&told);
                local.spawn_local(async move {
                    tokio::time::sleep(after).await;
                    told.set(told.get() + 1);
                });
            }
            local.block_on(&runtime, async {
                tokio::task::yield_now().await;
                thread::sleep(Duration::from_millis(3));
                while told.get() < 1000 {
                    tokio::task::yield_now().await;
                }
            });
            assert_eq!(told.replace(0), 1000, "every timer is told once");
        }
        let cpu = kit::thread_cpu() - cpu;
        Took::new(kit::since(start), cpu)
    })
}
