//! Readiness, timers and channels under one kind of id, for multi-threaded network servers
//! without async.

// The modules, in the order in which to read them. Each may use only those below it.
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
mod codec;

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
