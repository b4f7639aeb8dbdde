//! One spare buffer per thread, so that those who are idle need none of their own.
//!
//! What a reader gives back is zeroed first as far as a source could have written to it: a source
//! that claims bytes which it did not write is shown zeros, never what another connection sent.

use std::cell::Cell;

/// How much a reader that has nothing in hand has room for: 64 KiB, and a little more so that a
/// frame of 64 KiB arrives in one piece with its header.
pub(super) const CHUNK: usize = 65 * 1024;

/// A spare larger than this is freed. A frame of 1 MiB still finds its place again.
const SPARE_MAX: usize = 1024 * 1024 + CHUNK;

thread_local! {
    /// To read into: at least `CHUNK` long, all zero.
    static LARGE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// To keep a little in: shorter than `CHUNK`, all zero.
    static SMALL: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// To write from: empty, with some capacity.
    static OUTGOING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer of `CHUNK` zeros or more.
pub(super) fn take_large() -> Vec<u8> {
    let spare = LARGE.try_with(Cell::take).unwrap_or_default();
    if spare.is_empty() { vec![0; CHUNK] } else { spare }
}

/// A buffer of zeros that fits `needed` bytes, and is not much larger.
pub(super) fn take_small(needed: usize) -> Vec<u8> {
    let fitting = needed.next_power_of_two().max(64);
    let spare = SMALL.try_with(Cell::take).unwrap_or_default();
    if (fitting..=4 * fitting).contains(&spare.len()) { spare } else { vec![0; fitting] }
}

/// Takes a reader's buffer back, of which a source may have written to the first `touched` bytes.
pub(super) fn give(mut buf: Vec<u8>, touched: usize) {
    if buf.is_empty() || buf.len() > SPARE_MAX {
        return;
    }
    let slot = if buf.len() < CHUNK { &SMALL } else { &LARGE };
    // Fails when the thread ends: then the buffer is freed.
    let _ = slot.try_with(|slot| {
        let kept = slot.take();
        if kept.len() > buf.len() {
            slot.set(kept);
        } else {
            buf[..touched].fill(0);
            slot.set(buf);
        }
    });
}

/// An empty buffer to queue in, with capacity if there is a spare one.
pub(super) fn take_outgoing() -> Vec<u8> {
    OUTGOING.try_with(Cell::take).unwrap_or_default()
}

/// Takes a writer's buffer back. It need not be zeroed: nobody is shown more than its length.
pub(super) fn give_outgoing(mut buf: Vec<u8>) {
    buf.clear();
    if buf.capacity() <= SPARE_MAX {
        let _ = OUTGOING.try_with(|slot| {
            let kept = slot.take();
            slot.set(if kept.capacity() > buf.capacity() { kept } else { buf });
        });
    }
}
