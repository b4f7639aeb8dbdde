//! Contenders take turns within each round; what counts is the median of the ratios of the rounds.
//!
//! A machine that is also doing something else slows whoever runs at that moment. Turns are therefore
//! short, the order changes with each round, and a ratio compares two turns of the same round only.

use crate::kit;
use std::{collections::BTreeMap, time::Instant};

/// The contender that the others are compared with.
pub const FLOOR: &str = "raw";

/// What a turn took, for all its operations together.
#[derive(Clone, Debug)]
pub struct Took {
    pub wall_ns: f64,
    pub cpu_ns: f64,
    /// Where only a part of each operation counts: the [`kit::ticks`] of that part.
    pub ticks: Vec<u64>,
    /// Where operations are timed one by one: their nanoseconds.
    pub each: Vec<u64>,
}

impl Took {
    pub fn new(wall_ns: f64, cpu_ns: f64) -> Took {
        Took { wall_ns, cpu_ns, ticks: Vec::new(), each: Vec::new() }
    }

    /// Times what the calling thread does alone.
    pub fn of(work: impl FnOnce()) -> Took {
        let (start, cpu) = (Instant::now(), kit::thread_cpu());
        work();
        let cpu = kit::thread_cpu() - cpu;
        Took::new(kit::since(start), cpu)
    }

    /// The figures of the turn for one of its parts, by name.
    fn figures(mut self, parts: f64) -> [(&'static str, f64); 4] {
        if !self.ticks.is_empty() {
            // The slowest tenth is left out: there the thread was not running.
            self.ticks.sort_unstable();
            let count = self.ticks.len();
            self.ticks.truncate((count * 9).div_ceil(10));
            let mean = self.ticks.iter().sum::<u64>() as f64 / self.ticks.len() as f64;
            self.wall_ns = mean * kit::tick_nanos() * count as f64;
        }
        self.each.sort_unstable();
        let place = |hundredths| self.each.get(self.each.len() * hundredths / 100);
        let percentile = |hundredths| place(hundredths).map_or(f64::NAN, |&each| each as f64);
        [
            ("wall", self.wall_ns / parts),
            ("cpu", self.cpu_ns / parts),
            ("p50", percentile(50)),
            ("p99", percentile(99)),
        ]
    }
}

/// A contender that is set up: does so many operations, checks that they were done, and says what
/// they took.
pub type Turn = Box<dyn FnMut(u64) -> Took>;

pub struct Contender {
    pub name: &'static str,
    /// The contender that does the same in the same way by hand, if that is not the floor.
    pub against: Option<&'static str>,
    pub set_up: Box<dyn Fn() -> Turn>,
}

impl Contender {
    pub fn new(name: &'static str, set_up: impl Fn() -> Turn + 'static) -> Contender {
        Contender { name, against: None, set_up: Box::new(set_up) }
    }

    pub fn against(mut self, other: &'static str) -> Contender {
        self.against = Some(other);
        self
    }
}

/// What all contenders have to do.
pub struct Work {
    /// Names the work on the command line: `wait-64`.
    pub id: String,
    /// Works of one table, and of one section of the report.
    pub group: &'static str,
    /// What differs between the works of a group.
    pub variant: String,
    /// What one operation is.
    pub unit: &'static str,
    /// How many events, frames or messages one operation consists of.
    pub per_op: u64,
    /// How many operations a turn has, so that it lasts a few milliseconds.
    pub ops: u64,
    /// Whether everything is set up anew for each turn, because not all fit side by side.
    pub fresh: bool,
    /// How many rounds a quick run does.
    pub rounds: usize,
    /// With how many operations, few and many, system calls are counted from outside.
    pub counted: Option<(u64, u64)>,
    pub contenders: Vec<Contender>,
}

impl Work {
    pub fn new(group: &'static str, id: impl Into<String>, variant: impl Into<String>) -> Work {
        Work {
            id: id.into(),
            group,
            variant: variant.into(),
            unit: "operation",
            per_op: 1,
            ops: 1,
            fresh: false,
            rounds: 41,
            counted: None,
            contenders: Vec::new(),
        }
    }
}

/// The medians of one contender at one work.
#[derive(Clone, Debug)]
pub struct Line {
    pub group: String,
    pub work: String,
    pub variant: String,
    pub unit: String,
    pub contender: String,
    /// `wall`, `cpu`, `p50` and `p99` in nanoseconds; `wall/raw` and so on as ratios to the floor of the
    /// same round (below 1 is faster), with `.low` and `.high` quartiles; `allocations`; `calls`.
    pub figures: BTreeMap<String, f64>,
}

pub fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

pub fn quantile(values: &mut [f64], at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n => values[((n - 1) as f64 * at).round() as usize],
    }
}

/// Runs the contenders of `work` against each other.
pub fn run(work: &Work, rounds: usize) -> Vec<Line> {
    let count = work.contenders.len();
    let mut turns: Vec<Option<Turn>> = work
        .contenders
        .iter()
        .map(|contender| {
            (!work.fresh).then(|| {
                let mut turn = (contender.set_up)();
                turn(work.ops);
                turn
            })
        })
        .collect();

    let parts = (work.ops * work.per_op) as f64;
    let mut samples: Vec<BTreeMap<&str, Vec<f64>>> = vec![BTreeMap::new(); count];
    let mut allocations = vec![f64::NAN; count];
    for round in 0..rounds {
        for place in 0..count {
            // Every other round backwards, so that nobody always runs after the same one.
            let place = if round % 2 == 0 { place } else { count - 1 - place };
            let who = (place + round / 2) % count;
            let mut fresh;
            let turn = match &mut turns[who] {
                Some(turn) => turn,
                None => {
                    fresh = (work.contenders[who].set_up)();
                    &mut fresh
                }
            };
            let before = kit::allocations();
            let took = turn(work.ops);
            let asked = (kit::allocations() - before) as f64 / parts;
            // The least of the turns: a buffer that grows once is not a cost of each operation.
            allocations[who] = asked.min(allocations[who]);
            for (name, value) in took.figures(parts) {
                samples[who].entry(name).or_default().push(value);
            }
        }
    }

    let place = |name: &str| work.contenders.iter().position(|one| one.name == name);
    let floor = place(FLOOR).unwrap_or(0);
    let mut lines = Vec::new();
    for (who, contender) in work.contenders.iter().enumerate() {
        let mut figures = BTreeMap::new();
        for (name, values) in &samples[who] {
            if values.iter().any(|value| !value.is_finite()) {
                continue;
            }
            let ratios_to = |other: usize| -> Vec<f64> {
                values.iter().zip(&samples[other][name]).map(|(mine, its)| mine / its).collect()
            };
            let mut ratios = ratios_to(floor);
            figures.insert(name.to_string(), median(&mut values.clone()));
            figures.insert(format!("{name}/raw"), median(&mut ratios));
            figures.insert(format!("{name}/raw.low"), quantile(&mut ratios, 0.25));
            figures.insert(format!("{name}/raw.high"), quantile(&mut ratios, 0.75));
            if let Some(other) = contender.against.and_then(place) {
                figures.insert(format!("{name}/its"), median(&mut ratios_to(other)));
            }
        }
        figures.insert("allocations".to_string(), allocations[who]);
        lines.push(Line {
            group: work.group.to_string(),
            work: work.id.clone(),
            variant: work.variant.clone(),
            unit: work.unit.to_string(),
            contender: contender.name.to_string(),
            figures,
        });
    }
    lines
}
