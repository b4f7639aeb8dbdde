//! A few spare buffers per thread, so that those who are idle need none of their own.
//!
//! Before another reader has what one gave back, it is zeroed as far as a source could have written
//! to it: a source that claims bytes which it did not write is never shown what another connection
//! sent. A reader that gets its own buffer back finds it as it was.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

/// How much a reader that has nothing in hand has room for: 64 KiB, and a little more so that a
/// frame of 64 KiB arrives in one piece with its header.
pub(super) const CHUNK: usize = 65 * 1024;

/// A spare larger than this is freed. A frame of 1 MiB still finds its place again.
const SPARE_MAX: usize = 1024 * 1024 + CHUNK;

/// The lengths of small buffers are powers of two from this one on.
const SMALLEST: usize = 64;
const SIZES: usize = 10;

thread_local! {
    /// To read into: at least `CHUNK` long.
    static LARGE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// Whose bytes are in it, and how far; the rest is zero.
    static TOUCHED: Cell<(Owner, usize)> = const { Cell::new((Owner::NOBODY, 0)) };
    /// One of the readers that were given a large one keeps it.
    static KEPT: Cell<bool> = const { Cell::new(false) };
    /// To keep a little in: one of each size, all zero.
    static SMALL: [Cell<Vec<u8>>; SIZES] = const { [const { Cell::new(Vec::new()) }; SIZES] };
    /// To write from: what is in it was sent before.
    static OUTGOING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Tells a reader from any other, so that it may have back what it received itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(usize);

impl Owner {
    /// Nobody, not even nobody again.
    pub(super) const NOBODY: Owner = Owner(0);

    /// Somebody who is nobody else.
    pub(super) fn new() -> Owner {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        // When all are used, which a 32-bit system may come to, the rest are nobody.
        let next = |last: usize| last.checked_add(1);
        let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        last.map_or(Owner::NOBODY, |last| Owner(last + 1))
    }

    fn is(self, other: Owner) -> bool {
        self == other && self != Owner::NOBODY
    }
}

/// Puts a buffer of `CHUNK` bytes or more in the place of an empty one. Returns how many of its
/// first bytes are not zero, but what `owner` received earlier.
pub(super) fn take_large(buf: &mut Vec<u8>, owner: Owner) -> usize {
    let _ = LARGE.try_with(|slot| slot.swap(Cell::from_mut(buf)));
    if buf.is_empty() {
        *buf = vec![0; CHUNK];
        return 0;
    }
    let (toucher, touched) = TOUCHED.get();
    if toucher.is(owner) {
        return touched;
    }
    buf[..touched].fill(0);
    0
}

/// Whether a buffer of this length is one to read into that a thread keeps.
#[inline]
pub(super) fn is_large(length: usize) -> bool {
    (CHUNK..=SPARE_MAX).contains(&length)
}

/// Whether a reader may keep a large buffer that is not needed, until `end_keep`.
///
/// One of each thread may. If readers change threads between both calls, no further one may on the
/// thread that they left, and never are more kept than threads were asked.
pub(super) fn keep() -> bool {
    !KEPT.replace(true)
}

/// No reader of this thread keeps a large buffer any more.
pub(super) fn end_keep() {
    KEPT.set(false);
}

/// A buffer of zeros that has room for `needed` bytes, and for less than twice as many (or 64).
pub(super) fn take_small(needed: usize) -> Vec<u8> {
    let length = needed.next_power_of_two().max(SMALLEST);
    let spare = SMALL.try_with(|slots| slots.get(slot_of(length)).map(Cell::take));
    let spare = spare.ok().flatten().unwrap_or_default();
    if spare.is_empty() { vec![0; length] } else { spare }
}

/// Where small buffers of this length are kept, or no slot at all.
fn slot_of(length: usize) -> usize {
    (length / SMALLEST).ilog2() as usize
}

/// Takes the buffer of `owner` back, of which a source may have written to the first `touched`
/// bytes, and leaves an empty one.
pub(super) fn give(buf: &mut Vec<u8>, touched: usize, owner: Owner) {
    let length = buf.len();
    // `try_with` fails when the thread ends: then the buffer is freed.
    if is_large(length) {
        let _ = LARGE.try_with(|slot| {
            slot.swap(Cell::from_mut(buf));
            if buf.len() >= length {
                slot.swap(Cell::from_mut(buf));
            } else {
                TOUCHED.set((owner, touched));
            }
        });
    } else if length >= SMALLEST && length.is_power_of_two() {
        let _ = SMALL.try_with(|slots| {
            let Some(slot) = slots.get(slot_of(length)) else { return };
            buf[..touched].fill(0);
            slot.swap(Cell::from_mut(buf));
        });
    }
    *buf = Vec::new();
}

/// Puts a spare buffer, if there is one, in the place of `buf`, which is empty.
#[inline]
pub(super) fn take_outgoing(buf: &mut Vec<u8>) {
    let _ = OUTGOING.try_with(|slot| slot.swap(Cell::from_mut(buf)));
}

/// Takes a writer's buffer, and leaves an empty one. It need not be zeroed: no sink is shown more
/// than what its writer copied there.
#[inline]
pub(super) fn give_outgoing(buf: &mut Vec<u8>) {
    let capacity = buf.capacity();
    if capacity <= SPARE_MAX {
        let _ = OUTGOING.try_with(|slot| {
            slot.swap(Cell::from_mut(buf));
            if buf.capacity() > capacity {
                slot.swap(Cell::from_mut(buf));
            }
        });
    }
    *buf = Vec::new();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing() -> Vec<u8> {
        let mut buf = Vec::new();
        take_outgoing(&mut buf);
        buf
    }

    fn large(owner: Owner) -> (Vec<u8>, usize) {
        let mut buf = Vec::new();
        let touched = take_large(&mut buf, owner);
        (buf, touched)
    }

    #[test]
    fn what_one_touched_is_zero_when_another_takes_it() {
        for length in [64, 1024, 32 * 1024, CHUNK, CHUNK + 1, SPARE_MAX] {
            for owner in [Owner::new(), Owner::NOBODY] {
                let mut buf = vec![0; length];
                buf[..50].fill(7);
                give(&mut buf, 50, owner);
                assert_eq!(buf.capacity(), 0);
                let next = if owner == Owner::NOBODY { owner } else { Owner::new() };
                let again = if length < CHUNK { take_small(length) } else { large(next).0 };
                assert_eq!(again, vec![0; length]);
            }
        }
    }

    #[test]
    fn a_reader_finds_its_own_buffer_as_it_was() {
        let (owner, other) = (Owner::new(), Owner::new());
        let mut buf = vec![0; CHUNK];
        buf[..50].fill(7);
        give(&mut buf, 60, owner);
        let (mut again, touched) = large(owner);
        assert_eq!((&again[..51], touched), ([[7; 50].as_slice(), &[0]].concat().as_slice(), 60));
        give(&mut again, touched, owner);
        assert_eq!(large(other), (vec![0; CHUNK], 0));
    }

    #[test]
    fn whose_bytes_they_are_is_known_also_when_another_buffer_is_freed() {
        let (owner, other) = (Owner::new(), Owner::new());
        for (kept, freed) in [(2 * CHUNK, CHUNK), (CHUNK, CHUNK)] {
            give(&mut vec![7; kept], kept, owner);
            give(&mut vec![8; freed], freed, other);
            assert_eq!(large(owner), (vec![7; kept], kept));
        }
    }

    #[test]
    fn one_of_each_thread_keeps_a_buffer() {
        assert!(keep());
        assert!(!keep());
        assert!(std::thread::spawn(keep).join().unwrap());
        end_keep();
        assert!(keep());
        end_keep();
    }

    #[test]
    fn a_small_buffer_has_room_and_little_more() {
        for needed in [0, 1, 64, 65, 1000, 1024, 1025, 16 * 1024, 40_000, 100_000] {
            for _ in 0..2 {
                let mut buf = take_small(needed);
                assert!(buf.len() >= needed && buf.len() < (2 * needed).max(65));
                assert!(buf.iter().all(|byte| *byte == 0));
                give(&mut buf, needed, Owner::NOBODY);
            }
        }
    }

    #[test]
    fn what_is_too_large_or_of_an_odd_size_is_freed() {
        for length in [0, 1, 63, 100, 40_000, SPARE_MAX + 1] {
            give(&mut vec![0; length], length, Owner::NOBODY);
        }
        assert_eq!(large(Owner::NOBODY).0.len(), CHUNK);
        assert_eq!(
            SMALL.with(|slots| slots.iter().map(|slot| slot.take().len()).sum::<usize>()),
            0
        );
        give_outgoing(&mut vec![0; SPARE_MAX + 1]);
        assert_eq!(outgoing().capacity(), 0);
    }

    #[test]
    fn the_larger_spare_is_kept() {
        give(&mut vec![0; 2 * CHUNK], 0, Owner::NOBODY);
        give(&mut vec![0; CHUNK], 0, Owner::NOBODY);
        assert_eq!(large(Owner::NOBODY).0.len(), 2 * CHUNK);
        for length in [1000, 2000, 1000] {
            let mut buf = vec![7; length];
            give_outgoing(&mut buf);
            assert_eq!(buf.capacity(), 0);
        }
        assert_eq!(outgoing().len(), 2000);
        assert_eq!(outgoing().capacity(), 0);
    }
}
