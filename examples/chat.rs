//! A chat room in one thread: lines from each go to all the others.
//!
//! ```text
//! cargo run --example chat                 # prints a port; then, in other terminals: nc 127.0.0.1 PORT
//! cargo run --example chat -- --self-test  # drives itself over real sockets, and ends
//! ```
//!
//! It shows what a line-based server needs beside reading lines: output that waits for its reader, and
//! a limit to how long. Whoever does not read is dropped when that limit is reached, and the room is
//! told; the room's memory stays bounded, and nobody else notices.

use amy::{Event, IdMap, LineReader, Poller, Registrar, Timer};
use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    io::{self, BufRead, BufReader, IoSlice, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    process::ExitCode,
    thread,
    time::Duration,
};

const HELP: &str = "\
A chat room. Join with: nc 127.0.0.1 PORT. The first line is your name; /who lists, /quit leaves.

Usage: chat [OPTIONS]

  --listen ADDRESS   where to listen (127.0.0.1:0: any free port)
  --limit BYTES      how much may wait for one who does not read, before he is dropped (65536)
  --self-test        drive the room over real sockets, check what comes, and end
  --help             this text";

/// The longest line that anyone may say.
const LINE_MAX: usize = 512;

struct Options {
    listen: SocketAddr,
    limit: usize,
    self_test: bool,
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
    let listener = match TcpListener::bind(options.listen) {
        Ok(listener) => listener,
        Err(error) => return refuse(&format!("cannot listen on {}: {error}", options.listen)),
    };
    let done = if options.self_test {
        self_test(listener, options.limit)
    } else {
        serve(listener, options.limit)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;

    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut options = Options { listen, limit: 64 * 1024, self_test: false };
    while let Some(arg) = args.next()? {
        match arg {
            Long("listen") => options.listen = args.value()?.parse()?,
            Long("limit") => options.limit = args.value()?.parse()?,
            Long("self-test") => options.self_test = true,
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

fn refuse(why: &dyn fmt::Display) -> ExitCode {
    eprintln!("chat: {why}");
    ExitCode::from(2)
}

/// Serves until Ctrl-C.
fn serve(listener: TcpListener, limit: usize) -> io::Result<()> {
    println!("listening on {}; Ctrl-C ends", listener.local_addr()?);
    // A signal becomes a byte in a socket, which is as good as any other to wait for.
    let (stop, stopper) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGINT, stopper)?;
    Room::new(listener, limit)?.run(&stop)
}

struct User {
    sock: TcpStream,
    reader: LineReader,
    outbox: Outbox,
    /// Set by the first line.
    name: Option<String>,
}

/// What waits to be written.
#[derive(Default)]
struct Outbox {
    bytes: VecDeque<u8>,
}

impl Outbox {
    /// Writes what can be written now.
    fn flush(&mut self, sock: &mut TcpStream) -> io::Result<()> {
        while !self.bytes.is_empty() {
            let (front, back) = self.bytes.as_slices();
            match sock.write_vectored(&[IoSlice::new(front), IoSlice::new(back)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.bytes.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.bytes = VecDeque::new(); // one who has read all takes no memory
        Ok(())
    }
}

struct Room {
    poller: Poller,
    registrar: Registrar,
    listener: TcpListener,
    users: IdMap<User>,
    limit: usize,
    /// Those who said more than one turn takes. They get no further notification.
    unfinished: VecDeque<usize>,
    /// Set while there was no descriptor left for the next one.
    accept_again: Option<Timer>,
}

impl Room {
    fn new(listener: TcpListener, limit: usize) -> io::Result<Room> {
        listener.set_nonblocking(true)?;
        let poller = Poller::new()?;
        let registrar = poller.get_registrar();
        Ok(Room {
            poller,
            registrar,
            listener,
            users: IdMap::default(),
            limit,
            unfinished: VecDeque::new(),
            accept_again: None,
        })
    }

    fn run(mut self, stop: &UnixStream) -> io::Result<()> {
        let listener = self.registrar.register(&self.listener, Event::Read)?;
        let stop = self.registrar.register(stop, Event::Read)?;
        loop {
            let timeout = if self.unfinished.is_empty() { None } else { Some(Duration::ZERO) };
            let batch: Vec<_> = self.poller.wait(timeout)?.iter().copied().collect();
            for n in batch {
                let retry = self.accept_again.as_ref().map(Timer::get_id);
                if n.id == stop {
                    println!("the room is closed");
                    return Ok(());
                } else if n.id == listener || Some(n.id) == retry {
                    self.accept()?;
                } else {
                    self.turn(n.id);
                }
            }
            for _ in 0..self.unfinished.len() {
                if let Some(id) = self.unfinished.pop_front() {
                    self.turn(id);
                }
            }
        }
    }

    /// Lets in all who are at the door.
    fn accept(&mut self) -> io::Result<()> {
        self.accept_again = None;
        loop {
            match self.listener.accept() {
                Ok((sock, _)) => match self.add(sock) {
                    Ok(id) => self.send(id, "* your name?\n"),
                    Err(error) => eprintln!("chat: cannot let one in: {error}"),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The one at the door has gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors, say. Nobody will tell when that is over.
                    eprintln!("chat: cannot accept: {error}");
                    self.accept_again = Some(self.registrar.set_timeout(100)?);
                    return Ok(());
                }
            }
        }
    }

    fn add(&mut self, sock: TcpStream) -> io::Result<usize> {
        sock.set_nonblocking(true)?;
        let id = self.registrar.register(&sock, Event::Both)?;
        let reader = LineReader::new(LINE_MAX);
        self.users.insert(id, User { sock, reader, outbox: Outbox::default(), name: None });
        Ok(id)
    }

    /// Writes what waits for a user, and reads what he says.
    fn turn(&mut self, id: usize) {
        let Some(user) = self.users.get_mut(&id) else { return };
        if user.outbox.flush(&mut user.sock).is_err() {
            return self.leave(id, "left");
        }
        let read = user.reader.read(&mut user.sock);
        let mut lines = Vec::new();
        for line in user.reader.iter_mut() {
            lines.push(line.map(str::to_owned).map_err(|error| error.to_string()));
        }
        let more = user.reader.has_more();
        for line in lines {
            match line {
                Ok(line) => self.hear(id, &line),
                Err(error) => self.send(id, &format!("* {error}\n")),
            }
        }
        match read {
            Err(_) => self.leave(id, "left"),
            Ok(_) if more => self.unfinished.push_back(id),
            Ok(_) => {}
        }
    }

    /// Does what a line asks for.
    fn hear(&mut self, id: usize, line: &str) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let line = line.trim();
        match (&user.name, line) {
            (_, "") => {}
            (_, "/quit") => self.leave(id, "left"),
            (None, name) => {
                user.name = Some(name.to_owned());
                self.announce(id, &format!("* {name} joined\n"));
            }
            (Some(_), "/who") => {
                let mut names = String::from("* here:");
                for name in self.users.values().filter_map(|user| user.name.as_deref()) {
                    let _ = write!(names, " {name}");
                }
                names.push('\n');
                self.send(id, &names);
            }
            (Some(name), said) => {
                let said = format!("{name}: {said}\n");
                self.tell_others(id, &said);
            }
        }
    }

    /// Tells all but one, and whoever watches the server.
    fn announce(&mut self, id: usize, notice: &str) {
        print!("{notice}");
        self.tell_others(id, notice);
    }

    fn tell_others(&mut self, id: usize, message: &str) {
        let others: Vec<usize> = self.users.keys().copied().filter(|&other| other != id).collect();
        for other in others {
            self.send(other, message);
        }
    }

    /// Sends a message to one user, or drops him if he has too much waiting for him.
    fn send(&mut self, id: usize, message: &str) {
        let Some(user) = self.users.get_mut(&id) else { return };
        if user.outbox.bytes.len() + message.len() > self.limit {
            return self.leave(id, "was dropped: too slow");
        }
        user.outbox.bytes.extend(message.as_bytes());
        if user.outbox.flush(&mut user.sock).is_err() {
            self.leave(id, "left");
        }
    }

    fn leave(&mut self, id: usize, how: &str) {
        let Some(user) = self.users.remove(&id) else { return };
        // He is out of the map already, so telling the others cannot come back here for him.
        let _ = self.registrar.deregister(&user.sock);
        if let Some(name) = &user.name {
            self.announce(id, &format!("* {name} {how}\n"));
        }
    }
}

/// A user of the self-test: blocking, and impatient.
struct Client {
    sock: BufReader<TcpStream>,
}

impl Client {
    fn join(room: SocketAddr, name: &str) -> io::Result<Client> {
        let sock = TcpStream::connect(room)?;
        sock.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut client = Client { sock: BufReader::new(sock) };
        client.expect("* your name?")?;
        client.say(&format!("{name}\n"))?;
        Ok(client)
    }

    fn say(&mut self, bytes: &str) -> io::Result<()> {
        self.sock.get_mut().write_all(bytes.as_bytes())
    }

    fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.sock.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn expect(&mut self, expected: &str) -> io::Result<()> {
        let line = self.hear()?;
        if line == expected {
            return Ok(());
        }
        Err(io::Error::other(format!("expected {expected:?}, heard {line:?}")))
    }
}

fn self_test(listener: TcpListener, limit: usize) -> io::Result<()> {
    let address = listener.local_addr()?;
    let (stop, stopper) = UnixStream::pair()?;
    let room = thread::spawn(move || Room::new(listener, limit)?.run(&stop));

    let mut ann = Client::join(address, "ann")?;
    // Nobody is told of a join who is not there yet, so ann asks until she is.
    ann.say("/who\n")?;
    ann.expect("* here: ann")?;
    let mut bob = Client::join(address, "bob")?;
    ann.expect("* bob joined")?;

    bob.say("hello")?; // a line in pieces is a line
    bob.say(" there\r\nand again\n")?;
    ann.expect("bob: hello there")?;
    ann.expect("bob: and again")?;

    ann.say(&"x".repeat(LINE_MAX + 1))?; // too long: one answer, and the next line is heard
    ann.say("\nstill here\n")?;
    let answer = ann.hear()?;
    if !answer.starts_with("* line") {
        return Err(io::Error::other(format!("an over-long line was answered with {answer:?}")));
    }
    bob.expect("ann: still here")?;

    let _deaf = Client::join(address, "deaf")?; // and never reads again
    ann.expect("* deaf joined")?;
    bob.expect("* deaf joined")?;
    let noise = format!("{}\n", "noise ".repeat(80));
    let mut said = 0;
    'talk: loop {
        // Both read all along; only the deaf one's memory would grow.
        for _ in 0..64 {
            bob.say(&noise)?;
            said += 1;
        }
        for _ in 0..64 {
            if ann.hear()?.starts_with("* deaf was dropped") {
                break 'talk;
            }
        }
        if said > 1_000_000 {
            return Err(io::Error::other("nobody was dropped"));
        }
    }
    bob.expect("* deaf was dropped: too slow")?;

    drop(bob);
    while ann.hear()? != "* bob left" {}
    drop(stopper);
    room.join().expect("the room's thread panicked")?;
    println!("self-test passed: deaf was dropped after {said} lines");
    Ok(())
}
