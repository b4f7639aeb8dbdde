//! The last poller goes while others act on it.

use super::explore;
use crate::{notification::Event, poller::Poller, registrar::Registrar};
use loom::thread;
use std::{
    io::{self, ErrorKind::BrokenPipe},
    sync::Arc,
};

fn poller() -> (Poller, Registrar) {
    let poller = Poller::with_capacity(8).unwrap();
    let registrar = poller.get_registrar();
    (poller, registrar)
}

/// Done in time, or refused because the poller is gone.
fn done<T>(result: io::Result<T>) -> bool {
    result.map_err(|error| assert_eq!(error.kind(), BrokenPipe)).is_ok()
}

#[test]
fn a_notify_against_the_drop_of_the_poller_says_so_from_then_on() {
    explore(&["never closed"], || {
        let (poller, registrar) = poller();
        let token = registrar.notifier().unwrap();
        let theirs = token.clone();
        let actor = thread::spawn(move || {
            let (first, second) = (done(theirs.notify()), done(theirs.notify()));
            assert!(first || !second, "a poller that is gone stays gone");
        });
        drop(poller);
        assert!(!done(token.notify()), "the poller is gone");
        actor.join().unwrap();
    });
}

#[test]
fn a_registrar_against_the_drop_of_the_poller_says_so_from_then_on() {
    explore(&["never closed"], || {
        let (poller, registrar) = poller();
        let theirs = registrar.clone();
        let actor = thread::spawn(move || {
            let first = done(theirs.register(&io::stdin(), Event::Read));
            let second = done(theirs.notifier());
            let third = done(theirs.channel::<()>());
            assert!((first || !second) && (second || !third), "gone stays gone");
        });
        drop(poller);
        assert!(!done(registrar.deregister(&io::stdin())), "the poller is gone");
        actor.join().unwrap();
    });
}

#[test]
fn a_timer_against_the_drop_of_the_poller_is_set_or_refused() {
    explore(&["never closed"], || {
        let (poller, registrar) = poller();
        let interval = registrar.set_interval(10).unwrap();
        let theirs = registrar.clone();
        let actor = thread::spawn(move || {
            let first = theirs.set_timeout(10).ok();
            let second = done(interval.reset(20));
            assert!(first.is_some() || !second, "gone stays gone");
            interval.arm();
        });
        drop(poller);
        assert!(!done(registrar.set_timeout(10)), "the poller is gone");
        actor.join().unwrap();
    });
}

#[test]
fn a_send_against_the_drop_of_the_poller_arrives_or_comes_back() {
    explore(&["never closed"], || {
        let (poller, registrar) = poller();
        let (tx, rx) = registrar.channel().unwrap();
        let message = Arc::new(());
        let theirs = (tx.clone(), Arc::clone(&message));
        let actor = thread::spawn(move || {
            let (tx, message) = theirs;
            let sent = [tx.send(Arc::clone(&message)).is_ok(), tx.send(message).is_ok()];
            sent.into_iter().filter(|&sent| sent).count()
        });
        drop(poller);
        assert!(tx.send(Arc::clone(&message)).is_err(), "the poller is gone");
        let sent = actor.join().unwrap();
        assert_eq!(rx.len(), sent, "sent is what can be received");
        drop(rx);
        assert_eq!(Arc::strong_count(&message), 1, "every message is dropped once");
    });
}

/// Of two pollers that go at the same time, the second closes.
#[test]
fn the_last_of_two_pollers_closes() {
    explore(&["never closed"], || {
        let (poller, registrar) = poller();
        let second = poller.try_clone().unwrap();
        let token = registrar.notifier().unwrap();
        token.notify().unwrap();
        let actor = thread::spawn(move || drop(second));
        let theirs = token.clone();
        let notifier = thread::spawn(move || done(theirs.notify()));
        drop(poller);
        actor.join().unwrap();
        assert!(!done(token.notify()), "both pollers are gone");
        notifier.join().unwrap();
    });
}
