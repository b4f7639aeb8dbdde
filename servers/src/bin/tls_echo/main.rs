//! The framed echo over TLS: what came in a frame goes back in a frame.
//!
//! ```text
//!                      +-------------+                +---------+
//!  +--------+          | handshaker  |   connections  | echoer  |  read, write
//!  |  main  +--------->|   poller    +--------------->| poller  +<------------->  clients
//!  | accept | accepted | read, write | shaken hands   |         |  whose handshake is done
//!  +--------+          +-------------+   (channels)   +---------+
//!                       --workers N                   --threads N
//! ```
//!
//! A handshake costs a signature, as much time as hundreds of echoes. On the echoers' threads a crowd of
//! new clients would make all others wait; so it has threads of its own, whose number says how much of
//! the machine new clients may take. Such a thread does not stay with one client until it is done: it has
//! a poller too, and those who stall, or send their ClientHello byte by byte, cost it nothing. Handing
//! single steps to a pool of threads would spread the signatures of a moment better, at the price of
//! two more wake-ups for each step; a connection that moves once is simpler, and its order is plain.
//!
//! An end without close_notify is answered with a reset, as an end that anybody can forge.

mod conn;
mod threads;

use amy_servers::{Acceptor, Stop, listen, raise_descriptor_limit, run, within};
use rcgen::CertifiedKey;
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use std::{
    error::Error, fs, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, thread,
    time::Duration,
};
use threads::{Echoer, Handshaker};

const HELP: &str = "\
Usage: tls_echo [OPTIONS]

Echoes frames (a length of 4 bytes, big endian, and as many bytes) over TLS 1.2 and 1.3. The
certificate is made at the start and signed by itself.

  --listen ADDRESS      where to listen [127.0.0.1:7443]
  --name NAME           a name or address that the certificate is for, again for each
                        [localhost, 127.0.0.1]
  --certificate FILE    write the certificate there (PEM), for clients to trust
  --threads N           threads that echo [1]
  --workers N           threads that shake hands [1]
  --connections N       clients at a time; the others wait [10000]
  --frame BYTES         the longest frame [1048576]
  --handshake SECONDS   a handshake takes no longer [10]
  --idle SECONDS        a client of whom nothing is heard for that long is left [300]
  -h, --help            print this";

struct Options {
    listen: SocketAddr,
    names: Vec<String>,
    certificate: Option<PathBuf>,
    threads: usize,
    workers: usize,
    connections: usize,
    frame: u32,
    handshake: Duration,
    idle: Duration,
}

fn parse(mut args: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;

    let mut options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 7443)),
        names: Vec::new(),
        certificate: None,
        threads: 1,
        workers: 1,
        connections: 10_000,
        frame: 1 << 20,
        handshake: Duration::from_secs(10),
        idle: Duration::from_secs(300),
    };
    while let Some(arg) = args.next()? {
        let option = match arg {
            Short('h') | Long("help") => return Ok(None),
            Long(name) => format!("--{name}"),
            other => return Err(other.unexpected()),
        };
        let mut value = || args.value()?.string();
        match option.as_str() {
            "--listen" => {
                options.listen = value()?
                    .parse()
                    .map_err(|_| "--listen takes an address such as 127.0.0.1:7443")?;
            }
            "--name" => options.names.push(value()?),
            "--certificate" => options.certificate = Some(args.value()?.into()),
            "--threads" => options.threads = within(&option, &value()?, 1..=256)?,
            "--workers" => options.workers = within(&option, &value()?, 1..=256)?,
            "--connections" => options.connections = within(&option, &value()?, 1..=10_000_000)?,
            "--frame" => options.frame = within(&option, &value()?, 1..=1 << 30)?,
            "--handshake" => {
                options.handshake = Duration::from_secs(within(&option, &value()?, 1..=1 << 31)?);
            }
            "--idle" => {
                options.idle = Duration::from_secs(within(&option, &value()?, 1..=1 << 31)?)
            }
            _ => return Err(lexopt::Error::UnexpectedOption(option)),
        }
    }
    if options.names.is_empty() {
        options.names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    }
    Ok(Some(options))
}

fn config(options: &Options) -> Result<Arc<ServerConfig>, Box<dyn Error>> {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(options.names.clone())
            .map_err(|error| format!("no certificate for {}: {error}", options.names.join(", ")))?;
    if let Some(path) = &options.certificate {
        fs::write(path, cert.pem())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())?;
    Ok(Arc::new(config))
}

fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    raise_descriptor_limit();
    let stop = Stop::on_signals()?;
    let config = config(&options)?;
    let listener = listen(options.listen)?;
    let acceptor = Acceptor::new(listener, stop, options.connections)?;

    let (mut threads, mut echoers) = (Vec::new(), Vec::new());
    for number in 1..=options.threads {
        let (echoer, sender) = Echoer::new(options.idle)?;
        echoers.push(sender);
        let name = format!("echoer {number}");
        threads.push(thread::Builder::new().name(name).spawn(|| echoer.run())?);
    }
    let mut senders = Vec::new();
    for number in 1..=options.workers {
        // Each starts with another echoer, or the first would get them all while few come.
        let (config, echoers) = (Arc::clone(&config), echoers.clone());
        let (handshaker, sender) = Handshaker::new(
            config,
            options.frame,
            options.handshake,
            echoers,
            number % options.threads,
        )?;
        senders.push(sender);
        let name = format!("handshaker {number}");
        threads.push(thread::Builder::new().name(name).spawn(|| handshaker.run())?);
    }
    drop(echoers);

    println!("listening on {}", acceptor.local_addr()?);
    acceptor.run(&senders)?;
    drop(senders); // ends the handshakers, and that the echoers
    for thread in threads {
        thread.join().expect("a thread panicked")?;
    }
    Ok(())
}

fn main() -> ExitCode {
    run("tls_echo", HELP, parse, serve)
}
