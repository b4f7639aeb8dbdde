//! A sender that stalls half-way holds up nobody else.

use crate::fault::{MAKING, scenario};
use amy::Poller;
use rustix::thread::{Pid, gettid};
use std::{
    fs,
    os::fd::AsFd,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

#[test]
fn a_sender_stalled_in_its_wake_holds_up_nobody() {
    scenario(|faults| {
        let mut poller = faults.call(MAKING, Poller::new);
        let registrar = poller.get_registrar();
        let (tx, rx) = registrar.channel().unwrap();

        // The first write of each thread stalls. This thread makes its own here, where nobody minds;
        // a poller whose descriptor was asked for is always woken. Not the one above: as it would
        // have to wake the loop outside, the waiter would write, too, and stall.
        let mut spare = faults.call(MAKING, Poller::new);
        let _ = spare.as_fd();
        let notifier = spare.get_registrar().notifier().unwrap();
        faults.notify(&notifier);
        faults.expect(&mut spare, &[notifier.get_id()]);

        let sent = AtomicBool::new(false);
        let (received, heard) = mpsc::channel();
        let (asleep, waiter) = mpsc::channel();
        let (stalls, sender) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                asleep.send(gettid()).unwrap();
                for _ in 0..2 {
                    while rx.is_empty() {
                        assert_eq!(faults.next(&mut poller)[0].id, rx.get_id());
                    }
                    received.send(rx.try_recv().unwrap()).unwrap();
                }
            });
            let waiter = waiter.recv().unwrap();
            while !is_in_a_call_on(waiter, "anon_inode:[eventpoll]") {
                thread::yield_now();
            }

            let (stalled, sent) = (tx.clone(), &sent);
            scope.spawn(move || {
                stalls.send(gettid()).unwrap();
                stalled.send("stalled").unwrap();
                sent.store(true, Ordering::SeqCst);
            });
            let sender = sender.recv().unwrap();
            while !is_in_a_call_on(sender, "anon_inode:[eventfd]") && !sent.load(Ordering::SeqCst) {
                thread::yield_now();
            }

            tx.send("prompt").unwrap();
            assert_eq!(heard.recv().unwrap(), "stalled");
            assert_eq!(heard.recv().unwrap(), "prompt");
            if faults.stall_wakes() {
                assert!(!sent.load(Ordering::SeqCst), "told when the stalled sender had done it");
            }
        });
    });
}

/// Whether a thread of this process is inside a system call whose first argument is a descriptor
/// for `what` (proc(5), `/proc/PID/syscall`).
fn is_in_a_call_on(thread: Pid, what: &str) -> bool {
    let path = format!("/proc/self/task/{}/syscall", thread.as_raw_nonzero());
    // Where that cannot be told, nobody waits for it.
    let Ok(call) = fs::read_to_string(path) else { return true };
    let first = call.split_whitespace().nth(1).and_then(|arg| arg.strip_prefix("0x"));
    let Some(number) = first.and_then(|hex| u64::from_str_radix(hex, 16).ok()) else {
        return false;
    };
    fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|link| link.as_os_str() == what)
}
