//! Promise 8 for those who bring their own queue: a `notify` that returned is told, once.

use crate::common::{Bed, LONG, told, until};
#[cfg(target_os = "linux")]
use crate::common::{Wakes, alone};
use amy::{Event, Notifier, Poller};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// Whether a loop that waits for the poller's descriptor would look into it now.
fn is_readable(poller: &Poller) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(poller, PollFlags::IN)], Some(&at_once)).unwrap() == 1
}

#[test]
fn a_notification_is_told_once_as_readable() {
    let mut poller = Poller::new().unwrap();
    let notifier = poller.get_registrar().notifier().unwrap();
    assert_eq!(told(&mut poller, 0), []);
    for _ in 0..3 {
        notifier.notify().unwrap();
        let notifications = poller.wait(LONG).unwrap();
        assert_eq!(notifications.len(), 1);
        assert_eq!((notifications[0].id, notifications[0].event), (notifier.get_id(), Event::Read));
        assert_eq!(told(&mut poller, 0), []);
    }
}

#[test]
fn calls_before_a_wait_become_one_notification() {
    let mut poller = Poller::new().unwrap();
    let notifier = poller.get_registrar().notifier().unwrap();
    let clone = notifier.clone();
    assert_eq!(clone.get_id(), notifier.get_id());
    for _ in 0..1_000 {
        notifier.notify().unwrap();
        clone.notify().unwrap();
    }
    assert_eq!(told(&mut poller, LONG), [notifier.get_id()]);
    assert_eq!(told(&mut poller, 0), []);
}

#[test]
fn those_that_wait_longest_are_told_first() {
    let mut poller = Poller::with_capacity(3).unwrap();
    let registrar = poller.get_registrar();
    let notifiers: Vec<_> = (0..10).map(|_| registrar.notifier().unwrap()).collect();
    notifiers.iter().rev().for_each(|notifier| notifier.notify().unwrap());
    let mut ids = Vec::new();
    while ids.len() < 10 {
        let batch = told(&mut poller, LONG);
        assert!(!batch.is_empty() && batch.len() <= 3);
        ids.extend(batch);
        // Does not jump the queue, whether or not it was told by now.
        if ids.len() == 3 {
            notifiers[0].notify().unwrap();
        }
    }
    let expected: Vec<_> = notifiers.iter().rev().map(Notifier::get_id).collect();
    assert_eq!(ids, expected);
    assert_eq!(told(&mut poller, 0), []);
}

#[test]
fn a_notification_of_a_notifier_that_is_gone_is_still_told() {
    let mut poller = Poller::new().unwrap();
    let notifier = poller.get_registrar().notifier().unwrap();
    let id = notifier.get_id();
    notifier.notify().unwrap();
    drop(notifier);
    assert_eq!(told(&mut poller, LONG), [id]);
    assert_eq!(told(&mut poller, 0), []);
}

#[test]
fn a_notifier_that_never_notified_is_never_told() {
    let mut poller = Poller::new().unwrap();
    let notifier = poller.get_registrar().notifier().unwrap();
    drop(notifier.clone());
    assert_eq!(told(&mut poller, 0), []);
    drop(notifier);
    assert_eq!(told(&mut poller, 0), []);
}

#[test]
fn a_poller_that_is_gone_is_said_to_be() {
    let poller = Poller::new().unwrap();
    let second = poller.try_clone().unwrap();
    let notifier = poller.get_registrar().notifier().unwrap();
    drop(poller);
    notifier.notify().unwrap();
    drop(second);
    for _ in 0..2 {
        assert_eq!(notifier.notify().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn a_notify_wakes_a_poller_that_sleeps() {
    let mut poller = Poller::new().unwrap();
    let notifier = poller.get_registrar().notifier().unwrap();
    for _ in 0..20 {
        let bed = Bed::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                bed.watch();
                notifier.notify().unwrap();
            });
            bed.lie_down();
            assert_eq!(told(&mut poller, LONG), [notifier.get_id()]);
        });
    }
}

#[test]
fn each_of_two_notifications_wakes_one_of_two_sleepers() {
    let first = Poller::new().unwrap();
    let second = first.try_clone().unwrap();
    let registrar = first.get_registrar();
    let notifiers = [registrar.notifier().unwrap(), registrar.notifier().unwrap()];
    let beds = [Bed::default(), Bed::default()];
    let mut ids = thread::scope(|scope| {
        let sleepers = [first, second].into_iter().zip(&beds).map(|(mut poller, bed)| {
            scope.spawn(move || {
                bed.lie_down();
                // The first to wake may be told of both. The other is then woken by its end.
                let batch = told(&mut poller, LONG);
                (batch, poller)
            })
        });
        let sleepers: Vec<_> = sleepers.collect();
        beds.iter().for_each(Bed::watch);
        notifiers.iter().for_each(|notifier| notifier.notify().unwrap());
        // What was told of both lets the other sleep; this one is for it.
        let over = registrar.notifier().unwrap();
        while !sleepers.iter().all(thread::ScopedJoinHandle::is_finished) {
            over.notify().unwrap();
            thread::yield_now();
        }
        let mut ids = Vec::new();
        for sleeper in sleepers {
            let (batch, _poller) = sleeper.join().unwrap();
            assert!(!batch.is_empty());
            ids.extend(batch.into_iter().filter(|&id| id != over.get_id()));
        }
        ids
    });
    ids.sort_unstable();
    assert_eq!(ids, [notifiers[0].get_id(), notifiers[1].get_id()]);
}

#[test]
fn what_one_batch_had_no_room_for_is_told_to_a_sleeper() {
    for _ in 0..100 {
        let mut first = Poller::with_capacity(2).unwrap();
        let mut second = first.try_clone().unwrap();
        let registrar = first.get_registrar();
        let notifiers: Vec<_> = (0..3).map(|_| registrar.notifier().unwrap()).collect();
        let bed = Bed::default();
        let mut ids = thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                bed.lie_down();
                told(&mut second, LONG)
            });
            bed.watch();
            notifiers.iter().for_each(|notifier| notifier.notify().unwrap());
            // Mostly this one is faster than the sleeper, which then has to be woken again.
            let mut ids = told(&mut first, 0);
            ids.extend(sleeper.join().unwrap());
            ids
        });
        ids.extend(told(&mut first, 0));
        ids.sort_unstable();
        assert!(ids.into_iter().eq(notifiers.iter().map(Notifier::get_id)));
    }
}

/// Each thread counts up and then notifies. A waiter that is told late, but told, sees it all.
fn no_notification_is_lost(waiters: usize) {
    const THREADS: usize = 4;
    const ROUNDS: usize = 4_000;
    let first = Poller::new().unwrap();
    let registrar = first.get_registrar();
    let mut pollers = vec![first];
    while pollers.len() < waiters {
        pollers.push(pollers[0].try_clone().unwrap());
    }
    let sources: Vec<_> =
        (0..THREADS).map(|_| (registrar.notifier().unwrap(), AtomicUsize::new(0))).collect();
    let seen: Vec<_> = (0..THREADS).map(|_| AtomicUsize::new(0)).collect();
    let over = AtomicBool::new(false);
    let end = registrar.notifier().unwrap();

    thread::scope(|scope| {
        for (source, seen) in sources.iter().zip(&seen) {
            scope.spawn(move || {
                let (notifier, made) = source;
                for i in 1..=ROUNDS {
                    made.store(i, Ordering::Relaxed); // ordered by the notification alone
                    notifier.notify().unwrap();
                    if i % 5 == 0 {
                        // Lets the waiters fall asleep.
                        until("it is told", || seen.load(Ordering::Acquire) >= i);
                    }
                }
            });
        }
        for mut poller in pollers {
            let (sources, seen, over, end) = (&sources, &seen, &over, &end);
            scope.spawn(move || {
                while !over.load(Ordering::Acquire) {
                    let batch = told(&mut poller, LONG);
                    assert!(!batch.is_empty(), "a wait hung");
                    for id in batch {
                        let Some(i) = sources.iter().position(|(n, _)| n.get_id() == id) else {
                            continue;
                        };
                        let made = sources[i].1.load(Ordering::Relaxed);
                        seen[i].fetch_max(made, Ordering::AcqRel);
                    }
                    if seen.iter().all(|seen| seen.load(Ordering::Acquire) == ROUNDS) {
                        over.store(true, Ordering::Release);
                    }
                }
                end.notify().unwrap(); // the next one, if it sleeps
            });
        }
    });
}

#[test]
fn no_notification_is_lost_with_one_waiter() {
    no_notification_is_lost(1);
}

#[test]
fn no_notification_is_lost_with_three_waiters() {
    no_notification_is_lost(3);
}

#[test]
fn what_came_before_a_notify_is_seen_by_whoever_is_told() {
    let mut poller = Poller::new().unwrap();
    let notifier = poller.get_registrar().notifier().unwrap();
    let word = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&word);
    let id = notifier.get_id();
    let thread = thread::spawn(move || {
        theirs.store(7, Ordering::Relaxed);
        notifier.notify().unwrap();
    });
    assert_eq!(told(&mut poller, LONG), [id]);
    assert_eq!(word.load(Ordering::Relaxed), 7);
    thread.join().unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn notifying_a_poller_that_is_awake_writes_nothing() {
    alone(|| {
        let (mut poller, wakes) = Wakes::of_a_new_poller();
        let notifier = poller.get_registrar().notifier().unwrap();
        for _ in 0..100 {
            notifier.notify().unwrap();
            assert_eq!(told(&mut poller, LONG), [notifier.get_id()]);
            assert_eq!(told(&mut poller, 1), []); // sleeps, and then is awake again
        }
        assert_eq!(wakes.count(), 0);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn an_outer_loop_is_told_with_one_write_until_somebody_looks() {
    alone(|| {
        let (mut poller, wakes) = Wakes::of_a_new_poller();
        let registrar = poller.get_registrar();
        let notifiers: Vec<_> = (0..10).map(|_| registrar.notifier().unwrap()).collect();
        assert!(!is_readable(&poller));
        for round in 1..=20 {
            for _ in 0..10 {
                notifiers.iter().for_each(|notifier| notifier.notify().unwrap());
            }
            assert_eq!(wakes.count(), round);
            assert!(is_readable(&poller));
            assert_eq!(told(&mut poller, 0).len(), 10);
            assert!(!is_readable(&poller), "all was told, and nobody notified again");
        }
    });
}

#[test]
fn an_outer_loop_is_told_of_what_was_there_before_it_asked() {
    let mut poller = Poller::new().unwrap();
    let notifier = poller.get_registrar().notifier().unwrap();
    notifier.notify().unwrap();
    let _ = poller.as_fd();
    assert!(is_readable(&poller));
    assert_eq!(told(&mut poller, 0), [notifier.get_id()]);
    assert!(!is_readable(&poller));
}

#[test]
fn an_outer_loop_is_told_again_of_what_a_batch_had_no_room_for() {
    let mut poller = Poller::with_capacity(1).unwrap();
    let registrar = poller.get_registrar();
    let notifiers: Vec<_> = (0..5).map(|_| registrar.notifier().unwrap()).collect();
    notifiers.iter().for_each(|notifier| notifier.notify().unwrap());
    let mut told_of = 0;
    while told_of < 5 {
        assert!(is_readable(&poller), "{told_of} of 5 were told");
        told_of += told(&mut poller, 0).len();
    }
    assert_eq!(told(&mut poller, 0), []);
}

#[test]
fn a_notifier_says_what_it_is() {
    let mut poller = Poller::new().unwrap();
    let notifier = poller.get_registrar().notifier().unwrap();
    let said = |pending| format!("Notifier {{ id: {}, pending: {pending} }}", notifier.get_id());
    assert_eq!(format!("{notifier:?}"), said(false));
    notifier.notify().unwrap();
    assert_eq!(format!("{notifier:?}"), said(true));
    assert_eq!(told(&mut poller, 0).len(), 1);
    assert_eq!(format!("{notifier:?}"), said(false));
}
