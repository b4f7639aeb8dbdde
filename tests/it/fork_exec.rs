//! Promise 12, descriptors: every one is closed when a program is executed, and when its last owner
//! is gone; a registrar without a poller says so.

use crate::common::{alone, descriptors, new_poller, unix_pair};
use amy::{Event, Poller};
use std::{io::ErrorKind, os::fd::AsFd, process::Command};

/// A poller with one of everything, which has been used.
fn busy_poller() -> (Poller, Box<dyn std::any::Any>) {
    let (mut poller, registrar) = new_poller();
    let timers = [registrar.set_timeout(0).unwrap(), registrar.set_interval(1).unwrap()];
    let channel = registrar.channel::<u8>().unwrap();
    channel.0.send(1).unwrap();
    let bounded = registrar.sync_channel::<u8>(1).unwrap();
    let notifier = registrar.notifier().unwrap();
    notifier.notify().unwrap();
    let clone = poller.try_clone().unwrap();
    let _ = clone.as_fd();
    assert!(!poller.wait(5).unwrap().is_empty());
    (poller, Box::new((timers, channel, bounded, notifier, clone, registrar)))
}

#[test]
fn a_program_that_is_executed_inherits_nothing() {
    alone(|| {
        let list = || {
            let output = Command::new("sh").args(["-c", "ls /dev/fd/"]).output().unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap()
        };
        let before = (list(), descriptors().len());
        let _busy = busy_poller();
        assert!(descriptors().len() > before.1, "there is something to inherit");
        assert_eq!(list(), before.0);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn every_descriptor_is_marked_to_be_closed_when_a_program_is_executed() {
    const CLOSE_ON_EXEC: u32 = rustix::fs::OFlags::CLOEXEC.bits();
    alone(|| {
        let before = descriptors();
        let (poller, _rest) = busy_poller();
        let flags = rustix::io::fcntl_getfd(&poller).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));

        let mut ours = descriptors();
        ours.retain(|number| !before.contains(number));
        assert!(!ours.is_empty());
        for number in ours {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
            assert_ne!(flags & CLOSE_ON_EXEC, 0, "descriptor {number}");
        }
    });
}

#[test]
fn pollers_that_come_and_go_leave_no_descriptor_behind() {
    alone(|| {
        let before = descriptors();
        for _ in 0..100 {
            drop(busy_poller());
        }
        assert_eq!(descriptors(), before);
        let pollers: Vec<_> = (0..20).map(|_| busy_poller()).collect();
        for (poller, rest) in pollers {
            // In the other order, so that something else is the last owner.
            drop(poller);
            drop(rest);
        }
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn only_the_poller_takes_descriptors() {
    alone(|| {
        let poller = Poller::new().unwrap();
        let registrar = poller.get_registrar();
        let before = descriptors();
        let _timers: Vec<_> = (0..100).map(|n| registrar.set_timeout(n).unwrap()).collect();
        let _channels: Vec<_> = (0..100).map(|_| registrar.channel::<u8>().unwrap()).collect();
        let _notifiers: Vec<_> = (0..100).map(|_| registrar.notifier().unwrap()).collect();
        let _clones: Vec<_> = (0..10).map(|_| poller.try_clone().unwrap()).collect();
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn a_registrar_whose_poller_is_gone_says_so() {
    let (poller, registrar) = new_poller();
    let clone = poller.try_clone().unwrap();
    let (registered, _peer) = unix_pair();
    let (socket, _other_peer) = unix_pair();
    let id = registrar.register(&registered, Event::Read).unwrap();
    drop(poller);
    let mut sink = registrar.register(&socket, Event::Read).map(drop);
    assert!(sink.is_ok(), "there is still the clone");
    drop(clone);

    let mut say = |result: std::io::Result<()>| {
        sink = result;
        assert_eq!(sink.as_ref().unwrap_err().kind(), ErrorKind::BrokenPipe);
    };
    let (fresh, _fresh_peer) = unix_pair();
    say(registrar.register(&fresh, Event::Read).map(drop));
    say(registrar.reregister(id, &registered, Event::Write));
    say(registrar.deregister(&registered));
    say(registrar.set_timeout(1).map(drop));
    say(registrar.set_interval(1).map(drop));
    say(registrar.channel::<()>().map(drop));
    say(registrar.sync_channel::<()>(1).map(drop));
    say(registrar.notifier().map(drop));
}
