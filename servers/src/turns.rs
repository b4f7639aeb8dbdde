//! Who has more to do than one turn allows, and the end of a thread that serves connections.

use amy::IdMap;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long connections have, when a server ends, to take what is under way to them.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a client that has had its last answer may go on sending: what is there unread when a socket
/// is closed resets the connection, and the reset may overtake the answer.
pub const LINGER: Duration = Duration::from_secs(2);

/// What to do with a connection after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A notification will say when there is more to do.
    Wait,
    /// There is more to do at once.
    Again,
    /// It is over.
    Remove,
}

/// Those with more to do than one turn allows, each once. They get no further notification.
#[derive(Debug, Default)]
pub struct Unfinished {
    queue: VecDeque<usize>,
    /// Those in the queue.
    queued: IdMap<()>,
}

impl Unfinished {
    /// Puts `id` at the end, unless it waits already.
    pub fn push(&mut self, id: usize) {
        if self.queued.insert(id, ()).is_none() {
            self.queue.push_back(id);
        }
    }

    /// Takes the one that has waited longest. It may be gone by now.
    pub fn pop(&mut self) -> Option<usize> {
        let id = self.queue.pop_front()?;
        self.queued.remove(&id);
        Some(id)
    }

    /// How many wait for another turn.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How long a poller may wait: not at all while somebody could go on.
    pub fn timeout(&self) -> Option<Duration> {
        (!self.is_empty()).then_some(Duration::ZERO)
    }
}

/// The last seconds of a thread that serves connections: nobody new comes, and those who are there may
/// take what is under way to them.
#[derive(Debug, Default)]
pub struct Farewell {
    end: Option<Instant>,
}

impl Farewell {
    /// Begins it. Returns whether it had not begun before.
    pub fn begin(&mut self) -> bool {
        let first = self.end.is_none();
        self.end.get_or_insert_with(|| Instant::now() + FAREWELL);
        first
    }

    /// How long a poller may wait before it ends; for ever if it has not begun.
    pub fn timeout(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Whether it is over, with so many connections left.
    pub fn is_over(&self, connections: usize) -> bool {
        self.end.is_some_and(|end| connections == 0 || end <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_unfinished_waits_once_and_in_turn() {
        let mut unfinished = Unfinished::default();
        assert_eq!(unfinished.timeout(), None);
        for id in [3, 1, 3, 2, 1] {
            unfinished.push(id);
        }
        assert_eq!((unfinished.len(), unfinished.timeout()), (3, Some(Duration::ZERO)));
        assert_eq!(unfinished.pop(), Some(3));
        unfinished.push(3);
        assert_eq!([(); 4].map(|()| unfinished.pop()), [Some(1), Some(2), Some(3), None]);
    }

    #[test]
    fn a_farewell_ends_when_nobody_is_left_and_not_before_it_began() {
        let mut farewell = Farewell::default();
        assert_eq!((farewell.timeout(), farewell.is_over(0)), (None, false));
        assert!(farewell.begin());
        assert!(!farewell.begin());
        assert!(farewell.timeout().is_some_and(|left| left <= FAREWELL));
        assert!(farewell.is_over(0) && !farewell.is_over(1));
    }
}
