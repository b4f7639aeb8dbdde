//! What can be asked for and what is told: values without behaviour.

/// What a descriptor is, or should become, ready for.
///
/// # Examples
///
/// ```
/// use amy::Event;
///
/// assert!(Event::Both.readable() && Event::Both.writable());
/// assert!(!Event::Write.readable());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Event {
    /// A read would not block: there is data, a connection to accept, an end or an error.
    Read = 1,
    /// A write would not block: there is room, a connection was made, or it failed.
    Write = 2,
    /// Both of them.
    Both = 3,
}

impl Event {
    /// Whether this is [`Read`](Event::Read) or [`Both`](Event::Both).
    #[must_use]
    pub const fn readable(self) -> bool {
        self as u8 & Event::Read as u8 != 0
    }

    /// Whether this is [`Write`](Event::Write) or [`Both`](Event::Both).
    #[must_use]
    pub const fn writable(self) -> bool {
        self as u8 & Event::Write as u8 != 0
    }

    /// The event with these parts, if it has any.
    pub(crate) const fn from_parts(readable: bool, writable: bool) -> Option<Event> {
        match (readable, writable) {
            (true, true) => Some(Event::Both),
            (true, false) => Some(Event::Read),
            (false, true) => Some(Event::Write),
            (false, false) => None,
        }
    }

    /// See [`Interest::once`].
    #[must_use]
    pub fn once(self) -> Interest {
        Interest::from(self).once()
    }

    /// See [`Interest::level`].
    #[must_use]
    pub fn level(self) -> Interest {
        Interest::from(self).level()
    }

    /// See [`Interest::priority`].
    #[must_use]
    pub fn priority(self) -> Interest {
        Interest::from(self).priority()
    }
}

/// What a registration asks for: an [`Event`], and how it is to be told.
///
/// Without refinement it is edge-triggered: told once each time that the descriptor becomes ready,
/// so that the reader or writer must go on until `WouldBlock` before it waits again.
///
/// # Examples
///
/// ```
/// use amy::{Event, Interest};
///
/// let hand_over: Interest = Event::Read.once();
/// assert_eq!(hand_over.event(), Event::Read);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interest {
    event: Event,
    once: bool,
    level: bool,
    priority: bool,
}

impl From<Event> for Interest {
    fn from(event: Event) -> Interest {
        Interest { event, once: false, level: false, priority: false }
    }
}

impl Interest {
    /// What the descriptor should become ready for.
    #[must_use]
    pub const fn event(self) -> Event {
        self.event
    }

    /// One notification, then silence until
    /// [`reregister`](crate::Registrar::reregister): whoever got it is the only owner until then.
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
    /// let id = registrar.register(&there, Event::Read.once())?;
    ///
    /// here.write_all(b"a")?;
    /// assert_eq!(poller.wait(5000)?[0].id, id);
    /// here.write_all(b"b")?;
    /// assert!(poller.wait(0)?.is_empty()); // whoever was told is at work
    /// registrar.reregister(id, &there, Event::Read.once())?; // and now it is done
    /// assert_eq!(poller.wait(5000)?[0].id, id);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn once(mut self) -> Interest {
        self.once = true;
        self
    }

    /// Told at every `wait` for as long as the descriptor is ready (level-triggered).
    ///
    /// # Examples
    ///
    /// ```
    /// use amy::{Event, Poller};
    /// use std::net::{TcpListener, TcpStream};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut poller = Poller::new()?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// listener.set_nonblocking(true)?;
    /// poller.get_registrar().register(&listener, Event::Read.level())?;
    ///
    /// let address = listener.local_addr()?;
    /// let _clients = [TcpStream::connect(address)?, TcpStream::connect(address)?];
    /// for _ in 0..2 {
    ///     assert_eq!(poller.wait(5000)?.len(), 1);
    ///     listener.accept()?; // one for each turn is enough
    /// }
    /// assert!(poller.wait(0)?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn level(mut self) -> Interest {
        self.level = true;
        self
    }

    /// Out-of-band data is told as well, with [`Notification::is_priority`] set.
    ///
    /// Such as TCP's urgent byte, or a change of a GPIO in sysfs.
    #[must_use]
    pub const fn priority(mut self) -> Interest {
        self.priority = true;
        self
    }

    pub(crate) const fn is_once(self) -> bool {
        self.once
    }

    pub(crate) const fn is_level(self) -> bool {
        self.level
    }

    pub(crate) const fn wants_priority(self) -> bool {
        self.priority
    }
}

/// Something became ready.
///
/// The `is_*` methods are hints: a system may leave one out, and none is the only way to learn
/// something. A read or write tells for certain.
///
/// # Examples
///
/// A handler can be tested without a poller:
///
/// ```
/// use amy::{Event, Notification};
///
/// fn wants_closing(n: Notification) -> bool {
///     n.is_error() || (n.event.readable() && n.is_read_closed())
/// }
///
/// assert!(!wants_closing(Notification::new(7, Event::Read)));
/// assert!(wants_closing(Notification::new(7, Event::Read).with_read_closed()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Notification {
    /// Which registration, timer or channel. An id that is no longer known belongs to one that was
    /// removed while this notification was on its way: ignore it.
    pub id: usize,
    /// What it became ready for: of what was asked, all that hold now.
    pub event: Event,
    hints: u8,
}

impl Notification {
    const READ_CLOSED: u8 = 1;
    const WRITE_CLOSED: u8 = 2;
    const ERROR: u8 = 4;
    const PRIORITY: u8 = 8;

    /// A notification without hints.
    #[must_use]
    pub const fn new(id: usize, event: Event) -> Notification {
        Notification { id, event, hints: 0 }
    }

    /// The same, with [`is_read_closed`](Notification::is_read_closed) set.
    #[must_use]
    pub const fn with_read_closed(self) -> Notification {
        self.with(Notification::READ_CLOSED)
    }

    /// The same, with [`is_write_closed`](Notification::is_write_closed) set.
    #[must_use]
    pub const fn with_write_closed(self) -> Notification {
        self.with(Notification::WRITE_CLOSED)
    }

    /// The same, with [`is_error`](Notification::is_error) set.
    #[must_use]
    pub const fn with_error(self) -> Notification {
        self.with(Notification::ERROR)
    }

    /// The same, with [`is_priority`](Notification::is_priority) set.
    #[must_use]
    pub const fn with_priority(self) -> Notification {
        self.with(Notification::PRIORITY)
    }

    /// The peer will send no more. What it sent before is still to be read.
    #[must_use]
    pub const fn is_read_closed(&self) -> bool {
        self.hints & Notification::READ_CLOSED != 0
    }

    /// Nothing that is written will be read any more.
    #[must_use]
    pub const fn is_write_closed(&self) -> bool {
        self.hints & Notification::WRITE_CLOSED != 0
    }

    /// The descriptor is in error; the next read or write, or `take_error`, says which.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.hints & Notification::ERROR != 0
    }

    /// There is out-of-band data. Set only where [`Interest::priority`] asked for it.
    #[must_use]
    pub const fn is_priority(&self) -> bool {
        self.hints & Notification::PRIORITY != 0
    }

    const fn with(mut self, hint: u8) -> Notification {
        self.hints |= hint;
        self
    }
}

impl std::fmt::Debug for Notification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Notification");
        out.field("id", &self.id).field("event", &self.event);
        for (name, set) in [
            ("read_closed", self.is_read_closed()),
            ("write_closed", self.is_write_closed()),
            ("error", self.is_error()),
            ("priority", self.is_priority()),
        ] {
            if set {
                out.field(name, &true);
            }
        }
        out.finish()
    }
}
