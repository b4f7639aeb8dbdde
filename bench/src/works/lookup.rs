//! From an id to what the user keeps for it, in no particular order. Half of the ids in between belong
//! to nobody any more, as they would after a while.

use crate::{
    harness::{Contender, Took, Turn, Work},
    kit::Random,
};
use std::{collections::HashMap, hint::black_box};

pub fn works() -> Vec<Work> {
    [1_000, 100_000]
        .map(|count| {
            let mut work = Work::new("lookup", format!("lookup-{count}"), format!("{count} ids"));
            work.unit = "look-up";
            work.ops = 100_000;
            work.contenders = vec![
                // The ids stand in the order in which they were given out, so the place is at hand.
                Contender::new("raw", move || {
                    let values: Vec<u64> = (0..count as u64).collect();
                    turn(count, |place, _| place, move |&place| values[place])
                }),
                Contender::new("amy", move || {
                    let values: amy::IdMap<u64> = ids(count).zip(0..).collect();
                    turn(count, |_, id| id, move |id| values[id])
                }),
                Contender::new("HashMap", move || {
                    let values: HashMap<usize, u64> = ids(count).zip(0..).collect();
                    turn(count, |_, id| id, move |id| values[id])
                }),
            ];
            work
        })
        .into()
}

fn ids(count: usize) -> impl Iterator<Item = usize> {
    let mut random = Random::new(7);
    (0..count).scan(0, move |last, _| {
        *last += 1 + random.below(3);
        Some(*last)
    })
}

fn turn(
    count: usize,
    key: impl Fn(usize, usize) -> usize,
    find: impl Fn(&usize) -> u64 + 'static,
) -> Turn {
    let mut keys: Vec<usize> = ids(count).enumerate().map(|(place, id)| key(place, id)).collect();
    Random::new(11).shuffle(&mut keys);
    let all = (count as u64 - 1) * count as u64 / 2;
    Box::new(move |ops| {
        let laps = ops / count as u64;
        let mut sum = 0;
        let took = Took::of(|| {
            for _ in 0..laps {
                for key in &keys {
                    sum += find(black_box(key));
                }
            }
        });
        assert_eq!(sum, all * laps, "every id is found");
        took
    })
}
