//! `http`, driven by the clients that web servers have, and abused.

mod common;

use common::{
    Dir, Server, client, half_close, idle_crowd, never_read, quiet_crowd, refusal, reset, soak,
    trickle,
};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::fs::symlink,
    process::Command,
    time::{Duration, Instant},
};

const HTTP: &str = env!("CARGO_BIN_EXE_http");

/// A PNG of 3 by 2 pixels.
const PNG: &[u8] =
    b"\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x03\
    \x00\x00\x00\x02\x08\x00\x00\x00\x00\xb8\x1f\x39\xc6\x00\x00\x00\x0e\x49\x44\x41\
    \x54\x78\x9c\x63\x70\x68\x38\xc0\x00\xc4\x00\x0b\x08\x03\x01\x5b\x19\xf0\xb8\x00\
    \x00\x00\x00\x49\x45\x4e\x44\xae\x42\x60\x82";

/// A directory with something to serve, and beside it something not to.
fn site(name: &str) -> Dir {
    let dir = Dir::new(name);
    let root = dir.0.join("root");
    fs::create_dir_all(root.join("sub dir")).unwrap();
    fs::create_dir(root.join(".git")).unwrap();
    fs::write(root.join("index.html"), "<title>home</title>").unwrap();
    fs::write(root.join("ten"), "0123456789").unwrap();
    fs::write(root.join("empty.txt"), "").unwrap();
    fs::write(root.join("sub dir/index.html"), "inner").unwrap();
    fs::write(root.join(".git/config"), "secret").unwrap();
    fs::write(root.join("large"), large()).unwrap();
    fs::write(root.join("dot.png"), PNG).unwrap();
    fs::write(dir.0.join("secret"), "secret").unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink("/etc", root.join("etc")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink("ten", root.join("inside")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    dir
}

/// Ten million bytes of which no two pages are the same.
fn large() -> Vec<u8> {
    (0..2_500_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn start(dir: &Dir, args: &[&str]) -> Server {
    let root = dir.0.join("root");
    let own = ["--listen", "127.0.0.1:0", "--root", root.to_str().unwrap()];
    Server::start(HTTP, &[&own, args].concat())
}

/// A head, its fields in lower case, and a body.
#[derive(Debug, PartialEq)]
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Reads one response; `bodiless` if it answers HEAD.
fn read(sock: &mut TcpStream, bodiless: bool) -> Response {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        sock.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    let lower = |line: &str| match line.split_once(':') {
        Some((name, value)) => format!("{}:{value}\n", name.to_ascii_lowercase()),
        None => format!("{line}\n"),
    };
    let head: String = head.lines().map(lower).collect();
    let mut response = Response { status, head, body: Vec::new() };
    let length = response.field("content-length").map_or(0, |length| length.parse().unwrap());
    if !bodiless && status >= 200 {
        response.body.resize(length, 0);
        sock.read_exact(&mut response.body).unwrap();
    }
    response
}

fn get_with(server: &Server, path: &str, fields: &str) -> Response {
    let mut sock = server.connect();
    write!(sock, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n").unwrap();
    let response = read(&mut sock, false);
    assert_eq!(sock.read(&mut [0]).unwrap(), 0, "nothing follows");
    response
}

fn get(server: &Server, path: &str) -> Response {
    get_with(server, path, "")
}

/// What the status is if the request comes whole, and if it trickles in.
fn status_of(server: &Server, request: &[u8]) -> u16 {
    let statuses = [false, true].map(|slow| {
        let mut sock = server.connect();
        // It may be refused before all of it was sent.
        let _ = if slow && request.len() < 2000 {
            sock.set_nodelay(true).unwrap();
            request.iter().try_for_each(|byte| sock.write_all(&[*byte]))
        } else {
            sock.write_all(request)
        };
        sock.shutdown(Shutdown::Write).unwrap();
        read(&mut sock, true).status
    });
    assert_eq!(statuses[0], statuses[1], "{}", String::from_utf8_lossy(request));
    statuses[0]
}

#[test]
fn files_are_served_as_they_are() {
    let dir = site("http-files");
    let server = start(&dir, &["--threads", "2"]);
    for (path, status, body) in [
        ("/", 200, "<title>home</title>"),
        ("/index.html?q=1", 200, "<title>home</title>"),
        ("/ten", 200, "0123456789"),
        ("/%74en", 200, "0123456789"),
        ("//ten", 200, "0123456789"),
        ("/./ten", 200, "0123456789"),
        ("/inside", 200, "0123456789"),
        ("/empty.txt", 200, ""),
        ("/sub%20dir/", 200, "inner"),
        ("http://x/ten", 200, "0123456789"),
        ("http://x?q=1", 200, "<title>home</title>"),
        ("http://x", 200, "<title>home</title>"),
        ("/nothing", 404, "404 Not Found\n"),
        ("/ten/", 404, "404 Not Found\n"),
    ] {
        let response = get(&server, path);
        assert_eq!((response.status, &response.body[..]), (status, body.as_bytes()), "{path}");
    }
    for path in ["/sub%20dir", "//sub%20dir"] {
        let moved = get(&server, path);
        assert_eq!((moved.status, moved.field("location")), (301, Some("/sub%20dir/")), "{path}");
    }
    let image = get(&server, "/dot.png");
    assert_eq!((image.field("content-type"), &image.body[..]), (Some("image/png"), PNG));
    assert!(get(&server, "/large").body == large());
    assert!(server.stop().success());
}

#[test]
fn no_path_leads_out() {
    let dir = site("http-escape");
    let server = start(&dir, &[]);
    for path in [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/sub%20dir/../../secret",
        "/out",
        "/etc/passwd",
        "/etc/",
        "/magic/etc/passwd",
        "/.git/config",
        "/%2egit/config",
        "/ten%00.html",
        "/%00",
        "/ten%",
        "/ten%2",
        "/ten%zz",
        "/fifo",
        "secret",
        "*",
    ] {
        let response = get(&server, path);
        assert!(matches!(response.status, 400 | 404), "{path}: {response:?}");
        assert!(!String::from_utf8_lossy(&response.body).contains("root:"), "{path}");
        assert_ne!(response.body, b"secret", "{path}");
    }
}

#[test]
fn what_breaks_a_rule_is_refused_with_its_status() {
    let dir = site("http-hostile");
    let server = start(&dir, &["--body-bytes", "100", "--head-bytes", "1000"]);
    let get = |fields: &str| format!("GET /ten HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let post = |fields: &str, body: &str| {
        format!("POST /api/echo HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}")
    };
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    for (status, request) in [
        (200, get("")),
        (200, "GET /ten HTTP/1.0\r\n\r\n".into()),
        (400, "GET /ten HTTP/1.1\r\n\r\n".into()),
        (400, "GET /ten HTTP/1.1\nHost: x\n\n".into()),
        (400, "GET /ten HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n".into()),
        (400, "GET /ten HTTP/1.1\r\nHost: x/y\r\n\r\n".into()),
        (400, "GET  /ten HTTP/1.1\r\nHost: x\r\n\r\n".into()),
        (400, "GET /ten\r\n\r\n".into()),
        (400, "\0\x01\x02\r\n\r\n".into()),
        (400, get("Bad Name: x\r\n")),
        (400, get("Folded: x\r\n y\r\n")),
        (400, get("Name : x\r\n")),
        (505, "GET /ten HTTP/2.0\r\nHost: x\r\n\r\n".into()),
        (417, get("Expect: wonders\r\n")),
        (431, get(&format!("Long: {}\r\n", "x".repeat(1000)))),
        (431, get(&(0..70).map(|n| format!("a{n}:\r\n")).collect::<String>())),
        (414, format!("GET /{} HTTP/1.1", "x".repeat(1000))),
        (405, "PUT /ten HTTP/1.1\r\nHost: x\r\n\r\n".into()),
        (405, "GET /api/echo HTTP/1.1\r\nHost: x\r\n\r\n".into()),
        (405, "BREW /ten HTTP/1.1\r\nHost: x\r\n\r\n".into()),
        (204, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".into()),
        (204, "OPTIONS /ten HTTP/1.1\r\nHost: x\r\n\r\n".into()),
        (200, post("Content-Length: 2\r\n", "{}")),
        (400, post("Content-Length: 2\r\n", "{x")),
        (400, post("Content-Length: +2\r\n", "{}")),
        (400, post("Content-Length: 2, 2\r\n", "{}")),
        (400, post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}")),
        (400, post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        (413, post("Content-Length: 101\r\n", "")),
        (413, post("Content-Length: 99999999999999999999999\r\n", "")),
        (501, post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        (501, post("Transfer-Encoding: gzip,chunked\r\n", "0\r\n\r\n")),
        (400, post("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n")),
        (400, post("Transfer-Encoding: gzip\r\n", "")),
        (400, "POST /api/echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()),
        (200, chunked("1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n")),
        (200, chunked("2\r\n{}\r\n0\r\nTrailer: x\r\n\r\n")),
        (400, chunked("2\n{}\n0\n\n")),
        (400, chunked("x\r\n{}\r\n0\r\n\r\n")),
        (400, chunked("-1\r\n{}\r\n0\r\n\r\n")),
        (400, chunked("\r\n{}\r\n0\r\n\r\n")),
        (400, chunked("1\r\n{}\r\n0\r\n\r\n")),
        (413, chunked("65\r\n")),
        (413, chunked("fffffffffffffff\r\n")),
        (400, chunked(&format!("1;{}", "x".repeat(2000)))),
    ] {
        assert_eq!(status_of(&server, request.as_bytes()), status, "{request:?}");
    }
}

#[test]
fn a_part_of_a_file_can_be_asked_for() {
    let dir = site("http-ranges");
    let server = start(&dir, &[]);
    for (range, status, body) in [
        ("bytes=0-3", 206, "0123"),
        ("bytes=4-", 206, "456789"),
        ("bytes=-3", 206, "789"),
        ("bytes=8-99999999999999999999999", 206, "89"),
        ("bytes=-100", 206, "0123456789"),
        ("bytes=0-0", 206, "0"),
        ("bytes=10-", 416, "416 Range Not Satisfiable\n"),
        ("bytes=-0", 416, "416 Range Not Satisfiable\n"),
        ("bytes=5-3", 200, "0123456789"),
        ("bytes=0-1,3-4", 200, "0123456789"),
        ("lines=0-1", 200, "0123456789"),
        ("bytes=a-b", 200, "0123456789"),
    ] {
        let response = get_with(&server, "/ten", &format!("Range: {range}\r\n"));
        let body = (status, body.as_bytes());
        assert_eq!((response.status, &response.body[..]), body, "{range}");
        if status == 206 {
            let range = response.field("content-range").unwrap();
            assert!(range.starts_with("bytes ") && range.ends_with("/10"), "{range}");
        }
    }
    let all = large();
    let part = get_with(&server, "/large", "Range: bytes=1000001-9000000\r\n");
    assert!(part.body == all[1_000_001..=9_000_000]);
    let tag = get(&server, "/ten").field("etag").unwrap().to_owned();
    let fields = format!("Range: bytes=0-1\r\nIf-Range: {tag}\r\n");
    assert_eq!(get_with(&server, "/ten", &fields).status, 206);
    assert_eq!(get_with(&server, "/ten", "Range: bytes=0-1\r\nIf-Range: \"old\"\r\n").status, 200);
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let dir = site("http-known");
    let server = start(&dir, &[]);
    let first = get(&server, "/ten");
    let (tag, date) = (first.field("etag").unwrap(), first.field("last-modified").unwrap());
    for (field, status) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: \"x\", W/{tag}\r\n"), 304),
        ("If-None-Match: *\r\n".into(), 304),
        ("If-None-Match: \"x\"\r\n".into(), 200),
        (format!("If-Modified-Since: {date}\r\n"), 304),
        ("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n".into(), 200),
        ("If-Modified-Since: yesterday\r\n".into(), 200),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}\r\n"), 200),
    ] {
        let response = get_with(&server, "/ten", &field);
        assert_eq!(response.status, status, "{field}");
        assert_eq!(response.body.is_empty(), status == 304);
    }
}

#[test]
fn one_connection_serves_many_requests_in_their_order() {
    let dir = site("http-pipeline");
    let server = start(&dir, &[]);
    let mut sock = server.connect();
    let body = "[1,2]";
    let mut requests = String::new();
    for _ in 0..200 {
        requests += "GET /ten HTTP/1.1\r\nHost: x\r\n\r\n";
        requests += "HEAD /large HTTP/1.1\r\nHost: x\r\n\r\n";
        requests +=
            &format!("POST /api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{body}");
        requests += "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    }
    let mut writer = sock.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(requests.as_bytes()).unwrap());
    for _ in 0..200 {
        assert_eq!(read(&mut sock, false).body, b"0123456789");
        let head = read(&mut sock, true);
        assert_eq!((head.status, head.field("content-length")), (200, Some("10000000")));
        assert_eq!(read(&mut sock, false).body, b"{\"bytes\":5,\"echo\":[1,2]}\n");
        assert_eq!(read(&mut sock, false).status, 404);
    }
    writing.join().unwrap();

    sock.write_all(b"GET /ten HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
    assert_eq!(read(&mut sock, false).field("connection"), Some("keep-alive"));
    sock.write_all(
        b"POST /api/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    )
    .unwrap();
    assert_eq!(read(&mut sock, false).status, 100);
    sock.write_all(b"{}").unwrap();
    assert_eq!(read(&mut sock, false).status, 200);
    sock.write_all(b"GET /ten HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /ten").unwrap();
    assert_eq!(read(&mut sock, false).field("connection"), Some("close"));
    assert_eq!(sock.read(&mut [0]).unwrap(), 0);
    assert!(
        String::from_utf8(get(&server, "/api/status").body).unwrap().contains("\"requests\":80")
    );
}

#[test]
fn curl_and_wrk_are_served() {
    let dir = site("http-clients");
    let server = start(&dir, &["--threads", "2"]);
    let url = |path: &str| format!("http://{}{path}", server.address);
    assert_eq!(client("curl", &["-sS", "--fail", &url("/ten")]), "0123456789");
    assert_eq!(client("curl", &["-sS", "-r", "2-4", &url("/ten")]), "234");
    assert!(client("curl", &["-sS", "-I", &url("/ten")]).starts_with("HTTP/1.1 200 OK\r\n"));
    let chunked = ["-sS", "-H", "Transfer-Encoding: chunked", "-d", "[true]", &url("/api/echo")];
    assert_eq!(client("curl", &chunked), "{\"bytes\":6,\"echo\":[true]}\n");
    // Larger than curl sends without asking first.
    let text = format!("\"{}\"", "x".repeat(100_000));
    let said = client("curl", &["-sS", "-d", &text, &url("/api/echo")]);
    assert!(said.starts_with("{\"bytes\":100002,"), "{}", &said[..100.min(said.len())]);
    let copy = dir.0.join("copy");
    client("curl", &["-sS", "--fail", "-o", copy.to_str().unwrap(), &url("/large")]);
    assert!(fs::read(copy).unwrap() == large());

    for path in ["/ten", "/large", "/api/status", "/nothing"] {
        let said = client("wrk", &["-t1", "-c50", "-d1s", &url(path)]);
        assert!(said.contains("requests in"), "{said}");
        assert!(!said.contains("Socket errors"), "{said}");
        assert_eq!(said.contains("Non-2xx"), path == "/nothing", "{said}");
    }
    assert!(server.stop().success());
}

#[test]
fn a_browser_shows_a_page_with_an_image() {
    let dir = site("http-browser");
    let page = "<!doctype html><title>page</title><img id=i src=dot.png><p id=p>not yet</p>\
        <script>i.decode().then(() => p.textContent = `${i.naturalWidth} by ${i.naturalHeight}`)</script>";
    fs::write(dir.0.join("root/page.html"), page).unwrap();
    let server = start(&dir, &[]);
    let profile = format!("--user-data-dir={}", dir.0.join("profile").display());
    let url = format!("http://{}/page.html", server.address);
    let options = [
        "120",
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--virtual-time-budget=10000",
        &profile,
        "--dump-dom",
        &url,
    ];
    let page = client("timeout", &options);
    assert!(page.contains("3 by 2"), "{page}");
}

#[test]
fn a_head_that_takes_too_long_is_answered_and_left() {
    let dir = site("http-slow");
    let server = start(&dir, &["--head-seconds", "1", "--idle", "2"]);
    let start = Instant::now();
    let mut sock = server.connect();
    let mut silent = server.connect();
    trickle(&mut sock, b"GET /ten HTTP/1.1\r\nHost");
    sock.set_nonblocking(true).unwrap();
    // However steadily it trickles, all of it has to come in time.
    let mut first = [0];
    while let Err(error) = sock.peek(&mut first) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let _ = sock.write(b"s");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(start.elapsed() >= Duration::from_secs(1));
    sock.set_nonblocking(false).unwrap();
    assert_eq!(read(&mut sock, false).status, 408);
    // Who says nothing at all is left without a word.
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert!(start.elapsed() >= Duration::from_secs(2));

    let mut sock = server.connect();
    sock.write_all(b"POST /api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{").unwrap();
    assert_eq!(read(&mut sock, false).status, 408, "a body that does not come");
}

#[test]
fn a_client_that_closes_early_resets_or_never_reads_is_no_trouble() {
    let dir = site("http-abuse");
    let server = start(&dir, &["--idle", "2"]);
    let request = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = half_close(&server, request);
    assert!(answer.ends_with(&large()[9_000_000..]), "{} bytes", answer.len());
    assert_eq!(half_close(&server, b"GET /ten HT"), b"");
    let (descriptors, memory) = (server.descriptors(), server.memory());
    for _ in 0..200 {
        reset(&server, request);
        reset(&server, b"GET /ten HTTP/1.1\r\nHo");
    }
    let sock = server.connect();
    never_read(&sock, request, Duration::from_millis(300), 64 << 20);
    assert_eq!(get(&server, "/ten").status, 200, "others are served");
    assert!(server.memory() < memory + 8 * 1024, "{} KiB, {memory} before", server.memory());
    server.until("those who take nothing are left", |server| server.descriptors() <= descriptors);
    drop(sock);
}

#[test]
fn a_crowd_that_says_nothing_costs_little_and_leaves_nothing() {
    let dir = site("http-crowd");
    let server = start(&dir, &["--idle", "600", "--connections", "20000"]);
    quiet_crowd(&server, || assert_eq!(get(&server, "/ten").status, 200));
}

#[test]
fn all_are_served_in_the_end_with_few_descriptors() {
    let dir = site("http-few");
    let root = dir.0.join("root");
    let args = ["--listen", "127.0.0.1:0", "--root", root.to_str().unwrap()];
    let server = Server::start_with_limit(HTTP, &args, 40);
    let request = b"GET /api/status HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
    let (start, used) = (Instant::now(), server.processor_time());
    clients.iter_mut().for_each(|sock| sock.write_all(request).unwrap());
    server.until("it has as many as it can", |server| server.descriptors() >= 40);
    assert_eq!(read(&mut clients[0], false).status, 200);
    clients[0].write_all(b"GET /ten HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(read(&mut clients[0], false).status, 503, "no descriptor is left for a file");
    std::thread::sleep(Duration::from_secs(1)); // it is the waiting that is measured
    let (waited, used) = (start.elapsed(), server.processor_time() - used);
    assert!(used < waited / 4, "{used:?} of {waited:?}");
    for mut sock in clients.drain(1..) {
        assert_eq!(read(&mut sock, false).status, 200);
    }
}

#[test]
fn a_signal_ends_it_and_answers_under_way_are_sent() {
    let dir = site("http-end");
    for signal in ["TERM", "INT"] {
        let server = start(&dir, &["--threads", "2"]);
        let mut idle = server.connect();
        let mut sock = server.connect();
        sock.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut first = [0; 1000];
        sock.read_exact(&mut first).unwrap();
        server.signal(signal);
        assert_eq!(idle.read(&mut [0]).unwrap(), 0);
        let mut rest = Vec::new();
        sock.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(&large()[9_000_000..]), "{} bytes", rest.len());
        drop(sock);
        assert!(server.stop_after_signal().success());
    }
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    for args in [
        &[][..],
        &["--root"],
        &["--root", "/", "--threads", "0"],
        &["--root", "/", "--idle", "0"],
        &["--root", "/", "--head-bytes", "1"],
        &["--root", "/", "--listen", "nowhere"],
        &["--nonsense"],
        &["stray"],
    ] {
        let said = refusal(HTTP, args);
        assert!(said.starts_with("http: "), "{said}");
    }
    let output = Command::new(HTTP).args(["--root", "/nowhere/at/all"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("http: cannot serve /nowhere/at/all: "), "{said}");
    assert!(client(HTTP, &["--help"]).contains("--root"));
}

#[test]
fn a_soak_leaves_descriptors_and_memory_where_they_were() {
    let dir = site("http-soak");
    soak(start(&dir, &["--threads", "2"]), 1, |server| {
        for path in ["/ten", "/large", "/nothing", "/api/status"] {
            let url = format!("http://{}{path}", server.address);
            client("wrk", &["-t1", "-c20", "-d1s", &url]);
        }
        (0..50).for_each(|_| reset(server, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\nGET"));
        drop(idle_crowd(server, 100));
        assert_eq!(get(server, "/out").status, 404);
    });
}
