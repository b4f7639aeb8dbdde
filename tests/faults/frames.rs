//! Frames are the same when they come out as when they went in, however often a call is cut short.

use crate::fault::{Faults, MAKING, REGISTERING, scenario};
use amy::{Event, FrameReader, FrameWriter, Poller};
use std::{
    net::{TcpListener, TcpStream},
    thread,
};

const SIZES: [usize; 9] = [0, 1, 10, 1000, 0, 70_000, 3, 300_000, 5];

#[test]
fn frames_cross_a_socket_whole_and_in_order() {
    scenario(|faults| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut peers = Vec::new();
        let (here, there) = (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0);
        for socket in [here, there] {
            socket.set_nonblocking(true).unwrap();
            let poller = faults.call(MAKING, Poller::new);
            faults.call(REGISTERING, || poller.get_registrar().register(&socket, Event::Both));
            peers.push((socket, poller));
        }
        thread::scope(|scope| {
            let threads = peers
                .iter_mut()
                .map(|(socket, poller)| scope.spawn(|| exchange(faults, socket, poller)));
            threads.collect::<Vec<_>>().into_iter().for_each(|t| t.join().unwrap());
        });
    });
}

/// Sends all frames while receiving as many.
fn exchange(faults: &Faults, socket: &mut TcpStream, poller: &mut Poller) {
    let mut reader = FrameReader::new(1 << 20);
    let mut writer = FrameWriter::new();
    for (number, size) in SIZES.iter().enumerate() {
        writer.write(socket, frame(number, *size)).unwrap();
    }
    let mut received = 0;
    while received < SIZES.len() || !writer.is_empty() {
        for n in faults.next(poller) {
            if n.event.writable() {
                writer.write(socket, None).unwrap();
            }
            while n.event.readable() && reader.read(socket).unwrap() > 0 {
                for message in reader.iter_mut() {
                    assert_eq!(message[..], frame(received, SIZES[received]));
                    received += 1;
                }
            }
        }
    }
}

fn frame(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|i| u8::try_from((i * 7 + number) % 251).unwrap()).collect()
}
