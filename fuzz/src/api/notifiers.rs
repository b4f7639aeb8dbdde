//! Notifiers, of which each notification is told once, also when the notifier is gone.

use super::{Slot, new_id, unless_gone};
use amy::{Event, Notification, Notifier, Registrar};
use arbitrary::{Arbitrary, Result, Unstructured};

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A new notifier, in the place of the one that is there.
    Open(Slot),
    Notify(Slot),
    Drop(Slot),
}

/// Each choice takes one byte of the fuzzer's, so that it finds its way.
impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Step> {
        Ok(match u.int_in_range(0..=2_u8)? {
            0 => Step::Open(u.arbitrary()?),
            1 => Step::Notify(u.arbitrary()?),
            _ => Step::Drop(u.arbitrary()?),
        })
    }
}

#[derive(Default)]
pub(super) struct Notifiers {
    slots: [Option<Notifier>; 2],
    /// The ids that are to be told.
    pending: Vec<usize>,
}

impl Notifiers {
    pub(super) fn step(&mut self, step: Step, registrar: &Registrar, gone: bool) {
        match step {
            Step::Open(slot) => {
                if let Some(notifier) = unless_gone(registrar.notifier(), gone) {
                    new_id(notifier.get_id());
                    self.slots[slot.index()] = Some(notifier);
                }
            }
            Step::Notify(slot) => {
                let Some(notifier) = &self.slots[slot.index()] else { return };
                let told = unless_gone(notifier.notify(), gone).is_some();
                if told && !self.pending.contains(&notifier.get_id()) {
                    self.pending.push(notifier.get_id());
                }
            }
            Step::Drop(slot) => self.slots[slot.index()] = None,
        }
    }

    pub(super) fn must_tell(&self) -> impl Iterator<Item = usize> {
        self.pending.iter().copied()
    }

    /// Whether the notification is of a notifier that notified.
    pub(super) fn told(&mut self, n: Notification) -> bool {
        let place = self.pending.iter().position(|&id| id == n.id);
        if let Some(place) = place {
            assert_eq!(n.event, Event::Read);
            self.pending.remove(place);
        }
        place.is_some()
    }
}
