//! Promise 4, nothing taken is lost: what the kernel handed over is delivered, whatever else fails;
//! an error comes from the call that met it, keeps its code, and leaves all as it was.

use crate::common::{
    LONG, alone, descriptors, look, new_poller, next, read_all, unix_pair, wait_for_each,
};
use amy::{Event, Poller};
use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::unix::net::UnixStream,
};

/// Has the process run out of descriptors when it has opened as many more as are in the result,
/// which it has not.
fn use_up_descriptors(spare: usize) -> Vec<File> {
    let limit = getrlimit(Resource::Nofile);
    let soft = descriptors().last().unwrap() + 64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft.into()), ..limit }).unwrap();
    let mut fillers = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        fillers.push(file);
    }
    fillers.truncate(fillers.len() - spare);
    fillers
}

fn spare_descriptors() -> usize {
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    files.len()
}

fn code(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

#[test]
fn what_is_ready_beyond_a_batch_comes_with_the_next_once_each() {
    for capacity in [0, 1, 2, 3, 7, 64] {
        let mut poller = Poller::with_capacity(capacity).unwrap();
        let registrar = poller.get_registrar();
        let sockets: Vec<_> = (0..100).map(|_| unix_pair()).collect();
        let mut ids: Vec<_> =
            sockets.iter().map(|(a, _)| registrar.register(a, Event::Write).unwrap()).collect();
        let timers: Vec<_> = (0..30).map(|_| registrar.set_timeout(0).unwrap()).collect();
        ids.extend(timers.iter().map(amy::Timer::get_id));
        let notifiers: Vec<_> = (0..30).map(|_| registrar.notifier().unwrap()).collect();
        ids.extend(notifiers.iter().map(amy::Notifier::get_id));
        notifiers.iter().for_each(|notifier| notifier.notify().unwrap());

        let mut told = Vec::new();
        while told.len() < ids.len() {
            let batch = poller.wait(0).unwrap();
            assert!((1..=capacity.max(1)).contains(&batch.len()), "{} at once", batch.len());
            told.extend(batch.iter().map(|n| n.id));
        }
        assert_eq!(crate::common::sorted(told), crate::common::sorted(ids));
        assert!(look(&mut poller).is_empty());
    }
}

#[test]
fn what_is_ready_beyond_a_batch_of_a_sleeper_comes_with_the_next() {
    let mut poller = Poller::with_capacity(3).unwrap();
    let registrar = poller.get_registrar();
    let sockets: Vec<_> = (0..50).map(|_| unix_pair()).collect();
    let ids: Vec<_> =
        sockets.iter().map(|(a, _)| registrar.register(a, Event::Write).unwrap()).collect();
    wait_for_each(&mut poller, &ids);
}

#[test]
fn a_batch_holds_up_to_its_capacity_also_beyond_the_default() {
    let mut poller = Poller::with_capacity(3000).unwrap();
    let registrar = poller.get_registrar();
    let notifiers: Vec<_> = (0..4000).map(|_| registrar.notifier().unwrap()).collect();
    notifiers.iter().for_each(|notifier| notifier.notify().unwrap());
    assert_eq!(poller.wait(0).unwrap().len(), 3000);
    assert_eq!(poller.wait(0).unwrap().len(), 1000);

    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let notifiers: Vec<_> = (0..1025).map(|_| registrar.notifier().unwrap()).collect();
    notifiers.iter().for_each(|notifier| notifier.notify().unwrap());
    assert_eq!(poller.wait(0).unwrap().len(), 1024);
    assert_eq!(poller.wait(0).unwrap().len(), 1);
}

#[test]
fn an_absurd_capacity_costs_nothing() {
    let mut poller = Poller::with_capacity(usize::MAX).unwrap();
    let timer = poller.get_registrar().set_timeout(0).unwrap();
    assert_eq!(next(&mut poller).id, timer.get_id());
}

#[test]
fn a_poller_that_cannot_be_made_says_why_and_leaves_nothing_behind() {
    alone(|| {
        let refused = (0..).take_while(|&spare| is_refused(spare)).count();
        assert!((1..=4).contains(&refused), "a poller takes {refused} descriptors");
    });
}

/// Whether no poller can be made with that many descriptors left.
fn is_refused(spare: usize) -> bool {
    let _fillers = use_up_descriptors(spare);
    let result = Poller::new();
    let refused = match &result {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
            true
        }
    };
    drop(result);
    assert_eq!(spare_descriptors(), spare, "a descriptor was left behind");
    refused
}

#[test]
fn running_out_of_descriptors_loses_nothing_that_is_ready() {
    alone(|| {
        let (mut poller, registrar) = new_poller();
        let mut sockets: Vec<_> = (0..300).map(|_| unix_pair()).collect();
        let mut ids: Vec<_> =
            sockets.iter().map(|(a, _)| registrar.register(a, Event::Read).unwrap()).collect();
        let (late, mut late_peer) = unix_pair();
        let _fillers = use_up_descriptors(0);
        assert_eq!(code(&Poller::new().unwrap_err()), Some(Errno::MFILE));

        sockets.iter_mut().for_each(|(_, peer)| peer.write_all(b"x").unwrap());
        let timers: Vec<_> = (0..50).map(|_| registrar.set_timeout(1).unwrap()).collect();
        let interval = registrar.set_interval(1).unwrap();
        let (tx, rx) = registrar.channel().unwrap();
        tx.send("no descriptor needed").unwrap();
        let notifier = registrar.notifier().unwrap();
        notifier.notify().unwrap();
        ids.push(registrar.register(&late, Event::Read).unwrap());
        late_peer.write_all(b"x").unwrap();
        ids.extend(timers.iter().map(amy::Timer::get_id));
        ids.extend([interval.get_id(), notifier.get_id()]);

        let mut told = Vec::new();
        let mut second = poller.try_clone().unwrap();
        while told.len() < ids.len() {
            for n in poller.wait(LONG).unwrap().iter().chain(&second.wait(0).unwrap()) {
                if n.id != rx.get_id() {
                    told.push(n.id);
                } else if let Ok(message) = rx.try_recv() {
                    assert_eq!(message, "no descriptor needed");
                }
            }
        }
        assert!(rx.is_empty());
        assert_eq!(crate::common::sorted(told), crate::common::sorted(ids));
    });
}

#[test]
fn what_cannot_be_polled_is_refused_with_the_code_of_the_kernel() {
    let (mut poller, registrar) = new_poller();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for path in [manifest, env!("CARGO_MANIFEST_DIR"), "/dev/null", "/dev/zero"] {
        let file = File::open(path).unwrap();
        for event in [Event::Read, Event::Write, Event::Both] {
            let error = registrar.register(&file, event).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{path}");
            assert_eq!(code(&error), Some(Errno::PERM), "{path}");
        }
    }
    assert!(look(&mut poller).is_empty());
    let (socket, _peer) = unix_pair();
    let id = registrar.register(&socket, Event::Write).unwrap();
    assert_eq!(next(&mut poller).id, id);
}

// Of a kqueue's answer, see portability.rs.
#[cfg(target_os = "linux")]
#[test]
fn a_second_registration_of_a_socket_is_refused_and_the_first_goes_on() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read).unwrap();
    let error = registrar.register(&socket, Event::Both.level()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(code(&error), Some(Errno::EXIST));

    assert!(look(&mut poller).is_empty(), "it is not registered for writing");
    peer.write_all(b"x").unwrap();
    let n = next(&mut poller);
    assert_eq!((n.id, n.event), (id, Event::Read));
    assert!(look(&mut poller).is_empty(), "it is still edge-triggered");
}

#[test]
fn a_socket_that_is_not_registered_can_be_neither_changed_nor_removed() {
    let (mut poller, registrar) = new_poller();
    let (mut other, to_other) = new_poller();
    let (socket, _peer) = unix_pair();
    let id = to_other.register(&socket, Event::Read).unwrap();

    for result in [registrar.reregister(id, &socket, Event::Write), registrar.deregister(&socket)] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(code(&error), Some(Errno::NOENT));
    }
    assert!(look(&mut poller).is_empty(), "it was added by a change");
    to_other.reregister(id, &socket, Event::Write).unwrap();
    assert_eq!(next(&mut other).id, id);
}

#[test]
fn a_change_that_is_refused_leaves_the_registration_as_it_was() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read).unwrap();
    assert_eq!(registrar.set_interval(0).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(registrar.reregister(0, &socket, Event::Both).is_err());
    peer.write_all(b"x").unwrap();
    let n = next(&mut poller);
    assert_eq!((n.id, n.event), (id, Event::Read));
}

#[test]
fn a_registered_socket_is_neither_read_written_nor_closed() {
    let (mut poller, registrar) = new_poller();
    let (mut socket, mut peer): (UnixStream, _) = unix_pair();
    let id = registrar.register(&socket, Event::Both).unwrap();
    peer.write_all(b"in").unwrap();
    assert_eq!(next(&mut poller).id, id);
    drop((poller, registrar));
    assert_eq!(read_all(&socket), b"in");
    socket.write_all(b"out").unwrap();
    assert_eq!(read_all(&peer), b"out");
}
