//! Channels: two producers wake one poller, and the end of the last one ends the program.
//!
//! A thread that waits for sockets and timers learns in the same way of what other threads have for
//! it. Run it with
//!
//! ```text
//! cargo run --example channels
//! ```

use amy::Poller;
use std::{
    collections::BTreeMap,
    error::Error,
    sync::mpsc::{SendError, TryRecvError},
    thread,
};

/// What a producer sends: who made it, and which one it is.
struct Work {
    producer: &'static str,
    number: u64,
}

/// How much one turn takes from a channel, so that whatever else is ready has its turn too.
const MOST_PER_TURN: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let mut poller = Poller::new()?;
    let registrar = poller.get_registrar();
    // At most 100 messages wait; a producer that is too fast blocks until there is room.
    let (tx, rx) = registrar.sync_channel(100)?;

    let producers = [("alpha", 1_000), ("beta", 500)].map(|(producer, count)| {
        let tx = tx.clone();
        thread::spawn(move || -> Result<(), SendError<Work>> {
            for number in 1..=count {
                tx.send(Work { producer, number })?;
            }
            println!("{producer}: sent {count} messages");
            Ok(())
        })
    });
    // This thread's own sender would keep the channel connected for ever.
    drop(tx);

    let mut turns = 0;
    let mut received: BTreeMap<_, u64> = BTreeMap::new();
    let mut connected = true;
    while connected {
        for n in poller.wait(None)? {
            // A program with more than one source looks here which one it is.
            assert_eq!(n.id, rx.get_id());
            turns += 1;
            for _ in 0..MOST_PER_TURN {
                match rx.try_recv() {
                    Ok(work) => {
                        let last = received.entry(work.producer).or_default();
                        assert_eq!(work.number, *last + 1, "the order of each producer is kept");
                        *last = work.number;
                    }
                    // All there is; the next message is announced.
                    Err(TryRecvError::Empty) => break,
                    // Every producer is done, and everything that they sent was received.
                    Err(TryRecvError::Disconnected) => {
                        connected = false;
                        break;
                    }
                }
            }
            // If something is left, the next wait says so again.
        }
    }

    for producer in producers {
        producer.join().expect("a producer does not panic")?;
    }
    for (producer, count) in &received {
        println!("received {count} messages of {producer}");
    }
    println!("in {turns} turns");
    Ok(())
}
