//! Notifiers, and the handshake between those who notify and those who sleep.
//!
//! # The handshake
//!
//! Any number of threads notify, any number wait on one kernel queue, and a write to the kernel is
//! worth avoiding: it is needed only if somebody sleeps whom nobody has woken yet. Two promises
//! make that delicate. A notification that has returned is told without the help of any other
//! thread, also if another notifier stalls half-way; and nobody sleeps while something is to be
//! told.
//!
//! There is one word for each notifier and one for all of them:
//!
//! ```text
//! Node::flags   PENDING   there is something to tell
//!               ON_LIST   the node is on the ready list
//! Hub::state    LISTED    the ready list may hold something
//!               sleepers  how many threads are in the kernel, or about to be
//!               WOKEN     a write to the kernel has returned, and its edge was not taken yet
//!               epoch     how often an edge was taken
//! ```
//!
//! ```text
//! notify:  1 set PENDING                     wait:  1 if LISTED: tell, do not sleep
//!          2 unless ON_LIST: put on the list        2 sleepers + 1, and back to 1 if LISTED
//!          3 set state.LISTED                       3 sleep in the kernel
//!          4 if sleepers and not WOKEN:             4 sleepers - 1; if the edge was among what
//!              write, then set WOKEN                    the kernel gave: clear WOKEN, epoch + 1
//!              if the epoch is unchanged            5 look at the list, and tell
//!                                                   6 if something is left that nobody was told:
//!                                                       steps 3 and 4 of notify, for the others
//! ```
//!
//! **Nobody sleeps over a notification.** Notify's step 3 and wait's step 2 are read-modify-writes
//! of one word, so one comes first. If 3 does, 2 sees LISTED and the waiter does not sleep; if 2
//! does, 3 sees the sleeper, and writes or finds WOKEN. LISTED is cleared only under the lock of an
//! empty list, and a node leaves the list only by a compare-and-swap that fails while PENDING is
//! set. A batch has an end, so a waiter may leave a node on the list that it did not tell; step 6
//! then wakes one of those who still sleep.
//!
//! **WOKEN may be trusted.** It is set after a write returned, and only if no edge was taken (the
//! epoch) since the writer looked. So while it is set, either the edge is still in the kernel,
//! which gives it to a sleeper or to the next who asks, or somebody has taken it and has yet to do
//! step 4. Either way a thread will do step 4 and then look at the list, in step 5; and a notifier
//! that finds WOKEN had its node on the list before that. Without the epoch, a writer that stalls
//! between writing and setting WOKEN would set it for an edge long gone, and nobody would write for
//! those who sleep now. It matters that it is whoever *took* the edge that does step 4, also if it
//! only looked and did not sleep: the kernel gives an edge to the first who asks, not to the one
//! whom it woke.
//!
//! **Nobody depends on a stalled thread.** Each flag is set after the fact that it stands for:
//! LISTED and ON_LIST after the node is on the list, WOKEN after the write. A notifier that does
//! not find the flag does the work itself, whoever else may be about to. The one thing it can wait
//! for is the lock of the list, and nothing is done under that lock but pushing and popping: no
//! system call, no allocation in notifying, no user's code.
//!
//! **Reading `state` instead of modifying it** is enough in step 3 where the flag is set already,
//! and spares a burst of senders from fighting over the word. The node was put on the list under
//! its lock, by this thread or by one whose setting of ON_LIST this one has read; so the read
//! cannot return a state older than the last clearing of the list before that, and any waiter that
//! went past the list later has seen the node.
//!
//! The descriptor of a poller can also wait inside another loop. Then somebody sleeps at all times
//! as far as anyone here can know: EXTERNAL stands for that sleeper, and a `wait` that leaves
//! anything on the list, told or not, does step 6.

use crate::{
    id,
    notification::{Event, Notification},
    sync::{Arc, AtomicU8, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock, seeded},
    sys,
    trace::trace,
};
use std::{collections::VecDeque, fmt, io};

/// There is something to tell of a [`Node`].
const PENDING: u8 = 1;
/// A [`Node`] is on the ready list.
const ON_LIST: u8 = 2;

/// [`Hub::state`]: the lowest bits count the sleepers.
const ONE_SLEEPER: u64 = 1;
const SLEEPERS: u64 = (1 << 20) - 1;
const LISTED: u64 = 1 << 20;
const WOKEN: u64 = 1 << 21;
const EXTERNAL: u64 = 1 << 22;
/// What is set if a thread sleeps, as far as anyone here can know.
const ASLEEP: u64 = SLEEPERS | EXTERNAL;
/// The last poller is gone.
const CLOSED: u64 = 1 << 23;
/// The epoch is all that is left: 40 bits. To be fooled, a writer must stall for exactly 2^40
/// edges.
const ONE_EPOCH: u64 = 1 << 24;

/// What pollers and everything that notifies them share.
pub(crate) struct Hub {
    pub(crate) queue: sys::Queue,
    state: AtomicU64,
    ready: Mutex<Ready>,
    /// How many pollers wait on the queue; the hub is closed when none is left.
    pollers: AtomicUsize,
}

struct Ready {
    /// The nodes that were announced, those waiting longest first. Each is here at most once.
    list: VecDeque<Arc<Node>>,
    /// How many signals there are; `list` has room for all of them besides those on it that are
    /// gone, so that announcing never allocates.
    signals: usize,
}

/// One source of notifications, as the ready list knows it.
pub(crate) struct Node {
    id: usize,
    /// Told for as long as it is pending (a channel), or once for each setting (a notifier).
    level: bool,
    flags: AtomicU8,
}

impl Hub {
    pub(crate) fn new() -> io::Result<Hub> {
        Ok(Hub {
            queue: sys::Queue::new()?,
            state: AtomicU64::new(0),
            ready: Mutex::new(Ready { list: VecDeque::new(), signals: 0 }),
            pollers: AtomicUsize::new(1),
        })
    }

    /// `Ok` as long as there is a poller.
    pub(crate) fn open(&self) -> io::Result<()> {
        if self.is_closed() { Err(gone()) } else { Ok(()) }
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    pub(crate) fn add_poller(&self) {
        self.pollers.fetch_add(1, Ordering::Relaxed);
    }

    /// One poller less. What it would have told, another one tells.
    pub(crate) fn remove_poller(&self) {
        if self.pollers.fetch_sub(1, Ordering::AcqRel) == 1 && !seeded!("never closed") {
            self.state.fetch_or(CLOSED, Ordering::AcqRel);
            let unheard = std::mem::take(&mut lock(&self.ready).list);
            drop(unheard);
        } else if self.may_have_ready() && !seeded!("a poller that goes tells nobody") {
            // It cannot be told of a failure, and the next notification tries again.
            let _ = self.wake();
        }
    }

    /// Whether a thread is in the kernel, or another loop may be.
    ///
    /// It modifies the state, so that a sleeper that comes later sees what the caller wrote before.
    pub(crate) fn someone_sleeps(&self) -> bool {
        let state = if seeded!("the word is only read") {
            self.state.load(Ordering::Acquire)
        } else {
            self.state.fetch_or(0, Ordering::AcqRel)
        };
        state & ASLEEP != 0
    }

    /// From now on another loop may be waiting for the queue's own descriptor.
    pub(crate) fn watch_from_outside(&self) {
        if self.state.load(Ordering::Relaxed) & EXTERNAL == 0 {
            self.state.fetch_or(EXTERNAL, Ordering::AcqRel);
        }
        if self.may_have_ready() && !seeded!("a watcher is not told what is there") {
            // It cannot be told of a failure, and the next notification tries again.
            let _ = self.wake();
        }
    }

    /// Whether another loop may be waiting for the queue's own descriptor.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.state.load(Ordering::Acquire) & EXTERNAL != 0
    }

    /// Step 2 of wait: counts the caller among the sleepers, unless there is something to tell.
    #[inline]
    pub(crate) fn fall_asleep(&self) -> bool {
        let before = self.state.fetch_add(ONE_SLEEPER, Ordering::AcqRel);
        if before & LISTED != 0 && !seeded!("LISTED is not looked at again") {
            self.state.fetch_sub(ONE_SLEEPER, Ordering::AcqRel);
            return false;
        }
        true
    }

    /// Step 4 of wait, for one that slept.
    #[inline]
    pub(crate) fn wake_up(&self, took_edge: bool) {
        self.leave(ONE_SLEEPER, took_edge);
    }

    /// Step 4 of wait, for one that looked into the kernel without sleeping.
    #[inline]
    pub(crate) fn looked(&self, took_edge: bool) {
        if took_edge && !seeded!("only sleepers clear WOKEN") {
            self.leave(0, true);
        }
    }

    #[inline]
    fn leave(&self, sleepers: u64, took_edge: bool) {
        if took_edge {
            // Cannot fail: the closure always gives a value.
            let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
                Some((state - sleepers).wrapping_add(ONE_EPOCH) & !WOKEN)
            });
        } else {
            self.state.fetch_sub(sleepers, Ordering::AcqRel);
        }
    }

    /// Whether the list holds something to tell. Drops from it what has nothing.
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        self.may_have_ready() && self.list_has_ready()
    }

    fn list_has_ready(&self) -> bool {
        let mut ready = lock(&self.ready);
        while let Some(node) = ready.list.front() {
            if !node.take_off() {
                return true;
            }
            ready.list.pop_front();
        }
        self.note_empty(&ready);
        false
    }

    /// Steps 5 and 6 of wait: appends at most `room` notifications, those waiting longest first,
    /// and wakes another waiter for what it had no room for.
    #[inline]
    pub(crate) fn collect(&self, room: usize, out: &mut Vec<Notification>) {
        if self.may_have_ready() {
            self.collect_list(room, out);
        }
    }

    fn collect_list(&self, room: usize, out: &mut Vec<Notification>) {
        let mut ready = lock(&self.ready);
        let mut told = 0;
        let mut unseen = ready.list.len();
        while told < room && unseen > 0 {
            let Some(node) = ready.list.pop_front() else { break };
            unseen -= 1;
            if node.take_off() {
                continue;
            }
            out.push(Notification::new(node.id, Event::Read));
            told += 1;
            if !node.tell() {
                ready.list.push_back(node);
            }
        }
        self.note_empty(&ready);
        drop(ready);

        let for_whom = if unseen > 0 { ASLEEP } else { EXTERNAL };
        let state = self.state.load(Ordering::Acquire);
        if state & LISTED != 0 && state & for_whom != 0 && !seeded!("nothing is passed on") {
            // It cannot be told of a failure, and the next `wait` finds what is there.
            let _ = self.wake();
        }
    }

    #[inline]
    fn may_have_ready(&self) -> bool {
        self.state.load(Ordering::Acquire) & LISTED != 0
    }

    fn note_empty(&self, ready: &MutexGuard<'_, Ready>) {
        if ready.list.is_empty() || seeded!("LISTED is cleared too early") {
            self.state.fetch_and(!LISTED, Ordering::AcqRel);
        }
    }

    /// Whether steps 3 and 4 of notify find nothing to do, as in the midst of a burst.
    #[inline]
    fn is_seen_to(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        let asleep = state & ASLEEP != 0 && state & WOKEN == 0;
        state & (LISTED | CLOSED) == LISTED && !asleep
    }

    /// Steps 2 to 4 of notify, for a node that is pending.
    fn announce(&self, node: &Arc<Node>) -> io::Result<()> {
        if !node.is_on_list() {
            let mut ready = lock(&self.ready);
            if node.flags.load(Ordering::Relaxed) & ON_LIST == 0 {
                ready.list.push_back(Arc::clone(node));
                node.flags.fetch_or(ON_LIST, Ordering::AcqRel);
            }
        }
        self.wake()
    }

    /// Steps 3 and 4 of notify: sees to it that some waiter looks at the list.
    fn wake(&self) -> io::Result<()> {
        let mut state = self.state.load(Ordering::Acquire);
        if state & LISTED == 0 {
            state = self.state.fetch_or(LISTED, Ordering::AcqRel) | LISTED;
        } else if seeded!("who sets LISTED does the waking") {
            return Ok(());
        }
        if state & ASLEEP != 0 && state & WOKEN == 0 {
            self.queue.wake()?;
            let epoch = state / ONE_EPOCH;
            let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
                (state / ONE_EPOCH == epoch || seeded!("no epoch")).then_some(state | WOKEN)
            });
            trace!("woke a poller");
        }
        if state & CLOSED != 0 { Err(gone()) } else { Ok(()) }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.load(Ordering::Relaxed);
        f.debug_struct("Hub")
            .field("queue", &self.queue)
            .field("asleep", &(state & SLEEPERS))
            .field("watched_from_outside", &(state & EXTERNAL != 0))
            .field("closed", &(state & CLOSED != 0))
            .finish_non_exhaustive()
    }
}

impl Node {
    #[inline]
    fn is_on_list(&self) -> bool {
        self.flags.load(Ordering::Acquire) & ON_LIST != 0
    }

    /// Takes a node that has nothing to tell off the list, and says whether it did.
    fn take_off(&self) -> bool {
        self.flags.compare_exchange(ON_LIST, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// To be called when a pending node was told: says whether it is off the list.
    fn tell(&self) -> bool {
        if !self.level {
            // Acquire: what a notifier did before is seen by whoever is told.
            let order =
                if seeded!("telling is relaxed") { Ordering::Relaxed } else { Ordering::AcqRel };
            self.flags.swap(0, order);
        }
        !self.level
    }
}

/// One source of notifications, as its owner knows it. Removed when it is dropped.
pub(crate) struct Signal {
    hub: Arc<Hub>,
    node: Arc<Node>,
}

impl Signal {
    /// A new source; `level` if it is told for as long as it is pending.
    pub(crate) fn new(hub: &Arc<Hub>, level: bool) -> io::Result<Signal> {
        hub.open()?;
        let node = Arc::new(Node { id: id::next()?, level, flags: AtomicU8::new(0) });
        let mut ready = lock(&hub.ready);
        ready.signals += 1;
        // Any node on the list may be that of a signal that is gone.
        let signals = ready.signals;
        ready.list.reserve(signals);
        drop(ready);
        Ok(Signal { hub: Arc::clone(hub), node })
    }

    pub(crate) fn id(&self) -> usize {
        self.node.id
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.hub.is_closed()
    }

    /// Step 1 of notify.
    pub(crate) fn set_pending(&self) {
        self.node.flags.fetch_or(PENDING, Ordering::AcqRel);
    }

    pub(crate) fn clear_pending(&self) {
        self.node.flags.fetch_and(!PENDING, Ordering::AcqRel);
    }

    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.node.flags.load(Ordering::Acquire) & PENDING != 0
    }

    /// Steps 2 to 4 of notify: returns when a `wait` is sure to look. `Err` is `BrokenPipe` if
    /// there is no poller any more, or what the kernel said of the wake; it stays pending.
    #[inline]
    pub(crate) fn announce(&self) -> io::Result<()> {
        if self.node.is_on_list() && self.hub.is_seen_to() {
            return Ok(());
        }
        self.hub.announce(&self.node)
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        lock(&self.hub.ready).signals -= 1;
    }
}

/// Makes a [`Poller`](crate::Poller) report an id: the primitive under channels, for those who
/// bring their own queue.
///
/// Made by [`Registrar::notifier`](crate::Registrar::notifier). Clones notify under the same id.
/// It costs no descriptor. When the last clone is dropped, a notification that was not told yet is
/// still told, and takes its few bytes on a list until a `wait` comes for it.
///
/// # Examples
///
/// A queue of one's own, and a thread that announces what it puts there:
///
/// ```
/// use amy::Poller;
/// use std::{sync::{Arc, Mutex}, thread};
///
/// # fn main() -> std::io::Result<()> {
/// let mut poller = Poller::new()?;
/// let notifier = poller.get_registrar().notifier()?;
/// let id = notifier.get_id();
///
/// let queue = Arc::new(Mutex::new(Vec::new()));
/// let theirs = Arc::clone(&queue);
/// let producer = thread::spawn(move || {
///     theirs.lock().unwrap().push("work");
///     notifier.notify() // after the push, so that whoever is told finds it
/// });
///
/// let notifications = poller.wait(5000)?;
/// assert_eq!(notifications[0].id, id);
/// assert_eq!(queue.lock().unwrap().pop(), Some("work"));
/// producer.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Notifier {
    signal: Arc<Signal>,
}

impl Notifier {
    pub(crate) fn new(hub: &Arc<Hub>) -> io::Result<Notifier> {
        Ok(Notifier { signal: Arc::new(Signal::new(hub, false)?) })
    }

    /// The id that `wait` reports.
    #[must_use]
    pub fn get_id(&self) -> usize {
        self.signal.id()
    }

    /// Has the id reported by a `wait` that is under way or starts later.
    ///
    /// Any number of calls before that `wait` become one notification. What the caller did before
    /// is visible to the thread that is told. When it returns, no other thread's help is needed any
    /// more. It writes to the kernel only if a poller sleeps and has not been woken yet (or if the
    /// poller is [inside another loop](crate::Poller#impl-AsFd-for-Poller)); it does not allocate,
    /// and blocks no longer than it takes to push to a list.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` if every poller is gone; else what the kernel said of the wake. In that case
    /// the id is still reported by the next `wait`, but one that is asleep may not have been woken:
    /// call again.
    pub fn notify(&self) -> io::Result<()> {
        self.signal.set_pending();
        self.signal.announce()
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier")
            .field("id", &self.get_id())
            .field("pending", &self.signal.is_pending())
            .finish()
    }
}

/// What everything says that needs a poller when the last one is gone.
fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the poller is gone")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hub in each state that a handful of flags can make, with what is set.
    fn states() -> impl Iterator<Item = (Hub, [bool; 5])> {
        (0..1_u32 << 5).map(|bits| {
            let set = [0, 1, 2, 3, 4].map(|bit| bits & 1 << bit != 0);
            let flags = [3 * ONE_SLEEPER, EXTERNAL, WOKEN, LISTED, CLOSED];
            let state = flags.iter().zip(set).filter(|(_, set)| *set).map(|(flag, _)| flag).sum();
            let hub = Hub::new().unwrap();
            hub.state.store(state, Ordering::Relaxed);
            (hub, set)
        })
    }

    #[test]
    fn a_burst_has_nothing_to_do_where_a_wait_is_sure_to_look() {
        for (hub, [sleepers, external, woken, listed, closed]) in states() {
            assert_eq!(hub.someone_sleeps(), sleepers || external);
            assert_eq!(hub.is_watched(), external);
            assert_eq!(hub.is_closed(), closed);
            let awake = woken || !(sleepers || external);
            assert_eq!(hub.is_seen_to(), listed && !closed && awake, "{hub:?}");
        }
    }

    #[test]
    fn a_hub_is_ready_while_a_node_on_its_list_is_pending() {
        let hub = Arc::new(Hub::new().unwrap());
        assert!(!hub.has_ready());
        let signals = [(); 2].map(|()| Signal::new(&hub, true).unwrap());
        for signal in &signals {
            assert!(!signal.node.is_on_list());
            signal.set_pending();
            signal.announce().unwrap();
            assert!(signal.node.is_on_list());
        }
        assert!(hub.has_ready());
        signals[0].clear_pending();
        assert!(hub.has_ready());
        assert!(!signals[0].node.is_on_list());
        signals[1].clear_pending();
        assert!(hub.may_have_ready());
        assert!(!hub.has_ready());
        assert!(!hub.may_have_ready(), "noted");
    }
}
