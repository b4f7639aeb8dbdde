//! A framed echo server: one thread waits, another owns the sockets. And the load to show it at work.
//!
//! ```text
//! cargo run --release --example echo                               serve and drive, 3 seconds
//! cargo run --release --example echo -- --pipeline 16 --seconds 10
//! cargo run --release --example echo -- --listen 127.0.0.1:7000    serve until Ctrl-C
//! ```
//!
//! [`server`] is what to start a server from; [`load`] drives it and checks every byte that comes
//! back.

mod load;
mod server;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

const HELP: &str = "\
A framed echo server on loopback, and the clients that drive it.

Usage: echo [OPTIONS]

  --listen ADDRESS   only serve on ADDRESS (such as 127.0.0.1:7000), until Ctrl-C
  --connections N    how many connections the clients make (64)
  --seconds S        for how long they send (3)
  --size B           how many bytes a frame carries (64; at most 1048576)
  --pipeline P       how many frames a connection has on their way at once (1)
  --help             this text";

struct Options {
    listen: Option<SocketAddr>,
    load: load::Load,
}

fn main() -> ExitCode {
    let options = match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return refuse(&error),
    };
    // Both ends of every connection may be in this process.
    raise_descriptor_limit();

    let address = options.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = match TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(error) => return refuse(&format!("cannot listen on {address}: {error}")),
    };
    let done = match options.listen {
        Some(_) => serve(listener),
        None => drive(listener, &options.load),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;

    let mut options = Options { listen: None, load: load::Load::default() };
    while let Some(arg) = args.next()? {
        match arg {
            Long("listen") => options.listen = Some(args.value()?.parse()?),
            Long("connections") => {
                options.load.connections =
                    args.value()?.parse_with(|n| within("--connections", n, 1..=100_000))?;
            }
            Long("seconds") => {
                options.load.time = Duration::from_secs(
                    args.value()?.parse_with(|n| within("--seconds", n, 1..=86_400))?,
                );
            }
            Long("size") => {
                let size =
                    args.value()?.parse_with(|n| within("--size", n, 0..=server::FRAME_MAX))?;
                options.load.size = size as usize;
            }
            Long("pipeline") => {
                options.load.pipeline =
                    args.value()?.parse_with(|n| within("--pipeline", n, 1..=10_000))?;
            }
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

/// The number that `text` is, if it is one that `option` takes.
fn within<N>(option: &str, text: &str, allowed: std::ops::RangeInclusive<N>) -> Result<N, String>
where
    N: std::str::FromStr + PartialOrd + fmt::Display,
{
    match text.parse() {
        Ok(number) if allowed.contains(&number) => Ok(number),
        _ => Err(format!("{option} takes a number from {} to {}", allowed.start(), allowed.end())),
    }
}

fn refuse(why: &dyn fmt::Display) -> ExitCode {
    eprintln!("echo: {why}");
    ExitCode::from(2)
}

/// Serves until Ctrl-C, and says what was served.
fn serve(listener: TcpListener) -> io::Result<()> {
    println!("listening on {}; Ctrl-C ends", listener.local_addr()?);
    // A signal becomes a byte in a socket, which is as good as any other to wait for.
    let (stop, stopper) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::low_level::pipe::register(signal, stopper.try_clone()?)?;
    }
    let served = server::Served::default();
    server::run(listener, &stop, &served)?;
    println!("\n{served}");
    Ok(())
}

/// Serves on one side, drives on the other, and reports.
fn drive(listener: TcpListener, load: &load::Load) -> io::Result<()> {
    let address = listener.local_addr()?;
    println!(
        "{} connections to {address}, frames of {} bytes, {} on their way each, {:?}",
        load.connections, load.size, load.pipeline, load.time
    );
    let (stop, stopper) = UnixStream::pair()?;
    let served = Arc::new(server::Served::default());
    let theirs = Arc::clone(&served);
    let server = thread::spawn(move || server::run(listener, &stop, &theirs));

    let start = Instant::now();
    let report = load.run(address, |echoed| {
        println!("{:6.1} s  {echoed:>9} messages echoed", start.elapsed().as_secs_f64());
    });
    drop(stopper); // the end of a stream is an event, too
    let ended = server.join().expect("the server's thread panicked");

    let report = report?;
    ended?;
    println!("{report}");
    let messages = served.messages.load(Ordering::Relaxed);
    if messages != report.messages {
        return Err(io::Error::other(format!(
            "the server says that it served {messages} messages"
        )));
    }
    Ok(())
}

/// As many descriptors as the system lets this process have.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it, fewer connections can be made, which whoever makes them is told.
    let _ = setrlimit(Resource::Nofile, limit);
}
