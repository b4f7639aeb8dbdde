//! Promise 3, waiting: `wait` returns nothing only when its timeout has passed, and never before;
//! signals do not end it, and every duration means what it says.

use crate::common::{LONG, Sleeper, look, new_poller, sorted, unix_pair, until};
#[cfg(target_os = "linux")]
use crate::common::{in_time, next};
use amy::{Event, Poller, Timeout};
use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Waits with nothing to tell, and returns how long that took.
fn waited(poller: &mut Poller, timeout: impl Into<Timeout>) -> Duration {
    let start = Instant::now();
    let batch = poller.wait(timeout).unwrap();
    assert!(batch.is_empty(), "{batch:?}");
    start.elapsed()
}

#[test]
fn nothing_is_told_before_the_timeout_has_passed() {
    let (mut poller, _registrar) = new_poller();
    let micros = [0, 1, 50, 499, 500, 999, 1000, 1001, 1500, 1999, 2000, 2001, 3999, 10_500];
    let short = micros.map(Duration::from_micros);
    let odd = [Duration::from_nanos(1), Duration::from_nanos(1_000_001)];
    for timeout in short.into_iter().chain(odd) {
        for _ in 0..10 {
            let waited = waited(&mut poller, timeout);
            assert!(waited >= timeout, "{waited:?} instead of {timeout:?}");
        }
    }
}

#[test]
fn a_number_is_milliseconds() {
    let (mut poller, _registrar) = new_poller();
    assert!(waited(&mut poller, 30) >= Duration::from_millis(30));
    assert!(waited(&mut poller, Some(Duration::from_millis(30))) >= Duration::from_millis(30));
}

#[test]
fn zero_only_looks() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read).unwrap();
    for zero in [Timeout::from(0), Timeout::from(Duration::ZERO)] {
        assert!(poller.wait(zero).unwrap().is_empty());
        peer.write_all(b"x").unwrap();
        assert_eq!(poller.wait(zero).unwrap()[0].id, id);
    }
}

#[test]
fn waits_below_a_millisecond_are_neither_early_nor_rounded_to_one() {
    let (mut poller, _registrar) = new_poller();
    let timeout = Duration::from_micros(100);
    let mut shortest = Duration::MAX;
    for _ in 0..100 {
        let waited = waited(&mut poller, timeout);
        assert!(waited >= timeout);
        shortest = shortest.min(waited);
    }
    // One that is not delayed by a busy machine is enough to tell.
    until("a wait shorter than a millisecond", || {
        shortest = shortest.min(waited(&mut poller, timeout));
        shortest < Duration::from_millis(1)
    });
}

#[test]
fn a_wait_below_a_millisecond_ends_when_something_is_ready() {
    let (poller, registrar) = new_poller();
    let notifier = registrar.notifier().unwrap();
    let (mut other, _) = new_poller();
    let stop = Arc::new(AtomicBool::new(false));
    let told = {
        let (stop, mut poller) = (Arc::clone(&stop), poller);
        thread::spawn(move || {
            let mut told = 0;
            while !stop.load(Ordering::Relaxed) {
                told += poller.wait(Duration::from_micros(700)).unwrap().len();
            }
            told + poller.wait(0).unwrap().len()
        })
    };
    for _ in 0..100 {
        notifier.notify().unwrap();
        waited(&mut other, Duration::from_micros(300));
    }
    stop.store(true, Ordering::Relaxed);
    let told = told.join().unwrap();
    assert!((1..=100).contains(&told), "{told} of at most 100");
}

#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_waits_does_not_use_the_processor() {
    use rustix::time::{ClockId, clock_gettime};
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();

    let (mut poller, registrar) = new_poller();
    // Timers that are far, or come from time to time, are no reason to look again and again.
    let _far = registrar.set_timeout(Duration::from_secs(3600)).unwrap();
    let before = used();
    let waited = waited(&mut poller, Duration::from_micros(200_700));
    let used = used() - before;
    assert!(used < waited / 4, "{used:?} of {waited:?}");
}

#[test]
fn enormous_timeouts_do_not_end_at_once() {
    let timeouts: [Timeout; 11] = [
        None.into(),
        usize::MAX.into(),
        (usize::MAX / 2).into(),
        (usize::MAX / 2 + 1).into(),
        (i32::MAX as usize).into(),
        (i32::MAX as usize + 1).into(),
        (u32::MAX as usize).into(),
        Duration::from_millis(1 << 32).into(),
        Duration::from_secs(i64::MAX as u64).into(),
        Duration::from_secs(1 << 63).into(),
        Duration::MAX.into(),
    ];
    for timeout in timeouts {
        let (poller, registrar) = new_poller();
        let notifier = registrar.notifier().unwrap();
        let sleeper = Sleeper::start(poller, timeout);
        assert!(!sleeper.is_done(), "{timeout:?} ended at once");
        notifier.notify().unwrap();
        assert_eq!(sleeper.ids(), [notifier.get_id()], "{timeout:?}");
    }
}

#[test]
fn an_enormous_timeout_with_a_timer_running_waits_for_the_timer() {
    let (mut poller, registrar) = new_poller();
    let _never = registrar.set_timeout(Duration::MAX).unwrap();
    let _not_for_centuries = registrar.set_timeout(usize::MAX).unwrap();
    let timer = registrar.set_timeout(5).unwrap();
    assert_eq!(poller.wait(None).unwrap()[0].id, timer.get_id());
}

#[test]
fn a_wake_that_was_for_something_told_already_does_not_end_a_wait() {
    use std::os::fd::AsFd;
    let timeout = Duration::from_millis(20);
    let (mut poller, registrar) = new_poller();
    // Every notification is written to the kernel from now on.
    let _ = poller.as_fd();
    let (tx, rx) = registrar.channel().unwrap();
    let notifier = registrar.notifier().unwrap();

    notifier.notify().unwrap();
    assert_eq!(look(&mut poller), [notifier.get_id()]);
    assert!(waited(&mut poller, timeout) >= timeout);

    tx.send(1).unwrap();
    assert_eq!(rx.try_recv(), Ok(1));
    assert!(waited(&mut poller, timeout) >= timeout);

    tx.send(2).unwrap();
    drop(rx);
    assert!(waited(&mut poller, timeout) >= timeout);
}

#[test]
fn a_look_finds_what_is_ready_behind_a_wake_that_was_for_something_told() {
    use std::os::fd::AsFd;
    let mut poller = Poller::with_capacity(1).unwrap();
    let registrar = poller.get_registrar();
    let _ = poller.as_fd();
    let notifier = registrar.notifier().unwrap();
    let (socket, _peer) = unix_pair();
    for _ in 0..20 {
        notifier.notify().unwrap();
        let id = registrar.register(&socket, Event::Write).unwrap();
        let told = [look(&mut poller), look(&mut poller)].concat();
        assert_eq!(sorted(told), [notifier.get_id(), id]);
        registrar.deregister(&socket).unwrap();
        // An odd number of looks, so that the two take turns in going first.
        assert!(look(&mut poller).is_empty());
    }
}

#[cfg(target_os = "linux")]
mod signals {
    use super::*;
    use crate::common::{alone, is_alone, this_test_alone, this_thread};
    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
    use std::process::Stdio;

    /// Sends signals to the thread that made it, as fast as they are taken, until dropped.
    struct Storm {
        stop: Arc<AtomicBool>,
        thread: Option<thread::JoinHandle<()>>,
    }

    impl Storm {
        fn start() -> Storm {
            signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::default()).unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let (until, target) = (Arc::clone(&stop), this_thread());
            let thread = thread::spawn(move || {
                while !until.load(Ordering::Relaxed) {
                    // The kernel gives it to the thread of this number, unless that is about to
                    // take another.
                    kill_process(target, Signal::USR1).unwrap();
                }
            });
            Storm { stop, thread: Some(thread) }
        }
    }

    impl Drop for Storm {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
            let _ = self.thread.take().map(thread::JoinHandle::join);
        }
    }

    /// How often this thread has gone to sleep.
    fn times_asleep() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }

    // Alone, since a signal that hits another test's sleeper would hide that nothing else woke it.
    #[test]
    fn a_storm_of_signals_neither_ends_a_wait_nor_prolongs_it_for_ever() {
        alone(|| {
            for micros in [900, 100_000, 150_300] {
                in_time(move || wait_in_a_storm(Duration::from_micros(micros)));
            }
        });
    }

    fn wait_in_a_storm(timeout: Duration) {
        let (mut poller, _registrar) = new_poller();
        let _storm = Storm::start();
        until("it was interrupted", || {
            let before = times_asleep();
            assert!(waited(&mut poller, timeout) >= timeout);
            times_asleep() - before > 1
        });
    }

    #[test]
    fn what_becomes_ready_in_a_storm_of_signals_is_told_once() {
        alone(|| in_time(be_told_in_a_storm));
    }

    fn be_told_in_a_storm() {
        let (mut poller, registrar) = new_poller();
        let (socket, mut peer) = unix_pair();
        let id = registrar.register(&socket, Event::Read).unwrap();
        let _storm = Storm::start();
        for _ in 0..200 {
            thread::scope(|scope| {
                let writer = scope.spawn(|| peer.write_all(b"x"));
                assert_eq!(next(&mut poller).id, id);
                writer.join().unwrap().unwrap();
            });
            assert!(look(&mut poller).is_empty());
        }
    }

    #[test]
    fn a_process_that_is_stopped_and_continued_goes_on_waiting() {
        let timeout = Duration::from_millis(300);
        if is_alone() {
            let (mut poller, registrar) = new_poller();
            let _timer = registrar.set_timeout(Duration::from_secs(3600)).unwrap();
            let before = times_asleep();
            assert!(waited(&mut poller, timeout) >= timeout);
            assert!(times_asleep() - before > 2, "it was not interrupted");
            return;
        }
        let mut child = this_test_alone().stdout(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        loop {
            kill_process(pid, Signal::STOP).unwrap();
            let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let status = waitid(WaitId::Pid(pid), options).unwrap().unwrap();
            if !status.stopped() {
                break;
            }
            kill_process(pid, Signal::CONT).unwrap();
            // Long enough for the child to get back into the kernel.
            thread::sleep(Duration::from_millis(2));
        }
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn the_time_already_waited_counts_when_a_wait_is_resumed() {
    let timeout = Duration::from_millis(300);
    // One that is not delayed by a busy machine is enough to tell.
    until("a resumed wait goes on with what is left", || {
        let (poller, registrar) = new_poller();
        let sleeper = Sleeper::start(poller, timeout);
        // Its alarm goes off for nobody, half-way through.
        drop(registrar.set_timeout(timeout / 2).unwrap());
        let woken = sleeper.join();
        assert!(woken.ids().is_empty() && woken.waited >= timeout);
        woken.waited < timeout * 4 / 3
    });
}

#[test]
fn a_wait_for_ever_lasts_until_something_is_ready() {
    let (poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read).unwrap();
    let sleeper = Sleeper::start(poller, None);
    peer.write_all(b"x").unwrap();
    let woken = sleeper.join();
    assert_eq!(woken.ids(), [id]);
    assert!(woken.waited < LONG);
}
