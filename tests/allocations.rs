//! Promise 13: once warm, waiting, registering and notifying allocate nothing.
//!
//! A binary of its own, since it brings its own allocator. Allocations are counted per thread, so
//! that tests may run side by side.

// An allocator cannot be had without.
#![allow(unsafe_code)]

use amy::{Event, Poller};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes allocated on this thread, less those freed on it.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(allocations: usize, bytes: isize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + allocations);
    HELD.set(HELD.get() + bytes);
}

fn bytes(len: usize) -> isize {
    isize::try_from(len).unwrap_or(isize::MAX)
}

// SAFETY: every call goes to the system's allocator unchanged. The counters are cells without a
// destructor, made at compile time, so that counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, bytes(layout.size()));
        // SAFETY: the caller's promises are those that are asked for here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, bytes(layout.size()));
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, bytes(size) - bytes(layout.size()));
        // SAFETY: as in `alloc`; `old` came from the system's allocator, as everything does.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        count(0, -bytes(layout.size()));
        // SAFETY: as in `realloc`.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations this thread makes in `work`.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// Runs `work` to warm up, and then holds it to allocating nothing.
fn allocates_nothing_once_warm(mut work: impl FnMut()) {
    (0..3).for_each(|_| work());
    assert_eq!(allocations(|| (0..100).for_each(|_| work())), 0);
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    let held = HELD.get();
    let room = std::hint::black_box(Vec::<u8>::with_capacity(1000));
    assert_eq!(HELD.get() - held, 1000);
    drop(room);
    assert_eq!(HELD.get(), held);
}

#[test]
fn a_wait_allocates_nothing() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let mut sockets: Vec<_> = (0..50).map(|_| UnixStream::pair().unwrap()).collect();
    for (socket, peer) in &mut sockets {
        peer.write_all(b"x").unwrap();
        registrar.register(&*socket, Event::Both.level()).unwrap();
    }
    let timers: Vec<_> = (0..50).map(|_| registrar.set_timeout(0).unwrap()).collect();
    let notifiers: Vec<_> = (0..50).map(|_| registrar.notifier().unwrap()).collect();
    let channels: Vec<_> = (0..50).map(|_| registrar.channel().unwrap()).collect();
    channels.iter().for_each(|(tx, _)| tx.send(()).unwrap());
    allocates_nothing_once_warm(|| {
        timers.iter().for_each(|timer| timer.reset(0).unwrap());
        notifiers.iter().for_each(|notifier| notifier.notify().unwrap());
        let notifications = poller.wait(5_000).unwrap();
        assert_eq!(notifications.len(), 200);
        assert_eq!(notifications.iter().filter(|n| n.event == Event::Both).count(), 50);
        assert_eq!(notifications.into_iter().count(), 200);
    });
}

#[test]
fn a_wait_that_sleeps_allocates_nothing() {
    let mut poller = Poller::new().unwrap();
    let timer = poller.get_registrar().set_timeout(0).unwrap();
    allocates_nothing_once_warm(|| {
        timer.reset(Duration::from_micros(200)).unwrap();
        assert!(poller.wait(Duration::from_nanos(1)).unwrap().len() <= 1);
        timer.reset(Duration::from_micros(200)).unwrap();
        assert_eq!(poller.wait(None).unwrap().len(), 1);
    });
}

#[test]
fn even_the_first_wait_allocates_nothing_within_the_default_capacity() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let timers: Vec<_> = (0..1_024).map(|_| registrar.set_timeout(0).unwrap()).collect();
    assert_eq!(
        allocations(|| assert_eq!(poller.wait(0).unwrap().len(), timers.len())),
        0,
        "the buffer was made with the poller"
    );
}

#[test]
fn registering_and_all_that_follows_allocates_nothing() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let (mut near, mut far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    allocates_nothing_once_warm(|| {
        let id = registrar.register(&far, Event::Read).unwrap();
        near.write_all(b"x").unwrap();
        assert_eq!(poller.wait(5_000).unwrap()[0].id, id);
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 1);
        registrar.reregister(id, &far, Event::Both.once()).unwrap();
        assert_eq!(poller.wait(5_000).unwrap()[0].id, id);
        registrar.deregister(&far).unwrap();
        registrar.clone().register(&far, Event::Write).unwrap();
        registrar.deregister(&far).unwrap();
    });
}

#[test]
fn a_timer_allocates_nothing_where_another_was_before() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    allocates_nothing_once_warm(|| {
        let timer = registrar.set_timeout(0).unwrap();
        let interval = registrar.set_interval(Duration::from_nanos(1)).unwrap();
        assert_eq!(poller.wait(0).unwrap().len(), 2);
        interval.arm();
        timer.reset(Duration::from_secs(1)).unwrap();
        registrar.cancel_timeout(timer).unwrap();
    });
}

#[test]
fn a_notification_allocates_nothing_also_the_first() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let notifiers: Vec<_> = (0..1_000).map(|_| registrar.notifier().unwrap()).collect();
    let all = || notifiers.iter().for_each(|notifier| notifier.notify().unwrap());
    assert_eq!(allocations(all), 0, "there is room on the list for each from the start");
    assert_eq!(poller.wait(0).unwrap().len(), 1_000);
    assert_eq!(allocations(all), 0);
}

#[test]
fn notifiers_that_are_gone_but_not_told_yet_leave_room_for_the_others() {
    let poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    for _ in 0..100 {
        let notifier = registrar.notifier().unwrap();
        assert_eq!(allocations(|| notifier.notify().unwrap()), 0);
    }
    let mut kept = Vec::new();
    for _ in 0..100 {
        kept.push(registrar.notifier().unwrap());
        let notifier = registrar.notifier().unwrap();
        assert_eq!(allocations(|| notifier.notify().unwrap()), 0);
    }
    assert_eq!(allocations(|| kept.iter().for_each(|notifier| notifier.notify().unwrap())), 0);
}

#[test]
fn a_notification_that_wakes_a_sleeper_allocates_nothing() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let notifier = registrar.notifier().unwrap();
    let (tx, rx) = registrar.sync_channel(1).unwrap();
    let _kept = poller.try_clone().unwrap(); // an error would be an allocation
    let sleeper = thread::spawn(move || {
        let mut told = 0;
        while told < 200 {
            for n in poller.wait(60_000).unwrap() {
                assert!(n.id != rx.get_id() || rx.try_recv().is_ok());
                told += 1;
            }
        }
    });
    tx.send(()).unwrap(); // the queue's own room
    while !sleeper.is_finished() {
        assert_eq!(allocations(|| notifier.notify().unwrap()), 0);
        thread::yield_now();
        let sending = allocations(|| {
            let _ = tx.try_send(());
        });
        assert_eq!(sending, 0, "also where there is no room");
    }
    sleeper.join().unwrap();
}

#[test]
fn a_warm_channel_allocates_nothing() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let (tx, rx) = registrar.channel().unwrap();
    let (sync_tx, sync_rx) = registrar.sync_channel(8).unwrap();
    allocates_nothing_once_warm(|| {
        (0..8).for_each(|i| tx.send(i).unwrap());
        (0..8).for_each(|i| sync_tx.send(i).unwrap());
        drop(tx.clone());
        assert_eq!(poller.wait(5_000).unwrap().len(), 2);
        assert_eq!(rx.try_iter().count(), 8);
        assert_eq!(sync_rx.try_iter().count(), 8);
    });
}

#[test]
fn a_channel_gives_the_room_of_a_huge_burst_back() {
    let poller = Poller::new().unwrap();
    let (tx, rx) = poller.get_registrar().channel().unwrap();
    let before = HELD.get();
    for _ in 0..2 {
        (0..500_000_u64).for_each(|i| tx.send(i).unwrap());
        assert!(HELD.get() - before >= 4_000_000);
        assert_eq!(rx.try_iter().count(), 500_000);
        assert!(rx.try_recv().is_err());
    }
    let held = HELD.get() - before;
    assert!(held <= 200_000, "{held} bytes for an empty channel");
}

#[test]
fn what_is_gone_leaves_no_memory_behind() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let mut churn = |rounds: usize| {
        for _ in 0..rounds {
            let notifier = registrar.notifier().unwrap();
            let (tx, _rx) = registrar.channel().unwrap();
            let _timer = registrar.set_timeout(0).unwrap();
            notifier.notify().unwrap();
            tx.send(7).unwrap();
            assert_eq!(poller.wait(0).unwrap().len(), 3);
            let _interval = registrar.set_interval(60_000).unwrap();
        }
        assert!(poller.wait(0).unwrap().is_empty());
    };
    churn(10);
    let before = HELD.get();
    churn(10_000);
    assert_eq!(HELD.get() - before, 0);
}
