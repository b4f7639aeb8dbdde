//! The promises that hold under every interleaving, each as a model that a checker explores.
//!
//! The code under test is the library itself: with `--cfg amy_loom` its locks, atomics and clock
//! are the checker's (`sync`), and its kernel is `sys/model.rs`. `docs/models.md` says how to run
//! them, what each found and what they cannot find.

mod channel;
mod close;
mod handshake;
mod id;
mod timer;

use crate::sync::model::SEEDED;
use std::{
    io::{self, Write},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// How many switches away from a thread that could go on are tried. Nearly all bugs of this kind
/// need no more than two; the one known to need three is why there are three.
const PREEMPTIONS: usize = 3;

/// Runs `model` in every interleaving with no preemption, then with one, and so on; then shows that
/// it can fail, in a process for each seeded bug that has to break it.
///
/// The checker's own variables limit it (`LOOM_MAX_PERMUTATIONS`, `LOOM_MAX_DURATION`), for each
/// number of preemptions. What is counted is the largest of these explorations, since each holds
/// those before.
fn explore<F: Fn() + Send + Sync + 'static>(broken_by: &[&str], model: F) {
    let name = name_of::<F>();
    let model = Arc::new(model);
    let start = Instant::now();
    let (mut completed, mut bound) = (0, String::new());
    for preemptions in 0..=PREEMPTIONS {
        let (count, whole) = explore_with(preemptions, Arc::clone(&model));
        completed = count.max(completed);
        bound = preemptions.to_string();
        if !whole {
            bound.push_str(" in part");
            break;
        }
    }
    say(&format!(
        "model {name}: {completed} interleavings, bound {bound}, {:.1?}",
        start.elapsed()
    ));
    if std::env::var_os(SEEDED).is_none() {
        assert!(!broken_by.is_empty(), "a model that nothing breaks shows nothing");
        broken_by.iter().for_each(|bug| see_it_fail(name, bug));
    }
}

/// How many interleavings were completed, and whether those were all.
fn explore_with<F>(preemptions: usize, model: Arc<F>) -> (usize, bool)
where
    F: Fn() + Send + Sync + 'static,
{
    let start = Instant::now();
    let completed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&completed);
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = Some(preemptions);
    checker.max_branches = 10_000;
    checker.checkpoint_interval = 1000;
    let (most, longest) = (checker.max_permutations, checker.max_duration);
    checker.check(move || {
        model();
        count.fetch_add(1, Ordering::Relaxed);
    });
    let completed = completed.load(Ordering::Relaxed);
    let cut = most.is_some_and(|most| completed + 1 >= most)
        || longest.is_some_and(|longest| start.elapsed() >= longest);
    (completed, !cut)
}

/// Runs the model in a process of its own, since a model that fails may abort.
fn see_it_fail(name: &str, bug: &str) {
    let itself = std::env::current_exe().expect("a test knows where it is");
    let output = Command::new(itself)
        .args([name, "--exact", "--nocapture"])
        .env(SEEDED, bug)
        .env("LOOM_MAX_DURATION", "60")
        .env_remove("LOOM_MAX_PERMUTATIONS")
        .output()
        .expect("a test can run itself");
    let said = String::from_utf8_lossy(&output.stderr);
    let failure = said.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
    match failure {
        Some(failure) if !output.status.success() => {
            say(&format!("model {name}: fails with {bug:?}: {failure}"));
        }
        _ => panic!("{name} does not notice the bug {bug:?}"),
    }
}

/// Past the harness, which would keep what a test prints.
fn say(line: &str) {
    writeln!(io::stdout(), "{line}").expect("somebody reads it");
}

/// The path of the test whose closure is `F`, as the test harness knows it.
fn name_of<F>() -> &'static str {
    let closure = std::any::type_name::<F>();
    let path = closure.strip_suffix("::{{closure}}").expect("a model is a closure in its test");
    path.split_once("::").expect("the name of the crate comes first").1
}
