//! A wait lasts as long as it should, however often it is interrupted.

use crate::fault::{MAKING, scenario};
use amy::Poller;
use std::time::{Duration, Instant};

#[test]
fn a_wait_that_is_interrupted_every_time_still_ends() {
    scenario(|faults| {
        let mut poller = faults.call(MAKING, Poller::new);
        for timeout in [300, 1000, 2600, 15_000].map(Duration::from_micros) {
            let start = Instant::now();
            assert!(faults.wait(&mut poller, timeout).is_empty());
            assert!(start.elapsed() >= timeout);
        }
    });
}

#[test]
fn a_look_finds_what_is_ready() {
    scenario(|faults| {
        let mut poller = faults.call(MAKING, Poller::new);
        let registrar = poller.get_registrar();
        for _ in 0..3 {
            let (_here, there) = std::os::unix::net::UnixStream::pair().unwrap();
            let id = faults
                .call(crate::fault::REGISTERING, || registrar.register(&there, amy::Event::Write));
            let batch = faults.wait(&mut poller, 0);
            assert_eq!(batch.iter().map(|n| n.id).collect::<Vec<_>>(), [id]);
            assert!(faults.wait(&mut poller, 0).is_empty());
        }
    });
}
