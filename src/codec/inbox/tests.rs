use super::*;

/// Messages of a known length, without headers.
struct Fixed(usize);

impl Cut for Fixed {
    fn front(&mut self, bytes: &[u8], ended: bool) -> Front {
        match bytes.len() {
            0 if ended => Front::Never(FrameError::Closed),
            have if have < self.0 => Front::Part { within: self.0 },
            _ => Front::Whole,
        }
    }
}

/// Gives what is asked for, up to so many bytes.
struct Give(usize);

impl Read for Give {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let n = room.len().min(self.0);
        room[..n].fill(7);
        self.0 -= n;
        if n == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }
}

#[test]
fn the_buffer_grows_with_what_came_and_to_the_end_of_a_message_exactly() {
    let mut inbox = Inbox::new();
    let mut source = Give(usize::MAX);
    let length = 1_000_000;
    while inbox.bytes().len() < length {
        inbox.read(&mut Fixed(length), &mut source, Drained::WouldBlock).unwrap();
        let have = inbox.bytes().len();
        assert!(inbox.buf.len() <= (have + CHUNK).max(2 * have));
    }
    assert_eq!((inbox.bytes().len(), inbox.buf.len()), (length, length));
}

#[test]
fn a_part_moves_to_a_place_of_its_size_when_the_source_is_drained() {
    for (part, most) in [(1, 64), (100, 400), (10_000, 40_000), (30_000, 30_000 + CHUNK)] {
        let mut inbox = Inbox::new();
        inbox.read(&mut Fixed(50_000), &mut Give(part), Drained::WouldBlock).unwrap();
        assert_eq!(inbox.bytes(), vec![7; part]);
        assert!(inbox.buf.len() <= most, "{} for {part}", inbox.buf.len());
    }
}

#[test]
fn a_large_buffer_shrinks_to_a_part_when_the_source_is_drained() {
    let mut inbox = Inbox::new();
    let mut source = Give(1_000_000 + 150_000);
    while inbox.bytes().len() < 1_000_000 {
        inbox.read(&mut Fixed(1_000_000), &mut source, Drained::WouldBlock).unwrap();
    }
    *inbox.bytes_and_taken().1 += 1_000_000;
    while inbox.has_more() {
        inbox.read(&mut Fixed(1_000_000), &mut source, Drained::WouldBlock).unwrap();
    }
    assert_eq!(inbox.bytes(), vec![7; 150_000]);
    assert!(inbox.buf.capacity() <= 300_000);
}

#[test]
fn a_long_message_is_read_to_its_end_and_no_further() {
    let mut inbox = Inbox::new();
    let mut source = Give(usize::MAX);
    for _ in 0..3 {
        while inbox.bytes().len() < 200_000 {
            inbox.read(&mut Fixed(200_000), &mut source, Drained::WouldBlock).unwrap();
        }
        assert_eq!((inbox.start, inbox.end), (0, 200_000));
        *inbox.bytes_and_taken().1 += 200_000;
        inbox.buf.resize(300_000, 0); // room for more than one
    }
}

#[test]
fn nothing_is_held_when_nothing_is_in_hand() {
    let mut inbox = Inbox::new();
    inbox.read(&mut Fixed(10), &mut Give(20), Drained::WouldBlock).unwrap();
    *inbox.bytes_and_taken().1 += 20;
    assert_eq!(inbox.read(&mut Fixed(10), &mut Give(0), Drained::WouldBlock).unwrap(), 0);
    assert_eq!((inbox.buf.capacity(), inbox.touched), (0, 0));
}

#[test]
fn a_source_is_offered_in_proportion_to_what_it_gave() {
    let mut inbox = Inbox::new();
    for _ in 0..10 {
        inbox.read(&mut Fixed(10), &mut Give(10), Drained::WouldBlock).unwrap();
        *inbox.bytes_and_taken().1 += 10;
    }
    assert_eq!(inbox.offer, OFFER_LEAST);
    inbox.read(&mut Fixed(10), &mut Give(usize::MAX), Drained::WouldBlock).unwrap();
    assert_eq!(inbox.offer, CHUNK);
}

#[test]
fn readers_may_change_threads() {
    fn check<T: Send + Sync>() {}
    check::<Inbox>();
}

/// So many bytes of buffer, of which these are in hand.
fn holding(len: usize, hand: std::ops::Range<usize>) -> Inbox {
    let mut inbox = Inbox::new();
    inbox.buf = vec![0; len];
    (inbox.start, inbox.end, inbox.touched) = (hand.start, hand.end, hand.end);
    inbox.set_budget(usize::MAX);
    inbox
}

/// What a message of unknown length begins with.
const WHOLE: (bool, usize) = (true, usize::MAX);

#[test]
fn room_is_what_budget_offer_and_buffer_allow() {
    let cases = [
        // offer, budget, whole, came before, and the room
        (1000, 5000, WHOLE, 10, 1000),
        (1000, 500, WHOLE, 10, 399),  // 101 in hand count
        (1000, 500, WHOLE, 300, 200), // or more, if more came
        (1000, 100, WHOLE, 0, 0),
        (1000, 100, (false, 200), 0, 100), // not while no message is whole
        (1000, 100, (false, 200), 99, 1),
        (1000, 100, (false, 200), 100, 0),
        (1000, 100, (false, 200), 101, 0),
        (usize::MAX, usize::MAX, WHOLE, 0, 3 * CHUNK - 200),
        // What is long is read to its end, what is not as far as there is room.
        (usize::MAX, usize::MAX, (false, CHUNK + 1), 0, CHUNK + 1 - 101),
        (usize::MAX, usize::MAX, (false, CHUNK), 0, 3 * CHUNK - 200),
        (usize::MAX, usize::MAX, (false, 4 * CHUNK), 0, 3 * CHUNK - 200),
    ];
    for (offer, budget, (whole, within), got, room) in cases {
        let mut inbox = holding(3 * CHUNK, 99..200);
        (inbox.offer, inbox.budget) = (offer, budget);
        assert_eq!(inbox.make_room(whole, within, got), room, "{offer} {budget} {whole} {got}");
        assert_eq!((inbox.start, inbox.end, inbox.buf.len()), (99, 200, 3 * CHUNK));
    }
}

#[test]
fn bytes_move_only_for_room_and_only_where_few_do() {
    const PART: (bool, usize) = (false, usize::MAX);
    let cases = [
        // buffer, in hand, offer, what is in front; then the buffer, in hand and the room
        (CHUNK, 700..700, 10, WHOLE, CHUNK, 0..0, 10),
        (0, 0..0, 10, WHOLE, CHUNK, 0..0, 10),
        // A small buffer is left for a large one, unless more would move than may come.
        (64, 10..20, 10, PART, CHUNK, 0..10, 10),
        (64, 10..20, 10, WHOLE, CHUNK, 0..10, 10),
        (64, 10..20, 9, WHOLE, 64, 10..20, 9),
        (64, 10..20, 9, PART, 64, 10..20, 9),
        (CHUNK - 1, 10..20, 10, PART, CHUNK, 0..10, 10),
        (CHUNK, 10..20, 10, PART, CHUNK, 10..20, 10),
        // Without enough room for what is offered, half of a buffer moves to its front.
        (CHUNK, 20..CHUNK - 5, 5, WHOLE, CHUNK, 20..CHUNK - 5, 5),
        (CHUNK, CHUNK - 15..CHUNK - 5, 5, WHOLE, CHUNK, CHUNK - 15..CHUNK - 5, 5),
        (CHUNK, CHUNK - 15..CHUNK - 5, 6, WHOLE, CHUNK, 0..10, 6),
        (CHUNK, CHUNK / 2..CHUNK, 6, WHOLE, CHUNK, 0..CHUNK / 2, 6),
        (CHUNK, CHUNK / 2 - 1..CHUNK, 6, WHOLE, CHUNK, CHUNK / 2 - 1..CHUNK, 0),
        (CHUNK, CHUNK / 2 - 3..CHUNK - 3, 6, WHOLE, CHUNK, CHUNK / 2 - 3..CHUNK - 3, 3),
        // Where a message cannot end without room, all of it moves,
        (CHUNK, CHUNK / 2 - 1..CHUNK, 6, PART, CHUNK, 0..CHUNK / 2 + 1, 6),
        (CHUNK, CHUNK / 2 - 3..CHUNK - 3, 6, PART, CHUNK, CHUNK / 2 - 3..CHUNK - 3, 3),
        (CHUNK, 1..CHUNK, 6, PART, CHUNK, 0..CHUNK - 1, 1),
        (CHUNK, 1..CHUNK, 6, WHOLE, CHUNK, 1..CHUNK, 0),
        // or the buffer grows: by a chunk, or to twice its length, or to the end of the message.
        (100, 0..100, 6, PART, 100 + CHUNK, 0..100, 6),
        (2 * CHUNK, 0..2 * CHUNK, 6, PART, 4 * CHUNK, 0..2 * CHUNK, 6),
        (2 * CHUNK, 0..2 * CHUNK, 6, (false, 2 * CHUNK + 4), 2 * CHUNK + 4, 0..2 * CHUNK, 4),
        (2 * CHUNK, 0..2 * CHUNK, 6, WHOLE, 2 * CHUNK, 0..2 * CHUNK, 0),
    ];
    for (len, hand, offer, (whole, within), new_len, new_hand, room) in cases {
        let case = format!("{len} {hand:?} {offer} {whole}");
        let mut inbox = holding(len, hand.clone());
        inbox.offer = offer;
        for (at, byte) in inbox.buf[hand].iter_mut().enumerate() {
            *byte = at.to_le_bytes()[0];
        }
        let bytes = inbox.bytes().to_vec();
        assert_eq!(inbox.make_room(whole, within, 0), room, "{case}");
        assert_eq!((inbox.buf.len(), inbox.start..inbox.end), (new_len, new_hand), "{case}");
        assert_eq!(inbox.bytes(), bytes, "{case}");
    }
}

#[test]
fn an_offer_follows_what_came() {
    let most = 2 * CHUNK;
    let cases = [
        // offer, of which was offered, and came; then the offer
        (8000, 8000, 8000, 4 * 8000),
        (CHUNK, CHUNK, CHUNK, most),
        (most, most, most, most),
        (8000, 8000, 7999, 8000),
        (8000, 8000, 1000, 8000),
        (8000, 8000, 999, 4000),
        (8000, 7999, 999, 8000), // there was no room for more
        (3000, 3000, 1, 2048),
        (2048, 2048, 1, 2048),
    ];
    for (offer, offered, came, next) in cases {
        let mut inbox = Inbox::new();
        (inbox.offer, inbox.budget) = (offer, most);
        inbox.learn(came, offered);
        assert_eq!(inbox.offer, next, "{offer} {offered} {came}");
    }
    let mut inbox = Inbox::new();
    (inbox.offer, inbox.budget) = (CHUNK, 10);
    inbox.learn(CHUNK, CHUNK);
    assert_eq!(inbox.offer, CHUNK);
}

#[test]
fn what_is_kept_until_more_comes_has_about_its_size() {
    let cases = [
        // buffer, in hand; then the buffer and where that is
        (CHUNK, 500..500, 0, 0..0),
        (CHUNK, 500..501, 64, 0..1),
        (256, 5..6, 256, 5..6),
        (257, 5..6, 64, 0..1),
        (4000, 5..1005, 4000, 5..1005),
        (4001, 5..1005, 1024, 0..1000),
        (80_000, 7..7 + CHUNK / 4, 32 * 1024, 0..CHUNK / 4),
        // What is more is moved within its buffer, if that is far too long.
        (80_000, 7..8 + CHUNK / 4, 80_000, 7..8 + CHUNK / 4),
        (CHUNK + 20_000, 7..20_007, CHUNK + 20_000, 7..20_007),
        (CHUNK + 20_001, 7..20_007, 40_000, 0..20_000),
        (4 * CHUNK, 7..7 + 2 * CHUNK, 4 * CHUNK, 7..7 + 2 * CHUNK),
        (4 * CHUNK + 1, 7..7 + 2 * CHUNK, 4 * CHUNK, 0..2 * CHUNK),
    ];
    for (len, hand, new_len, new_hand) in cases {
        let mut inbox = holding(len, hand.clone());
        inbox.more = true;
        inbox.settle();
        if !hand.is_empty() {
            assert_eq!((inbox.buf.len(), inbox.start..inbox.end), (len, hand.clone()));
        }
        inbox = holding(len, hand.clone());
        inbox.touched = len;
        inbox.settle();
        let now = (inbox.buf.len(), inbox.start..inbox.end);
        assert_eq!(now, (new_len, new_hand.clone()), "{len} {hand:?}");
        // All of the buffer had been written to; of a new one, what was moved.
        let moved = new_len <= 32 * 1024 && new_len != len;
        assert_eq!(inbox.touched, if moved { new_hand.end } else { new_len });
    }
}

#[test]
fn a_reader_gets_its_own_buffer_back_as_it_was() {
    let (mut one, mut other) = (Inbox::new(), Inbox::new());
    for inbox in [&mut one, &mut other] {
        inbox.read(&mut Fixed(20), &mut Give(20), Drained::WouldBlock).unwrap();
        *inbox.bytes_and_taken().1 += 20;
        assert!(!inbox.has_more_or_rest());
        assert_eq!((inbox.buf.len(), inbox.touched), (0, 0));
    }
    other.make_room(false, 20, 0);
    assert_eq!((other.touched, other.buf[19]), (OFFER_FIRST, 7));
    drop(other);
    one.make_room(false, 20, 0);
    assert_eq!((one.touched, one.buf[19]), (0, 0), "another's");
}

#[test]
fn what_is_taken_is_copied_where_its_buffer_would_be_kept_for_little() {
    let mut inbox = holding(CHUNK, 10..CHUNK / 2);
    assert_eq!(inbox.take(CHUNK / 4).len(), CHUNK / 4);
    assert_eq!((inbox.start, inbox.buf.len()), (10 + CHUNK / 4, CHUNK));

    let mut inbox = holding(CHUNK, 10..CHUNK / 2);
    inbox.buf[10 + CHUNK / 4 + 1] = 7;
    assert_eq!(inbox.take(CHUNK / 4 + 1).len(), CHUNK / 4 + 1);
    assert_eq!((inbox.start, inbox.bytes()[0], inbox.bytes().len()), (0, 7, CHUNK / 4 - 11));

    let mut inbox = holding(CHUNK, 10..CHUNK / 2);
    assert_eq!(inbox.take(CHUNK / 2 - 10).len(), CHUNK / 2 - 10);
    assert_eq!(inbox.buf.capacity(), 0);
}
