//! Promise 9: never early, from the call on, each once, and an interval's grid never moves.

use crate::common::{Bed, Dice, LONG, alone, descriptors, told};
#[cfg(target_os = "linux")]
use crate::common::{Wakes, open_files};
use amy::{Event, IdMap, Poller, Timeout, Timer};
use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Times that a user may give, and that never pass.
fn endless() -> Vec<Timeout> {
    vec![
        None.into(),
        usize::MAX.into(),
        (usize::MAX - 1).into(),
        usize::try_from(i64::MAX).unwrap_or(usize::MAX).into(),
        usize::try_from(1_u64 << 32).unwrap_or(usize::MAX).into(),
        Duration::MAX.into(),
        Duration::from_secs(u64::MAX).into(),
        Duration::from_secs(i64::MAX.unsigned_abs()).into(),
        Duration::from_nanos(u64::MAX).into(),
        Duration::from_nanos(u64::MAX - 1).into(),
        Duration::from_nanos(i64::MAX.unsigned_abs() + 1).into(),
        Duration::new(i32::MAX.unsigned_abs().into(), 999_999_999).into(),
        Duration::new(u64::from(u32::MAX) + 1, 0).into(),
    ]
}

/// Is told of all `timers`, each a timer and a moment at which it cannot be due yet.
fn never_early(poller: &mut Poller, timers: Vec<(Timer, Instant)>) {
    let mut due: IdMap<_> =
        timers.iter().map(|(timer, earliest)| (timer.get_id(), *earliest)).collect();
    while !due.is_empty() {
        let notifications = poller.wait(LONG).unwrap();
        let now = Instant::now();
        assert!(!notifications.is_empty());
        for n in notifications {
            let earliest = due.remove(&n.id).expect("told once");
            assert!(now >= earliest, "{:?} early", earliest - now);
        }
    }
    assert_eq!(told(poller, 0), []);
}

#[test]
fn a_timer_is_told_once_as_readable() {
    let mut poller = Poller::new().unwrap();
    let timer = poller.get_registrar().set_timeout(1).unwrap();
    let notifications = poller.wait(LONG).unwrap();
    assert_eq!(notifications.len(), 1);
    assert_eq!((notifications[0].id, notifications[0].event), (timer.get_id(), Event::Read));
    assert_eq!(told(&mut poller, 5), []);
}

#[test]
fn a_timer_that_is_alone_is_never_early() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let mut dice = Dice::new(1);
    for _ in 0..1_000 {
        let after = Duration::from_nanos(dice.below(1_500_000));
        let earliest = Instant::now() + after;
        let timer = registrar.set_timeout(after).unwrap();
        never_early(&mut poller, vec![(timer, earliest)]);
    }
}

#[test]
fn timers_among_thousands_are_never_early() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let mut dice = Dice::new(2);
    let timers = (0..5_000).map(|_| {
        let after = Duration::from_nanos(dice.below(60_000_000));
        let earliest = Instant::now() + after;
        (registrar.set_timeout(after).unwrap(), earliest)
    });
    let timers = timers.collect();
    never_early(&mut poller, timers);
}

#[test]
fn the_clock_starts_at_the_call_and_not_when_the_poller_looks() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let timer = registrar.set_timeout(10).unwrap();
    let interval = registrar.set_interval(10).unwrap();
    thread::sleep(Duration::from_millis(11));
    assert_eq!(told(&mut poller, 0), [timer.get_id(), interval.get_id()]);
}

#[test]
fn zero_is_told_by_the_next_wait() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    for zero in [Timeout::from(0), Duration::ZERO.into(), Duration::from_nanos(1).into()] {
        let timer = registrar.set_timeout(zero).unwrap();
        assert_eq!(told(&mut poller, 0), [timer.get_id()]);
        let timer = registrar.set_timeout(zero).unwrap();
        assert_eq!(told(&mut poller, None), [timer.get_id()]);
        timer.reset(zero).unwrap();
        assert_eq!(told(&mut poller, 0), [timer.get_id()]);
        assert_eq!(told(&mut poller, 0), []);
    }
}

#[test]
fn timers_without_a_time_to_wait_are_told_in_the_order_set() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let timers: Vec<_> = (0..1_000).map(|_| registrar.set_timeout(0).unwrap()).collect();
    assert!(told(&mut poller, 0).into_iter().eq(timers.iter().map(Timer::get_id)));
}

#[test]
fn an_interval_of_zero_is_refused() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let error = registrar.set_interval(0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(told(&mut poller, 0), []);

    let interval = registrar.set_interval(1).unwrap();
    let error = interval.reset(Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(told(&mut poller, LONG), [interval.get_id()], "it goes on as before");
    assert!(interval.arm() > 0);
}

#[test]
fn times_of_any_length_are_taken_and_never_come() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let mut timers = Vec::new();
    for time in endless() {
        timers.push(registrar.set_timeout(time).unwrap());
        let interval = registrar.set_interval(time).unwrap();
        assert_eq!(interval.arm(), 0);
        timers.push(interval);
        let timer = registrar.set_timeout(0).unwrap();
        timer.reset(time).unwrap();
        timers.push(timer);
        let interval = registrar.set_interval(1).unwrap();
        interval.reset(time).unwrap();
        timers.push(interval);
    }
    assert_eq!(told(&mut poller, 0), []);
    assert_eq!(told(&mut poller, 3), []);

    // They keep neither a wait nor another timer from coming to its end.
    let soon = registrar.set_timeout(2).unwrap();
    assert_eq!(told(&mut poller, None), [soon.get_id()]);
    for timer in &timers {
        assert_eq!(timer.arm(), 0);
        timer.reset(1).unwrap();
    }
    thread::sleep(2 * MILLI);
    assert_eq!(told(&mut poller, 0).len(), timers.len());
}

#[test]
fn each_endless_time_lets_a_poller_sleep() {
    for time in endless() {
        let mut poller = Poller::new().unwrap();
        let registrar = poller.get_registrar();
        let _timer = registrar.set_timeout(time).unwrap();
        let notifier = registrar.notifier().unwrap();
        let bed = Bed::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                bed.watch();
                notifier.notify().unwrap();
            });
            bed.lie_down();
            assert_eq!(told(&mut poller, time), [notifier.get_id()]);
        });
    }
}

#[test]
fn a_stall_gives_one_notification_and_a_count() {
    let mut poller = Poller::new().unwrap();
    let interval = poller.get_registrar().set_interval(2).unwrap();
    thread::sleep(Duration::from_millis(25));
    assert_eq!(told(&mut poller, 0), [interval.get_id()]);
    assert_eq!(told(&mut poller, 5), [], "until it is armed");
    assert!(interval.arm() >= 15);
    assert_eq!(told(&mut poller, LONG), [interval.get_id()]);
}

#[test]
fn an_interval_that_nobody_arms_is_told_once() {
    let mut poller = Poller::new().unwrap();
    let interval = poller.get_registrar().set_interval(1).unwrap();
    assert_eq!(told(&mut poller, LONG), [interval.get_id()]);
    assert_eq!(told(&mut poller, 10), []);
    assert!(interval.arm() >= 10);
}

#[test]
fn an_interval_is_never_early_and_its_grid_never_moves() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let mut dice = Dice::new(3);
    for period in [Duration::from_micros(300), MILLI, Duration::from_nanos(1_234_567)] {
        let before = Instant::now();
        let interval = registrar.set_interval(period).unwrap();
        let after = Instant::now();
        let mut ticks: u64 = 0;
        for _ in 0..60 {
            assert_eq!(told(&mut poller, LONG), [interval.get_id()]);
            let next = period * u32::try_from(ticks + 1).unwrap();
            assert!(before.elapsed() >= next, "a tick before its time");
            if dice.below(4) == 0 {
                thread::sleep(Duration::from_nanos(dice.below(4_000_000)));
            }

            // The count is that of the whole periods since the start, which lies between `before`
            // and `after`, at some time during the call.
            let at_least = after.elapsed().as_nanos() / period.as_nanos();
            ticks += interval.arm();
            let at_most = before.elapsed().as_nanos() / period.as_nanos();
            assert!(
                (at_least..=at_most).contains(&u128::from(ticks)),
                "a tick was lost or made up"
            );
        }
    }
}

#[test]
fn a_tick_that_is_counted_before_it_is_told_is_not_told_and_the_next_is() {
    let mut poller = Poller::new().unwrap();
    let period = 2 * MILLI;
    let before = Instant::now();
    let interval = poller.get_registrar().set_interval(period).unwrap();
    let mut ticks = 0;
    for _ in 0..20 {
        thread::sleep(period);
        let counted = interval.arm();
        assert!(counted >= 1);
        ticks += counted;
        assert_eq!(told(&mut poller, LONG), [interval.get_id()]);
        assert!(before.elapsed() >= period * u32::try_from(ticks + 1).unwrap());
        ticks += interval.arm();
    }
}

#[test]
fn arming_between_two_ticks_counts_nothing_and_leaves_the_next_where_it_was() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let interval = registrar.set_interval(HOUR).unwrap();
    assert_eq!((interval.arm(), interval.arm()), (0, 0));

    let start = Instant::now();
    let interval = registrar.set_interval(5).unwrap();
    let mut ticks = 0;
    while start.elapsed() < Duration::from_millis(2) {
        ticks += interval.arm();
    }
    assert!(ticks == 0 || start.elapsed() >= Duration::from_millis(5));
    assert_eq!(told(&mut poller, LONG), [interval.get_id()]);
    assert!(interval.arm() >= 1);
}

#[test]
fn a_one_shot_says_once_that_it_was_told_and_does_not_start_again() {
    let mut poller = Poller::new().unwrap();
    let timer = poller.get_registrar().set_timeout(1).unwrap();
    assert_eq!(timer.arm(), 0);
    assert_eq!(told(&mut poller, LONG), [timer.get_id()]);
    assert_eq!(timer.arm(), 1);
    assert_eq!(timer.arm(), 0);
    assert_eq!(told(&mut poller, 3), []);

    timer.reset(0).unwrap();
    assert_eq!(told(&mut poller, 0), [timer.get_id()]);
    timer.reset(HOUR).unwrap();
    assert_eq!(timer.arm(), 0, "a reset forgets");
}

#[test]
fn a_reset_moves_a_timer_to_later_and_to_sooner() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let timer = registrar.set_timeout(0).unwrap();
    timer.reset(HOUR).unwrap();
    assert_eq!(told(&mut poller, 0), []);

    let earliest = Instant::now() + 3 * MILLI;
    timer.reset(3).unwrap();
    assert_eq!(told(&mut poller, LONG), [timer.get_id()]);
    assert!(Instant::now() >= earliest, "from the reset on");

    timer.reset(1).unwrap();
    assert_eq!(told(&mut poller, LONG), [timer.get_id()], "also one that was told");
    assert_eq!(told(&mut poller, 3), []);
}

#[test]
fn a_reset_forgets_what_was_not_told_yet() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let timer = registrar.set_timeout(1).unwrap();
    let interval = registrar.set_interval(1).unwrap();
    thread::sleep(3 * MILLI);
    timer.reset(HOUR).unwrap();
    interval.reset(HOUR).unwrap();
    assert_eq!(told(&mut poller, 0), []);
    assert_eq!(interval.arm(), 0);
}

#[test]
fn a_reset_gives_an_interval_a_new_period_and_a_new_grid() {
    let mut poller = Poller::new().unwrap();
    let interval = poller.get_registrar().set_interval(HOUR).unwrap();
    let period = 2 * MILLI;
    let before = Instant::now();
    interval.reset(period).unwrap();
    let after = Instant::now();
    let mut ticks = 0;
    while ticks < 10 {
        assert_eq!(told(&mut poller, LONG), [interval.get_id()]);
        let at_least = after.elapsed().as_nanos() / period.as_nanos();
        ticks += interval.arm();
        let at_most = before.elapsed().as_nanos() / period.as_nanos();
        assert!((at_least..=at_most).contains(&u128::from(ticks)));
    }
}

#[test]
fn a_timer_that_is_cancelled_stays_silent() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    for cancel in [true, false] {
        let end = |timer| {
            if cancel { registrar.cancel_timeout(timer).unwrap() } else { drop(timer) }
        };
        // Before it is due, when it is due, when it was told.
        end(registrar.set_timeout(1).unwrap());
        let due = registrar.set_timeout(0).unwrap();
        let ticking = registrar.set_interval(1).unwrap();
        thread::sleep(2 * MILLI);
        end(due);
        end(ticking);
        assert_eq!(told(&mut poller, 3), []);

        let timer = registrar.set_timeout(0).unwrap();
        let interval = registrar.set_interval(1).unwrap();
        let mut expected = vec![timer.get_id(), interval.get_id()];
        while let Some(id) = told(&mut poller, LONG).first() {
            expected.retain(|expected| expected != id);
            if expected.is_empty() {
                break;
            }
        }
        interval.arm();
        end(timer);
        end(interval);
        assert_eq!(told(&mut poller, 3), []);
    }
}

#[test]
fn cancelling_hits_no_other_timer() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let mut dice = Dice::new(4);
    let mut timers: Vec<_> = (0..500)
        .map(|_| {
            let after = Duration::from_nanos(dice.below(5_000_000));
            let earliest = Instant::now() + after;
            (registrar.set_timeout(after).unwrap(), earliest)
        })
        .collect();
    for _ in 0..1_000 {
        let victim = dice.index(timers.len());
        let (timer, _) = timers.swap_remove(victim);
        let id = timer.get_id();
        registrar.cancel_timeout(timer).unwrap();
        let after = Duration::from_nanos(dice.below(5_000_000));
        let earliest = Instant::now() + after;
        let timer = registrar.set_timeout(after).unwrap();
        assert_ne!(timer.get_id(), id);
        timers.push((timer, earliest));
    }
    never_early(&mut poller, timers);
}

#[test]
fn a_timer_goes_on_when_the_registrar_that_set_it_is_gone() {
    let mut poller = Poller::new().unwrap();
    let timer = poller.get_registrar().set_timeout(1).unwrap();
    assert_eq!(told(&mut poller, LONG), [timer.get_id()]);
}

#[test]
fn a_timer_set_by_another_thread_during_a_long_wait_is_told_in_time() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let far = registrar.set_timeout(HOUR).unwrap();
    for how in 0..4 {
        let bed = Bed::default();
        thread::scope(|scope| {
            let setter = scope.spawn(|| {
                bed.watch();
                match how {
                    0 => registrar.set_timeout(1).unwrap(),
                    1 => registrar.set_interval(1).unwrap(),
                    2 => registrar.set_timeout(0).unwrap(),
                    _ => {
                        let timer = registrar.set_timeout(HOUR).unwrap();
                        timer.reset(1).unwrap();
                        timer
                    }
                }
            });
            bed.lie_down();
            let batch = told(&mut poller, LONG);
            assert_eq!(batch, [setter.join().unwrap().get_id()]);
        });
    }
    assert_eq!(far.arm(), 0);
}

#[test]
fn an_interval_armed_by_another_thread_during_a_long_wait_is_told() {
    let mut poller = Poller::new().unwrap();
    let interval = poller.get_registrar().set_interval(1).unwrap();
    assert_eq!(told(&mut poller, LONG), [interval.get_id()]);
    let bed = Bed::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            bed.watch();
            interval.arm();
        });
        bed.lie_down();
        assert_eq!(told(&mut poller, LONG), [interval.get_id()]);
    });
}

#[test]
fn a_sleeper_and_a_setter_never_miss_each_other() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let (ask, asked) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let ask = ask;
        scope.spawn(move || {
            let mut dice = Dice::new(5);
            while let Ok(reply) = asked.recv() {
                let reply: std::sync::mpsc::Sender<Timer> = reply;
                for _ in 0..dice.below(300) {
                    std::hint::spin_loop();
                }
                let timer = registrar.set_timeout(Duration::from_nanos(dice.below(100_000)));
                reply.send(timer.unwrap()).unwrap();
            }
        });
        for _ in 0..3_000 {
            let (reply, timer) = std::sync::mpsc::channel();
            ask.send(reply).unwrap();
            let batch = told(&mut poller, LONG);
            assert_eq!(batch, [timer.recv().unwrap().get_id()]);
        }
    });
}

#[test]
fn timers_are_told_to_any_of_several_sleepers_while_others_come_and_go() {
    let first = Poller::new().unwrap();
    let registrar = first.get_registrar();
    let pollers = [first.try_clone().unwrap(), first.try_clone().unwrap(), first];
    let told_of = Mutex::new(Vec::new());
    let over = AtomicBool::new(false);
    let end = registrar.notifier().unwrap();
    thread::scope(|scope| {
        for mut poller in pollers {
            let (told_of, over, end) = (&told_of, &over, &end);
            scope.spawn(move || {
                let mut dice = Dice::new(7);
                while !over.load(Ordering::SeqCst) {
                    // Most waits are too short for any timer.
                    let short = Duration::from_nanos(dice.below(200_000));
                    let timeout = if dice.below(4) == 0 { LONG.into() } else { short.into() };
                    let timeout: Timeout = timeout;
                    let batch = told(&mut poller, timeout);
                    let now = Instant::now();
                    assert!(!batch.is_empty() || timeout != LONG.into(), "a timer was missed");
                    told_of.lock().unwrap().extend(batch.into_iter().map(|id| (id, now)));
                }
                end.notify().unwrap();
            });
        }
        let mut dice = Dice::new(6);
        let mut timers = IdMap::default();
        let mut seen = 0;
        for _ in 0..300 {
            for _ in 0..5 {
                let after = Duration::from_nanos(dice.below(2_000_000));
                let earliest = Instant::now() + after;
                let timer = registrar.set_timeout(after).unwrap();
                timers.insert(timer.get_id(), (timer, earliest));
            }
            let start = Instant::now();
            while seen < timers.len() && start.elapsed() < Duration::from_secs(60) {
                thread::yield_now();
                seen = told_of.lock().unwrap().len();
            }
        }
        let told_of = std::mem::take(&mut *told_of.lock().unwrap());
        over.store(true, Ordering::SeqCst);
        end.notify().unwrap();

        assert_eq!(told_of.len(), timers.len(), "each once");
        for (id, at) in &*told_of {
            let (_timer, earliest) = timers.remove(id).expect("each once");
            assert!(*at >= earliest, "early");
        }
    });
}

#[test]
fn whoever_is_told_of_a_timer_leaves_an_alarm_for_those_who_sleep_on() {
    for _ in 0..10 {
        let first = Poller::new().unwrap();
        let registrar = first.get_registrar();
        let pollers = [first.try_clone().unwrap(), first];
        let over = registrar.notifier().unwrap();
        let beds = [Bed::default(), Bed::default()];
        let (timers, mut ids) = thread::scope(|scope| {
            let sleepers: Vec<_> = (pollers.into_iter().zip(&beds))
                .map(|(mut poller, bed)| {
                    let over = &over;
                    scope.spawn(move || {
                        bed.lie_down();
                        let batch = told(&mut poller, LONG);
                        if batch.len() == 2 {
                            // Late for the first, it was told of both, and the other of none.
                            over.notify().unwrap();
                        }
                        assert!(!batch.is_empty(), "an alarm was missed");
                        (batch, poller)
                    })
                })
                .collect();
            beds.iter().for_each(Bed::watch);
            let timers = [1, 8].map(|after| registrar.set_timeout(after).unwrap());
            let batches: Vec<_> = sleepers.into_iter().map(|s| s.join().unwrap()).collect();
            (timers, batches.into_iter().flat_map(|(batch, _)| batch).collect::<Vec<_>>())
        });
        ids.retain(|&id| id != over.get_id());
        ids.sort_unstable();
        assert!(ids.into_iter().eq(timers.iter().map(Timer::get_id)));
    }
}

#[test]
fn a_timer_cancelled_by_another_thread_is_told_by_no_later_wait() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let gone = Mutex::new(IdMap::default());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..2 {
            let (registrar, gone, over) = (&registrar, &gone, &over);
            scope.spawn(move || {
                let mut dice = Dice::new(100 + seed);
                while !over.load(Ordering::Relaxed) {
                    let after = Duration::from_nanos(dice.below(60_000));
                    let timer = if dice.below(2) == 0 {
                        registrar.set_timeout(after).unwrap()
                    } else {
                        registrar.set_interval(after + Duration::from_nanos(1)).unwrap()
                    };
                    for _ in 0..dice.below(2_000) {
                        std::hint::spin_loop();
                    }
                    let id = timer.get_id();
                    registrar.cancel_timeout(timer).unwrap();
                    gone.lock().unwrap().insert(id, ());
                }
            });
        }
        let mut failure = None;
        for _ in 0..20_000 {
            // Ids only grow, so those up to here that are gone are known before the wait.
            let known = gone.lock().unwrap().clone();
            let wrong = told(&mut poller, 0).into_iter().find(|id| known.contains_key(id));
            failure = failure.or(wrong);
            let mut gone = gone.lock().unwrap();
            if gone.len() > 200 {
                gone.clear();
            }
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(failure, None);
    });
}

#[test]
fn a_hundred_thousand_timers_are_told_in_order_each_once_and_none_early() {
    const TIMERS: usize = 100_000;
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let mut dice = Dice::new(7);
    // The latest of the moments before which one that was told cannot have been due.
    let mut last = Instant::now();
    let mut timers = IdMap::default();
    for _ in 0..TIMERS {
        let after = Duration::from_nanos(dice.below(400_000_000));
        let earliest = Instant::now() + after;
        let timer = registrar.set_timeout(after).unwrap();
        let latest = Instant::now() + after;
        timers.insert(timer.get_id(), (timer, earliest, latest));
    }
    let mut count = 0;
    while count < TIMERS {
        let notifications = poller.wait(LONG).unwrap();
        let now = Instant::now();
        assert!(!notifications.is_empty());
        for n in notifications {
            count += 1;
            let (timer, earliest, latest) = timers.remove(&n.id).expect("each once");
            assert!(now >= earliest, "early");
            assert!(last <= latest, "out of order");
            last = last.max(earliest);
            drop(timer);
        }
    }
    assert!(timers.is_empty());
    assert_eq!(told(&mut poller, 0), []);
}

#[test]
#[cfg(target_os = "linux")]
fn setting_and_cancelling_does_not_wake_the_poller() {
    alone(|| {
        let (mut poller, wakes) = Wakes::of_a_new_poller();
        let registrar = poller.get_registrar();
        let notifier = registrar.notifier().unwrap();
        let bed = Bed::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                bed.watch();
                for i in 0..1_000 {
                    // Each sooner than the one before, so that the alarm has to be set.
                    let timer = registrar.set_timeout(HOUR - MILLI * i).unwrap();
                    let interval = registrar.set_interval(HOUR - MILLI * i).unwrap();
                    timer.reset(HOUR - MILLI * 2 * i).unwrap();
                    interval.reset(HOUR - MILLI * 2 * i).unwrap();
                    assert_eq!(interval.arm(), 0);
                    registrar.cancel_timeout(interval).unwrap();
                }
                assert_eq!(wakes.count(), 0);
                notifier.notify().unwrap();
                assert_eq!(wakes.count(), 1);
            });
            bed.lie_down();
            assert_eq!(told(&mut poller, None), [notifier.get_id()], "no empty batch before it");
        });
    });
}

#[test]
#[cfg(target_os = "linux")]
fn setting_a_timer_asks_nothing_of_the_kernel_while_the_poller_is_awake() {
    alone(|| {
        let poller = Poller::new().unwrap();
        let (alarm, _) =
            open_files().into_iter().find(|(_, link)| link.contains("timerfd")).unwrap();
        let is_set = || {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{alarm}")).unwrap();
            !info.contains("it_value: (0, 0)")
        };
        let registrar = poller.get_registrar();
        let interval = registrar.set_interval(HOUR).unwrap();
        interval.reset(HOUR / 2).unwrap();
        interval.arm();
        drop(registrar.set_timeout(HOUR / 3).unwrap());
        assert!(!is_set(), "nobody relies on it");

        let _ = std::os::fd::AsFd::as_fd(&poller);
        assert!(is_set(), "somebody else may be asleep from here on");
    });
}

#[test]
fn the_alarm_of_a_cancelled_timer_does_not_end_a_wait() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let timer = registrar.set_timeout(2).unwrap();
    let bed = Bed::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            bed.watch();
            registrar.cancel_timeout(timer).unwrap();
        });
        let start = Instant::now();
        bed.lie_down();
        let batch = told(&mut poller, 20);
        // If the machine was so slow that the timer was told before it could be cancelled, nothing
        // was shown.
        assert!(!batch.is_empty() || start.elapsed() >= Duration::from_millis(20));
    });
}

#[test]
fn timers_channels_and_notifiers_cost_no_descriptor() {
    alone(|| {
        let mut poller = Poller::new().unwrap();
        let registrar = poller.get_registrar();
        let before = descriptors();
        let mut timers = Vec::new();
        let mut channels = Vec::new();
        let mut notifiers = Vec::new();
        for i in 0..5_000 {
            timers.push(registrar.set_timeout(i).unwrap());
            timers.push(registrar.set_interval(i + 1).unwrap());
            channels.push(registrar.channel::<u8>().unwrap());
            notifiers.push(registrar.notifier().unwrap());
        }
        assert!(!told(&mut poller, LONG).is_empty());
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn a_poller_inside_another_loop_becomes_readable_when_a_timer_is_due() {
    let mut inner = Poller::new().unwrap();
    let mut outer = Poller::new().unwrap();
    let registrar = inner.get_registrar();
    let before = registrar.set_timeout(1).unwrap();
    let id = outer.get_registrar().register(&inner, Event::Read).unwrap();
    assert_eq!(told(&mut outer, LONG), [id]);
    assert_eq!(told(&mut inner, 0), [before.get_id()]);

    let timer = registrar.set_timeout(1).unwrap();
    assert_eq!(told(&mut outer, LONG), [id]);
    assert_eq!(told(&mut inner, 0), [timer.get_id()]);
    let interval = registrar.set_interval(1).unwrap();
    for _ in 0..5 {
        assert_eq!(told(&mut outer, LONG), [id]);
        assert_eq!(told(&mut inner, 0), [interval.get_id()]);
        interval.arm();
    }
}

#[test]
fn a_timer_says_what_it_is() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let timer = registrar.set_timeout(0).unwrap();
    let id = timer.get_id();
    assert_eq!(format!("{timer:?}"), format!("Timer {{ id: {id}, due_in: Some(0ns) }}"));
    assert!(format!("{poller:?}").contains("running: 1, soonest_in: Some(0ns)"));
    assert_eq!(told(&mut poller, 0), [id]);
    assert_eq!(format!("{timer:?}"), format!("Timer {{ id: {id}, due_in: None }}"));
    assert!(format!("{registrar:?}").contains("running: 0, soonest_in: None"));
}
