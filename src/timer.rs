//! Deadlines, soonest first. Late when the poller is busy; early never.
//!
//! All timers of a poller share the one alarm of its queue. The alarm is set by the thread that
//! sets a timer, and only if the timer is now the soonest and somebody sleeps; a waiter that goes
//! to sleep sets it otherwise. So an ordinary `set` or `cancel` is a heap operation and no more.
//!
//! That nobody sleeps past a deadline rests on the word of the handshake ([`Hub::someone_sleeps`]):
//! a setter stores the deadline and then modifies the word, a sleeper modifies the word and then
//! loads the deadline. Whoever comes second sees what the first did, and sets the alarm.

use crate::{
    id,
    notification::{Event, Notification},
    notifier::Hub,
    sync::{Arc, AtomicU64, Instant, Mutex, MutexGuard, Ordering, lock, seeded},
    timeout::Timeout,
    trace::trace,
};
use std::{fmt, io, time::Duration};

/// Nanoseconds since the poller was made. 584 years fit.
type Nanos = u64;

/// A deadline that never comes.
const NEVER: Nanos = Nanos::MAX;

/// The timers of one poller.
pub(crate) struct Timers {
    pub(crate) hub: Arc<Hub>,
    started: Instant,
    deadlines: Mutex<Deadlines>,
    /// The soonest deadline, for those who need not take the lock to see that it is far.
    next: AtomicU64,
    /// When the alarm goes off. It may be set for a deadline that is gone, never for one too late.
    armed: AtomicU64,
}

impl Timers {
    pub(crate) fn new(hub: Arc<Hub>) -> Timers {
        Timers {
            hub,
            started: Instant::now(),
            deadlines: Mutex::new(Deadlines::new()),
            next: AtomicU64::new(NEVER),
            armed: AtomicU64::new(NEVER),
        }
    }

    /// A timer that is told once.
    pub(crate) fn set_timeout(self: &Arc<Timers>, after: Timeout) -> io::Result<Timer> {
        self.set(after, false)
    }

    /// A timer that is told again and again.
    pub(crate) fn set_interval(self: &Arc<Timers>, period: Timeout) -> io::Result<Timer> {
        self.set(period, true)
    }

    fn set(self: &Arc<Timers>, timeout: Timeout, repeats: bool) -> io::Result<Timer> {
        // The clock starts at the call, before anything that may take time.
        let plan = Plan::new(self.now(), timeout, repeats)?;
        self.hub.open()?;
        let id = id::next()?;
        let mut deadlines = lock(&self.deadlines);
        let before = deadlines.soonest();
        let slot = deadlines.insert(id, repeats, plan)?;
        // Behind another timer it changes nothing for those who sleep or are about to.
        if deadlines.soonest() < before {
            if let Err(error) = self.arrange(&mut deadlines) {
                deadlines.remove(slot);
                self.publish(&deadlines);
                return Err(error);
            }
        }
        drop(deadlines);
        trace!(id, ?timeout, repeats, "timer set");
        Ok(Timer { id, slot, timers: Arc::clone(self) })
    }

    /// Whether a deadline has passed.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        let next = self.next.load(Ordering::Acquire);
        next != NEVER && next <= self.now()
    }

    /// To be called by a waiter that is about to sleep, after it was counted as a sleeper.
    ///
    /// Returns how long it may sleep if the alarm could not be set, and `None` if it could.
    #[inline]
    pub(crate) fn before_sleep(&self) -> Option<Duration> {
        if !self.is_unset() || seeded!("a sleeper sets no alarm") {
            return None;
        }
        self.set_for_sleep()
    }

    fn set_for_sleep(&self) -> Option<Duration> {
        let mut deadlines = lock(&self.deadlines);
        self.arrange(&mut deadlines).err()?;
        Some(Duration::from_nanos(deadlines.soonest().saturating_sub(self.now())))
    }

    /// To be called when a `wait` is over. If another loop watches the queue the alarm must be set:
    /// the loop does not know the deadline, and comes back only when the queue says so.
    #[inline]
    pub(crate) fn after_wait(&self) {
        let sets = !seeded!("a watched poller leaves its alarm unset");
        if self.is_unset() && sets && self.hub.is_watched() {
            self.rearrange();
        }
    }

    /// Whether the soonest deadline is sooner than the alarm.
    #[inline]
    fn is_unset(&self) -> bool {
        self.next.load(Ordering::Acquire) < self.armed.load(Ordering::Acquire)
    }

    /// Appends at most `room` notifications of timers whose deadline has passed, soonest first.
    /// `alarm` says that the alarm went off.
    #[inline]
    pub(crate) fn fire(&self, alarm: bool, room: usize, out: &mut Vec<Notification>) {
        if alarm || (room > 0 && self.is_due()) {
            self.fire_due(alarm, room, out);
        }
    }

    fn fire_due(&self, alarm: bool, room: usize, out: &mut Vec<Notification>) {
        let mut deadlines = lock(&self.deadlines);
        if alarm && !seeded!("an alarm that went off counts as set") {
            self.armed.store(NEVER, Ordering::Release);
        }
        let now = self.now();
        for _ in 0..room {
            let Some(id) = deadlines.pop(now) else { break };
            out.push(Notification::new(id, Event::Read));
        }
        // Another waiter may be asleep, which would then have no alarm.
        if !seeded!("firing sets no alarm") {
            self.keep_alarm(&mut deadlines);
        }
    }

    /// Sees to the alarm when somebody may have begun to rely on it.
    pub(crate) fn rearrange(&self) {
        self.keep_alarm(&mut lock(&self.deadlines));
    }

    /// Arranges the alarm for those who cannot say that it was refused: then somebody has to come
    /// and look, and takes the deadline as his own timeout or tries again.
    fn keep_alarm(&self, deadlines: &mut MutexGuard<'_, Deadlines>) {
        if self.arrange(deadlines).is_err() {
            let _ = self.hub.queue.wake();
        }
    }

    /// Publishes the soonest deadline, and sets the alarm to it if somebody relies on the alarm.
    fn arrange(&self, deadlines: &mut MutexGuard<'_, Deadlines>) -> io::Result<()> {
        let soonest = self.publish(deadlines);
        if soonest >= self.armed.load(Ordering::Relaxed) || !self.hub.someone_sleeps() {
            return Ok(());
        }
        let after = Duration::from_nanos(soonest.saturating_sub(self.now()));
        self.hub.queue.set_alarm(after)?;
        self.armed.store(soonest, Ordering::Release);
        Ok(())
    }

    fn publish(&self, deadlines: &MutexGuard<'_, Deadlines>) -> Nanos {
        let soonest = deadlines.soonest();
        self.next.store(soonest, Ordering::Release);
        soonest
    }

    fn now(&self) -> Nanos {
        nanos(self.started.elapsed())
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deadlines = lock(&self.deadlines);
        let soonest = match deadlines.soonest() {
            NEVER => None,
            at => Some(Duration::from_nanos(at.saturating_sub(self.now()))),
        };
        f.debug_struct("Timers")
            .field("running", &deadlines.heap.len())
            .field("soonest_in", &soonest)
            .finish()
    }
}

/// A running timer, made by [`Registrar::set_timeout`](crate::Registrar::set_timeout) or
/// [`set_interval`](crate::Registrar::set_interval). Dropping it cancels it.
///
/// It can be used from any thread. None of its calls wakes the poller, and none creates a
/// descriptor.
///
/// # Examples
///
/// ```
/// use amy::Poller;
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let mut poller = Poller::new()?;
/// let registrar = poller.get_registrar();
/// let tick = registrar.set_interval(Duration::from_millis(2))?;
///
/// let mut ticks = 0;
/// while ticks < 3 {
///     let notifications = poller.wait(5000)?;
///     assert_eq!(notifications[0].id, tick.get_id());
///     ticks += tick.arm(); // more than one if this thread was kept from running
/// }
/// # Ok(())
/// # }
/// ```
pub struct Timer {
    id: usize,
    slot: u32,
    timers: Arc<Timers>,
}

impl Timer {
    /// The id that `wait` reports.
    #[must_use]
    pub fn get_id(&self) -> usize {
        self.id
    }

    /// Has the next tick of an interval told, and returns how many ticks have passed since the
    /// last call (or since the interval was set).
    ///
    /// An interval is told once and then stays silent until this call, however many ticks pass:
    /// a stall gives one notification and a count. The call does not move the ticks: they stay at
    /// whole multiples of the period after the interval was set.
    ///
    /// Of a one-shot timer it tells whether it was told since the last call, as 1 or 0, and does
    /// not start it again; [`reset`](Timer::reset) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{thread, time::Duration};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut poller = amy::Poller::new()?;
    /// let tick = poller.get_registrar().set_interval(1)?;
    ///
    /// thread::sleep(Duration::from_millis(5)); // kept from running
    /// assert_eq!(poller.wait(5000)?.len(), 1); // one notification,
    /// assert!(tick.arm() >= 5); // and a count
    /// # Ok(())
    /// # }
    /// ```
    pub fn arm(&self) -> u64 {
        let mut deadlines = lock(&self.timers.deadlines);
        let ticks = deadlines.arm(self.slot, self.timers.now());
        self.timers.keep_alarm(&mut deadlines);
        ticks
    }

    /// Starts the timer again, from now, with another time; an interval with another period.
    ///
    /// What was not told yet is forgotten. The id stays.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an interval of zero; `BrokenPipe` if every poller is gone; else what the
    /// kernel said when its timer was set. In each case the timer goes on as before.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let mut poller = amy::Poller::new()?;
    /// let idle = poller.get_registrar().set_timeout(3_600_000)?;
    ///
    /// idle.reset(1)?; // sooner
    /// assert_eq!(poller.wait(5000)?[0].id, idle.get_id());
    ///
    /// idle.reset(None)?; // not until it is reset again
    /// assert!(poller.wait(5)?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn reset(&self, timeout: impl Into<Timeout>) -> io::Result<()> {
        let now = self.timers.now();
        self.timers.hub.open()?;
        let mut deadlines = lock(&self.timers.deadlines);
        let plan = Plan::new(now, timeout.into(), deadlines.repeats(self.slot))?;
        let before = deadlines.replace(self.slot, plan);
        let set = self.timers.arrange(&mut deadlines);
        if set.is_err() {
            deadlines.restore(self.slot, before);
            self.timers.publish(&deadlines);
        }
        set
    }
}

/// Cancels the timer: no `wait` that starts later reports its id.
impl Drop for Timer {
    fn drop(&mut self) {
        let mut deadlines = lock(&self.timers.deadlines);
        if !seeded!("a cancelled timer stays") {
            deadlines.remove(self.slot);
        }
        // The alarm may go off for nobody, which `wait` keeps to itself.
        self.timers.publish(&deadlines);
        drop(deadlines);
        trace!(id = self.id, "timer cancelled");
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deadlines = lock(&self.timers.deadlines);
        let due_in = deadlines
            .deadline(self.slot)
            .map(|at| Duration::from_nanos(at.saturating_sub(self.timers.now())));
        f.debug_struct("Timer").field("id", &self.id).field("due_in", &due_in).finish()
    }
}

/// When a timer is to be told first, and how often after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    start: Nanos,
    time: Nanos,
}

impl Plan {
    fn new(start: Nanos, timeout: Timeout, repeats: bool) -> io::Result<Plan> {
        let time = timeout.duration().map_or(NEVER, nanos);
        if repeats && time == 0 {
            let message = "an interval of zero would never stop ticking";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Plan { start, time })
    }
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

/// Where a slot's deadline is not in the heap.
const NOWHERE: u32 = u32::MAX;

/// A heap of deadlines, each of which knows its slot, and a slot for each timer, which knows its
/// place in the heap. It never reads a clock.
struct Deadlines {
    heap: Vec<Deadline>,
    slots: Vec<Slot>,
    /// The first free slot; the others follow by `place`.
    free: u32,
    /// Counts the deadlines set, so that equal ones are told in the order in which they were set.
    order: u32,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Nanos,
    order: u32,
    slot: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    id: usize,
    /// An interval's period; 0 for a timer that is told once.
    period: Nanos,
    /// An interval's last tick that was counted; for another timer, 1 if it was told.
    last: Nanos,
    /// Where the deadline is in the heap, or `NOWHERE`.
    place: u32,
}

/// How many children a place in the heap has. Four are side by side in memory, and halve the
/// height.
const CHILDREN: usize = 4;

impl Deadlines {
    const fn new() -> Deadlines {
        Deadlines { heap: Vec::new(), slots: Vec::new(), free: NOWHERE, order: 0 }
    }

    fn soonest(&self) -> Nanos {
        self.heap.first().map_or(NEVER, |deadline| deadline.at)
    }

    fn deadline(&self, slot: u32) -> Option<Nanos> {
        let place = self.slots[slot as usize].place;
        (place != NOWHERE).then(|| self.heap[place as usize].at)
    }

    fn repeats(&self, slot: u32) -> bool {
        self.slots[slot as usize].period != 0
    }

    fn insert(&mut self, id: usize, repeats: bool, plan: Plan) -> io::Result<u32> {
        let period = if repeats { plan.time } else { 0 };
        let new = Slot { id, period, last: 0, place: NOWHERE };
        let slot = if self.free == NOWHERE {
            let slot = u32::try_from(self.slots.len()).ok().filter(|&slot| slot != NOWHERE);
            let slot = slot.ok_or_else(|| {
                io::Error::new(io::ErrorKind::QuotaExceeded, "too many timers on one poller")
            })?;
            self.slots.push(new);
            slot
        } else {
            let slot = self.free;
            self.free = std::mem::replace(&mut self.slots[slot as usize], new).place;
            slot
        };
        self.start(slot, plan);
        Ok(slot)
    }

    fn remove(&mut self, slot: u32) {
        self.stop(slot);
        self.slots[slot as usize].place = self.free;
        self.free = slot;
    }

    /// Starts a timer anew, and returns what it was before.
    fn replace(&mut self, slot: u32, plan: Plan) -> (Slot, Option<Nanos>) {
        let before = (self.slots[slot as usize], self.deadline(slot));
        self.stop(slot);
        if self.repeats(slot) {
            self.slots[slot as usize].period = plan.time;
        }
        self.start(slot, plan);
        before
    }

    fn restore(&mut self, slot: u32, (before, deadline): (Slot, Option<Nanos>)) {
        self.stop(slot);
        self.slots[slot as usize] = Slot { place: NOWHERE, ..before };
        if let Some(at) = deadline {
            self.push(slot, at);
        }
    }

    /// How many ticks have passed at `now` since this was last asked; an interval runs again.
    fn arm(&mut self, slot: u32, now: Nanos) -> u64 {
        let timer = &mut self.slots[slot as usize];
        if timer.period == 0 {
            return std::mem::take(&mut timer.last);
        }
        let ticks = now.saturating_sub(timer.last) / timer.period;
        timer.last += ticks * timer.period;
        let next = timer.last.saturating_add(timer.period);
        if ticks > 0 || timer.place == NOWHERE {
            self.stop(slot);
            self.push(slot, next);
        }
        ticks
    }

    /// Takes the soonest timer that is due at `now`, and returns its id.
    fn pop(&mut self, now: Nanos) -> Option<usize> {
        let soonest = self.heap.first().filter(|deadline| deadline.at <= now)?;
        let slot = soonest.slot;
        self.stop(slot);
        let timer = &mut self.slots[slot as usize];
        if timer.period == 0 {
            timer.last = 1;
        }
        Some(timer.id)
    }

    fn start(&mut self, slot: u32, plan: Plan) {
        let timer = &mut self.slots[slot as usize];
        timer.last = if timer.period == 0 { 0 } else { plan.start };
        self.push(slot, plan.start.saturating_add(plan.time));
    }

    /// Puts the deadline of `slot`, which has none in the heap, into it, unless it never comes.
    fn push(&mut self, slot: u32, at: Nanos) {
        if at == NEVER {
            return;
        }
        self.order = self.order.wrapping_add(1);
        self.heap.push(Deadline { at, order: self.order, slot });
        self.rise(self.heap.len() - 1);
    }

    /// Takes the deadline of `slot` out of the heap, if it is there.
    fn stop(&mut self, slot: u32) {
        let place = std::mem::replace(&mut self.slots[slot as usize].place, NOWHERE);
        if place == NOWHERE {
            return;
        }
        let place = place as usize;
        debug_assert_eq!(self.heap[place].slot, slot, "a slot knows its place");
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            // What came from the end may belong above or below.
            let place = self.rise(place);
            self.sink(place);
        }
    }

    /// Moves the deadline at `place` up to where it belongs, and returns where that is.
    fn rise(&mut self, mut place: usize) -> usize {
        let deadline = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / CHILDREN;
            if !deadline.is_before(&self.heap[parent]) {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, deadline);
        place
    }

    /// Moves the deadline at `place` down to where it belongs.
    fn sink(&mut self, mut place: usize) {
        let deadline = self.heap[place];
        loop {
            let first = place * CHILDREN + 1;
            let children = first..self.heap.len().min(first + CHILDREN);
            let soonest =
                children.reduce(|a, b| if self.heap[b].is_before(&self.heap[a]) { b } else { a });
            let Some(child) = soonest.filter(|&c| self.heap[c].is_before(&deadline)) else { break };
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, deadline);
    }

    fn put(&mut self, place: usize, deadline: Deadline) {
        self.heap[place] = deadline;
        // There are no more places than slots, whose numbers fit.
        #[allow(clippy::cast_possible_truncation)]
        {
            self.slots[deadline.slot as usize].place = place as u32;
        }
    }
}

impl Deadline {
    fn is_before(&self, other: &Deadline) -> bool {
        // Equal deadlines are never two thousand million settings apart.
        let earlier = self.order.wrapping_sub(other.order) > u32::MAX / 2;
        self.at < other.at || (self.at == other.at && earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same as [`Deadlines`], so plain that it needs no test: every timer in a row, and the
    /// soonest by looking at all of them.
    #[derive(Default)]
    struct Row {
        timers: Vec<Plain>,
        order: u64,
    }

    struct Plain {
        slot: u32,
        id: usize,
        repeats: bool,
        start: Nanos,
        time: Nanos,
        counted: u64,
        told: bool,
        /// When it is to be told, and the how-manieth setting that was.
        due: Option<(Nanos, u64)>,
    }

    impl Row {
        fn start(&mut self, of: usize, start: Nanos, time: Nanos) {
            let timer = &mut self.timers[of];
            (timer.start, timer.time, timer.counted, timer.told) = (start, time, 0, false);
            self.set(of, start.saturating_add(time));
        }

        fn set(&mut self, of: usize, at: Nanos) {
            self.order += 1;
            self.timers[of].due = (at != NEVER).then_some((at, self.order));
        }

        fn arm(&mut self, of: usize, now: Nanos) -> u64 {
            let timer = &mut self.timers[of];
            if !timer.repeats {
                return u64::from(std::mem::take(&mut timer.told));
            }
            let ticks = (now - timer.start) / timer.time;
            let new = ticks - timer.counted;
            timer.counted = ticks;
            let next = timer.start.saturating_add((ticks + 1).saturating_mul(timer.time));
            if new > 0 {
                self.set(of, next);
            }
            new
        }

        fn soonest(&self) -> Option<usize> {
            let due = self.timers.iter().enumerate().filter_map(|(i, t)| Some((t.due?, i)));
            due.min().map(|(_, i)| i)
        }

        fn pop(&mut self, now: Nanos) -> Option<usize> {
            let soonest = self.soonest()?;
            let timer = &mut self.timers[soonest];
            timer.due.filter(|&(at, _)| at <= now)?;
            timer.due = None;
            timer.told = true;
            Some(timer.id)
        }
    }

    fn assert_whole(deadlines: &Deadlines) {
        for (place, deadline) in deadlines.heap.iter().enumerate() {
            assert_eq!(deadlines.slots[deadline.slot as usize].place as usize, place);
            let parent = &deadlines.heap[place.saturating_sub(1) / CHILDREN];
            assert!(place == 0 || !deadline.is_before(parent), "a child before its parent");
        }
    }

    /// Does the same to both for `steps` random steps, with times that are often equal.
    fn compare(seed: u64, steps: usize, timers: usize, deadlines: &mut Deadlines) {
        let mut state = seed;
        let mut below = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        let time_in = |below: &mut dyn FnMut(u64) -> u64| match below(20) {
            0 => NEVER,
            1 => NEVER - below(50),
            _ => 1 + below(30),
        };
        let mut row = Row::default();
        let mut now = 0;
        for id in 1..=steps {
            now += below(4);
            let of = usize::try_from(below(row.timers.len().max(1) as u64)).unwrap();
            match below(6) {
                _ if row.timers.is_empty() => {}
                0 if row.timers.len() > timers / 2 => {
                    let timer = row.timers.swap_remove(of);
                    deadlines.remove(timer.slot);
                }
                1 => {
                    let time = time_in(&mut below);
                    deadlines.replace(row.timers[of].slot, Plan { start: now, time });
                    row.start(of, now, time);
                }
                2 | 3 => {
                    let ticks = deadlines.arm(row.timers[of].slot, now);
                    assert_eq!(ticks, row.arm(of, now));
                }
                _ => assert_eq!(deadlines.pop(now), row.pop(now)),
            }
            if row.timers.len() < timers {
                let (repeats, time) = (below(2) == 0, time_in(&mut below));
                let slot = deadlines.insert(id, repeats, Plan { start: now, time }).unwrap();
                assert!(row.timers.iter().all(|t| t.slot != slot), "a slot has one owner");
                row.timers.push(Plain {
                    slot,
                    id,
                    repeats,
                    start: now,
                    time,
                    counted: 0,
                    told: false,
                    due: None,
                });
                row.start(row.timers.len() - 1, now, time);
            }
            assert_whole(deadlines);
            let soonest = row.soonest().map_or(NEVER, |i| row.timers[i].due.unwrap().0);
            assert_eq!(deadlines.soonest(), soonest);
            for timer in &row.timers {
                assert_eq!(deadlines.deadline(timer.slot), timer.due.map(|(at, _)| at));
                assert_eq!(deadlines.repeats(timer.slot), timer.repeats);
            }
        }
        assert!(deadlines.slots.len() <= timers, "slots are used again");
    }

    #[test]
    fn deadlines_do_what_a_plain_row_of_timers_does() {
        for seed in 0..60 {
            let timers = [1, 2, 5, 17, 80][usize::try_from(seed % 5).unwrap()];
            compare(seed, 600, timers, &mut Deadlines::new());
        }
    }

    #[test]
    fn equal_deadlines_are_told_in_the_order_set_also_where_the_count_starts_again() {
        for first in [0, u32::MAX - 50, u32::MAX / 2 - 50] {
            let mut deadlines = Deadlines { order: first, ..Deadlines::new() };
            for id in 1..=100 {
                deadlines.insert(id, false, Plan { start: 0, time: 7 }).unwrap();
            }
            assert_eq!(deadlines.pop(6), None);
            assert!((1..=100).all(|id| deadlines.pop(7) == Some(id)), "from {first} on");
            assert_eq!(deadlines.pop(7), None);
        }
    }

    #[test]
    fn a_replacement_that_is_taken_back_leaves_all_as_it_was() {
        for (repeats, told) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut deadlines = Deadlines::new();
            deadlines.insert(1, false, Plan { start: 0, time: 50 }).unwrap();
            let slot = deadlines.insert(2, repeats, Plan { start: 0, time: 10 }).unwrap();
            if told {
                assert_eq!(deadlines.pop(10), Some(2));
            }
            let before = deadlines.replace(slot, Plan { start: 10, time: 3 });
            assert_eq!(deadlines.deadline(slot), Some(13));
            deadlines.restore(slot, before);

            assert_whole(&deadlines);
            assert_eq!(deadlines.deadline(slot), (!told).then_some(10));
            let ticks = if repeats { 2 } else { u64::from(told) };
            assert_eq!(deadlines.arm(slot, 20), ticks);
            assert_eq!(
                deadlines.deadline(slot),
                if repeats {
                    Some(30)
                } else if told {
                    None
                } else {
                    Some(10)
                }
            );
        }
    }

    #[test]
    fn a_time_too_long_to_be_counted_never_comes() {
        for time in [Duration::MAX, Duration::from_nanos(u64::MAX)] {
            let plan = Plan::new(5, time.into(), true).unwrap();
            let mut deadlines = Deadlines::new();
            let slot = deadlines.insert(1, true, plan).unwrap();
            assert_eq!(deadlines.deadline(slot), None);
            assert_eq!(deadlines.arm(slot, NEVER - 1), 0);
            assert_eq!(deadlines.pop(NEVER - 1), None);
        }
        assert_eq!(nanos(Duration::from_nanos(u64::MAX - 1)), NEVER - 1);
    }
}
