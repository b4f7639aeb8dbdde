//! What the servers of this package have in common; each is a program in `src/bin/`.
//!
//! It is no framework: a server owns its threads, its pollers and its connections, and takes from here
//! what every server needs and none wants to get wrong.
//!
//! - [`run`], [`within`], [`log`]: arguments, one line for each bad one, and for what happens later.
//! - [`Stop`]: Ctrl-C and SIGTERM as something to wait for.
//! - [`Acceptor`], [`Place`]: a limit on connections, and the listener's edge that is never forgotten.
//! - [`Idle`]: the end of those who say nothing.
//! - [`Unfinished`], [`Next`], [`Farewell`], [`LINGER`]: turns for everybody, and time to leave.
//! - [`fill`], [`drain`]: bytes from and to a socket, with a bound.
//! - [`resp`], [`data`]: the protocol and the state of a key-value server, alone or replicated.

mod accept;
mod args;
pub mod data;
mod idle;
mod io;
pub mod resp;
mod stop;
mod turns;

pub use accept::{Accepted, Acceptor, Place, accept, listen, raise_descriptor_limit};
pub use args::{log, run, within};
pub use idle::Idle;
pub use io::{Filled, drain, fill};
pub use stop::Stop;
pub use turns::{Farewell, LINGER, Next, Unfinished};
