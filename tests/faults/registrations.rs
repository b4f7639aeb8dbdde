//! A registration that cannot be made, changed or removed stays as it was.

use crate::fault::{Faults, MAKING, REGISTERING, scenario};
use amy::{Event, Notification, Poller};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

#[test]
fn registrations_change_or_stay_as_they_were() {
    scenario(|faults| {
        let mut poller = faults.call(MAKING, Poller::new);
        let registrar = poller.get_registrar();
        for _ in 0..3 {
            let (here, there) = UnixStream::pair().unwrap();
            there.set_nonblocking(true).unwrap();
            say(&here);

            let id = faults.call_or(
                REGISTERING,
                || registrar.register(&there, Event::Read),
                || silent(faults, &mut poller),
            );
            told(faults, &mut poller, Notification::new(id, Event::Read));

            faults.call_or(
                REGISTERING,
                || registrar.reregister(id, &there, Event::Write),
                || {
                    // Still asked for reading only, and not told again unless something comes.
                    silent(faults, &mut poller);
                    say(&here);
                    told(faults, &mut poller, Notification::new(id, Event::Read));
                },
            );
            told(faults, &mut poller, Notification::new(id, Event::Write));

            faults.call_or(
                REGISTERING,
                || registrar.reregister(id, &there, Event::Both.once()),
                || silent(faults, &mut poller),
            );
            told(faults, &mut poller, Notification::new(id, Event::Both));
            say(&here);
            silent(faults, &mut poller);

            faults.call(REGISTERING, || registrar.reregister(id, &there, Event::Read.level()));
            told(faults, &mut poller, Notification::new(id, Event::Read));
            told(faults, &mut poller, Notification::new(id, Event::Read));

            faults.call_or(
                REGISTERING,
                || registrar.deregister(&there),
                || told(faults, &mut poller, Notification::new(id, Event::Read)),
            );
            silent(faults, &mut poller);

            // What is registered again has a new id, and everything that came is there.
            let again = faults.call(REGISTERING, || registrar.register(&there, Event::Read));
            assert!(again > id);
            told(faults, &mut poller, Notification::new(again, Event::Read));
            assert!((&there).read(&mut [0; 8]).unwrap() >= 2);
        }
    });
}

fn say(mut from: &UnixStream) {
    from.write_all(b"x").unwrap();
}

fn told(faults: &Faults, poller: &mut Poller, what: Notification) {
    assert_eq!(faults.next(poller), [what]);
}

fn silent(faults: &Faults, poller: &mut Poller) {
    assert_eq!(faults.wait(poller, 0), []);
}
