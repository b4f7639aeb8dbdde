//! The guide: its programs run as written there, here with an end to them.

use crate::common::{LONG, in_time};
use amy::{Event, Poller};
use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
};

const IP: &str = "127.0.0.1:0";
const POLL_TIMEOUT: usize = 60_000; // ms
const TIMER_TIMEOUT: usize = 50; // ms

/// Owns the sockets of an echo server, until `clients` connections have come and gone.
fn serve(
    registrar: amy::Registrar,
    rx: Receiver<amy::Notification>,
    address: std::sync::mpsc::Sender<std::net::SocketAddr>,
    clients: usize,
) -> io::Result<()> {
    let listener = TcpListener::bind(IP)?;
    listener.set_nonblocking(true)?;
    address.send(listener.local_addr()?).unwrap();

    let listener_id = registrar.register(&listener, Event::Read)?;
    let mut connections = HashMap::new();
    let mut gone = 0;
    while gone < clients {
        let notification = rx.recv().unwrap();
        if notification.id == listener_id {
            while let Ok((socket, _)) = listener.accept() {
                socket.set_nonblocking(true)?;
                let socket_id = registrar.register(&socket, Event::Both)?;
                connections.insert(socket_id, socket);
            }
        } else if let Some(conn) = connections.get_mut(&notification.id) {
            if let Err(error) = echo(conn) {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                if let Some(conn) = connections.remove(&notification.id) {
                    registrar.deregister(conn)?;
                    gone += 1;
                }
            }
        }
    }
    Ok(())
}

/// Sends back what there is.
fn echo(socket: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => socket.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[test]
fn one_thread_waits_for_the_sockets_of_another() {
    in_time(|| {
        const CLIENTS: usize = 5;
        let mut poller = Poller::new().unwrap();
        let registrar = poller.get_registrar();
        let (tx, rx) = channel();
        let (tell_address, address) = channel();
        let handle = thread::spawn(move || serve(registrar, rx, tell_address, CLIENTS));

        let address = address.recv().unwrap();
        let client = thread::spawn(move || {
            for text in ["one", "two", "three", "four", "five"].iter().take(CLIENTS) {
                let mut socket = TcpStream::connect(address).unwrap();
                socket.set_read_timeout(Some(LONG)).unwrap();
                let mut answer = vec![0; text.len()];
                socket.write_all(text.as_bytes()).unwrap();
                socket.read_exact(&mut answer).unwrap();
                assert_eq!(answer, text.as_bytes());
            }
        });
        while !handle.is_finished() {
            let notifications = poller.wait(10).unwrap();
            for n in notifications {
                // The server is gone when it has seen the last connection end.
                if tx.send(n).is_err() {
                    break;
                }
            }
        }
        handle.join().unwrap().unwrap();
        client.join().unwrap();
    });
}

#[test]
fn timers_are_told_by_their_ids() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();

    let timer = registrar.set_timeout(TIMER_TIMEOUT).unwrap();
    let notifications = poller.wait(POLL_TIMEOUT).unwrap();
    assert_eq!(timer.get_id(), notifications[0].id);

    let timer = registrar.set_interval(TIMER_TIMEOUT).unwrap();
    for _ in 1..5 {
        let notifications = poller.wait(POLL_TIMEOUT).unwrap();
        assert_eq!(timer.get_id(), notifications[0].id);
        timer.arm();
    }
    registrar.cancel_timeout(timer).unwrap();
}

#[test]
fn a_channel_wakes_the_poller() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let (tx, rx) = registrar.channel().unwrap();

    thread::spawn(move || {
        tx.send("a").unwrap();
    });

    let notifications = poller.wait(POLL_TIMEOUT).unwrap();
    assert_eq!(rx.get_id(), notifications[0].id);
    assert_eq!("a", rx.try_recv().unwrap());
}

#[test]
fn a_connection_in_error_is_given_to_be_deregistered() {
    struct Conn {
        sock: TcpStream,
    }
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let listener = TcpListener::bind(IP).unwrap();
    let sock = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let id = registrar.register(&sock, Event::Both).unwrap();
    let mut connections = HashMap::from([(id, Conn { sock })]);
    assert_eq!(poller.wait(POLL_TIMEOUT).unwrap()[0].id, id);

    if let Some(conn) = connections.remove(&id) {
        registrar.deregister(conn.sock).unwrap();
    }
    // It was closed with that.
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    assert!(poller.wait(0).unwrap().is_empty());
}

#[test]
fn a_batch_can_be_indexed_counted_and_iterated_in_every_way() {
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let timers = [registrar.set_timeout(0).unwrap(), registrar.set_timeout(0).unwrap()];
    let ids = timers.each_ref().map(amy::Timer::get_id);

    let notifications = poller.wait(POLL_TIMEOUT).unwrap();
    assert_eq!((notifications.len(), notifications.is_empty()), (2, false));
    assert_eq!([notifications[0].id, notifications[1].id], ids);
    let mut seen = Vec::new();
    for n in &notifications {
        seen.push(n.id);
    }
    seen.extend(notifications.iter().map(|n| n.id));
    let (tx, rx) = channel();
    for n in notifications {
        tx.send(n).unwrap();
    }
    drop(tx);
    seen.extend(rx.iter().map(|n| n.id));
    assert_eq!(seen, [ids, ids, ids].concat());
}
