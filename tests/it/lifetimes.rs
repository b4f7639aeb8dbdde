//! Promise 12: what is dropped in whatever order, on whatever thread, is closed once, and nothing
//! acts on a descriptor after that.

use crate::common::{Bed, Dice, LONG, alone, descriptors, told};
use amy::{Event, Notifier, Poller, Receiver, Registrar, Sender, Timer};
use canaries::Canaries;
use rustix::io::fcntl_getfd;
use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::{
        Barrier,
        mpsc::{SendError, TryRecvError},
    },
    thread,
};

/// One of the things that share a poller's descriptors.
enum Part {
    Poller(Poller),
    Registrar(Registrar),
    Sender(Sender<usize>),
    Receiver(Receiver<usize>),
    Timer(Timer),
    Notifier(Notifier),
}

/// Seven parts of one whole: two pollers, and one of each of the others.
fn parts() -> Vec<Part> {
    let poller = Poller::new().unwrap();
    let second = poller.try_clone().unwrap();
    let registrar = poller.get_registrar();
    let (tx, rx) = registrar.channel().unwrap();
    vec![
        Part::Timer(registrar.set_timeout(0).unwrap()),
        Part::Notifier(registrar.notifier().unwrap()),
        Part::Sender(tx),
        Part::Receiver(rx),
        Part::Registrar(registrar),
        Part::Poller(poller),
        Part::Poller(second),
    ]
}

/// What is left of the parts.
#[derive(Clone, Copy, Debug)]
struct Left {
    pollers: usize,
    senders: usize,
    receivers: usize,
}

impl Left {
    fn of<'a>(parts: impl Iterator<Item = &'a Part>) -> Left {
        let mut left = Left { pollers: 0, senders: 0, receivers: 0 };
        for part in parts {
            match part {
                Part::Poller(_) => left.pollers += 1,
                Part::Sender(_) => left.senders += 1,
                Part::Receiver(_) => left.receivers += 1,
                _ => {}
            }
        }
        left
    }
}

fn broken<T: std::fmt::Debug>(result: io::Result<T>) {
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

/// Makes every call that `part` has, and holds the answers against what is left of the others, if
/// that is known.
fn use_all(part: &mut Part, left: Option<Left>) {
    match part {
        Part::Poller(poller) => {
            let mut ids: Vec<_> = poller.wait(0).unwrap().iter().map(|n| n.id).collect();
            assert!(left.is_none() || ids.len() <= 3, "{ids:?}");
            let all = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), all, "an id was told twice in one batch");
        }
        Part::Registrar(registrar) => {
            let (socket, _peer) = UnixStream::pair().unwrap();
            let registered = registrar.register(&socket, Event::Both);
            let timer = registrar.set_timeout(0);
            let removed = registrar.deregister(&socket);
            match left {
                Some(Left { pollers: 0, .. }) => {
                    broken(registered);
                    broken(timer);
                    broken(removed);
                    broken(registrar.channel::<()>());
                }
                Some(_) => {
                    registered.unwrap();
                    timer.unwrap();
                    removed.unwrap();
                }
                None => {}
            }
        }
        Part::Sender(tx) => {
            let sent = tx.send(7);
            match left {
                Some(Left { pollers: 0, .. } | Left { receivers: 0, .. }) => {
                    assert_eq!(sent, Err(SendError(7)));
                }
                Some(_) => sent.unwrap(),
                None => {}
            }
        }
        Part::Receiver(rx) => {
            while rx.try_recv().is_ok() {}
            let end = rx.try_recv();
            match left {
                Some(Left { senders: 0, .. }) => assert_eq!(end, Err(TryRecvError::Disconnected)),
                Some(_) => assert_eq!(end, Err(TryRecvError::Empty)),
                None => {}
            }
        }
        Part::Timer(timer) => {
            assert!(timer.arm() <= 1);
            let reset = timer.reset(0);
            match left {
                Some(Left { pollers: 0, .. }) => broken(reset),
                Some(_) => reset.unwrap(),
                None => {}
            }
        }
        Part::Notifier(notifier) => {
            let notified = notifier.notify();
            match left {
                Some(Left { pollers: 0, .. }) => broken(notified),
                Some(_) => notified.unwrap(),
                None => {}
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod canaries {
    use rustix::{
        event::{
            EventfdFlags,
            epoll::{self, CreateFlags},
            eventfd,
        },
        time::{TimerfdClockId, TimerfdFlags, timerfd_create},
    };
    use std::{
        fs,
        os::fd::{AsRawFd, OwnedFd},
    };

    /// Descriptors that take the numbers which were freed last, of the same kinds and in the order in
    /// which a poller makes its own. Whoever still used the old numbers would leave a mark on them.
    pub(super) struct Canaries {
        queue: OwnedFd,
        counter: OwnedFd,
        alarm: OwnedFd,
    }

    impl Canaries {
        pub(super) fn new() -> Canaries {
            let alarm_flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            Canaries {
                queue: epoll::create(CreateFlags::CLOEXEC).unwrap(),
                counter: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap(),
                alarm: timerfd_create(TimerfdClockId::Monotonic, alarm_flags).unwrap(),
            }
        }

        pub(super) fn assert_untouched(&self) {
            let info = |fd: &OwnedFd| {
                fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap()
            };
            let queue = info(&self.queue);
            assert!(!queue.contains("tfd:"), "something was registered:\n{queue}");
            let mut eight = [0; 8];
            let counter = rustix::io::read(&self.counter, &mut eight);
            assert_eq!(counter, Err(rustix::io::Errno::AGAIN), "something was written: {eight:?}");
            let alarm = info(&self.alarm);
            assert!(alarm.contains("it_value: (0, 0)"), "an alarm was set:\n{alarm}");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod canaries {
    use crate::common::{read_all, unix_pair};
    use std::os::unix::net::UnixStream;

    /// Descriptors that take the numbers which were freed last.
    pub(super) struct Canaries(UnixStream, UnixStream);

    impl Canaries {
        pub(super) fn new() -> Canaries {
            let (a, b) = unix_pair();
            Canaries(a, b)
        }

        pub(super) fn assert_untouched(&self) {
            assert!(read_all(&self.0).is_empty(), "something was written");
            assert!(read_all(&self.1).is_empty(), "something was written");
        }
    }
}

/// Calls `visit` with every order of the numbers below `len` (Heap's algorithm).
fn every_order(len: usize, visit: &mut impl FnMut(&[usize])) {
    fn go(rest: usize, order: &mut [usize], visit: &mut impl FnMut(&[usize])) {
        if rest <= 1 {
            return visit(order);
        }
        for i in 0..rest {
            go(rest - 1, order, visit);
            let with = if rest % 2 == 0 { i } else { 0 };
            order.swap(with, rest - 1);
        }
    }
    go(len, &mut (0..len).collect::<Vec<_>>(), visit);
}

/// Drops the parts in this order, each by `drop_part`, and uses all that is left after each.
fn drop_in_order(order: &[usize], drop_part: impl Fn(Part)) {
    let mut parts: Vec<_> = parts().into_iter().map(Some).collect();
    let mut canaries = Vec::new();
    for &next in order {
        drop_part(parts[next].take().unwrap());
        canaries.push(Canaries::new());
        let left = Left::of(parts.iter().flatten());
        for part in parts.iter_mut().flatten() {
            use_all(part, Some(left));
        }
    }
    canaries.iter().for_each(Canaries::assert_untouched);
}

#[test]
fn every_order_of_drops_closes_each_descriptor_once() {
    alone(|| {
        let before = descriptors();
        let mut orders = 0;
        every_order(7, &mut |order| {
            drop_in_order(order, drop);
            orders += 1;
        });
        assert_eq!(orders, 5040);
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn drops_on_other_threads_close_each_descriptor_once() {
    alone(|| {
        let before = descriptors();
        let mut dice = Dice::new(1);
        for _ in 0..300 {
            let mut order: Vec<_> = (0..7).collect();
            dice.shuffle(&mut order);
            drop_in_order(&order, |part| thread::spawn(|| drop(part)).join().unwrap());
        }
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn drops_on_many_threads_at_once_close_each_descriptor_once() {
    alone(|| {
        let before = descriptors();
        let mut dice = Dice::new(2);
        for _ in 0..300 {
            let parts = parts();
            let start = Barrier::new(parts.len() + 1);
            thread::scope(|scope| {
                let mut threads = Vec::new();
                for mut part in parts {
                    let start = &start;
                    let uses = dice.below(5);
                    threads.push(scope.spawn(move || {
                        start.wait();
                        (0..uses).for_each(|_| use_all(&mut part, None));
                        drop(part);
                    }));
                }
                start.wait();
                let mut canaries = vec![Canaries::new()];
                while threads.iter().any(|thread| !thread.is_finished()) {
                    if canaries.len() < 20 {
                        canaries.push(Canaries::new());
                    }
                    thread::yield_now();
                }
                canaries.iter().for_each(Canaries::assert_untouched);
            });
        }
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn pollers_that_are_gone_leave_no_descriptor() {
    alone(|| {
        let before = descriptors();
        for _ in 0..100 {
            drop(Poller::new().unwrap());
        }
        assert_eq!(descriptors(), before);
        let many: Vec<_> = (0..100).map(|_| Poller::new().unwrap()).collect();
        let with_many = descriptors().len();
        let clones: Vec<_> = many.iter().map(|poller| poller.try_clone().unwrap()).collect();
        assert_eq!(descriptors().len(), with_many, "a clone needs nothing new");
        drop(many);
        assert_eq!(descriptors().len(), with_many, "a clone needs all that there is");
        drop(clones);
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn a_registrar_whose_poller_is_gone_says_so() {
    let poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let (socket, _peer) = UnixStream::pair().unwrap();
    let id = registrar.register(&socket, Event::Read).unwrap();
    let timer = registrar.set_timeout(1).unwrap();
    let interval = registrar.set_interval(1).unwrap();
    drop(poller);

    let (other, _peer) = UnixStream::pair().unwrap();
    broken(registrar.register(&other, Event::Read));
    broken(registrar.reregister(id, &socket, Event::Write));
    broken(registrar.deregister(&socket));
    broken(registrar.set_timeout(1));
    broken(registrar.set_interval(1));
    broken(registrar.channel::<u8>());
    broken(registrar.sync_channel::<u8>(1));
    broken(registrar.notifier());
    broken(registrar.clone().notifier());
    broken(timer.reset(1));
    interval.arm();
    registrar.cancel_timeout(timer).unwrap();
    registrar.cancel_timeout(interval).unwrap();
}

#[test]
fn a_registrar_works_as_long_as_one_poller_is_left() {
    let first = Poller::new().unwrap();
    let registrar = first.get_registrar();
    let mut second = first.try_clone().unwrap();
    let third = second.try_clone().unwrap();
    drop(first);
    drop(third);
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let id = registrar.register(&socket, Event::Read).unwrap();
    peer.write_all(b"x").unwrap();
    assert_eq!(told(&mut second, LONG), [id]);
    let timer = registrar.set_timeout(0).unwrap();
    assert_eq!(told(&mut second, LONG), [timer.get_id()]);
}

#[test]
fn sockets_outlive_the_poller_that_waited_for_them() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();

    let poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let old = registrar.register(&server, Event::Both).unwrap();
    drop((poller, registrar));

    fcntl_getfd(&server).unwrap();
    let mut poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let id = registrar.register(&server, Event::Read).unwrap();
    assert_ne!(id, old);
    client.write_all(b"ping").unwrap();
    assert_eq!(told(&mut poller, LONG), [id]);
    let mut four = [0; 4];
    server.read_exact(&mut four).unwrap();
    server.write_all(&four).unwrap();
    client.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"ping");
}

#[test]
fn a_socket_that_is_lent_stays_open_and_one_that_is_given_is_closed() {
    let poller = Poller::new().unwrap();
    let registrar = poller.get_registrar();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    registrar.register(&socket, Event::Read).unwrap();
    registrar.deregister(&socket).unwrap();
    peer.write_all(b"still here").unwrap();

    registrar.register(&socket, Event::Read).unwrap();
    registrar.deregister(socket).unwrap();
    assert_eq!(peer.write_all(b"gone").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_wait_goes_on_when_the_last_registrar_is_gone() {
    let mut poller = Poller::new().unwrap();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    for _ in 0..50 {
        let registrar = poller.get_registrar();
        let id = registrar.register(&socket, Event::Read).unwrap();
        let bed = Bed::default();
        thread::scope(|scope| {
            let (bed, peer) = (&bed, &mut peer);
            scope.spawn(move || {
                bed.watch();
                drop(registrar);
                peer.write_all(b"x").unwrap();
            });
            bed.lie_down();
            assert_eq!(told(&mut poller, LONG), [id]);
        });
        poller.get_registrar().deregister(&socket).unwrap();
    }
    assert_eq!(told(&mut poller, 1), []);
}

#[test]
fn a_sleeper_goes_on_when_the_poller_it_was_cloned_from_is_gone() {
    let mut first = Poller::new().unwrap();
    let mut second = first.try_clone().unwrap();
    let registrar = first.get_registrar();
    let notifier = registrar.notifier().unwrap();
    let (tx, rx) = registrar.channel().unwrap();
    let bed = Bed::default();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            bed.lie_down();
            told(&mut second, LONG)
        });
        bed.watch();
        assert_eq!(told(&mut first, 0), []);
        drop(first);
        notifier.notify().unwrap();
        assert_eq!(sleeper.join().unwrap(), [notifier.get_id()]);
    });
    tx.send(1).unwrap();
    assert_eq!(told(&mut second, LONG), [rx.get_id()]);
}

#[test]
fn what_a_poller_was_told_and_left_is_told_to_a_sleeper_when_it_is_gone() {
    for _ in 0..100 {
        let mut first = Poller::new().unwrap();
        let mut second = first.try_clone().unwrap();
        let (tx, rx) = first.get_registrar().channel().unwrap();
        let bed = Bed::default();
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                bed.lie_down();
                told(&mut second, LONG)
            });
            bed.watch();
            tx.send(()).unwrap();
            // Mostly this one is faster than the sleeper, which then sleeps on.
            let batch = told(&mut first, 0);
            assert_eq!(batch, [rx.get_id()]);
            drop(first);
            assert_eq!(sleeper.join().unwrap(), [rx.get_id()]);
        });
    }
}

#[test]
fn parts_of_one_poller_do_not_reach_another() {
    let mut one = Poller::new().unwrap();
    let mut other = Poller::new().unwrap();
    let registrar = one.get_registrar();
    let notifier = registrar.notifier().unwrap();
    let timer = registrar.set_timeout(0).unwrap();
    notifier.notify().unwrap();
    assert_eq!(told(&mut other, 1), []);
    // A timer is cancelled by any registrar: it knows where it belongs.
    other.get_registrar().cancel_timeout(timer).unwrap();
    assert_eq!(told(&mut one, 0), [notifier.get_id()]);
}
