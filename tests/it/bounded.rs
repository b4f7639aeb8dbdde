//! Promise 11: no call does more than its share, and what remains is told by the next one.

use crate::common::{LONG, among, told, until};
use amy::{Event, IdMap, Poller};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A socket with a byte to read, and the end that wrote it.
fn readable() -> (UnixStream, UnixStream) {
    let (mut near, far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    near.write_all(b"x").unwrap();
    (far, near)
}

#[test]
fn a_capacity_bounds_each_wait_and_what_remains_is_told_by_the_next() {
    for capacity in [1, 2, 3, 7, 64, 1_000] {
        let mut poller = Poller::with_capacity(capacity).unwrap();
        let registrar = poller.get_registrar();
        let mut expected = IdMap::default();

        let sockets: Vec<_> = (0..40).map(|_| readable()).collect();
        for (socket, _) in &sockets {
            expected.insert(registrar.register(socket, Event::Read).unwrap(), "socket");
        }
        let timers: Vec<_> = (0..40).map(|_| registrar.set_timeout(0).unwrap()).collect();
        expected.extend(timers.iter().map(|timer| (timer.get_id(), "timer")));
        let notifiers: Vec<_> = (0..40).map(|_| registrar.notifier().unwrap()).collect();
        for notifier in &notifiers {
            notifier.notify().unwrap();
            expected.insert(notifier.get_id(), "notifier");
        }
        let channels: Vec<_> = (0..40).map(|_| registrar.channel().unwrap()).collect();
        let mut receivers = IdMap::default();
        for (tx, rx) in channels {
            tx.send(()).unwrap();
            expected.insert(rx.get_id(), "channel");
            receivers.insert(rx.get_id(), (tx, rx));
        }

        let mut waits = 0;
        while !expected.is_empty() {
            let batch = told(&mut poller, 0);
            waits += 1;
            assert!(!batch.is_empty(), "{expected:?} with a capacity of {capacity}");
            assert!(batch.len() <= capacity);
            for id in batch {
                assert!(expected.remove(&id).is_some(), "each once");
                if let Some((_, rx)) = receivers.get(&id) {
                    rx.try_recv().unwrap();
                }
            }
        }
        assert_eq!(told(&mut poller, 0), []);
        assert!(waits <= 2 * 160_usize.div_ceil(capacity) + 2, "{waits} waits of {capacity}");
    }
}

#[test]
fn a_capacity_of_zero_is_one() {
    let mut poller = Poller::with_capacity(0).unwrap();
    let registrar = poller.get_registrar();
    let (socket, _peer) = readable();
    let id = registrar.register(&socket, Event::Read).unwrap();
    assert_eq!(told(&mut poller, LONG), [id]);
    let timers = [registrar.set_timeout(0).unwrap(), registrar.set_timeout(0).unwrap()];
    assert_eq!(told(&mut poller, LONG), [timers[0].get_id()]);
    assert_eq!(told(&mut poller, LONG), [timers[1].get_id()]);
}

#[test]
fn a_batch_can_be_larger_than_the_default() {
    let mut poller = Poller::with_capacity(5_000).unwrap();
    let registrar = poller.get_registrar();
    let timers: Vec<_> = (0..4_000).map(|_| registrar.set_timeout(0).unwrap()).collect();
    assert_eq!(told(&mut poller, 0).len(), timers.len());
}

#[test]
fn an_ordinary_batch_has_its_limit_however_much_there_is() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let timers: Vec<_> = (0..3_000).map(|_| registrar.set_timeout(0).unwrap()).collect();
    let mut second = poller.try_clone().unwrap();
    assert_eq!(told(&mut poller, 0).len(), 1024);
    assert_eq!(told(&mut second, 0).len(), 1024, "a clone has the same limit");
    assert_eq!(told(&mut poller, 0).len(), timers.len() - 2048);
    assert_eq!(told(&mut poller, 0), []);
}

/// Whatever else is ready at all times, everything has its turn.
#[test]
fn sockets_timers_and_channels_do_not_starve_each_other() {
    const EACH: usize = 8;
    const TURNS: usize = 5;
    for capacity in [1, 2, 3, 4, 5, 8, 24, 100] {
        let mut poller = Poller::with_capacity(capacity).unwrap();
        let registrar = poller.get_registrar();
        let mut turns = IdMap::default();

        let sockets: Vec<_> = (0..EACH).map(|_| readable()).collect();
        for (socket, _) in &sockets {
            turns.insert(registrar.register(socket, Event::Read.level()).unwrap(), 0);
        }
        let channels: Vec<_> = (0..EACH).map(|_| registrar.channel().unwrap()).collect();
        for (tx, rx) in &channels {
            tx.send(()).unwrap();
            turns.insert(rx.get_id(), 0);
        }
        let timers: IdMap<_> = (0..EACH)
            .map(|_| registrar.set_timeout(0).unwrap())
            .map(|timer| (timer.get_id(), timer))
            .collect();
        turns.extend(timers.keys().map(|&id| (id, 0)));

        // Perfectly fair would be `3 * EACH * TURNS` places.
        let most = 4 * (3 * EACH * TURNS).div_ceil(capacity) + 8;
        for wait in 0.. {
            if turns.values().all(|&turns| turns >= TURNS) {
                break;
            }
            assert!(wait < most, "with a capacity of {capacity} after {wait} waits: {turns:?}");
            for id in told(&mut poller, LONG) {
                *turns.get_mut(&id).unwrap() += 1;
                if let Some(timer) = timers.get(&id) {
                    timer.reset(0).unwrap();
                }
            }
        }
    }
}

#[test]
fn an_edge_is_told_although_timers_and_channels_could_fill_every_batch() {
    for capacity in [1, 2, 3, 16] {
        let mut poller = Poller::with_capacity(capacity).unwrap();
        let registrar = poller.get_registrar();
        let channels: Vec<_> = (0..20).map(|_| registrar.channel().unwrap()).collect();
        channels.iter().for_each(|(tx, _)| tx.send(()).unwrap());
        let interval = registrar.set_interval(Duration::from_nanos(1)).unwrap();
        let (mut socket, mut peer) = readable();
        let id = registrar.register(&socket, Event::Read).unwrap();
        for _ in 0..20 {
            let mut waits = 0;
            loop {
                let batch = told(&mut poller, LONG);
                waits += 1;
                if batch.contains(&interval.get_id()) {
                    interval.arm();
                }
                if batch.contains(&id) {
                    break;
                }
                assert!(waits < 4, "an edge waits, with a capacity of {capacity}");
            }
            assert_eq!(socket.read(&mut [0; 8]).unwrap(), 1);
            peer.write_all(b"x").unwrap();
        }
    }
}

#[test]
fn a_flood_of_messages_does_not_starve_sockets_and_timers() {
    for capacity in [1, 2, 1024] {
        let mut poller = Poller::with_capacity(capacity).unwrap();
        let registrar = poller.get_registrar();
        let (tx, rx) = registrar.sync_channel(10_000).unwrap();
        let (mut socket, mut peer) = readable();
        let id = registrar.register(&socket, Event::Read).unwrap();
        let work = || {
            for _ in 0..500 {
                let timer = registrar.set_timeout(0).unwrap();
                let (mut read, mut fired) = (false, false);
                for wait in 0.. {
                    assert!(wait < 8, "read: {read}, fired: {fired}, capacity: {capacity}");
                    let batch = told(&mut poller, LONG);
                    read |= batch.contains(&id);
                    fired |= batch.contains(&timer.get_id());
                    if read && fired {
                        break;
                    }
                    rx.try_iter().take(10).for_each(drop);
                }
                assert_eq!(socket.read(&mut [0; 8]).unwrap(), 1);
                peer.write_all(b"x").unwrap();
            }
        };
        // A sender that is refused has filled the queue, and there is something to receive.
        let flood = || {
            let _ = tx.try_send([0_u8; 64]);
        };
        among(2, flood, work);
    }
}

#[test]
fn a_hundred_thousand_timers_set_by_others_do_not_hold_a_wait_up() {
    const EACH: usize = 50_000;
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let notifier = registrar.notifier().unwrap();
    let set = AtomicUsize::new(0);
    thread::scope(|scope| {
        let setters: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let one = |i| {
                        set.fetch_add(1, Ordering::Relaxed);
                        registrar.set_timeout(HOUR - Duration::from_micros(i)).unwrap()
                    };
                    (0..EACH as u64).map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        until("the setters run", || set.load(Ordering::Relaxed) > 0);
        loop {
            assert_eq!(told(&mut poller, 0), [], "none of them is due");
            notifier.notify().unwrap();
            assert_eq!(told(&mut poller, LONG), [notifier.get_id()]);
            if set.load(Ordering::Relaxed) == 2 * EACH {
                break;
            }
        }
        for setter in setters {
            assert_eq!(setter.join().unwrap().len(), EACH);
        }
    });
    let soon = registrar.set_timeout(0).unwrap();
    assert_eq!(told(&mut poller, 0), [soon.get_id()]);
}

#[test]
fn receivers_that_are_gone_take_no_place_in_a_batch() {
    let mut poller = Poller::with_capacity(2).unwrap();
    let registrar = poller.get_registrar();
    let mut senders = Vec::new();
    for _ in 0..100 {
        let (tx, rx) = registrar.channel().unwrap();
        tx.send(()).unwrap();
        senders.push(tx);
        drop(rx);
    }
    let (tx, rx) = registrar.channel().unwrap();
    tx.send(()).unwrap();
    assert_eq!(told(&mut poller, 0), [rx.get_id()]);
}
