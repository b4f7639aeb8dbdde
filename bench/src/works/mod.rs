//! The works, one file for each kind.

pub mod channel;
pub mod cross;
pub mod echo;
pub mod frames;
pub mod lookup;
pub mod register;
pub mod timers;
pub mod wait;

use crate::harness::Work;

/// All works, in the order of the report.
pub fn all() -> Vec<Work> {
    let mut all = wait::works();
    all.extend(lookup::works());
    all.extend(register::works());
    all.extend(cross::works());
    all.extend(channel::works());
    all.extend(frames::works());
    all.extend(echo::works());
    all.extend(timers::works());
    all
}
