//! `kv`, driven by the clients that Redis's users have, and abused.

mod common;

use common::{
    Dir, Server, client, half_close, idle_crowd, never_read, quiet_crowd, refusal, reset, soak,
    trickle, until,
};
use redis::Commands;
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const KV: &str = env!("CARGO_BIN_EXE_kv");

/// How the threads can be arranged.
const LAYOUTS: [&[&str]; 3] =
    [&[], &["--pollers", "2", "--workers", "2"], &["--pollers", "1", "--workers", "3"]];

fn start(args: &[&str]) -> Server {
    Server::start(KV, &[&["--listen", "127.0.0.1:0"], args].concat())
}

/// The address as a client of the `redis` crate wants it, connected.
fn connect(server: &Server) -> redis::Connection {
    redis::Client::open(format!("redis://{}/", server.address)).unwrap().get_connection().unwrap()
}

/// Sends `request`, and reads until so many bytes have come.
fn exchange(sock: &mut TcpStream, request: &[u8], len: usize) -> Vec<u8> {
    sock.write_all(request).unwrap();
    let mut reply = vec![0; len];
    sock.read_exact(&mut reply).unwrap();
    reply
}

fn expiring(after: redis::SetExpiry) -> redis::SetOptions {
    redis::SetOptions::default().with_expiration(after)
}

fn cli(server: &Server, words: &str) -> String {
    let port = server.address.port().to_string();
    let args: Vec<_> = ["-p", &port].into_iter().chain(words.split(' ')).collect();
    client("redis-cli", &args).trim_end().to_owned()
}

#[test]
fn redis_cli_gets_the_answers_that_redis_gives() {
    for layout in LAYOUTS {
        let server = start(layout);
        for (words, answer) in [
            ("PING", "PONG"),
            ("ECHO hello", "hello"),
            ("SET a 1", "OK"),
            ("GET a", "1"),
            ("GET nothing", ""),
            ("SET a 2 NX", ""),
            ("INCR a", "2"),
            ("DECR a", "1"),
            ("MSET a 1 b 2 c 3 d 4", "OK"),
            ("MGET a b nothing d", "1\n2\n\n4"),
            ("EXISTS a b nothing", "2"),
            ("DEL a b nothing", "2"),
            ("LPUSH l x y z", "3"),
            ("LRANGE l 0 -1", "z\ny\nx"),
            ("SADD s x y x", "2"),
            ("HSET h f v", "1"),
            ("HGET h f", "v"),
            ("EXPIRE h 100", "1"),
            ("TTL h", "100"),
            ("TTL l", "-1"),
            ("CONFIG GET save", "save"),
            ("HELLO 2", "server\namy-kv\nversion\n0.0.0\nproto\n2"),
            ("HELLO 3", "NOPROTO unsupported protocol version"),
            ("GET", "ERR wrong number of arguments for 'get' command"),
            ("MSET a", "ERR wrong number of arguments for 'mset' command"),
            ("DEL", "ERR wrong number of arguments for 'del' command"),
            ("GET l", "WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("FLUSHALL", "ERR unknown command 'FLUSHALL'"),
            ("COMMAND COUNT", "18"),
            ("CLIENT SETNAME me", "OK"),
            ("CLIENT SETINFO lib-name x", "OK"),
            ("CLIENT KILL all", "ERR unknown subcommand 'KILL' of 'client'"),
            ("CLIENT TRACKING on", "ERR unknown subcommand 'TRACKING' of 'client'"),
            ("CLIENT", "ERR wrong number of arguments for 'client' command"),
            ("CLIENT SETNAME", "ERR wrong number of arguments for 'client|setname' command"),
            ("CONFIG SET save 1", "ERR unknown subcommand 'SET' of 'config'"),
            ("QUIT", "OK"),
        ] {
            assert_eq!(cli(&server, words), answer, "{words} {layout:?}");
        }
        assert!(cli(&server, "INFO").contains("db0:keys=5"), "{}", cli(&server, "INFO"));
        assert!(cli(&server, "COMMAND").contains("lrange"));
        assert!(server.stop().success());
    }
}

#[test]
fn redis_benchmark_meets_no_error() {
    let dir = Dir::new("kv-benchmark");
    for layout in [LAYOUTS[0], LAYOUTS[1], &["--data", dir.as_str(), "--sync", "interval"]] {
        let server = start(layout);
        let port = server.address.port().to_string();
        for pipeline in ["1", "16"] {
            let tests = "ping_inline,ping_mbulk,set,get,incr,lpush,sadd,hset,lrange_100,mset";
            let said = client(
                "redis-benchmark",
                &[
                    "-p", &port, "-n", "2000", "-c", "20", "-P", pipeline, "-t", tests, "-e",
                    "--csv",
                ],
            );
            // A line for each, and one for the titles and one for the pushes before LRANGE.
            assert_eq!(said.lines().filter(|line| line.starts_with('"')).count(), 12, "{said}");
            assert!(!said.contains("rror"), "{said}");
        }
        // `incr` and its like ran on one key, and none got lost.
        assert_eq!(cli(&server, "GET counter:__rand_int__"), "4000");
        assert!(server.stop().success());
    }
}

#[test]
fn the_rust_client_works_against_it() {
    let server = start(&[]);
    let mut redis = connect(&server);
    let () = redis.set("key", &b"any\r\n\0bytes"[..]).unwrap();
    assert_eq!(redis.get::<_, Vec<u8>>("key").unwrap(), b"any\r\n\0bytes");
    // INCRBY is not known: the client is told, and goes on.
    assert!(redis.incr::<_, _, i64>("n", 5).is_err());
    let () = redis.set("n", 1).unwrap();
    let (a, b): (i64, i64) =
        redis::pipe().cmd("INCR").arg("n").cmd("INCR").arg("n").query(&mut redis).unwrap();
    assert_eq!((a, b), (2, 3));
    assert_eq!(redis.lpush::<_, _, i64>("l", &[1, 2, 3]).unwrap(), 3);
    assert_eq!(redis.lrange::<_, Vec<i64>>("l", 0, -1).unwrap(), [3, 2, 1]);
    assert_eq!(redis.hset::<_, _, _, i64>("h", "f", "v").unwrap(), 1);
    assert_eq!(redis.hget::<_, _, String>("h", "f").unwrap(), "v");
    assert_eq!(redis.mget::<_, Vec<Option<i64>>>(&["n", "none"]).unwrap(), [Some(3), None]);
    let () = redis.set_options("brief", 1, expiring(redis::SetExpiry::EX(100))).unwrap();
    assert!((1..=100).contains(&redis.ttl::<_, i64>("brief").unwrap()));
}

#[test]
fn replies_come_in_the_order_of_the_commands() {
    for layout in LAYOUTS {
        let server = start(layout);
        thread::scope(|scope| {
            for client in 0..8 {
                let server = &server;
                scope.spawn(move || {
                    let mut sock = server.connect();
                    let (mut request, mut expected) = (Vec::new(), Vec::new());
                    for i in 0..3000 {
                        let text = "x".repeat(i % 300);
                        request.extend(
                            format!("*2\r\n$4\r\nECHO\r\n${}\r\n{text}\r\n", text.len()).bytes(),
                        );
                        expected.extend(format!("${}\r\n{text}\r\n", text.len()).bytes());
                        request.extend(format!("INCR {client}\r\n").bytes());
                        expected.extend(format!(":{}\r\n", i + 1).bytes());
                    }
                    let mut writer = sock.try_clone().unwrap();
                    let writing = thread::spawn(move || writer.write_all(&request).unwrap());
                    let mut replies = vec![0; expected.len()];
                    sock.read_exact(&mut replies).unwrap();
                    assert!(replies == expected, "{layout:?}");
                    writing.join().unwrap();
                });
            }
        });
    }
}

#[test]
fn a_command_on_several_keys_is_seen_as_a_whole_or_not_at_all() {
    for layout in LAYOUTS {
        let server = start(layout);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for writer in 0..2 {
                let mut redis = connect(&server);
                let over = &over;
                scope.spawn(move || {
                    for i in 0..500 {
                        let value = 2 * i + writer;
                        let pairs = ["a", "b", "c", "d", "e"].map(|key| (key, value));
                        let () = redis.mset(&pairs).unwrap();
                    }
                    over.store(true, Ordering::SeqCst);
                });
            }
            let mut redis = connect(&server);
            while !over.load(Ordering::SeqCst) {
                let values: Vec<Option<i64>> = redis.mget(&["e", "a", "c", "b", "d"]).unwrap();
                assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
            }
        });
    }
}

#[test]
fn what_expires_is_gone_after_its_time_and_not_before() {
    for layout in LAYOUTS {
        let server = start(layout);
        let mut redis = connect(&server);
        let start = Instant::now();
        let () = redis.set_options("a", 1, expiring(redis::SetExpiry::PX(300))).unwrap();
        let () = redis.set("b", 1).unwrap();
        loop {
            let there: bool = redis.exists("a").unwrap();
            if !there {
                // The clock is read in whole milliseconds, as Redis reads it.
                assert!(start.elapsed() > Duration::from_millis(299));
                break;
            }
        }
        // Nobody has to ask for a key to have it taken away: timers do.
        let () = redis.set_options("c", 1, expiring(redis::SetExpiry::PX(50))).unwrap();
        until("only one key is left", || cli(&server, "INFO").ends_with("db0:keys=1"));
    }
}

/// Writes until it fails, and returns the last number that was acknowledged.
fn write_on(server: &Server, key: &str, from: i64) -> i64 {
    let mut redis = connect(server);
    let mut acknowledged = from;
    while redis.set::<_, _, ()>(key, acknowledged + 1).is_ok() {
        acknowledged += 1;
    }
    acknowledged
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let dir = Dir::new("kv-kill");
    let layouts: [&[&str]; 3] = [&[], &["--pollers", "2", "--workers", "2"], &["--workers", "1"]];
    let mut last = [0; 4];
    for layout in layouts {
        let args = [&["--data", dir.as_str(), "--sync", "always"], layout].concat();
        let server = start(&args);
        let mut redis = connect(&server);
        for (number, last) in last.iter().enumerate() {
            let found: Option<i64> = redis.get(number).unwrap();
            let found = found.unwrap_or(0);
            assert!(found == *last || found == last + 1, "{found}, and {last} was acknowledged");
        }
        drop(redis);
        let writers = thread::scope(|scope| {
            let server = &server;
            let writers: Vec<_> = (0..4)
                .map(|n| scope.spawn(move || write_on(server, &n.to_string(), last[n])))
                .collect();
            // In the midst of it: each has written something, and goes on.
            until("everybody has written", || {
                let values: Vec<Option<i64>> = connect(server).mget(&["0", "1", "2", "3"]).unwrap();
                values.iter().zip(last).all(|(value, last)| value.is_some_and(|v| v > last + 5))
            });
            server.signal("KILL");
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        last.copy_from_slice(&writers);
    }
    // And what ends well leaves nothing unwritten.
    let server = start(&["--data", dir.as_str(), "--sync", "interval"]);
    assert_eq!(cli(&server, "SET 0 last"), "OK");
    assert_eq!(cli(&server, "LPUSH list a b"), "2");
    assert_eq!(cli(&server, "DEL 1"), "1");
    assert_eq!(cli(&server, "SET brief x PX 1"), "OK");
    assert!(server.stop().success());
    let server = start(&["--data", dir.as_str()]);
    assert_eq!(cli(&server, "MGET 0 1 brief"), "last");
    assert_eq!(cli(&server, "LRANGE list 0 -1"), "b\na");
}

#[test]
fn what_somebody_has_seen_is_there_after_a_kill() {
    let dir = Dir::new("kv-seen");
    for layout in LAYOUTS {
        let args = [&["--data", dir.as_str()], layout].concat();
        let server = start(&args);
        let mut redis = connect(&server);
        let from: i64 = redis.get::<_, Option<i64>>("n").unwrap().unwrap_or(0);
        let seen = thread::scope(|scope| {
            let server = &server;
            scope.spawn(move || write_on(server, "n", from));
            let reader = scope.spawn(move || {
                let mut seen = from;
                while let Ok(Some(n)) = redis.get("n") {
                    seen = n;
                }
                seen
            });
            until("some were written", || {
                connect(server).get::<_, Option<i64>>("n").unwrap() > Some(from + 20)
            });
            server.signal("KILL");
            reader.join().unwrap()
        });
        let found: i64 = connect(&start(&args)).get("n").unwrap();
        assert!(found >= seen, "{found}, and {seen} was seen");
    }
}

#[test]
fn a_command_on_several_keys_is_on_disk_as_a_whole_or_not_at_all() {
    let dir = Dir::new("kv-whole");
    let keys = ["a", "b", "c", "d", "e"];
    for sync in ["always", "interval", "always", "always"] {
        let args = ["--data", dir.as_str(), "--sync", sync, "--pollers", "2", "--workers", "2"];
        let server = start(&args);
        let mut redis = connect(&server);
        let from: i64 = redis.get::<_, Option<i64>>("a").unwrap().unwrap_or(0);
        thread::scope(|scope| {
            let server = &server;
            let last = scope.spawn(move || {
                let mut n = from;
                while redis.mset::<_, _, ()>(&keys.map(|key| (key, n + 1))).is_ok() {
                    n += 1;
                }
                n
            });
            // Each is written on account of others, too.
            for key in keys {
                scope.spawn(move || {
                    let mut redis = connect(server);
                    while redis.expire::<_, ()>(key, 1000).is_ok() {}
                });
            }
            until("some were written", || {
                connect(server).get::<_, Option<i64>>("a").unwrap() > Some(from + 20)
            });
            server.signal("KILL");
            last.join().unwrap()
        });
        let values: Vec<Option<i64>> = connect(&start(&args)).mget(&keys).unwrap();
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    }
}

#[test]
fn a_store_that_cannot_be_written_refuses_writes_until_it_can() {
    for (sync, layout) in [("always", LAYOUTS[0]), ("always", LAYOUTS[1]), ("interval", LAYOUTS[2])]
    {
        let dir = Dir::new("kv-full");
        let args = [&["--data", dir.as_str(), "--sync", sync], layout].concat();
        let log = dir.0.join("log");
        let args = [&["--listen", "127.0.0.1:0"][..], &args].concat();
        let start = || Server::start_with_log(KV, &args, &log);
        let server = start();
        assert_eq!(cli(&server, "SET kept 1"), "OK");
        server.limit_file_size(Some(0));
        let refused = "MISCONF the store cannot be written now";
        let value = "x".repeat(100_000);
        let mut sock = server.connect();
        until("the store is full", || cli(&server, &format!("SET k {value}")).starts_with(refused));
        // Each command has an answer of its own, and what needs no disk goes on.
        let commands = b"PING\r\nSET a 1\r\nDEL kept\r\nECHO hi\r\n";
        let ending = "; nothing was changed";
        let answers = format!("+PONG\r\n-{refused}{ending}\r\n-{refused}{ending}\r\n$2\r\nhi\r\n");
        assert_eq!(exchange(&mut sock, commands, answers.len()), answers.as_bytes());
        assert_eq!(cli(&server, "GET kept"), "1");
        assert_eq!(cli(&server, "GET a"), "");
        if sync == "always" {
            // What is not on disk is not to be seen.
            assert!(cli(&server, "GET k").starts_with(refused));
        }

        server.limit_file_size(None);
        until("it can be written again", || cli(&server, "SET a 2") == "OK");
        assert_eq!(cli(&server, "GET kept"), "1");
        // The log could not grow either, and is none of what a client waits for.
        assert_eq!(fs::read_to_string(&log).unwrap(), "kv: the store can be written again\n");
        assert!(server.stop().success());
        let server = start();
        assert_eq!(cli(&server, "MGET kept a"), "1\n2");

        // One that ends while it cannot write says so.
        server.limit_file_size(Some(0));
        until("the store is full", || cli(&server, &format!("SET k {value}")).starts_with(refused));
        assert_eq!(server.stop().code(), Some(1), "it ends as if all were on disk");
        let server = start();
        assert_eq!(cli(&server, "MGET kept a"), "1\n2");
    }
}

#[test]
fn keys_that_wait_for_the_disk_do_not_hold_the_requests_they_came_in() {
    let dir = Dir::new("kv-held");
    let server = start(&["--data", dir.as_str(), "--sync", "interval"]);
    let mut redis = connect(&server);
    let (memory, value) = (server.memory(), vec![b'x'; 60_000]);
    for n in 0..1000 {
        let () = redis::pipe().set(n, &value).ignore().del(n).ignore().query(&mut redis).unwrap();
    }
    assert!(server.memory() < memory + 16 * 1024, "{} KiB, {memory} before", server.memory());
}

#[test]
fn what_is_no_command_is_answered_behind_those_that_are() {
    for layout in LAYOUTS {
        let server = start(layout);
        for (bytes, error) in [
            (&b"*1\r\n$99999999999\r\n"[..], "-ERR Protocol error: invalid bulk length\r\n"),
            (b"*99999999\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
            (b"*1\r\n:1\r\n", "-ERR Protocol error: expected '$'\r\n"),
            (&[b'x'; 70_000], "-ERR Protocol error: too big inline request\r\n"),
        ] {
            // What follows is not read, and must not reset the connection before the answer is seen.
            let request = [b"PING\r\nSET k v\r\n", bytes, &[b'y'; 200_000]].concat();
            let mut sock = server.connect();
            sock.write_all(&request).unwrap();
            let mut reply = Vec::new();
            sock.read_to_end(&mut reply).unwrap();
            assert_eq!(String::from_utf8_lossy(&reply), format!("+PONG\r\n+OK\r\n{error}"));
        }
        let limited = start(&[&["--request-bytes", "100"], layout].concat());
        let mut sock = limited.connect();
        let request = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$97\r\n{}\r\n", "x".repeat(97));
        let error = b"-ERR Protocol error: invalid bulk length\r\n";
        assert_eq!(exchange(&mut sock, request.as_bytes(), error.len()), error);
    }
}

#[test]
fn a_client_that_trickles_closes_early_or_resets_is_no_trouble() {
    for layout in LAYOUTS {
        let server = start(layout);
        let mut slow = server.connect();
        trickle(&mut slow, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nva");
        assert_eq!(cli(&server, "PING"), "PONG", "others are served meanwhile");
        trickle(&mut slow, b"lue\r\n");
        assert_eq!(exchange(&mut slow, b"", 5), b"+OK\r\n");

        assert_eq!(
            half_close(&server, &b"INCR n\r\n".repeat(1000)).len(),
            9 * 4 + 90 * 5 + 900 * 6 + 7
        );
        assert_eq!(half_close(&server, b"GET k\r\nGET"), b"$5\r\nvalue\r\n");
        for _ in 0..200 {
            reset(&server, b"INCR r\r\nGET k\r\n*3\r\n$3\r\nSE");
        }
        let before = server.descriptors();
        drop(slow);
        server.until("no descriptor is left of them", |server| server.descriptors() < before);
        assert_eq!(cli(&server, "GET k"), "value");
    }
}

#[test]
fn a_client_that_never_reads_is_not_read_from() {
    for layout in LAYOUTS {
        let server = start(layout);
        assert_eq!(cli(&server, &format!("SET k {}", "v".repeat(10_000))), "OK");
        let memory = server.memory();
        let sock = server.connect();
        never_read(&sock, &b"GET k\r\n".repeat(1000), Duration::from_millis(300), 256 << 20);
        assert_eq!(cli(&server, "PING"), "PONG", "others are served");
        // A batch of replies, of which the last one may be any length.
        assert!(server.memory() < memory + 16 * 1024, "{} KiB, {memory} before", server.memory());
    }
}

#[test]
fn a_crowd_that_says_nothing_costs_little_and_leaves_nothing() {
    let server = start(&["--idle", "0", "--connections", "20000"]);
    quiet_crowd(&server, || assert_eq!(cli(&server, "PING"), "PONG"));
}

#[test]
fn all_are_served_in_the_end_with_few_descriptors() {
    let server = Server::start_with_limit(KV, &["--listen", "127.0.0.1:0"], 40);
    let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
    let (start, used) = (Instant::now(), server.processor_time());
    clients.iter_mut().for_each(|sock| sock.write_all(b"PING\r\n").unwrap());
    server.until("it has as many as it can", |server| server.descriptors() >= 40);
    thread::sleep(Duration::from_secs(1)); // it is the waiting that is measured
    let (waited, used) = (start.elapsed(), server.processor_time() - used);
    assert!(used < waited / 4, "{used:?} of {waited:?}");
    for mut sock in clients {
        assert_eq!(exchange(&mut sock, b"", 7), b"+PONG\r\n");
    }
}

#[test]
fn above_the_limit_clients_wait_for_a_place() {
    let server = start(&["--connections", "2"]);
    let mut first = server.connect();
    let mut second = server.connect();
    let mut third = server.connect();
    third.write_all(b"PING\r\n").unwrap();
    assert_eq!(exchange(&mut first, b"PING\r\n", 7), b"+PONG\r\n");
    assert_eq!(exchange(&mut second, b"PING\r\n", 7), b"+PONG\r\n");
    third.set_nonblocking(true).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    third.set_nonblocking(false).unwrap();
    drop(second);
    assert_eq!(exchange(&mut third, b"", 7), b"+PONG\r\n");
}

#[test]
fn who_says_nothing_is_left_and_who_says_something_is_not() {
    let server = start(&["--idle", "1"]);
    let start = Instant::now();
    let mut silent = server.connect();
    let mut busy = server.connect();
    silent.set_nonblocking(true).unwrap();
    while !matches!(silent.read(&mut [0]), Ok(0)) {
        assert_eq!(exchange(&mut busy, b"PING\r\n", 7), b"+PONG\r\n");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(exchange(&mut busy, b"PING\r\n", 7), b"+PONG\r\n");
}

#[test]
fn a_signal_ends_it_and_clients_keep_what_they_were_answered() {
    for layout in LAYOUTS {
        for signal in ["TERM", "INT"] {
            let server = start(layout);
            let mut sock = server.connect();
            assert_eq!(exchange(&mut sock, b"SET k v\r\n", 5), b"+OK\r\n");
            server.signal(signal);
            let mut rest = Vec::new();
            sock.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"");
            assert!(server.stop_after_signal().success(), "{signal}");
        }
    }
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    for args in [
        &["--pollers", "0"][..],
        &["--workers", "-1"],
        &["--connections", "many"],
        &["--idle"],
        &["--sync", "sometimes"],
        &["--listen", "nowhere"],
        &["--request-bytes", "1"],
        &["--nonsense"],
        &["stray"],
    ] {
        let said = refusal(KV, args);
        assert!(said.starts_with("kv: "), "{said}");
    }
    let server = start(&[]);
    let address = server.address.to_string();
    let output = Command::new(KV).args(["--listen", &address]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with(&format!("kv: cannot listen on {address}: ")), "{said}");
    assert!(client(KV, &["--help"]).contains("--sync"));
}

#[test]
fn a_soak_leaves_descriptors_and_memory_where_they_were() {
    let dir = Dir::new("kv-soak");
    let server =
        start(&["--pollers", "2", "--workers", "1", "--data", dir.as_str(), "--sync", "interval"]);
    let port = server.address.port().to_string();
    soak(server, 3, |server| {
        for tests in ["set,get,incr,mset", "ping"] {
            client(
                "redis-benchmark",
                &[
                    "-p", &port, "-n", "5000", "-r", "1000", "-c", "50", "-P", "4", "-t", tests,
                    "-q",
                ],
            );
        }
        (0..50).for_each(|_| reset(server, b"INCR n\r\nGET n\r\n*2\r\n"));
        half_close(server, &b"INCR n\r\nSET x y PX 5\r\n".repeat(100));
        drop(idle_crowd(server, 100));
    });
}
