//! Timers: a one-shot, an interval that counts its ticks, a deadline that is put off again and
//! again, and one that is cancelled.
//!
//! Everything happens on one thread, and ends by itself within a second. Run it with
//!
//! ```text
//! cargo run --example timers
//! ```

use amy::Poller;
use std::{
    io, thread,
    time::{Duration, Instant},
};

fn main() -> io::Result<()> {
    let mut poller = Poller::new()?;
    let registrar = poller.get_registrar();
    let start = Instant::now();
    let say = |what: &str| println!("{:4} ms  {what}", start.elapsed().as_millis());

    // Milliseconds, or a Duration. The clock starts here, not when the poller first looks.
    let hello = registrar.set_timeout(75)?;
    let mut tick = Some(registrar.set_interval(Duration::from_millis(50))?);
    // What a server does for each connection: give up when nothing was heard for a while.
    let idle = registrar.set_timeout(150)?;
    let mut never = Some(registrar.set_timeout(200)?);
    say("set: hello in 75 ms, a tick every 50 ms, idle after 150 ms, never in 200 ms");

    let mut ticks = 0;
    loop {
        for n in poller.wait(None)? {
            if n.id == hello.get_id() {
                say("hello: told once; it cancels the timer that was to be told at 200 ms");
                if let Some(timer) = never.take() {
                    registrar.cancel_timeout(timer)?;
                }
            } else if n.id == idle.get_id() {
                say("idle: nothing has put it off for 150 ms, the end");
                return Ok(());
            } else if let Some(interval) = tick.as_ref().filter(|tick| n.id == tick.get_id()) {
                // An interval tells once and then waits for this call. The ticks themselves stay
                // where they are, at whole multiples of 50 ms.
                let passed = interval.arm();
                ticks += passed;
                say(&format!(
                    "tick: {passed} since the last time, {ticks} in all; idle is put off"
                ));
                idle.reset(150)?;
                if ticks == 3 {
                    say("      busy for 120 ms: the ticks that pass become one notification");
                    thread::sleep(Duration::from_millis(120));
                }
                if ticks >= 8 {
                    say("      eight ticks are enough: dropping a timer cancels it");
                    tick = None;
                }
            }
        }
    }
}
