//! Pollers are made whole or not at all, and end with their last owner.

use crate::fault::{ALARM, MAKING, scenario};
use amy::{Event, Poller};
use std::{
    io::{self, ErrorKind},
    os::unix::net::UnixStream,
    sync::mpsc::TryRecvError,
    time::{Duration, Instant},
};

#[test]
fn pollers_come_and_go_and_leave_no_descriptor() {
    scenario(|faults| {
        let pollers: Vec<Poller> = (0..3).map(|_| faults.call(MAKING, Poller::new)).collect();
        drop(pollers);

        let mut first = faults.call(MAKING, || Poller::with_capacity(4));
        let mut second = first.try_clone().unwrap();
        assert!(faults.wait(&mut first, 0).is_empty());
        let start = Instant::now();
        assert!(faults.wait(&mut second, Duration::from_micros(2500)).is_empty());
        assert!(start.elapsed() >= Duration::from_micros(2500));

        let registrar = first.get_registrar();
        let notifier = registrar.notifier().unwrap();
        faults.notify(&notifier);
        faults.expect(&mut first, &[notifier.get_id()]);
        drop(first);
        let timer = faults.call(ALARM, || registrar.set_timeout(1));
        faults.expect(&mut second, &[timer.get_id()]);

        let (tx, rx) = registrar.channel().unwrap();
        tx.send(1).unwrap();
        drop(second);
        assert_eq!(tx.send(2).unwrap_err().0, 2);
        assert_eq!((rx.try_recv(), rx.try_recv()), (Ok(1), Err(TryRecvError::Empty)));
        let (here, _there) = UnixStream::pair().unwrap();
        refused(registrar.register(&here, Event::Read));
        refused(registrar.set_timeout(1));
        refused(registrar.channel::<u8>());
        refused(notifier.notify());
    });
}

fn refused<T>(made: io::Result<T>) {
    assert_eq!(made.err().map(|error| error.kind()), Some(ErrorKind::BrokenPipe));
}
