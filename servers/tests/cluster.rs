//! Nodes that are killed, stalled and cut off, and clients that notice as little of it as can be.

mod common;

use common::{
    Dir, LONG, Server, client, crowd_size, half_close, idle_crowd, never_read, refusal, reset,
    soak_time, trickle, until,
};
use std::{
    collections::HashMap,
    env,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Command, Output},
    sync::atomic::{AtomicU8, Ordering},
    thread,
    time::{Duration, Instant},
};

const CLUSTER: &str = env!("CARGO_BIN_EXE_cluster");

/// Nodes by their number, from 0 on. A node's id is one more.
struct Cluster {
    directory: Dir,
    peers: Vec<SocketAddr>,
    nodes: Vec<Option<Server>>,
}

impl Cluster {
    fn start(name: &str, count: usize) -> Cluster {
        // A host of this cluster's own: nobody else gets a port of it while its node is down.
        static CLUSTERS: AtomicU8 = AtomicU8::new(1);
        let [_, _, b, c] = std::process::id().to_be_bytes();
        let host = Ipv4Addr::new(127, 100 + CLUSTERS.fetch_add(1, Ordering::Relaxed), b, c | 1);
        let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind((host, 0)).unwrap()).collect();
        let peers = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        drop(listeners);
        let nodes = (0..count).map(|_| None).collect();
        let mut cluster = Cluster { directory: Dir::new(name), peers, nodes };
        (0..count).for_each(|node| cluster.restart(node));
        cluster
    }

    fn args(&self, node: usize) -> Vec<String> {
        let peers: Vec<String> =
            self.peers.iter().enumerate().map(|(i, at)| format!("{}={at}", i + 1)).collect();
        let data = self.directory.0.join((node + 1).to_string());
        let id = (node + 1).to_string();
        ["--id", &id, "--peers", &peers.join(","), "--listen", "127.0.0.1:0", "--data"]
            .map(str::to_owned)
            .into_iter()
            .chain([data.to_str().unwrap().to_owned()])
            .collect()
    }

    fn restart(&mut self, node: usize) {
        self.restart_with(node, &[]);
    }

    fn restart_with(&mut self, node: usize, more: &[&str]) {
        self.nodes[node] = None;
        let args = self.args(node);
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.nodes[node] = Some(Server::start(CLUSTER, &args));
    }

    fn node(&self, node: usize) -> &Server {
        self.nodes[node].as_ref().expect("the node runs")
    }

    fn up(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].is_some())
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].take().unwrap().kill();
    }

    /// The one that leads, of those that are given.
    fn leader_of(&self, nodes: &[usize]) -> usize {
        let start = Instant::now();
        loop {
            let leads = |&node: &usize| info(self.node(node))["role"] == "Leader";
            if let Some(leader) = nodes.iter().copied().find(leads) {
                return leader;
            }
            assert!(start.elapsed() < LONG, "there is no leader");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn leader(&self) -> usize {
        self.leader_of(&self.up().collect::<Vec<_>>())
    }

    /// Waits until all that are up hold the same.
    fn until_equal(&self) {
        let states = || self.up().map(|node| info(self.node(node))).collect::<Vec<_>>();
        until("the nodes have applied the same", || {
            states().windows(2).all(|two| two[0]["applied"] == two[1]["applied"])
        });
        for two in states().windows(2) {
            assert_eq!(two[0]["digest"], two[1]["digest"]);
        }
    }
}

/// What redis-cli says to one command. It follows to the leader with `-c` alone.
fn ask(server: &Server, words: &[&str]) -> String {
    let port = server.address.port().to_string();
    client("redis-cli", &[&["-p", &port], words].concat()).trim_end().to_owned()
}

fn info(server: &Server) -> HashMap<String, String> {
    let lines = ask(server, &["CLUSTER", "INFO"]);
    let pairs = lines.lines().filter_map(|line| line.trim().split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// One node is a cluster, too: what follows is about its clients.
fn alone(name: &str) -> Cluster {
    let cluster = Cluster::start(name, 1);
    cluster.leader();
    cluster
}

fn self_test(args: &[&str]) -> Output {
    Command::new(CLUSTER).arg("--self-test").args(args).output().unwrap()
}

#[test]
fn the_self_test_passes() {
    let Output { status, stdout, stderr } = self_test(&[]);
    let said = String::from_utf8_lossy(&stdout);
    assert!(status.success(), "{said}{}", String::from_utf8_lossy(&stderr));
    assert!(said.ends_with("self-test passed\n"), "{said}");
}

#[test]
fn the_self_test_finds_each_fault() {
    thread::scope(|scope| {
        for fault in ["early-answers", "stale-reads", "forgetting"] {
            scope.spawn(move || {
                let Output { status, stdout, .. } = self_test(&["--fault", fault]);
                let said = String::from_utf8_lossy(&stdout);
                assert_eq!(status.code(), Some(1), "{fault}: {said}");
            });
        }
    });
}

#[test]
fn a_client_follows_to_the_leader() {
    let cluster = Cluster::start("follows", 3);
    let leader = cluster.leader();
    let address = cluster.node(leader).address;
    for node in cluster.up().filter(|node| *node != leader) {
        let node = cluster.node(node);
        until("the follower knows the leader", || {
            ask(node, &["GET", "key"]) == format!("MOVED 0 {address}")
        });
        assert_eq!(ask(node, &["SET", "key", "0"]), format!("MOVED 0 {address}"));
        assert_eq!(ask(node, &["-c", "SET", "key", "1"]), "OK");
        assert_eq!(ask(node, &["-c", "INCR", "key"]), "2");
        assert_eq!(ask(node, &["-c", "GET", "key"]), "2");
        assert!(ask(node, &["CLUSTER", "SLOTS"]).contains(&address.port().to_string()));
    }
    cluster.until_equal();
}

#[test]
fn five_nodes_go_on_without_two_and_say_so_without_three() {
    let mut cluster = Cluster::start("five", 5);
    let leader = cluster.leader();
    assert_eq!(ask(cluster.node(leader), &["SET", "key", "before"]), "OK");
    cluster.kill(leader);
    let next = cluster.leader();
    assert_eq!(ask(cluster.node(next), &["GET", "key"]), "before");
    let other = cluster.up().find(|node| *node != next).unwrap();
    cluster.kill(other);
    assert_eq!(ask(cluster.node(next), &["-c", "SET", "key", "after"]), "OK");

    let third = cluster.up().find(|node| *node != next).unwrap();
    cluster.kill(third);
    until("the leader knows that it is none", || {
        ask(cluster.node(next), &["GET", "key"]).starts_with("CLUSTERDOWN")
    });
    assert!(ask(cluster.node(next), &["SET", "key", "lost"]).starts_with("CLUSTERDOWN"));

    [leader, other, third].into_iter().for_each(|node| cluster.restart(node));
    let leader = cluster.leader();
    assert_eq!(ask(cluster.node(leader), &["GET", "key"]), "after");
    cluster.until_equal();
}

#[test]
fn a_stalled_peer_holds_nobody_up_and_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::start("stalled", 3);
    let leader = cluster.leader();
    let stalled = cluster.up().find(|node| *node != leader).unwrap();
    // Until a follower has answered, it is sent one message at a time.
    assert_eq!(ask(cluster.node(leader), &["SET", "key", "value"]), "OK");
    cluster.until_equal();
    cluster.node(stalled).signal("STOP");

    // 160 MB on their way to it, of which the leader keeps its queue's limit and its log.
    let value = "v".repeat(400_000);
    let mut sock = cluster.node(leader).connect();
    let set = format!("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n${}\r\n{value}\r\n", value.len());
    for _ in 0..400 {
        sock.write_all(set.as_bytes()).unwrap();
        let mut answer = [0; 5];
        sock.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+OK\r\n");
    }
    let memory = cluster.node(leader).memory();
    assert!(memory < 80 * 1024, "the leader has {memory} KiB");
    let before = info(cluster.node(leader))["snapshot"].parse::<u64>().unwrap();
    assert!(before > 0, "the leader never took a snapshot");

    cluster.node(stalled).signal("CONT");
    until("the stalled node has caught up", || {
        let [one, other] = [leader, stalled].map(|node| info(cluster.node(node)));
        one["applied"] == other["applied"] && one["digest"] == other["digest"]
    });
    // One that was away for longer than the log reaches back.
    cluster.kill(stalled);
    for _ in 0..1200 {
        assert_eq!(first_byte(&mut sock, "INCR", "counter"), b':');
    }
    // And whose snapshot is longer than the queue of other messages may be.
    for number in 100..200 {
        let set = set.replace("$3\r\nkey", &format!("$6\r\nkey{number}"));
        sock.write_all(set.as_bytes()).unwrap();
        sock.read_exact(&mut [0; 5]).unwrap();
    }
    cluster.restart(stalled);
    cluster.until_equal();
    assert_ne!(info(cluster.node(stalled))["snapshot"], "0");
}

/// The first byte of the answer to a command of two words.
fn first_byte(sock: &mut std::net::TcpStream, name: &str, key: &str) -> u8 {
    // At once: in pieces, each would wait for the answer to the one before it.
    let request = format!("*2\r\n${}\r\n{name}\r\n${}\r\n{key}\r\n", name.len(), key.len());
    sock.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n") {
        let mut byte = [0];
        sock.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    answer[0]
}

#[test]
fn a_node_has_after_a_restart_what_it_acknowledged() {
    let mut cluster = alone("restart");
    assert_eq!(ask(cluster.node(0), &["SET", "key", "1"]), "OK");
    for _ in 0..3 {
        cluster.kill(0);
        cluster.restart_with(0, &["--snapshot-bytes", "1024"]);
        let leader = cluster.leader();
        for _ in 0..60 {
            ask(cluster.node(leader), &["INCR", "key"]);
        }
    }
    assert_eq!(ask(cluster.node(0), &["GET", "key"]), "181");
    assert_ne!(info(cluster.node(0))["snapshot"], "0");
    let server = cluster.nodes[0].take().unwrap();
    assert!(server.stop().success());
    cluster.restart(0);
    cluster.leader();
    assert_eq!(ask(cluster.node(0), &["GET", "key"]), "181");
}

#[test]
fn what_expires_does_so_on_all_nodes() {
    let cluster = Cluster::start("expires", 3);
    let leader = cluster.node(cluster.leader());
    assert_eq!(ask(leader, &["SET", "key", "value", "PX", "50"]), "OK");
    until("the key has expired", || ask(leader, &["GET", "key"]).is_empty());
    assert_eq!(ask(leader, &["INCR", "key"]), "1");
    cluster.until_equal();
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let mut cluster = Cluster::start("another", 3);
    let mut args = cluster.args(0);
    for node in 0..3 {
        cluster.kill(node);
    }
    args[1] = "2".to_owned();
    let output = Command::new(CLUSTER).args(&args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is of node 1 of [1, 2, 3], not of node 2"), "{said}");
}

#[test]
fn bad_arguments_get_one_line() {
    let all = ["--id", "1", "--listen", "127.0.0.1:0", "--data", "/nowhere"];
    let with = |peers: &str| refusal(CLUSTER, &[&all[..], &["--peers", peers]].concat());
    assert!(refusal(CLUSTER, &[]).contains("--id is needed"));
    assert!(refusal(CLUSTER, &all).contains("--peers is needed"));
    assert!(with("nonsense").contains("--peers takes N=ADDRESS"));
    assert!(with("1=nonsense").contains("--peers takes an address"));
    assert!(with("2=127.0.0.1:1").contains("--id 1 is none of --peers"));
    assert!(with("1=127.0.0.1:0").contains("not 0"));
    assert!(with("1=127.0.0.1:1,2=127.0.0.1:2").contains("not 2"));
    assert!(with("1=127.0.0.1:1,1=127.0.0.1:2,3=127.0.0.1:3").contains("node 1 twice"));
    assert!(with("1=127.0.0.1:1,2=127.0.0.1:1,3=127.0.0.1:3").contains("127.0.0.1:1 twice"));
    assert!(refusal(CLUSTER, &["--id", "0"]).contains("--id takes a number from 1"));
    assert!(refusal(CLUSTER, &["--self-test", "--fault", "none"]).contains("no such fault"));
    assert!(refusal(CLUSTER, &["--unknown"]).contains("--unknown"));
    assert!(client(CLUSTER, &["--help"]).contains("--peers"));
}

#[test]
fn a_request_may_come_in_any_pieces_and_many_at_once() {
    let cluster = alone("pieces");
    let server = cluster.node(0);
    let mut sock = server.connect();
    trickle(&mut sock, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n10\r\n");
    let mut answer = [0; 5];
    sock.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+OK\r\n");

    // Reads and writes in turn, more than may be on their way: each sees those before it.
    let pair = "*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    let answers = half_close(server, pair.repeat(80).as_bytes());
    let expected: String = (11..=90).map(|n| format!(":{n}\r\n$2\r\n{n}\r\n")).collect();
    assert_eq!(String::from_utf8(answers).unwrap(), expected);
}

#[test]
fn those_who_break_the_rules_harm_themselves_alone() {
    let cluster = alone("rules");
    let server = cluster.node(0);
    let descriptors = server.descriptors();
    // Too long a request: an answer, then the end.
    let answer = half_close(
        server,
        format!("*2\r\n$3\r\nGET\r\n$8000000\r\n{}", "x".repeat(4 << 20)).as_bytes(),
    );
    assert!(answer.starts_with(b"-ERR"), "{:?}", String::from_utf8_lossy(&answer));
    assert!(half_close(server, b"*9999999999\r\n").starts_with(b"-ERR"));
    for bytes in [&b""[..], b"*3\r\n$3\r\nSE", b"*1\r\n$4\r\nPING\r\n"] {
        reset(server, bytes);
        half_close(server, bytes);
    }
    // One who reads nothing is not read from.
    let value = "v".repeat(10_000);
    assert_eq!(ask(server, &["SET", "key", &value]), "OK");
    let sock = server.connect();
    let get = "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n".repeat(100);
    never_read(&sock, get.as_bytes(), Duration::from_secs(1), 64 << 20);
    assert_eq!(ask(server, &["GET", "key"]), value);
    drop(sock);
    // A stranger among the peers.
    let stranger = std::net::TcpStream::connect(cluster.peers[0]).unwrap();
    (&stranger).write_all(b"\x00\x00\x00\x04GET ").unwrap();
    stranger.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!((&stranger).read(&mut [0; 1]).unwrap_or(0), 0);
    drop(stranger);
    server.until("all descriptors are back", |server| server.descriptors() <= descriptors);
}

#[test]
fn a_crowd_that_says_nothing_is_in_nobodys_way() {
    let cluster = alone("crowd");
    let server = cluster.node(0);
    let descriptors = server.descriptors();
    let crowd = idle_crowd(server, crowd_size(100, 1).min(9_900));
    server.until("all are accepted", |server| server.descriptors() >= descriptors + crowd.len());
    assert_eq!(ask(server, &["SET", "key", "value"]), "OK");
    assert_eq!(ask(server, &["GET", "key"]), "value");
    drop(crowd);
    server.until("all descriptors are back", |server| server.descriptors() <= descriptors);
}

#[test]
fn an_idle_client_is_sent_away_and_one_above_the_limit_waits() {
    let mut cluster = alone("idle");
    cluster.restart_with(0, &["--idle", "1", "--connections", "2"]);
    let server = cluster.node(0);
    let crowd = idle_crowd(server, 3);
    // Served when the others were sent away.
    (&crowd[2]).write_all(b"*1\r\n$4\r\nPING\r\n").unwrap();
    let mut answer = [0; 7];
    (&crowd[2]).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
    assert_eq!((&crowd[0]).read(&mut answer).unwrap(), 0);
}

#[test]
fn clients_are_served_in_the_end_when_descriptors_are_short() {
    let mut cluster = alone("descriptors");
    cluster.kill(0);
    let args = cluster.args(0);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    cluster.nodes[0] = Some(Server::start_with_limit(CLUSTER, &args, 40));
    let server = cluster.node(0);
    let crowd = idle_crowd(server, 100);
    let busy = server.processor_time();
    thread::sleep(Duration::from_secs(1));
    let busy = server.processor_time() - busy;
    assert!(busy < Duration::from_millis(500), "{busy:?} in a second of waiting");
    for sock in crowd {
        (&sock).write_all(b"*1\r\n$4\r\nPING\r\n").unwrap();
        let mut answer = [0; 7];
        (&sock).read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+PONG\r\n");
    }
}

#[test]
fn a_soak_leaves_descriptors_and_memory_where_they_were() {
    let mut cluster = Cluster::start("soak", 3);
    for node in 0..3 {
        cluster.restart_with(node, &["--snapshot-bytes", "65536"]);
    }
    let leader = cluster.leader();
    let round = || {
        let port = cluster.node(leader).address.port().to_string();
        client(
            "redis-benchmark",
            &["-p", &port, "-t", "set,get,incr", "-n", "4000", "-c", "20", "-r", "100", "-q"],
        );
        half_close(cluster.node(leader), b"*1\r\n$4\r\nPING\r\n");
        reset(cluster.node(leader), b"*1\r\n$4\r\nPI");
    };
    round();
    let descriptors: Vec<_> = cluster.up().map(|node| cluster.node(node).descriptors()).collect();
    let memory: Vec<_> = cluster.up().map(|node| cluster.node(node).memory()).collect();
    let (start, time) = (Instant::now(), soak_time(5));
    while start.elapsed() < time {
        round();
    }
    cluster.until_equal();
    for node in cluster.up() {
        let server = cluster.node(node);
        server.until("the clients' descriptors are back", |server| {
            server.descriptors() <= descriptors[node]
        });
        let now = server.memory();
        assert!(now < memory[node] + 24 * 1024, "from {} to {now} KiB", memory[node]);
    }
}
