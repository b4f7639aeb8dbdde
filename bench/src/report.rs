//! Writes docs/performance.md and its charts out of what one run has measured.

use crate::{
    chart::{self, Curve, Mark, Panel},
    count::Calls,
    facts::Fact,
    harness::Line,
};
use std::{collections::BTreeMap, fmt::Write as _, fs, io, path::Path};

/// All that one run has measured.
pub struct Results {
    pub command: String,
    pub machine: Vec<String>,
    pub lines: Vec<Line>,
    /// System calls by work and contender.
    pub calls: BTreeMap<(String, String), Calls>,
    pub facts: Vec<Fact>,
    pub curves: Vec<Curve>,
}

struct Section {
    group: &'static str,
    title: &'static str,
    /// Which figure its chart and table show.
    figure: &'static str,
    text: &'static str,
}

const SECTIONS: [Section; 11] = [
    Section {
        group: "wait",
        title: "Waiting",
        figure: "wall",
        text: "Descriptors become ready, and the contender waits, for at most five seconds, until all of \
               them were told. The writes that make them ready are not timed.",
    },
    Section {
        group: "lookup",
        title: "From an id to a connection",
        figure: "cpu",
        text: "An `IdMap`, std's `HashMap`, and as the floor a `Vec` whose index is at hand, which is what \
               a user of tokens of their own would have, and would have to reuse with care.",
    },
    Section {
        group: "register",
        title: "Registering",
        figure: "cpu",
        text: "Register a descriptor and deregister it again; the processor time of all threads.",
    },
    Section {
        group: "cross",
        title: "Registering from another thread",
        figure: "p50",
        text: "A thread is waiting; another registers a descriptor that is ready. The time until the first \
               has seen the event, at the median.",
    },
    Section {
        group: "channel",
        title: "Channels",
        figure: "cpu",
        text: "Messages to a thread that waits in a poller, as many as will go; the processor time of both \
               sides. `raw` is std's queue and an eventfd behind a flag, which loses time to a sender that \
               stalls between the two; `raw, fused` is a lock around a queue that knows whether its \
               receiver sleeps, for a single channel and nothing else.",
    },
    Section {
        group: "ping-pong",
        title: "A message there and back",
        figure: "p50",
        text: "Two threads, each in a poller of its own; the round trip at the median.",
    },
    Section {
        group: "decode",
        title: "Taking frames apart",
        figure: "cpu",
        text: "From memory, in reads of 64 KiB. The floor slices one buffer.",
    },
    Section {
        group: "encode",
        title: "Putting frames together",
        figure: "cpu",
        text: "Messages are lent, queued in batches and flushed into a sink that only counts. The floor \
               copies them into one buffer.",
    },
    Section {
        group: "lines",
        title: "Lines",
        figure: "cpu",
        text: "From memory, in reads of 64 KiB, each line as checked text. The floor uses `memchr` and \
               `str::from_utf8`.",
    },
    Section {
        group: "socketpair",
        title: "Frames through a socket pair",
        figure: "cpu",
        text: "Up to 48 KiB of frames are queued, flushed and read at the other end.",
    },
    Section {
        group: "echo",
        title: "A framed echo over TCP",
        figure: "cpu",
        text: "Messages of 64 bytes over the loopback; the processor time of the server's threads for each \
               request. In `hand-over` one thread waits and passes whole batches to another that does the \
               work; with `two waiters` both wait on one queue and both work; with `two pollers` each \
               has a queue and half of the connections.",
    },
];

const TIMERS: Section = Section {
    group: "timers",
    title: "Timers",
    figure: "cpu",
    text: "Set one and cancel the oldest while a thousand run; and a thousand that come due. The floor is \
           a heap by hand for one thread.",
};

pub fn write(results: &Results, root: &Path) -> io::Result<()> {
    let images = root.join("docs/img");
    fs::create_dir_all(&images)?;
    let mut page = head(results);
    page.push_str(&goals(results));
    for section in SECTIONS.iter().chain([&TIMERS]) {
        let lines: Vec<&Line> =
            results.lines.iter().filter(|line| line.group == section.group).collect();
        if lines.is_empty() {
            continue;
        }
        let unit = &lines[0].unit;
        let axis = format!("cost of one {unit} as a ratio to raw; to the left is cheaper");
        let svg = chart::ratios(section.title, &axis, &panels(&lines, section.figure));
        fs::write(images.join(format!("{}.svg", section.group)), svg)?;
        let _ = write!(
            page,
            "\n## {}\n\n{}\n\n![{}](img/{}.svg)\n\n{}",
            section.title,
            section.text,
            section.title,
            section.group,
            table(&lines, section.figure)
        );
        page.push_str(&calls(results, section.group));
    }
    page.push_str(&facts(&results.facts));
    if !results.curves.is_empty() {
        fs::write(images.join("growth.svg"), chart::growth("How costs grow", &results.curves))?;
        page.push_str("\n## How costs grow\n\n![How costs grow](img/growth.svg)\n\n");
        page.push_str("The slope is that of the line through the points on two logarithmic axes: 0 if the cost\nstays the same, 1 if it doubles with what there is.\n\n");
        for curve in &results.curves {
            let _ = writeln!(page, "* {}: {}.", curve.title, curve.note);
        }
    }
    fs::write(root.join("docs/performance.md"), page)
}

fn head(results: &Results) -> String {
    let mut page = String::from(
        "# Performance\n\n\
         Written by `bench/run.sh`, and not by hand: do not edit.\n\n\
         amy and its peers do the same work in one process, in turns: each round every contender runs for a\n\
         few milliseconds, in changing order. A figure is the median over the rounds of the ratio to `raw`\n\
         in the same round, where `raw` is epoll by hand with inlined system calls, and whatever else the\n\
         work needs by hand. 1 is the floor, 2 is twice the cost. Each contender checks that the work was\n\
         done. Absolute times say little about another machine, and are given for orientation.\n\n",
    );
    let _ = writeln!(page, "Measured by `{}` on:\n", results.command);
    for line in &results.machine {
        let _ = writeln!(page, "* {line}");
    }
    page
}

fn panels(lines: &[&Line], figure: &str) -> Vec<Panel> {
    let mut panels: Vec<Panel> = Vec::new();
    for line in lines {
        let get = |suffix: &str| line.figures.get(&format!("{figure}/raw{suffix}")).copied();
        let Some(at) = get("") else { continue };
        let (low, high) = (get(".low").unwrap_or(at), get(".high").unwrap_or(at));
        let mark = Mark { name: line.contender.clone(), at, low, high };
        match panels.last_mut().filter(|panel| panel.title == line.variant) {
            Some(panel) => panel.marks.push(mark),
            None => panels.push(Panel { title: line.variant.clone(), marks: vec![mark] }),
        }
    }
    panels
}

fn unique<'a>(items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut unique = Vec::new();
    for item in items {
        if !unique.contains(&item) {
            unique.push(item);
        }
    }
    unique
}

/// One row for each contender, one column for each variant.
fn table(lines: &[&Line], figure: &str) -> String {
    let variants = unique(lines.iter().map(|line| line.variant.as_str()));
    let contenders = unique(lines.iter().map(|line| line.contender.as_str()));
    let mut text = format!("| | {} |\n|---|", variants.join(" | "));
    text.push_str(&"---:|".repeat(variants.len()));
    text.push('\n');
    for contender in contenders {
        let bold = if contender == "amy" { "**" } else { "" };
        let _ = write!(text, "| {bold}{contender}{bold} |");
        for variant in &variants {
            let line =
                lines.iter().find(|line| line.contender == contender && line.variant == *variant);
            let figures = line.map(|line| &line.figures);
            let ratio = figures.and_then(|figures| figures.get(&format!("{figure}/raw")));
            let absolute = figures.and_then(|figures| figures.get(figure));
            match (ratio, absolute) {
                (Some(ratio), Some(absolute)) if contender == "raw" => {
                    let _ = write!(text, " {} ({}) |", chart::number(*ratio), time(*absolute));
                }
                (Some(ratio), _) => {
                    let _ = write!(text, " {bold}{}{bold} |", chart::number(*ratio));
                }
                _ => text.push_str(" |"),
            }
        }
        text.push('\n');
    }
    text
}

fn time(nanos: f64) -> String {
    match nanos {
        _ if nanos >= 1e6 => format!("{:.1} ms", nanos / 1e6),
        _ if nanos >= 1e4 => format!("{:.1} us", nanos / 1e3),
        _ if nanos >= 100.0 => format!("{nanos:.0} ns"),
        _ => format!("{nanos:.1} ns"),
    }
}

fn calls(results: &Results, group: &str) -> String {
    let mut text = String::new();
    let works = unique(
        results.lines.iter().filter(|line| line.group == group).map(|line| line.work.as_str()),
    );
    for work in works {
        let of_work: Vec<&Line> = results.lines.iter().filter(|line| line.work == work).collect();
        let counted: Vec<(&&Line, &Calls)> = of_work
            .iter()
            .filter_map(|line| {
                let key = (work.to_string(), line.contender.clone());
                Some((line, results.calls.get(&key)?))
            })
            .collect();
        if counted.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "\nSystem calls and allocations for one {} ({}):\n\n| | calls | of them | allocations |\n|---|---:|---|---:|\n",
            of_work[0].unit, of_work[0].variant
        );
        for (line, calls) in counted {
            let mut by_count: Vec<_> = calls.iter().collect();
            by_count.sort_by(|a, b| b.1.total_cmp(a.1));
            let names: Vec<String> =
                by_count.iter().map(|(name, count)| format!("{name} {count:.2}")).collect();
            let all: f64 = calls.values().sum();
            let asked = line.figures.get("allocations").copied().unwrap_or(f64::NAN);
            let _ = writeln!(
                text,
                "| {} | {all:.2} | {} | {asked:.2} |",
                line.contender,
                names.join(", ")
            );
        }
    }
    text
}

fn facts(facts: &[Fact]) -> String {
    let mut text = String::from(
        "\n## Memory and descriptors\n\nFor each, in user space: bytes on the heap, bytes of the handle that the user holds, and descriptors\n(a connection has one of its own).\n",
    );
    for group in unique(facts.iter().map(|fact| fact.group)) {
        let _ = write!(text, "\n| {group} | heap | handle | descriptors |\n|---|---:|---:|---:|\n");
        for fact in facts.iter().filter(|fact| fact.group == group) {
            let _ = writeln!(
                text,
                "| {} | {:.0} | {} | {:.0} |",
                fact.contender, fact.bytes, fact.handle, fact.descriptors
            );
        }
    }
    text
}

struct Goal {
    what: String,
    aim: String,
    value: f64,
    met: bool,
}

/// What was aimed at, and whether it was reached.
fn goals(results: &Results) -> String {
    let mut goals = Vec::new();
    let get = |work: &str, contender: &str, figure: &str| -> Option<f64> {
        let line =
            results.lines.iter().find(|line| line.work == work && line.contender == contender)?;
        line.figures.get(figure).copied()
    };
    let mut most = |what: String, value: Option<f64>, limit: f64, unit: &str| {
        let Some(value) = value else { return };
        let aim = format!("at most {limit}{unit}");
        goals.push(Goal { what, aim, value, met: value <= limit });
    };

    for ready in [1, 64, 1024] {
        let ratio = get(&format!("wait-{ready}"), "amy", "wall/raw");
        most(format!("wait, {ready} ready: time, raw = 1"), ratio, 1.03, "");
    }
    for ids in [1000, 100_000] {
        let nanos = get(&format!("lookup-{ids}"), "amy", "cpu");
        most(format!("look-up among {ids} ids"), nanos, 5.0, " ns");
    }
    for threads in [1, 2] {
        let work = format!("register-{threads}");
        let ratio = get(&work, "amy", "cpu/raw").zip(get(&work, "mio", "cpu/raw"));
        let plural = if threads == 1 { "thread" } else { "threads" };
        let what = format!("register + deregister, {threads} {plural}: processor time, mio = 1");
        most(what, ratio.map(|(amy, mio)| amy / mio), 0.77, "");
    }
    most(
        "registration from another thread: p50, raw = 1".into(),
        get("cross", "amy", "p50/raw"),
        1.0,
        "",
    );
    let p99 = get("cross", "amy", "p99/raw").zip(get("cross", "mio", "p99/raw"));
    most(
        "registration from another thread: p99, mio = 1".into(),
        p99.map(|(amy, mio)| amy / mio),
        1.0,
        "",
    );
    for producers in [1, 2] {
        for (figure, name) in [("cpu/raw", "processor time"), ("wall/raw", "time")] {
            let work = format!("channel-{producers}");
            let best = results
                .lines
                .iter()
                .filter(|line| line.work == work && line.contender != "amy")
                // Not a channel that anyone could use: one channel, and no ids.
                .filter(|line| line.contender != "raw, fused")
                .filter_map(|line| line.figures.get(figure).copied())
                .min_by(f64::total_cmp);
            let ratio = get(&work, "amy", figure).zip(best).map(|(amy, best)| amy / best);
            let plural = if producers == 1 { "producer" } else { "producers" };
            let what = format!("channel, {producers} {plural}: {name}, best of the others = 1");
            most(what, ratio, 1.0, "");
        }
    }
    most("channel ping-pong: p50, raw = 1".into(), get("ping-pong", "amy", "p50/raw"), 1.0, "");
    for kind in ["decode", "encode", "socketpair"] {
        for (size, name) in
            [(16, "16 B"), (256, "256 B"), (4096, "4 KiB"), (65_536, "64 KiB"), (1 << 20, "1 MiB")]
        {
            let ratio = get(&format!("{kind}-{size}"), "amy", "cpu/raw");
            most(format!("{kind}, {name}: processor time, raw = 1"), ratio, 1.11, "");
        }
    }
    most("lines: processor time, raw = 1".into(), get("lines", "amy", "cpu/raw"), 1.0, "");
    for connections in [1, 64, 1000, 8000] {
        for depth in [1, 16] {
            let work = format!("echo-{connections}-{depth}");
            let what = format!("echo, {connections} x {depth}");
            most(
                format!("{what}, one thread: processor time, raw = 1"),
                get(&work, "amy", "cpu/raw"),
                1.03,
                "",
            );
            most(
                format!("{what}, hand-over: processor time, by hand = 1"),
                get(&work, "amy, hand-over", "cpu/its"),
                1.05,
                "",
            );
            most(
                format!("{what}, two waiters: processor time, by hand = 1"),
                get(&work, "amy, two waiters", "cpu/its"),
                1.05,
                "",
            );
            for (figure, name) in [("cpu/raw", "processor time"), ("wall/raw", "time")] {
                let best = ["amy", "amy, two waiters", "amy, two pollers"]
                    .iter()
                    .filter_map(|one| get(&work, one, figure))
                    .min_by(f64::total_cmp);
                let ratio = best.zip(get(&work, "tokio, two threads", figure));
                let what =
                    format!("{what}, amy's best arrangement: {name}, tokio with two threads = 1");
                most(what, ratio.map(|(amy, tokio)| amy / tokio), 1.0, "");
            }
        }
    }
    most(
        "set + cancel a timer: processor time, raw = 1".into(),
        get("timer-set", "amy", "cpu/raw"),
        1.25,
        "",
    );
    let fact = |group: &str| {
        results.facts.iter().find(|fact| fact.contender == "amy" && fact.group == group)
    };
    most("a timer's heap".into(), fact("a running timer").map(|fact| fact.bytes), 64.0, " B");
    most(
        "a timer's descriptors".into(),
        fact("a running timer").map(|fact| fact.descriptors),
        0.0,
        "",
    );
    most(
        "an idle registration's heap".into(),
        fact("an idle registration").map(|fact| fact.bytes),
        0.0,
        " B",
    );
    most(
        "an idle framed connection's heap".into(),
        fact("an idle framed connection").map(|fact| fact.bytes),
        128.0,
        " B",
    );

    let met = goals.iter().filter(|goal| goal.met).count();
    let mut text = format!(
        "\n## What it aims at\n\n{met} of {} reached in this run. Costs, so less is better.\n\n| figure | aim | measured | |\n|---|---|---:|---|\n",
        goals.len()
    );
    for goal in &goals {
        let verdict = if goal.met { "reached" } else { "**missed**" };
        let _ = writeln!(text, "| {} | {} | {:.2} | {verdict} |", goal.what, goal.aim, goal.value);
    }
    text
}
