//! Promise 2, nesting: a poller can wait inside another loop; its descriptor is readable whenever
//! `wait(0)` would return something.

use crate::common::{LONG, in_time, look, new_poller, next, sorted, unix_pair};
use amy::{Event, Poller, Registrar};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::{
    any::Any,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

/// A poller as another loop sees it, which asks for the descriptor once and keeps it.
struct Outside(OwnedFd);

impl Outside {
    fn of(poller: &Poller) -> Outside {
        Outside(poller.as_fd().try_clone_to_owned().unwrap())
    }

    /// Whether it becomes readable, within any time.
    fn becomes_readable(&self) -> bool {
        self.is_readable_in(LONG)
    }

    fn is_readable(&self) -> bool {
        self.is_readable_in(Duration::ZERO)
    }

    fn is_readable_in(&self, timeout: Duration) -> bool {
        let timeout = Timespec::try_from(timeout).unwrap();
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)).unwrap() == 1
    }
}

/// Something that becomes ready by itself: its id, and what keeps it alive.
type Source = (usize, Box<dyn Any>);

type Make = fn(&Registrar) -> Source;

/// How to make a source of each kind.
const SOURCES: [(&str, Make); 8] = [
    ("socket", |registrar| {
        let (socket, mut peer) = unix_pair();
        let id = registrar.register(&socket, Event::Read).unwrap();
        peer.write_all(b"x").unwrap();
        (id, Box::new((socket, peer)))
    }),
    ("notifier", |registrar| {
        let notifier = registrar.notifier().unwrap();
        notifier.notify().unwrap();
        (notifier.get_id(), Box::new(notifier))
    }),
    ("channel", |registrar| {
        let (tx, rx) = registrar.channel().unwrap();
        tx.send(1).unwrap();
        (rx.get_id(), Box::new((tx, rx)))
    }),
    ("channel without senders", |registrar| {
        let (_, rx) = registrar.channel::<()>().unwrap();
        (rx.get_id(), Box::new(rx))
    }),
    ("timer that is due", |registrar| {
        let timer = registrar.set_timeout(0).unwrap();
        (timer.get_id(), Box::new(timer))
    }),
    ("timer", |registrar| {
        let timer = registrar.set_timeout(3).unwrap();
        (timer.get_id(), Box::new(timer))
    }),
    ("timer that was reset", |registrar| {
        let timer = registrar.set_timeout(Duration::from_secs(3600)).unwrap();
        timer.reset(3).unwrap();
        (timer.get_id(), Box::new(timer))
    }),
    ("interval", |registrar| {
        let interval = registrar.set_interval(3).unwrap();
        (interval.get_id(), Box::new(interval))
    }),
];

#[test]
fn a_poller_is_readable_for_what_comes_after_its_descriptor_was_asked_for() {
    for (kind, make) in SOURCES {
        let (mut poller, registrar) = new_poller();
        let outside = Outside::of(&poller);
        assert!(!outside.is_readable(), "{kind}");
        for _ in 0..3 {
            let (id, source) = make(&registrar);
            assert!(outside.becomes_readable(), "{kind}");
            assert_eq!(look(&mut poller), [id], "{kind}");
            drop(source);
            assert!(look(&mut poller).is_empty(), "{kind}");
            assert!(!outside.is_readable(), "{kind} is over");
        }
    }
}

#[test]
fn a_poller_is_readable_for_what_came_before_its_descriptor_was_asked_for() {
    for (kind, make) in SOURCES {
        let (mut poller, registrar) = new_poller();
        let (id, _source) = make(&registrar);
        let outside = Outside::of(&poller);
        assert!(outside.becomes_readable(), "{kind}");
        assert_eq!(look(&mut poller), [id], "{kind}");
    }
}

#[test]
fn a_poller_that_was_made_readable_by_another_thread_wakes_the_outer_loop() {
    for (kind, make) in SOURCES {
        let (inner, registrar) = new_poller();
        let (mut outer, to_outer) = new_poller();
        let id = to_outer.register(&inner, Event::Read).unwrap();
        assert!(look(&mut outer).is_empty());
        let sleeper = crate::common::Sleeper::start(outer, LONG);
        let _source = make(&registrar);
        assert_eq!(sleeper.ids(), [id], "{kind}");
    }
}

#[test]
fn each_time_that_a_poller_becomes_ready_is_an_edge_for_the_outer_one() {
    for (kind, make) in SOURCES {
        let (mut inner, registrar) = new_poller();
        let (mut outer, to_outer) = new_poller();
        let inner_id = to_outer.register(&inner, Event::Read).unwrap();
        for _ in 0..10 {
            let (id, source) = make(&registrar);
            assert_eq!(next(&mut outer).id, inner_id, "{kind}");
            assert_eq!(look(&mut inner), [id], "{kind}");
            drop(source);
            assert!(look(&mut inner).is_empty(), "{kind}");
        }
    }
}

#[test]
fn a_poller_stays_readable_until_all_was_told() {
    for capacity in [1, 2, 3] {
        let mut poller = Poller::with_capacity(capacity).unwrap();
        let registrar = poller.get_registrar();
        let outside = Outside::of(&poller);
        for _ in 0..20 {
            let mut sources: Vec<_> =
                SOURCES.iter().flat_map(|(_, make)| [make(&registrar), make(&registrar)]).collect();
            let mut ids: Vec<_> = sources.iter().map(|(id, _)| *id).collect();
            while !ids.is_empty() {
                assert!(outside.becomes_readable(), "{} to be told", ids.len());
                for id in look(&mut poller) {
                    assert!(ids.contains(&id), "{id} was told twice");
                    ids.retain(|&other| other != id);
                    // A channel would be told until it is empty.
                    sources.retain(|&(other, _)| other != id);
                }
            }
            assert!(look(&mut poller).is_empty());
            assert!(!outside.is_readable());
        }
    }
}

#[test]
fn an_outer_loop_that_looks_until_there_is_nothing_misses_nothing() {
    for capacity in [1, 2] {
        let mut inner = Poller::with_capacity(capacity).unwrap();
        let registrar = inner.get_registrar();
        let (mut outer, to_outer) = new_poller();
        let inner_id = to_outer.register(&inner, Event::Read).unwrap();
        let notifier = registrar.notifier().unwrap();
        let (socket, _peer) = unix_pair();
        let id = registrar.register(&socket, Event::Read).unwrap();
        for _ in 0..20 {
            notifier.notify().unwrap();
            registrar.reregister(id, &socket, Event::Write).unwrap();
            assert_eq!(next(&mut outer).id, inner_id);
            let mut told = Vec::new();
            loop {
                let more = look(&mut inner);
                if more.is_empty() {
                    break;
                }
                told.extend(more);
            }
            assert_eq!(sorted(told), [notifier.get_id(), id]);
        }
    }
}

#[test]
fn a_channel_that_is_drained_in_part_keeps_its_poller_readable() {
    let (mut poller, registrar) = new_poller();
    let (tx, rx) = registrar.channel().unwrap();
    let outside = Outside::of(&poller);
    assert!(!outside.is_readable());
    (0..3).for_each(|n| tx.send(n).unwrap());
    for n in 0..3 {
        assert!(outside.becomes_readable());
        assert_eq!(look(&mut poller), [rx.get_id()]);
        assert!(outside.becomes_readable(), "{n} is still to be received");
        assert_eq!(rx.try_recv(), Ok(n));
    }
    assert!(look(&mut poller).is_empty());
    assert!(!outside.is_readable());
}

#[test]
fn an_interval_keeps_the_outer_loop_informed_for_as_long_as_it_is_armed() {
    let (mut inner, registrar) = new_poller();
    let (mut outer, to_outer) = new_poller();
    let inner_id = to_outer.register(&inner, Event::Read).unwrap();
    let interval = registrar.set_interval(2).unwrap();
    let mut ticks = 0;
    while ticks < 5 {
        assert_eq!(next(&mut outer).id, inner_id);
        for id in look(&mut inner) {
            assert_eq!(id, interval.get_id());
            ticks += interval.arm();
        }
    }
}

#[test]
fn pollers_can_be_nested_in_nested_pollers() {
    let (mut inner, registrar) = new_poller();
    let (mut middle, to_middle) = new_poller();
    let (mut outer, to_outer) = new_poller();
    let inner_id = to_middle.register(&inner, Event::Read).unwrap();
    let middle_id = to_outer.register(&middle, Event::Read).unwrap();
    let notifier = registrar.notifier().unwrap();
    let outside = Outside::of(&outer);
    for _ in 0..10 {
        notifier.notify().unwrap();
        assert!(outside.becomes_readable());
        assert_eq!(next(&mut outer).id, middle_id);
        assert_eq!(next(&mut middle).id, inner_id);
        assert_eq!(next(&mut inner).id, notifier.get_id());
        assert!(look(&mut inner).is_empty());
        assert!(look(&mut middle).is_empty());
    }
}

#[test]
fn an_inner_poller_that_is_gone_is_forgotten() {
    let (inner, registrar) = new_poller();
    let (mut outer, to_outer) = new_poller();
    to_outer.register(&inner, Event::Read.level()).unwrap();
    let notifier = registrar.notifier().unwrap();
    notifier.notify().unwrap();
    assert_eq!(look(&mut outer).len(), 1);
    to_outer.deregister(&inner).unwrap();
    assert!(look(&mut outer).is_empty());
    to_outer.register(&inner, Event::Read.level()).unwrap();
    drop((inner, registrar, notifier));
    assert!(look(&mut outer).is_empty());
}

#[test]
fn a_poller_that_would_wait_for_itself_is_refused() {
    in_time(|| {
        let (mut first, to_first) = new_poller();
        let (mut second, to_second) = new_poller();
        let error = to_first.register(&first, Event::Read).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::INVAL));

        to_first.register(&second, Event::Read).unwrap();
        let error = to_second.register(&first, Event::Read).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::LOOP));

        assert!(look(&mut first).is_empty());
        assert!(look(&mut second).is_empty());
        let timer = to_first.set_timeout(0).unwrap();
        assert_eq!(next(&mut first).id, timer.get_id());
    });
}

#[test]
fn a_nest_that_is_too_deep_is_refused_and_those_in_it_go_on() {
    in_time(|| {
        let mut pollers = vec![new_poller()];
        let error = loop {
            let (outer, to_outer) = new_poller();
            match to_outer.register(&pollers.last().unwrap().0, Event::Read) {
                Ok(_) => pollers.push((outer, to_outer)),
                Err(error) => break error,
            }
            assert!(pollers.len() < 100);
        };
        assert_eq!(Errno::from_io_error(&error), Some(Errno::LOOP));
        assert!(pollers.len() > 2);

        let notifier = pollers[0].1.notifier().unwrap();
        notifier.notify().unwrap();
        for (poller, _) in pollers.iter_mut().rev() {
            next(poller);
        }
    });
}
