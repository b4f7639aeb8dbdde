//! One line for a bad argument and status 2, one line for what failed later and status 1.

use std::{error::Error, fmt, ops::RangeInclusive, process::ExitCode, str::FromStr};

/// The `main` of a server: `parse` answers with its options, or with `None` to `--help`.
pub fn run<O>(
    name: &str,
    help: &str,
    parse: impl FnOnce(lexopt::Parser) -> Result<Option<O>, lexopt::Error>,
    serve: impl FnOnce(O) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    let options = match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{help}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            return ExitCode::from(2);
        }
    };
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
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
