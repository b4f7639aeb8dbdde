//! Promise 7, several waiters: any number of threads wait on one queue, what becomes ready is told
//! without fail to one of them, and with `once` it has exactly one owner until it is registered again.

use crate::common::{
    LONG, Sleeper, in_time, look, new_poller, next, read_all, sorted, unix_pair, until,
    wait_for_each,
};
use amy::{Event, Notifier, Poller};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    collections::{HashMap, HashSet},
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

#[test]
fn a_clone_waits_for_the_same_things_with_a_buffer_of_its_own() {
    let (mut first, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read).unwrap();
    let mut second = first.try_clone().unwrap();

    peer.write_all(b"x").unwrap();
    let batch = first.wait(0).unwrap();
    assert!(second.wait(0).unwrap().is_empty(), "it was told already");
    assert_eq!(batch[0].id, id);

    let timer = second.get_registrar().set_timeout(0).unwrap();
    assert_eq!(next(&mut first).id, timer.get_id());
    drop(first);
    peer.write_all(b"x").unwrap();
    assert_eq!(next(&mut second).id, id);
    let notifier = registrar.notifier().unwrap();
    notifier.notify().unwrap();
    assert_eq!(next(&mut second).id, notifier.get_id());
}

#[test]
fn a_clone_has_the_capacity_of_the_original() {
    let first = Poller::with_capacity(2).unwrap();
    let mut second = first.try_clone().unwrap();
    let notifiers: Vec<_> = (0..3).map(|_| first.get_registrar().notifier().unwrap()).collect();
    notifiers.iter().for_each(|notifier| notifier.notify().unwrap());
    assert_eq!(look(&mut second).len(), 2);
    assert_eq!(look(&mut second).len(), 1);
}

#[test]
fn a_sleeping_clone_is_woken_like_the_original() {
    let (mut first, registrar) = new_poller();
    let (socket, _peer) = unix_pair();
    let sleeper = Sleeper::start(first.try_clone().unwrap(), LONG);
    let id = registrar.register(&socket, Event::Write).unwrap();
    let woken = sleeper.join();
    assert_eq!(woken.ids(), [id]);

    let sleeper = Sleeper::start(woken.poller, LONG);
    let timer = registrar.set_timeout(5).unwrap();
    assert_eq!(sleeper.ids(), [timer.get_id()]);
    assert!(look(&mut first).is_empty());
}

#[test]
fn the_end_of_one_waiter_does_not_disturb_the_others() {
    let (first, registrar) = new_poller();
    let notifier = registrar.notifier().unwrap();
    let sleeper = Sleeper::start(first.try_clone().unwrap(), LONG);
    drop(first);
    assert!(!sleeper.is_done());
    notifier.notify().unwrap();
    assert_eq!(sleeper.ids(), [notifier.get_id()]);
}

#[test]
fn what_a_waiter_leaves_behind_wakes_those_who_sleep() {
    for _ in 0..50 {
        let mut first = Poller::with_capacity(1).unwrap();
        let registrar = first.get_registrar();
        let notifiers = [registrar.notifier().unwrap(), registrar.notifier().unwrap()];
        notifiers.iter().for_each(|notifier| notifier.notify().unwrap());
        let told = look(&mut first);
        let sleeper = Sleeper::start(first.try_clone().unwrap(), LONG);
        drop(first);
        let ids = notifiers.each_ref().map(Notifier::get_id);
        assert_eq!(sorted([told, sleeper.ids()].concat()), ids);
    }
}

#[test]
fn what_a_waiter_was_told_of_and_left_wakes_another_when_it_goes() {
    let pollers = waiters(2, 1024);
    let registrar = pollers[0].get_registrar();
    let (tx, rx) = registrar.channel().unwrap();
    let mut sleepers = all_asleep(pollers);
    tx.send(()).unwrap();
    until("one is told", || sleepers.iter().any(Sleeper::is_done));
    let first = sleepers.iter().position(Sleeper::is_done).unwrap();
    let woken = sleepers.remove(first).join();
    assert_eq!(woken.ids(), [rx.get_id()]);
    drop(woken.poller);
    assert_eq!(sleepers.remove(0).ids(), [rx.get_id()]);
}

#[test]
fn sleepers_with_room_for_one_are_all_woken_for_a_burst() {
    for _ in 0..100 {
        let pollers = waiters(3, 1);
        let registrar = pollers[0].get_registrar();
        let notifiers: Vec<_> = (0..3).map(|_| registrar.notifier().unwrap()).collect();
        let sleepers = all_asleep(pollers);
        notifiers.iter().for_each(|notifier| notifier.notify().unwrap());
        let told = sleepers.into_iter().flat_map(Sleeper::ids).collect();
        assert_eq!(sorted(told), notifiers.iter().map(Notifier::get_id).collect::<Vec<_>>());
    }
}

#[test]
fn sleepers_with_room_for_one_are_all_woken_for_timers_due_together() {
    for _ in 0..20 {
        let pollers = waiters(3, 1);
        let registrar = pollers[0].get_registrar();
        // All in one call, before anyone can be told of the first.
        let timers: Vec<_> = (0..3).map(|_| registrar.set_timeout(2).unwrap()).collect();
        let sleepers = all_asleep(pollers);
        let told = sleepers.into_iter().flat_map(Sleeper::ids).collect();
        assert_eq!(sorted(told), timers.iter().map(amy::Timer::get_id).collect::<Vec<_>>());
    }
}

#[test]
fn sleepers_with_room_for_one_are_all_woken_for_things_of_different_kinds() {
    for _ in 0..50 {
        let pollers = waiters(4, 1);
        let registrar = pollers[0].get_registrar();
        let notifier = registrar.notifier().unwrap();
        let (tx, rx) = registrar.channel().unwrap();
        let (socket, _peer) = unix_pair();
        let sleepers = all_asleep(pollers);
        notifier.notify().unwrap();
        let id = registrar.register(&socket, Event::Write).unwrap();
        let timer = registrar.set_timeout(0).unwrap();
        let wanted = HashSet::from([notifier.get_id(), id, timer.get_id(), rx.get_id()]);
        // Last, since it is told again and again for as long as it holds something.
        until("three were told", || sleepers.iter().filter(|s| s.is_done()).count() == 3);
        tx.send(()).unwrap();
        let told: HashSet<_> = sleepers.into_iter().flat_map(Sleeper::ids).collect();
        assert_eq!(told, wanted);
    }
}

/// Waiters on one queue, with room for `capacity` each.
fn waiters(count: usize, capacity: usize) -> Vec<Poller> {
    let first = Poller::with_capacity(capacity).unwrap();
    let mut pollers: Vec<_> = (1..count).map(|_| first.try_clone().unwrap()).collect();
    pollers.push(first);
    pollers
}

fn all_asleep(pollers: Vec<Poller>) -> Vec<Sleeper> {
    pollers.into_iter().map(|poller| Sleeper::start(poller, LONG)).collect()
}

#[test]
fn one_that_only_looks_does_not_take_the_wake_of_one_that_sleeps() {
    for capacity in [1, 2, 1024] {
        let looker = Poller::with_capacity(capacity).unwrap();
        let sleeper = looker.try_clone().unwrap();
        in_time(move || look_beside_a_sleeper(looker, sleeper));
    }
}

fn look_beside_a_sleeper(mut looker: Poller, mut sleeper: Poller) {
    const ROUNDS: usize = 1000;
    let registrar = looker.get_registrar();
    let notifiers: Vec<_> = (0..3).map(|_| registrar.notifier().unwrap()).collect();
    let stop = registrar.notifier().unwrap();
    let stop_id = stop.get_id();
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        loop {
            let batch = sleeper.wait(None).unwrap();
            if batch.iter().any(|n| n.id == stop_id) {
                return;
            }
            batch.iter().for_each(|n| tell.send(n.id).unwrap());
        }
    });
    for round in 0..ROUNDS {
        let mut missing: HashSet<_> = notifiers.iter().map(Notifier::get_id).collect();
        // The look falls between different notifications in different rounds; what it does not
        // find, nobody but the sleeper will.
        for (at, notifier) in notifiers.iter().enumerate() {
            notifier.notify().unwrap();
            if at == round % notifiers.len() {
                look(&mut looker).iter().for_each(|id| assert!(missing.remove(id)));
            }
        }
        while !missing.is_empty() {
            let id = told.recv_timeout(LONG).expect("the sleeper is told of what is left");
            assert!(missing.remove(&id), "{id} was told twice");
        }
    }
    stop.notify().unwrap();
    thread.join().unwrap();
}

#[test]
fn a_notification_that_meets_a_waiter_on_its_way_to_sleep_is_told() {
    const ROUNDS: usize = 20_000;
    in_time(|| {
        let (mut poller, registrar) = new_poller();
        let notifier = registrar.notifier().unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let answers = Arc::clone(&told);
        let thread = thread::spawn(move || {
            for round in 1..=ROUNDS {
                let batch = poller.wait(None).unwrap();
                assert_eq!(batch.len(), 1);
                answers.store(round, Ordering::Release);
            }
        });
        for round in 1..=ROUNDS {
            // At once, or a little later, or when it sleeps.
            (0..round % 64 * 8).for_each(|_| std::hint::spin_loop());
            notifier.notify().unwrap();
            until("it is told", || told.load(Ordering::Acquire) == round);
        }
        thread.join().unwrap();
    });
}

#[test]
fn many_notifiers_and_many_waiters_lose_nothing() {
    const ROUNDS: usize = 2000;
    in_time(|| {
        let pollers = waiters(3, 2);
        let registrar = pollers[0].get_registrar();
        let stop = registrar.notifier().unwrap();
        let answers: Arc<[AtomicUsize; 3]> = Arc::default();
        let notifiers: Vec<_> = (0..3).map(|_| registrar.notifier().unwrap()).collect();
        let places: HashMap<_, _> = notifiers.iter().map(Notifier::get_id).zip(0..).collect();
        let threads: Vec<_> = pollers
            .into_iter()
            .map(|mut poller| {
                let (answers, places) = (Arc::clone(&answers), places.clone());
                let stop = stop.clone();
                thread::spawn(move || {
                    let mut over = false;
                    while !over {
                        for n in poller.wait(None).unwrap() {
                            match places.get(&n.id) {
                                Some(&place) => _ = answers[place].fetch_add(1, Ordering::Release),
                                None => over = true,
                            }
                        }
                    }
                    stop.notify().unwrap();
                })
            })
            .collect();
        thread::scope(|scope| {
            for (place, notifier) in notifiers.iter().enumerate() {
                let answers = &answers;
                scope.spawn(move || {
                    for round in 1..=ROUNDS {
                        notifier.notify().unwrap();
                        until("it is told", || answers[place].load(Ordering::Acquire) == round);
                    }
                });
            }
        });
        stop.notify().unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn an_edge_is_told_to_one_waiter() {
    let (mut first, registrar) = new_poller();
    let mut sockets: Vec<_> = (0..200).map(|_| unix_pair()).collect();
    let ids: Vec<_> =
        sockets.iter().map(|(a, _)| registrar.register(a, Event::Read).unwrap()).collect();
    let mut second = first.try_clone().unwrap();
    let notifier = registrar.notifier().unwrap();
    let stop_id = notifier.get_id();
    let thread = thread::spawn(move || {
        let mut told = Vec::new();
        while !told.contains(&stop_id) {
            told.extend(second.wait(LONG).unwrap().iter().map(|n| n.id));
        }
        told
    });
    let mut told = Vec::new();
    for (_, peer) in &mut sockets {
        peer.write_all(b"x").unwrap();
        told.extend(first.wait(0).unwrap().iter().map(|n| n.id));
    }
    told.extend(look(&mut first));
    notifier.notify().unwrap();
    told.extend(thread.join().unwrap());
    told.retain(|&id| id != stop_id);
    assert_eq!(sorted(told), ids);
}

#[test]
fn once_has_exactly_one_owner_until_it_is_registered_again() {
    const BYTES: usize = 3000;
    in_time(|| {
        let (poller, registrar) = new_poller();
        let (socket, mut peer) = unix_pair();
        let id = registrar.register(&socket, Event::Read.once()).unwrap();
        let socket = Arc::new(socket);
        let owned = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicUsize::new(0));
        let stop = registrar.notifier().unwrap();
        let threads: Vec<_> = [poller.try_clone().unwrap(), poller]
            .into_iter()
            .map(|mut poller| {
                let (socket, owned) = (Arc::clone(&socket), Arc::clone(&owned));
                let (received, stop) = (Arc::clone(&received), stop.clone());
                let registrar = registrar.clone();
                thread::spawn(move || {
                    while poller.wait(None).unwrap()[0].id == id {
                        assert!(!owned.swap(true, Ordering::AcqRel), "a second owner");
                        let count = read_all(&*socket).len();
                        thread::yield_now();
                        received.fetch_add(count, Ordering::Release);
                        assert!(owned.swap(false, Ordering::AcqRel));
                        registrar.reregister(id, &*socket, Event::Read.once()).unwrap();
                    }
                    stop.notify().unwrap();
                })
            })
            .collect();
        peer.set_nonblocking(false).unwrap();
        for _ in 0..BYTES {
            peer.write_all(b"x").unwrap();
        }
        until("all is received", || received.load(Ordering::Acquire) == BYTES);
        stop.notify().unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// As many sockets that are writable, up to `most`, as the system lets this process have.
fn writable_sockets(most: usize) -> Vec<std::os::unix::net::UnixStream> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let spare = limit.maximum.map_or(most, |limit| usize::try_from(limit).unwrap_or(most));
    (0..most.min(spare.saturating_sub(200)) / 2).flat_map(|_| <[_; 2]>::from(unix_pair())).collect()
}

#[test]
fn each_of_many_that_are_ready_is_told_once_a_round() {
    crate::common::alone(|| {
        let sockets = writable_sockets(5000);
        for level in [false, true] {
            let mut poller = Poller::with_capacity(64).unwrap();
            let registrar = poller.get_registrar();
            let asked = if level { Event::Write.level() } else { Event::Write.into() };
            let ids: Vec<_> =
                sockets.iter().map(|s| registrar.register(s, asked).unwrap()).collect();
            if !level {
                wait_for_each(&mut poller, &ids);
                assert!(look(&mut poller).is_empty());
                continue;
            }
            // A round may end in the middle of a batch.
            let mut told = Vec::new();
            while told.len() < 3 * ids.len() {
                told.extend(poller.wait(0).unwrap().iter().map(|n| n.id));
            }
            for round in told.chunks_exact(ids.len()) {
                assert_eq!(sorted(round.to_vec()), ids);
            }
        }
    });
}

#[test]
fn nothing_keeps_another_kind_from_being_told() {
    for capacity in [1, 2, 3, 8] {
        let mut poller = Poller::with_capacity(capacity).unwrap();
        let registrar = poller.get_registrar();
        // More of each kind than there is room for, always ready.
        let sockets: Vec<_> = (0..10).map(|_| unix_pair()).collect();
        let ids: Vec<_> = sockets
            .iter()
            .map(|(a, _)| registrar.register(a, Event::Write.level()).unwrap())
            .collect();
        let channels: Vec<_> = (0..10).map(|_| registrar.channel().unwrap()).collect();
        channels.iter().for_each(|(tx, _)| tx.send(()).unwrap());
        let intervals: Vec<_> =
            (0..10).map(|_| registrar.set_interval(Duration::from_nanos(1)).unwrap()).collect();

        let mut told: HashMap<usize, usize> = HashMap::new();
        for _ in 0..2000 {
            for n in poller.wait(0).unwrap() {
                *told.entry(n.id).or_default() += 1;
                if let Some(interval) = intervals.iter().find(|i| i.get_id() == n.id) {
                    interval.arm();
                }
            }
        }
        let channel_ids = channels.iter().map(|(_, rx)| rx.get_id());
        let interval_ids = intervals.iter().map(amy::Timer::get_id);
        for id in ids.into_iter().chain(channel_ids).chain(interval_ids) {
            let times = told.get(&id).copied().unwrap_or(0);
            assert!(times >= 20, "{times} of 2000 with room for {capacity}");
        }
    }
}
