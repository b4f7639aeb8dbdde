//! Ids that are never used twice, and a map made for them.

use crate::sync::{AtomicUsize, Ordering, global, seeded};
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    io,
};

/// Above this no id is handed out: a backend may keep three bits of its own beside an id in the 64
/// that the kernel carries. On a 32-bit system every `usize` fits.
const LAST: usize = {
    let limit = u64::MAX >> 3;
    if usize::BITS < u64::BITS { usize::MAX } else { limit as usize }
};

global! {
    // One counter for the process, so that an id says which registration it is, whatever the
    // poller.
    static IDS: Ids = Ids { next: AtomicUsize::new(1) };
}

/// An id that nobody had before.
///
/// An id whose registration then fails is not handed out again either: on kqueue, half of a
/// registration may have been reported before the other half failed.
pub(crate) fn next() -> io::Result<usize> {
    IDS.next()
}

/// Whether `id` can have come from [`next`].
pub(crate) fn is_possible(id: usize) -> bool {
    (1..=LAST).contains(&id)
}

struct Ids {
    next: AtomicUsize,
}

impl Ids {
    fn next(&self) -> io::Result<usize> {
        if seeded!("an id is read, then counted") {
            let id = self.next.load(Ordering::Relaxed);
            self.next.store(id + 1, Ordering::Relaxed);
            return Ok(id);
        }
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| {
            // 0 stands for "all gone": the id after the last must not wrap into use.
            if is_possible(id) { Some(if id == LAST { 0 } else { id + 1 }) } else { None }
        });
        taken.map_err(|_| io::Error::new(io::ErrorKind::QuotaExceeded, "all ids have been used"))
    }
}

/// A map from ids to what the user keeps for them, such as connections.
///
/// It is std's [`HashMap`] with a hasher for ids: a look-up costs a few nanoseconds where std's
/// default hasher costs several times as much. Make one with `IdMap::default()`.
///
/// Only ids handed out by a [`Registrar`](crate::Registrar) belong in it as keys: with keys that
/// a peer can choose, it has no defence against chosen collisions.
///
/// # Examples
///
/// ```
/// use amy::{Event, IdMap, Poller};
/// use std::net::TcpListener;
///
/// # fn main() -> std::io::Result<()> {
/// let poller = Poller::new()?;
/// let registrar = poller.get_registrar();
///
/// let mut listeners = IdMap::default();
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let id = registrar.register(&listener, Event::Read)?;
/// listeners.insert(id, listener);
///
/// assert!(listeners.contains_key(&id));
/// # Ok(())
/// # }
/// ```
pub type IdMap<V> = HashMap<usize, V, BuildHasherDefault<IdHasher>>;

/// The hasher of [`IdMap`].
///
/// std's map finds the bucket by the low bits of a hash and tells bucket mates apart by the top
/// seven. The ids of those that live are spread unevenly, since some live long, and those of one
/// kind may be every fourth one; so the bits of an id do for neither as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl IdHasher {
    /// 2^64 divided by the golden ratio: its multiples spread evenly in their upper bits (Knuth,
    /// The Art of Computer Programming, volume 3, section 6.4), and so do every second or tenth.
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    /// So many top bits come to the bottom, where the map looks for them.
    const TOP: u32 = 26;
}

impl Hasher for IdHasher {
    #[inline]
    fn write_usize(&mut self, id: usize) {
        self.0 = (self.0 ^ id as u64).wrapping_mul(Self::GOLDEN).rotate_left(Self::TOP);
    }

    /// For keys other than ids, which the map never has: right, but slow.
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_run_out_with_an_error_and_never_wrap() {
        let ids = Ids { next: AtomicUsize::new(LAST - 1) };
        assert_eq!(ids.next().unwrap(), LAST - 1);
        assert_eq!(ids.next().unwrap(), LAST);
        for _ in 0..3 {
            assert_eq!(ids.next().unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        }
    }

    #[test]
    fn ids_spread_over_buckets_and_tags_whatever_is_between_them() {
        let tag_and_bucket = |id: usize| {
            let mut hasher = IdHasher::default();
            hasher.write_usize(id);
            let (tag, place) = (hasher.finish() >> 57, hasher.finish() % (1 << 14));
            usize::try_from(tag << 14 | place).unwrap()
        };
        // As many as a map has room for, which is seven eighths of its buckets.
        let (buckets, count) = (1 << 14, 7 << 11);
        let strides = (1..130).chain([256, 1000, 1 << 10, 1 << 16]);
        let evenly = strides.map(|stride| (1..=count).map(|n| n * stride).collect::<Vec<usize>>());
        // Half of those that came first are gone.
        let unevenly = (1..=count / 3).map(|n| 2 * n).chain(count..count + count / 2).collect();
        for ids in evenly.chain([unevenly]) {
            let (mut near, mut tags) = (vec![0; buckets / 64], vec![0; 128]);
            for &id in &ids {
                near[tag_and_bucket(id) % buckets / 64] += 1;
                tags[tag_and_bucket(id) / buckets] += 1;
            }
            assert!(near.iter().all(|&ids| ids < 2 * 56), "{} {near:?}", ids[1] - ids[0]);
            assert!(tags.iter().all(|&ids| ids < 2 * count / 128), "{} {tags:?}", ids[1] - ids[0]);
        }
    }

    #[test]
    fn a_map_finds_what_it_was_given_and_nothing_else() {
        let mut map = IdMap::default();
        let ids: Vec<usize> = (1..2_000).chain(LAST - 2_000..=LAST).collect();
        ids.iter().for_each(|&id| assert_eq!(map.insert(id, id), None));
        assert!(ids.iter().all(|id| map.get(id) == Some(id)));
        assert!(!map.contains_key(&2_000) && !map.contains_key(&0));
        for id in ids.iter().step_by(2) {
            assert_eq!(map.remove(id), Some(*id));
        }
        for (i, id) in ids.iter().enumerate() {
            assert_eq!(map.contains_key(id), i % 2 == 1);
        }
    }

    #[test]
    fn an_id_leaves_three_bits_of_64_to_a_backend() {
        assert!(LAST as u64 <= u64::MAX >> 3);
        assert!(LAST as u64 >= u64::from(u32::MAX));
    }

    #[test]
    fn keys_that_are_not_ids_are_told_apart_too() {
        let hash = |bytes: &[u8]| {
            let mut hasher = IdHasher::default();
            hasher.write(bytes);
            hasher.finish()
        };
        assert_eq!(hash(b"key"), hash(b"key"));
        let keys: [&[u8]; 6] = [b"", b"a", b"b", b"ab", b"ba", b"key"];
        for (i, one) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|other| hash(one) != hash(other)), "{one:?}");
        }
    }
}
