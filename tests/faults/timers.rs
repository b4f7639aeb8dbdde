//! Timers are told in time also if the kernel's own cannot be set.

use crate::fault::{ALARM, MAKING, scenario};
use amy::Poller;
use std::{
    thread,
    time::{Duration, Instant},
};

#[test]
fn timers_are_told_once_and_not_early() {
    scenario(|faults| {
        let mut poller = faults.call(MAKING, Poller::new);
        let registrar = poller.get_registrar();
        let millis = Duration::from_millis;

        let start = Instant::now();
        let timers = [12, 8, 4, 0].map(|after| {
            let timer = faults.call(ALARM, || registrar.set_timeout(millis(after)));
            (timer.get_id(), millis(after), timer)
        });
        let mut told = Vec::new();
        while told.len() < timers.len() {
            for n in faults.next(&mut poller) {
                let (_, after, _) = timers.iter().find(|timer| timer.0 == n.id).unwrap();
                assert!(start.elapsed() >= *after);
                assert!(!told.contains(&n.id), "told twice");
                told.push(n.id);
            }
        }
        drop(timers);

        // From another thread, whether this one sleeps by then or not.
        let far = faults.call(ALARM, || registrar.set_timeout(Duration::MAX));
        for after in [2, 1, 0] {
            thread::scope(|scope| {
                scope.spawn(|| faults.call(ALARM, || far.reset(millis(after))));
                faults.expect(&mut poller, &[far.get_id()]);
            });
            assert_eq!(far.arm(), 1);
        }

        let start = Instant::now();
        let interval = faults.call(ALARM, || registrar.set_interval(millis(2)));
        let set = start.elapsed();
        let mut ticks = 0;
        while ticks < 5 {
            faults.expect(&mut poller, &[interval.get_id()]);
            let more = interval.arm();
            assert!(more > 0, "a tick was told that did not pass");
            ticks += u32::try_from(more).unwrap();
        }
        assert!(start.elapsed() >= millis(2) * ticks, "set after {set:?}");
        drop((interval, far));
        assert!(faults.wait(&mut poller, 5).is_empty(), "cancelled timers are silent");
    });
}

#[test]
fn a_timer_set_while_another_loop_watches_is_told() {
    scenario(|faults| {
        // As far as the inner poller can know somebody sleeps at all times, so each of these sets
        // the alarm, on this one thread.
        let mut outer = faults.call(MAKING, Poller::new);
        let mut inner = faults.call(MAKING, Poller::new);
        let registrar = inner.get_registrar();
        let early = faults.call(ALARM, || registrar.set_timeout(3));
        let id = faults.call(MAKING, || outer.get_registrar().register(&inner, amy::Event::Read));

        let mut expected = vec![early.get_id()];
        let timers = [9, 7, 5].map(|after| faults.call(ALARM, || registrar.set_timeout(after)));
        expected.extend(timers.iter().map(amy::Timer::get_id));
        let interval = faults.call(ALARM, || registrar.set_interval(1));
        let (mut told, mut ticks) = (Vec::new(), 0);
        while told.len() < expected.len() || ticks < 6 {
            assert_eq!(faults.next(&mut outer)[0].id, id);
            loop {
                let batch = faults.wait(&mut inner, 0);
                if batch.is_empty() {
                    break;
                }
                for n in batch {
                    if n.id != interval.get_id() {
                        told.push(n.id);
                    } else if ticks < 6 {
                        // Not for ever: on a slow machine it would be due again at each look.
                        ticks += interval.arm();
                    }
                }
            }
        }
        told.sort_unstable();
        assert_eq!(told, expected);
    });
}
