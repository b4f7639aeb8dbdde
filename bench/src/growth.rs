//! How amy's cost grows with what there is of something.

use crate::{
    harness::{Contender, Work},
    works,
};

/// One question: the works have the same group, and each contender is a size.
pub struct Growth {
    pub id: &'static str,
    pub title: &'static str,
    /// What is counted along the axis.
    pub of: &'static str,
    pub sizes: Vec<u64>,
    pub work: Work,
    /// Whether the processor's time is shown, or the wall clock's.
    pub figure: &'static str,
}

fn name(size: u64) -> &'static str {
    Box::leak(size.to_string().into_boxed_str())
}

fn growth(
    id: &'static str,
    title: &'static str,
    of: &'static str,
    sizes: Vec<u64>,
    figure: &'static str,
    set_up: impl Fn(u64) -> crate::harness::Turn + Clone + 'static,
) -> Growth {
    let mut work = Work::new("growth", id, title);
    work.contenders = sizes
        .iter()
        .map(|&size| {
            let set_up = set_up.clone();
            Contender::new(name(size), move || set_up(size))
        })
        .collect();
    Growth { id, title, of, sizes, work, figure }
}

pub fn all(descriptors: u64) -> Vec<Growth> {
    let most = descriptors.saturating_sub(500);
    let mut connections: Vec<u64> =
        [1, 10, 100, 1000, 10_000, 100_000].into_iter().filter(|&size| size < most).collect();
    connections.push(most);

    let mut waits = growth(
        "connections",
        "one event, among so many registrations",
        "registrations",
        connections,
        "wall",
        |size| works::wait::among(size as usize),
    );
    waits.work.unit = "event";
    waits.work.ops = 2000;
    // Not all of them fit side by side.
    waits.work.fresh = true;
    waits.work.rounds = 15;

    let mut channels = growth(
        "channels",
        "a message, on one of so many channels",
        "channels",
        vec![1, 10, 100, 1000, 10_000],
        "cpu",
        |size| works::channel::many(size as usize),
    );
    channels.work.unit = "message";
    channels.work.ops = 5000;
    channels.work.rounds = 31;

    let mut timers = growth(
        "timers",
        "set + cancel, beside so many timers",
        "timers",
        vec![1, 10, 100, 1000, 10_000, 100_000, 1_000_000],
        "cpu",
        |size| works::timers::set_and_cancel(works::timers::Amy::new(), size as usize),
    );
    timers.work.unit = "set + cancel";
    timers.work.ops = 5000;
    timers.work.rounds = 31;

    let mut waiters = growth(
        "waiters",
        "a framed echo, with so many waiters",
        "waiters",
        vec![1, 2, 4],
        "cpu",
        |size| match size {
            1 => works::echo::with_waiters::<1>(),
            2 => works::echo::with_waiters::<2>(),
            _ => works::echo::with_waiters::<4>(),
        },
    );
    waiters.work.unit = "request";
    waiters.work.ops = 6000;
    waiters.work.rounds = 31;

    vec![waits, channels, timers, waiters]
}

/// The slope of the line through the points on two logarithmic axes: 0 if the cost stays the same, 1
/// if it doubles with what there is.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let mean_x = logs.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_y = logs.iter().map(|point| point.1).sum::<f64>() / count;
    let above: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    above / logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}
