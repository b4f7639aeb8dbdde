//! What is measured once: memory and descriptors.

use crate::kit;
use std::{
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

/// A figure of one contender.
pub struct Fact {
    pub group: &'static str,
    pub contender: &'static str,
    /// Bytes on the heap for each, and (where the user holds a handle) in the handle itself.
    pub bytes: f64,
    pub handle: usize,
    /// Descriptors for each.
    pub descriptors: f64,
}

pub fn all() -> Vec<Fact> {
    let mut facts = registrations();
    facts.extend(timers());
    facts.extend(connections());
    facts
}

/// Makes so many, and divides what they took.
fn each<T>(
    group: &'static str,
    contender: &'static str,
    count: usize,
    mut make: impl FnMut(usize) -> T,
) -> Fact {
    let mut made = Vec::with_capacity(count + 1);
    // What belongs to the first alone is left out.
    made.push(make(0));
    let (bytes, descriptors) = (kit::live_bytes(), kit::open_descriptors());
    made.extend((1..=count).map(&mut make));
    let bytes = (kit::live_bytes() - bytes) as f64 / count as f64;
    let descriptors = (kit::open_descriptors() - descriptors) as f64 / count as f64;
    Fact { group, contender, bytes, handle: size_of::<T>(), descriptors }
}

fn registrations() -> Vec<Fact> {
    use tokio::io::{Interest, unix::AsyncFd};

    const COUNT: usize = 4000;
    const GROUP: &str = "an idle registration";
    let fds = kit::eventfds(COUNT + 1);
    let mut facts = Vec::new();

    let poller = amy::Poller::new().expect("a poller");
    let registrar = poller.get_registrar();
    facts.push(each(GROUP, "amy", COUNT, |number| {
        registrar.register(&fds[number], amy::Event::Read).expect("room")
    }));
    drop((poller, registrar));

    let poller = amy010::Poller::new().expect("a poller");
    let registrar = poller.get_registrar();
    facts.push(each(GROUP, "amy 0.10", COUNT, |number| {
        let fd = crate::works::wait::Raw(fds[number].as_raw_fd());
        registrar.register(&fd, amy010::Event::Read).expect("room")
    }));
    drop((poller, registrar));

    let poll = mio::Poll::new().expect("a poll");
    facts.push(each(GROUP, "mio", COUNT, |number| {
        let fd = fds[number].as_raw_fd();
        let mut source = mio::unix::SourceFd(&fd);
        let token = mio::Token(number);
        poll.registry().register(&mut source, token, mio::Interest::READABLE).expect("room");
        token
    }));
    drop(poll);

    let poller = polling::Poller::new().expect("a poller");
    facts.push(each(GROUP, "polling", COUNT, |number| {
        let event = polling::Event::readable(number);
        // SAFETY: the poller is dropped before the descriptors.
        unsafe { poller.add_with_mode(&fds[number], event, polling::PollMode::Edge) }
            .expect("room");
        number
    }));
    drop(poller);

    let events = calloop::EventLoop::<()>::try_new().expect("a loop");
    facts.push(each(GROUP, "calloop", COUNT, |number| {
        let source = calloop::generic::Generic::new(
            Borrowed(fds[number].as_raw_fd()),
            calloop::Interest::READ,
            calloop::Mode::Edge,
        );
        events
            .handle()
            .insert_source(source, |_, _, ()| Ok(calloop::PostAction::Continue))
            .expect("room")
    }));
    drop(events);

    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let inside = runtime.enter();
    facts.push(each(GROUP, "tokio", COUNT, |number| {
        let fd = fds[number].as_raw_fd();
        // SAFETY: the descriptors are closed after the registrations are gone.
        unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.expect("room")
    }));
    drop(inside);
    facts
}

/// A descriptor that stays with its owner.
struct Borrowed(std::os::fd::RawFd);

impl std::os::fd::AsFd for Borrowed {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        // SAFETY: the descriptors outlive everything that is made of them here.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.0) }
    }
}

fn timers() -> Vec<Fact> {
    const GROUP: &str = "a running timer";
    const FAR: Duration = Duration::from_secs(1000);
    let mut facts = Vec::new();

    let poller = amy::Poller::new().expect("a poller");
    let registrar = poller.get_registrar();
    facts.push(each(GROUP, "amy", 100_000, |_| registrar.set_timeout(FAR).expect("a timer")));
    drop((poller, registrar));

    let mut poller = amy010::Poller::new().expect("a poller");
    let registrar = poller.get_registrar();
    facts.push(each(GROUP, "amy 0.10", 1000, |_| {
        let timer = registrar.set_timeout(FAR.as_millis() as usize).expect("a timer");
        // It sets its timers in here.
        poller.wait(0).expect("a wait");
        timer
    }));
    drop((poller, registrar));

    let events = calloop::EventLoop::<()>::try_new().expect("a loop");
    facts.push(each(GROUP, "calloop", 10_000, |_| {
        let timer = calloop::timer::Timer::from_duration(FAR);
        events
            .handle()
            .insert_source(timer, |_, _, ()| calloop::timer::TimeoutAction::Drop)
            .expect("a timer")
    }));
    drop(events);

    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let inside = runtime.enter();
    facts.push(each(GROUP, "tokio", 100_000, |_| crate::works::timers::sleep(FAR)));
    drop(inside);
    facts
}

/// Connections that were used once and then fell silent.
fn connections() -> Vec<Fact> {
    use std::io::Write;

    const COUNT: usize = 500;
    const GROUP: &str = "an idle framed connection";
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut clients = Vec::with_capacity(8 * COUNT);
    let mut connect = || {
        let mut client = TcpStream::connect(address).expect("a connection");
        client.write_all(b"\0\0\0\x04ping").expect("room");
        clients.push(client);
        let server = listener.accept().expect("a connection").0;
        server.set_nonblocking(true).expect("a mode");
        server
    };
    let mut facts = Vec::new();

    let poller = amy::Poller::new().expect("a poller");
    let registrar = poller.get_registrar();
    facts.push(each(GROUP, "amy", COUNT, |_| {
        let mut socket = connect();
        let mut reader = amy::FrameReader::new(1 << 20);
        let mut writer = amy::FrameWriter::new();
        registrar.register(&socket, amy::Event::Both).expect("room");
        let mut count = 0;
        while count < 1 {
            reader.read(&mut socket).expect("a read");
            for message in reader.iter_mut() {
                assert!(writer.push(message).is_ok());
                count += 1;
            }
        }
        assert!(!reader.has_more());
        reader.read(&mut socket).expect("a read");
        writer.flush(&mut socket).expect("a write");
        (socket, reader, writer)
    }));
    drop((poller, registrar));

    let poller = amy010::Poller::new().expect("a poller");
    let registrar = poller.get_registrar();
    facts.push(each(GROUP, "amy 0.10", COUNT, |_| {
        let mut socket = connect();
        let mut reader = amy010::FrameReader::new(1 << 20);
        let mut writer = amy010::FrameWriter::new();
        let fd = crate::works::wait::Raw(socket.as_raw_fd());
        registrar.register(&fd, amy010::Event::Both).expect("room");
        let mut count = 0;
        while count < 1 {
            reader.read(&mut socket).expect("a read");
            for message in reader.iter_mut() {
                writer.write(&mut socket, Some(message)).expect("a write");
                count += 1;
            }
        }
        (socket, reader, writer)
    }));
    drop((poller, registrar));

    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    facts.push(each(GROUP, "tokio", COUNT, |_| {
        use futures_util::{SinkExt, StreamExt};
        let socket = connect();
        runtime.block_on(async {
            let socket = tokio::net::TcpStream::from_std(socket).expect("a socket");
            let codec = tokio_util::codec::LengthDelimitedCodec::new();
            let mut framed = tokio_util::codec::Framed::new(socket, codec);
            let message = framed.next().await.expect("more").expect("a frame");
            framed.send(message.freeze()).await.expect("room");
            framed
        })
    }));
    drop::<Vec<OwnedFd>>(clients.into_iter().map(OwnedFd::from).collect());
    facts
}
