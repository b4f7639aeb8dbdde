//! Compares what can be counted, or the ratios of a run, with what is recorded beside the sources.

use crate::{count, harness::Line, works};
use std::{collections::BTreeMap, fmt::Write as _};

/// How much worse a figure may get.
const GROWTH: f64 = 1.15;
/// Below this a difference is none: a buffer that grows once in a long run.
const LEAST: f64 = 0.02;

/// What is recorded: the kind of figure, the work, and the figure of amy.
pub type Recorded = BTreeMap<(String, String), f64>;

/// The works whose system calls are held: those in which it does not matter who comes first.
const CALLS: [&str; 6] =
    ["wait-1", "register-1", "cross", "socketpair-256", "timer-set", "echo-1-1"];
/// The works whose instructions and allocations are held, with how many operations.
const INSTRUCTIONS: [(&str, u64, u64); 7] = [
    ("wait-1", 500, 2500),
    ("send", 2_000, 22_000),
    ("decode-256", 2, 12),
    ("encode-256", 2, 12),
    ("lines", 2, 12),
    ("timer-set", 1000, 9000),
    ("lookup-1000", 10_000, 60_000),
];
const ALLOCATIONS: [(&str, u64, u64); 9] = [
    ("wait-1", 500, 2500),
    ("wait-1024", 4, 24),
    ("register-1", 500, 2500),
    ("send", 2_000, 22_000),
    ("decode-256", 2, 12),
    ("encode-256", 2, 12),
    ("lines", 2, 12),
    ("socketpair-256", 4, 24),
    ("timer-set", 1000, 9000),
];

pub fn recorded() -> Recorded {
    include_str!("../recorded.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let kind = fields.next()?.to_string();
            let work = fields.next()?.to_string();
            Some(((kind, work), fields.next()?.parse().ok()?))
        })
        .collect()
}

pub fn written(recorded: &Recorded) -> String {
    let mut text = String::from(
        "# What amy is held to: system calls, allocations and instructions per operation, and its cost\n\
         # as a ratio to epoll by hand. Written by `bench/run.sh --record`.\n",
    );
    for ((kind, work), value) in recorded {
        let _ = writeln!(text, "{kind}\t{work}\t{value:.4}");
    }
    text
}

/// Counts what does not depend on the machine's mood.
pub fn counted() -> Recorded {
    let mut counts = Recorded::new();
    let works = works::all();
    for work in works.iter().filter(|work| CALLS.contains(&work.id.as_str())) {
        match count::calls(work, "amy") {
            Some(calls) => {
                let all: f64 = calls.values().sum();
                counts.insert(("calls".into(), work.id.clone()), all);
            }
            None => eprintln!("{}: system calls cannot be counted here (strace)", work.id),
        }
    }
    let find = |id: &str| works.iter().find(|work| work.id == id).expect("a work");
    for (id, few, many) in ALLOCATIONS {
        let asked = count::allocations(find(id), "amy", few, many);
        counts.insert(("allocations".into(), id.into()), asked);
    }
    for (id, few, many) in INSTRUCTIONS {
        match count::instructions(find(id), "amy", few, many) {
            Some(count) => drop(counts.insert(("instructions".into(), id.into()), count)),
            None => eprintln!("{id}: instructions cannot be counted here (valgrind)"),
        }
    }
    counts
}

/// The ratios of a run that are worth holding: of processor time where there is any.
pub fn ratios(lines: &[Line]) -> Recorded {
    let mut ratios = Recorded::new();
    for line in lines.iter().filter(|line| line.contender == "amy") {
        for kind in ["p50/raw", "cpu/raw", "wall/raw"] {
            if let Some(&ratio) = line.figures.get(kind) {
                ratios.insert((kind.to_string(), line.work.clone()), ratio);
                break;
            }
        }
    }
    ratios
}

/// Says what has become worse, and whether nothing has.
pub fn compare(now: &Recorded) -> bool {
    let before = recorded();
    let mut well = true;
    for ((kind, work), old) in &before {
        let counted = ["calls", "allocations", "instructions"].contains(&kind.as_str());
        let asked = now.keys().any(|(kind, _)| kind == "calls") == counted;
        if asked && !now.contains_key(&(kind.clone(), work.clone())) {
            println!("MISSING {kind:13} {work:15}            recorded {old:.3}");
            well = false;
        }
    }
    for ((kind, work), &value) in now {
        let Some(&old) = before.get(&(kind.clone(), work.clone())) else {
            println!("new     {kind:13} {work:15} {value:10.3}, not recorded yet");
            continue;
        };
        let verdict = if value > old * GROWTH + LEAST {
            well = false;
            "WORSE"
        } else if value < old / GROWTH - LEAST {
            "better"
        } else {
            "as was"
        };
        println!("{verdict:7} {kind:13} {work:15} {value:10.3}, recorded {old:.3}");
    }
    well
}
