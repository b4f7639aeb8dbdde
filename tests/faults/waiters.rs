//! Of several waiters one is told of each thing.

use crate::fault::{Faults, MAKING, REGISTERING, scenario};
use amy::{Event, Poller};
use std::{io::Write, os::unix::net::UnixStream, sync::mpsc, thread};

#[test]
fn one_of_several_waiters_is_told_of_each_thing() {
    scenario(|faults| {
        let poller = faults.call(MAKING, Poller::new);
        let registrar = poller.get_registrar();
        let stop = registrar.notifier().unwrap();
        let (told, heard) = mpsc::channel();
        let pairs: Vec<_> = (0..8).map(|_| UnixStream::pair().unwrap()).collect();

        thread::scope(|scope| {
            for _ in 0..3 {
                let poller = poller.try_clone().unwrap();
                let (told, stop) = (told.clone(), stop.clone());
                scope.spawn(move || wait(faults, poller, &told, &stop));
            }
            drop((poller, told));
            let mut expected = Vec::new();
            for (here, there) in &pairs {
                let notifier = registrar.notifier().unwrap();
                faults.notify(&notifier);
                expected.push(notifier.get_id());
                let mut here: &UnixStream = here;
                here.write_all(b"x").unwrap();
                let once = Event::Read.once();
                expected.push(faults.call(REGISTERING, || registrar.register(there, once)));
            }
            let mut all: Vec<usize> = (0..expected.len()).map(|_| heard.recv().unwrap()).collect();
            faults.notify(&stop);
            all.extend(&heard);
            all.sort_unstable();
            expected.sort_unstable();
            assert_eq!(all, expected);
            for (_, there) in &pairs {
                let gone = registrar.deregister(there).unwrap_err();
                assert_eq!(gone.kind(), std::io::ErrorKind::BrokenPipe);
            }
        });
    });
}

fn wait(faults: &Faults, mut poller: Poller, told: &mpsc::Sender<usize>, stop: &amy::Notifier) {
    loop {
        for n in faults.next(&mut poller) {
            if n.id == stop.get_id() {
                // The others are to stop as well.
                faults.notify(stop);
                return;
            }
            told.send(n.id).unwrap();
        }
    }
}
