//! Registers from any thread, and makes timers, channels and notifiers.

use crate::{
    channel::{self, Receiver, Sender, SyncSender},
    id,
    notification::Interest,
    notifier::{Hub, Notifier},
    sync::Arc,
    timeout::Timeout,
    timer::{Timer, Timers},
    trace::trace,
};
use std::{fmt, io, os::fd::AsFd};

/// Registers descriptors with a [`Poller`](crate::Poller), and makes timers, channels and notifiers
/// that wake it.
///
/// Got from [`Poller::get_registrar`](crate::Poller::get_registrar). A clone costs one reference
/// count, and every method works from any thread, takes effect at once, and never makes a blocked
/// `wait` return with nothing. When every poller is gone, calls that need one fail with
/// `BrokenPipe`.
///
/// # Examples
///
/// ```
/// use amy::{Event, Poller};
/// use std::{net::{TcpListener, TcpStream}, thread};
///
/// # fn main() -> std::io::Result<()> {
/// let mut poller = Poller::new()?;
/// let registrar = poller.get_registrar();
///
/// // Another thread owns the listener; this one only waits.
/// let owner = thread::spawn(move || -> std::io::Result<_> {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     listener.set_nonblocking(true)?;
///     let id = registrar.register(&listener, Event::Read)?;
///     Ok((id, listener))
/// });
/// let (id, listener) = owner.join().unwrap()?;
///
/// let _client = TcpStream::connect(listener.local_addr()?)?;
/// let notifications = poller.wait(5000)?;
/// assert_eq!(notifications[0].id, id);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Registrar {
    timers: Arc<Timers>,
}

impl Registrar {
    pub(crate) fn new(timers: &Arc<Timers>) -> Registrar {
        Registrar { timers: Arc::clone(timers) }
    }

    /// Has readiness of `fd` reported, and returns the id under which that is done.
    ///
    /// `fd` is anything with a descriptor that the kernel can poll; it should be non-blocking. It
    /// stays the caller's: it is neither read, written nor closed. What is ready already is
    /// reported at once. Reports are edge-triggered, unless [`Interest`] asks otherwise: one for
    /// each time that the descriptor becomes ready, so read or write until `WouldBlock`. The id was
    /// never used before in this process, and never will be again.
    ///
    /// Deregister before the descriptor is closed. If it is only closed, the kernel forgets it,
    /// unless a duplicate of it lives (`try_clone`, a child process): then its id goes on being
    /// reported.
    ///
    /// # Errors
    ///
    /// The kernel's error, untouched, and nothing is registered: `AlreadyExists` if `fd` is
    /// registered with this poller (its first registration goes on; a kqueue [cannot
    /// tell](crate::Poller#portability)); `PermissionDenied` (`EPERM`) if it cannot be polled, such
    /// as a regular file or a directory; `StorageFull` (`ENOSPC`) at the limit of
    /// `fs.epoll.max_user_watches`; `OutOfMemory`; `InvalidInput` or `ELOOP` (for which there is no
    /// stable kind) if it is a poller that waits for this one, or one in too deep a nest.
    /// `BrokenPipe` if every poller is gone; `QuotaExceeded` if all ids are used up, which takes
    /// 2^32 registrations on a 32-bit system and centuries on others.
    ///
    /// # Examples
    ///
    /// ```
    /// use amy::{Event, Poller};
    /// use std::{io::Write, os::unix::net::UnixStream};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut poller = Poller::new()?;
    /// let registrar = poller.get_registrar();
    /// let (mut here, there) = UnixStream::pair()?;
    /// there.set_nonblocking(true)?;
    ///
    /// let id = registrar.register(&there, Event::Read)?;
    /// here.write_all(b"hello")?;
    ///
    /// let notifications = poller.wait(5000)?;
    /// assert_eq!((notifications[0].id, notifications[0].event), (id, Event::Read));
    /// # Ok(())
    /// # }
    /// ```
    pub fn register<F: AsFd + ?Sized>(
        &self,
        fd: &F,
        interest: impl Into<Interest>,
    ) -> io::Result<usize> {
        let hub = self.hub();
        hub.open()?;
        let id = id::next()?;
        let interest = interest.into();
        hub.queue.add(fd.as_fd(), id, interest)?;
        trace!(id, fd = ?fd.as_fd(), ?interest, "registered");
        Ok(id)
    }

    /// Changes what is reported of `fd`, which is registered under `id`, and reports again what is
    /// ready now.
    ///
    /// This is also how a [`once`](crate::Event::once) registration is told again, and how to come
    /// back to a descriptor that was left before `WouldBlock`.
    ///
    /// The id must be the one that `fd` was registered under: there is no table in which to look it
    /// up, so another id is believed, and reported from then on.
    ///
    /// # Errors
    ///
    /// `NotFound` if `fd` is not registered with this poller; `InvalidInput` for an id that was
    /// never handed out by a registrar (0, say); else the kernel's error, untouched. In each case
    /// the registration is as before. `BrokenPipe` if every poller is gone.
    ///
    /// # Examples
    ///
    /// ```
    /// use amy::{Event, Poller};
    /// use std::os::unix::net::UnixStream;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut poller = Poller::new()?;
    /// let registrar = poller.get_registrar();
    /// let (_here, there) = UnixStream::pair()?;
    ///
    /// let id = registrar.register(&there, Event::Read)?;
    /// registrar.reregister(id, &there, Event::Write)?;
    ///
    /// let notifications = poller.wait(5000)?;
    /// assert_eq!((notifications[0].id, notifications[0].event), (id, Event::Write));
    /// # Ok(())
    /// # }
    /// ```
    pub fn reregister<F: AsFd + ?Sized>(
        &self,
        id: usize,
        fd: &F,
        interest: impl Into<Interest>,
    ) -> io::Result<()> {
        self.hub().open()?;
        if !id::is_possible(id) {
            let message = format!("{id} is not the id of a registration");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let interest = interest.into();
        self.hub().queue.modify(fd.as_fd(), id, interest)?;
        trace!(id, fd = ?fd.as_fd(), ?interest, "registered again");
        Ok(())
    }

    /// Ends the reports of `fd`, which is lent (`deregister(&socket)`) or given away
    /// (`deregister(socket)`, which closes it when done).
    ///
    /// No `wait` that starts after this returned reports its id. A batch that was returned before,
    /// or is on its way in another thread, may hold it: ignore ids that you do not know.
    ///
    /// # Errors
    ///
    /// `NotFound` if `fd` is not registered with this poller; else the kernel's error, untouched.
    /// `BrokenPipe` if every poller is gone.
    ///
    /// # Examples
    ///
    /// ```
    /// use amy::{Event, Poller};
    /// use std::{io::Write, os::unix::net::UnixStream, time::Duration};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut poller = Poller::new()?;
    /// let registrar = poller.get_registrar();
    /// let (mut here, there) = UnixStream::pair()?;
    ///
    /// registrar.register(&there, Event::Read)?;
    /// registrar.deregister(&there)?;
    /// here.write_all(b"nobody is told")?;
    /// assert!(poller.wait(Duration::ZERO)?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn deregister<F: AsFd>(&self, fd: F) -> io::Result<()> {
        self.hub().open()?;
        self.hub().queue.remove(fd.as_fd())?;
        trace!(fd = ?fd.as_fd(), "deregistered");
        Ok(())
    }

    /// Sets a timer that is told once, `timeout` after this call: milliseconds, a
    /// [`Duration`](std::time::Duration), or `None` for never, until [`Timer::reset`].
    ///
    /// It is told by the first `wait` after that, and never before. Zero is told by the next
    /// `wait`. It runs on the monotonic clock, which stops while the machine is suspended. Dropping
    /// the [`Timer`] cancels it. No descriptor is created, and the poller is not woken.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` if every poller is gone; `QuotaExceeded` if ids or timers (2^32) have run out;
    /// else what the kernel said when its timer was set. Nothing is left behind.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let mut poller = amy::Poller::new()?;
    /// let timer = poller.get_registrar().set_timeout(5)?;
    /// assert_eq!(poller.wait(5000)?[0].id, timer.get_id());
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_timeout(&self, timeout: impl Into<Timeout>) -> io::Result<Timer> {
        self.timers.set_timeout(timeout.into())
    }

    /// Sets a timer that ticks every `period`, the first time one period after this call.
    ///
    /// Each tick is told only after [`Timer::arm`] was called for the one before; `arm` returns how
    /// many have passed. Everything else is as with [`set_timeout`](Registrar::set_timeout).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a period of zero; the others as with `set_timeout`.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let mut poller = amy::Poller::new()?;
    /// let interval = poller.get_registrar().set_interval(2)?;
    /// for _ in 0..3 {
    ///     assert_eq!(poller.wait(5000)?[0].id, interval.get_id());
    ///     assert!(interval.arm() >= 1);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_interval(&self, period: impl Into<Timeout>) -> io::Result<Timer> {
        self.timers.set_interval(period.into())
    }

    /// Cancels a timer: no `wait` that starts later reports it. The same as dropping it.
    ///
    /// # Errors
    ///
    /// None today: it is `Ok` whether or not the timer had fired.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # let mut poller = amy::Poller::new()?;
    /// let registrar = poller.get_registrar();
    /// let timer = registrar.set_timeout(0)?;
    /// registrar.cancel_timeout(timer)?;
    /// assert!(poller.wait(0)?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel_timeout(&self, timer: Timer) -> io::Result<()> {
        drop(timer);
        Ok(())
    }

    /// Makes a channel without a limit, whose receiver has an id that `wait` reports.
    ///
    /// It costs no descriptor.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` if every poller is gone; `QuotaExceeded` if ids have run out.
    ///
    /// # Examples
    ///
    /// See [`Sender::send`].
    pub fn channel<T>(&self) -> io::Result<(Sender<T>, Receiver<T>)> {
        channel::channel(self.hub())
    }

    /// Makes a channel in which at most `bound` messages wait, whose receiver has an id that `wait`
    /// reports. With a bound of 0 a `send` lasts until its message is received.
    ///
    /// It costs no descriptor.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` if every poller is gone; `QuotaExceeded` if ids have run out.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::TrySendError;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut poller = amy::Poller::new()?;
    /// let (tx, rx) = poller.get_registrar().sync_channel(1)?;
    /// tx.try_send("first").unwrap();
    /// assert_eq!(tx.try_send("second"), Err(TrySendError::Full("second")));
    ///
    /// assert_eq!(poller.wait(5000)?[0].id, rx.get_id());
    /// assert_eq!(rx.try_recv(), Ok("first"));
    /// assert!(tx.try_send("second").is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn sync_channel<T>(&self, bound: usize) -> io::Result<(SyncSender<T>, Receiver<T>)> {
        channel::sync_channel(self.hub(), bound)
    }

    /// Makes a [`Notifier`]: an id that any thread can have reported.
    ///
    /// It costs no descriptor.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` if every poller is gone; `QuotaExceeded` if ids have run out.
    ///
    /// # Examples
    ///
    /// See [`Notifier`].
    pub fn notifier(&self) -> io::Result<Notifier> {
        Notifier::new(self.hub())
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.timers.hub
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar").field("hub", self.hub()).field("timers", &self.timers).finish()
    }
}
