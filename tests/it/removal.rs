//! Promise 5, removal: after `deregister`, a cancel or the drop of a receiver has returned, no
//! later `wait` reports that id; a batch returned earlier may hold it.

use crate::common::{alone, look, new_poller, next, sorted, tcp_pair, unix_pair, until, wait_for};
use amy::{Event, Interest, Registrar};
use rustix::io::Errno;
use std::{
    io::{self, Write},
    net::TcpListener,
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

#[test]
fn a_deregistered_socket_is_silent_whatever_was_asked_and_told() {
    let events = [Event::Read, Event::Write, Event::Both];
    let ways: [fn(Event) -> Interest; 4] =
        [Interest::from, |e| e.level(), |e| e.once(), |e| e.level().once().priority()];
    for event in events {
        for way in ways {
            for told_before in [false, true] {
                let (mut poller, registrar) = new_poller();
                let (socket, mut peer) = unix_pair();
                peer.write_all(b"x").unwrap();
                let id = registrar.register(&socket, way(event)).unwrap();
                if told_before {
                    assert_eq!(next(&mut poller).id, id);
                }
                registrar.deregister(&socket).unwrap();
                peer.write_all(b"y").unwrap();
                drop(peer);
                assert!(look(&mut poller).is_empty(), "{event:?}");
            }
        }
    }
}

#[test]
fn a_socket_can_be_lent_or_given_away_to_be_deregistered() {
    fn is_over<F: AsFd>(registrar: &Registrar, fd: F) {
        registrar.deregister(fd).unwrap();
    }
    let (mut poller, registrar) = new_poller();
    for _ in 0..2 {
        let (socket, mut peer) = tcp_pair();
        registrar.register(&socket, Event::Both).unwrap();
        wait_for_close(&mut peer, || is_over(&registrar, socket));

        let (socket, _peer) = tcp_pair();
        registrar.register(&socket, Event::Both).unwrap();
        is_over(&registrar, &socket);
        registrar.register(&socket, Event::Both).unwrap();
        is_over(&registrar, socket.as_fd());
        let shared = Arc::new(socket);
        registrar.register(&shared, Event::Both).unwrap();
        is_over(&registrar, Arc::clone(&shared));
        registrar.register(&*shared, Event::Both).unwrap();
        is_over(&registrar, shared);

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        registrar.register(&listener, Event::Read).unwrap();
        is_over(&registrar, Box::new(listener));
    }
    assert!(look(&mut poller).is_empty());
}

/// Checks that `close` closes the other end of `peer`.
fn wait_for_close(peer: &mut std::net::TcpStream, close: impl FnOnce()) {
    let (mut poller, registrar) = new_poller();
    let id = registrar.register(peer, Event::Read).unwrap();
    assert!(look(&mut poller).is_empty());
    close();
    assert_eq!(wait_for(&mut poller, id).event, Event::Read);
    assert!(crate::common::read_all(peer).is_empty());
}

#[test]
fn a_removal_is_done_once() {
    let (_poller, registrar) = new_poller();
    let (socket, _peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read).unwrap();
    registrar.deregister(&socket).unwrap();
    let again = registrar.deregister(&socket).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::NotFound);
    let change = registrar.reregister(id, &socket, Event::Read).unwrap_err();
    assert_eq!(change.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_write_only_registration_is_removed_as_well() {
    let (mut poller, registrar) = new_poller();
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    registrar.register(&writer, Event::Write.level()).unwrap();
    assert_eq!(look(&mut poller).len(), 1);
    registrar.deregister(&writer).unwrap();
    assert!(look(&mut poller).is_empty());
}

#[test]
fn a_batch_may_hold_what_is_removed_while_it_is_handled() {
    let (mut poller, registrar) = new_poller();
    let (first, _first_peer) = unix_pair();
    let (second, _second_peer) = unix_pair();
    let ids = [&first, &second].map(|s| registrar.register(s, Event::Write.level()).unwrap());

    let batch = poller.wait(0).unwrap();
    registrar.deregister(&first).unwrap();
    registrar.deregister(&second).unwrap();
    assert_eq!(sorted(batch.iter().map(|n| n.id).collect()), ids);
    assert!(look(&mut poller).is_empty());
}

#[test]
fn a_timer_that_is_due_is_silent_once_it_is_cancelled() {
    for way in 0..2 {
        let (mut poller, registrar) = new_poller();
        let timers = [registrar.set_timeout(0).unwrap(), registrar.set_interval(1).unwrap()];
        thread::sleep(Duration::from_millis(2));
        for timer in timers {
            if way == 0 { drop(timer) } else { registrar.cancel_timeout(timer).unwrap() }
        }
        assert!(look(&mut poller).is_empty());
    }
}

#[test]
fn a_cancelled_timer_takes_no_other_with_it() {
    let (mut poller, registrar) = new_poller();
    let mut timers: Vec<_> = (0..100).map(|_| registrar.set_timeout(0).unwrap()).collect();
    // From the middle of a heap, where something has to take its place.
    for at in [70, 50, 31, 30, 7, 1, 0] {
        registrar.cancel_timeout(timers.remove(at)).unwrap();
    }
    let ids: Vec<_> = timers.iter().map(amy::Timer::get_id).collect();
    assert_eq!(look(&mut poller), ids);
}

#[test]
fn a_timer_that_has_fired_can_be_cancelled() {
    let (mut poller, registrar) = new_poller();
    let timer = registrar.set_timeout(0).unwrap();
    assert_eq!(next(&mut poller).id, timer.get_id());
    registrar.cancel_timeout(timer).unwrap();
    assert!(look(&mut poller).is_empty());
}

#[test]
fn a_receiver_that_is_gone_is_silent() {
    let (mut poller, registrar) = new_poller();
    let (tx, rx) = registrar.channel().unwrap();
    tx.send(1).unwrap();
    assert_eq!(look(&mut poller), [rx.get_id()]);
    drop(rx);
    assert!(tx.send(2).is_err());
    assert!(look(&mut poller).is_empty());
    drop(tx);
    assert!(look(&mut poller).is_empty());
}

#[test]
fn a_receiver_that_is_gone_is_silent_also_behind_one_that_is_not() {
    let (mut poller, registrar) = new_poller();
    let channels: Vec<_> = (0..5).map(|_| registrar.channel().unwrap()).collect();
    channels.iter().for_each(|(tx, _)| tx.send(()).unwrap());
    let (senders, mut receivers): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
    drop((receivers.remove(3), receivers.remove(1)));
    let ids: Vec<_> = receivers.iter().map(amy::Receiver::get_id).collect();
    assert_eq!(look(&mut poller), ids);
    drop(senders);
    assert_eq!(sorted(look(&mut poller)), ids);
}

#[test]
fn a_closed_socket_whose_duplicate_lives_goes_on_under_its_old_id() {
    alone(|| {
        let (mut poller, registrar) = new_poller();
        let (old, mut old_peer) = unix_pair();
        let number = old.as_raw_fd();
        let old_id = registrar.register(&old, Event::Read).unwrap();
        let ghost = old.try_clone().unwrap();
        drop(old);

        let (new, mut new_peer) = unix_pair();
        assert_eq!(new.as_raw_fd(), number, "it got the number of the old one");
        let new_id = registrar.register(&new, Event::Read).unwrap();
        old_peer.write_all(b"x").unwrap();
        new_peer.write_all(b"x").unwrap();
        assert_eq!(sorted(look(&mut poller)), [old_id, new_id]);

        // The ghost was never registered, so that it cannot be removed through it.
        let error = registrar.deregister(&ghost).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NOENT));
        registrar.deregister(&new).unwrap();
        old_peer.write_all(b"x").unwrap();
        new_peer.write_all(b"x").unwrap();
        assert_eq!(look(&mut poller), [old_id]);

        drop(ghost);
        assert!(look(&mut poller).is_empty());
    });
}

#[test]
fn a_duplicate_is_a_registration_of_its_own() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    let duplicate = socket.try_clone().unwrap();
    let ids = [&socket, &duplicate].map(|s| registrar.register(s, Event::Read).unwrap());
    peer.write_all(b"x").unwrap();
    assert_eq!(sorted(look(&mut poller)), ids);
    registrar.deregister(&socket).unwrap();
    peer.write_all(b"x").unwrap();
    assert_eq!(look(&mut poller), [ids[1]]);
}

#[test]
fn a_socket_that_is_closed_without_being_removed_is_forgotten() {
    alone(|| {
        let (mut poller, registrar) = new_poller();
        for _ in 0..100 {
            // The same two numbers each time, which are free to be registered anew.
            let (socket, mut peer) = unix_pair();
            let id = registrar.register(&socket, Event::Read).unwrap();
            peer.write_all(b"x").unwrap();
            assert_eq!(look(&mut poller), [id]);
            peer.write_all(b"y").unwrap();
            drop(socket);
            assert!(look(&mut poller).is_empty());
        }
    });
}

/// Has a thread wait while `come_and_go` makes things ready under growing ids and removes them in
/// that order, and checks that no `wait` reports what was removed before it began.
fn assert_nothing_returns(come_and_go: fn(&Registrar) -> usize) {
    const ROUNDS: usize = 1000;
    // Less often than that, they never met.
    const MEETINGS: usize = 10;
    let (mut poller, registrar) = new_poller();
    let removed = AtomicUsize::new(0);
    let told = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let removed = removed.load(Ordering::Acquire);
                let batch = poller.wait(Duration::from_micros(500)).unwrap();
                told.fetch_add(batch.len(), Ordering::Relaxed);
                assert!(batch.iter().all(|n| n.id > removed), "{batch:?}, removed: {removed}");
            }
        });
        let mut rounds = 0;
        until("enough was told", || {
            let id = come_and_go(&registrar);
            assert!(id > removed.swap(id, Ordering::AcqRel));
            rounds += 1;
            rounds >= ROUNDS && told.load(Ordering::Relaxed) >= MEETINGS
        });
        over.store(true, Ordering::Release);
    });
}

#[test]
fn no_thread_is_told_of_a_socket_after_its_removal() {
    assert_nothing_returns(|registrar| {
        let (socket, _peer) = unix_pair();
        let id = registrar.register(&socket, Event::Write.level()).unwrap();
        thread::yield_now();
        registrar.deregister(&socket).unwrap();
        id
    });
}

#[test]
fn no_thread_is_told_of_a_timer_after_its_cancel() {
    assert_nothing_returns(|registrar| {
        let timer = registrar.set_timeout(0).unwrap();
        let id = timer.get_id();
        thread::yield_now();
        registrar.cancel_timeout(timer).unwrap();
        id
    });
}

#[test]
fn no_thread_is_told_of_a_receiver_after_its_drop() {
    assert_nothing_returns(|registrar| {
        let (tx, rx) = registrar.channel().unwrap();
        tx.send(()).unwrap();
        thread::yield_now();
        drop(rx);
        tx.get_id()
    });
}

#[test]
fn a_sleeper_is_not_told_of_what_was_removed_while_it_slept() {
    let (poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    registrar.register(&socket, Event::Read).unwrap();
    let timer = registrar.set_timeout(Duration::from_secs(3600)).unwrap();
    let sleeper = crate::common::Sleeper::start(poller, crate::common::LONG);
    registrar.deregister(&socket).unwrap();
    registrar.cancel_timeout(timer).unwrap();
    peer.write_all(b"x").unwrap();
    let notifier = registrar.notifier().unwrap();
    notifier.notify().unwrap();
    until("the sleeper woke up", || sleeper.is_done());
    assert_eq!(sleeper.ids(), [notifier.get_id()]);
}
