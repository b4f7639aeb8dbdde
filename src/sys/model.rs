//! A kernel for the model checker, as unhelpful as the contract allows.
//!
//! A wake is one edge: it goes to the first `wait` that asks, whoever sleeps, and more wakes before
//! that are the same edge. The alarm is another. A descriptor that is added or modified is ready,
//! once. A `wait` that has nothing may be interrupted, or return for no reason.

use super::Inner;
use crate::{
    notification::{Interest, Notification},
    sync::{
        Condvar, Mutex, lock,
        model::{Instant, pass},
        wait,
    },
};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

#[derive(Debug)]
pub(crate) struct Queue {
    kernel: Mutex<Kernel>,
    /// Signalled when something happened. Who was woken for it need not be who gets it.
    happened: Condvar,
    /// For those who want a descriptor; nobody uses it.
    descriptor: io::Stdin,
}

#[derive(Debug, Default)]
struct Kernel {
    woken: bool,
    alarm: Option<Instant>,
    /// How many alarms it will not take, for lack of memory.
    refuses_alarms: usize,
    ready: VecDeque<Notification>,
    disturbance: Option<Disturbance>,
    asleep: usize,
}

/// What ends a `wait` that has nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Disturbance {
    Signal,
    Nothing,
}

impl Queue {
    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn new() -> io::Result<Queue> {
        Ok(Queue {
            kernel: Mutex::new(Kernel::default()),
            happened: Condvar::new(),
            descriptor: io::stdin(),
        })
    }

    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn add(&self, _: BorrowedFd<'_>, id: usize, interest: Interest) -> io::Result<()> {
        self.change(|kernel| {
            kernel.ready.push_back(Notification::new(id, interest.event()));
        });
        Ok(())
    }

    pub(crate) fn modify(
        &self,
        fd: BorrowedFd<'_>,
        id: usize,
        interest: Interest,
    ) -> io::Result<()> {
        self.remove(fd)?;
        self.add(fd, id, interest)
    }

    /// The one descriptor there is.
    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn remove(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        lock(&self.kernel).ready.clear();
        Ok(())
    }

    pub(crate) fn wait(
        &self,
        room: usize,
        timeout: Option<Duration>,
        out: &mut Vec<Notification>,
    ) -> io::Result<Inner> {
        assert!(room > 0, "a wait has room for something");
        let looks = timeout == Some(Duration::ZERO);
        let end = timeout.map(|timeout| Instant::now().saturating_add(timeout));
        let mut kernel = lock(&self.kernel);
        loop {
            let (inner, told) = kernel.take(room, out);
            if told > 0 {
                if kernel.has_something() {
                    self.happened.notify_one();
                }
                return Ok(inner);
            }
            if looks {
                return Ok(inner);
            }
            match kernel.disturbance.take() {
                Some(Disturbance::Signal) => return Err(io::ErrorKind::Interrupted.into()),
                Some(Disturbance::Nothing) => return Ok(inner),
                None => {}
            }
            if end.is_some_and(is_past) {
                return Ok(inner);
            }
            kernel.asleep += 1;
            kernel = wait(&self.happened, kernel);
            kernel.asleep -= 1;
        }
    }

    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn wake(&self) -> io::Result<()> {
        self.change(|kernel| kernel.woken = true);
        Ok(())
    }

    pub(crate) fn set_alarm(&self, after: Duration) -> io::Result<()> {
        let mut kernel = lock(&self.kernel);
        if kernel.refuses_alarms > 0 {
            kernel.refuses_alarms -= 1;
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        kernel.alarm = Some(Instant::now().saturating_add(after));
        if kernel.has_something() {
            self.happened.notify_one();
        }
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Kernel)) {
        let mut kernel = lock(&self.kernel);
        change(&mut kernel);
        self.happened.notify_one();
    }
}

/// What the models do to the kernel, and see of it.
impl Queue {
    /// Lets time pass, with everybody who waits for it.
    pub(crate) fn pass(&self, until: Instant) {
        self.change(|_| pass(until));
    }

    pub(crate) fn disturb(&self, how: Disturbance) {
        self.change(|kernel| kernel.disturbance = Some(how));
    }

    pub(crate) fn refuse_alarms(&self, count: usize) {
        lock(&self.kernel).refuses_alarms = count;
    }

    /// Returns when the descriptor would be readable, without taking anything: another loop.
    pub(crate) fn await_readable(&self) {
        let mut kernel = lock(&self.kernel);
        while !kernel.has_something() {
            kernel = wait(&self.happened, kernel);
        }
    }

    /// Whether the one waiter is not asleep, or is about to be woken.
    pub(crate) fn someone_comes(&self) -> bool {
        let kernel = lock(&self.kernel);
        kernel.asleep == 0 || kernel.has_something()
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Kernel {
    /// Takes at most `room` of what happened, and says how much.
    fn take(&mut self, room: usize, out: &mut Vec<Notification>) -> (Inner, usize) {
        let mut inner = Inner::default();
        let mut told = 0;
        if self.woken {
            self.woken = false;
            inner.woken = true;
            told += 1;
        }
        if told < room && self.alarm.is_some_and(is_past) {
            self.alarm = None;
            inner.alarm = true;
            told += 1;
        }
        while told < room {
            let Some(n) = self.ready.pop_front() else { break };
            out.push(n);
            told += 1;
        }
        (inner, told)
    }

    fn has_something(&self) -> bool {
        self.woken || self.alarm.is_some_and(is_past) || !self.ready.is_empty()
    }
}

fn is_past(time: Instant) -> bool {
    time <= Instant::now()
}
