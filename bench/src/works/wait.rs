//! So many descriptors become ready; wait until all of them were told. The harness's own writes,
//! which make them ready, are not timed.

use crate::{
    harness::{Contender, Took, Turn, Work},
    kit,
};
use rustix::event::{
    Timespec,
    epoll::{self, EventData, EventFlags},
};
use std::{
    cell::Cell,
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

/// What a server would say: some seconds, after which it looks around.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn works() -> Vec<Work> {
    [1, 64, 1024]
        .map(|ready| {
            let mut work = Work::new("wait", format!("wait-{ready}"), format!("{ready} ready"));
            work.unit = "event";
            work.per_op = ready as u64;
            work.ops = (4096 / ready as u64).max(10);
            work.rounds = 201;
            work.counted = (ready == 1).then_some((100, 600));
            work.contenders = vec![
                Contender::new("raw", move || raw(ready)),
                Contender::new("amy", move || amy(ready)),
                Contender::new("amy 0.10", move || amy010(ready)),
                Contender::new("mio", move || mio(ready)),
                Contender::new("polling", move || polling(ready)),
                Contender::new("calloop", move || calloop(ready)),
                Contender::new("tokio", move || tokio(ready)),
            ];
            work
        })
        .into()
}

/// `take` waits until so many were told, and returns the sum of their numbers.
fn turn(fds: Rc<Vec<OwnedFd>>, mut take: impl FnMut(usize) -> usize + 'static) -> Turn {
    let sum = fds.len() * (fds.len() - 1) / 2;
    Box::new(move |ops| {
        let mut laps = Vec::with_capacity(ops as usize);
        for _ in 0..ops {
            for fd in fds.iter() {
                kit::make_ready(fd);
            }
            let before = kit::ticks();
            let told = take(fds.len());
            laps.push(kit::ticks() - before);
            assert_eq!(told, sum, "every descriptor is told once");
        }
        let mut took = Took::new(0.0, f64::NAN);
        took.ticks = laps;
        took
    })
}

fn raw(ready: usize) -> Turn {
    let fds = Rc::new(kit::eventfds(ready));
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a queue");
    for (number, fd) in fds.iter().enumerate() {
        let edge = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&queue, fd, EventData::new_u64(number as u64), edge).expect("room");
    }
    let mut events = Vec::with_capacity(1024);
    let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
    turn(fds, move |ready| {
        let (mut told, mut sum) = (0, 0);
        while told < ready {
            events.clear();
            epoll::wait(&queue, rustix::buffer::spare_capacity(&mut events), Some(&patience))
                .expect("a wait");
            for event in &events {
                let data = event.data;
                sum += data.u64() as usize;
                told += 1;
            }
        }
        sum
    })
}

fn amy(ready: usize) -> Turn {
    let fds = Rc::new(kit::eventfds(ready));
    let mut poller = amy::Poller::new().expect("a poller");
    let registrar = poller.get_registrar();
    let ids: Vec<usize> = fds
        .iter()
        .map(|fd| registrar.register(fd, amy::Event::Read).expect("a registration"))
        .collect();
    turn(fds, move |ready| {
        let (mut told, mut sum) = (0, 0);
        while told < ready {
            for n in poller.wait(PATIENCE).expect("a wait") {
                sum += n.id - ids[0];
                told += 1;
            }
        }
        sum
    })
}

/// A descriptor for the predecessor, which asks for the number and not for a borrow.
pub struct Raw(pub std::os::fd::RawFd);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0
    }
}

fn amy010(ready: usize) -> Turn {
    let fds = Rc::new(kit::eventfds(ready));
    let mut poller = amy010::Poller::new().expect("a poller");
    let registrar = poller.get_registrar();
    let ids: Vec<usize> = fds
        .iter()
        .map(|fd| registrar.register(fd, amy010::Event::Read).expect("a registration"))
        .collect();
    turn(fds, move |ready| {
        let (mut told, mut sum) = (0, 0);
        while told < ready {
            for n in poller.wait(PATIENCE.as_millis() as usize).expect("a wait") {
                sum += n.id - ids[0];
                told += 1;
            }
        }
        sum
    })
}

fn mio(ready: usize) -> Turn {
    let fds = Rc::new(kit::eventfds(ready));
    let mut poll = mio::Poll::new().expect("a poll");
    for (number, fd) in fds.iter().enumerate() {
        let mut source = mio::unix::SourceFd(&fd.as_raw_fd());
        let token = mio::Token(number);
        poll.registry().register(&mut source, token, mio::Interest::READABLE).expect("room");
    }
    let mut events = mio::Events::with_capacity(1024);
    turn(fds, move |ready| {
        let (mut told, mut sum) = (0, 0);
        while told < ready {
            poll.poll(&mut events, Some(PATIENCE)).expect("a poll");
            for event in &events {
                sum += event.token().0;
                told += 1;
            }
        }
        sum
    })
}

fn polling(ready: usize) -> Turn {
    let fds = Rc::new(kit::eventfds(ready));
    let poller = polling::Poller::new().expect("a poller");
    for (number, fd) in fds.iter().enumerate() {
        let event = polling::Event::readable(number);
        // SAFETY: the descriptors live as long as the poller: the same closure owns both.
        unsafe { poller.add_with_mode(fd, event, polling::PollMode::Edge) }.expect("room");
    }
    let mut events = polling::Events::with_capacity(1024.try_into().expect("more than none"));
    turn(fds, move |ready| {
        let (mut told, mut sum) = (0, 0);
        while told < ready {
            events.clear();
            poller.wait(&mut events, Some(PATIENCE)).expect("a wait");
            for event in events.iter() {
                sum += event.key;
                told += 1;
            }
        }
        sum
    })
}

fn calloop(ready: usize) -> Turn {
    use calloop::{EventLoop, Interest, Mode, PostAction, generic::Generic};

    let fds = Rc::new(kit::eventfds(ready));
    let mut events = EventLoop::<(usize, usize)>::try_new().expect("a loop");
    for (number, fd) in fds.iter().enumerate() {
        let fd = fd.try_clone().expect("a descriptor");
        events
            .handle()
            .insert_source(Generic::new(fd, Interest::READ, Mode::Edge), move |_, _, seen| {
                seen.0 += 1;
                seen.1 += number;
                Ok(PostAction::Continue)
            })
            .expect("room");
    }
    turn(fds, move |ready| {
        let mut seen = (0, 0);
        while seen.0 < ready {
            events.dispatch(Some(PATIENCE), &mut seen).expect("a dispatch");
        }
        seen.1
    })
}

fn tokio(ready: usize) -> Turn {
    use tokio::io::{Interest, unix::AsyncFd};

    let fds = Rc::new(kit::eventfds(ready));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    let seen = Rc::new(Cell::new((0, 0)));
    let all = Rc::new(tokio::sync::Notify::new());
    for (number, fd) in fds.iter().enumerate() {
        let (seen, all) = (Rc::clone(&seen), Rc::clone(&all));
        let fd = fd.try_clone().expect("a descriptor");
        local.spawn_local(async move {
            // SAFETY: the registration owns the descriptor.
            let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
                .expect("a registration");
            loop {
                fd.readable().await.expect("readiness").clear_ready();
                let (told, sum) = seen.get();
                seen.set((told + 1, sum + number));
                if told + 1 == ready {
                    all.notify_one();
                }
            }
        });
    }
    turn(fds, move |_| {
        local.block_on(&runtime, all.notified());
        seen.replace((0, 0)).1
    })
}

/// One descriptor becomes ready beside others that do not; see the growth section.
pub fn among(registrations: usize) -> Turn {
    let idle = kit::eventfds(registrations - 1);
    let fds = Rc::new(kit::eventfds(1));
    let mut poller = amy::Poller::new().expect("a poller");
    let registrar = poller.get_registrar();
    for fd in &idle {
        registrar.register(fd, amy::Event::Read).expect("a registration");
    }
    let id = registrar.register(&fds[0], amy::Event::Read).expect("a registration");
    turn(fds, move |_| {
        // They stay open for as long as this is used.
        let _ = &idle;
        let notifications = poller.wait(PATIENCE).expect("a wait");
        assert_eq!(notifications.len(), 1);
        notifications[0].id - id
    })
}
