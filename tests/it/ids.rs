//! Promise 1, ids: an id is never used twice in one process, by any poller.

use crate::common::{look, new_poller, next, sorted, unix_pair};
use amy::{Event, IdMap, Poller, Registrar};
use std::{collections::HashMap, io::ErrorKind, io::Write, os::fd::AsRawFd, thread};

/// The ids of one of each kind, all of which are gone when it returns.
fn one_of_each(registrar: &Registrar) -> Vec<usize> {
    let (socket, _peer) = unix_pair();
    let (tx, rx) = registrar.channel::<()>().unwrap();
    let (sync_tx, sync_rx) = registrar.sync_channel::<()>(1).unwrap();
    assert_eq!((tx.get_id(), sync_tx.get_id()), (rx.get_id(), sync_rx.get_id()));
    vec![
        registrar.register(&socket, Event::Read).unwrap(),
        registrar.set_timeout(1000).unwrap().get_id(),
        registrar.set_interval(1000).unwrap().get_id(),
        registrar.notifier().unwrap().get_id(),
        rx.get_id(),
        sync_rx.get_id(),
    ]
}

fn assert_all_different(ids: Vec<usize>) {
    let count = ids.len();
    let mut ids = sorted(ids);
    ids.dedup();
    assert_eq!(ids.len(), count, "an id was handed out twice");
    assert_ne!(ids[0], 0, "0 is nobody's id");
}

#[test]
fn sockets_timers_channels_and_notifiers_share_one_series_of_ids() {
    let (_poller, registrar) = new_poller();
    assert_all_different((0..100).flat_map(|_| one_of_each(&registrar)).collect());
}

#[test]
fn ids_of_different_pollers_differ() {
    let (_first, to_first) = new_poller();
    let (_second, to_second) = new_poller();
    let (socket, _peer) = unix_pair();
    let first = to_first.register(&socket, Event::Read).unwrap();
    let second = to_second.register(&socket, Event::Read).unwrap();
    assert_ne!(first, second);
    assert_all_different([one_of_each(&to_first), one_of_each(&to_second)].concat());
}

#[test]
fn a_poller_does_not_start_again_where_another_ended() {
    let ids = (0..50).flat_map(|_| one_of_each(&Poller::new().unwrap().get_registrar())).collect();
    // The temporary poller is gone before the next is made.
    assert_all_different(ids);
}

#[test]
fn threads_never_get_the_same_id() {
    let (_poller, registrar) = new_poller();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let registrar = registrar.clone();
            thread::spawn(move || -> Vec<_> {
                (0..200).flat_map(|_| one_of_each(&registrar)).collect()
            })
        })
        .collect();
    assert_all_different(threads.into_iter().flat_map(|t| t.join().unwrap()).collect());
}

#[test]
fn a_socket_registered_anew_gets_a_new_id() {
    let (mut poller, registrar) = new_poller();
    let (socket, _peer) = unix_pair();
    let mut ids = Vec::new();
    for _ in 0..10 {
        let id = registrar.register(&socket, Event::Write).unwrap();
        assert_eq!(look(&mut poller), [id]);
        registrar.deregister(&socket).unwrap();
        ids.push(id);
    }
    assert_all_different(ids);
}

#[test]
fn a_socket_that_inherits_a_descriptor_number_does_not_inherit_the_id() {
    crate::common::alone(|| {
        let (mut poller, registrar) = new_poller();
        let (old, _peer) = unix_pair();
        let number = old.as_raw_fd();
        let old_id = registrar.register(&old, Event::Read).unwrap();
        drop(old);

        let (new, mut peer) = unix_pair();
        assert_eq!(new.as_raw_fd(), number);
        let new_id = registrar.register(&new, Event::Read).unwrap();
        peer.write_all(b"x").unwrap();
        assert_eq!(next(&mut poller).id, new_id);
        assert_ne!(new_id, old_id);
    });
}

#[test]
fn a_reregistered_socket_keeps_its_id() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    let id = registrar.register(&socket, Event::Write).unwrap();
    assert_eq!(next(&mut poller).id, id);
    registrar.reregister(id, &socket, Event::Read).unwrap();
    peer.write_all(b"x").unwrap();
    assert_eq!(next(&mut poller).id, id);
}

#[test]
fn an_id_that_nobody_handed_out_is_refused_and_changes_nothing() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read).unwrap();
    for impossible in [0, usize::MAX, usize::MAX - 1] {
        // On a 32-bit system every number but 0 is an id.
        if impossible == 0 || usize::BITS == 64 {
            let error = registrar.reregister(impossible, &socket, Event::Write).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
    assert!(look(&mut poller).is_empty(), "it is not registered for writing");
    peer.write_all(b"x").unwrap();
    assert_eq!(next(&mut poller).id, id);
}

#[test]
fn a_map_of_ids_holds_what_a_hash_map_holds() {
    let mut ids = IdMap::default();
    let mut plain = HashMap::new();
    // In a row, in the steps of several kinds of registration, and those that only differ far up.
    let keys = (1..3000)
        .chain((5000..90_000).step_by(7))
        .chain((1..usize::BITS - 1).map(|shift| 1 << shift));
    for key in keys {
        assert_eq!(ids.insert(key, key ^ 1), plain.insert(key, key ^ 1));
    }
    for key in (0..90_000).step_by(3) {
        assert_eq!(ids.remove(&key), plain.remove(&key));
    }
    assert_eq!(ids.len(), plain.len());
    assert!(plain.iter().all(|(key, value)| ids.get(key) == Some(value)));
}
