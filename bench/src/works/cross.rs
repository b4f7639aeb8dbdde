//! A thread waits; another registers a descriptor that is ready, and spins until the first has seen
//! its event.

use crate::{
    harness::{Contender, Took, Turn, Work},
    kit,
    works::wait::Raw,
};
use rustix::event::epoll::{self, EventData, EventFlags};
use std::{
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

pub fn works() -> Vec<Work> {
    let mut work = Work::new("cross", "cross", "from another thread");
    work.unit = "registration";
    work.ops = 300;
    work.rounds = 61;
    work.counted = Some((50, 250));
    work.contenders = vec![
        Contender::new("raw", || turn(raw)),
        Contender::new("amy", || turn(amy)),
        Contender::new("amy 0.10", || turn(amy010)),
        Contender::new("mio", || turn(mio)),
        Contender::new("polling", || turn(polling)),
        Contender::new("calloop", || turn(calloop)),
        Contender::new("tokio", || turn(tokio)),
    ];
    vec![work]
}

/// Waits for one event.
type Waits = Box<dyn FnMut()>;
/// Registers a descriptor, and takes it away once its event was seen.
type Registers = (Box<dyn FnMut(&OwnedFd) + Send>, Box<dyn FnMut(&OwnedFd) + Send>);

fn turn(set_up: fn() -> (Waits, Registers)) -> Turn {
    let (mut wait, (mut register, mut deregister)) = set_up();
    let fd = kit::eventfds(1).remove(0);
    kit::make_ready(&fd);
    Box::new(move |ops| {
        let seen = AtomicU64::new(0);
        let mut took = None;
        thread::scope(|scope| {
            let (seen, fd, took) = (&seen, &fd, &mut took);
            let (register, deregister) = (&mut register, &mut deregister);
            let other = scope.spawn(move || {
                let mut each = Vec::with_capacity(ops as usize);
                let before = Instant::now();
                for number in 1..=ops {
                    // Long enough for the waiter to be back in the kernel.
                    let pause = Instant::now();
                    while kit::since(pause) < 5_000.0 {
                        std::hint::spin_loop();
                    }
                    let start = Instant::now();
                    register(fd);
                    let mut spins = 0;
                    while seen.load(Ordering::Acquire) < number {
                        spins += 1;
                        if spins % 1000 == 0 {
                            thread::yield_now();
                        }
                        std::hint::spin_loop();
                    }
                    each.push(kit::since(start) as u64);
                    deregister(fd);
                }
                *took = Some((kit::since(before), each));
            });
            for number in 1..=ops {
                wait();
                seen.store(number, Ordering::Release);
            }
            other.join().expect("the other thread");
        });
        let (wall, each) = took.expect("a result");
        // No processor time: most of it is spinning.
        let mut took = Took::new(wall, f64::NAN);
        took.each = each;
        took
    })
}

fn raw() -> (Waits, Registers) {
    let queue = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).expect("a queue"));
    let (theirs, again) = (Arc::clone(&queue), Arc::clone(&queue));
    let mut events = Vec::with_capacity(1024);
    let wait = move || {
        events.clear();
        epoll::wait(&*queue, rustix::buffer::spare_capacity(&mut events), None).expect("a wait");
        assert_eq!(events.len(), 1);
    };
    let register = move |fd: &OwnedFd| {
        let edge = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&*theirs, fd, EventData::new_u64(1), edge).expect("a registration");
    };
    let deregister = move |fd: &OwnedFd| epoll::delete(&*again, fd).expect("its end");
    (Box::new(wait), (Box::new(register), Box::new(deregister)))
}

fn amy() -> (Waits, Registers) {
    let mut poller = amy::Poller::new().expect("a poller");
    let (registrar, again) = (poller.get_registrar(), poller.get_registrar());
    let wait = move || assert_eq!(poller.wait(None).expect("a wait").len(), 1);
    let register = move |fd: &OwnedFd| {
        registrar.register(fd, amy::Event::Read).expect("a registration");
    };
    let deregister = move |fd: &OwnedFd| again.deregister(fd).expect("its end");
    (Box::new(wait), (Box::new(register), Box::new(deregister)))
}

fn amy010() -> (Waits, Registers) {
    let mut poller = amy010::Poller::new().expect("a poller");
    let (registrar, again) = (poller.get_registrar(), poller.get_registrar());
    let wait = move || assert_eq!(poller.wait(1_000_000).expect("a wait").len(), 1);
    let register = move |fd: &OwnedFd| {
        registrar.register(&Raw(fd.as_raw_fd()), amy010::Event::Read).expect("a registration");
    };
    let deregister = move |fd: &OwnedFd| again.deregister(&Raw(fd.as_raw_fd())).expect("its end");
    (Box::new(wait), (Box::new(register), Box::new(deregister)))
}

fn mio() -> (Waits, Registers) {
    let mut poll = mio::Poll::new().expect("a poll");
    let registry = poll.registry().try_clone().expect("a registry");
    let again = poll.registry().try_clone().expect("a registry");
    let mut events = mio::Events::with_capacity(1024);
    let wait = move || {
        poll.poll(&mut events, None).expect("a poll");
        assert_eq!(events.iter().count(), 1);
    };
    let register = move |fd: &OwnedFd| {
        let fd = fd.as_raw_fd();
        let mut source = mio::unix::SourceFd(&fd);
        registry
            .register(&mut source, mio::Token(1), mio::Interest::READABLE)
            .expect("a registration");
    };
    let deregister = move |fd: &OwnedFd| {
        again.deregister(&mut mio::unix::SourceFd(&fd.as_raw_fd())).expect("its end");
    };
    (Box::new(wait), (Box::new(register), Box::new(deregister)))
}

fn polling() -> (Waits, Registers) {
    let poller = Arc::new(polling::Poller::new().expect("a poller"));
    let (theirs, again) = (Arc::clone(&poller), Arc::clone(&poller));
    let mut events = polling::Events::with_capacity(1024.try_into().expect("more than none"));
    let wait = move || {
        events.clear();
        poller.wait(&mut events, None).expect("a wait");
        assert_eq!(events.len(), 1);
    };
    let register = move |fd: &OwnedFd| {
        let event = polling::Event::readable(1);
        // SAFETY: it is deleted before the descriptor is closed, by the other half.
        unsafe { theirs.add_with_mode(fd, event, polling::PollMode::Edge) }
            .expect("a registration");
    };
    let deregister = move |fd: &OwnedFd| again.delete(fd).expect("its end");
    (Box::new(wait), (Box::new(register), Box::new(deregister)))
}

fn calloop() -> (Waits, Registers) {
    use calloop::{EventLoop, Interest, Mode, PostAction, channel, generic::Generic};

    // Its sources belong to the loop's thread, so a descriptor is sent there.
    let (sender, receiver) = channel::channel::<OwnedFd>();
    let mut events = EventLoop::<u64>::try_new().expect("a loop");
    let handle = events.handle();
    events
        .handle()
        .insert_source(receiver, move |event, _, _| {
            let channel::Event::Msg(fd) = event else { return };
            let source = Generic::new(fd, Interest::READ, Mode::Edge);
            handle
                .insert_source(source, |_, _, seen| {
                    *seen += 1;
                    Ok(PostAction::Remove)
                })
                .expect("room");
        })
        .expect("room");
    let wait = move || {
        let mut seen = 0;
        while seen == 0 {
            events.dispatch(None, &mut seen).expect("a dispatch");
        }
    };
    let register =
        move |fd: &OwnedFd| sender.send(fd.try_clone().expect("a descriptor")).expect("a loop");
    (Box::new(wait), (Box::new(register), Box::new(|_: &OwnedFd| ())))
}

fn tokio() -> (Waits, Registers) {
    use tokio::io::{Interest, unix::AsyncFd};

    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handle = runtime.handle().clone();
    let told = Arc::new(tokio::sync::Notify::new());
    let tell = Arc::clone(&told);
    let wait = move || runtime.block_on(told.notified());
    let task = Arc::new(Mutex::new(None));
    let theirs = Arc::clone(&task);
    let register = move |fd: &OwnedFd| {
        let (fd, tell) = (fd.as_raw_fd(), Arc::clone(&tell));
        let spawned = handle.spawn(async move {
            // SAFETY: the descriptor outlives the registration: it is closed after the last turn.
            let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
                .expect("a registration");
            fd.readable().await.expect("readiness").retain_ready();
            tell.notify_one();
        });
        *theirs.lock().expect("a lock") = Some(spawned);
    };
    let deregister = move |_: &OwnedFd| {
        // The task drops its registration on its own thread; the next must not come before.
        let spawned = task.lock().expect("a lock").take().expect("a task");
        while !spawned.is_finished() {
            std::hint::spin_loop();
        }
    };
    (Box::new(wait), (Box::new(register), Box::new(deregister)))
}
