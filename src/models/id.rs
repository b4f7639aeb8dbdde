//! Ids, handed out by several threads.

use super::explore;
use crate::id;
use loom::thread;

#[test]
fn three_threads_never_get_the_same_id() {
    explore(&["an id is read, then counted"], || {
        let take_two = || [id::next().unwrap(), id::next().unwrap()];
        let others = [thread::spawn(take_two), thread::spawn(take_two)];
        let mut ids = Vec::from(take_two());
        ids.extend(others.into_iter().flat_map(|other| other.join().unwrap()));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 6, "every id is a new one");
        assert!(ids.into_iter().all(id::is_possible));
    });
}
