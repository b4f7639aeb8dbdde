//! epoll, with an eventfd (or a pipe) to wake it and a timerfd for its alarm.

use super::{Inner, wake::Wake};
use crate::notification::{Event, Interest, Notification};
use rustix::{
    event::{
        PollFd, PollFlags, Timespec,
        epoll::{self, EventData, EventFlags},
        poll,
    },
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create,
        timerfd_settime,
    },
};
use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// How many events one `epoll_pwait` may return: what fits a buffer on the stack, because rustix's
/// event is not `Send` and a buffer of them would tie the poller to a thread.
const BATCH: usize = 1024;

/// The longest that `epoll_pwait` can be asked to wait: `i32::MAX` milliseconds, 24 days.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// The longest alarm; an alarm that comes early by decades is set anew.
const LONGEST_ALARM: Duration = Duration::from_secs(i32::MAX as u64);

/// What the kernel carries for the two descriptors of our own. No id reaches these.
const WAKE: u64 = u64::MAX;
const ALARM: u64 = u64::MAX - 1;

#[derive(Debug)]
pub(crate) struct Queue {
    epoll: OwnedFd,
    wake: Wake,
    alarm: OwnedFd,
}

impl Queue {
    pub(crate) fn new() -> io::Result<Queue> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = Wake::new()?;
        let alarm = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), edge)?;
        epoll::add(&epoll, &alarm, EventData::new_u64(ALARM), edge)?;
        Ok(Queue { epoll, wake, alarm })
    }

    #[inline]
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, id: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, data(id, interest), flags(interest))?)
    }

    /// EPOLL_CTL_MOD looks at the descriptor anew and reports what is ready, also where nothing
    /// changes (epoll_ctl(2), and ep_modify in fs/eventpoll.c).
    pub(crate) fn modify(
        &self,
        fd: BorrowedFd<'_>,
        id: usize,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, data(id, interest), flags(interest))?)
    }

    #[inline]
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits whole milliseconds in `epoll_pwait`, and a last fraction of one in `ppoll`, which
    /// every kernel has with nanoseconds. `epoll_pwait2` has them too, but not before Linux 5.11,
    /// nor under gVisor or an older seccomp filter.
    #[inline(always)]
    pub(crate) fn wait(
        &self,
        room: usize,
        timeout: Option<Duration>,
        out: &mut Vec<Notification>,
    ) -> io::Result<Inner> {
        let millis = match timeout {
            None => None,
            Some(timeout) => {
                if timeout < Duration::from_millis(1) && !timeout.is_zero() {
                    self.poll(timeout)?;
                }
                let timeout = timeout.min(LONGEST);
                Some(Timespec {
                    tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: (timeout.subsec_millis() * 1_000_000).into(),
                })
            }
        };

        let mut buffer = [const { MaybeUninit::uninit() }; BATCH];
        let buffer = &mut buffer[..room.min(BATCH)];
        let (events, _) = epoll::wait(&self.epoll, buffer, millis.as_ref())?;

        let mut own = false;
        out.extend(events.iter().map(|event| {
            // Copied out, since the event is packed on x86-64.
            let (flags, data) = (event.flags, event.data.u64());
            own |= data >= ALARM;
            notification(data, flags)
        }));
        Ok(if own { take_own(events, out) } else { Inner::default() })
    }

    pub(crate) fn wake(&self) -> io::Result<()> {
        Ok(self.wake.wake()?)
    }

    pub(crate) fn set_alarm(&self, after: Duration) -> io::Result<()> {
        // A zero would disarm it (timerfd_settime(2)).
        let after = after.clamp(Duration::from_nanos(1), LONGEST_ALARM);
        let spec = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: timespec(after),
        };
        // Setting it takes back expirations that nobody has read, so that an edge follows the
        // next one without a read in between (timerfd_settime in fs/timerfd.c).
        timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    #[cold]
    fn poll(&self, timeout: Duration) -> io::Result<()> {
        poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&timespec(timeout)))?;
        Ok(())
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// `duration`, which has been clamped to what fits.
fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// The id, and below it what was asked: the kernel reports a hang-up or an error whatever was
/// asked, and only this tells how to pass it on.
fn data(id: usize, interest: Interest) -> EventData {
    EventData::new_u64((id as u64) << 2 | u64::from(interest.event() as u8))
}

fn flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::empty();
    if interest.event().readable() {
        // Without it, the end of a peer's stream cannot be told from data.
        flags |= EventFlags::IN | EventFlags::RDHUP;
    }
    if interest.event().writable() {
        flags |= EventFlags::OUT;
    }
    if interest.wants_priority() {
        flags |= EventFlags::PRI;
    }
    if interest.is_once() {
        flags |= EventFlags::ONESHOT;
    }
    if !interest.is_level() {
        flags |= EventFlags::ET;
    }
    flags
}

/// Takes what is told of our own descriptors out of `out`, to the end of which `events` were added.
#[cold]
fn take_own(events: &[epoll::Event], out: &mut Vec<Notification>) -> Inner {
    let before = out.len() - events.len();
    let mut inner = Inner::default();
    for (at, event) in events.iter().enumerate().rev() {
        match event.data.u64() {
            WAKE => inner.woken = true,
            ALARM => inner.alarm = true,
            _ => continue,
        }
        out.remove(before + at);
    }
    inner
}

#[inline]
fn notification(data: u64, flags: EventFlags) -> Notification {
    let mut n = MEANINGS[place(data, flags)];
    // An id fits a usize: it came from one.
    #[allow(clippy::cast_possible_truncation)]
    {
        n.id = (data >> 2) as usize;
    }
    n
}

/// Where [`MEANINGS`] says what `flags` mean to one who asked what `data` says: two bits, and the
/// six that the kernel may report, which are the same ones on every processor
/// (include/uapi/linux/eventpoll.h).
fn place(data: u64, flags: EventFlags) -> usize {
    let flags = flags.bits();
    let asked = (data & 3) as u32;
    (asked << 6 | flags >> 8 & 0x20 | flags & 0x1f) as usize
}

/// What each combination means, so that it need not be worked out for each event of a full batch.
static MEANINGS: [Notification; 256] = {
    let mut meanings = [Notification::new(0, Event::Both); 256];
    let mut place = 0_u32;
    while place < 256 {
        let flags = EventFlags::from_bits_retain((place & 0x20) << 8 | place & 0x1f);
        meanings[place as usize] = meaning(place as u64 >> 6, flags);
        place += 1;
    }
    meanings
};

/// What `flags` mean to one who asked that, without an id.
const fn meaning(asked: u64, flags: EventFlags) -> Notification {
    let asked_read = asked & Event::Read as u64 != 0;
    let asked_write = asked & Event::Write as u64 != 0;
    let over = EventFlags::HUP.union(EventFlags::ERR);
    let ends = EventFlags::HUP.union(EventFlags::RDHUP);

    let readable = flags.intersects(EventFlags::IN.union(EventFlags::PRI).union(ends).union(over));
    let writable = flags.intersects(EventFlags::OUT.union(over));
    let event = match Event::from_parts(asked_read && readable, asked_write && writable) {
        Some(event) => event,
        // Priority data alone, and only writing was asked for.
        None => match Event::from_parts(asked_read, asked_write) {
            Some(event) => event,
            None => Event::Both,
        },
    };

    let mut n = Notification::new(0, event);
    if flags.intersects(ends) {
        n = n.with_read_closed();
    }
    if flags.intersects(over) {
        n = n.with_write_closed();
    }
    if flags.intersects(EventFlags::ERR) {
        n = n.with_error();
    }
    if flags.intersects(EventFlags::PRI) {
        n = n.with_priority();
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_up_is_what_was_worked_out() {
        let reported = [
            EventFlags::IN,
            EventFlags::PRI,
            EventFlags::OUT,
            EventFlags::ERR,
            EventFlags::HUP,
            EventFlags::RDHUP,
        ];
        for asked in 1..=3 {
            for set in 0..1 << reported.len() {
                let flags = (0..).zip(reported).filter(|(bit, _)| set >> bit & 1 != 0);
                let flags = flags.map(|(_, flag)| flag).collect();
                let mut worked_out = meaning(asked, flags);
                worked_out.id = 77;
                assert_eq!(notification(77 << 2 | asked, flags), worked_out, "{flags:?}");
            }
        }
    }

    #[test]
    fn what_is_our_own_is_taken_out_of_what_was_added() {
        let event = |data| epoll::Event { flags: EventFlags::IN, data: EventData::new_u64(data) };
        let cases: [(&[u64], _, _, &[usize]); 5] = [
            (&[5, 9], false, false, &[1, 2, 1, 2]),
            (&[5, WAKE, 9], true, false, &[1, 2, 1, 2]),
            (&[ALARM, 5, 9], false, true, &[1, 2, 1, 2]),
            (&[5, 9, WAKE, ALARM], true, true, &[1, 2, 1, 2]),
            (&[WAKE], true, false, &[1, 2]),
        ];
        for (data, woken, alarm, ids) in cases {
            let mut out =
                vec![Notification::new(1, Event::Read), Notification::new(2, Event::Read)];
            let events: Vec<_> = data.iter().copied().map(event).collect();
            out.extend(data.iter().map(|&data| notification(data, EventFlags::IN)));
            let inner = take_own(&events, &mut out);
            assert_eq!((inner.woken, inner.alarm), (woken, alarm));
            assert_eq!(out.iter().map(|n| n.id).collect::<Vec<_>>(), ids);
        }
    }
}
