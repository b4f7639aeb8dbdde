//! Timers set, reset, cancelled and armed by some threads, and told to others.

use super::explore;
use crate::{
    poller::Poller, registrar::Registrar, sync::model::Instant, timeout::Timeout, timer::Timer,
};
use loom::thread;
use std::{os::fd::AsFd, sync::Arc, time::Duration};

fn poller() -> (Poller, Registrar) {
    let poller = Poller::with_capacity(8).unwrap();
    let registrar = poller.get_registrar();
    (poller, registrar)
}

fn millis(millis: usize) -> Duration {
    Timeout::from(millis).duration().expect("a time")
}

fn pass(registrar: &Registrar, until: Instant) {
    registrar.hub().queue.pass(until);
}

fn at(time: usize) -> Instant {
    Instant::after_start(millis(time))
}

/// Waits until every one of `ids` was told, each once and none before its time.
fn await_all(poller: &mut Poller, mut timers: Vec<(usize, Instant)>) {
    while !timers.is_empty() {
        let told = poller.wait(None).unwrap();
        assert!(!told.is_empty(), "only the passing of time makes a batch empty");
        for n in told {
            let place = timers.iter().position(|&(id, _)| id == n.id).expect("told once");
            assert!(timers.swap_remove(place).1 <= Instant::now(), "told too early");
        }
    }
}

#[test]
fn a_timer_set_by_another_thread_ends_a_sleep() {
    explore(&["the word is only read", "a sleeper sets no alarm"], || {
        let (mut poller, registrar) = poller();
        let setter = thread::spawn(move || {
            let timer = registrar.set_timeout(10).unwrap();
            pass(&registrar, Instant::END);
            timer
        });
        assert_eq!(poller.wait(None).unwrap().len(), 1);
        assert!(Instant::now() >= at(10), "told too early");
        setter.join().unwrap();
    });
}

#[test]
fn two_threads_set_timers_for_one_sleeper() {
    explore(&["the word is only read"], || {
        let (mut poller, registrar) = poller();
        let setters = [10, 20].map(|time| {
            let registrar = registrar.clone();
            thread::spawn(move || {
                let timer = registrar.set_timeout(time).unwrap();
                pass(&registrar, Instant::END);
                timer
            })
        });
        let mut told = 0;
        while told < 2 {
            told += poller.wait(None).unwrap().len();
        }
        let _timers = setters.map(|setter| setter.join().unwrap());
        assert!(poller.wait(0).unwrap().is_empty(), "each is told once");
    });
}

#[test]
fn a_timer_that_was_cancelled_is_not_told_later() {
    explore(&["a cancelled timer stays"], || {
        let (mut poller, registrar) = poller();
        let cancelled = registrar.set_timeout(10).unwrap();
        let other = registrar.set_timeout(20).unwrap();
        let id = cancelled.get_id();
        let time = registrar.clone();
        let time = thread::spawn(move || {
            pass(&time, at(10));
            pass(&time, Instant::END);
        });
        let canceller = thread::spawn(move || registrar.cancel_timeout(cancelled).unwrap());
        let early = poller.wait(0).unwrap().iter().any(|n| n.id == other.get_id());
        canceller.join().unwrap();
        if !early {
            await_all(&mut poller, vec![(other.get_id(), at(20))]);
        }
        time.join().unwrap();
        assert!(poller.wait(0).unwrap().iter().all(|n| n.id != id), "cancelled, and told");
    });
}

/// The alarm may go off for the timer that is gone; the next one still ends the sleep.
#[test]
fn a_cancelled_timer_takes_no_alarm_from_the_next() {
    explore(&["an alarm that went off counts as set"], || {
        let (mut poller, registrar) = poller();
        let cancelled = registrar.set_timeout(10).unwrap();
        let id = cancelled.get_id();
        let canceller = thread::spawn(move || {
            drop(cancelled);
            pass(&registrar, at(15));
            let next = registrar.set_timeout(10).unwrap();
            pass(&registrar, Instant::END);
            next
        });
        let told: Vec<_> = poller.wait(None).unwrap().into_iter().map(|n| n.id).collect();
        let next = canceller.join().unwrap();
        assert!(told == [next.get_id()] && told != [id], "the other was cancelled before its time");
    });
}

#[test]
fn a_timer_reset_while_it_fires_is_told_again() {
    explore(&["an alarm that went off counts as set"], || {
        let (mut poller, registrar) = poller();
        let timer = registrar.set_timeout(10).unwrap();
        let id = timer.get_id();
        let time = registrar.clone();
        let time = thread::spawn(move || pass(&time, at(10)));
        let resetter = thread::spawn(move || {
            timer.reset(30).unwrap();
            pass(&registrar, Instant::END);
            timer
        });
        let told = poller.wait(None).unwrap().len();
        assert_eq!(told, 1);
        let timer = resetter.join().unwrap();
        time.join().unwrap();
        let again = poller.wait(0).unwrap().len();
        assert!(again <= 1 && Instant::now() >= at(30));
        assert_eq!(timer.get_id(), id);
        assert_eq!(timer.arm(), 1, "told since it was reset");
    });
}

#[test]
fn a_timer_moved_forward_ends_a_sleep() {
    explore(&["the word is only read"], || {
        let (mut poller, registrar) = poller();
        let timer = registrar.set_timeout(None).unwrap();
        let resetter = thread::spawn(move || {
            timer.reset(10).unwrap();
            pass(&registrar, Instant::END);
            timer
        });
        assert_eq!(poller.wait(None).unwrap().len(), 1);
        assert!(Instant::now() >= at(10), "told too early");
        resetter.join().unwrap();
    });
}

#[test]
fn an_interval_armed_by_another_thread_ticks_again() {
    explore(&["the word is only read"], || {
        let (mut poller, registrar) = poller();
        let interval = registrar.set_interval(10).unwrap();
        let id = interval.get_id();
        pass(&registrar, at(10));
        await_all(&mut poller, vec![(id, at(10))]);
        let armer = thread::spawn(move || {
            assert_eq!(interval.arm(), 1);
            pass(&registrar, at(20));
            pass(&registrar, Instant::END);
            interval
        });
        await_all(&mut poller, vec![(id, at(20))]);
        armer.join().unwrap();
    });
}

/// Whoever takes the alarm sees to it that the other has one.
#[test]
fn two_waiters_and_one_alarm_miss_no_timer() {
    explore(&["firing sets no alarm"], || {
        let mut poller = Poller::with_capacity(1).unwrap();
        let registrar = poller.get_registrar();
        let timers = [10, 20].map(|time| registrar.set_timeout(time).unwrap());
        let mut second = poller.try_clone().unwrap();
        let other = thread::spawn(move || {
            let id = second.wait(None).unwrap()[0].id;
            (second, id)
        });
        let time = thread::spawn(move || {
            pass(&registrar, at(10));
            pass(&registrar, Instant::END);
        });
        let mine = poller.wait(None).unwrap()[0].id;
        let (_second, theirs) = other.join().unwrap();
        time.join().unwrap();
        assert_ne!(mine, theirs, "each timer is told once");
        assert!(timers.iter().all(|timer| [mine, theirs].contains(&timer.get_id())));
    });
}

/// A kernel without memory for an alarm: who sleeps takes the deadline as its own timeout, and who
/// sets a timer for a sleeper is told of the failure.
#[test]
fn a_timer_whose_alarm_is_refused_is_told_or_refused() {
    explore(&["a sleeper sets no alarm"], || {
        let (mut poller, registrar) = poller();
        let first = registrar.set_timeout(20).unwrap();
        registrar.hub().queue.refuse_alarms(usize::MAX);
        let setter = thread::spawn(move || {
            let second = registrar.set_timeout(10).ok();
            pass(&registrar, Instant::END);
            second
        });
        let mut told: Vec<_> = poller.wait(None).unwrap().into_iter().map(|n| n.id).collect();
        let second = setter.join().unwrap();
        told.extend(poller.wait(0).unwrap().into_iter().map(|n| n.id));
        told.sort_unstable();
        let set = [Some(&first), second.as_ref()];
        let set: Vec<_> = set.into_iter().flatten().map(Timer::get_id).collect();
        assert_eq!(told, set, "what was set is told, what was refused is not");
    });
}

/// The descriptor is readable when a timer is due, although nobody waits.
#[test]
fn timers_are_seen_by_a_watcher_from_outside() {
    explore(&["watching sets no alarm"], || {
        let mut poller = Poller::with_capacity(1).unwrap();
        let registrar = poller.get_registrar();
        let hub = Arc::clone(registrar.hub());
        let setter = thread::spawn(move || {
            let timers = [10, 20].map(|time| registrar.set_timeout(time).unwrap());
            pass(&registrar, Instant::END);
            timers
        });
        let _ = poller.as_fd();
        for _ in 0..2 {
            hub.queue.await_readable();
            while poller.wait(0).unwrap().is_empty() {
                hub.queue.await_readable();
            }
        }
        setter.join().unwrap();
    });
}

/// The kernel refuses the alarm once; the watcher comes back, and its `wait` sets it.
#[test]
fn an_alarm_refused_once_is_set_by_the_next_look_of_a_watcher() {
    explore(&["a watched poller leaves its alarm unset"], || {
        let (mut poller, registrar) = poller();
        let interval = registrar.set_interval(10).unwrap();
        let id = interval.get_id();
        pass(&registrar, at(10));
        await_all(&mut poller, vec![(id, at(10))]);
        let hub = Arc::clone(registrar.hub());
        let _ = poller.as_fd();
        hub.queue.refuse_alarms(1);
        let armer = thread::spawn(move || {
            assert_eq!(interval.arm(), 1);
            pass(&registrar, Instant::END);
            interval
        });
        hub.queue.await_readable();
        while poller.wait(0).unwrap().is_empty() {
            hub.queue.await_readable();
        }
        armer.join().unwrap();
    });
}
