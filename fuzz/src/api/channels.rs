//! Channels, with what is in them.

use super::{Slot, new_id, unless_gone};
use amy::{Notification, Receiver, Registrar, Sender, SyncSender};
use arbitrary::{Arbitrary, Result, Unstructured};
use std::{
    collections::VecDeque,
    sync::mpsc::{SendError, TryRecvError, TrySendError},
};

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A new channel, in the place of the one that is there.
    Open(Slot, Option<u8>),
    Send(Slot),
    /// Receives at most so many.
    Receive(Slot, u8),
    CloneSender(Slot),
    DropSender(Slot),
    DropReceiver(Slot),
}

/// Each choice takes one byte of the fuzzer's, so that it finds its way.
impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Step> {
        Ok(match u.int_in_range(0..=5_u8)? {
            0 => Step::Open(u.arbitrary()?, u.arbitrary()?),
            1 => Step::Send(u.arbitrary()?),
            2 => Step::Receive(u.arbitrary()?, u.arbitrary()?),
            3 => Step::CloneSender(u.arbitrary()?),
            4 => Step::DropSender(u.arbitrary()?),
            _ => Step::DropReceiver(u.arbitrary()?),
        })
    }
}

#[derive(Clone)]
enum Half {
    Free(Sender<u32>),
    Bounded(SyncSender<u32>),
}

struct Channel {
    id: usize,
    bound: Option<usize>,
    senders: Vec<Half>,
    receiver: Option<Receiver<u32>>,
    messages: VecDeque<u32>,
    /// How many messages were made.
    made: u32,
    /// The receiver knows that the last sender is gone.
    end_told: bool,
}

impl Channel {
    fn has_something(&self) -> bool {
        let end = self.senders.is_empty() && !self.end_told;
        self.receiver.is_some() && (end || !self.messages.is_empty())
    }

    fn send(&mut self, gone: bool) {
        let Some(sender) = self.senders.last() else { return };
        self.made += 1;
        let message = self.made;
        let result = match sender {
            Half::Free(sender) => sender
                .send(message)
                .map_err(|SendError(message)| TrySendError::Disconnected(message)),
            Half::Bounded(sender) => sender.try_send(message),
        };
        let expected = if gone || self.receiver.is_none() {
            Err(TrySendError::Disconnected(message))
        } else if self.bound.is_some_and(|bound| self.messages.len() >= bound) {
            Err(TrySendError::Full(message))
        } else {
            self.messages.push_back(message);
            Ok(())
        };
        assert_eq!(result, expected);
    }

    fn receive(&mut self) {
        let Some(receiver) = &self.receiver else { return };
        let expected = match self.messages.pop_front() {
            Some(message) => Ok(message),
            None if self.senders.is_empty() => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        };
        assert_eq!(receiver.try_recv(), expected);
        assert_eq!(receiver.len(), self.messages.len());
        self.end_told |= expected == Err(TryRecvError::Disconnected);
    }
}

#[derive(Default)]
pub(super) struct Channels {
    slots: [Option<Channel>; 2],
}

impl Channels {
    pub(super) fn step(&mut self, step: Step, registrar: &Registrar, gone: bool) {
        let slot = match step {
            Step::Open(slot, bound) => return self.open(slot, bound, registrar, gone),
            Step::Send(slot)
            | Step::Receive(slot, _)
            | Step::CloneSender(slot)
            | Step::DropSender(slot)
            | Step::DropReceiver(slot) => slot,
        };
        let Some(channel) = &mut self.slots[slot.index()] else { return };
        match step {
            Step::Open(..) => {}
            Step::Send(_) => channel.send(gone),
            Step::Receive(_, most) => {
                for _ in 0..most % 4 + 1 {
                    channel.receive();
                }
            }
            Step::CloneSender(_) => channel.senders.extend(channel.senders.last().cloned()),
            Step::DropSender(_) => drop(channel.senders.pop()),
            Step::DropReceiver(_) => {
                channel.receiver = None;
                channel.messages.clear();
            }
        }
    }

    pub(super) fn drop_senders(&mut self, slot: Slot) {
        if let Some(channel) = &mut self.slots[slot.index()] {
            channel.senders.clear();
        }
    }

    /// Whether there was something to receive.
    pub(super) fn receive_one(&mut self, slot: Slot) -> bool {
        let channel = self.slots[slot.index()].as_mut().filter(|channel| channel.has_something());
        channel.map(Channel::receive).is_some()
    }

    fn open(&mut self, slot: Slot, bound: Option<u8>, registrar: &Registrar, gone: bool) {
        let bound = bound.map(|bound| usize::from(bound % 4));
        let result = match bound {
            None => registrar.channel().map(|(tx, rx)| (Half::Free(tx), rx)),
            Some(bound) => registrar.sync_channel(bound).map(|(tx, rx)| (Half::Bounded(tx), rx)),
        };
        if let Some((sender, receiver)) = unless_gone(result, gone) {
            self.slots[slot.index()] = Some(Channel {
                id: new_id(receiver.get_id()),
                bound,
                senders: vec![sender],
                receiver: Some(receiver),
                messages: VecDeque::new(),
                made: 0,
                end_told: false,
            });
        }
    }

    pub(super) fn must_tell(&self) -> impl Iterator<Item = usize> {
        let channels = self.slots.iter().flatten().filter(|channel| channel.has_something());
        channels.map(|channel| channel.id)
    }

    /// Whether the notification is of a channel, and then there must be something in it.
    pub(super) fn told(&self, n: Notification) -> bool {
        let channel = self.slots.iter().flatten().find(|channel| channel.id == n.id);
        if let Some(channel) = channel {
            assert!(channel.has_something(), "{n:?}, and nothing is to be received");
        }
        channel.is_some()
    }
}
