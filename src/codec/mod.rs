//! Bytes in, messages out, and back: over any `Read` and `Write`, without a system call.
//!
//! Nothing here knows of pollers, and nothing from the rest of the crate is used here.

mod frame;
mod inbox;
mod line;
mod outbox;
mod spare;

pub use frame::{FrameIter, FrameReader, FrameWriter, OwnedFrames, Refusal, Refused};
pub use inbox::FrameError;
pub use line::{LineBytesIter, LineError, LineIter, LineReader};
