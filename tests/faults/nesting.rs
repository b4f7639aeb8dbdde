//! A poller inside another tells everything that it would tell alone.

use crate::fault::{ALARM, Faults, MAKING, REGISTERING, scenario};
use amy::{Event, Poller};
use std::{io::Write, os::unix::net::UnixStream};

#[test]
fn a_poller_inside_another_misses_nothing() {
    scenario(|faults| {
        let mut outer = faults.call(MAKING, Poller::new);
        let mut inner = faults.call(MAKING, || Poller::with_capacity(1));
        let registrar = inner.get_registrar();

        let notifier = registrar.notifier().unwrap();
        faults.notify(&notifier);
        let id = faults.call(MAKING, || outer.get_registrar().register(&inner, Event::Read));
        if faults.loses_wakes() {
            // Lending the descriptor woke, and had no way to say that it failed.
            faults.notify(&notifier);
        }
        told(faults, &mut outer, id, &mut inner, &[notifier.get_id()]);

        for _ in 0..3 {
            let (mut here, there) = UnixStream::pair().unwrap();
            let socket = faults.call(REGISTERING, || registrar.register(&there, Event::Read));
            here.write_all(b"x").unwrap();
            faults.notify(&notifier);
            let timer = faults.call(ALARM, || registrar.set_timeout(1));
            let all = [notifier.get_id(), socket, timer.get_id()];
            told(faults, &mut outer, id, &mut inner, &all);
            faults.call(REGISTERING, || registrar.deregister(&there));
        }
        faults.call(REGISTERING, || outer.get_registrar().deregister(&inner));
    });
}

/// Waits until the inner poller told each of `ids` once, asking only when the outer one said so.
fn told(faults: &Faults, outer: &mut Poller, id: usize, inner: &mut Poller, ids: &[usize]) {
    let mut missing = ids.to_vec();
    while !missing.is_empty() {
        assert_eq!(faults.next(outer)[0].id, id);
        loop {
            let batch = faults.wait(inner, 0);
            if batch.is_empty() {
                break;
            }
            for n in batch {
                let place = missing.iter().position(|&id| id == n.id);
                missing.remove(place.unwrap_or_else(|| panic!("{n:?}, not one of {missing:?}")));
            }
        }
    }
}
