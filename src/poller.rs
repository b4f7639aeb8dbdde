//! Waits, and turns what happened into notifications.

use crate::{
    notification::Notification,
    notifier::Hub,
    registrar::Registrar,
    sync::{Arc, Instant, seeded},
    sys::Inner,
    timeout::Timeout,
    timer::Timers,
    trace::trace,
};
use std::{
    fmt, io,
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

/// How many notifications one `wait` returns at the most, unless
/// [`Poller::with_capacity`] says otherwise.
const DEFAULT_CAPACITY: usize = 1024;

/// Waits for everything that its [`Registrar`]s registered: descriptors, timers, channels and
/// notifiers.
///
/// It can move to the thread that is to wait. [`try_clone`](Poller::try_clone) gives a second one
/// that waits on the same things. When the last of them is dropped, registrars and senders are
/// told.
///
/// # Portability
///
/// It waits on an epoll (Linux, Android, illumos) or a kqueue (macOS, iOS, the BSDs), and keeps the
/// same promises on both. A kqueue registers the number of a descriptor, epoll the file behind it,
/// whence the differences:
///
/// * **Registering twice.** epoll refuses it (`AlreadyExists`). On kqueue the second registration
///   takes the place of the first, whose id falls silent.
/// * **Duplicates.** If a registered descriptor is closed while a duplicate of it lives, epoll goes
///   on reporting its id; on kqueue its registration ends. Deregister before closing, and there is
///   no difference.
/// * **FIFOs and terminals on macOS.** `/dev/tty` cannot be registered, and the end of the last
///   writer of a FIFO that was opened by name is not reported.
/// * **Priority data** is not reported on FreeBSD and NetBSD.
/// * **`fork`.** epoll is shared with the child, which can take what was meant for the parent; a
///   kqueue is not there in the child. Do not use or drop a poller in a child that has not called
///   `exec`.
/// * **Hints.** The `is_*` methods of [`Notification`] know less on kqueue where only one of
///   reading and writing was asked for.
///
/// The repository's `docs/portability.md` has the whole list.
///
/// # Examples
///
/// ```
/// use amy::{Event, Poller};
/// use std::net::{TcpListener, TcpStream};
///
/// # fn main() -> std::io::Result<()> {
/// let mut poller = Poller::new()?;
/// let registrar = poller.get_registrar();
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// listener.set_nonblocking(true)?;
/// let listener_id = registrar.register(&listener, Event::Read)?;
///
/// let _client = TcpStream::connect(listener.local_addr()?)?;
/// for n in poller.wait(5000)? {
///     assert_eq!(n.id, listener_id);
///     listener.accept()?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Poller {
    timers: Arc<Timers>,
    capacity: usize,
    batch: Vec<Notification>,
    /// Counts waits, to take turns where there is not room for everybody.
    turn: u8,
}

impl Poller {
    /// A poller whose `wait` returns at most 1,024 notifications at a time.
    ///
    /// # Errors
    ///
    /// What the kernel said, with its code: it has to make a queue, something to wake it and a
    /// timer (on Linux an epoll descriptor, an eventfd and a timerfd, all close-on-exec), and may
    /// be out of descriptors (`EMFILE`, `ENFILE`) or memory (`ENOMEM`). Nothing is left behind.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut poller = amy::Poller::new()?;
    /// assert!(poller.wait(0)?.is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new() -> io::Result<Poller> {
        Poller::with_capacity(DEFAULT_CAPACITY)
    }

    /// A poller whose `wait` returns at most `capacity` notifications (at least one). What there is
    /// beyond that comes with the next calls; nothing is lost, and nothing starves.
    ///
    /// Of descriptors, no more than 1,024 are reported at a time in any case.
    ///
    /// # Errors
    ///
    /// As [`new`](Poller::new).
    ///
    /// # Examples
    ///
    /// ```
    /// use amy::Poller;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut poller = Poller::with_capacity(2)?;
    /// let registrar = poller.get_registrar();
    /// let timers = (0..3).map(|_| registrar.set_timeout(0)).collect::<Result<Vec<_>, _>>()?;
    ///
    /// assert_eq!(poller.wait(0)?.len(), 2);
    /// assert_eq!(poller.wait(0)?[0].id, timers[2].get_id());
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_capacity(capacity: usize) -> io::Result<Poller> {
        let hub = Arc::new(Hub::new()?);
        Ok(Poller::on(Arc::new(Timers::new(hub)), capacity.max(1)))
    }

    /// A registrar of this poller, for any thread.
    ///
    /// # Examples
    ///
    /// ```
    /// let poller = amy::Poller::new()?;
    /// let registrar = poller.get_registrar();
    /// std::thread::spawn(move || registrar.set_timeout(10)).join().unwrap()?;
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn get_registrar(&self) -> Registrar {
        Registrar::new(&self.timers)
    }

    /// A second waiter on the same queue, with a buffer of its own, for another thread. Every
    /// registrar serves both, and nothing new is asked of the kernel.
    ///
    /// What becomes ready is told to one of the waiters; but while that one still works on it, the
    /// same id may become ready again and be told to another. [`Event::once`](crate::Event::once)
    /// gives a registration one owner at a time. A channel with something to receive is reported to
    /// every waiter that asks.
    ///
    /// # Errors
    ///
    /// None today.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut first = amy::Poller::new()?;
    /// let mut second = first.try_clone()?;
    /// let timer = first.get_registrar().set_timeout(0)?;
    ///
    /// assert_eq!(second.wait(5000)?[0].id, timer.get_id());
    /// assert!(first.wait(0)?.is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn try_clone(&self) -> io::Result<Poller> {
        self.hub().add_poller();
        Ok(Poller::on(Arc::clone(&self.timers), self.capacity))
    }

    /// Waits until something is ready or `timeout` has passed: milliseconds, a
    /// [`Duration`], or `None` for ever.
    ///
    /// The batch is empty only if the timeout has passed, in full. Signals do not end the wait, nor
    /// do registrations, timers and channels made by other threads in the meantime, although they
    /// take effect. Times below a millisecond are kept; longer than a few centuries is for ever.
    /// Zero only looks.
    ///
    /// The notifications are in the poller's own buffer and stay until the next call; nothing is
    /// allocated once that buffer has grown to what is needed. Each can be copied out and sent to
    /// another thread.
    ///
    /// # Errors
    ///
    /// What the kernel said of the wait itself. None is known to happen; what was ready is still
    /// reported by the next call.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// let mut poller = amy::Poller::new()?;
    /// let start = Instant::now();
    /// assert!(poller.wait(Duration::from_micros(300))?.is_empty());
    /// assert!(start.elapsed() >= Duration::from_micros(300));
    /// # std::io::Result::Ok(())
    /// ```
    // Inlined down to the system call, and so are those it calls: a return behind a system call
    // costs over a hundred nanoseconds where the kernel guards returns from speculation (in the
    // kernel's documentation, admin-guide/hw-vuln/srso.rst), a third of a short wait.
    #[inline(always)]
    pub fn wait(&mut self, timeout: impl Into<Timeout>) -> io::Result<Notifications<'_>> {
        self.fill(Patience { limit: timeout.into().duration(), start: None })?;
        self.timers.after_wait();
        trace!(told = self.batch.len(), "waited");
        Ok(Notifications { batch: &self.batch })
    }

    fn on(timers: Arc<Timers>, capacity: usize) -> Poller {
        let batch = Vec::with_capacity(capacity.min(DEFAULT_CAPACITY));
        Poller { timers, capacity, batch, turn: 0 }
    }

    fn hub(&self) -> &Hub {
        &self.timers.hub
    }

    #[inline(always)]
    fn fill(&mut self, mut patience: Patience) -> io::Result<()> {
        self.batch.clear();
        self.turn = self.turn.wrapping_add(1);
        loop {
            let inner = if self.hub().has_ready() || self.timers.is_due() {
                self.look(self.room_for_descriptors())?
            } else if patience.is_none() {
                self.look(self.capacity)?
            } else {
                self.sleep(&mut patience)?
            };
            self.collect(inner.alarm);
            // A wake for what was told already, or an alarm for a timer that is gone, took room
            // from descriptors that are ready: looks again.
            let crowded = inner != Inner::default();
            if !self.batch.is_empty()
                || (!crowded && patience.is_over())
                || seeded!("a spurious return ends a wait")
            {
                return Ok(());
            }
        }
    }

    /// Asks the kernel without sleeping.
    #[inline(never)]
    fn look(&mut self, room: usize) -> io::Result<Inner> {
        if room == 0 {
            return Ok(Inner::default());
        }
        let hub = &self.timers.hub;
        let inner = uninterrupted(|| hub.queue.wait(room, Some(Duration::ZERO), &mut self.batch))?;
        hub.looked(inner.woken);
        Ok(inner)
    }

    /// Sleeps in the kernel, unless something became ready.
    #[inline(always)]
    fn sleep(&mut self, patience: &mut Patience) -> io::Result<Inner> {
        let hub = &self.timers.hub;
        if !hub.fall_asleep() {
            return Ok(Inner::default());
        }
        let mut timeout = patience.left();
        if let Some(deadline) = self.timers.before_sleep() {
            timeout = Some(timeout.map_or(deadline, |timeout| timeout.min(deadline)));
        }
        let inner = or_interrupted(hub.queue.wait(self.capacity, timeout, &mut self.batch));
        hub.wake_up(inner.as_ref().is_ok_and(|inner| inner.woken));
        inner
    }

    /// Adds what is ready without the kernel.
    #[inline]
    fn collect(&mut self, alarm: bool) {
        // Timers first in one call, the others first in the next.
        if self.turn & 2 == 0 {
            self.timers.fire(alarm, self.capacity - self.batch.len(), &mut self.batch);
            self.timers.hub.collect(self.capacity - self.batch.len(), &mut self.batch);
        } else {
            self.timers.hub.collect(self.capacity - self.batch.len(), &mut self.batch);
            self.timers.fire(alarm, self.capacity - self.batch.len(), &mut self.batch);
        }
    }

    /// How much of a batch descriptors get if there is something else: half, and of one place every
    /// other.
    fn room_for_descriptors(&self) -> usize {
        let odd = self.capacity % 2 * usize::from(self.turn & 1);
        self.capacity / 2 + odd
    }
}

/// The poller inside another loop: its descriptor is readable whenever `wait(0)` would return
/// something, timers, channels and notifiers included.
///
/// It may also be readable when there is nothing. Nobody but [`wait`](Poller::wait) may read from
/// it or change it. From the first call on, a notification for a poller that does not sleep costs a
/// write.
impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hub().watch_from_outside();
        if !seeded!("watching sets no alarm") {
            self.timers.rearrange();
        }
        self.hub().queue.as_fd()
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.hub().remove_poller();
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("capacity", &self.capacity)
            .field("hub", self.hub())
            .field("timers", &self.timers)
            .finish_non_exhaustive()
    }
}

/// An interrupted call took nothing, and whoever made it looks at the clock before making it again.
#[inline]
fn or_interrupted(inner: io::Result<Inner>) -> io::Result<Inner> {
    match inner {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Inner::default()),
        other => other,
    }
}

/// A look does not sleep, so it can be made again until it was not interrupted; a caller for whom
/// it found nothing would not look a second time.
fn uninterrupted(mut look: impl FnMut() -> io::Result<Inner>) -> io::Result<Inner> {
    loop {
        match look() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// What is left of a timeout. The clock is read only by those who sleep.
struct Patience {
    limit: Option<Duration>,
    start: Option<Instant>,
}

impl Patience {
    fn is_none(&self) -> bool {
        self.limit == Some(Duration::ZERO)
    }

    #[inline]
    fn left(&mut self) -> Option<Duration> {
        let limit = self.limit?;
        match self.start {
            Some(start) => Some(limit.saturating_sub(start.elapsed())),
            None => {
                self.start = Some(Instant::now());
                Some(limit)
            }
        }
    }

    #[inline]
    fn is_over(&self) -> bool {
        match (self.limit, self.start) {
            (Some(Duration::ZERO), _) => true,
            (Some(limit), Some(start)) => start.elapsed() >= limit,
            _ => false,
        }
    }
}

/// What one `wait` returned, borrowed from the poller: a slice of [`Notification`]s, which can be
/// indexed, counted and iterated, by value or by reference.
///
/// # Examples
///
/// ```
/// use amy::{Notification, Poller};
///
/// # fn main() -> std::io::Result<()> {
/// let mut poller = Poller::new()?;
/// let timer = poller.get_registrar().set_timeout(0)?;
///
/// let notifications = poller.wait(5000)?;
/// assert_eq!(notifications.len(), 1);
/// assert_eq!(notifications[0].id, timer.get_id());
/// for n in &notifications {
///     assert!(n.event.readable());
/// }
/// let copies: Vec<Notification> = notifications.into_iter().collect();
/// assert_eq!(copies[0].id, timer.get_id());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Notifications<'a> {
    batch: &'a [Notification],
}

impl Deref for Notifications<'_> {
    type Target = [Notification];

    fn deref(&self) -> &[Notification] {
        self.batch
    }
}

impl<'a> IntoIterator for Notifications<'a> {
    type Item = Notification;
    type IntoIter = std::iter::Copied<std::slice::Iter<'a, Notification>>;

    fn into_iter(self) -> Self::IntoIter {
        self.batch.iter().copied()
    }
}

impl<'a> IntoIterator for &Notifications<'a> {
    type Item = &'a Notification;
    type IntoIter = std::slice::Iter<'a, Notification>;

    fn into_iter(self) -> Self::IntoIter {
        self.batch.iter()
    }
}
