//! What can be counted and does not depend on the machine's mood: system calls, allocations and
//! instructions per operation. Each is the difference of a run with many operations and one with few.

use crate::{harness::Work, kit};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, Stdio},
};

/// What the harness does itself: see `kit::make_ready` and the spinning in `cross`.
const OURS: [&str; 2] = ["writev", "sched_yield"];

/// System calls per part of an operation, by name.
pub type Calls = BTreeMap<String, f64>;

/// Runs one contender alone; it prints how often it asked for memory.
pub fn op(work: &str, contender: &str, ops: u64) {
    let work = crate::works::all().into_iter().find(|one| one.id == work).expect("a work");
    let contender =
        work.contenders.into_iter().find(|one| one.name == contender).expect("a contender");
    let mut turn = (contender.set_up)();
    // Whatever grows has grown after that.
    turn(work.counted.map_or(work.ops, |(few, _)| few));
    let before = kit::allocations();
    turn(ops);
    println!("allocations {}", kit::allocations() - before);
}

fn child(tool: &[&str], work: &str, contender: &str, ops: u64) -> Option<(String, String)> {
    let own = std::env::current_exe().expect("the program's own path");
    let mut command = match tool {
        [] => Command::new(&own),
        [tool, options @ ..] => {
            let mut command = Command::new(tool);
            command.args(options).arg(&own);
            command
        }
    };
    let output = command
        .args(["op", work, contender, &ops.to_string()])
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Some((text(&output.stdout), text(&output.stderr)))
}

/// `None` if it cannot be counted here: without `strace`, or where tracing is forbidden.
pub fn calls(work: &Work, contender: &str) -> Option<Calls> {
    let (few, many) = work.counted?;
    let few_calls = traced(&work.id, contender, few)?;
    let many_calls = traced(&work.id, contender, many)?;
    let parts = ((many - few) * work.per_op) as f64;
    // In `socketpair` a `writev` can be the contender's own.
    let spare: &[&str] =
        if work.group == "wait" || work.group == "cross" { &OURS } else { &OURS[1..] };
    let mut calls = Calls::new();
    for (name, count) in many_calls {
        let difference = count as f64 - few_calls.get(&name).copied().unwrap_or(0) as f64;
        if !spare.contains(&name.as_str()) && difference / parts > 0.004 {
            calls.insert(name, difference / parts);
        }
    }
    Some(calls)
}

fn traced(work: &str, contender: &str, ops: u64) -> Option<BTreeMap<String, u64>> {
    let path = std::env::temp_dir().join(format!("amy-bench-{}.strace", std::process::id()));
    let file = path.to_string_lossy();
    child(&["strace", "-f", "-qq", "-o", &file], work, contender, ops)?;
    let trace = std::fs::read_to_string(&path).ok()?;
    let _ = std::fs::remove_file(&path);

    // The thread that makes the load says its name, and its calls are not the contender's.
    let load: BTreeSet<&str> = trace
        .lines()
        .filter(|line| line.contains("PR_SET_NAME, \"load\""))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut calls = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else { continue };
        // Else it is a signal, an exit, or the end of a call that was counted when it began.
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        if !load.contains(thread) && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
            *calls.entry(name.to_string()).or_default() += 1;
        }
    }
    Some(calls)
}

/// Allocations per part of an operation.
pub fn allocations(work: &Work, contender: &str, few: u64, many: u64) -> f64 {
    let asked = |ops| -> f64 {
        let (out, _) = child(&[], &work.id, contender, ops).expect("a run");
        out.trim().strip_prefix("allocations ").expect("a count").parse().expect("a number")
    };
    (asked(many) - asked(few)) / ((many - few) * work.per_op) as f64
}

/// Instructions per part of an operation, the kernel's not counted.
pub fn instructions(work: &Work, contender: &str, few: u64, many: u64) -> Option<f64> {
    let collected = |ops| -> Option<f64> {
        let tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
        let (_, log) = child(&tool, &work.id, contender, ops)?;
        let line = log.lines().find(|line| line.contains("Collected"))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    Some((collected(many)? - collected(few)?) / ((many - few) * work.per_op) as f64)
}
