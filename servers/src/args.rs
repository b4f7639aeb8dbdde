//! One line for a bad argument and status 2, one line for what failed later and status 1.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    ops::RangeInclusive,
    panic,
    process::{self, ExitCode},
    str::FromStr,
};

/// The `main` of a server: `parse` answers with its options, or with `None` to `--help`.
///
/// A thread that panics ends the process: clients of a server without one of its threads would wait
/// for ever.
pub fn run<O>(
    name: &str,
    help: &str,
    parse: impl FnOnce(lexopt::Parser) -> Result<Option<O>, lexopt::Error>,
    serve: impl FnOnce(O) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        process::abort();
    }));
    let options = match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{help}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            log(format_args!("{name}: {error}"));
            return ExitCode::from(2);
        }
    };
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(format_args!("{name}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A line on stderr. If that cannot be written, as a log on a full disk, there is nobody to be told;
/// [`eprintln`] would panic.
pub fn log(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The number that `text` is, if it is one that `option` takes.
///
/// # Errors
///
/// A line that says what `option` takes.
pub fn within<N>(option: &str, text: &str, allowed: RangeInclusive<N>) -> Result<N, String>
where
    N: FromStr + PartialOrd + fmt::Display,
{
    match text.parse() {
        Ok(number) if allowed.contains(&number) => Ok(number),
        _ => Err(format!("{option} takes a number from {} to {}", allowed.start(), allowed.end())),
    }
}
