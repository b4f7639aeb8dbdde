//! Promise 2, from anywhere: other threads register, change, remove, set timers and make channels
//! while a thread is in `wait`; it takes effect at once, and `wait` never returns with nothing.

use crate::common::{LONG, Sleeper, look, new_poller, unix_pair};
use amy::{Event, Poller, Registrar};
use std::{io::Write, thread, time::Duration};

/// The ids that a thread is told which slept in `wait` when another thread called `change`.
fn told_when(poller: Poller, change: impl FnOnce() + Send) -> Vec<usize> {
    let sleeper = Sleeper::start(poller, LONG);
    thread::scope(|scope| scope.spawn(change).join().unwrap());
    sleeper.ids()
}

#[test]
fn a_ready_socket_that_is_registered_wakes_the_poller() {
    let (poller, registrar) = new_poller();
    let (socket, _peer) = unix_pair();
    let mut id = 0;
    let told = told_when(poller, || id = registrar.register(&socket, Event::Write).unwrap());
    assert_eq!(told, [id]);
}

#[test]
fn a_socket_registered_during_a_wait_is_told_when_it_becomes_ready() {
    let (poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    let sleeper = Sleeper::start(poller, LONG);
    let id = registrar.register(&socket, Event::Read).unwrap();
    assert!(!sleeper.is_done());
    peer.write_all(b"x").unwrap();
    assert_eq!(sleeper.ids(), [id]);
}

#[test]
fn a_changed_interest_wakes_the_poller() {
    let (poller, registrar) = new_poller();
    let (socket, _peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read).unwrap();
    let told = told_when(poller, || registrar.reregister(id, &socket, Event::Write).unwrap());
    assert_eq!(told, [id]);
}

#[test]
fn a_socket_removed_during_a_wait_does_not_end_it() {
    let (mut poller, registrar) = new_poller();
    let notifier = registrar.notifier().unwrap();
    let (socket, mut peer) = unix_pair();
    registrar.register(&socket, Event::Read).unwrap();
    let told = told_when(poller.try_clone().unwrap(), || {
        registrar.deregister(&socket).unwrap();
        peer.write_all(b"x").unwrap();
        notifier.notify().unwrap();
    });
    assert_eq!(told, [notifier.get_id()]);
    assert!(look(&mut poller).is_empty());
}

#[test]
fn a_timer_set_during_a_wait_fires_in_it() {
    for after in [Duration::ZERO, Duration::from_micros(1), Duration::from_millis(20)] {
        let (poller, registrar) = new_poller();
        let mut timer = None;
        let told = told_when(poller, || timer = Some(registrar.set_timeout(after).unwrap()));
        assert_eq!(told, [timer.unwrap().get_id()]);
    }
}

#[test]
fn a_timer_set_during_a_wait_goes_before_those_set_earlier() {
    let (poller, registrar) = new_poller();
    let _later = registrar.set_timeout(Duration::from_secs(3600)).unwrap();
    let mut timer = None;
    let told = told_when(poller, || timer = Some(registrar.set_timeout(5).unwrap()));
    assert_eq!(told, [timer.unwrap().get_id()]);
}

#[test]
fn an_interval_set_armed_or_reset_during_a_wait_fires_in_it() {
    let (poller, registrar) = new_poller();
    let sleeper = Sleeper::start(poller, LONG);
    let interval = registrar.set_interval(5).unwrap();
    let woken = sleeper.join();
    assert_eq!(woken.ids(), [interval.get_id()]);

    let sleeper = Sleeper::start(woken.poller, LONG);
    assert!(interval.arm() >= 1);
    let woken = sleeper.join();
    assert_eq!(woken.ids(), [interval.get_id()]);

    let sleeper = Sleeper::start(woken.poller, LONG);
    interval.reset(3).unwrap();
    assert_eq!(sleeper.ids(), [interval.get_id()]);
}

#[test]
fn a_timer_reset_to_an_earlier_time_during_a_wait_fires_in_it() {
    let (poller, registrar) = new_poller();
    let timer = registrar.set_timeout(Duration::from_secs(3600)).unwrap();
    let told = told_when(poller, || timer.reset(1).unwrap());
    assert_eq!(told, [timer.get_id()]);
}

#[test]
fn a_channel_made_during_a_wait_delivers_in_it() {
    let (poller, registrar) = new_poller();
    let mut receiver = None;
    let told = told_when(poller, || {
        let (tx, rx) = registrar.channel().unwrap();
        tx.send("hello").unwrap();
        receiver = Some((tx, rx));
    });
    let (_tx, rx) = receiver.unwrap();
    assert_eq!(told, [rx.get_id()]);
    assert_eq!(rx.try_recv(), Ok("hello"));
}

#[test]
fn a_notifier_made_during_a_wait_wakes_it() {
    let (poller, registrar) = new_poller();
    let mut id = 0;
    let told = told_when(poller, || {
        let notifier = registrar.notifier().unwrap();
        id = notifier.get_id();
        notifier.notify().unwrap();
    });
    assert_eq!(told, [id]);
}

/// Everything that can be done without making anything ready.
fn do_everything_quietly(registrar: &Registrar) {
    let (socket, _peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read).unwrap();
    registrar.reregister(id, &socket, Event::Read.once()).unwrap();
    registrar.deregister(&socket).unwrap();
    assert!(registrar.deregister(&socket).is_err());
    assert!(registrar.register(&std::fs::File::open("/").unwrap(), Event::Read).is_err());

    // Soon enough to be the next to fire, and late enough not to while it is there.
    let timer = registrar.set_timeout(Duration::from_secs(30)).unwrap();
    timer.reset(Duration::from_secs(20)).unwrap();
    timer.arm();
    registrar.cancel_timeout(timer).unwrap();
    let interval = registrar.set_interval(Duration::from_secs(10)).unwrap();
    interval.arm();
    drop(interval);

    let (_tx, rx) = registrar.channel::<()>().unwrap();
    drop(rx);
    let (_tx, _rx) = registrar.sync_channel::<()>(1).unwrap();
    let _notifier = registrar.notifier().unwrap();
    let _another = registrar.clone();
}

#[test]
fn nothing_that_other_threads_do_makes_a_wait_return_with_nothing() {
    let timeout = Duration::from_millis(300);
    let (poller, registrar) = new_poller();
    let sleeper = Sleeper::start(poller, timeout);
    let mut rounds = 0;
    while !sleeper.is_done() {
        do_everything_quietly(&registrar);
        rounds += 1;
    }
    let woken = sleeper.join();
    assert!(woken.result.unwrap().is_empty());
    assert!(woken.waited >= timeout, "{:?} after {rounds} rounds", woken.waited);
}

#[test]
fn a_timer_that_is_cancelled_in_time_does_not_end_the_wait() {
    let timeout = Duration::from_millis(200);
    let (poller, registrar) = new_poller();
    let sleeper = Sleeper::start(poller, timeout);
    let started = std::time::Instant::now();
    let timer = registrar.set_timeout(50).unwrap();
    registrar.cancel_timeout(timer).unwrap();
    // If this thread was kept from running for so long, the timer may have fired.
    let in_time = started.elapsed() < Duration::from_millis(50);
    let woken = sleeper.join();
    assert!(!in_time || (woken.ids().is_empty() && woken.waited >= timeout), "{:?}", woken.waited);
}

#[test]
fn a_registrar_can_be_moved_cloned_and_shared() {
    fn can<T: Send + Sync + Clone>() {}
    fn can_move<T: Send>() {}
    can::<Registrar>();
    can::<amy::Notifier>();
    can_move::<Poller>();
    can_move::<amy::Timer>();
    can_move::<amy::Receiver<std::cell::Cell<u8>>>();
    can_move::<amy::Sender<std::cell::Cell<u8>>>();
}

#[test]
fn many_threads_register_at_once_and_all_are_told() {
    let (mut poller, registrar) = new_poller();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let registrar = registrar.clone();
            thread::spawn(move || {
                let pairs: Vec<_> = (0..50).map(|_| unix_pair()).collect();
                let ids: Vec<_> = pairs
                    .iter()
                    .map(|(a, _)| registrar.register(a, Event::Write).unwrap())
                    .collect();
                (pairs, ids)
            })
        })
        .collect();
    let mut told = Vec::new();
    while told.len() < 200 {
        let batch = poller.wait(LONG).unwrap();
        assert!(!batch.is_empty());
        told.extend(batch.iter().map(|n| n.id));
    }
    let parts: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let ids = parts.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
    assert_eq!(crate::common::sorted(told), crate::common::sorted(ids));
}
