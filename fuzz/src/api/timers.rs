//! Timers, each with the span of time in which it was set.

use super::{Slot, new_id, unless_gone};
use amy::{Notification, Registrar, Timeout, Timer};
use arbitrary::{Arbitrary, Result, Unstructured};
use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A new timer, in the place of the one that is there.
    Timeout(Slot, Time),
    Interval(Slot, Time),
    Reset(Slot, Time),
    Arm(Slot),
    Cancel(Slot),
    Drop(Slot),
}

/// Each choice takes one byte of the fuzzer's, so that it finds its way.
impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Step> {
        Ok(match u.int_in_range(0..=5_u8)? {
            0 => Step::Timeout(u.arbitrary()?, u.arbitrary()?),
            1 => Step::Interval(u.arbitrary()?, u.arbitrary()?),
            2 => Step::Reset(u.arbitrary()?, u.arbitrary()?),
            3 => Step::Arm(u.arbitrary()?),
            4 => Step::Cancel(u.arbitrary()?),
            _ => Step::Drop(u.arbitrary()?),
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Time {
    Zero,
    Nanos(u16),
    Hour,
    Longest,
    Never,
}

/// Each choice takes one byte of the fuzzer's, so that it finds its way.
impl<'a> Arbitrary<'a> for Time {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Time> {
        Ok(match u.int_in_range(0..=4_u8)? {
            0 => Time::Zero,
            1 => Time::Nanos(u.arbitrary()?),
            2 => Time::Hour,
            3 => Time::Longest,
            _ => Time::Never,
        })
    }
}

impl Time {
    fn duration(self) -> Option<Duration> {
        match self {
            Time::Zero => Some(Duration::ZERO),
            Time::Nanos(nanos) => Some(Duration::from_nanos(nanos.into())),
            Time::Hour => Some(Duration::from_secs(3600)),
            Time::Longest => Some(Duration::MAX),
            Time::Never => None,
        }
    }
}

struct Running {
    timer: Timer,
    repeats: bool,
    time: Option<Duration>,
    /// When it was set: not before the one, not after the other.
    set: [Instant; 2],
    /// How many ticks of an interval were counted.
    ticks: u64,
    /// It is to be told when its time has passed.
    armed: bool,
    /// It was told since somebody asked.
    told: bool,
}

impl Running {
    /// When it is due, if it was set at `set`. `None` for never.
    fn due(&self, set: Instant) -> Option<Instant> {
        let ticks = u32::try_from(self.ticks + 1).ok()?;
        let after = self.time?.checked_mul(ticks)?;
        set.checked_add(after)
    }

    fn arm(&mut self) {
        let start = Instant::now();
        let ticks = self.timer.arm();
        let end = Instant::now();
        if !self.repeats {
            assert_eq!(ticks, u64::from(self.told));
            self.told = false;
            return;
        }
        let passed = |time: Duration| match self.time {
            Some(period) => time.as_nanos() / period.as_nanos(),
            None => 0,
        };
        let least = passed(start.saturating_duration_since(self.set[1]));
        let most = passed(end.saturating_duration_since(self.set[0]));
        let all = u128::from(self.ticks + ticks);
        assert!(least <= all && all <= most, "{all} ticks are not from {least} to {most}");
        self.ticks += ticks;
        self.armed = true;
    }

    fn reset(&mut self, time: Time, gone: bool) {
        let start = Instant::now();
        let result = self.timer.reset(time.duration());
        let end = Instant::now();
        if !gone && self.repeats && time.duration() == Some(Duration::ZERO) {
            return assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        if unless_gone(result, gone).is_some() {
            (self.time, self.set) = (time.duration(), [start, end]);
            (self.ticks, self.armed, self.told) = (0, true, false);
        }
    }
}

#[derive(Default)]
pub(super) struct Timers {
    slots: [Option<Running>; 2],
}

impl Timers {
    pub(super) fn step(&mut self, step: Step, registrar: &Registrar, gone: bool) {
        match step {
            Step::Timeout(slot, time) => self.set(slot, time, false, registrar, gone),
            Step::Interval(slot, time) => self.set(slot, time, true, registrar, gone),
            Step::Reset(slot, time) => {
                if let Some(running) = &mut self.slots[slot.index()] {
                    running.reset(time, gone);
                }
            }
            Step::Arm(slot) => {
                if let Some(running) = &mut self.slots[slot.index()] {
                    running.arm();
                }
            }
            Step::Cancel(slot) => {
                if let Some(running) = self.slots[slot.index()].take() {
                    registrar.cancel_timeout(running.timer).unwrap();
                }
            }
            Step::Drop(slot) => self.slots[slot.index()] = None,
        }
    }

    fn set(&mut self, slot: Slot, time: Time, repeats: bool, registrar: &Registrar, gone: bool) {
        let start = Instant::now();
        let timeout = Timeout::from(time.duration());
        let result = match repeats {
            true => registrar.set_interval(timeout),
            false => registrar.set_timeout(timeout),
        };
        let end = Instant::now();
        if repeats && time.duration() == Some(Duration::ZERO) {
            let kind = result.unwrap_err().kind();
            return assert!(kind == ErrorKind::InvalidInput || gone);
        }
        if let Some(timer) = unless_gone(result, gone) {
            new_id(timer.get_id());
            self.slots[slot.index()] = Some(Running {
                timer,
                repeats,
                time: time.duration(),
                set: [start, end],
                ticks: 0,
                armed: true,
                told: false,
            });
        }
    }

    pub(super) fn must_tell(&self, now: Instant) -> impl Iterator<Item = usize> {
        self.slots.iter().flatten().filter_map(move |running| {
            let due = running.due(running.set[1])?;
            (running.armed && due <= now).then(|| running.timer.get_id())
        })
    }

    /// Whether the notification, which was there at `now`, is of a timer, and then it must be right.
    pub(super) fn told(&mut self, n: Notification, now: Instant) -> bool {
        for running in self.slots.iter_mut().flatten() {
            if running.timer.get_id() != n.id {
                continue;
            }
            assert!(running.armed, "{n:?} was told before");
            let due = running.due(running.set[0]);
            assert!(due.is_some_and(|due| due <= now), "{n:?} was told early");
            running.armed = false;
            running.told = true;
            return true;
        }
        false
    }
}
