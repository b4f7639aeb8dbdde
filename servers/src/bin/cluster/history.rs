//! What clients saw, and whether one register, one after the other, could have answered so.

use std::fmt;
use todc_utils::{
    linearizability::{WGLChecker, history::Action, history::History},
    specifications::Specification,
};

/// One operation on one key. A key that nobody has written holds 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Set(u64),
    /// And what was seen.
    Get(u64),
    /// And what it answered, if it did.
    Incr(Option<u64>),
}

/// An operation, and when it was on its way. Times are in nanoseconds since the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) key: usize,
    pub(crate) op: Op,
    pub(crate) invoked: u64,
    /// `None` if nobody knows whether it was done. A read of that kind is left out.
    pub(crate) returned: Option<u64>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |nanos| nanos as f64 / 1e9;
        write!(f, "{:9.6} ", seconds(self.invoked))?;
        match self.returned {
            Some(at) => write!(f, "{:9.6}  {:?}", seconds(at), self.op),
            None => write!(f, "{:>9}  {:?}", "?", self.op),
        }
    }
}

struct Register;

impl Specification for Register {
    type State = u64;
    type Operation = Op;

    fn init() -> u64 {
        0
    }

    fn apply(op: &Op, state: &u64) -> (bool, u64) {
        match *op {
            Op::Set(value) => (true, value),
            Op::Get(seen) => (seen == *state, *state),
            Op::Incr(answer) => (answer.is_none_or(|n| n == state + 1), state + 1),
        }
    }
}

/// Whether the operations on one key can be put in an order that explains every answer, and in which no
/// operation comes before one that had returned before it was invoked.
///
/// One whose outcome is unknown is given a return after all others. It can then be anywhere after its
/// invocation, and the last place is as if it had never been done, since nothing looks after it.
pub(crate) fn is_linearizable(records: &[&Record]) -> bool {
    if records.is_empty() {
        return true;
    }
    let mut events = Vec::new();
    for (process, record) in records.iter().enumerate() {
        // In the same instant, invocations first: that only allows more.
        events.push((record.invoked, false, process));
        events.push((record.returned.unwrap_or(u64::MAX), true, process));
    }
    events.sort_unstable();
    let actions = events.into_iter().map(|(_, returned, process)| {
        let op = records[process].op;
        (process, if returned { Action::Response(op) } else { Action::Call(op) })
    });
    WGLChecker::<Register>::is_linearizable(History::from_actions(actions.collect()))
}

/// When an answer first came that no order explains, if there is one.
pub(crate) fn first_violation(records: &[&Record]) -> Option<u64> {
    if is_linearizable(records) {
        return None;
    }
    let mut returns: Vec<u64> = records.iter().filter_map(|record| record.returned).collect();
    returns.sort_unstable();
    // More answers never explain one that could not be explained before.
    let explained = returns.partition_point(|&at| {
        let seen: Vec<Record> = records.iter().filter_map(|record| until(record, at)).collect();
        is_linearizable(&seen.iter().collect::<Vec<_>>())
    });
    returns.get(explained).copied()
}

/// What was known of an operation at that time.
fn until(record: &Record, at: u64) -> Option<Record> {
    let returned = record.returned.filter(|&returned| returned <= at);
    let op = match record.op {
        Op::Get(_) if returned.is_none() => return None,
        Op::Incr(_) if returned.is_none() => Op::Incr(None),
        op => op,
    };
    (record.invoked <= at).then_some(Record { op, returned, ..*record })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(records: &[(Op, u64, Option<u64>)]) -> bool {
        let records: Vec<Record> = records
            .iter()
            .map(|&(op, invoked, returned)| Record { key: 0, op, invoked, returned })
            .collect();
        is_linearizable(&records.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_read_that_goes_back_in_time_is_found() {
        let writes = [(Op::Set(1), 0, Some(1)), (Op::Set(2), 2, Some(5))];
        assert!(check(
            &[&writes[..], &[(Op::Get(1), 3, Some(4)), (Op::Get(2), 4, Some(5))]].concat()
        ));
        assert!(!check(
            &[&writes[..], &[(Op::Get(2), 3, Some(4)), (Op::Get(1), 5, Some(6))]].concat()
        ));
        assert!(!check(&[&writes[..], &[(Op::Get(1), 6, Some(7))]].concat()));
    }

    #[test]
    fn a_lost_write_is_found_and_an_uncertain_one_may_be_either() {
        assert!(!check(&[(Op::Set(1), 0, Some(1)), (Op::Get(0), 2, Some(3))]));
        assert!(check(&[(Op::Set(1), 0, None), (Op::Get(0), 2, Some(3))]));
        assert!(check(&[
            (Op::Set(1), 0, None),
            (Op::Get(0), 2, Some(3)),
            (Op::Get(1), 4, Some(5)),
        ]));
        assert!(!check(&[
            (Op::Set(1), 0, None),
            (Op::Get(1), 2, Some(3)),
            (Op::Get(0), 4, Some(5)),
        ]));
    }

    #[test]
    fn the_answer_that_nothing_explains_is_found_among_many() {
        let records: Vec<Record> = (0..100)
            .flat_map(|n| {
                [(Op::Set(n), n * 10), (Op::Get(if n == 70 { 3 } else { n }), n * 10 + 5)]
            })
            .map(|(op, invoked)| Record { key: 0, op, invoked, returned: Some(invoked + 1) })
            .collect();
        assert_eq!(first_violation(&records.iter().collect::<Vec<_>>()), Some(706));
    }

    #[test]
    fn an_increment_that_was_done_twice_is_found() {
        let first = (Op::Incr(Some(1)), 0, Some(1));
        assert!(check(&[first, (Op::Incr(None), 0, None), (Op::Incr(Some(3)), 2, Some(3))]));
        assert!(!check(&[first, (Op::Incr(Some(3)), 2, Some(3))]));
        assert!(!check(&[first, (Op::Incr(Some(1)), 0, Some(1))]));
    }
}
