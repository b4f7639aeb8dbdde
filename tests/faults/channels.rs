//! Every message arrives once and in its sender's order, whatever becomes of a wake.

use crate::fault::{Faults, MAKING, scenario};
use amy::{Poller, Receiver};
use std::{sync::mpsc::TryRecvError, thread};

#[test]
fn messages_arrive_once_and_in_order() {
    scenario(|faults| {
        let mut poller = faults.call(MAKING, Poller::new);
        let (tx, rx) = poller.get_registrar().channel().unwrap();
        thread::scope(|scope| {
            for sender in 0..3 {
                let tx = tx.clone();
                scope.spawn(move || {
                    for number in 0..100 {
                        tx.send((sender, number)).unwrap();
                    }
                });
            }
            drop(tx);
            receive(faults, &mut poller, &rx, [100; 3]);
        });
    });
}

#[test]
fn bounded_channels_let_their_senders_go_on() {
    scenario(|faults| {
        let mut poller = faults.call(MAKING, Poller::new);
        for bound in [2, 0] {
            let (tx, rx) = poller.get_registrar().sync_channel(bound).unwrap();
            thread::scope(|scope| {
                for sender in 0..2 {
                    let tx = tx.clone();
                    scope.spawn(move || {
                        for number in 0..20 {
                            tx.send((sender, number)).unwrap();
                        }
                    });
                }
                drop(tx);
                receive(faults, &mut poller, &rx, [20; 2]);
            });
        }
    });
}

/// Receives until the last sender is gone, which is told too.
fn receive<const N: usize>(
    faults: &Faults,
    poller: &mut Poller,
    rx: &Receiver<(usize, u32)>,
    expected: [u32; N],
) {
    let mut received = [0; N];
    loop {
        for n in faults.next(poller) {
            assert_eq!(n.id, rx.get_id());
        }
        // Not all there is: the rest is told again.
        for _ in 0..5 {
            match rx.try_recv() {
                Ok((sender, number)) => {
                    assert_eq!(number, received[sender], "from {sender}");
                    received[sender] += 1;
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    assert_eq!(received, expected);
                    return;
                }
            }
        }
    }
}
