//! Clients, each in the manner of its name. They check that every echo is the next of what they sent.

use crate::{Field, LONG, patiently, server::FRAME_MAX};
use amy::{Event, FrameReader, FrameWriter, Poller};
use std::{
    io::{self, ErrorKind, Read},
    net::{Shutdown, TcpStream},
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

/// As many messages as fit, and no more in flight than a window.
pub(crate) fn flood(field: &Field) {
    const WINDOW: u64 = 512;
    while !field.is_over() {
        let mut sock = connect(field);
        sock.set_nonblocking(true).unwrap();
        let mut poller = patiently(Poller::new);
        poller.get_registrar().register(&sock, Event::Both).unwrap();
        let (mut reader, mut writer) = (FrameReader::new(FRAME_MAX), FrameWriter::new());
        let (mut sent, mut received) = (0, 0);
        let mut enough = false;
        while !enough || received < sent {
            enough = enough || field.is_over() || sent > 100_000;
            while !enough && sent < received + WINDOW {
                writer.push(message(sent, size(sent))).unwrap();
                sent += 1;
            }
            writer.write(&mut sock, None).unwrap();
            let mut came = 0;
            while reader.read(&mut sock).unwrap() > 0 {
                for echo in reader.iter_mut() {
                    check(echo, received, size(received));
                    received += 1;
                    came += 1;
                }
            }
            if came == 0 && received < sent {
                assert!(!poller.wait(LONG).unwrap().is_empty(), "no echo came");
            }
        }
        sock.shutdown(Shutdown::Write).unwrap();
        sock.set_nonblocking(false).unwrap();
        assert_eq!(reader.read(&mut sock).unwrap_err().kind(), ErrorKind::BrokenPipe);
        done(field, sent);
    }
}

/// Large messages, whose echoes are read by a few bytes at a time while more are sent.
pub(crate) fn read_slowly(field: &Field) {
    const COUNT: u64 = 40;
    const SIZE: usize = 50_000;
    while !field.is_over() {
        let mut sock = connect(field);
        let mut sender = patiently(|| sock.try_clone());
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut writer = FrameWriter::new();
                for number in 0..COUNT {
                    assert!(writer.write(&mut sender, message(number, SIZE)).unwrap());
                }
                sender.shutdown(Shutdown::Write).unwrap();
            });
            let received = receive_all(&mut Slow(&mut sock), |_| SIZE).unwrap();
            assert_eq!(received, COUNT);
        });
        done(field, COUNT);
    }
}

/// A new connection, on which so many messages were sent.
fn connect_and_send(field: &Field, count: u64) -> TcpStream {
    let mut sock = connect(field);
    let mut writer = FrameWriter::new();
    for number in 0..count {
        writer.push(message(number, size(number))).unwrap();
    }
    assert!(writer.flush(&mut sock).unwrap());
    sock
}

/// Some messages, then its half is closed, then the echoes.
pub(crate) fn close_one_half(field: &Field) {
    const COUNT: u64 = 50;
    while !field.is_over() {
        let mut sock = connect_and_send(field, COUNT);
        sock.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive_all(&mut sock, size).unwrap(), COUNT);
        done(field, COUNT);
    }
}

/// Some messages, some of the echoes, and a reset.
pub(crate) fn reset(field: &Field) {
    const COUNT: u64 = 50;
    while !field.is_over() {
        let mut sock = connect_and_send(field, COUNT);
        let mut reader = FrameReader::new(FRAME_MAX).with_read_budget(100);
        reader.read_until_short(&mut sock).unwrap();
        let mut received = 0;
        for echo in reader.iter_mut() {
            check(echo, received, size(received));
            received += 1;
        }
        socket2::SockRef::from(&sock).set_linger(Some(Duration::ZERO)).unwrap();
        drop(sock);
        field.resets.fetch_add(1, Ordering::Relaxed);
        done(field, received);
    }
}

fn connect(field: &Field) -> TcpStream {
    let sock = patiently(|| TcpStream::connect(field.address));
    sock.set_nodelay(true).unwrap();
    sock.set_read_timeout(Some(LONG)).unwrap();
    sock
}

fn done(field: &Field, echoes: u64) {
    field.echoes.fetch_add(echoes, Ordering::Relaxed);
    field.sessions.fetch_add(1, Ordering::Relaxed);
}

/// Receives until the clean end of the stream, and returns how many messages came.
fn receive_all(from: &mut impl Read, size: impl Fn(u64) -> usize) -> io::Result<u64> {
    let mut reader = FrameReader::new(FRAME_MAX);
    let mut received = 0;
    loop {
        match reader.read_until_short(from) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(received),
            Err(error) => return Err(error),
        }
        for echo in reader.iter_mut() {
            check(echo, received, size(received));
            received += 1;
        }
    }
}

/// Takes a break after every few bytes.
struct Slow<'a>(&'a mut TcpStream);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        thread::sleep(Duration::from_micros(200));
        let most = buffer.len().min(8192);
        self.0.read(&mut buffer[..most])
    }
}

/// Mostly small, now and then large, and now and then empty.
fn size(number: u64) -> usize {
    match number % 50 {
        7 => 0,
        13 => 5000,
        n => usize::try_from(n).unwrap() + 8,
    }
}

/// The number, then bytes that depend on it.
fn message(number: u64, size: usize) -> Vec<u8> {
    let seed = number.to_be_bytes();
    (0..size).map(|i| if i < 8 { seed[i] } else { pad(number, i) }).collect()
}

fn check(echo: &[u8], number: u64, size: usize) {
    assert_eq!(echo.len(), size, "message {number}");
    let seed = number.to_be_bytes();
    assert!(echo.iter().zip(&seed).all(|(a, b)| a == b), "{echo:?} is not message {number}");
    assert!(echo.iter().enumerate().skip(8).all(|(i, &byte)| byte == pad(number, i)));
}

fn pad(number: u64, place: usize) -> u8 {
    (number * 7 + place as u64 * 31).to_le_bytes()[0]
}
