//! Promise 8: a receiver is reported as long as there is something to receive, and a message that
//! cannot be delivered comes back.

#[cfg(target_os = "linux")]
use crate::common::{Wakes, alone};

use crate::common::{Bed, Dice, LONG, among, told, until};
use amy::{Event, IdMap, Poller, Receiver, Registrar, Sender, SyncSender};
use std::{
    cell::Cell,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{SendError, TryRecvError, TrySendError},
    },
    thread,
};

/// Every kind of sender, so that what they have in common is tested once.
enum Tx<T> {
    Unbounded(Sender<T>),
    Bounded(SyncSender<T>),
}

impl<T> Tx<T> {
    fn send(&self, message: T) -> Result<(), SendError<T>> {
        match self {
            Tx::Unbounded(tx) => tx.send(message),
            Tx::Bounded(tx) => tx.send(message),
        }
    }

    fn get_id(&self) -> usize {
        match self {
            Tx::Unbounded(tx) => tx.get_id(),
            Tx::Bounded(tx) => tx.get_id(),
        }
    }
}

impl<T> Clone for Tx<T> {
    fn clone(&self) -> Tx<T> {
        match self {
            Tx::Unbounded(tx) => Tx::Unbounded(tx.clone()),
            Tx::Bounded(tx) => Tx::Bounded(tx.clone()),
        }
    }
}

/// An unbounded channel, and one with room for all that these tests leave unreceived.
fn kinds<T>(registrar: &Registrar) -> [(Tx<T>, Receiver<T>); 2] {
    let (unbounded, first) = registrar.channel().unwrap();
    let (bounded, second) = registrar.sync_channel(100).unwrap();
    [(Tx::Unbounded(unbounded), first), (Tx::Bounded(bounded), second)]
}

/// A message that counts its drops, and on request panics in that.
struct Counted {
    drops: Arc<AtomicUsize>,
    panics: bool,
}

impl Counted {
    fn new(drops: &Arc<AtomicUsize>) -> Counted {
        Counted { drops: Arc::clone(drops), panics: false }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics, "as it was asked to");
    }
}

#[test]
fn both_halves_know_the_id_that_wait_reports_as_readable() {
    let mut poller = Poller::new().unwrap();
    for (tx, rx) in kinds(&poller.get_registrar()) {
        tx.send(()).unwrap();
        let notifications = poller.wait(LONG).unwrap();
        assert_eq!(notifications.len(), 1);
        assert_eq!((notifications[0].id, notifications[0].event), (rx.get_id(), Event::Read));
        assert_eq!((tx.get_id(), tx.clone().get_id()), (rx.get_id(), rx.get_id()));
    }
}

#[test]
fn a_receiver_is_reported_as_long_as_there_is_something_and_no_longer() {
    let mut poller = Poller::new().unwrap();
    for (tx, rx) in kinds(&poller.get_registrar()) {
        assert_eq!(told(&mut poller, 0), []);
        (0..3).for_each(|i| tx.send(i).unwrap());
        for i in 0..3 {
            assert_eq!(told(&mut poller, 0), [rx.get_id()]);
            assert_eq!(told(&mut poller, LONG), [rx.get_id()], "although nothing new was sent");
            assert_eq!(rx.try_recv(), Ok(i));
        }
        assert_eq!(told(&mut poller, 0), []);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(told(&mut poller, 0), []);
    }
}

#[test]
fn a_partly_drained_receiver_is_still_reported_when_more_is_sent() {
    let mut poller = Poller::new().unwrap();
    for (tx, rx) in kinds(&poller.get_registrar()) {
        let (mut sent, mut received) = (0, 0);
        for _ in 0..20 {
            for _ in 0..3 {
                tx.send(sent).unwrap();
                sent += 1;
            }
            assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
            assert_eq!(rx.try_recv(), Ok(received));
            received += 1;
        }
        assert_eq!(rx.len(), sent - received);
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), (received..sent).collect::<Vec<_>>());
        assert_eq!(told(&mut poller, 0), []);
    }
}

#[test]
fn what_was_received_before_the_wait_is_not_reported() {
    let mut poller = Poller::new().unwrap();
    for (tx, rx) in kinds(&poller.get_registrar()) {
        tx.send(1).unwrap();
        assert_eq!(rx.try_recv(), Ok(1));
        assert_eq!(told(&mut poller, 0), []);

        tx.send(2).unwrap();
        assert_eq!(told(&mut poller, LONG), [rx.get_id()], "being on the list before is no harm");
        assert_eq!(rx.try_recv(), Ok(2));
    }
}

#[test]
fn a_burst_comes_out_in_the_order_in_which_it_went_in() {
    const BURST: usize = 20_000; // more than a receiver keeps room for
    let mut poller = Poller::new().unwrap();
    let (tx, rx) = poller.get_registrar().channel().unwrap();
    for round in 0..3 {
        (0..BURST).for_each(|i| tx.send((round, i)).unwrap());
        assert_eq!(rx.len(), BURST);
        assert_eq!(told(&mut poller, 0), [rx.get_id()]);
        for i in 0..BURST {
            assert_eq!(rx.try_recv(), Ok((round, i)));
        }
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        assert!(rx.is_empty());
        assert_eq!(told(&mut poller, 0), []);
    }
}

#[test]
fn an_iterator_ends_where_there_is_nothing_and_leaves_what_it_was_not_asked_for() {
    let mut poller = Poller::new().unwrap();
    for (tx, rx) in kinds(&poller.get_registrar()) {
        (0..5).for_each(|i| tx.send(i).unwrap());
        assert!(!rx.is_empty());
        assert_eq!(rx.try_iter().take(2).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(told(&mut poller, 0), [rx.get_id()]);
        let mut rest = Vec::new();
        for message in &rx {
            rest.push(message);
        }
        assert_eq!(rest, [2, 3, 4]);
        assert!(rx.is_empty());
        assert_eq!(told(&mut poller, 0), []);
    }
}

#[test]
fn a_send_wakes_a_poller_that_sleeps() {
    for kind in 0..2 {
        let mut poller = Poller::new().unwrap();
        let (tx, rx) = kinds(&poller.get_registrar()).into_iter().nth(kind).unwrap();
        let bed = Bed::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                bed.watch();
                tx.send("up").unwrap();
            });
            bed.lie_down();
            assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
            assert_eq!(rx.try_recv(), Ok("up"));
        });
    }
}

#[test]
fn two_pollers_can_play_ping_pong_over_channels() {
    const ROUNDS: usize = 3_000;
    let mut here = Poller::new().unwrap();
    let mut there = Poller::new().unwrap();
    let (to_here, at_here) = here.get_registrar().channel().unwrap();
    let (to_there, at_there) = there.get_registrar().channel().unwrap();
    let player = thread::spawn(move || {
        for i in 0..ROUNDS {
            assert_eq!(told(&mut there, LONG), [at_there.get_id()]);
            assert_eq!(at_there.try_recv(), Ok(i));
            to_here.send(i).unwrap();
        }
    });
    for i in 0..ROUNDS {
        to_there.send(i).unwrap();
        assert_eq!(told(&mut here, LONG), [at_here.get_id()]);
        assert_eq!(at_here.try_recv(), Ok(i));
    }
    player.join().unwrap();
}

#[test]
fn the_drop_of_the_last_sender_is_reported_until_the_receiver_knows() {
    let mut poller = Poller::new().unwrap();
    for (tx, rx) in kinds::<u8>(&poller.get_registrar()) {
        let clone = tx.clone();
        drop(tx);
        assert_eq!(told(&mut poller, 0), [], "another sender is left");
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));

        drop(clone);
        assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
        assert_eq!(told(&mut poller, LONG), [rx.get_id()], "nobody has asked yet");
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(told(&mut poller, 0), [], "an end is no reason to spin");
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(rx.try_iter().next(), None);
        assert_eq!(told(&mut poller, 0), []);
    }
}

#[test]
fn the_end_comes_after_the_last_message() {
    let mut poller = Poller::new().unwrap();
    for (tx, rx) in kinds(&poller.get_registrar()) {
        tx.send(1).unwrap();
        tx.send(2).unwrap();
        drop(tx);
        for expected in [Ok(1), Ok(2), Err(TryRecvError::Disconnected)] {
            assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
            assert_eq!(rx.try_recv(), expected);
        }
        assert_eq!(told(&mut poller, 0), []);
    }
}

#[test]
fn the_drop_of_the_last_sender_wakes_a_poller_that_sleeps() {
    for kind in 0..2 {
        let mut poller = Poller::new().unwrap();
        let (tx, rx) = kinds::<u8>(&poller.get_registrar()).into_iter().nth(kind).unwrap();
        let bed = Bed::default();
        thread::scope(|scope| {
            let bed = &bed;
            scope.spawn(move || {
                bed.watch();
                drop(tx);
            });
            bed.lie_down();
            assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
            assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
        });
    }
}

#[test]
fn a_receiver_that_is_gone_gives_messages_back_and_is_not_reported() {
    let mut poller = Poller::new().unwrap();
    for (tx, rx) in kinds(&poller.get_registrar()) {
        tx.send(1).unwrap();
        drop(rx);
        assert_eq!(told(&mut poller, 0), []);
        assert_eq!(tx.send(2), Err(SendError(2)));
        if let Tx::Bounded(tx) = &tx {
            assert_eq!(tx.try_send(3), Err(TrySendError::Disconnected(3)));
        }
        drop(tx);
        assert_eq!(told(&mut poller, 0), [], "nobody is left to be told of the end");
    }
}

#[test]
fn a_poller_that_is_gone_gives_messages_back_and_leaves_what_was_sent() {
    let poller = Poller::new().unwrap();
    let second = poller.try_clone().unwrap();
    let channels = kinds(&poller.get_registrar());
    drop(poller);
    for (tx, _) in &channels {
        tx.send(1).unwrap();
    }
    drop(second);
    for (tx, rx) in channels {
        assert_eq!(tx.send(2), Err(SendError(2)));
        if let Tx::Bounded(tx) = &tx {
            assert_eq!(tx.try_send(3), Err(TrySendError::Disconnected(3)));
        }
        assert_eq!(rx.try_recv(), Ok(1));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        drop(tx);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
    }
}

#[test]
fn a_bounded_channel_refuses_what_it_has_no_room_for() {
    let poller = Poller::new().unwrap();
    for bound in 0..5 {
        let (tx, rx) = poller.get_registrar().sync_channel(bound).unwrap();
        for i in 0..bound {
            assert_eq!(tx.try_send(i), Ok(()));
        }
        assert_eq!(tx.try_send(bound), Err(TrySendError::Full(bound)));
        assert_eq!(rx.len(), bound);
        for i in 0..bound {
            assert_eq!(rx.try_recv(), Ok(i));
            assert_eq!(tx.try_send(bound + i), Ok(()), "a message that was taken leaves room");
            assert_eq!(tx.try_send(0), Err(TrySendError::Full(0)));
        }
    }
}

#[test]
fn a_bounded_send_blocks_while_there_is_no_room_and_then_goes_on() {
    const MESSAGES: usize = 500;
    for bound in [1, 2, 7] {
        let mut poller = Poller::new().unwrap();
        let (tx, rx) = poller.get_registrar().sync_channel(bound).unwrap();
        let returned = AtomicUsize::new(0);
        thread::scope(|scope| {
            // Moved here, so that a failure drops it and ends the sender.
            let rx = rx;
            scope.spawn(|| {
                for i in 0..MESSAGES {
                    tx.send(i).unwrap();
                    returned.fetch_add(1, Ordering::SeqCst);
                }
            });
            until("the channel fills up", || returned.load(Ordering::SeqCst) == bound);
            for i in 0..MESSAGES {
                assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
                assert!(returned.load(Ordering::SeqCst) <= i + bound, "more than it may hold");
                assert!(rx.len() <= bound);
                assert_eq!(rx.try_recv(), Ok(i));
            }
        });
    }
}

#[test]
fn a_send_to_a_full_channel_sleeps_until_there_is_room() {
    let poller = Poller::new().unwrap();
    let (tx, rx) = poller.get_registrar().sync_channel(1).unwrap();
    tx.send(0).unwrap();
    let beds: Vec<_> = (0..3).map(|_| Bed::default()).collect();
    thread::scope(|scope| {
        let rx = rx;
        let senders: Vec<_> = (beds.iter().zip(1..))
            .map(|(bed, i)| {
                let tx = tx.clone();
                scope.spawn(move || {
                    bed.lie_down();
                    tx.send(i)
                })
            })
            .collect();
        beds.iter().for_each(Bed::watch);
        let mut received = Vec::new();
        while received.len() < 4 {
            received.extend(rx.try_recv());
            thread::yield_now();
        }
        received[1..].sort_unstable();
        assert_eq!(received, [0, 1, 2, 3]);
        for sender in senders {
            assert_eq!(sender.join().unwrap(), Ok(()));
        }
    });
}

#[test]
fn many_senders_share_one_place() {
    const SENDERS: usize = 6;
    const MESSAGES: usize = 300;
    for bound in [0, 1] {
        let mut poller = Poller::new().unwrap();
        let (tx, rx) = poller.get_registrar().sync_channel(bound).unwrap();
        thread::scope(|scope| {
            let rx = rx;
            for sender in 0..SENDERS {
                let tx = tx.clone();
                scope.spawn(move || (0..MESSAGES).for_each(|i| tx.send((sender, i)).unwrap()));
            }
            drop(tx);
            let mut next = [0; SENDERS];
            loop {
                assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
                match rx.try_recv() {
                    Ok((sender, i)) => {
                        assert_eq!(i, next[sender]);
                        next[sender] += 1;
                    }
                    Err(error) => {
                        assert_eq!(error, TryRecvError::Disconnected, "it was reported");
                        break;
                    }
                }
            }
            assert_eq!(next, [MESSAGES; SENDERS]);
        });
    }
}

#[test]
fn senders_that_wait_for_room_get_their_messages_back_when_the_receiver_goes() {
    for bound in [0, 1] {
        let poller = Poller::new().unwrap();
        let (tx, rx) = poller.get_registrar().sync_channel(bound).unwrap();
        if bound == 1 {
            tx.send(usize::MAX).unwrap();
        }
        let beds: Vec<_> = (0..4).map(|_| Bed::default()).collect();
        thread::scope(|scope| {
            let senders: Vec<_> = (beds.iter().enumerate())
                .map(|(i, bed)| {
                    let tx = tx.clone();
                    scope.spawn(move || {
                        bed.lie_down();
                        tx.send(i)
                    })
                })
                .collect();
            beds.iter().for_each(Bed::watch);
            drop(rx);
            for (i, sender) in senders.into_iter().enumerate() {
                assert_eq!(sender.join().unwrap(), Err(SendError(i)), "each its own");
            }
        });
    }
}

#[test]
fn a_rendezvous_send_lasts_until_its_message_is_received() {
    const MESSAGES: usize = 500;
    let mut poller = Poller::new().unwrap();
    let (tx, rx) = poller.get_registrar().sync_channel(0).unwrap();
    let returned = AtomicUsize::new(0);
    thread::scope(|scope| {
        let rx = rx;
        scope.spawn(|| {
            for i in 0..MESSAGES {
                tx.send(i).unwrap();
                returned.fetch_add(1, Ordering::SeqCst);
            }
        });
        for i in 0..MESSAGES {
            assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
            assert!(returned.load(Ordering::SeqCst) <= i, "nobody has taken it yet");
            assert_eq!(rx.len(), 1);
            assert_eq!(rx.try_recv(), Ok(i));
        }
    });
    assert_eq!(returned.into_inner(), MESSAGES);
}

#[test]
fn a_sender_that_waits_for_room_goes_on_when_only_the_poller_is_gone() {
    let poller = Poller::new().unwrap();
    let (tx, rx) = poller.get_registrar().sync_channel(1).unwrap();
    tx.send(1).unwrap();
    let bed = Bed::default();
    thread::scope(|scope| {
        let rx = rx;
        let sender = scope.spawn(|| {
            bed.lie_down();
            tx.send(2)
        });
        bed.watch();
        drop(poller);
        assert_eq!(rx.try_recv(), Ok(1));
        assert_eq!(sender.join().unwrap(), Ok(()));
        assert_eq!(rx.try_recv(), Ok(2));
        assert_eq!(tx.send(3), Err(SendError(3)));
    });
}

#[test]
fn messages_need_no_traits_and_senders_clone_all_the_same() {
    struct Opaque;
    let mut poller = Poller::new().unwrap();
    for (tx, rx) in kinds::<Opaque>(&poller.get_registrar()) {
        assert!(tx.clone().send(Opaque).is_ok());
        assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
        assert!(rx.try_recv().is_ok());
    }
    // Not even Send, as long as they stay on their thread, nor 'static.
    let word = String::from("borrowed");
    for (tx, rx) in kinds::<Rc<&str>>(&poller.get_registrar()) {
        tx.send(Rc::new(&word)).unwrap();
        assert_eq!(*rx.try_recv().unwrap(), "borrowed");
    }
}

#[test]
fn the_halves_go_where_their_messages_may_go() {
    const fn send<T: Send>() {}
    const fn sync<T: Sync>() {}
    // A cell can be sent to another thread, but not shared with it.
    send::<Sender<Cell<u8>>>();
    sync::<Sender<Cell<u8>>>();
    send::<SyncSender<Cell<u8>>>();
    sync::<SyncSender<Cell<u8>>>();
    send::<Receiver<Cell<u8>>>();

    let mut poller = Poller::new().unwrap();
    for (tx, rx) in kinds(&poller.get_registrar()) {
        thread::spawn(move || tx.send(Cell::new(7)).unwrap()).join().unwrap();
        assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
        assert_eq!(thread::spawn(move || rx.try_recv().unwrap().get()).join().unwrap(), 7);
    }
}

#[test]
fn what_was_not_received_is_dropped_with_the_receiver_exactly_once() {
    let poller = Poller::new().unwrap();
    for (kind, (tx, rx)) in kinds(&poller.get_registrar()).into_iter().enumerate() {
        let drops = Arc::default();
        let message = || Counted::new(&drops);
        (0..10).for_each(|_| assert!(tx.send(message()).is_ok()));
        (0..3).for_each(|_| drop(rx.try_recv()));
        (0..5).for_each(|_| assert!(tx.send(message()).is_ok()));
        assert_eq!((drops.load(Ordering::Relaxed), rx.len()), (3, 12), "kind {kind}");
        drop(rx);
        assert_eq!(drops.load(Ordering::Relaxed), 15, "kind {kind}, while a sender lives");
        assert!(tx.send(message()).is_err());
        drop(tx);
        assert_eq!(drops.load(Ordering::Relaxed), 16, "kind {kind}");
    }
}

#[test]
fn what_was_not_received_outlives_the_senders_until_the_receiver_goes() {
    let poller = Poller::new().unwrap();
    for (tx, rx) in kinds(&poller.get_registrar()) {
        let drops = Arc::default();
        assert!(tx.send(Counted::new(&drops)).is_ok());
        drop(tx);
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(rx);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_message_that_panics_when_dropped_takes_no_other_with_it() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    for bad in 0..8 {
        for (tx, rx) in kinds(&registrar) {
            let drops = Arc::new(AtomicUsize::new(0));
            let message = |i| Counted { drops: Arc::clone(&drops), panics: i == bad };
            (0..4).for_each(|i| assert!(tx.send(message(i)).is_ok()));
            // Of the first four, an unbounded receiver has three at hand now.
            drop(catch_unwind(AssertUnwindSafe(|| drop(rx.try_recv()))));
            (4..8).for_each(|i| assert!(tx.send(message(i)).is_ok()));

            let end = catch_unwind(AssertUnwindSafe(|| drop(rx)));
            assert_eq!(end.is_err(), bad > 0, "the panic is the user's to see");
            assert_eq!(drops.load(Ordering::Relaxed), 8);
            assert!(tx.send(message(8)).is_err(), "the sender knows that the receiver is gone");
            assert_eq!(told(&mut poller, 0), []);
        }
    }
    let (tx, rx) = registrar.channel().unwrap();
    tx.send(()).unwrap();
    assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
}

#[test]
fn a_message_may_use_its_own_channel_when_dropped() {
    struct Echo<'a> {
        tx: Option<Tx<Echo<'a>>>,
        refused: &'a AtomicUsize,
    }
    impl Drop for Echo<'_> {
        fn drop(&mut self) {
            if let Some(tx) = self.tx.take() {
                // What comes back has no sender, and ends here.
                if tx.send(Echo { tx: None, refused: self.refused }).is_err() {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
    let mut poller = Poller::new().unwrap();
    let refused = AtomicUsize::new(0);
    for (tx, rx) in kinds(&poller.get_registrar()) {
        for _ in 0..4 {
            assert!(tx.send(Echo { tx: Some(tx.clone()), refused: &refused }).is_ok());
        }
        drop(rx.try_recv()); // sends one more
        assert_eq!(rx.len(), 4);
        drop(tx);
        drop(rx); // and with it the last senders, which sit in the messages
        assert_eq!(told(&mut poller, 0), []);
    }
    assert_eq!(refused.into_inner(), 6);
}

#[test]
fn a_panic_between_sends_harms_nobody_else() {
    let mut poller = Poller::new().unwrap();
    for (tx, rx) in kinds(&poller.get_registrar()) {
        let doomed = tx.clone();
        let thread = thread::spawn(move || {
            doomed.send(1).unwrap();
            panic!("as it was asked to");
        });
        assert!(thread.join().is_err());
        tx.send(2).unwrap();
        let consumer = catch_unwind(AssertUnwindSafe(|| {
            for message in &rx {
                assert_ne!(message, 1, "as it was asked to");
            }
        }));
        assert!(consumer.is_err());
        assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
        assert_eq!(rx.try_recv(), Ok(2));

        let last = thread::spawn(move || {
            let _tx = tx;
            panic!("as it was asked to");
        });
        assert!(last.join().is_err());
        assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected), "a panic drops as well");
    }
}

#[test]
fn a_receiver_dropped_among_sends_loses_and_doubles_nothing() {
    const SENDERS: usize = 3;
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    for round in 0..150 {
        let (made, drops) = (AtomicUsize::new(0), Arc::default());
        let (unbounded, first) = registrar.channel().unwrap();
        let (bounded, second) = registrar.sync_channel(round % 4).unwrap();
        let channels = [(Tx::Unbounded(unbounded), first), (Tx::Bounded(bounded), second)];
        for (tx, rx) in channels {
            thread::scope(|scope| {
                let rx = rx;
                for _ in 0..SENDERS {
                    scope.spawn(|| {
                        let message = || {
                            made.fetch_add(1, Ordering::Relaxed);
                            Counted::new(&drops)
                        };
                        while tx.send(message()).is_ok() {}
                    });
                }
                for _ in 0..round {
                    assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
                    assert!(rx.try_recv().is_ok());
                }
                drop(rx);
                assert_eq!(told(&mut poller, 0), [], "a receiver that is gone");
            });
        }
        assert_eq!(made.into_inner(), drops.load(Ordering::Relaxed));
        assert_eq!(told(&mut poller, 0), []);
    }
}

/// Many senders, many channels, and per sender and channel a sequence without a gap.
fn every_message_arrives_once_and_in_order(waiters: usize) {
    const SENDERS: usize = 4;
    const CHANNELS: usize = 12;
    const MESSAGES: usize = 4_000;

    let first = Poller::new().unwrap();
    let registrar = first.get_registrar();
    let mut pollers = vec![first];
    while pollers.len() < waiters {
        pollers.push(pollers[0].try_clone().unwrap());
    }

    let mut senders = Vec::new();
    let mut receivers = IdMap::default();
    for i in 0..CHANNELS {
        let (tx, rx) = if i % 2 == 0 {
            let (tx, rx) = registrar.channel().unwrap();
            (Tx::Unbounded(tx), rx)
        } else {
            let (tx, rx) = registrar.sync_channel(i / 2).unwrap();
            (Tx::Bounded(tx), rx)
        };
        senders.push(tx);
        receivers.insert(rx.get_id(), Mutex::new((rx, [0; SENDERS])));
    }
    let over = registrar.notifier().unwrap();
    let open = AtomicUsize::new(CHANNELS);
    let total = AtomicUsize::new(0);

    thread::scope(|scope| {
        let receivers = Arc::new(receivers);
        for sender in 0..SENDERS {
            let senders = senders.clone();
            scope.spawn(move || {
                let mut dice = Dice::new(sender as u64);
                let mut next = [0; CHANNELS];
                for _ in 0..MESSAGES {
                    let channel = dice.index(CHANNELS);
                    senders[channel].send((sender, next[channel])).unwrap();
                    next[channel] += 1;
                }
            });
        }
        drop(senders);

        for (waiter, mut poller) in pollers.into_iter().enumerate() {
            let (receivers, over, open, total) = (Arc::clone(&receivers), &over, &open, &total);
            scope.spawn(move || {
                let mut dice = Dice::new(1_000 + waiter as u64);
                while open.load(Ordering::SeqCst) > 0 {
                    let batch = told(&mut poller, LONG);
                    assert!(!batch.is_empty(), "a wait hung, with {open:?} channels open");
                    for id in batch {
                        if id == over.get_id() {
                            continue;
                        }
                        let (rx, next) = &mut *receivers[&id].lock().unwrap();
                        for _ in 0..=dice.below(4) {
                            match rx.try_recv() {
                                Ok((sender, i)) => {
                                    assert_eq!(i, next[sender]);
                                    next[sender] += 1;
                                    total.fetch_add(1, Ordering::Relaxed);
                                }
                                Err(TryRecvError::Empty) => break,
                                Err(TryRecvError::Disconnected) => {
                                    // Another waiter may have been told of it as well.
                                    if next[0] != usize::MAX {
                                        next[0] = usize::MAX;
                                        open.fetch_sub(1, Ordering::SeqCst);
                                    }
                                    break;
                                }
                            }
                        }
                    }
                }
                // Another waiter may be asleep, with nothing left to be told.
                over.notify().unwrap();
            });
        }
    });
    assert_eq!(total.into_inner(), SENDERS * MESSAGES);
}

#[test]
fn many_senders_and_channels_keep_every_order_with_one_waiter() {
    every_message_arrives_once_and_in_order(1);
}

#[test]
fn many_senders_and_channels_keep_every_order_with_three_waiters() {
    every_message_arrives_once_and_in_order(3);
}

#[test]
fn a_send_that_returned_is_seen_by_the_next_wait() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let (noise, noisy) = registrar.channel().unwrap();
    let (tx, rx) = registrar.channel().unwrap();
    let work = || {
        for i in 0..5_000 {
            tx.send(i).unwrap();
            assert!(told(&mut poller, 0).contains(&rx.get_id()));
            assert_eq!(rx.try_recv(), Ok(i));
            assert!(!told(&mut poller, 0).contains(&rx.get_id()));
            noisy.try_iter().take(100).for_each(drop);
        }
    };
    // Others send all the time, and may be stopped at any point of it.
    among(2, || noise.send(()).unwrap(), work);
}

#[test]
#[cfg(target_os = "linux")]
fn sends_to_a_poller_that_is_awake_write_nothing() {
    alone(|| {
        let (mut poller, wakes) = Wakes::of_a_new_poller();
        for (tx, rx) in kinds(&poller.get_registrar()) {
            for round in 0..50 {
                (0..50).for_each(|i| tx.send(i).unwrap());
                assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
                assert_eq!(rx.try_iter().count(), 50, "round {round}");
            }
            drop(tx);
            assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
        }
        assert_eq!(wakes.count(), 0);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_burst_of_sends_writes_once() {
    alone(|| {
        let (mut poller, wakes) = Wakes::of_a_new_poller();
        let channels = kinds(&poller.get_registrar());
        // From here on somebody else may be asleep over the poller's descriptor at any time.
        let _ = std::os::fd::AsFd::as_fd(&poller);
        assert_eq!(wakes.count(), 0);
        for _ in 0..5 {
            let before = wakes.count();
            for i in 0..100 {
                channels.iter().for_each(|(tx, _)| tx.send(i).unwrap());
            }
            assert_eq!(wakes.count(), before + 1);
            let mut batch = told(&mut poller, LONG);
            batch.sort_unstable();
            assert_eq!(batch, [channels[0].0.get_id(), channels[1].0.get_id()]);
            for (_, rx) in &channels {
                assert_eq!(rx.try_iter().count(), 100);
            }
            // Takes the edge that told the other sleeper of what was left after the first wait.
            assert_eq!(told(&mut poller, 0), []);
        }
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_send_to_a_poller_that_sleeps_writes_once() {
    alone(|| {
        let (mut poller, wakes) = Wakes::of_a_new_poller();
        let (tx, rx) = poller.get_registrar().channel().unwrap();
        let bed = Bed::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                bed.watch();
                tx.send(()).unwrap();
                assert_eq!(wakes.count(), 1);
            });
            bed.lie_down();
            assert_eq!(told(&mut poller, LONG), [rx.get_id()]);
        });
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_receiver_that_was_told_of_and_left_does_not_wake_other_pollers() {
    alone(|| {
        let (mut first, wakes) = Wakes::of_a_new_poller();
        let mut second = first.try_clone().unwrap();
        let registrar = first.get_registrar();
        let (tx, rx) = registrar.channel().unwrap();
        let over = registrar.notifier().unwrap();
        let bed = Bed::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                bed.lie_down();
                assert!(!told(&mut second, LONG).is_empty());
            });
            bed.watch();
            tx.send(()).unwrap();
            for _ in 0..100 {
                assert_eq!(told(&mut first, 0), [rx.get_id()]);
            }
            assert_eq!(wakes.count(), 1, "that of the send");
            over.notify().unwrap();
        });
    });
}

#[test]
fn channels_say_what_they_are() {
    let poller = Poller::new().unwrap();
    for (tx, rx) in kinds(&poller.get_registrar()) {
        tx.send(()).unwrap();
        let id = format!("id: {}", rx.get_id());
        let sender = |connected| match &tx {
            Tx::Unbounded(tx) => (format!("{tx:?}"), format!("Sender {{ {id}, {connected} }}")),
            Tx::Bounded(tx) => (format!("{tx:?}"), format!("SyncSender {{ {id}, {connected} }}")),
        };
        let (said, expected) = sender("connected: true");
        assert_eq!(said, expected);
        let receiver = format!("Receiver {{ {id}, len: 1 }}");
        assert_eq!(format!("{rx:?}"), receiver);
        assert_eq!(format!("{:?}", rx.try_iter()), format!("TryIter {{ receiver: {receiver} }}"));
        drop(rx);
        let (said, expected) = sender("connected: false");
        assert_eq!(said, expected);
    }
}

#[test]
fn channels_of_one_poller_are_told_in_the_order_in_which_they_were_sent_to() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let channels: Vec<_> = (0..20).map(|_| registrar.channel().unwrap()).collect();
    let ages: HashMap<_, _> = (channels.iter().rev().enumerate())
        .map(|(age, (tx, rx))| {
            tx.send(()).unwrap();
            (rx.get_id(), age)
        })
        .collect();
    let batch = told(&mut poller, LONG);
    assert!(batch.iter().map(|id| ages[id]).eq(0..20), "those that wait longest first");
}
