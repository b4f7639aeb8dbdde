//! amy and its peers on the same work, in one process run.

mod harness;
mod kit;
mod works;

use std::process::ExitCode;

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
            for mut work in works::all().into_iter().filter(|work| work.id.starts_with(which)) {
                work.contenders.retain(|one| only.is_empty() || only.contains(&one.name));
                let work = &work;
                println!("{} ({}, per {})", work.id, work.variant, work.unit);
                let rounds = rounds.parse().expect("a number of rounds");
                for line in harness::run(work, rounds) {
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
        ["op", work, contender, ops] => op(work, contender, ops.parse().expect("a number")),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// One contender alone, for those who watch from outside.
fn op(work: &str, contender: &str, ops: u64) {
    let work = works::all().into_iter().find(|one| one.id == work).expect("a work");
    let contender =
        work.contenders.into_iter().find(|one| one.name == contender).expect("a contender");
    (contender.set_up)()(ops);
}
