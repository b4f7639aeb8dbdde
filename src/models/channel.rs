//! Senders against the receiver, the sleeper and each other's drops.

use super::explore;
use crate::{
    channel::Receiver,
    poller::Poller,
    registrar::Registrar,
    sync::model::{release_stalled, stall_before_lock},
};
use loom::thread;
use std::sync::{
    Arc,
    mpsc::{TryRecvError, TrySendError},
};

fn poller() -> (Poller, Registrar) {
    let poller = Poller::with_capacity(8).unwrap();
    let registrar = poller.get_registrar();
    (poller, registrar)
}

/// Receives one message for each notification, until there are `count`.
fn receive_one_by_one<T>(poller: &mut Poller, rx: &Receiver<T>, count: usize) -> Vec<T> {
    let mut got = Vec::new();
    while got.len() < count {
        for n in poller.wait(None).unwrap() {
            assert_eq!(n.id, rx.get_id());
            got.extend(rx.try_recv());
        }
    }
    got
}

#[test]
fn a_partial_drain_leaves_the_rest_to_be_told() {
    explore(&["a partial drain counts as empty", "LISTED is cleared too early"], || {
        let (mut poller, registrar) = poller();
        let (tx, rx) = registrar.channel().unwrap();
        let sender = thread::spawn(move || {
            (0..3).for_each(|n| tx.send(n).unwrap());
            tx
        });
        assert_eq!(receive_one_by_one(&mut poller, &rx, 3), [0, 1, 2]);
        let _tx = sender.join().unwrap();
        assert!(poller.wait(0).unwrap().is_empty(), "there is nothing to receive");
    });
}

#[test]
fn two_senders_lose_nothing_and_keep_their_order() {
    explore(&["a partial drain counts as empty"], || {
        let (mut poller, registrar) = poller();
        let (tx, rx) = registrar.channel().unwrap();
        let senders = [(tx.clone(), 10), (tx, 20)].map(|(tx, first)| {
            thread::spawn(move || {
                tx.send(first).unwrap();
                tx.send(first + 1).unwrap();
                tx
            })
        });
        let got = receive_one_by_one(&mut poller, &rx, 4);
        let place = |message| got.iter().position(|&m| m == message).expect("nothing is lost");
        assert!(place(10) < place(11) && place(20) < place(21));
        let _senders = senders.map(|sender| sender.join().unwrap());
    });
}

/// Who was told goes away without having received anything.
#[test]
fn a_channel_is_told_to_those_who_stay() {
    explore(&["a poller that goes tells nobody"], || {
        let (mut poller, registrar) = poller();
        let (tx, rx) = registrar.channel().unwrap();
        let mut second = poller.try_clone().unwrap();
        let id = rx.get_id();
        let other = thread::spawn(move || {
            assert_eq!(second.wait(None).unwrap()[0].id, id);
        });
        let sender = thread::spawn(move || {
            tx.send(()).unwrap();
            tx
        });
        assert_eq!(poller.wait(None).unwrap()[0].id, id);
        drop(poller);
        other.join().unwrap();
        let _tx = sender.join().unwrap();
        assert_eq!(rx.try_recv(), Ok(()));
    });
}

/// Had the other sender stalled anywhere outside of a lock, nobody else would wake the sleeper.
#[test]
fn a_send_that_returned_needs_no_stalled_sender() {
    explore(&["who sets LISTED does the waking"], || {
        let (mut poller, registrar) = poller();
        let (tx, rx) = registrar.channel().unwrap();
        let senders = [tx.clone(), tx].map(|tx| {
            let hub = Arc::clone(registrar.hub());
            thread::spawn(move || {
                let message = Arc::new(());
                tx.send(Arc::clone(&message)).unwrap();
                assert!(
                    hub.queue.someone_comes() || Arc::strong_count(&message) == 1,
                    "sent and not received, and the sleeper sleeps"
                );
                tx
            })
        });
        let mut received = 0;
        while received < 2 {
            poller.wait(None).unwrap();
            received += rx.try_iter().map(drop).count();
        }
        let _senders = senders.map(|sender| sender.join().unwrap());
    });
}

#[test]
fn a_message_against_the_drop_of_the_receiver_arrives_or_comes_back() {
    explore(&["a dead receiver is told"], || {
        let (mut poller, registrar) = poller();
        let (tx, rx) = registrar.channel().unwrap();
        let message = Arc::new(());
        let theirs = Arc::clone(&message);
        let sender = thread::spawn(move || {
            let back = [tx.send(Arc::clone(&theirs)), tx.send(theirs)];
            assert!(back[0].is_ok() || back[1].is_err(), "a receiver that is gone stays gone");
            tx
        });
        let _ = rx.try_recv();
        drop(rx);
        assert!(poller.wait(0).unwrap().is_empty(), "a receiver that is gone is not told");
        sender.join().unwrap();
        assert_eq!(Arc::strong_count(&message), 1, "every message is dropped once");
        assert!(poller.wait(0).unwrap().is_empty(), "a receiver that is gone is not told");
    });
}

#[test]
fn the_drop_of_the_last_sender_is_told() {
    explore(&["the end is silent"], || {
        let (mut poller, registrar) = poller();
        let (tx, rx) = registrar.channel().unwrap();
        let senders = [tx.clone(), tx].map(|tx| {
            thread::spawn(move || {
                tx.send(()).unwrap();
                drop(tx);
            })
        });
        let mut got = 0;
        loop {
            assert_eq!(poller.wait(None).unwrap()[0].id, rx.get_id());
            match rx.try_recv() {
                Ok(()) => got += 1,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => break,
            }
        }
        assert_eq!(got, 2, "the end comes after the last message");
        let _ = senders.map(|sender| sender.join().unwrap());
        assert!(poller.wait(0).unwrap().is_empty(), "the end is told once");
    });
}

#[test]
fn the_last_sender_and_the_receiver_go_at_the_same_time() {
    explore(&["a dead receiver is told"], || {
        let (mut poller, registrar) = poller();
        let (tx, rx) = registrar.channel::<()>().unwrap();
        let sender = thread::spawn(move || drop(tx));
        let receiver = thread::spawn(move || drop(rx));
        receiver.join().unwrap();
        assert!(poller.wait(0).unwrap().is_empty(), "a receiver that is gone is not told");
        sender.join().unwrap();
        assert!(poller.wait(0).unwrap().is_empty(), "a receiver that is gone is not told");
    });
}

#[test]
fn a_blocked_sender_goes_on_when_there_is_room() {
    explore(&["room is not told"], || {
        let (mut poller, registrar) = poller();
        let (tx, rx) = registrar.sync_channel(1).unwrap();
        let sender = thread::spawn(move || {
            (0..3).for_each(|n| tx.send(n).unwrap());
            tx
        });
        assert_eq!(receive_one_by_one(&mut poller, &rx, 3), [0, 1, 2]);
        sender.join().unwrap();
    });
}

#[test]
fn two_blocked_senders_both_go_on() {
    explore(&["room is not told"], || {
        let (mut poller, registrar) = poller();
        let (tx, rx) = registrar.sync_channel(1).unwrap();
        tx.send(0).unwrap();
        let senders = [(tx.clone(), 1), (tx, 2)].map(|(tx, n)| {
            thread::spawn(move || {
                tx.send(n).unwrap();
                tx
            })
        });
        let mut got = receive_one_by_one(&mut poller, &rx, 3);
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2]);
        let _senders = senders.map(|sender| sender.join().unwrap());
    });
}

#[test]
fn a_try_send_takes_no_room_from_a_blocked_sender_for_good() {
    explore(&["room is not told"], || {
        let (mut poller, registrar) = poller();
        let (tx, rx) = registrar.sync_channel(1).unwrap();
        tx.send(0).unwrap();
        let tries = tx.clone();
        let trier = thread::spawn(move || match tries.try_send(1) {
            Ok(()) => (tries, true),
            Err(TrySendError::Full(1)) => (tries, false),
            Err(other) => panic!("{other:?}"),
        });
        let sender = thread::spawn(move || {
            tx.send(2).unwrap();
            tx
        });
        receive_one_by_one(&mut poller, &rx, 2);
        let (_tries, put) = trier.join().unwrap();
        if put {
            receive_one_by_one(&mut poller, &rx, 1);
        }
        sender.join().unwrap();
        assert!(rx.is_empty());
    });
}

#[test]
fn a_blocked_sender_gets_its_message_back_when_the_receiver_goes() {
    explore(&["blocked senders stay"], || {
        let (_poller, registrar) = poller();
        let (tx, rx) = registrar.sync_channel(1).unwrap();
        tx.send(0).unwrap();
        let other = tx.clone();
        let senders = [(tx, 1), (other, 2)].map(|(tx, n)| {
            thread::spawn(move || {
                assert_eq!(tx.send(n).unwrap_err().0, n);
                tx
            })
        });
        drop(rx);
        let _senders = senders.map(|sender| sender.join().unwrap());
    });
}

/// The sender that filled the queue stalls before it tells anybody; the next one has to.
#[test]
fn a_queue_filled_by_a_stalled_sender_is_drained_for_the_next() {
    explore(&["a full queue is not announced"], || {
        let (mut poller, registrar) = poller();
        let (tx, rx) = registrar.sync_channel(1).unwrap();
        let stalled = tx.clone();
        let first = thread::spawn(move || {
            // The lock of the queue, and then that of the ready list.
            stall_before_lock(1);
            stalled.send(()).unwrap();
            stalled
        });
        let second = thread::spawn(move || {
            tx.send(()).unwrap();
            tx
        });
        receive_one_by_one(&mut poller, &rx, 1);
        // One may still be asleep at its lock, with a message that is there.
        let other = second.join().unwrap();
        release_stalled();
        first.join().unwrap();
        receive_one_by_one(&mut poller, &rx, 1);
        drop(other);
    });
}

#[test]
fn a_rendezvous_ends_when_the_message_is_taken() {
    explore(&["room is not told"], || {
        let (mut poller, registrar) = poller();
        let (tx, rx) = registrar.sync_channel(0).unwrap();
        let sender = thread::spawn(move || {
            tx.send(1).unwrap();
            tx.send(2).unwrap();
            tx
        });
        assert_eq!(receive_one_by_one(&mut poller, &rx, 2), [1, 2]);
        sender.join().unwrap();
    });
}

#[test]
fn an_offer_that_nobody_took_comes_back_to_the_one_who_made_it() {
    explore(&["blocked senders stay"], || {
        let (_poller, registrar) = poller();
        let (tx, rx) = registrar.sync_channel(0).unwrap();
        let senders = [(tx.clone(), 1), (tx, 2)].map(|(tx, n)| {
            thread::spawn(move || {
                let sent = tx.send(n).map_err(|refused| assert_eq!(refused.0, n)).is_ok();
                (tx, sent)
            })
        });
        let got = rx.try_recv().ok();
        drop(rx);
        for (n, sender) in (1..).zip(senders) {
            let (_tx, sent) = sender.join().unwrap();
            assert_eq!(sent, got == Some(n), "sent is what was taken");
        }
    });
}
