//! Register a descriptor and take it away again, on one thread and on two at once.

use crate::{
    harness::{Contender, Took, Turn, Work},
    kit,
    works::wait::Raw,
};
use rustix::event::epoll::{self, EventData, EventFlags};
use std::{
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Barrier, Mutex},
    thread,
};

pub fn works() -> Vec<Work> {
    [1, 2]
        .map(|threads| {
            let plural = if threads == 1 { "thread" } else { "threads" };
            let mut work =
                Work::new("register", format!("register-{threads}"), format!("{threads} {plural}"));
            work.unit = "register + deregister";
            work.ops = 8_000;
            work.rounds = 61;
            work.counted = (threads == 1).then_some((100, 600));
            work.contenders = vec![
                Contender::new("raw", move || raw(threads)),
                Contender::new("amy", move || amy(threads)),
                Contender::new("amy 0.10", move || amy010(threads)),
                Contender::new("mio", move || mio(threads)),
                Contender::new("polling", move || polling(threads)),
                Contender::new("tokio", move || tokio(threads)),
            ];
            work
        })
        .into()
}

/// Divides the operations among threads, each with a descriptor and a `once` of its own.
fn turn<F: FnMut(&OwnedFd) + Send>(threads: usize, once: impl Fn() -> F + 'static) -> Turn {
    let fds = kit::eventfds(threads);
    Box::new(move |ops| {
        let share = ops / threads as u64;
        let start = Barrier::new(threads);
        let work = |fd: &OwnedFd, mut once: F| {
            start.wait();
            Took::of(|| {
                for _ in 0..share {
                    once(fd);
                }
            })
        };
        let took = thread::scope(|scope| {
            let others: Vec<_> = fds[1..]
                .iter()
                .map(|fd| {
                    let (work, once) = (&work, once());
                    scope.spawn(move || work(fd, once))
                })
                .collect();
            let mut took = vec![work(&fds[0], once())];
            took.extend(others.into_iter().map(|other| other.join().expect("a worker")));
            took
        });
        let wall = took.iter().map(|took| took.wall_ns).fold(0.0, f64::max);
        Took::new(wall, took.iter().map(|took| took.cpu_ns).sum())
    })
}

fn raw(threads: usize) -> Turn {
    let queue = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).expect("a queue"));
    turn(threads, move || {
        let queue = Arc::clone(&queue);
        move |fd: &OwnedFd| {
            let edge = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&*queue, fd, EventData::new_u64(1), edge).expect("a registration");
            epoll::delete(&*queue, fd).expect("its end");
        }
    })
}

fn amy(threads: usize) -> Turn {
    let poller = amy::Poller::new().expect("a poller");
    turn(threads, move || {
        let registrar = poller.get_registrar();
        move |fd: &OwnedFd| {
            registrar.register(fd, amy::Event::Read).expect("a registration");
            registrar.deregister(fd).expect("its end");
        }
    })
}

fn amy010(threads: usize) -> Turn {
    let poller = Mutex::new(amy010::Poller::new().expect("a poller"));
    turn(threads, move || {
        let registrar = poller.lock().expect("a lock").get_registrar();
        move |fd: &OwnedFd| {
            let fd = Raw(fd.as_raw_fd());
            registrar.register(&fd, amy010::Event::Read).expect("a registration");
            registrar.deregister(&fd).expect("its end");
        }
    })
}

fn mio(threads: usize) -> Turn {
    let poll = mio::Poll::new().expect("a poll");
    turn(threads, move || {
        let registry = poll.registry().try_clone().expect("a registry");
        move |fd: &OwnedFd| {
            let fd = fd.as_raw_fd();
            let mut source = mio::unix::SourceFd(&fd);
            registry
                .register(&mut source, mio::Token(1), mio::Interest::READABLE)
                .expect("a registration");
            registry.deregister(&mut source).expect("its end");
        }
    })
}

fn polling(threads: usize) -> Turn {
    let poller = Arc::new(polling::Poller::new().expect("a poller"));
    turn(threads, move || {
        let poller = Arc::clone(&poller);
        move |fd: &OwnedFd| {
            let event = polling::Event::readable(1);
            // SAFETY: it is deleted two lines below, while the descriptor is borrowed.
            unsafe { poller.add_with_mode(fd, event, polling::PollMode::Edge) }
                .expect("a registration");
            poller.delete(fd).expect("its end");
        }
    })
}

fn tokio(threads: usize) -> Turn {
    use tokio::io::{Interest, unix::AsyncFd};

    let runtime = Arc::new(
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime"),
    );
    turn(threads, move || {
        let runtime = Arc::clone(&runtime);
        move |fd: &OwnedFd| {
            let _inside = runtime.enter();
            // SAFETY: the descriptor is borrowed for longer than the registration lives.
            let _registered =
                unsafe { AsyncFd::register_with_interest(fd.as_raw_fd(), Interest::READABLE) }
                    .expect("a registration");
        }
    })
}
