//! Promise 14, no unsafe, and the rules of the sources that no compiler checks: which module may use
//! which, and which file may know the target.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files that may hold unsafe code, since `kevent` has no safe form: the one that calls it, and
/// the one that names it for a Linux system that has libkqueue.
const KEVENT: [&str; 2] = ["sys/kevent.rs", "sys/libkqueue.rs"];

/// The modules on the way to them.
const WAY_TO_KEVENT: [&str; 3] = ["sys", "kevent", "native"];

struct Source {
    /// Below `src/`.
    path: String,
    text: String,
    /// The text without comments, strings and characters, with its lines where they were.
    code: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file below `src/`.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            sources.push(Source { path, code: code(&text), text });
        }
    }
    assert!(sources.len() > 10, "the sources are elsewhere");
    sources
}

/// `text` without comments and what is between quotes.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if c == '"' {
            string(rest)
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.extend(rest[..skipped].matches('\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

/// The length of the string literal that `text` begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text[1..].find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.expect("the end of a string") + 2
}

/// The length of the character literal that `text` begins with, or 0 if it is a lifetime.
fn character(text: &str) -> usize {
    let from = if text.starts_with("'\\") { 3 } else { 2 };
    let end = text.char_indices().skip(from - 1).take(10).find(|&(_, c)| c == '\'');
    match end {
        Some((at, _)) if from == 3 || text[1..at].chars().count() == 1 => at + 1,
        _ => 0,
    }
}

/// The words of `code`: names, keywords and numbers.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The modules that a file declares, each with the lines of attributes before it.
fn modules(code: &str) -> Vec<(String, Vec<String>)> {
    let mut modules = Vec::new();
    let mut attributes: Vec<String> = Vec::new();
    let mut within = false;
    for line in code.lines().map(str::trim) {
        if within {
            attributes.last_mut().expect("the attribute that goes on").push_str(line);
            within = !line.ends_with(']');
            continue;
        }
        let declared = line
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub ")
            .strip_prefix("mod ")
            .and_then(|line| line.strip_suffix(';'));
        if let Some(name) = declared {
            modules.push((name.to_owned(), std::mem::take(&mut attributes)));
        } else if line.starts_with('#') {
            attributes.push(line.to_owned());
            within = !line.ends_with(']');
        } else {
            attributes.clear();
        }
    }
    modules
}

/// The modules in reading order.
fn order() -> Vec<String> {
    let lib = fs::read_to_string(root().join("lib.rs")).unwrap();
    let order: Vec<_> = modules(&code(&lib)).into_iter().map(|(name, _)| name).collect();
    assert!(order.len() > 5, "{order:?}");
    order
}

/// The module of the crate root that a file belongs to.
fn module(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The modules that are named after `crate::`, alone or in braces.
fn used(code: &str) -> Vec<&str> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            used.extend(words(rest).next());
            continue;
        };
        let (mut depth, mut begins) = (1, true);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => begins = true,
                c if begins && !c.is_whitespace() => {
                    used.extend(words(&list[at..]).next());
                    begins = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    used
}

#[test]
fn the_reader_of_sources_reads_them_rightly() {
    let text = r#"use crate::{a::{B, c}, d}; // crate::e
        let x = "crate::f \" crate::g"; let y: &'static str = crate::h::I; let z = '"'; crate::j"#;
    assert_eq!(used(&code(text)), ["a", "d", "h", "j"]);
    assert_eq!(
        modules("#[one]\n#[two(\n    x,\n)]\nmod a;\n\nuse x;\npub mod b;\nmod c {\n}"),
        [
            ("a".to_owned(), vec!["#[one]".to_owned(), "#[two(x,)]".to_owned()]),
            ("b".to_owned(), vec![])
        ]
    );
}

#[test]
fn each_module_uses_only_those_below_it_in_the_list() {
    let order = order();
    let place = |name: &str| order.iter().position(|module| module == name);
    let mut uses = 0;
    for Source { path, code, .. } in sources().iter().filter(|source| source.path != "lib.rs") {
        let own = place(module(path)).unwrap_or_else(|| panic!("{path} is not in src/lib.rs"));
        for name in used(code) {
            let place = place(name).unwrap_or_else(|| panic!("{path}: crate::{name} is no module"));
            assert!(place >= own, "{path} uses {name}, which is above it");
            uses += usize::from(place > own);
        }
        assert!(!code.contains("super::super"), "{path} goes around the rule");
    }
    assert!(uses > 10, "only {uses} uses were found");
}

#[test]
fn the_crate_root_holds_no_code() {
    let lib = fs::read_to_string(root().join("lib.rs")).unwrap();
    // An attribute has a line of its own; an item ends with a semicolon or an empty body.
    let items = code(&lib).lines().filter(|line| !line.starts_with('#')).collect::<String>();
    for item in items.replace("{}", ";").split_terminator(';') {
        let allowed = ["mod ", "pub mod ", "pub use "];
        assert!(allowed.iter().any(|start| item.starts_with(start)), "{item}");
    }
}

#[test]
fn only_the_files_for_kevent_hold_unsafe_code() {
    for Source { path, code, .. } in sources() {
        let found = words(&code).any(|word| word == "unsafe");
        assert!(KEVENT.contains(&path.as_str()) || !found, "{path}");
        // The attribute that would let it in.
        assert!(KEVENT.contains(&path.as_str()) || !code.contains("allow(unsafe_code"), "{path}");
    }
}

#[test]
fn unsafe_code_is_forbidden_in_every_module_but_those_on_the_way_to_kevent() {
    for file in ["lib.rs", "sys/mod.rs"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let modules = modules(&code(&text));
        assert!(!modules.is_empty());
        for (name, attributes) in modules {
            let forbidden = attributes.iter().any(|line| line == "#[forbid(unsafe_code)]");
            assert!(forbidden || WAY_TO_KEVENT.contains(&name.as_str()), "mod {name} in {file}");
        }
    }
}

#[test]
fn only_the_seam_asks_for_the_target() {
    let questions = [
        "target_os",
        "target_vendor",
        "target_family",
        "target_env",
        "target_arch",
        "target_pointer_width",
        "unix",
        "windows",
    ];
    for Source { path, code, .. } in sources().iter().filter(|source| source.path != "sys/mod.rs") {
        for (at, _) in code.match_indices("cfg") {
            let question = code[at..].split(']').next().unwrap();
            let asks = words(question).any(|word| questions.contains(&word));
            assert!(!asks, "{path}: {question}");
        }
    }
}

#[test]
fn nothing_is_left_to_be_done() {
    for Source { path, text, code } in sources() {
        for word in words(&text) {
            assert!(!["TODO", "FIXME", "XXX", "HACK"].contains(&word), "{path}: {word}");
        }
        for call in ["todo!", "unimplemented!", "dbg!", "println!", "eprintln!"] {
            assert!(!code.contains(call), "{path}: {call}");
        }
    }
}

#[test]
fn every_file_begins_with_what_it_is_for_and_fits_a_window() {
    // rustfmt sees to the code; this is for comments, which it leaves alone.
    const CHARACTERS_MAX: usize = 100;
    for Source { path, text, .. } in sources() {
        assert!(text.starts_with("//! "), "{path}");
        for (number, line) in (1..).zip(text.lines()) {
            assert!(line.chars().count() <= CHARACTERS_MAX, "{path}:{number} is too long");
            assert_eq!(line, line.trim_end(), "{path}:{number} ends with a blank");
            assert!(!line.contains('\t'), "{path}:{number} has a tab");
        }
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{path}");
    }
}

#[test]
fn every_file_is_part_of_the_crate() {
    let sources = sources();
    for Source { path, .. } in sources.iter().filter(|source| source.path != "lib.rs") {
        let name = path.rsplit('/').next().unwrap();
        let (parent, module) = match path.rsplit_once('/') {
            Some((folder, "mod.rs")) => ("lib.rs".to_owned(), folder),
            Some((folder, _)) => (format!("{folder}/mod.rs"), name.trim_end_matches(".rs")),
            None => ("lib.rs".to_owned(), name.trim_end_matches(".rs")),
        };
        let parent = sources.iter().find(|source| source.path == parent).expect("the parent");
        let by_path = parent.text.contains(&format!("#[path = \"{name}\"]"));
        let by_name = modules(&parent.code).iter().any(|(declared, _)| declared == module);
        assert!(by_path || by_name, "{path} is in no module");
    }
}

#[test]
fn the_tests_say_which_promise_they_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("//! "), "{}", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap();
        let exempt = ["main", "common", "guide", "scripted"].contains(&name);
        assert!(exempt || first.starts_with("//! Promise"), "{}: {first}", path.display());
        let main = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/main.rs");
        let main = fs::read_to_string(main).unwrap();
        assert!(name == "main" || main.contains(&format!("mod {name};")), "{name} is not run");
    }
}

#[test]
fn each_promise_leads_to_its_tests() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = fs::read_to_string(root().join("lib.rs")).unwrap();
    let page = lib.replace("\n//!", " ");
    let (_, promises) = page.split_once("# Promises").unwrap();
    let (promises, _) = promises.split_once("Not promised").unwrap();
    let promises: Vec<&str> = promises.split("**").skip(2).step_by(2).collect();
    assert_eq!(promises.len(), 14);
    for promise in promises {
        let (_, tests) = promise.split_once("*Tests:").expect("the tests of a promise");
        for name in words(tests.split(';').next().unwrap()).filter(|&word| word != "rs") {
            let link = format!("//! [{name}.rs]: ");
            let line = lib.lines().find(|line| line.starts_with(&link)).expect(name);
            let (_, path) = line.split_once("/blob/HEAD/").expect(name);
            assert!(repository.join(path).is_file(), "{path} is not there");
        }
    }
}
