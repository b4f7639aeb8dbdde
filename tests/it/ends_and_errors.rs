//! Promise 6, ends and errors: a hang-up and an error are reported as readable and writable, for
//! whichever was asked; data that is queued stays readable before the error.

use crate::common::{look, new_poller, next, read_all, tcp_pair, unix_pair, wait_for};
use amy::{Event, Notification};
use rustix::pipe::pipe;
use socket2::{Domain, SockRef, Socket, Type};
use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

/// Whether one registration tells both sides; a kqueue's filters each tell their own.
const EPOLL: bool = cfg!(target_os = "linux");

const EVENTS: [Event; 3] = [Event::Read, Event::Write, Event::Both];

/// Closes a connection so that the other end gets a reset.
fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The hints, in the order read closed, write closed, error, priority.
fn hints(n: Notification) -> [bool; 4] {
    [n.is_read_closed(), n.is_write_closed(), n.is_error(), n.is_priority()]
}

const NONE: [bool; 4] = [false; 4];

/// What to ask of an end of a pipe. On some systems with a kqueue a pipe goes both ways, and what the
/// end that is not for `way` tells of it is their own.
fn asked_of_a_pipe(way: Event) -> Vec<Event> {
    if EPOLL { EVENTS.to_vec() } else { vec![way] }
}

/// Writes until there is no more room.
fn fill(mut socket: impl Write) {
    loop {
        match socket.write(&[0; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn plain_readiness_is_told_as_what_holds_of_what_was_asked_and_hints_at_nothing() {
    for asked in EVENTS {
        let (mut poller, registrar) = new_poller();
        let (socket, mut peer) = unix_pair();
        peer.write_all(b"x").unwrap();
        let id = registrar.register(&socket, asked).unwrap();
        let n = next(&mut poller);
        assert_eq!((n.id, n.event, hints(n)), (id, asked, NONE));
    }
}

#[test]
fn of_both_only_what_holds_is_told() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = unix_pair();
    registrar.register(&socket, Event::Both).unwrap();
    assert_eq!(next(&mut poller).event, Event::Write);

    fill(&socket);
    peer.write_all(b"x").unwrap();
    assert_eq!(next(&mut poller).event, Event::Read);

    assert!(!read_all(&peer).is_empty());
    let n = next(&mut poller);
    assert!(n.event.writable());
    assert_eq!(hints(n), NONE);
}

#[test]
fn a_peer_that_has_finished_writing_can_be_read_to_the_end_and_written_to() {
    for (asked, told) in [(Event::Read, Event::Read), (Event::Both, Event::Both)] {
        let (mut poller, registrar) = new_poller();
        let (mut socket, mut peer) = tcp_pair();
        let id = registrar.register(&socket, asked).unwrap();
        if asked.writable() {
            assert_eq!(next(&mut poller).event, Event::Write);
        }
        peer.write_all(b"last").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();

        let n = wait_for_hint(&mut poller, id, Notification::is_read_closed);
        assert_eq!((n.event, hints(n)), (told, [true, false, false, false]));
        assert_eq!(read_all(&socket), b"last");
        assert_eq!(socket.read(&mut [0]).unwrap(), 0);
        socket.write_all(b"still heard").unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        peer.set_nonblocking(false).unwrap();
        assert_eq!(read_all(&peer), b"still heard");
    }
}

/// Waits until `id` is told with a hint, which may come after a notification of data before it.
fn wait_for_hint(
    poller: &mut amy::Poller,
    id: usize,
    hint: fn(&Notification) -> bool,
) -> Notification {
    loop {
        let n = wait_for(poller, id);
        if hint(&n) {
            return n;
        }
    }
}

#[test]
fn a_reset_is_told_to_whoever_asked_and_data_comes_before_the_error() {
    for asked in EVENTS {
        let (mut poller, registrar) = new_poller();
        let (mut socket, mut peer) = tcp_pair();
        let id = registrar.register(&socket, asked).unwrap();
        peer.write_all(b"queued").unwrap();
        reset(peer);

        let n = wait_for_hint(&mut poller, id, Notification::is_error);
        assert_eq!(n.event, asked);
        assert!(n.is_read_closed() && n.is_write_closed(), "{n:?}");
        let mut data = [0; 16];
        assert_eq!(socket.read(&mut data).unwrap(), 6, "queued data comes first");
        assert_eq!(socket.read(&mut data).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(look(&mut poller).is_empty(), "a reset is told once");
    }
}

#[test]
fn a_reset_without_data_is_told_to_whoever_asked() {
    for asked in EVENTS {
        let (mut poller, registrar) = new_poller();
        let (socket, peer) = tcp_pair();
        let id = registrar.register(&socket, asked).unwrap();
        reset(peer);
        let n = wait_for_hint(&mut poller, id, Notification::is_error);
        assert_eq!(n.event, asked);
        let error = socket.take_error().unwrap().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_reset_is_told_to_a_socket_registered_after_it() {
    for asked in EVENTS {
        let (mut poller, registrar) = new_poller();
        let (socket, peer) = tcp_pair();
        let other = socket.try_clone().unwrap();
        let first = registrar.register(&other, Event::Read).unwrap();
        reset(peer);
        wait_for_hint(&mut poller, first, Notification::is_error);
        let id = registrar.register(&socket, asked).unwrap();
        let n = next(&mut poller);
        assert_eq!((n.id, n.event, n.is_error()), (id, asked, true));
    }
}

/// A socket whose connection is on its way to `address`, or was refused at once.
fn connecting(address: std::net::SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    if let Err(error) = socket.connect(&address.into()) {
        let expected = Some(rustix::io::Errno::INPROGRESS.raw_os_error());
        assert!(error.raw_os_error() == expected, "{error}");
    }
    socket
}

#[test]
fn a_refused_connection_is_told_to_whoever_asked_and_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for asked in EVENTS {
        let (mut poller, registrar) = new_poller();
        let socket = connecting(address);
        let id = registrar.register(&socket, asked).unwrap();
        let n = wait_for_hint(&mut poller, id, Notification::is_error);
        assert_eq!(n.event, asked);
        assert_eq!(socket.take_error().unwrap().unwrap().kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn a_connection_that_was_made_is_writable_without_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut poller, registrar) = new_poller();
    let socket = connecting(listener.local_addr().unwrap());
    let id = registrar.register(&socket, Event::Both).unwrap();
    let n = wait_for(&mut poller, id);
    assert_eq!((n.event, hints(n)), (Event::Write, NONE));
    assert!(socket.take_error().unwrap().is_none());
}

#[cfg(target_os = "linux")]
#[test]
fn a_socket_that_is_not_connected_is_told_once_as_hung_up() {
    for asked in EVENTS {
        let (mut poller, registrar) = new_poller();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let id = registrar.register(&socket, asked).unwrap();
        let n = next(&mut poller);
        assert_eq!((n.id, n.event), (id, asked));
        assert!(n.is_read_closed() && n.is_write_closed() && !n.is_error());
        assert!(look(&mut poller).is_empty());
    }
}

#[test]
fn a_pipe_tells_its_writer_that_the_reader_is_gone() {
    for asked in asked_of_a_pipe(Event::Write) {
        for full in [true, false] {
            let (mut poller, registrar) = new_poller();
            let (reader, writer) = pipe().unwrap();
            let mut writer = File::from(writer);
            if full {
                rustix::io::ioctl_fionbio(&writer, true).unwrap();
                fill(&writer);
            }
            let id = registrar.register(&writer, asked).unwrap();
            if !full && asked.writable() {
                let n = next(&mut poller);
                assert_eq!((n.id, n.event, hints(n)), (id, Event::Write, NONE));
            }
            assert!(look(&mut poller).is_empty());
            drop(reader);
            let n = next(&mut poller);
            assert_eq!((n.id, n.event), (id, asked));
            assert!(n.is_write_closed());
            assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
    }
}

#[test]
fn a_pipe_tells_its_reader_that_the_writer_is_gone() {
    for asked in asked_of_a_pipe(Event::Read) {
        for data in [&b""[..], b"last"] {
            let (mut poller, registrar) = new_poller();
            let (reader, writer) = pipe().unwrap();
            let id = registrar.register(&reader, asked).unwrap();
            let mut writer = File::from(writer);
            writer.write_all(data).unwrap();
            if !data.is_empty() && asked.readable() {
                let n = next(&mut poller);
                assert_eq!((n.id, n.event, hints(n)), (id, Event::Read, NONE));
            }
            assert!(look(&mut poller).is_empty());
            drop(writer);
            let n = next(&mut poller);
            assert_eq!((n.id, n.event), (id, asked));
            assert!(n.is_read_closed() && !n.is_error());
            assert_eq!(read_all(File::from(reader)), data);
        }
    }
}

#[test]
fn the_end_of_a_local_peer_is_told_to_whoever_asked() {
    for asked in EVENTS {
        let (mut poller, registrar) = new_poller();
        let (socket, mut peer) = unix_pair();
        let id = registrar.register(&socket, asked).unwrap();
        if asked.writable() {
            assert_eq!(next(&mut poller).event, Event::Write);
        }
        peer.write_all(b"last").unwrap();
        drop(peer);
        let n = next(&mut poller);
        assert_eq!((n.id, n.event), (id, asked));
        let told = [asked.readable() || EPOLL, asked.writable() || EPOLL, false, false];
        assert_eq!(hints(n), told);
        assert_eq!(read_all(&socket), b"last");
    }
}

#[test]
fn an_end_that_is_level_triggered_is_told_until_it_is_removed() {
    let (mut poller, registrar) = new_poller();
    let (socket, peer) = unix_pair();
    let id = registrar.register(&socket, Event::Read.level()).unwrap();
    drop(peer);
    for _ in 0..3 {
        assert_eq!(look(&mut poller), [id]);
    }
    registrar.deregister(socket).unwrap();
    assert!(look(&mut poller).is_empty());
}

#[test]
fn an_end_after_a_single_notification_waits_for_the_registration() {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer): (UnixStream, _) = unix_pair();
    let id = registrar.register(&socket, Event::Read.once()).unwrap();
    peer.write_all(b"x").unwrap();
    assert_eq!(next(&mut poller).id, id);
    drop(peer);
    assert!(look(&mut poller).is_empty());
    registrar.reregister(id, &socket, Event::Read.once()).unwrap();
    let n = next(&mut poller);
    assert_eq!((n.id, n.event, n.is_read_closed()), (id, Event::Read, true));
}

#[test]
fn a_shutdown_of_ones_own_is_no_error() -> io::Result<()> {
    let (mut poller, registrar) = new_poller();
    let (socket, mut peer) = tcp_pair();
    let id = registrar.register(&socket, Event::Read)?;
    socket.shutdown(Shutdown::Write)?;
    peer.write_all(b"answer")?;
    let n = wait_for(&mut poller, id);
    assert_eq!((n.event, hints(n)), (Event::Read, NONE));
    assert_eq!(read_all(&socket), b"answer");
    Ok(())
}
