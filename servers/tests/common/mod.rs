//! A server under test, and the abuse that any server meets.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses some of it")]

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Only something that hangs takes longer.
pub const LONG: Duration = Duration::from_secs(60);

/// A server of this package, as a process of its own. Killed when it is dropped.
pub struct Server {
    child: Child,
    /// Where it listens, as it said in its first line: `listening on ADDRESS`.
    pub address: SocketAddr,
}

impl Server {
    /// Starts `program` (the path that `CARGO_BIN_EXE_…` holds) with these arguments.
    pub fn start(program: &str, args: &[&str]) -> Server {
        Server::spawn(Command::new(program).args(args))
    }

    /// Starts it with what it says on stderr in a file, and such that a file which may not grow fails
    /// the write (setrlimit(2), RLIMIT_FSIZE: EFBIG, as the signal is ignored).
    pub fn start_with_log(program: &str, args: &[&str], log: &Path) -> Server {
        let script = "trap '' XFSZ; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        Server::spawn(
            command.args(["-c", script, program]).args(args).stderr(File::create(log).unwrap()),
        )
    }

    /// Lets no file grow beyond so many bytes, as on a full disk; `None` lifts it.
    pub fn limit_file_size(&self, bytes: Option<u64>) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let maximum = getrlimit(Resource::Fsize).maximum;
        prlimit(pid, Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
    }

    /// Starts it with no more than `descriptors` of them.
    pub fn start_with_limit(program: &str, args: &[&str], descriptors: u64) -> Server {
        let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
        Server::spawn(Command::new("sh").args(["-c", &script, program]).args(args))
    }

    fn spawn(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").and_then(|rest| {
            rest.trim().split([' ', ';', ',']).next().and_then(|address| address.parse().ok())
        });
        let address = address.unwrap_or_else(|| panic!("not where it listens: {line:?}"));
        // What else it says must not block it.
        thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Server { child, address }
    }

    /// A blocking connection that fails rather than hangs.
    pub fn connect(&self) -> TcpStream {
        let sock = TcpStream::connect(self.address).unwrap();
        sock.set_read_timeout(Some(LONG)).unwrap();
        sock.set_write_timeout(Some(LONG)).unwrap();
        sock
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// How much memory it has resident, in KiB.
    pub fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// How long it has run on a processor.
    pub fn processor_time(&self) -> Duration {
        // proc(5): utime and stime are the 14th and 15th, in ticks of 10 ms; the name in
        // parentheses holds no space here.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let ticks: u64 = stat.split(' ').skip(13).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Waits until `holds`, and panics if that takes too long.
    pub fn until(&self, what: &str, holds: impl Fn(&Server) -> bool) {
        until(what, || holds(self));
    }

    /// SIGTERM, and how it ended.
    pub fn stop(self) -> ExitStatus {
        self.signal("TERM");
        self.stop_after_signal()
    }

    /// How it ended, after a signal that was sent already.
    pub fn stop_after_signal(mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < LONG, "it does not end on SIGTERM");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `holds`, and panics if that takes too long.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A client that somebody else wrote: what it printed, and that it ended well.
pub fn client(program: &str, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed, see ci/servers.sh: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{program} {args:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// What a server says to arguments that it refuses: one line on stderr, and status 2.
pub fn refusal(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    said
}

/// Opens `count` connections that say nothing.
pub fn idle_crowd(server: &Server, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| server.connect()).collect()
}

/// How many connections a crowd has: 10,000, or what this process and the servers that it starts can
/// have with `each` descriptors for one, when `kept` of them serve something else.
pub fn crowd_size(kept: usize, each: usize) -> usize {
    amy_servers::raise_descriptor_limit();
    let most = getrlimit(Resource::Nofile).current.and_then(|most| usize::try_from(most).ok());
    most.map_or(10_000, |most| (most.saturating_sub(kept) / each).min(10_000))
}

/// A crowd that says nothing costs little, is in nobody's way and leaves nothing. `others` checks that
/// the server serves others meanwhile.
pub fn quiet_crowd(server: &Server, others: impl Fn()) {
    let (descriptors, memory, count) = (server.descriptors(), server.memory(), crowd_size(100, 1));
    let crowd = idle_crowd(server, count);
    server.until("all are accepted", |server| server.descriptors() >= descriptors + count);
    others();
    let each = (server.memory() - memory) * 1024 / count;
    assert!(each < 4096, "{each} bytes each");
    drop(crowd);
    server.until("all have left", |server| server.descriptors() == descriptors);
}

/// How long a soak takes: `seconds`, unless AMY_SOAK_SECONDS says otherwise.
pub fn soak_time(seconds: u64) -> Duration {
    let wanted = std::env::var("AMY_SOAK_SECONDS");
    Duration::from_secs(wanted.map_or(seconds, |text| text.parse().unwrap()))
}

/// Does `round` again and again, after `warm` times at which memory may still grow, and checks that the
/// server has then no more descriptors and memory than before, and ends well.
pub fn soak(server: Server, warm: usize, round: impl Fn(&Server)) {
    let idle = server.descriptors();
    let settle = || server.until("all have left", |server| server.descriptors() <= idle);
    (0..warm).for_each(|_| round(&server));
    settle();
    let memory = server.memory();
    let (start, time) = (Instant::now(), soak_time(3));
    while start.elapsed() < time {
        round(&server);
    }
    settle();
    let after = server.memory();
    assert!(after < memory + memory / 4 + 4096, "{after} KiB, {memory} before");
    assert!(server.stop().success());
}

/// Sends `bytes` one by one, each as a packet of its own.
pub fn trickle(sock: &mut TcpStream, bytes: &[u8]) {
    sock.set_nodelay(true).unwrap();
    for byte in bytes {
        sock.write_all(&[*byte]).unwrap();
    }
}

/// Sends `bytes` and closes the writing half; what comes back until the end.
pub fn half_close(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut sock = server.connect();
    sock.write_all(bytes).unwrap();
    sock.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    sock.read_to_end(&mut answer).unwrap();
    answer
}

/// Sends `bytes` and resets the connection.
pub fn reset(server: &Server, bytes: &[u8]) {
    let sock = server.connect();
    (&sock).write_all(bytes).unwrap();
    // Closing with a linger time of zero sends RST (socket(7), SO_LINGER).
    socket2::SockRef::from(&sock).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Sends `request` again and again without reading an answer, until the server takes no more for
/// `patience` or closes; how many bytes it took. A server with bounded memory stops at some point.
pub fn never_read(sock: &TcpStream, request: &[u8], patience: Duration, most: usize) -> usize {
    sock.set_write_timeout(Some(patience)).unwrap();
    let mut sent = 0;
    while sent < most {
        match (&*sock).write(request) {
            Ok(written) => sent += written,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return sent;
            }
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                return sent;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the server took {sent} bytes from a client that reads nothing")
}

/// An empty directory of this test, removed when it is dropped.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new(name: &str) -> Dir {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
