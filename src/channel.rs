//! Channels whose receiver has an id: `wait` reports it as long as there is something to receive.
//!
//! The queue is a lock around a deque. Senders push; the receiver of an unbounded channel takes all
//! that is there in one go and hands it out without the lock. The node's PENDING flag (see
//! [`notifier`](crate::notifier)) is written under that lock alone, and says at each moment whether
//! something is left to receive.

use crate::{
    notifier::{Hub, Signal},
    sync::{
        Arc, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, lock, lock_in_turns, seeded, wait,
    },
};
use std::{
    cell::{Cell, RefCell, RefMut},
    collections::VecDeque,
    fmt, io,
    sync::mpsc::{SendError, TryRecvError, TrySendError},
};

/// How many messages' worth of room a receiver keeps for the next burst once it has run empty.
const ROOM_KEPT: usize = 4096;

/// An unbounded channel; see [`Registrar::channel`](crate::Registrar::channel).
pub(crate) fn channel<T>(hub: &Arc<Hub>) -> io::Result<(Sender<T>, Receiver<T>)> {
    let (half, receiver) = pair(hub, None)?;
    Ok((Sender { half }, receiver))
}

/// A bounded channel; see [`Registrar::sync_channel`](crate::Registrar::sync_channel).
pub(crate) fn sync_channel<T>(
    hub: &Arc<Hub>,
    bound: usize,
) -> io::Result<(SyncSender<T>, Receiver<T>)> {
    let (half, receiver) = pair(hub, Some(bound))?;
    Ok((SyncSender { half }, receiver))
}

fn pair<T>(hub: &Arc<Hub>, bound: Option<usize>) -> io::Result<(Half<T>, Receiver<T>)> {
    let shared = Arc::new(Shared {
        signal: Signal::new(hub, true)?,
        bound,
        queue: Apart(Mutex::new(Queue {
            messages: VecDeque::new(),
            taken: 0,
            offered: 0,
            senders_gone: false,
            receiver_gone: false,
            end_told: false,
        })),
        room: Condvar::new(),
        senders: AtomicUsize::new(1),
    });
    let receiver = Receiver {
        shared: Arc::clone(&shared),
        at_hand: RefCell::default(),
        ended: Cell::new(false),
    };
    Ok((Half { shared }, receiver))
}

struct Shared<T> {
    signal: Signal,
    /// How many messages may wait; `None` for any number, 0 for a rendezvous.
    bound: Option<usize>,
    queue: Apart<Mutex<Queue<T>>>,
    /// Signalled when the receiver took a message of a bounded channel, or is gone.
    room: Condvar,
    senders: AtomicUsize,
}

struct Queue<T> {
    messages: VecDeque<T>,
    /// How many messages of a bounded channel were ever put in, and taken out.
    offered: u64,
    taken: u64,
    senders_gone: bool,
    receiver_gone: bool,
    /// The receiver has been told `Disconnected`, so there is nothing more to tell.
    end_told: bool,
}

/// On cache lines of its own, so that threads which fight over it slow nobody who reads what is
/// beside it. Two lines, since processors fetch them in pairs.
#[repr(align(128))]
struct Apart<T>(T);

impl<T> Shared<T> {
    /// Queues a message. The lock that is held shows that the receiver is there.
    fn put(&self, mut queue: MutexGuard<'_, Queue<T>>, message: T) {
        queue.messages.push_back(message);
        queue.offered += 1;
        if !self.signal.is_pending() {
            self.signal.set_pending();
        }
        drop(queue);
        self.announce();
    }

    fn announce(&self) {
        // The message is queued, so there is nothing to give back: if the wake failed the next
        // `wait` finds the message, and the next message tries to wake again.
        let _ = self.signal.announce();
    }
}

/// What both kinds of sender are: one of those that keep the channel connected.
struct Half<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Half<T> {
    /// The queue, unless a message put there would reach nobody.
    fn connected(&self) -> Option<MutexGuard<'_, Queue<T>>> {
        if self.shared.signal.is_closed() {
            return None;
        }
        let queue = lock_in_turns(&self.shared.queue.0);
        (!queue.receiver_gone).then_some(queue)
    }

    fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("id", &self.shared.signal.id())
            .field("connected", &self.connected().is_some())
            .finish()
    }
}

impl<T> Clone for Half<T> {
    fn clone(&self) -> Half<T> {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Half { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Half<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let mut queue = lock(&self.shared.queue.0);
        queue.senders_gone = true;
        if queue.receiver_gone || seeded!("the end is silent") {
            return;
        }
        self.shared.signal.set_pending();
        drop(queue);
        self.shared.announce();
    }
}

/// The sending half of an unbounded channel, made by
/// [`Registrar::channel`](crate::Registrar::channel).
///
/// Clones send to the same receiver. The drop of the last one is reported to the poller, after
/// which [`try_recv`](Receiver::try_recv) says `Disconnected`.
pub struct Sender<T> {
    half: Half<T>,
}

impl<T> Sender<T> {
    /// The id of the receiver, which `wait` reports.
    #[must_use]
    pub fn get_id(&self) -> usize {
        self.half.shared.signal.id()
    }

    /// Queues a message and sees to it that a `wait` reports the receiver.
    ///
    /// It never blocks on the receiver, and the queue has no limit: what is not received takes
    /// memory. Use [`Registrar::sync_channel`](crate::Registrar::sync_channel) for a limit. It
    /// writes to the kernel only if a poller sleeps that nobody has woken yet.
    ///
    /// # Errors
    ///
    /// The message comes back if the receiver or every poller is gone.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let mut poller = amy::Poller::new()?;
    /// let (tx, rx) = poller.get_registrar().channel()?;
    /// tx.send("a").unwrap();
    ///
    /// let notifications = poller.wait(5000)?;
    /// assert_eq!(rx.get_id(), notifications[0].id);
    /// assert_eq!(rx.try_recv(), Ok("a"));
    ///
    /// drop(rx);
    /// assert_eq!(tx.send("b").unwrap_err().0, "b");
    /// # Ok(())
    /// # }
    /// ```
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        match self.half.connected() {
            Some(queue) => {
                self.half.shared.put(queue, message);
                Ok(())
            }
            None => Err(SendError(message)),
        }
    }
}

/// Does not need `T: Clone`.
impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { half: self.half.clone() }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.half.debug("Sender", f)
    }
}

/// The sending half of a bounded channel, made by
/// [`Registrar::sync_channel`](crate::Registrar::sync_channel).
///
/// Clones send to the same receiver. The drop of the last one is reported to the poller, after
/// which [`try_recv`](Receiver::try_recv) says `Disconnected`.
///
/// # Examples
///
/// A producer that is held up as long as the receiver is behind:
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let mut poller = amy::Poller::new()?;
/// let (tx, rx) = poller.get_registrar().sync_channel(2)?;
/// let producer = std::thread::spawn(move || (0..10).try_for_each(|i| tx.send(i)));
///
/// let mut received = Vec::new();
/// while received.len() < 10 {
///     for n in poller.wait(5000)? {
///         assert_eq!(n.id, rx.get_id());
///         received.extend(rx.try_iter());
///     }
/// }
/// assert!(received.into_iter().eq(0..10));
/// producer.join().unwrap().unwrap();
/// # Ok(())
/// # }
/// ```
pub struct SyncSender<T> {
    half: Half<T>,
}

impl<T> SyncSender<T> {
    /// The id of the receiver, which `wait` reports.
    #[must_use]
    pub fn get_id(&self) -> usize {
        self.half.shared.signal.id()
    }

    /// Queues a message, after waiting for room if there is none.
    ///
    /// With a bound of 0 it returns when the receiver has taken the message.
    ///
    /// It must not be called on the thread that is to receive: that thread would wait for itself.
    /// Use [`try_send`](SyncSender::try_send) there.
    ///
    /// # Errors
    ///
    /// The message comes back if the receiver or every poller is gone, also while waiting for the
    /// receiver. (When only the last poller goes, those already waiting wait on, since a receiver
    /// may still be drained.)
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        let Some(mut queue) = self.half.connected() else { return Err(SendError(message)) };
        let shared = &self.half.shared;
        // A rendezvous offers one message at a time.
        let most = shared.bound.unwrap_or(usize::MAX).max(1);
        if queue.messages.len() >= most {
            // Whoever queued what fills it may be stalled before telling the receiver, which has to
            // know before anyone waits for it.
            drop(queue);
            if !seeded!("a full queue is not announced") {
                shared.announce();
            }
            queue = lock(&shared.queue.0);
        }
        while queue.messages.len() >= most && !queue.receiver_gone {
            queue = wait(&shared.room, queue);
        }
        if queue.receiver_gone {
            return Err(SendError(message));
        }
        let ticket = queue.offered;
        shared.put(queue, message);
        if shared.bound == Some(0) { self.await_taker(ticket) } else { Ok(()) }
    }

    /// Queues a message if there is room now.
    ///
    /// # Errors
    ///
    /// The message comes back: `Full` if there is no room, which with a bound of 0 is always, since
    /// a receiver on a poller is never blocked in a receive; `Disconnected` if the receiver or
    /// every poller is gone.
    ///
    /// # Examples
    ///
    /// See [`Registrar::sync_channel`](crate::Registrar::sync_channel).
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let Some(queue) = self.half.connected() else {
            return Err(TrySendError::Disconnected(message));
        };
        if queue.messages.len() >= self.half.shared.bound.unwrap_or(usize::MAX) {
            return Err(TrySendError::Full(message));
        }
        self.half.shared.put(queue, message);
        Ok(())
    }

    /// Waits until the message that was offered as number `ticket` is taken.
    fn await_taker(&self, ticket: u64) -> Result<(), SendError<T>> {
        let shared = &self.half.shared;
        let mut queue = lock(&shared.queue.0);
        while queue.taken <= ticket {
            if queue.receiver_gone {
                // The receiver leaves an offer that it did not take to the one who made it.
                let offer = queue.messages.pop_front().expect("an offer that nobody took");
                return Err(SendError(offer));
            }
            queue = wait(&shared.room, queue);
        }
        Ok(())
    }
}

/// Does not need `T: Clone`.
impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> SyncSender<T> {
        SyncSender { half: self.half.clone() }
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.half.debug("SyncSender", f)
    }
}

/// The receiving half of a channel, made by [`Registrar::channel`](crate::Registrar::channel) or
/// [`Registrar::sync_channel`](crate::Registrar::sync_channel).
///
/// `wait` reports its id as readable for as long as there is something to receive: a message, or,
/// once, that the last sender is gone. It does so at every call, so one thread should both wait and
/// receive. When the receiver is dropped no later `wait` reports it, and senders get their messages
/// back.
///
/// # Examples
///
/// Some messages for each turn, until every sender is gone:
///
/// ```
/// use std::sync::mpsc::TryRecvError;
///
/// # fn main() -> std::io::Result<()> {
/// let mut poller = amy::Poller::new()?;
/// let (tx, rx) = poller.get_registrar().channel()?;
/// for i in 0..5 {
///     tx.send(i).unwrap();
/// }
/// drop(tx);
///
/// let mut received = Vec::new();
/// 'all: loop {
///     // Reported again for what was left, and at last for the end.
///     assert_eq!(poller.wait(5000)?[0].id, rx.get_id());
///     for _ in 0..2 {
///         match rx.try_recv() {
///             Ok(message) => received.push(message),
///             Err(TryRecvError::Empty) => break,
///             Err(TryRecvError::Disconnected) => break 'all,
///         }
///     }
/// }
/// assert_eq!(received, [0, 1, 2, 3, 4]);
/// assert!(poller.wait(0)?.is_empty()); // the end is told until it was received
/// # Ok(())
/// # }
/// ```
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// Taken from the queue and not handed out yet. Empty in a bounded channel, where a message
    /// takes up room until it is received.
    at_hand: RefCell<VecDeque<T>>,
    /// The end was received, and PENDING does not stand for it any more.
    ended: Cell<bool>,
}

impl<T> Receiver<T> {
    /// The id that `wait` reports.
    #[must_use]
    pub fn get_id(&self) -> usize {
        self.shared.signal.id()
    }

    /// Takes the next message. Never blocks on a sender's progress.
    ///
    /// # Errors
    ///
    /// `Empty` if there is none now; `Disconnected` if there is none and the last sender is gone.
    ///
    /// # Examples
    ///
    /// See [`Receiver`].
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut at_hand = self.at_hand.borrow_mut();
        if at_hand.len() > 1 {
            return at_hand.pop_front().ok_or(TryRecvError::Empty);
        }
        self.take_last(at_hand)
    }

    /// The messages that are there now, each received when it is asked for.
    ///
    /// It ends where [`try_recv`](Receiver::try_recv) has none. With a sender that is faster than
    /// the receiver it goes on for as long; `take(n)` bounds the work of a turn, and what remains
    /// is reported by the next `wait`.
    ///
    /// It does not say whether it ended because the last sender is gone, and `wait` does not report
    /// that again: if it matters, ask `try_recv` afterwards.
    #[must_use]
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }

    /// How many messages are there to be received.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at_hand.borrow().len() + lock(&self.shared.queue.0).messages.len()
    }

    /// Whether no message is there to be received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the last message at hand, if there is one, and then all that is queued: with an answer
    /// goes PENDING, which has to say whether anything is left.
    fn take_last(&self, mut at_hand: RefMut<'_, VecDeque<T>>) -> Result<T, TryRecvError> {
        if self.shared.bound.is_some() {
            return self.take_one();
        }
        let message = at_hand.pop_front();
        // A send that has returned, and the end, left PENDING set; what is under way comes later.
        if message.is_none() && !self.shared.signal.is_pending() && !self.ended.get() {
            return Err(TryRecvError::Empty);
        }
        if at_hand.capacity() > ROOM_KEPT {
            *at_hand = VecDeque::new();
        }
        let mut queue = lock_in_turns(&self.shared.queue.0);
        std::mem::swap(&mut queue.messages, &mut at_hand);
        let message = message.or_else(|| at_hand.pop_front());
        self.settle(queue, message, at_hand.is_empty())
    }

    fn take_one(&self) -> Result<T, TryRecvError> {
        let mut queue = lock(&self.shared.queue.0);
        let message = queue.messages.pop_front();
        if message.is_some() && !seeded!("room is not told") {
            queue.taken += 1;
            if self.shared.bound == Some(0) {
                // Both the one whose offer was taken and those who have yet to offer may wait.
                self.shared.room.notify_all();
            } else {
                self.shared.room.notify_one();
            }
        }
        let empty = queue.messages.is_empty();
        self.settle(queue, message, empty)
    }

    /// Brings PENDING up to date after a receive that left nothing (`empty`) or something.
    fn settle(
        &self,
        mut queue: MutexGuard<'_, Queue<T>>,
        message: Option<T>,
        empty: bool,
    ) -> Result<T, TryRecvError> {
        let over = queue.senders_gone && message.is_none();
        queue.end_told |= over;
        self.ended.set(over);
        let empty = empty || seeded!("a partial drain counts as empty");
        if empty && (!queue.senders_gone || queue.end_told) && self.shared.signal.is_pending() {
            self.shared.signal.clear_pending();
        }
        message.ok_or(if over { TryRecvError::Disconnected } else { TryRecvError::Empty })
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue.0);
        queue.receiver_gone = true;
        // Offers of a rendezvous go back to those who made them.
        let undelivered = if self.shared.bound == Some(0) {
            VecDeque::new()
        } else {
            std::mem::take(&mut queue.messages)
        };
        if !seeded!("a dead receiver is told") {
            self.shared.signal.clear_pending();
        }
        drop(queue);
        if !seeded!("blocked senders stay") {
            self.shared.room.notify_all();
        }
        // After the lock: a message's destructor may do anything, sending on this channel included.
        drop(undelivered);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("id", &self.get_id()).field("len", &self.len()).finish()
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = TryIter<'a, T>;

    fn into_iter(self) -> TryIter<'a, T> {
        self.try_iter()
    }
}

/// The messages that are there; see [`Receiver::try_iter`].
pub struct TryIter<'a, T> {
    receiver: &'a Receiver<T>,
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

impl<T> fmt::Debug for TryIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryIter").field("receiver", self.receiver).finish()
    }
}
