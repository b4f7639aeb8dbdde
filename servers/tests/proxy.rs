//! What a client and a backend see of each other through `proxy`: all of it, and no more.

mod common;

use common::{
    Dir, LONG, Server, client, crowd_size, half_close, idle_crowd, never_read, refusal, reset,
    soak_time, trickle, until,
};
use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

const PROXY: &str = env!("CARGO_BIN_EXE_proxy");

/// The proxy in front of `backends`.
fn proxy(backends: &[SocketAddr], args: &[&str]) -> Server {
    let args = arguments(backends, args);
    Server::start(PROXY, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn arguments(backends: &[SocketAddr], args: &[&str]) -> Vec<String> {
    let mut all = vec!["--listen".to_owned(), "127.0.0.1:0".to_owned()];
    for backend in backends {
        all.extend(["--backend".to_owned(), backend.to_string()]);
    }
    all.extend(args.iter().map(|&arg| arg.to_owned()));
    all
}

/// A backend that treats each connection on a thread of its own. Counts those that said something, so
/// that checks do not count.
struct Backend {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Backend {
    fn start(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> Backend {
        Backend::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), serve)
    }

    fn on(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Clone + 'static) -> Backend {
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        thread::spawn(move || {
            for sock in listener.incoming().map_while(Result::ok) {
                let (serve, count) = (serve.clone(), Arc::clone(&count));
                sock.set_read_timeout(Some(LONG)).unwrap();
                thread::Builder::new()
                    .stack_size(128 * 1024)
                    .spawn(move || {
                        if matches!(sock.peek(&mut [0]), Ok(1)) {
                            count.fetch_add(1, Ordering::SeqCst);
                            serve(sock);
                        }
                    })
                    .unwrap();
            }
        });
        Backend { address, accepted }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

fn echo(mut sock: TcpStream) {
    let mut from = sock.try_clone().unwrap();
    let _ = io::copy(&mut from, &mut sock);
}

/// Says its own name to whoever says something, and stays until the client leaves.
fn named(name: u8) -> impl Fn(TcpStream) + Send + Clone + 'static {
    move |mut sock| {
        let _ = sock.read(&mut [0; 64]);
        let _ = sock.write_all(&[name]);
        let _ = sock.read(&mut [0]);
    }
}

/// An address that accepts no connection and refuses none: its backlog is full. With what fills it.
fn blackhole() -> (SocketAddr, TcpListener, Vec<socket2::Socket>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    loop {
        let filler =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let connected = filler.connect_timeout(&address.into(), Duration::from_millis(300)).is_ok();
        fillers.push(filler);
        if !connected {
            return (address, listener, fillers);
        }
    }
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Who answers a new client.
fn ask(server: &Server) -> io::Result<u8> {
    ask_and_stay(server).map(|(name, _)| name)
}

fn ask_and_stay(server: &Server) -> io::Result<(u8, TcpStream)> {
    let mut sock = server.connect();
    sock.write_all(b"?")?;
    let mut name = [0];
    sock.read_exact(&mut name)?;
    Ok((name[0], sock))
}

/// xorshift: the same numbers for the same seed.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// Writes `bytes` in pieces of random sizes, mostly small, and then closes the writing half.
fn write_in_pieces(sock: &mut TcpStream, bytes: &[u8], random: &mut Random) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = if random.below(4) == 0 { 100_000 } else { 700 };
        let (piece, later) = rest.split_at(rest.len().min(1 + random.below(most)));
        sock.write_all(piece).unwrap();
        rest = later;
    }
    sock.shutdown(Shutdown::Write).unwrap();
}

fn is_reset(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn a_bad_argument_gets_one_line_that_says_what_is_right() {
    assert!(refusal(PROXY, &[]).contains("--backend is needed"));
    let backend = ["--backend", "127.0.0.1:1"];
    for (args, line) in [
        (["--backend", "here"], "an address such as"),
        (["--balance", "random"], "round-robin or least-connections"),
        (["--threads", "0"], "from 1 to 256"),
        (["--connections", "-1"], "from 1 to"),
        (["--buffer", "0"], "from 1 to"),
        (["--check", "0"], "from 1 to"),
        (["--rise", "none"], "from 1 to"),
        (["--nonsense", "1"], "--nonsense"),
    ] {
        let said = refusal(PROXY, &[backend, args].concat());
        assert!(said.contains(line), "{args:?}: {said}");
    }
    let many = [backend; 65].concat();
    assert!(refusal(PROXY, &many).contains("64 times"));
    assert!(client(PROXY, &["--help"]).contains("--backend ADDRESS"));
}

#[test]
fn every_byte_arrives_in_both_directions_and_so_do_both_ends() {
    // Each side sends a stream of its own while it reads the other's, and ends it when it is done: who
    // is first is up to the sizes. The seed travels in the client's first bytes.
    fn side(mut sock: TcpStream, mine: u64, other: u64) {
        let mut random = Random(mine | 1);
        let scale = random.below(22);
        let count = random.below(1 << scale);
        let bytes = random.bytes(count);
        let mut from = sock.try_clone().unwrap();
        let writer = thread::spawn(move || write_in_pieces(&mut sock, &bytes, &mut random));
        let mut random = Random(other | 1);
        let scale = random.below(22);
        let count = random.below(1 << scale);
        let expected = random.bytes(count);
        let mut received = Vec::new();
        let mut piece = vec![0; 1 << 16];
        loop {
            let wanted = 1 + random.below(piece.len());
            match from.read(&mut piece[..wanted]).unwrap() {
                0 => break,
                read => received.extend_from_slice(&piece[..read]),
            }
        }
        assert!(received == expected, "{} of {} bytes, or others", received.len(), expected.len());
        writer.join().unwrap();
    }

    for args in [&["--threads", "2"][..], &["--buffer", "777"], &["--buffer", "1048576"]] {
        let (checked, results) = mpsc::channel();
        let backend = Backend::start(move |mut sock| {
            let mut seed = [0; 8];
            sock.read_exact(&mut seed).unwrap();
            let seed = u64::from_le_bytes(seed);
            let checked = checked.clone();
            let outcome = std::panic::catch_unwind(|| side(sock, seed ^ 0xabcd_0000, seed));
            checked.send(outcome.is_ok()).unwrap();
        });
        let server = proxy(&[backend.address], args);
        thread::scope(|scope| {
            for thread in 0..4_u64 {
                let server = &server;
                scope.spawn(move || {
                    for round in 0..15_u64 {
                        let seed = (thread * 1000 + round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                        let mut sock = server.connect();
                        sock.write_all(&seed.to_le_bytes()).unwrap();
                        side(sock, seed, seed ^ 0xabcd_0000);
                    }
                });
            }
        });
        for _ in 0..60 {
            assert!(results.recv_timeout(LONG).unwrap());
        }
    }
}

#[test]
fn an_end_closes_one_direction_alone() {
    // The backend ends first, and hears the client out.
    let (heard, hears) = mpsc::channel();
    let backend = Backend::start(move |mut sock| {
        sock.write_all(b"no more from me").unwrap();
        sock.shutdown(Shutdown::Write).unwrap();
        let mut all = String::new();
        sock.read_to_string(&mut all).unwrap();
        heard.send(all).unwrap();
    });
    let server = proxy(&[backend.address], &[]);
    let mut sock = server.connect();
    sock.write_all(b"before").unwrap();
    let mut all = String::new();
    sock.read_to_string(&mut all).unwrap();
    assert_eq!(all, "no more from me");
    sock.write_all(b", after").unwrap();
    sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hears.recv_timeout(LONG).unwrap(), "before, after");

    // The client ends first, and the answer comes at that.
    let backend = Backend::start(|mut sock| {
        let mut all = Vec::new();
        sock.read_to_end(&mut all).unwrap();
        all.reverse();
        sock.write_all(&all).unwrap();
    });
    let server = proxy(&[backend.address], &[]);
    assert_eq!(half_close(&server, b"drawer"), b"reward");
    server.until("the session is over", |server| threads_sockets(server) == 0);
}

/// How many sockets of sessions it has: those that are connected.
fn threads_sockets(server: &Server) -> usize {
    let port = format!(":{:04X} ", server.address.port());
    let table = fs::read_to_string(format!("/proc/{}/net/tcp", server.pid())).unwrap();
    table
        .lines()
        .filter(|line| line[..line.len().min(20)].contains(&port))
        .filter(|line| line.contains(" 01 "))
        .count()
}

#[test]
fn a_reset_is_carried_on_as_a_reset() {
    let (seen, sees) = mpsc::channel();
    let backend = Backend::start(move |mut sock| {
        sock.read_exact(&mut [0; 4]).unwrap();
        seen.send(sock.read(&mut [0])).unwrap();
    });
    let server = proxy(&[backend.address], &[]);
    let mut sock = server.connect();
    sock.write_all(b"data").unwrap();
    until("the data has arrived", || backend.accepted() == 1);
    socket2::SockRef::from(&sock).set_linger(Some(Duration::ZERO)).unwrap();
    drop(sock);
    let result = sees.recv_timeout(LONG).unwrap();
    assert!(is_reset(&result), "{result:?}");

    let backend = Backend::start(|mut sock| {
        sock.read_exact(&mut [0; 4]).unwrap();
        socket2::SockRef::from(&sock).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let server = proxy(&[backend.address], &[]);
    sock = server.connect();
    sock.write_all(b"data").unwrap();
    let result = sock.read(&mut [0]);
    assert!(is_reset(&result), "{result:?}");
}

#[test]
fn what_was_answered_before_a_hang_up_arrives() {
    // The backend answers and closes although there is more to read: its kernel sends a reset.
    let backend = Backend::start(|mut sock| {
        sock.read_exact(&mut [0; 4]).unwrap();
        sock.write_all(b"too much").unwrap();
    });
    let server = proxy(&[backend.address], &[]);
    let mut sock = server.connect();
    sock.write_all(&[7; 1000]).unwrap();
    let mut answer = [0; 8];
    sock.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"too much");
}

#[test]
fn a_reader_that_never_reads_stops_the_sender() {
    const MOST: usize = 256 << 20;
    let patience = Duration::from_secs(1);

    let backend = Backend::start(|_sock| thread::sleep(LONG));
    let server = proxy(&[backend.address], &[]);
    let before = server.memory();
    let sock = server.connect();
    let sent = never_read(&sock, &[1; 65_536], patience, MOST);
    assert!(sent > 0);
    assert!(server.memory() < before + 4096, "{} KiB, {before} before", server.memory());

    let (stopped, stops) = mpsc::channel();
    let backend = Backend::start(move |sock| {
        stopped.send(never_read(&sock, &[1; 65_536], patience, MOST)).unwrap();
        thread::sleep(LONG);
    });
    let server = proxy(&[backend.address], &[]);
    let mut sock = server.connect();
    sock.write_all(b"?").unwrap();
    let sent = stops.recv_timeout(LONG).unwrap();
    // What was held arrives, all of it, once it is read.
    let mut received = 0;
    let mut piece = [0; 65_536];
    while received < sent {
        received += sock.read(&mut piece).unwrap();
    }
    assert_eq!(received, sent);
}

#[test]
fn round_robin_takes_turns() {
    let backends = [b'a', b'b', b'c'].map(|name| Backend::start(named(name)));
    let server = proxy(&backends.each_ref().map(|b| b.address), &["--threads", "2"]);
    for _ in 0..30 {
        ask(&server).unwrap();
    }
    assert_eq!(backends.each_ref().map(Backend::accepted), [10; 3]);
}

#[test]
fn least_connections_prefers_the_idle_backend() {
    let backends = [b'a', b'b'].map(|name| Backend::start(named(name)));
    let addresses = backends.each_ref().map(|b| b.address);
    let server = proxy(&addresses, &["--threads", "2", "--balance", "least-connections"]);
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let (name, sock) = ask_and_stay(&server).unwrap();
        if name == b'a' { of_a.push(sock) } else { of_b.push(sock) }
    }
    assert_eq!((of_a.len(), of_b.len()), (5, 5));

    drop(of_b);
    server.until("b's are gone", |server| threads_sockets(server) == 5);
    let next = (0..5).map(|_| ask_and_stay(&server).unwrap()).collect::<Vec<_>>();
    assert!(next.iter().all(|(name, _)| *name == b'b'), "a has 5 already");
}

#[test]
fn a_backend_that_refuses_or_does_not_answer_costs_no_client() {
    let (silent, _listener, _fillers) = blackhole();
    let good = Backend::start(named(b'g'));
    let backends = [silent, nobody(), good.address];
    // No check ever says who is down: the clients find out.
    let server = proxy(&backends, &["--connect", "200", "--check", "3600000", "--fall", "1000"]);
    for _ in 0..10 {
        assert_eq!(ask(&server).unwrap(), b'g');
    }
}

#[test]
fn a_client_for_whom_there_is_nobody_is_reset() {
    let (silent, _listener, _fillers) = blackhole();
    let server = proxy(&[nobody(), silent, nobody()], &["--connect", "200"]);
    let mut sock = server.connect();
    let result = sock.read(&mut [0]);
    assert!(is_reset(&result), "{result:?}");
    // Those who leave before that are forgotten.
    for _ in 0..10 {
        reset(&server, b"?");
    }
    let few = server.descriptors();
    server.until("all are gone", |server| threads_sockets(server) == 0);
    assert!(few < 60);
}

#[test]
fn checks_bring_a_backend_back_and_take_one_down() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let good = Backend::start(named(b'g'));
    drop(listener);
    let server = proxy(&[address, good.address], &["--check", "20", "--rise", "2", "--fall", "2"]);
    assert_eq!((ask(&server).unwrap(), ask(&server).unwrap()), (b'g', b'g'));

    // It starts late, and gets clients when the checks have seen it.
    let late = Backend::on(TcpListener::bind(address).unwrap(), named(b'l'));
    until("the late one is found", || ask(&server).unwrap() == b'l');
    let before = late.accepted();
    for _ in 0..10 {
        ask(&server).unwrap();
    }
    assert_eq!(late.accepted(), before + 5);
}

#[test]
fn a_backend_that_does_not_answer_is_found_out_without_a_client() {
    let (silent, _listener, _fillers) = blackhole();
    let good = Backend::start(named(b'g'));
    // A client that met the silent one would wait longer than its patience.
    let server =
        proxy(&[silent, good.address], &["--check", "50", "--fall", "2", "--connect", "600000"]);
    until("ten in a row get the good one", || {
        (0..10).all(|_| {
            let mut sock = server.connect();
            sock.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            sock.write_all(b"?").unwrap();
            matches!(sock.read(&mut [0]), Ok(1))
        })
    });
}

#[test]
fn a_session_on_which_nothing_moves_is_reset() {
    let backend = Backend::start(echo);
    let server = proxy(&[backend.address], &["--idle", "1"]);
    let mut sock = server.connect();
    let start = Instant::now();
    // As long as something moves, it goes on.
    while start.elapsed() < Duration::from_millis(2500) {
        sock.write_all(b"x").unwrap();
        sock.read_exact(&mut [0]).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    let quiet = Instant::now();
    let result = sock.read(&mut [0]);
    assert!(is_reset(&result), "{result:?}");
    assert!(quiet.elapsed() > Duration::from_millis(800));
}

#[test]
fn sessions_end_in_peace_after_a_signal() {
    let backend = Backend::start(echo);
    let server = proxy(&[backend.address], &["--threads", "2", "--drain", "3600"]);
    let address = server.address;
    let mut socks = idle_crowd(&server, 4);
    for sock in &mut socks {
        sock.write_all(b"x").unwrap();
        sock.read_exact(&mut [0]).unwrap();
    }
    server.signal("TERM");
    until("nobody listens", || TcpStream::connect(address).is_err());
    let busy = server.processor_time();
    thread::sleep(Duration::from_millis(300));
    assert!(
        server.processor_time() < busy + Duration::from_millis(150),
        "it waits, it does not spin"
    );
    for sock in &mut socks {
        sock.write_all(b"still here").unwrap();
        sock.shutdown(Shutdown::Write).unwrap();
        let mut all = String::new();
        sock.read_to_string(&mut all).unwrap();
        assert_eq!(all, "still here");
    }
    assert_eq!(server.stop_after_signal().code(), Some(0));
}

#[test]
fn a_drain_has_an_end_and_a_second_signal_is_it() {
    let backend = Backend::start(echo);
    for (drain, second) in [("1", false), ("0", false), ("3600", true)] {
        let server = proxy(&[backend.address], &["--drain", drain]);
        let address = server.address;
        let mut sock = server.connect();
        sock.write_all(b"x").unwrap();
        sock.read_exact(&mut [0]).unwrap();
        server.signal("TERM");
        if second {
            until("nobody listens", || TcpStream::connect(address).is_err());
            server.signal("INT");
        }
        let result = sock.read(&mut [0]);
        assert!(is_reset(&result), "cut short is no end: {result:?}");
        assert_eq!(server.stop_after_signal().code(), Some(0));
    }
}

#[test]
fn few_descriptors_serve_many_clients() {
    let backend = Backend::start(echo);
    let args = arguments(&[backend.address], &["--threads", "2"]);
    let args = args.iter().map(String::as_str).collect::<Vec<_>>();
    let server = Server::start_with_limit(PROXY, &args, 40);
    let mut socks = idle_crowd(&server, 100);
    let busy = server.processor_time();
    thread::sleep(Duration::from_millis(500));
    let spent = server.processor_time() - busy;
    assert!(spent < Duration::from_millis(250), "{spent:?} for waiting");
    for sock in &mut socks {
        sock.write_all(b"hello").unwrap();
        sock.shutdown(Shutdown::Write).unwrap();
    }
    for sock in &mut socks {
        let mut all = String::new();
        sock.read_to_string(&mut all).unwrap();
        assert_eq!(all, "hello");
    }
}

#[test]
fn a_crowd_of_idle_clients_is_in_nobodys_way() {
    // Both ends of a client and of a backend are in this process.
    let crowd = crowd_size(400, 2);

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // std's queue of 128 is overrun by a crowd, and who is dropped tries again after a second.
    rustix::net::listen(&listener, 4096).unwrap();
    let silent = listener.local_addr().unwrap();
    let (kept, keeps) = mpsc::channel();
    thread::spawn(move || {
        for sock in listener.incoming().map_while(Result::ok) {
            if kept.send(sock).is_err() {
                return;
            }
        }
    });
    let server = proxy(&[silent], &["--connections", "20000", "--check", "3600000"]);
    // The one check, of the start.
    assert!(matches!(keeps.recv_timeout(LONG).unwrap().read(&mut [0]), Ok(0)));
    let few = server.descriptors();
    let crowd_socks = idle_crowd(&server, crowd);
    let mut ends = Vec::new();
    while ends.len() < crowd {
        ends.push(keeps.recv_timeout(LONG).unwrap());
    }
    let mut sock = server.connect();
    trickle(&mut sock, b"hello");
    let mut end = keeps.recv_timeout(LONG).unwrap();
    end.set_read_timeout(Some(LONG)).unwrap();
    let mut hello = [0; 5];
    end.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    end.write_all(b"bye").unwrap();
    sock.read_exact(&mut [0; 3]).unwrap();
    drop((crowd_socks, sock, end, ends, keeps));
    server.until("all are gone", |server| server.descriptors() <= few + 1);
}

/// What clients report of the proxy before one of this package's servers is what they would report of
/// that server.
#[test]
fn wrk_does_not_notice_it_before_a_web_server() {
    let dir = Dir::new("proxy-http");
    fs::write(dir.0.join("index.html"), vec![b'x'; 1024]).unwrap();
    let http = env!("CARGO_BIN_EXE_http");
    let backend = Server::start(http, &["--listen", "127.0.0.1:0", "--root", dir.as_str()]);
    let server = proxy(&[backend.address], &["--threads", "2"]);
    let url = format!("http://{}/index.html", server.address);
    // And with one connection for each request.
    for options in [&["-c32"][..], &["-c8", "-H", "Connection: close"]] {
        let report = client("wrk", &[options, &["-t1", "-d1s", &url]].concat());
        assert!(report.contains("Requests/sec"), "{report}");
        assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    }
    assert_eq!(client("curl", &["-sS", "--fail", &url]), "x".repeat(1024));
}

#[test]
fn redis_benchmark_does_not_notice_it_before_a_key_value_server() {
    let backend = Server::start(env!("CARGO_BIN_EXE_kv"), &["--listen", "127.0.0.1:0"]);
    let server = proxy(&[backend.address], &[]);
    let port = server.address.port().to_string();
    for pipeline in ["1", "16"] {
        let report = client(
            "redis-benchmark",
            &["-p", &port, "-t", "set,get,lrange_100", "-n", "5000", "-P", pipeline, "-e", "--csv"],
        );
        assert!(report.contains("\"GET\"") && !report.contains("rror"), "{report}");
    }
    assert_eq!(client("redis-cli", &["-p", &port, "set", "key", "value"]).trim(), "OK");
    assert_eq!(client("redis-cli", &["-p", &port, "get", "key"]).trim(), "value");
}

#[test]
fn a_soak_leaves_everything_as_it_was() {
    let (gone, good) = (nobody(), Backend::start(echo));
    let server = proxy(&[good.address, gone], &["--threads", "2", "--check", "50"]);
    let round = &|seed: u64| {
        let mut random = Random(seed | 1);
        let bytes = random.bytes(1 + random.clone().below(300_000));
        match random.below(4) {
            0 => reset(&server, &bytes[..bytes.len().min(1000)]),
            1 => drop(server.connect()),
            _ => {
                let mut sock = server.connect();
                let mut from = sock.try_clone().unwrap();
                let expected = bytes.clone();
                let reader = thread::spawn(move || {
                    let mut all = Vec::new();
                    from.read_to_end(&mut all).unwrap();
                    assert!(all == expected);
                });
                write_in_pieces(&mut sock, &bytes, &mut random);
                reader.join().unwrap();
            }
        }
    };
    let run = |time: Duration| {
        let start = Instant::now();
        thread::scope(|scope| {
            for thread in 1..=4_u64 {
                scope.spawn(move || {
                    let mut seed = thread << 32;
                    while start.elapsed() < time {
                        seed += 1;
                        round(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    }
                });
            }
        });
        server.until("all sessions are over", |server| threads_sockets(server) == 0);
    };
    run(Duration::from_secs(1));
    let (descriptors, memory) = (server.descriptors(), server.memory());
    run(soak_time(3));
    // A check is under way now and then, for each backend.
    server.until("no descriptor is left", |server| server.descriptors() <= descriptors + 2);
    assert!(server.memory() < memory + 8192, "{} KiB, {memory} before", server.memory());
    assert_eq!(server.stop().code(), Some(0));
}
