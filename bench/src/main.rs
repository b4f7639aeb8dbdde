//! amy and its peers on the same work, in one process run.

mod chart;
mod check;
mod count;
mod facts;
mod growth;
mod harness;
mod kit;
mod report;
mod works;

use report::Results;
use std::{collections::BTreeMap, fs, path::Path, process::ExitCode, thread};

/// The repository's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder above")
}

fn main() -> ExitCode {
    kit::lift_descriptor_limit();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["list"] => {
            for work in works::all() {
                let names: Vec<_> =
                    work.contenders.iter().map(|contender| contender.name).collect();
                println!("{}: {}", work.id, names.join(", "));
            }
        }
        ["try", which, rounds, ref only @ ..] => {
            kit::calibrate();
            for mut work in works::all().into_iter().filter(|work| work.id.starts_with(which)) {
                work.contenders.retain(|one| only.is_empty() || only.contains(&one.name));
                println!("{} ({}, per {})", work.id, work.variant, work.unit);
                for line in harness::run(&work, rounds.parse().expect("a number of rounds")) {
                    print!("  {:22}", line.contender);
                    for (name, value) in &line.figures {
                        if !name.contains(".") {
                            print!(" {name} {value:.3}");
                        }
                    }
                    println!();
                }
            }
        }
        ["op", work, contender, ops] => count::op(work, contender, ops.parse().expect("a number")),
        ["quick"] => measure("bench/run.sh --quick", 1, false),
        ["full"] => measure("bench/run.sh --full", 9, false),
        ["record"] => measure("bench/run.sh --record", 1, true),
        ["ratios"] => {
            kit::calibrate();
            if !check::compare(&check::ratios(&race(1))) {
                return ExitCode::FAILURE;
            }
        }
        ["count"] => print!("{}", check::written(&check::counted())),
        ["check"] if !check::compare(&check::counted()) => return ExitCode::FAILURE,
        ["check"] => {}
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// All contenders at all works, with so many times the rounds of a quick run.
fn race(times: usize) -> Vec<harness::Line> {
    let mut lines = Vec::new();
    for work in works::all() {
        eprintln!("{}", work.id);
        lines.extend(harness::run(&work, work.rounds * times));
    }
    lines
}

/// Measures everything, and writes the page; if asked, also what amy is held to.
fn measure(command: &str, times: usize, record: bool) {
    kit::calibrate();
    let load = load();
    let lines = race(times);
    let mut calls = BTreeMap::new();
    for work in works::all() {
        for contender in &work.contenders {
            if let Some(counted) = count::calls(&work, contender.name) {
                calls.insert((work.id.clone(), contender.name.to_string()), counted);
            }
        }
    }
    let mut curves = Vec::new();
    for growth in growth::all(kit::descriptors_left()) {
        eprintln!("{}", growth.id);
        let costs = harness::run(&growth.work, growth.work.rounds * times);
        let cost = |line: &harness::Line| line.figures.get(growth.figure).copied();
        let points: Vec<(f64, f64)> = growth
            .sizes
            .iter()
            .zip(&costs)
            .filter_map(|(&size, line)| Some((size as f64, cost(line)?)))
            .collect();
        let slope = growth::slope(&points);
        curves.push(chart::Curve {
            title: growth.title.to_string(),
            note: format!("{}, slope {slope:.2}", kind(growth.figure)),
            along: growth.of.to_string(),
            points,
        });
    }
    let ratios = check::ratios(&lines);
    let results = Results {
        command: command.to_string(),
        machine: machine(&load),
        lines,
        calls,
        facts: facts::all(),
        curves,
    };
    report::write(&results, root()).expect("a page");
    if record {
        let mut recorded = check::counted();
        recorded.extend(ratios);
        fs::write(root().join("bench/recorded.tsv"), check::written(&recorded)).expect("a file");
    }
}

fn kind(figure: &str) -> &'static str {
    if figure == "cpu" { "processor time" } else { "time" }
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("?").to_string()
}

fn machine(load_before: &str) -> Vec<String> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("a processor", |model| model.trim_start_matches([' ', '\t', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // The load afterwards is the contenders' own.
    let before: f64 = load_before.parse().unwrap_or(0.0);
    let mut machine = vec![format!(
        "{cores} cores of an {model}, Linux {}",
        kernel.trim().split('-').next().unwrap_or("?")
    )];
    machine.push(if before > cores as f64 {
        format!(
            "a busy machine: others ran as well (a load of {before} at the beginning), so times are \
             long and their ratios less steady than they could be"
        )
    } else {
        format!("a load of {before} at the beginning")
    });
    let lock = include_str!("../Cargo.lock");
    let versions: Vec<String> =
        ["mio", "polling", "calloop", "tokio", "tokio-util", "crossbeam-channel"]
            .iter()
            .filter_map(|name| {
                let after = lock.split(&format!("name = \"{name}\"\nversion = \"")).nth(1)?;
                Some(format!("{name} {}", after.split('"').next()?))
            })
            .collect();
    machine.push(format!("with {}", versions.join(", ")));
    machine
}
