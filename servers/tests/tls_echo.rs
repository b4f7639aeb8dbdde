//! What TLS clients get from `tls_echo`, and what those get who are none.

mod common;

use common::{Dir, Server, crowd_size, idle_crowd, refusal, reset, soak_time, trickle, until};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const TLS_ECHO: &str = env!("CARGO_BIN_EXE_tls_echo");

/// A server whose certificate is trusted by `config` alone.
struct Tls {
    server: Server,
    config: Arc<ClientConfig>,
    dir: Dir,
}

type Client = StreamOwned<ClientConnection, TcpStream>;

impl Tls {
    fn start(name: &str, args: &[&str]) -> Tls {
        Tls::start_with(name, args, Server::start)
    }

    fn start_with(name: &str, args: &[&str], start: impl Fn(&str, &[&str]) -> Server) -> Tls {
        let dir = Dir::new(name);
        let file = dir.0.join("certificate.pem");
        let all = ["--listen", "127.0.0.1:0", "--certificate", file.to_str().unwrap()];
        let server = start(TLS_ECHO, &[&all, args].concat());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&file).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Tls { server, config: Arc::new(config), dir }
    }

    fn certificate(&self) -> String {
        format!("{}/certificate.pem", self.dir.as_str())
    }

    fn session(&self) -> ClientConnection {
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(Arc::clone(&self.config), name).unwrap()
    }

    /// A client that has shaken hands and got an echo.
    fn client(&self) -> Client {
        let mut client = StreamOwned::new(self.session(), self.server.connect());
        exchange(&mut client, b"hello");
        client
    }

    /// The bytes of a ClientHello.
    fn hello(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.session().write_tls(&mut bytes).unwrap();
        bytes
    }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    [&u32::try_from(payload.len()).unwrap().to_be_bytes(), payload].concat()
}

fn exchange(client: &mut (impl Read + Write), payload: &[u8]) {
    let bytes = frame(payload);
    client.write_all(&bytes).unwrap();
    client.flush().unwrap();
    let mut echo = vec![0; bytes.len()];
    client.read_exact(&mut echo).unwrap();
    assert!(echo == bytes);
}

/// What a raw socket still gives, to the end or the reset.
fn rest(sock: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match sock.read_to_end(&mut all) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => all,
    }
}

/// xorshift: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(1 << 20).to_le_bytes()[0]).collect()
    }
}

#[test]
fn a_bad_argument_gets_one_line_that_says_what_is_right() {
    for (args, line) in [
        (["--listen", "here"], "an address such as"),
        (["--workers", "0"], "from 1 to 256"),
        (["--frame", "much"], "from 1 to"),
        (["--handshake", "0"], "from 1 to"),
        (["--nonsense", "1"], "--nonsense"),
    ] {
        let said = refusal(TLS_ECHO, &args);
        assert!(said.contains(line), "{args:?}: {said}");
    }
    assert!(common::client(TLS_ECHO, &["--help"]).contains("--workers N"));
}

#[test]
fn openssl_shakes_hands_and_gets_its_frame_back() {
    let tls = Tls::start("tls-openssl", &[]);
    let (address, certificate) = (tls.server.address.to_string(), tls.certificate());
    for version in ["-tls1_2", "-tls1_3"] {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-no_ign_eof", "-verify_return_error", version])
            .args(["-connect", &address, "-CAfile", &certificate, "-servername", "localhost"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is needed, see ci/servers.sh");
        let mut input = child.stdin.take().unwrap();
        input.write_all(&frame(b"from openssl")).unwrap();
        let mut echo = [0; 16];
        child.stdout.take().unwrap().read_exact(&mut echo).unwrap();
        assert_eq!(echo[..], frame(b"from openssl"));
        drop(input);
        assert!(child.wait().unwrap().success(), "{version}");
    }
}

#[test]
fn frames_come_back_whatever_way_the_records_are_split() {
    let tls = Tls::start("tls-splits", &["--threads", "2", "--workers", "2"]);
    thread::scope(|scope| {
        for seed in 1..=6 {
            let tls = &tls;
            scope.spawn(move || {
                let mut random = Random(seed * 0x9e37_79b9_7f4a_7c15);
                let mut session = tls.session();
                let mut sock = tls.server.connect();
                sock.set_nodelay(true).unwrap();
                let mut bytes = Vec::new();
                for _ in 0..40 {
                    let most = if random.below(5) == 0 { 200_000 } else { 300 };
                    let length = random.below(most);
                    bytes.extend(frame(&random.bytes(length)));
                }
                // Records of random sizes, written to the socket in pieces of random sizes; what
                // comes back is read in between.
                let (mut sent, mut echo) = (0, Vec::new());
                let mut wire = Vec::new();
                while echo.len() < bytes.len() {
                    if sent < bytes.len() && !session.is_handshaking() && wire.is_empty() {
                        let piece = (1 + random.below(20_000)).min(bytes.len() - sent);
                        sent += session.writer().write(&bytes[sent..sent + piece]).unwrap();
                    }
                    while session.wants_write() {
                        session.write_tls(&mut wire).unwrap();
                    }
                    let piece = (1 + random.below(9000)).min(wire.len());
                    sock.write_all(&wire[..piece]).unwrap();
                    wire.drain(..piece);
                    let wait = wire.is_empty() && (session.is_handshaking() || sent == bytes.len());
                    sock.set_nonblocking(!wait).unwrap();
                    match session.read_tls(&mut sock) {
                        Ok(read) => assert!(read > 0, "the server has left"),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => panic!("{error}"),
                    }
                    sock.set_nonblocking(false).unwrap();
                    session.process_new_packets().unwrap();
                    let mut piece = [0; 4096];
                    while let Ok(read) = session.reader().read(&mut piece) {
                        assert!(read > 0, "the server has said that it is done");
                        echo.extend_from_slice(&piece[..read]);
                    }
                }
                assert!(echo == bytes);
            });
        }
    });
}

#[test]
fn a_frame_that_comes_with_the_end_of_the_handshake_is_not_forgotten() {
    let tls = Tls::start("tls-early", &[]);
    let mut sock = tls.server.connect();
    let mut session = tls.session();
    session.writer().write_all(&frame(b"at once")).unwrap(); // kept until the handshake is done
    while session.is_handshaking() {
        while session.wants_write() {
            session.write_tls(&mut sock).unwrap();
        }
        session.read_tls(&mut sock).unwrap();
        session.process_new_packets().unwrap();
    }
    // Finished and the frame, in one segment.
    let mut wire = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut wire).unwrap();
    }
    sock.write_all(&wire).unwrap();
    let mut client = StreamOwned::new(session, sock);
    let mut echo = [0; 11];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(echo[..], frame(b"at once"));
}

#[test]
fn stalled_handshakes_are_in_nobodys_way() {
    let tls = Tls::start("tls-stalled", &["--workers", "1"]);
    let mut established = tls.client();
    let hello = tls.hello();
    let mut slow = tls.server.connect();
    let (first, last) = hello.split_at(hello.len() - 1);
    trickle(&mut slow, &first[..first.len() / 2]);
    let stalled = (0..50)
        .map(|n| {
            let mut sock = tls.server.connect();
            sock.write_all(&hello[..n]).unwrap();
            sock
        })
        .collect::<Vec<_>>();
    // With one worker, all of it would wait for the stalled ones.
    exchange(&mut established, b"still here");
    exchange(&mut tls.client(), b"new");
    trickle(&mut slow, &first[first.len() / 2..]);
    exchange(&mut tls.client(), b"another");
    trickle(&mut slow, last);
    let mut answer = [0];
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [22], "a handshake record");
    drop(stalled);
}

#[test]
fn echoes_go_on_while_many_shake_hands() {
    let tls = Tls::start("tls-crowd", &["--workers", "1", "--threads", "1"]);
    let mut established = tls.client();
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    tls.client();
                    done.fetch_add(1, Ordering::SeqCst);
                }
                over.store(true, Ordering::SeqCst);
            });
        }
        let mut echoes = 0;
        while !over.load(Ordering::SeqCst) || echoes < 10 {
            exchange(&mut established, b"on and on");
            echoes += 1;
        }
    });
    assert_eq!(done.into_inner(), 100);
}

#[test]
fn a_handshake_has_a_time_of_its_own() {
    let tls = Tls::start("tls-timeout", &["--handshake", "1", "--idle", "3600"]);
    let mut established = tls.client();
    let start = Instant::now();
    let mut silent = tls.server.connect();
    let mut slow = tls.server.connect();
    slow.write_all(&tls.hello()[..9]).unwrap();
    assert_eq!((rest(&mut silent), rest(&mut slow)), (vec![], vec![]));
    assert!(start.elapsed() >= Duration::from_millis(900));
    exchange(&mut established, b"not for those who are done");
}

#[test]
fn an_idle_client_is_told_that_it_was_the_end() {
    let tls = Tls::start("tls-idle", &["--idle", "1"]);
    let mut client = tls.client();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "an end with close_notify");
}

#[test]
fn garbage_gets_an_alert_and_the_end() {
    let tls = Tls::start("tls-garbage", &[]);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &[22, 3, 1, 0xff, 0xff, 1]] {
        let mut sock = tls.server.connect();
        sock.write_all(garbage).unwrap();
        sock.shutdown(Shutdown::Write).unwrap();
        let said = rest(&mut sock);
        assert!(said.is_empty() || said[0] == 21, "an alert or nothing: {said:?}");
    }
    // After the handshake, too: a record that does not decrypt.
    let mut client = tls.client();
    client.sock.write_all(&[23, 3, 3, 0, 32]).unwrap();
    client.sock.write_all(&[7; 32]).unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert!(
        error.to_string().contains("BadRecordMac") || error.kind() == ErrorKind::ConnectionReset
    );
    exchange(&mut tls.client(), b"others are served");
}

#[test]
fn a_clean_end_is_answered_and_a_truncation_is_not() {
    let tls = Tls::start("tls-ends", &[]);
    // More than the buffers hold, so that the end waits behind echoes.
    let mut client = tls.client();
    let payload = vec![5; 300_000];
    client.write_all(&frame(&payload)).unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap(); // an error, without the server's close_notify
    assert!(all == frame(&payload));

    let mut client = tls.client();
    client.sock.shutdown(Shutdown::Write).unwrap();
    let result = client.read(&mut [0]);
    assert!(is_cut(&result), "an end without close_notify: {result:?}");

    let mut client = tls.client();
    client.write_all(&frame(b"half")[..6]).unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    let result = client.read(&mut [0]);
    assert!(is_cut(&result), "an end within a frame: {result:?}");
}

fn is_cut(result: &io::Result<usize>) -> bool {
    let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
    result.as_ref().is_err_and(|error| kinds.contains(&error.kind()))
}

#[test]
fn a_frame_over_the_limit_ends_the_connection() {
    let tls = Tls::start("tls-limit", &["--frame", "1000"]);
    let mut client = tls.client();
    exchange(&mut client, &[1; 1000]);
    client.write_all(&frame(&[1; 1001])).unwrap();
    assert!(is_cut(&client.read(&mut [0])));
}

#[test]
fn a_reader_that_never_reads_stops_being_read() {
    let tls = Tls::start("tls-never-reads", &[]);
    let before = tls.server.memory();
    let mut client = tls.client();
    client.sock.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let bytes = frame(&[3; 60_000]);
    let mut sent = 0_usize;
    while client.write_all(&bytes).and_then(|()| client.flush()).is_ok() {
        sent += 1;
        assert!(sent < 5000, "the server took {sent} frames from a client that reads nothing");
    }
    assert!(tls.server.memory() < before + 8192, "{} KiB, {before} before", tls.server.memory());
    exchange(&mut tls.client(), b"others are served");
    // It gets the echo of all that it has sent, once it reads. (The stream would first insist on
    // sending the rest of its last frame.)
    let (mut echo, wanted) = (Vec::new(), bytes.repeat(sent));
    while echo.len() < wanted.len() {
        assert!(client.conn.read_tls(&mut client.sock).unwrap() > 0, "the server has left");
        client.conn.process_new_packets().unwrap();
        let mut piece = [0; 4096];
        while let Ok(read) = client.conn.reader().read(&mut piece) {
            assert!(read > 0, "the server has said that it is done");
            echo.extend_from_slice(&piece[..read]);
        }
    }
    assert!(echo[..wanted.len()] == wanted);
}

#[test]
fn few_descriptors_serve_many_clients() {
    let tls = Tls::start_with("tls-few", &[], |program, args| {
        Server::start_with_limit(program, args, 40)
    });
    let socks = idle_crowd(&tls.server, 100);
    let busy = tls.server.processor_time();
    thread::sleep(Duration::from_millis(500));
    let spent = tls.server.processor_time() - busy;
    assert!(spent < Duration::from_millis(250), "{spent:?} for waiting");
    for sock in socks {
        exchange(&mut StreamOwned::new(tls.session(), sock), b"in the end");
    }
}

#[test]
fn a_crowd_of_idle_clients_is_in_nobodys_way() {
    let tls = Tls::start("tls-idle-crowd", &["--connections", "20000"]);
    let few = tls.server.descriptors();
    let crowd = idle_crowd(&tls.server, crowd_size(200, 1));
    exchange(&mut tls.client(), b"hello");
    for _ in 0..10 {
        reset(&tls.server, &tls.hello());
    }
    drop(crowd);
    tls.server.until("all are gone", |server| server.descriptors() == few);
}

#[test]
fn a_signal_ends_it_and_says_so_to_the_clients() {
    for signal in ["TERM", "INT"] {
        let tls = Tls::start("tls-signal", &["--threads", "2", "--workers", "2"]);
        let mut client = tls.client();
        let _stalled = tls.server.connect();
        tls.server.signal(signal);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "an end with close_notify");
        assert_eq!(tls.server.stop_after_signal().code(), Some(0));
    }
}

#[test]
fn a_soak_leaves_everything_as_it_was() {
    let tls = Tls::start("tls-soak", &["--threads", "2", "--workers", "2"]);
    let hello = tls.hello();
    let few = tls.server.descriptors();
    let run = |time: Duration| {
        let start = Instant::now();
        thread::scope(|scope| {
            for seed in 1..=4 {
                let (tls, hello) = (&tls, &hello);
                scope.spawn(move || {
                    let mut random = Random(seed * 0x9e37_79b9_7f4a_7c15);
                    while start.elapsed() < time {
                        match random.below(5) {
                            0 => reset(&tls.server, &hello[..random.below(hello.len())]),
                            1 => reset(&tls.server, hello),
                            2 => drop(tls.client()),
                            _ => {
                                let mut client = tls.client();
                                for _ in 0..random.below(20) {
                                    let length = random.below(50_000);
                                    exchange(&mut client, &random.bytes(length));
                                }
                                client.conn.send_close_notify();
                                client.flush().unwrap();
                                assert_eq!(client.read(&mut [0]).unwrap(), 0);
                            }
                        }
                    }
                });
            }
        });
        until("no connection is left", || tls.server.descriptors() == few);
    };
    run(Duration::from_secs(1));
    let memory = tls.server.memory();
    run(soak_time(3));
    let after = tls.server.memory();
    assert!(after < memory + 8192, "{after} KiB, {memory} before");
    assert_eq!(tls.server.stop().code(), Some(0));
}
