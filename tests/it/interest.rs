//! Promises 2 and 7, interest: told once for each time that something becomes ready, or, where that
//! was asked, once and no more, or for as long as it is ready; a change reports again what is ready.

use crate::common::{LONG, look, new_poller, next, read_all, tcp_pair, unix_pair, wait_for};
use amy::{Event, Interest};
use std::{io::Write, net::TcpStream};

const EVENTS: [Event; 3] = [Event::Read, Event::Write, Event::Both];

#[test]
fn an_edge_is_told_once_and_again_when_more_comes() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read).unwrap();
    for drained in [false, true, false] {
        peer.write_all(b"x").unwrap();
        assert_eq!(look(&mut poller), [id]);
        assert!(look(&mut poller).is_empty());
        if drained {
            read_all(&socket);
            assert!(look(&mut poller).is_empty());
        }
    }
}

#[test]
fn what_was_ready_before_it_was_registered_is_told() {
    for way in [Interest::from, |e: Event| e.once(), |e: Event| e.level()] {
        let (mut poller, registrar) = new_poller();
        let (socket, mut peer) = unix_pair();
        peer.write_all(b"x").unwrap();
        let id = registrar.register(&socket, way(Event::Read)).unwrap();
        assert_eq!(look(&mut poller), [id]);
    }
}

#[test]
fn a_level_is_told_by_every_wait_until_it_is_drained() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read.level()).unwrap();
    assert!(look(&mut poller).is_empty());
    peer.write_all(b"x").unwrap();
    for _ in 0..3 {
        assert_eq!(look(&mut poller), [id]);
        assert_eq!(poller.wait(LONG).unwrap()[0].id, id);
    }
    read_all(&socket);
    assert!(look(&mut poller).is_empty());
}

#[test]
fn once_is_told_once_whatever_comes_until_it_is_registered_again() {
    for level in [false, true] {
        let (mut poller, registrar) = new_poller();
        let (socket, mut peer) = unix_pair();
        let once = if level { Event::Both.level().once() } else { Event::Both.once() };
        let id = registrar.register(&socket, once).unwrap();
        for _ in 0..3 {
            assert_eq!(look(&mut poller), [id]);
            peer.write_all(b"x").unwrap();
            assert!(look(&mut poller).is_empty());
            // It is still there to be changed.
            registrar.reregister(id, &socket, once).unwrap();
        }
    }
}

#[test]
fn a_change_to_the_same_reports_again_what_is_ready() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    peer.write_all(b"x").unwrap();
    let id = registrar.register(&socket, Event::Read).unwrap();
    for _ in 0..3 {
        assert_eq!(look(&mut poller), [id]);
        assert!(look(&mut poller).is_empty());
        registrar.reregister(id, &socket, Event::Read).unwrap();
    }
    assert_eq!(look(&mut poller), [id]);
    read_all(&socket);
    registrar.reregister(id, &socket, Event::Read).unwrap();
    assert!(look(&mut poller).is_empty(), "there is nothing to report");
}

#[test]
fn a_change_replaces_what_was_asked() {
    for before in EVENTS {
        for after in EVENTS {
            let (mut poller, registrar) = new_poller();
            let (socket, mut peer) = unix_pair();
            peer.write_all(b"x").unwrap();
            let id = registrar.register(&socket, before).unwrap();
            assert_eq!(next(&mut poller).event, before);
            registrar.reregister(id, &socket, after).unwrap();
            let n = next(&mut poller);
            assert_eq!((n.id, n.event), (id, after), "after {before:?}");
            if after == Event::Write {
                peer.write_all(b"y").unwrap();
                assert!(look(&mut poller).iter().all(|&told| told == id));
                assert!(look(&mut poller).is_empty());
            }
        }
    }
}

#[test]
fn a_change_replaces_how_it_is_told() {
    let (mut poller, registrar) = new_poller();
    let (socket, _peer) = unix_pair();
    let id = registrar.register(&socket, Event::Write).unwrap();
    assert_eq!(look(&mut poller), [id]);

    registrar.reregister(id, &socket, Event::Write.level()).unwrap();
    assert_eq!(look(&mut poller), [id]);
    assert_eq!(look(&mut poller), [id]);

    registrar.reregister(id, &socket, Event::Write).unwrap();
    assert_eq!(look(&mut poller), [id]);
    assert!(look(&mut poller).is_empty());
}

#[test]
fn what_comes_before_a_change_took_effect_is_not_told_as_something_else() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read).unwrap();
    peer.write_all(b"x").unwrap();
    // Ready, and not asked for by anyone yet.
    registrar.reregister(id, &socket, Event::Write).unwrap();
    assert_eq!(next(&mut poller).event, Event::Write);
    assert!(look(&mut poller).is_empty());
}

fn send_out_of_band(socket: &TcpStream) {
    assert_eq!(rustix::net::send(socket, b"!", rustix::net::SendFlags::OOB), Ok(1));
}

#[test]
fn out_of_band_data_is_told_to_those_who_asked() {
    let (mut poller, registrar) = new_poller();
    let (socket, peer) = tcp_pair();
    let plain = socket.try_clone().unwrap();
    let id = registrar.register(&socket, Event::Read.priority()).unwrap();
    let plain_id = registrar.register(&plain, Event::Read).unwrap();

    send_out_of_band(&peer);
    let n = wait_for(&mut poller, id);
    assert!(n.is_priority() && n.event == Event::Read, "{n:?}");
    assert!(!n.is_error() && !n.is_read_closed() && !n.is_write_closed());
    let mut urgent = [0];
    let (_, received) =
        rustix::net::recv(&socket, &mut urgent, rustix::net::RecvFlags::OOB).unwrap();
    assert_eq!((received, urgent), (1, *b"!"));

    (&peer).write_all(b"x").unwrap();
    assert!(!wait_for(&mut poller, plain_id).is_priority());
}

#[test]
fn out_of_band_data_is_something_to_read_also_while_there_is_room_to_write() {
    let (mut poller, registrar) = new_poller();
    let (socket, peer) = tcp_pair();
    let id = registrar.register(&socket, Event::Both.priority()).unwrap();
    assert_eq!(next(&mut poller).event, Event::Write);
    send_out_of_band(&peer);
    let n = wait_for(&mut poller, id);
    assert!(n.is_priority());
    assert_eq!(n.event, Event::Both);
}

#[test]
fn out_of_band_data_is_told_as_writing_where_only_that_was_asked() {
    let (mut poller, registrar) = new_poller();
    let (socket, peer) = tcp_pair();
    let id = registrar.register(&socket, Event::Write.priority()).unwrap();
    assert_eq!(next(&mut poller).event, Event::Write);
    send_out_of_band(&peer);
    let n = wait_for(&mut poller, id);
    assert_eq!((n.event, n.is_priority()), (Event::Write, true));
}

#[test]
fn out_of_band_data_alone_is_not_told_to_those_who_did_not_ask() {
    let (mut poller, registrar) = new_poller();
    let (socket, peer) = tcp_pair();
    let deaf = socket.try_clone().unwrap();
    let id = registrar.register(&socket, Event::Read.priority()).unwrap();
    let deaf_id = registrar.register(&deaf, Event::Read).unwrap();
    send_out_of_band(&peer);
    let mut told = Vec::new();
    while !told.contains(&id) {
        told.extend(poller.wait(LONG).unwrap().iter().map(|n| n.id));
    }
    told.extend(look(&mut poller));
    assert!(!told.contains(&deaf_id));
}

#[test]
fn refinements_can_be_combined_in_any_order_and_leave_the_event_alone() {
    for event in EVENTS {
        assert_eq!(Interest::from(event).event(), event);
        assert_eq!(event.once().level().priority(), event.priority().level().once());
        assert_eq!(event.level().event(), event);
        assert_ne!(event.once(), Interest::from(event));
        assert_ne!(event.once(), event.level());
        assert_ne!(event.priority(), Interest::from(event));
    }
}
