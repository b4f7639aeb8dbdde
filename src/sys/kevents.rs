//! What an interest asks of a kqueue, and what its kevents mean: data in, data out.
//!
//! There are no system calls here and no constants of a kernel's, so that the rules are the same on
//! every system and are tested on every system, also on those that have no kqueue.
//!
//! A kqueue looks at a descriptor through *filters*, one for reading and one for writing, each of
//! which is added, removed and told by itself. epoll has one registration for both. Most of what
//! follows makes the first look like the second.

use crate::notification::{Event, Interest, Notification};
use rustix::io::Errno;
use std::{io, time::Duration};

/// How many kevents one call returns at the most, and so how many notifications.
pub(super) const BATCH: usize = 1024;

/// What the kernel carries for what is not a registration: no id is zero.
pub(super) const OURS: usize = 0;

/// The longest that a kernel is asked to wait: `i32::MAX` milliseconds, 24 days. FreeBSD takes more
/// seconds than fit an `i32` for ever, and OpenBSD takes a hundred million for an error.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// What the kernel looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Read,
    Write,
    /// Out-of-band data. Some systems have no such filter.
    Except,
    /// An event that only this process triggers.
    User,
    Timer,
}

/// What is to become of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A filter that is there keeps its mode, whatever is asked of the new one (kqueue_register
    /// in FreeBSD's sys/kern/kern_event.c), so it has to be removed first.
    Add {
        edge: bool,
        /// Told once, and then disabled. It stays in place, so that it can be told from a
        /// descriptor that was never registered.
        once: bool,
    },
    /// Adds a timer that goes off once.
    Start {
        millis: i32,
    },
    /// Triggers a user event that is there.
    Trigger,
    Delete,
}

/// One change to a kqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The descriptor, or a number of our own. Each filter counts its own, so that a timer never
    /// collides with a descriptor.
    pub(super) ident: usize,
    pub(super) filter: Filter,
    pub(super) action: Action,
    /// What a kevent brings back. Every change overwrites it.
    pub(super) udata: usize,
}

impl Change {
    /// Starts a timer that goes off once, and not before `after`.
    ///
    /// Starting one that is there has no effect on some systems; it has to be stopped first.
    pub(super) fn start_timer(ident: usize, after: Duration) -> Change {
        Change::ours(Filter::Timer, ident, Action::Start { millis: millis(after) })
    }

    pub(super) fn stop_timer(ident: usize) -> Change {
        Change::ours(Filter::Timer, ident, Action::Delete)
    }

    /// Adds the event that wakes, which is taken by whoever is told of it.
    pub(super) fn add_user_event() -> Change {
        Change::ours(Filter::User, 0, Action::Add { edge: true, once: false })
    }

    /// Triggers the event that wakes, in another call than the one that adds it: in one and the
    /// same, FreeBSD loses the trigger.
    pub(super) fn trigger_user_event() -> Change {
        Change::ours(Filter::User, 0, Action::Trigger)
    }

    fn ours(filter: Filter, ident: usize, action: Action) -> Change {
        Change { ident, filter, action, udata: OURS }
    }
}

/// What became of a change.
pub(super) type Outcome = Result<(), Errno>;

/// A kevent, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kevent {
    pub(super) ident: usize,
    pub(super) filter: Filter,
    pub(super) udata: usize,
    /// `EV_EOF`: no more will come (read), or be taken (write).
    pub(super) eof: bool,
    /// `EV_ERROR`, or the error of a socket in the `fflags` that go with `EV_EOF`.
    pub(super) error: bool,
}

/// The id, and below it what was asked.
///
/// On a 32-bit system this leaves room for 2^30 ids.
pub(super) fn udata(id: usize, event: Event) -> io::Result<usize> {
    if id > usize::MAX >> 2 {
        let message = "all ids that fit a kevent have been used";
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, message));
    }
    Ok(id << 2 | event as usize)
}

/// The filters of a descriptor, in the order in which they are changed.
const FILTERS: [Filter; 3] = [Filter::Read, Filter::Write, Filter::Except];

/// The changes of one call. All filters are removed, those that are wanted are added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changes {
    list: [Change; 2 * FILTERS.len()],
    len: usize,
}

impl Changes {
    /// Has a descriptor watched in one way, and in no other way.
    pub(super) fn watching(ident: usize, udata: usize, interest: Interest) -> Changes {
        let mut changes = Changes::forgetting(ident);
        let action = Action::Add { edge: !interest.is_level(), once: interest.is_once() };
        for filter in FILTERS {
            let wanted = match filter {
                Filter::Read => interest.event().readable(),
                Filter::Write => interest.event().writable(),
                _ => interest.wants_priority(),
            };
            if wanted {
                changes.push(Change { ident, filter, action, udata });
            }
        }
        changes
    }

    /// Has a descriptor not watched any more.
    pub(super) fn forgetting(ident: usize) -> Changes {
        let delete = |filter| Change { ident, filter, action: Action::Delete, udata: OURS };
        let [read, write, except] = FILTERS.map(delete);
        Changes { list: [read, write, except, read, write, except], len: FILTERS.len() }
    }

    /// Watches the end of a pipe whose other end is gone. Some systems refuse to add the filter for
    /// writing then (`EPIPE`), but tell the end of the pipe through the one for reading.
    pub(super) fn watching_a_lost_pipe(ident: usize, udata: usize, interest: Interest) -> Changes {
        let action = Action::Add { edge: !interest.is_level(), once: interest.is_once() };
        let change = Change { ident, filter: Filter::Read, action, udata };
        Changes { list: [change; 2 * FILTERS.len()], len: 1 }
    }

    pub(super) fn as_slice(&self) -> &[Change] {
        &self.list[..self.len]
    }

    fn push(&mut self, change: Change) {
        self.list[self.len] = change;
        self.len += 1;
    }
}

/// What the outcomes of [`Changes`] say of a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// It was watched before.
    pub(super) known: bool,
    /// The other end of the pipe is gone.
    pub(super) lost_pipe: bool,
    /// It cannot be watched like that.
    pub(super) refused: Option<Errno>,
}

impl Verdict {
    pub(super) fn of(changes: &[Change], outcomes: &[Outcome]) -> Verdict {
        let mut verdict = Verdict::default();
        for (change, outcome) in changes.iter().zip(outcomes) {
            match (change.action, *outcome) {
                (Action::Delete, Ok(())) => verdict.known = true,
                // Not every filter was there, nor is every filter everywhere.
                (Action::Delete, Err(_)) | (_, Ok(())) => {}
                // Out-of-band data is told where that is possible.
                (_, Err(_)) if change.filter == Filter::Except => {}
                (_, Err(Errno::PIPE)) => verdict.lost_pipe = true,
                (_, Err(errno)) => verdict.refused = verdict.refused.or(Some(errno)),
            }
        }
        verdict
    }
}

/// How long a timer must run so that it does not go off before `after`: whole milliseconds, the one
/// unit that every kernel knows. At least one, since kernels disagree about zero; at most what
/// fits, since a timer that comes early by weeks is set anew.
fn millis(after: Duration) -> i32 {
    let whole = after.as_nanos().div_ceil(1_000_000);
    i32::try_from(whole).unwrap_or(i32::MAX).max(1)
}

/// A timeout that no kernel refuses. A wait that ends early by weeks is taken up again.
pub(super) fn timeout(timeout: Duration) -> Duration {
    timeout.min(LONGEST)
}

/// What one kevent tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Ready(Notification),
    Alarm,
    Wake,
}

impl Kevent {
    pub(super) fn told(self) -> Told {
        match (self.filter, self.udata) {
            (Filter::Timer, _) => Told::Alarm,
            // The pipe, where there is no user event, is read under our own udata.
            (Filter::User, _) | (_, OURS) => Told::Wake,
            (_, udata) => Told::Ready(self.notification(udata)),
        }
    }

    fn notification(self, udata: usize) -> Notification {
        let asked_read = udata & Event::Read as usize != 0;
        let asked_write = udata & Event::Write as usize != 0;
        let (readable, writable) = match self.filter {
            // Some systems tell a pipe's writer through the filter for reading that its reader is
            // gone (https://github.com/golang/go/commit/23aad448b1e3f7c3b4ba2af90120bde91ac865b4).
            Filter::Read => (true, self.eof || self.error),
            Filter::Write => (self.error, true),
            // Out-of-band data is read, unless only writing was asked for.
            _ => (true, false),
        };
        let event = Event::from_parts(asked_read && readable, asked_write && writable)
            .or(Event::from_parts(asked_read, asked_write))
            .unwrap_or(Event::Both);

        let mut n = Notification::new(udata >> 2, event);
        match self.filter {
            Filter::Read if self.eof && asked_read => n = n.with_read_closed(),
            // Also after a `shutdown` of one's own, which is no hang-up.
            Filter::Read | Filter::Write if self.eof => n = n.with_write_closed(),
            Filter::Except => n = n.with_priority(),
            _ => {}
        }
        if self.error {
            n = n.with_error().with_read_closed().with_write_closed();
        }
        n
    }
}

/// Makes one out of two filters that are each told once: what the first tells is the one
/// notification of a registration, until it is registered again, and what the second tells later is
/// kept back.
///
/// For each number of a descriptor this holds the id that was last registered under it in that way.
/// That is no list of what is registered, and nothing is ever refused for what is in it: every
/// registration overwrites the entry, and a kevent of another id than the entry's is none of its
/// business.
#[derive(Debug, Default)]
pub(super) struct Once {
    /// By number: the id, and in the lowest bit whether it was told. Zero is nobody.
    entries: Vec<usize>,
}

impl Once {
    const TOLD: usize = 1;

    /// A descriptor is about to be registered, for the first time or again.
    pub(super) fn register(&mut self, ident: usize, id: usize, interest: Interest) {
        let both = interest.event() == Event::Both || interest.wants_priority();
        if interest.is_once() && both {
            if self.entries.len() <= ident {
                self.entries.resize(ident + 1, 0);
            }
            self.entries[ident] = id << 1;
        } else if let Some(entry) = self.entries.get_mut(ident) {
            *entry = 0;
        }
    }

    /// Whether what a filter of this registration says is to be told; it is then the last.
    pub(super) fn tells(&mut self, ident: usize, id: usize) -> bool {
        let Some(entry) = self.entries.get_mut(ident) else { return true };
        if *entry >> 1 != id {
            return true;
        }
        let told = *entry & Once::TOLD != 0;
        *entry |= Once::TOLD;
        !told
    }
}

/// Twice as many places as kevents, so that looking for an id ends soon.
const PLACES: usize = 2 * BATCH;

/// Appends the notifications of one call, those of one id as one.
///
/// They are told apart by the id, never by the descriptor: its number may be that of another one
/// by now.
pub(super) struct Batch<'a> {
    out: &'a mut Vec<Notification>,
    start: usize,
    /// Where in `out` an id is, counted from `start` and from one; zero is an empty place.
    places: [u16; PLACES],
}

impl<'a> Batch<'a> {
    pub(super) fn new(out: &'a mut Vec<Notification>) -> Batch<'a> {
        let start = out.len();
        Batch { out, start, places: [0; PLACES] }
    }

    /// Adds one of at most [`BATCH`] notifications, unless it is the first of its id and not
    /// `wanted`.
    pub(super) fn push(&mut self, n: Notification, wanted: impl FnOnce() -> bool) {
        let mut place = place(n.id);
        while self.places[place] != 0 {
            let there = &mut self.out[self.start + usize::from(self.places[place]) - 1];
            if there.id == n.id {
                *there = merge(*there, n);
                return;
            }
            place = (place + 1) % PLACES;
        }
        if !wanted() {
            return;
        }
        self.out.push(n);
        // No more than BATCH, which fits.
        #[allow(clippy::cast_possible_truncation)]
        {
            self.places[place] = (self.out.len() - self.start) as u16;
        }
    }
}

/// Where to begin to look for an id: ids count up, and are spread by a multiple of the golden
/// ratio.
fn place(id: usize) -> usize {
    // The low bits are those that differ.
    #[allow(clippy::cast_possible_truncation)]
    let hash = (id as u32).wrapping_mul(0x9E37_79B9);
    (hash >> (u32::BITS - PLACES.ilog2())) as usize
}

fn merge(a: Notification, b: Notification) -> Notification {
    let readable = a.event.readable() || b.event.readable();
    let writable = a.event.writable() || b.event.writable();
    let mut n = Notification::new(a.id, Event::from_parts(readable, writable).unwrap_or(a.event));
    if a.is_read_closed() || b.is_read_closed() {
        n = n.with_read_closed();
    }
    if a.is_write_closed() || b.is_write_closed() {
        n = n.with_write_closed();
    }
    if a.is_error() || b.is_error() {
        n = n.with_error();
    }
    if a.is_priority() || b.is_priority() {
        n = n.with_priority();
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    const FD: usize = 7;
    const ID: usize = 99;
    const EDGE: Action = Action::Add { edge: true, once: false };

    fn changes(interest: impl Into<Interest>) -> Vec<(Filter, Action)> {
        let changes = Changes::watching(FD, ID, interest.into());
        changes.as_slice().iter().map(|change| (change.filter, change.action)).collect()
    }

    fn adds(interest: impl Into<Interest>) -> Vec<(Filter, Action)> {
        let mut changes = changes(interest);
        changes.retain(|(_, action)| *action != Action::Delete);
        changes
    }

    fn ready(filter: Filter, event: Event, eof: bool, error: bool) -> Notification {
        let udata = udata(ID, event).unwrap();
        match (Kevent { ident: FD, filter, udata, eof, error }).told() {
            Told::Ready(n) => n,
            other => panic!("{filter:?} is no {other:?}"),
        }
    }

    #[test]
    fn every_registration_touches_every_filter_and_removes_before_it_adds() {
        for interest in [Event::Read, Event::Write, Event::Both] {
            let changes = changes(interest);
            let deleted: Vec<_> = changes
                .iter()
                .take_while(|(_, action)| *action == Action::Delete)
                .map(|(filter, _)| *filter)
                .collect();
            assert_eq!(deleted, FILTERS);
            assert!(changes[3..].iter().all(|(_, action)| *action == EDGE), "{changes:?}");
        }
    }

    #[test]
    fn the_filters_that_were_asked_for_are_added_and_no_other() {
        use Filter::{Except, Read, Write};
        let level = Action::Add { edge: false, once: false };
        let once = Action::Add { edge: true, once: true };
        assert_eq!(adds(Event::Read), [(Read, EDGE)]);
        assert_eq!(adds(Event::Write), [(Write, EDGE)]);
        assert_eq!(adds(Event::Both), [(Read, EDGE), (Write, EDGE)]);
        assert_eq!(adds(Event::Read.level()), [(Read, level)]);
        assert_eq!(adds(Event::Both.once()), [(Read, once), (Write, once)]);
        assert_eq!(adds(Event::Both.priority()), [(Read, EDGE), (Write, EDGE), (Except, EDGE)]);
    }

    #[test]
    fn every_change_names_the_descriptor_and_every_addition_the_udata() {
        for change in Changes::watching(FD, ID, Event::Both.priority()).as_slice() {
            let udata = if change.action == Action::Delete { OURS } else { ID };
            assert_eq!((change.ident, change.udata), (FD, udata));
        }
        for change in Changes::forgetting(FD).as_slice() {
            assert_eq!((change.ident, change.action), (FD, Action::Delete));
        }
        assert_eq!(
            Changes::watching_a_lost_pipe(FD, ID, Event::Write.into()).as_slice(),
            [Change { ident: FD, filter: Filter::Read, action: EDGE, udata: ID }]
        );
    }

    #[test]
    fn outcomes_are_judged_filter_by_filter() {
        let ok = Ok(());
        let none = Err(Errno::NOENT);
        let changes = Changes::watching(FD, ID, Event::Both.priority());
        let judge = |outcomes: [Outcome; 6]| Verdict::of(changes.as_slice(), &outcomes);

        let new = Verdict::default();
        let known = Verdict { known: true, ..new };
        let table = [
            // Nothing was there, and all could be added.
            ([none, none, none, ok, ok, ok], new),
            // A write-only registration is found although removing the first filter failed.
            ([none, ok, none, ok, ok, ok], known),
            ([ok, none, none, ok, ok, ok], known),
            // Filters that the system lacks.
            ([ok, ok, Err(Errno::INVAL), ok, ok, Err(Errno::INVAL)], known),
            // A pipe whose other end is gone is no error, one that is not there is.
            ([none, none, none, ok, Err(Errno::PIPE), ok], Verdict { lost_pipe: true, ..new }),
            ([ok, none, none, Err(Errno::PIPE), ok, ok], Verdict { lost_pipe: true, ..known }),
            (
                [none, none, none, ok, Err(Errno::NOMEM), ok],
                Verdict { refused: Some(Errno::NOMEM), ..new },
            ),
            // The first of two refusals is the one that is passed on.
            (
                [none, none, none, Err(Errno::INVAL), Err(Errno::NOMEM), ok],
                Verdict { refused: Some(Errno::INVAL), ..new },
            ),
        ];
        for (outcomes, expected) in table {
            assert_eq!(judge(outcomes), expected, "{outcomes:?}");
        }
    }

    #[test]
    fn an_end_or_an_error_is_told_as_epoll_tells_it() {
        use Event::{Both, Read, Write};
        let n = |event| Notification::new(ID, event);
        let all = |event| n(event).with_error().with_read_closed().with_write_closed();
        let table = [
            // filter, asked, EV_EOF, error: told
            (Filter::Read, Read, false, false, n(Read)),
            (Filter::Read, Both, false, false, n(Read)),
            (Filter::Write, Write, false, false, n(Write)),
            (Filter::Write, Both, false, false, n(Write)),
            // The peer will send no more.
            (Filter::Read, Read, true, false, n(Read).with_read_closed()),
            // And may not read any more either: only a write tells.
            (Filter::Read, Both, true, false, n(Both).with_read_closed()),
            // The peer will read no more, or we have shut down our side; no hang-up.
            (Filter::Write, Write, true, false, n(Write).with_write_closed()),
            (Filter::Write, Both, true, false, n(Write).with_write_closed()),
            // A pipe's writer is told by the filter for reading.
            (Filter::Read, Write, true, false, n(Write).with_write_closed()),
            // A reset or a refused connection, on either filter: both, for whatever was asked.
            (Filter::Read, Read, true, true, all(Read)),
            (Filter::Read, Both, true, true, all(Both)),
            (Filter::Write, Write, true, true, all(Write)),
            (Filter::Write, Both, true, true, all(Both)),
            // EV_ERROR comes without EV_EOF.
            (Filter::Read, Read, false, true, all(Read)),
            // Out-of-band data is something to read, unless only writing was asked for.
            (Filter::Except, Read, false, false, n(Read).with_priority()),
            (Filter::Except, Both, false, false, n(Read).with_priority()),
            (Filter::Except, Write, false, false, n(Write).with_priority()),
        ];
        for (filter, asked, eof, error, told) in table {
            let case = format!("{filter:?}, asked {asked:?}, eof {eof}, error {error}");
            assert_eq!(ready(filter, asked, eof, error), told, "{case}");
        }
    }

    #[test]
    fn our_own_kevents_are_no_notifications() {
        let told =
            |filter, udata| Kevent { ident: FD, filter, udata, eof: false, error: false }.told();
        assert_eq!(told(Filter::Timer, OURS), Told::Alarm);
        assert_eq!(told(Filter::User, OURS), Told::Wake);
        assert_eq!(told(Filter::Read, OURS), Told::Wake);
        // A descriptor with the number of a timer or a user event is still a descriptor.
        let read = Told::Ready(Notification::new(1, Event::Read));
        assert_eq!(told(Filter::Read, udata(1, Event::Read).unwrap()), read);
    }

    #[test]
    fn both_filters_of_an_id_are_one_notification_and_two_ids_are_two() {
        let before = Notification::new(3, Event::Write);
        let mut out = vec![before];
        let mut batch = Batch::new(&mut out);
        batch.push(Notification::new(1, Event::Read).with_read_closed(), || true);
        batch.push(Notification::new(2, Event::Read), || true);
        batch.push(Notification::new(1, Event::Write).with_error(), || true);
        batch.push(Notification::new(3, Event::Read), || true);
        batch.push(Notification::new(2, Event::Read).with_priority(), || true);
        assert_eq!(
            out,
            [
                before,
                Notification::new(1, Event::Both).with_read_closed().with_error(),
                Notification::new(2, Event::Read).with_priority(),
                Notification::new(3, Event::Read),
            ]
        );
    }

    #[test]
    fn a_notification_that_is_not_wanted_is_left_out_but_merges_with_one_that_is() {
        let mut out = Vec::new();
        let mut batch = Batch::new(&mut out);
        batch.push(Notification::new(1, Event::Read), || false);
        batch.push(Notification::new(2, Event::Read), || true);
        batch.push(Notification::new(2, Event::Write), || panic!("it has been asked already"));
        assert_eq!(out, [Notification::new(2, Event::Both)]);
    }

    #[test]
    fn two_filters_tell_once_until_the_descriptor_is_registered_again() {
        let mut once = Once::default();
        let both = Event::Both.once();
        once.register(FD, 1, both);
        assert!(once.tells(FD, 1));
        assert!(!once.tells(FD, 1) && !once.tells(FD, 1));
        once.register(FD, 1, both);
        assert!(once.tells(FD, 1));
        // Priority data is a filter of its own.
        once.register(FD, 1, Event::Read.priority().once());
        assert!(once.tells(FD, 1) && !once.tells(FD, 1));
    }

    #[test]
    fn what_is_not_told_once_by_two_filters_is_always_told() {
        let mut once = Once::default();
        for interest in [Event::Both.into(), Event::Both.level(), Event::Read.once()] {
            // The entry of a registration before is overwritten.
            once.register(FD, 1, Event::Both.once());
            assert!(once.tells(FD, 1));
            once.register(FD, 1, interest);
            assert!(once.tells(FD, 1) && once.tells(FD, 1), "{interest:?}");
            assert!(once.tells(FD + 1, 1));
        }
    }

    #[test]
    fn a_socket_closed_without_a_word_leaves_nothing_to_its_successor() {
        let mut once = Once::default();
        once.register(FD, 1, Event::Both.once());
        assert!(once.tells(FD, 1));
        // The number is another socket's now, and a kevent of the old one is still on its way.
        once.register(FD, 2, Event::Both.once());
        assert!(once.tells(FD, 1));
        assert!(once.tells(FD, 2) && !once.tells(FD, 2));
    }

    #[test]
    fn a_full_batch_merges_without_losing_an_id_or_allocating() {
        // Ids that are neighbours, far apart, and all of one remainder.
        for step in [1, 2, 1024, 2048, 1 << 20] {
            let ids: Vec<usize> = (1..=BATCH / 2).map(|i| i * step).collect();
            let mut out = Vec::with_capacity(BATCH);
            let space = out.as_ptr();
            let mut batch = Batch::new(&mut out);
            for &id in &ids {
                batch.push(Notification::new(id, Event::Read), || true);
            }
            for &id in ids.iter().rev() {
                batch.push(Notification::new(id, Event::Write).with_write_closed(), || true);
            }
            let merged: Vec<Notification> = ids
                .iter()
                .map(|&id| Notification::new(id, Event::Both).with_write_closed())
                .collect();
            assert_eq!(out, merged);
            assert_eq!(out.as_ptr(), space);
        }
    }

    #[test]
    fn a_batch_of_as_many_ids_as_fit_keeps_them_all() {
        let mut out = Vec::new();
        let mut batch = Batch::new(&mut out);
        for id in 1..=BATCH {
            batch.push(Notification::new(id, Event::Read), || true);
        }
        assert!(out.iter().map(|n| n.id).eq(1..=BATCH));
    }

    #[test]
    fn udata_brings_back_the_id_and_what_was_asked() {
        let last = usize::MAX >> 2;
        for id in [1, 2, 1 << 29, last] {
            for event in [Event::Read, Event::Write, Event::Both] {
                let udata = udata(id, event).unwrap();
                let kevent =
                    Kevent { ident: FD, filter: Filter::Read, udata, eof: true, error: true };
                let Told::Ready(n) = kevent.told() else { panic!("{id} is a registration") };
                assert_eq!((n.id, n.event), (id, event));
            }
        }
        let error = udata(last + 1, Event::Read).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    }

    #[test]
    fn a_timer_is_never_set_for_too_short_nor_for_longer_than_fits() {
        let table = [
            (Duration::ZERO, 1),
            (Duration::from_nanos(1), 1),
            (Duration::from_micros(500), 1),
            (Duration::from_millis(1), 1),
            (Duration::from_nanos(1_000_001), 2),
            (Duration::from_micros(1_000_500), 1001),
            (Duration::from_secs(2), 2000),
            (Duration::from_millis(i32::MAX as u64), i32::MAX),
            (Duration::from_secs(u64::from(u32::MAX)), i32::MAX),
            (Duration::MAX, i32::MAX),
        ];
        for (after, expected) in table {
            assert_eq!(millis(after), expected, "{after:?}");
        }
    }

    #[test]
    fn the_changes_of_our_own_carry_our_own_udata() {
        let ours = |filter, ident, action| Change { ident, filter, action, udata: OURS };
        let start = Action::Start { millis: 1 };
        assert_eq!(Change::start_timer(1, Duration::ZERO), ours(Filter::Timer, 1, start));
        assert_eq!(Change::stop_timer(1), ours(Filter::Timer, 1, Action::Delete));
        assert_eq!(Change::add_user_event(), ours(Filter::User, 0, EDGE));
        // A trigger sets no mode: with EV_CLEAR, FreeBSD would clear what it triggers.
        assert_eq!(Change::trigger_user_event(), ours(Filter::User, 0, Action::Trigger));
    }

    #[test]
    fn a_timeout_is_kept_to_the_nanosecond_and_capped() {
        assert_eq!(timeout(Duration::from_nanos(300)), Duration::from_nanos(300));
        assert_eq!(timeout(Duration::MAX).as_secs(), 2_147_483);
    }
}
