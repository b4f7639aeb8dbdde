//! Readiness, timers and channels under one kind of id, for multi-threaded network servers without
//! async.
//!
//! A [`Poller`] waits, a [`Registrar`] (cloned to any thread) registers, and everything that can
//! become ready (a socket, a timer, a channel) has one id that is never used again. Sockets are
//! std's and stay the user's. The [guide] goes through all of it, program by program.
//!
//! ```
//! use amy::{Event, Poller};
//! use std::{io::Write, net::{TcpListener, TcpStream}};
//!
//! # fn main() -> std::io::Result<()> {
//! let mut poller = Poller::new()?;
//! let registrar = poller.get_registrar();
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! listener.set_nonblocking(true)?;
//! let listener_id = registrar.register(&listener, Event::Read)?;
//!
//! let _client = TcpStream::connect(listener.local_addr()?)?;
//! for n in poller.wait(5000)? {
//!     if n.id == listener_id {
//!         let (mut socket, _) = listener.accept()?;
//!         socket.write_all(b"welcome")?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Promises
//!
//! Each names the tests that hold it and the place that says more. *Later* means: starts after the
//! other returned, or after something else that happens after that.
//!
//! 1. **Ids.** No id is used twice in a process, by whatever poller. When they run out (which takes
//!    a 32-bit system) the call fails; they never wrap. *Tests: [ids.rs]; see [`IdMap`].*
//! 2. **From anywhere.** Registering, changing, removing, timers and channels work from any thread,
//!    take effect at once, and never make a blocked `wait` return with nothing. *Tests:
//!    [from_anywhere.rs]; see [`Registrar`].*
//! 3. **Waiting.** `wait` returns an empty batch only when its timeout has passed, and never before
//!    that. Signals do not end it, and the time already waited counts. Any duration will do.
//!    *Tests: [waiting.rs]; see [`Poller::wait`].*
//! 4. **Nothing lost.** What the kernel handed over is delivered. An error comes from the call that
//!    needed the resource, has its OS code, and leaves all as it was. *Tests: [nothing_lost.rs];
//!    see [what calls may say](guide#what-amys-own-calls-may-say).*
//! 5. **Removal.** After a `deregister` or a cancel has returned, no later `wait` reports the id. A
//!    batch that was returned before may hold it. *Tests: [removal.rs]; see
//!    [`Registrar::deregister`].*
//! 6. **Ends and errors.** A hang-up or an error is told as readable and writable, of what was
//!    asked. What is queued can be read before the error shows. *Tests: [ends_and_errors.rs]; see
//!    [errors, ends and hang-ups](guide#errors-ends-and-hang-ups).*
//! 7. **Several waiters.** A registration may be told to a second thread while the first still
//!    works on it. With [`once`](Event::once) it has one owner until it is registered again.
//!    *Tests: [waiters.rs], [interest.rs]; see [`Poller::try_clone`].*
//! 8. **Channels.** `wait` reports a receiver as long as there is something to receive, and not
//!    when there is nothing. A `send` that returned is announced without any other thread's help.
//!    Each sender's order is kept, and a message that cannot be delivered comes back. The drop of
//!    the last sender is reported. A burst costs one system call. *Tests: [channels.rs],
//!    [notifiers.rs]; see [`Receiver`], [`Notifier`].*
//! 9. **Timers.** Never early. The clock starts at the call. Zero fires at the next `wait`; an
//!    interval of zero is refused. A stall gives one notification and a count. The ticks of an
//!    interval never drift. No timer costs a descriptor. *Tests: [timers.rs]; see [`Timer`].*
//! 10. **Frames.** What comes out depends on the bytes alone, not on how they were split or
//!     delayed. What is over the limit is refused before anything is allocated for it. A partial
//!     message takes memory for what came, not for what was announced. A clean end, an end inside a
//!     message, nothing to read and an error are four different answers, and complete messages come
//!     first. What was sent before a failed write is a prefix of what was queued. No `Read`,
//!     however wrong, shows memory that it did not write. *Tests: [frames.rs], [lines.rs]; see
//!     [`FrameReader`], [`FrameWriter`], [`LineReader`].*
//! 11. **Bounded.** Every call does a bounded amount of work, whatever a peer sends, and what
//!     remains is announced again or said to remain. Every queue has a limit, or says that it has
//!     none. Idle readers and writers hold no buffer. *Tests: [bounded.rs]; see [backpressure and
//!     limits](guide#backpressure-and-limits).*
//! 12. **Lifetimes.** Every descriptor is close-on-exec, and closed once, when its last owner goes,
//!     in whatever order. Nothing acts on a number after its owner closed it, and no socket of the
//!     user's is ever closed. When the last poller is gone, a registrar says `BrokenPipe` and gives
//!     back what it was handed. *Tests: [lifetimes.rs], [fork_exec.rs]; see [shutting
//!     down](guide#shutting-down).*
//! 13. **No allocation** in `wait`, in `register`, nor in notifying, once warm. (A channel's queue
//!     grows as it must.) *Tests: [allocations.rs], [alloc_codec.rs]; see [`Poller::wait`].*
//! 14. **No unsafe code** in the Linux build. *Tests: [tidy.rs].*
//!
//! Not promised: fairness between threads, precision beyond the kernel's, detection of a peer that
//! died, a poller that works in the child after `fork`, silence of a duplicate of a descriptor that
//! was closed without `deregister` (its old id tells it apart), and readiness that is never
//! spurious.
//!
//! # When to use something else
//!
//! * You want async: tokio has everything, at its price.
//! * You want readiness and nothing else, or Windows: mio and polling. [Coming from](coming_from)
//!   sets their calls beside amy's.
//! * You want an event loop with callbacks: calloop.
//! * Your server has a hundred connections: a thread each, blocking, is simplest.
//!
//! # Features
//!
//! `tracing`, off by default and free when off: events of the level `TRACE` and the target `amy`
//! for each registration, timer, `wait`, and wake of a sleeping poller. The subscriber runs on the
//! thread that made the call, while no lock is held.
//!
//! # Platforms
//!
//! Linux with epoll; macOS and the BSDs with kqueue. The promises are the same on all of them.
//! [README.md] says what has been run where, [portability.md] how systems differ, [design.md] why
//! amy is as it is, and [performance.md] what it costs. Rust 1.85 or newer.
//!
//! [README.md]: https://github.com/andrewjstone/amy/blob/HEAD/README.md
//! [portability.md]: https://github.com/andrewjstone/amy/blob/HEAD/docs/portability.md
//! [design.md]: https://github.com/andrewjstone/amy/blob/HEAD/docs/design.md
//! [performance.md]: https://github.com/andrewjstone/amy/blob/HEAD/docs/performance.md
//! [ids.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/ids.rs
//! [from_anywhere.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/from_anywhere.rs
//! [waiting.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/waiting.rs
//! [nothing_lost.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/nothing_lost.rs
//! [removal.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/removal.rs
//! [ends_and_errors.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/ends_and_errors.rs
//! [waiters.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/waiters.rs
//! [interest.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/interest.rs
//! [channels.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/channels.rs
//! [notifiers.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/notifiers.rs
//! [timers.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/timers.rs
//! [frames.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/frames.rs
//! [lines.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/lines.rs
//! [bounded.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/bounded.rs
//! [lifetimes.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/lifetimes.rs
//! [fork_exec.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/fork_exec.rs
//! [allocations.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/allocations.rs
//! [alloc_codec.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/alloc_codec.rs
//! [tidy.rs]: https://github.com/andrewjstone/amy/blob/HEAD/tests/it/tidy.rs

// The modules, in the order in which to read them. Each may use only those below it.
#[forbid(unsafe_code)]
#[cfg(all(test, amy_loom))]
mod models;
#[forbid(unsafe_code)]
mod poller;
#[forbid(unsafe_code)]
mod registrar;
#[forbid(unsafe_code)]
mod channel;
#[forbid(unsafe_code)]
mod timer;
#[forbid(unsafe_code)]
mod notifier;
mod sys;
#[forbid(unsafe_code)]
mod notification;
#[forbid(unsafe_code)]
mod timeout;
#[forbid(unsafe_code)]
mod id;
#[forbid(unsafe_code)]
mod sync;
#[forbid(unsafe_code)]
mod trace;
#[forbid(unsafe_code)]
mod codec;

#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

#[doc = include_str!("../docs/coming-from.md")]
pub mod coming_from {}

// Keeps the programs of the README compiling.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use channel::{Receiver, Sender, SyncSender, TryIter};
pub use codec::{
    FrameError, FrameIter, FrameReader, FrameWriter, LineBytesIter, LineError, LineIter,
    LineReader, OwnedFrames, Refusal, Refused,
};
pub use id::{IdHasher, IdMap};
pub use notification::{Event, Interest, Notification};
pub use notifier::Notifier;
pub use poller::{Notifications, Poller};
pub use registrar::Registrar;
pub use timeout::Timeout;
pub use timer::Timer;
