//! Promises 3, 5, 6, 7 and 9 where systems differ most: what holds for a backend in particular, on all.

use amy::{Event, IdMap, Interest, Poller, Registrar};
use std::{
    collections::HashSet,
    fs::File,
    io::{self, ErrorKind, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Longer than anything takes, also on a machine that emulates another.
const LONG: Duration = Duration::from_secs(60);

fn new_poller() -> (Poller, Registrar) {
    let poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    (poller, registrar)
}

/// Two connected sockets: one to register, one to play the peer.
fn pair() -> (UnixStream, UnixStream) {
    let (socket, peer) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    (socket, peer)
}

/// What is told without waiting.
fn look(poller: &mut Poller) -> Vec<(usize, Event)> {
    poller.wait(0).unwrap().iter().map(|n| (n.id, n.event)).collect()
}

/// What is told next.
fn next(poller: &mut Poller) -> Vec<(usize, Event)> {
    poller.wait(LONG).unwrap().iter().map(|n| (n.id, n.event)).collect()
}

#[test]
fn readiness_for_both_is_one_notification() {
    let (mut poller, registrar) = new_poller();
    let mut sockets = Vec::new();
    let mut expected = HashSet::new();
    for _ in 0..50 {
        let (socket, mut peer) = pair();
        peer.write_all(b"x").unwrap();
        let id = registrar.register(&socket, Event::Both).unwrap();
        expected.insert((id, Event::Both));
        sockets.push((socket, peer));
    }
    let told = next(&mut poller);
    assert_eq!(told.len(), expected.len());
    assert_eq!(told.into_iter().collect::<HashSet<_>>(), expected);
}

#[test]
fn a_change_removes_what_is_no_longer_asked_for() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = pair();
    let id = registrar.register(&socket, Event::Both.level()).unwrap();
    assert_eq!(next(&mut poller), [(id, Event::Write)]);

    registrar.reregister(id, &socket, Event::Read.level()).unwrap();
    assert_eq!(look(&mut poller), []);
    peer.write_all(b"x").unwrap();
    assert_eq!(next(&mut poller), [(id, Event::Read)]);

    registrar.reregister(id, &socket, Event::Write).unwrap();
    assert_eq!(next(&mut poller), [(id, Event::Write)]);
    assert_eq!(look(&mut poller), [], "the new way is by edge");
}

#[test]
fn whatever_was_asked_for_is_removed_with_the_descriptor() {
    for event in [Event::Read, Event::Write, Event::Both] {
        let (mut poller, registrar) = new_poller();
        let (socket, mut peer) = pair();
        registrar.register(&socket, event.level()).unwrap();
        registrar.deregister(&socket).unwrap();
        peer.write_all(b"x").unwrap();
        assert_eq!(look(&mut poller), [], "{event:?}");

        let again = registrar.deregister(&socket).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotFound, "{event:?}");
        let id = registrar.register(&socket, event.level()).unwrap();
        assert_eq!(next(&mut poller)[0].0, id, "{event:?}");
    }
}

#[test]
fn what_is_not_registered_is_neither_changed_nor_registered_by_the_attempt() {
    let (mut poller, registrar) = new_poller();
    let (known, _peer) = pair();
    let id = registrar.register(&known, Event::Read).unwrap();
    let (stranger, mut peer) = pair();
    peer.write_all(b"x").unwrap();
    for event in [Event::Read, Event::Write, Event::Both] {
        let error = registrar.reregister(id, &stranger, event.level()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{event:?}");
        assert_eq!(look(&mut poller), [], "{event:?}");
    }
}

#[test]
fn a_second_registration_is_refused_or_takes_the_place_of_the_first() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = pair();
    let first = registrar.register(&socket, Event::Write.level()).unwrap();
    assert_eq!(next(&mut poller), [(first, Event::Write)]);

    let second = registrar.register(&socket, Event::Read);
    peer.write_all(b"x").unwrap();
    match second {
        Ok(second) => assert_eq!(next(&mut poller), [(second, Event::Read)]),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
            assert_eq!(next(&mut poller), [(first, Event::Write)]);
        }
    }
}

#[test]
fn a_file_is_refused_by_every_call() {
    let (mut poller, registrar) = new_poller();
    for path in [Path::new(env!("CARGO_MANIFEST_DIR")).to_owned(), std::env::current_exe().unwrap()]
    {
        let file = File::open(&path).unwrap();
        let refused = |result: io::Result<()>| {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied, "{path:?}");
        };
        refused(registrar.register(&file, Event::Read).map(drop));
        refused(registrar.reregister(1, &file, Event::Write));
        refused(registrar.deregister(&file));
    }
    assert_eq!(look(&mut poller), []);
}

#[test]
fn once_is_told_once_whichever_way_becomes_ready_first() {
    let ways: [(Interest, &[Event]); 3] = [
        (Event::Read.once(), &[Event::Read]),
        (Event::Both.once(), &[Event::Write, Event::Both]),
        (Event::Both.level().once(), &[Event::Write, Event::Both]),
    ];
    for (interest, told) in ways {
        let (mut poller, registrar) = new_poller();
        let (socket, mut peer) = pair();
        let id = registrar.register(&socket, interest).unwrap();
        for &event in told {
            if event.readable() {
                peer.write_all(b"x").unwrap();
            }
            assert_eq!(next(&mut poller), [(id, event)], "{interest:?}");
            peer.write_all(b"x").unwrap();
            assert_eq!(look(&mut poller), [], "{interest:?}");
            registrar.reregister(id, &socket, interest).unwrap();
        }
        registrar.deregister(&socket).unwrap();
    }
}

#[test]
fn once_has_one_owner_however_many_wait_and_whichever_way_becomes_ready() {
    const ROUNDS: usize = 200;
    let (mut first, registrar) = new_poller();
    let mut second = first.try_clone().unwrap();
    let (socket, mut peer) = pair();
    let stop = registrar.notifier().unwrap();
    let id = registrar.register(&socket, Event::Both.once()).unwrap();

    // Whoever is told hands the socket back through this thread.
    let (tell, told) = std::sync::mpsc::channel();
    let wait = |poller: &mut Poller, tell: &std::sync::mpsc::Sender<usize>| {
        loop {
            for n in poller.wait(LONG).unwrap() {
                if n.id != id {
                    return;
                }
                tell.send(n.id).unwrap();
            }
        }
    };
    thread::scope(|scope| {
        let threads = [&mut first, &mut second].map(|poller| {
            let tell = tell.clone();
            let wait = &wait;
            scope.spawn(move || wait(poller, &tell))
        });
        for _ in 0..ROUNDS {
            told.recv_timeout(LONG).expect("it is told");
            peer.write_all(b"x").unwrap();
            assert!(told.try_recv().is_err(), "a second owner");
            registrar.reregister(id, &socket, Event::Both.once()).unwrap();
        }
        for thread in threads {
            while !thread.is_finished() {
                stop.notify().unwrap();
                thread::yield_now();
            }
        }
    });
    // A second owner that came too late to be seen above would be left over.
    assert!(told.try_iter().count() <= 1, "a second owner");
}

#[test]
fn a_number_that_is_used_again_belongs_to_its_new_owner() {
    let (mut poller, registrar) = new_poller();
    let (socket, peer) = pair();
    let number = socket.as_raw_fd();
    let old = registrar.register(&socket, Event::Both.once()).unwrap();
    assert_eq!(next(&mut poller), [(old, Event::Write)]);
    // Closed without a word. Whoever gets the number next is told all the same.
    drop((socket, peer));

    let mut seen = IdMap::default();
    let mut sockets = Vec::new();
    loop {
        let (socket, peer) = pair();
        let id = registrar.register(&socket, Event::Both.once()).unwrap();
        let reused = [socket.as_raw_fd(), peer.as_raw_fd()].contains(&number);
        seen.insert(id, false);
        sockets.push((socket, peer));
        // Another test may have taken the number; then it was not ours to see.
        if reused || sockets.len() == 20 {
            break;
        }
    }
    while seen.values().any(|told| !told) {
        for (id, event) in next(&mut poller) {
            assert_eq!(event, Event::Write);
            let told = seen.get_mut(&id).expect("an id of a socket that is open");
            assert!(!std::mem::replace(told, true), "{id} was told twice");
        }
    }
}

#[test]
fn whatever_another_thread_does_wakes_a_wait_that_has_begun() {
    type Deed = fn(&Registrar, &UnixStream) -> usize;
    let deeds: [Deed; 3] = [
        |registrar, socket| registrar.register(socket, Event::Write).unwrap(),
        |registrar, _| {
            let timer = registrar.set_timeout(1).unwrap();
            let id = timer.get_id();
            // It must live until it is told.
            std::mem::forget(timer);
            id
        },
        |registrar, _| {
            let notifier = registrar.notifier().unwrap();
            notifier.notify().unwrap();
            notifier.get_id()
        },
    ];
    for deed in deeds {
        let (mut poller, registrar) = new_poller();
        let (socket, _peer) = pair();
        let waiting = thread::spawn(move || {
            let told = next(&mut poller);
            (told, poller)
        });
        let id = deed(&registrar, &socket);
        let (told, _poller) = waiting.join().unwrap();
        assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id]);
    }
}

#[test]
fn the_end_of_a_peer_is_told_to_reader_and_writer_and_stays_to_be_read() {
    for event in [Event::Read, Event::Both] {
        let (mut poller, registrar) = new_poller();
        let (socket, mut peer) = pair();
        let id = registrar.register(&socket, event).unwrap();
        peer.write_all(b"last").unwrap();
        drop(peer);
        let mut ended = false;
        while !ended {
            for n in poller.wait(LONG).unwrap() {
                assert_eq!(n.id, id);
                ended |= n.is_read_closed() && n.event.readable();
            }
        }
        let mut last = Vec::new();
        io::Read::read_to_end(&mut &socket, &mut last).unwrap();
        assert_eq!(last, b"last");
    }
}

#[test]
fn the_longest_times_are_accepted_on_any_width() {
    let (mut poller, registrar) = new_poller();
    let times = [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_secs(1 << 31)];
    let _timers: Vec<_> = times.map(|time| registrar.set_timeout(time).unwrap()).into();
    let _longest = registrar.set_interval(usize::MAX).unwrap();
    let soonest = registrar.set_timeout(Duration::from_micros(1500)).unwrap();
    let start = Instant::now();
    assert_eq!(poller.wait(usize::MAX).unwrap()[0].id, soonest.get_id());
    assert!(start.elapsed() < LONG);
    assert_eq!(look(&mut poller), []);
}
