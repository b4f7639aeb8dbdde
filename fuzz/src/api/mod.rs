//! Calls in any order on a poller and everything around it, against a model of what may and what
//! must be reported.
//!
//! The model is exact but for the clock: a timer may be told once its time has passed since the
//! beginning of the call that set it, and must be once it has since the end of that call.

use amy::{Notification, Poller, Registrar};
use arbitrary::{Arbitrary, Result, Unstructured};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    cell::Cell,
    io::{self, ErrorKind},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

mod channels;
mod notifiers;
mod sockets;
mod timers;

use channels::Channels;
use notifiers::Notifiers;
use sockets::Sockets;
use timers::Timers;

/// See [`run`].
#[derive(Debug)]
pub struct Input {
    capacity: u8,
    steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Input> {
        Ok(Input { capacity: u.arbitrary()?, steps: crate::scripted::list(u, 64)? })
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Socket(sockets::Step),
    Timer(timers::Step),
    Channel(channels::Step),
    Notifier(notifiers::Step),
    Poller(PollerStep),
}

#[derive(Clone, Copy, Debug)]
enum PollerStep {
    Look(Slot),
    /// Waits so many microseconds.
    Wait(Slot, u8),
    Clone,
    Drop(Slot),
    /// The poller is put into another loop.
    Watch(Slot),
}

/// Each choice takes one byte of the fuzzer's, so that it finds its way.
impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Step> {
        Ok(match u.int_in_range(0..=4_u8)? {
            0 => Step::Socket(u.arbitrary()?),
            1 => Step::Timer(u.arbitrary()?),
            2 => Step::Channel(u.arbitrary()?),
            3 => Step::Notifier(u.arbitrary()?),
            _ => Step::Poller(u.arbitrary()?),
        })
    }
}

/// Each choice takes one byte of the fuzzer's, so that it finds its way.
impl<'a> Arbitrary<'a> for PollerStep {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<PollerStep> {
        Ok(match u.int_in_range(0..=4_u8)? {
            0 => PollerStep::Look(u.arbitrary()?),
            1 => PollerStep::Wait(u.arbitrary()?, u.arbitrary()?),
            2 => PollerStep::Clone,
            3 => PollerStep::Drop(u.arbitrary()?),
            _ => PollerStep::Watch(u.arbitrary()?),
        })
    }
}

/// One of two pollers, timers and so on: so few that steps often meet.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Slot(bool);

impl Slot {
    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Plays the steps, looks until all that must be told was told, and receives what is in the
/// channels, with a look behind each message.
pub fn run(input: Input) {
    let capacity = usize::from(input.capacity);
    let poller = Poller::with_capacity(capacity).unwrap();
    let mut play = Play {
        registrar: poller.get_registrar(),
        pollers: [Some(poller), None],
        capacity: capacity.max(1),
        watch: None,
        sockets: Sockets::default(),
        timers: Timers::default(),
        channels: Channels::default(),
        notifiers: Notifiers::default(),
    };
    for step in input.steps {
        play.step(step);
    }
    play.look_until_all_is_told();
    play.receive_to_the_end();
}

struct Play {
    registrar: Registrar,
    pollers: [Option<Poller>; 2],
    capacity: usize,
    /// A duplicate of the descriptor, since asking for it again would cover up for a mistake.
    watch: Option<OwnedFd>,
    sockets: Sockets,
    timers: Timers,
    channels: Channels,
    notifiers: Notifiers,
}

impl Play {
    fn step(&mut self, step: Step) {
        let gone = self.is_gone();
        match step {
            Step::Socket(step) => self.sockets.step(step, &self.registrar, gone),
            Step::Timer(step) => self.timers.step(step, &self.registrar, gone),
            Step::Channel(step) => self.channels.step(step, &self.registrar, gone),
            Step::Notifier(step) => self.notifiers.step(step, &self.registrar, gone),
            Step::Poller(step) => self.poller_step(step),
        }
    }

    fn poller_step(&mut self, step: PollerStep) {
        match step {
            PollerStep::Look(which) => self.wait(which, Duration::ZERO),
            PollerStep::Wait(which, micros) => {
                self.wait(which, Duration::from_micros(micros.into()));
            }
            PollerStep::Clone => {
                if let [Some(first), second] = &mut self.pollers {
                    *second = Some(first.try_clone().unwrap());
                }
            }
            PollerStep::Drop(which) => {
                self.pollers[which.index()] = None;
                if self.is_gone() {
                    self.watch = None;
                    self.sockets.forget_registrations();
                }
            }
            PollerStep::Watch(which) => {
                if let Some(poller) = &self.pollers[which.index()] {
                    self.watch = Some(poller.as_fd().try_clone_to_owned().unwrap());
                }
            }
        }
    }

    fn is_gone(&self) -> bool {
        self.pollers.iter().all(Option::is_none)
    }

    /// What a look that starts at `now` has to tell.
    fn must_tell(&self, now: Instant) -> Vec<usize> {
        let mut ids = self.must_tell_whatever_the_time();
        ids.extend(self.timers.must_tell(now));
        ids
    }

    fn must_tell_whatever_the_time(&self) -> Vec<usize> {
        let mut ids = Vec::new();
        ids.extend(self.sockets.must_tell());
        ids.extend(self.channels.must_tell());
        ids.extend(self.notifiers.must_tell());
        ids
    }

    fn wait(&mut self, which: Slot, timeout: Duration) {
        self.told(which, timeout);
    }

    /// Waits, holds what is told against the model, and returns the ids.
    fn told(&mut self, which: Slot, timeout: Duration) -> Vec<usize> {
        self.check_watch();
        let start = Instant::now();
        let must = self.must_tell(start);
        let Some(poller) = &mut self.pollers[which.index()] else { return Vec::new() };
        let batch: Vec<Notification> = poller.wait(timeout).unwrap().into_iter().collect();
        let end = Instant::now();

        assert!(batch.len() <= self.capacity, "{} are more than asked for", batch.len());
        if batch.is_empty() {
            assert!(end - start >= timeout, "it came back early with nothing");
            assert!(must.is_empty(), "nothing was told, and {must:?} had to be");
        }
        let mut ids = Vec::new();
        for n in batch {
            assert!(!ids.contains(&n.id), "{n:?} was told twice at a time");
            assert!(!n.is_priority());
            ids.push(n.id);
            let known = self.sockets.told(n)
                || self.timers.told(n, end)
                || self.channels.told(n)
                || self.notifiers.told(n);
            assert!(known, "{n:?} is not of anything that is there");
        }
        ids
    }

    /// Its descriptor is readable when there is something to tell.
    fn check_watch(&self) {
        let Some(watch) = &self.watch else { return };
        let must = self.must_tell_whatever_the_time();
        if must.is_empty() {
            return;
        }
        let mut fds = [PollFd::new(watch, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
        assert_eq!(ready, 1, "the poller's descriptor is silent about {must:?}");
    }

    /// However small the batches, everything gets its turn.
    fn look_until_all_is_told(&mut self) {
        let which = match &self.pollers {
            [Some(_), _] => Slot(false),
            [None, Some(_)] => Slot(true),
            [None, None] => return,
        };
        let mut must = self.must_tell(Instant::now());
        for _ in 0..64 {
            if must.is_empty() {
                return;
            }
            let told = self.told(which, Duration::ZERO);
            must.retain(|id| !told.contains(id));
        }
        panic!("{must:?} were not told in 64 looks");
    }

    fn receive_to_the_end(&mut self) {
        for slot in [Slot(false), Slot(true)] {
            self.channels.drop_senders(slot);
            self.look_until_all_is_told();
            while self.channels.receive_one(slot) {
                self.look_until_all_is_told();
            }
        }
    }
}

thread_local! {
    static LAST_ID: Cell<usize> = const { Cell::new(0) };
}

/// An id that was not there before, in this input or any other.
fn new_id(id: usize) -> usize {
    let last = LAST_ID.replace(id);
    assert!(id > last, "id {id} came after {last}");
    id
}

/// What comes of a call that needs a poller.
fn unless_gone<T>(result: io::Result<T>, gone: bool) -> Option<T> {
    if gone {
        let error = result.err().expect("the poller is gone");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        return None;
    }
    Some(result.unwrap())
}
