//! Notifiers against sleepers, on one hub.

use super::explore;
use crate::{
    notification::Event, notifier::Notifier, poller::Poller, registrar::Registrar,
    sync::model::Instant, sys::Disturbance,
};
use loom::{sync::atomic::AtomicU64, thread};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// `notifiers` threads notify one token for each sleeper between them; each of the sleepers, with
/// the capacity given, waits until it was told of one, and passes on what it was told beyond that.
fn every_sleeper_gets_a_token(notifiers: usize, sleepers: usize, capacity: usize) {
    let (mut poller, registrar) = poller(capacity);
    let tokens = tokens(&registrar, sleepers.max(notifiers));
    let needs = tokens.len() + 1 - sleepers;

    let threads: Vec<_> = (0..notifiers)
        .map(|n| {
            let mine: Vec<_> = tokens.iter().skip(n).step_by(notifiers).cloned().collect();
            thread::spawn(move || mine.iter().for_each(|token| token.notify().unwrap()))
        })
        .collect();
    let others: Vec<_> = (1..sleepers)
        .map(|_| {
            let mut poller = poller.try_clone().unwrap();
            let tokens = tokens.clone();
            thread::spawn(move || {
                take(1, &mut poller, &tokens);
                // Dropped when all is over, or its drop would be a part of this.
                poller
            })
        })
        .collect();
    take(needs, &mut poller, &tokens);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let _others: Vec<_> = others.into_iter().map(|thread| thread.join().unwrap()).collect();
}

fn poller(capacity: usize) -> (Poller, Registrar) {
    let poller = Poller::with_capacity(capacity).unwrap();
    let registrar = poller.get_registrar();
    (poller, registrar)
}

fn tokens(registrar: &Registrar, count: usize) -> Vec<Notifier> {
    (0..count).map(|_| registrar.notifier().unwrap()).collect()
}

/// Waits until it has `needed` tokens, and passes on what it got beyond that.
fn take(needed: usize, poller: &mut Poller, tokens: &[Notifier]) {
    let mut got = 0;
    while got < needed {
        let told = poller.wait(None).unwrap();
        assert!(!told.is_empty(), "only the passing of time makes a batch empty");
        for n in told {
            got += 1;
            if got > needed {
                notifier(tokens, n.id).notify().unwrap();
            }
        }
    }
}

fn notifier(tokens: &[Notifier], id: usize) -> &Notifier {
    tokens.iter().find(|token| token.get_id() == id).expect("no other id is told")
}

/// Waits until every one of `ids` was told.
fn await_all(poller: &mut Poller, mut ids: Vec<usize>) {
    while !ids.is_empty() {
        for n in poller.wait(None).unwrap() {
            ids.retain(|&id| id != n.id);
        }
    }
}

#[test]
fn one_notifier_wakes_one_sleeper() {
    explore(&["LISTED is not looked at again"], || every_sleeper_gets_a_token(1, 1, 8));
}

#[test]
fn two_notifiers_wake_one_sleeper() {
    explore(&["LISTED is not looked at again", "no epoch"], || {
        every_sleeper_gets_a_token(2, 1, 8);
    });
}

#[test]
fn three_notifiers_wake_one_sleeper() {
    explore(&["LISTED is not looked at again", "no epoch"], || {
        every_sleeper_gets_a_token(3, 1, 8);
    });
}

#[test]
fn one_notifier_wakes_two_sleepers() {
    explore(&["LISTED is not looked at again"], || every_sleeper_gets_a_token(1, 2, 8));
}

#[test]
fn two_notifiers_wake_two_sleepers() {
    explore(&["LISTED is not looked at again"], || every_sleeper_gets_a_token(2, 2, 8));
}

#[test]
fn three_notifiers_wake_two_sleepers() {
    explore(&["LISTED is not looked at again"], || every_sleeper_gets_a_token(3, 2, 8));
}

#[test]
fn one_notifier_wakes_three_sleepers() {
    explore(&["LISTED is not looked at again"], || every_sleeper_gets_a_token(1, 3, 8));
}

#[test]
fn two_notifiers_wake_three_sleepers() {
    explore(&["LISTED is not looked at again"], || every_sleeper_gets_a_token(2, 3, 8));
}

#[test]
fn what_one_sleeper_had_no_room_for_wakes_another() {
    explore(&["nothing is passed on", "LISTED is cleared too early"], || {
        every_sleeper_gets_a_token(1, 2, 1)
    });
}

#[test]
fn what_two_notifiers_left_to_two_small_batches_wakes_both() {
    explore(&["nothing is passed on"], || every_sleeper_gets_a_token(2, 2, 1));
}

#[test]
fn three_sleepers_with_room_for_one_share_three_tokens() {
    explore(&["nothing is passed on"], || every_sleeper_gets_a_token(1, 3, 1));
}

/// Three things to tell, and room for two: a descriptor may take the place of a notifier.
#[test]
fn a_batch_shared_with_a_descriptor_leaves_the_rest_to_another() {
    explore(&["nothing is passed on"], || {
        let (mut poller, registrar) = poller(2);
        let tokens = tokens(&registrar, 2);
        let mut second = poller.try_clone().unwrap();
        let other = thread::spawn(move || {
            assert!(!second.wait(None).unwrap().is_empty());
            second
        });
        let actor = thread::spawn(move || {
            registrar.register(&io::stdin(), Event::Read).unwrap();
            tokens.iter().for_each(|token| token.notify().unwrap());
            tokens
        });
        assert!(!poller.wait(None).unwrap().is_empty());
        let _tokens = actor.join().unwrap();
        let _second = other.join().unwrap();
    });
}

/// The edge that was for the sleeper goes to one that only looks, which passes on what it got.
#[test]
fn a_look_that_takes_the_edge_leaves_nobody_asleep() {
    explore(&["only sleepers clear WOKEN"], || {
        let (mut poller, registrar) = poller(8);
        let tokens = tokens(&registrar, 2);
        let ids: Vec<_> = tokens.iter().map(Notifier::get_id).collect();
        let mut second = poller.try_clone().unwrap();
        let theirs = tokens.clone();
        let looker = thread::spawn(move || {
            for n in second.wait(0).unwrap() {
                notifier(&theirs, n.id).notify().unwrap();
            }
            second
        });
        let actor = thread::spawn(move || {
            tokens.iter().for_each(|token| token.notify().unwrap());
            tokens
        });
        await_all(&mut poller, ids);
        actor.join().unwrap();
        drop(looker.join().unwrap());
    });
}

#[test]
fn what_was_done_before_a_notify_is_seen_by_whoever_is_told_last() {
    explore(&["telling is relaxed"], || {
        let (mut poller, registrar) = poller(8);
        let token = registrar.notifier().unwrap();
        let done = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&done);
        let actor = thread::spawn(move || {
            for n in 1..=2 {
                theirs.store(n, Ordering::Relaxed);
                token.notify().unwrap();
            }
            token
        });
        while done.load(Ordering::Relaxed) < 2 {
            assert_eq!(poller.wait(None).unwrap().len(), 1);
        }
        actor.join().unwrap();
    });
}

#[test]
fn a_notification_is_told_once() {
    explore(&["LISTED is not looked at again"], || {
        let (mut poller, registrar) = poller(8);
        let token = registrar.notifier().unwrap();
        let actor = thread::spawn(move || {
            token.notify().unwrap();
            token
        });
        assert_eq!(poller.wait(None).unwrap().len(), 1);
        let _token = actor.join().unwrap();
        assert!(poller.wait(0).unwrap().is_empty(), "it was told");
    });
}

#[test]
fn signals_and_spurious_returns_end_no_wait() {
    explore(&["a spurious return ends a wait"], || {
        let (mut poller, registrar) = poller(8);
        let token = registrar.notifier().unwrap();
        let hub = Arc::clone(registrar.hub());
        let nuisance = thread::spawn(move || {
            hub.queue.disturb(Disturbance::Signal);
            hub.queue.disturb(Disturbance::Nothing);
        });
        let actor = thread::spawn(move || {
            token.notify().unwrap();
            token
        });
        assert_eq!(poller.wait(None).unwrap().len(), 1);
        nuisance.join().unwrap();
        actor.join().unwrap();
    });
}

#[test]
fn a_wait_that_returns_with_nothing_has_waited_in_full() {
    explore(&["a spurious return ends a wait"], || {
        let (mut poller, registrar) = poller(8);
        let token = registrar.notifier().unwrap();
        let start = Instant::now();
        let hub = Arc::clone(registrar.hub());
        let time = thread::spawn(move || {
            hub.queue.disturb(Disturbance::Nothing);
            hub.queue.pass(start.saturating_add(Duration::from_millis(9)));
            hub.queue.pass(Instant::END);
        });
        let actor = thread::spawn(move || {
            token.notify().unwrap();
            token
        });
        let told = poller.wait(10).unwrap().len();
        assert!(told == 1 || start.elapsed() >= Duration::from_millis(10), "it returned too early");
        actor.join().unwrap();
        time.join().unwrap();
        assert_eq!(told + poller.wait(0).unwrap().len(), 1, "it is told once, now or then");
    });
}

#[test]
fn a_watcher_from_outside_sees_what_came_before_and_after() {
    explore(&["a watcher is not told what is there"], || {
        let (mut poller, registrar) = poller(8);
        let token = registrar.notifier().unwrap();
        let actor = thread::spawn(move || {
            token.notify().unwrap();
            token
        });
        watch(&poller);
        registrar.hub().queue.await_readable();
        while poller.wait(0).unwrap().is_empty() {
            registrar.hub().queue.await_readable();
        }
        actor.join().unwrap();
    });
}

/// Two watchers ask for the descriptor at the same time; one of them then waits for it.
#[test]
fn a_second_watcher_need_not_wait_for_the_first() {
    explore(&["a watcher is not told what is there"], || {
        let (mut poller, registrar) = poller(8);
        let token = registrar.notifier().unwrap();
        let first = poller.try_clone().unwrap();
        let other = thread::spawn(move || {
            watch(&first);
            first
        });
        let actor = thread::spawn(move || {
            token.notify().unwrap();
            token
        });
        watch(&poller);
        registrar.hub().queue.await_readable();
        while poller.wait(0).unwrap().is_empty() {
            registrar.hub().queue.await_readable();
        }
        drop(other.join().unwrap());
        actor.join().unwrap();
    });
}

#[test]
fn a_watcher_with_room_for_one_sees_the_rest() {
    explore(&["nothing is passed on"], || {
        let (mut poller, registrar) = poller(1);
        let tokens = tokens(&registrar, 2);
        let actors = notify_each(tokens);
        watch(&poller);
        for _ in 0..2 {
            registrar.hub().queue.await_readable();
            while poller.wait(0).unwrap().is_empty() {
                registrar.hub().queue.await_readable();
            }
        }
        actors.into_iter().for_each(|actor| drop(actor.join().unwrap()));
    });
}

fn watch(poller: &Poller) {
    use std::os::fd::AsFd;
    let _ = poller.as_fd();
}

/// One thread for each token, which notifies it and gives it back.
fn notify_each(tokens: Vec<Notifier>) -> Vec<thread::JoinHandle<Notifier>> {
    let notify = |token: Notifier| {
        thread::spawn(move || {
            token.notify().unwrap();
            token
        })
    };
    tokens.into_iter().map(notify).collect()
}

/// The poller that goes took the edge and was told, and leaves the channel to the one that sleeps.
#[test]
fn what_a_dropped_poller_leaves_is_told_by_another() {
    explore(&["a poller that goes tells nobody"], || {
        let (mut poller, registrar) = poller(8);
        let (tx, rx) = registrar.channel().unwrap();
        let mut second = poller.try_clone().unwrap();
        let other = thread::spawn(move || {
            tx.send(()).unwrap();
            assert_eq!(second.wait(0).unwrap()[0].id, tx.get_id());
            drop(second);
            tx
        });
        assert_eq!(poller.wait(None).unwrap()[0].id, rx.get_id());
        let _tx = other.join().unwrap();
        assert_eq!(rx.try_recv(), Ok(()));
    });
}

/// When a notify has returned, no other thread has to move for the sleeper to be woken: had the
/// other notifier stalled anywhere, nobody else would wake it.
#[test]
fn a_notify_that_returned_needs_no_stalled_notifier() {
    explore(&["who sets LISTED does the waking"], || insist(2));
}

#[test]
fn a_notify_needs_no_one_who_stalls_in_notifying_the_same_id() {
    explore(&["who sets LISTED does the waking"], || insist(1));
}

/// Two threads notify `ids` between them, and see that the one sleeper, which wants to be told of
/// all, does not sleep over a notify that returned.
fn insist(ids: usize) {
    let (mut poller, registrar) = poller(8);
    let tokens = tokens(&registrar, ids);
    // No part of the model: written before its thread sleeps, and read while it does.
    let told: Arc<[_]> = (0..ids).map(|_| AtomicBool::new(false)).collect();

    let actors = [0, ids - 1].map(|n| {
        let (token, told) = (tokens[n].clone(), Arc::clone(&told));
        let hub = Arc::clone(registrar.hub());
        thread::spawn(move || {
            token.notify().unwrap();
            assert!(
                hub.queue.someone_comes() || told[n].load(Ordering::SeqCst),
                "notified and not told, and the sleeper sleeps"
            );
        })
    });
    while told.iter().any(|told| !told.load(Ordering::SeqCst)) {
        for n in poller.wait(None).unwrap() {
            let place = tokens.iter().position(|token| token.get_id() == n.id);
            told[place.expect("no other id is told")].store(true, Ordering::SeqCst);
        }
    }
    for actor in actors {
        actor.join().unwrap();
    }
}
