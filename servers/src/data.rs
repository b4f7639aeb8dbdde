//! The state of a key-value server: what commands make of it is decided by the commands and the time
//! that each was given, and by nothing else. So copies that apply the same commands stay the same.

use crate::resp;
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt::Write,
    ops::RangeInclusive,
    sync::Arc,
};

/// What a key stands for, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    value: Value,
    /// From this time on, in milliseconds since 1970, the key is not there.
    expires: Option<u64>,
}

/// A copy costs nothing: whoever changes a collection while there is one copies it first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Value {
    String(Bytes),
    List(Arc<VecDeque<Bytes>>),
    Set(Arc<BTreeSet<Bytes>>),
    Hash(Arc<BTreeMap<Bytes, Bytes>>),
}

/// Keys and what they stand for.
#[derive(Clone, Debug, Default)]
pub struct Data {
    entries: HashMap<Bytes, Entry>,
    /// The keys that expire, soonest first.
    expiring: BTreeSet<(u64, Bytes)>,
    bytes: usize,
}

/// What is known of a command before it runs.
#[derive(Debug)]
pub struct Command {
    /// Its name, in capitals.
    pub name: &'static str,
    /// Whether it may change something.
    pub writes: bool,
    /// How many arguments it has, its name included.
    args: RangeInclusive<usize>,
    /// Which of the arguments are keys: from the first on, each so many-th.
    keys: Keys,
    run: fn(&mut Data, u64, &[Bytes], &mut BytesMut) -> Result<(), Failed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    First,
    Every,
    Second,
}

/// Why a command did nothing.
enum Failed {
    WrongType,
    NotAnInteger,
    Overflow,
    Syntax,
    InvalidExpiry(&'static str),
    Arguments(&'static str),
}

const ANY: usize = usize::MAX;

static COMMANDS: [Command; 18] = {
    const fn reads(
        name: &'static str,
        args: RangeInclusive<usize>,
        keys: Keys,
        run: Run,
    ) -> Command {
        Command { name, writes: false, args, keys, run }
    }
    const fn writes(
        name: &'static str,
        args: RangeInclusive<usize>,
        keys: Keys,
        run: Run,
    ) -> Command {
        Command { name, writes: true, args, keys, run }
    }
    type Run = fn(&mut Data, u64, &[Bytes], &mut BytesMut) -> Result<(), Failed>;
    use Keys::{Every, First, Second};
    [
        reads("GET", 2..=2, First, get),
        writes("SET", 3..=ANY, First, set),
        writes("INCR", 2..=2, First, |data, now, args, out| add(data, now, args, 1, out)),
        writes("DECR", 2..=2, First, |data, now, args, out| add(data, now, args, -1, out)),
        reads("MGET", 2..=ANY, Every, mget),
        writes("MSET", 3..=ANY, Second, mset),
        writes("DEL", 2..=ANY, Every, del),
        reads("EXISTS", 2..=ANY, Every, exists),
        writes("LPUSH", 3..=ANY, First, lpush),
        reads("LRANGE", 4..=4, First, lrange),
        reads("LLEN", 2..=2, First, llen),
        writes("SADD", 3..=ANY, First, sadd),
        reads("SCARD", 2..=2, First, scard),
        writes("HSET", 4..=ANY, First, hset),
        reads("HGET", 3..=3, First, hget),
        writes("EXPIRE", 3..=3, First, expire),
        reads("TTL", 2..=2, First, |data, now, args, out| ttl(data, now, args, 1000, out)),
        reads("PTTL", 2..=2, First, |data, now, args, out| ttl(data, now, args, 1, out)),
    ]
};

impl Command {
    /// The command of this name, if it is one on keys.
    pub fn find(name: &[u8]) -> Option<&'static Command> {
        COMMANDS.iter().find(|command| command.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// All commands on keys.
    pub fn all() -> &'static [Command] {
        &COMMANDS
    }

    /// Appends what Redis's own `COMMAND` says of it: its name, how many arguments it has (or, below
    /// zero, at least has), whether it writes, and which are its keys.
    pub fn describe(&self, out: &mut BytesMut) {
        let least = i64::try_from(*self.args.start()).unwrap_or(i64::MAX);
        let (last, step) = match self.keys {
            Keys::First => (1, 1),
            Keys::Every => (-1, 1),
            Keys::Second => (-1, 2),
        };
        resp::array(out, 6);
        resp::bulk(out, self.name.to_ascii_lowercase().as_bytes());
        resp::integer(out, if self.args.end() == self.args.start() { least } else { -least });
        resp::array(out, 1);
        resp::simple(out, if self.writes { "write" } else { "readonly" });
        [1, last, step].into_iter().for_each(|number| resp::integer(out, number));
    }

    /// Those of `args`, which begin with the name, that are keys.
    pub fn keys<'a>(&self, args: &'a [Bytes]) -> impl Iterator<Item = &'a Bytes> + use<'a> {
        let (most, step) = match self.keys {
            Keys::First => (1, 1),
            Keys::Every => (ANY, 1),
            Keys::Second => (ANY, 2),
        };
        args.iter().skip(1).step_by(step).take(most)
    }
}

impl Data {
    /// Carries a command out at the time `now`, in milliseconds since 1970, and appends the reply.
    ///
    /// `args` begin with the name of `command`. One that fails changes nothing.
    pub fn apply(&mut self, command: &Command, now: u64, args: &[Bytes], out: &mut BytesMut) {
        let before = out.len();
        let result = if command.args.contains(&args.len()) {
            (command.run)(self, now, args, out)
        } else {
            Err(Failed::Arguments(command.name))
        };
        if let Err(failed) = result {
            out.truncate(before);
            failed.reply(out);
        }
    }

    /// The entry of a key, to be kept elsewhere. It may have expired.
    pub fn entry(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Puts an entry in the place of the one that is there.
    pub fn insert(&mut self, key: Bytes, entry: Entry) {
        self.remove(&key);
        self.bytes += key.len() + entry.value.len_bytes();
        if let Some(expires) = entry.expires {
            self.expiring.insert((expires, key.clone()));
        }
        self.entries.insert(key, entry);
    }

    /// Takes a key away, expired or not, and says whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some((key, entry)) = self.entries.remove_entry(key) else { return false };
        self.bytes -= key.len() + entry.value.len_bytes();
        if let Some(expires) = entry.expires {
            self.expiring.remove(&(expires, key));
        }
        true
    }

    /// When the next key expires, in milliseconds since 1970.
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiring.first().map(|(expires, _)| *expires)
    }

    /// Takes away the keys that have expired, at most so many, and returns them.
    pub fn expire(&mut self, now: u64, most: usize) -> Vec<Bytes> {
        let due = self.expiring.iter().take_while(|(expires, _)| *expires <= now).take(most);
        let keys: Vec<_> = due.map(|(_, key)| key.clone()).collect();
        for key in &keys {
            self.remove(key);
        }
        keys
    }

    /// How many keys there are, those included that have expired and were not taken away yet.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes keys and values have together.
    pub fn used(&self) -> usize {
        self.bytes
    }

    /// All of it, the same bytes for the same state.
    pub fn snapshot(&self) -> Vec<u8> {
        let ordered: BTreeMap<_, _> = self.entries.iter().collect();
        postcard::to_stdvec(&ordered).expect("memory is all that writing needs")
    }

    /// The state that was written by [`Data::snapshot`].
    ///
    /// # Errors
    ///
    /// If the bytes are none of its.
    pub fn restore(snapshot: &[u8]) -> Result<Data, postcard::Error> {
        let entries: BTreeMap<Bytes, Entry> = postcard::from_bytes(snapshot)?;
        let mut data = Data::default();
        entries.into_iter().for_each(|(key, entry)| data.insert(key, entry));
        Ok(data)
    }

    /// The value of a key that has not expired.
    fn live(&self, now: u64, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| !entry.is_over(now))
    }

    /// Changes the value of a key, which is `new` before if it is not there; its expiry stays.
    ///
    /// `change` returns by how many bytes the value grew, too: to count them all would take the longer
    /// the larger a collection is.
    fn change<R>(
        &mut self,
        now: u64,
        key: &Bytes,
        new: Value,
        change: impl FnOnce(&mut Value) -> Result<(R, isize), Failed>,
    ) -> Result<R, Failed> {
        if self.live(now, key).is_none() {
            self.remove(key);
        }
        match self.entries.get_mut(key) {
            Some(entry) => {
                let (result, grown) = change(&mut entry.value)?;
                self.bytes = self.bytes.wrapping_add_signed(grown);
                Ok(result)
            }
            None => {
                let mut value = new;
                let (result, _) = change(&mut value)?;
                self.insert(copy(key), Entry { value, expires: None });
                Ok(result)
            }
        }
    }
}

impl Entry {
    fn is_over(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Value {
    fn len_bytes(&self) -> usize {
        match self {
            Value::String(string) => string.len(),
            Value::List(list) => list.iter().map(Bytes::len).sum(),
            Value::Set(set) => set.iter().map(Bytes::len).sum(),
            Value::Hash(hash) => hash.iter().map(|(field, value)| field.len() + value.len()).sum(),
        }
    }
}

impl Failed {
    fn reply(&self, out: &mut BytesMut) {
        let mut text = String::new();
        let written = match self {
            Failed::WrongType => {
                write!(text, "WRONGTYPE Operation against a key holding the wrong kind of value")
            }
            Failed::NotAnInteger => write!(text, "ERR value is not an integer or out of range"),
            Failed::Overflow => write!(text, "ERR increment or decrement would overflow"),
            Failed::Syntax => write!(text, "ERR syntax error"),
            Failed::InvalidExpiry(name) => {
                write!(text, "ERR invalid expire time in '{name}' command")
            }
            Failed::Arguments(name) => {
                let name = name.to_ascii_lowercase();
                write!(text, "ERR wrong number of arguments for '{name}' command")
            }
        };
        written.expect("a string takes everything");
        resp::error(out, &text);
    }
}

/// A copy of its own: what has arrived shares a buffer with everything else that has.
fn copy(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// No buffer is longer than an `isize` can tell.
fn signed(len: usize) -> isize {
    isize::try_from(len).unwrap_or(isize::MAX)
}

fn integer(bytes: &[u8]) -> Result<i64, Failed> {
    resp::number(bytes).ok_or(Failed::NotAnInteger)
}

fn reply_count(out: &mut BytesMut, count: usize) {
    resp::integer(out, i64::try_from(count).unwrap_or(i64::MAX));
}

fn get(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    match data.live(now, &args[1]).map(|entry| &entry.value) {
        None => resp::null(out),
        Some(Value::String(string)) => resp::bulk(out, string),
        Some(_) => return Err(Failed::WrongType),
    }
    Ok(())
}

fn set(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    let (mut expires, mut wanted, mut options) = (None, None, args[3..].iter());
    while let Some(option) = options.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"NX" if wanted.is_none() => wanted = Some(false),
            b"XX" if wanted.is_none() => wanted = Some(true),
            unit @ (b"EX" | b"PX") if expires.is_none() => {
                let millis = if unit == b"EX" { 1000 } else { 1 };
                let time = integer(options.next().ok_or(Failed::Syntax)?)?;
                let time = u64::try_from(time).ok().filter(|time| *time > 0);
                let time = time.and_then(|time| time.checked_mul(millis)?.checked_add(now));
                expires = Some(time.ok_or(Failed::InvalidExpiry("set"))?);
            }
            _ => return Err(Failed::Syntax),
        }
    }
    let there = data.live(now, &args[1]).is_some();
    if wanted.is_some_and(|wanted| wanted != there) {
        resp::null(out);
    } else {
        data.insert(copy(&args[1]), Entry { value: Value::String(copy(&args[2])), expires });
        resp::simple(out, "OK");
    }
    Ok(())
}

fn add(
    data: &mut Data,
    now: u64,
    args: &[Bytes],
    by: i64,
    out: &mut BytesMut,
) -> Result<(), Failed> {
    let zero = Value::String(Bytes::from_static(b"0"));
    let sum = data.change(now, &args[1], zero, |value| {
        let Value::String(string) = value else { return Err(Failed::WrongType) };
        let sum = integer(string)?.checked_add(by).ok_or(Failed::Overflow)?;
        let before = std::mem::replace(string, Bytes::from(sum.to_string()));
        Ok((sum, signed(string.len()) - signed(before.len())))
    })?;
    resp::integer(out, sum);
    Ok(())
}

fn mget(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    resp::array(out, args.len() - 1);
    for key in &args[1..] {
        match data.live(now, key).map(|entry| &entry.value) {
            Some(Value::String(string)) => resp::bulk(out, string),
            _ => resp::null(out),
        }
    }
    Ok(())
}

fn mset(data: &mut Data, _: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    let pairs = args[1..].chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(Failed::Arguments("MSET"));
    }
    for pair in pairs {
        data.insert(copy(&pair[0]), Entry { value: Value::String(copy(&pair[1])), expires: None });
    }
    resp::simple(out, "OK");
    Ok(())
}

fn del(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    let mut gone = 0;
    for key in &args[1..] {
        gone += usize::from(data.live(now, key).is_some());
        data.remove(key);
    }
    reply_count(out, gone);
    Ok(())
}

fn exists(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    reply_count(out, args[1..].iter().filter(|key| data.live(now, key).is_some()).count());
    Ok(())
}

fn lpush(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    let len = data.change(now, &args[1], Value::List(Arc::default()), |value| {
        let Value::List(list) = value else { return Err(Failed::WrongType) };
        let list = Arc::make_mut(list);
        args[2..].iter().for_each(|item| list.push_front(copy(item)));
        Ok((list.len(), args[2..].iter().map(|item| signed(item.len())).sum()))
    })?;
    reply_count(out, len);
    Ok(())
}

fn lrange(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    let (first, last) = (integer(&args[2])?, integer(&args[3])?);
    let empty = VecDeque::new();
    let list = match data.live(now, &args[1]).map(|entry| &entry.value) {
        None => &empty,
        Some(Value::List(list)) => &**list,
        Some(_) => return Err(Failed::WrongType),
    };
    // A negative place counts from behind the end.
    let place = |at: i64| {
        let back = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX);
        if at < 0 { list.len().checked_sub(back) } else { Some(back) }
    };
    let first = place(first).unwrap_or(0).min(list.len());
    let end = place(last).map_or(0, |last| last.saturating_add(1)).clamp(first, list.len());
    resp::array(out, end - first);
    list.range(first..end).for_each(|item| resp::bulk(out, item));
    Ok(())
}

fn llen(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    match data.live(now, &args[1]).map(|entry| &entry.value) {
        None => reply_count(out, 0),
        Some(Value::List(list)) => reply_count(out, list.len()),
        Some(_) => return Err(Failed::WrongType),
    }
    Ok(())
}

fn sadd(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    let new = data.change(now, &args[1], Value::Set(Arc::default()), |value| {
        let Value::Set(set) = value else { return Err(Failed::WrongType) };
        let set = Arc::make_mut(set);
        let new: Vec<_> = args[2..].iter().filter(|item| set.insert(copy(item))).collect();
        Ok((new.len(), new.iter().map(|item| signed(item.len())).sum()))
    })?;
    reply_count(out, new);
    Ok(())
}

fn scard(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    match data.live(now, &args[1]).map(|entry| &entry.value) {
        None => reply_count(out, 0),
        Some(Value::Set(set)) => reply_count(out, set.len()),
        Some(_) => return Err(Failed::WrongType),
    }
    Ok(())
}

fn hset(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    let pairs = args[2..].chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(Failed::Arguments("HSET"));
    }
    let new = data.change(now, &args[1], Value::Hash(Arc::default()), |value| {
        let Value::Hash(hash) = value else { return Err(Failed::WrongType) };
        let hash = Arc::make_mut(hash);
        let (mut new, mut grown) = (0, 0);
        for pair in pairs {
            grown += signed(pair[1].len());
            match hash.insert(copy(&pair[0]), copy(&pair[1])) {
                Some(before) => grown -= signed(before.len()),
                None => (new, grown) = (new + 1, grown + signed(pair[0].len())),
            }
        }
        Ok((new, grown))
    })?;
    reply_count(out, new);
    Ok(())
}

fn hget(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    match data.live(now, &args[1]).map(|entry| &entry.value) {
        None => resp::null(out),
        Some(Value::Hash(hash)) => match hash.get(&args[2]) {
            None => resp::null(out),
            Some(value) => resp::bulk(out, value),
        },
        Some(_) => return Err(Failed::WrongType),
    }
    Ok(())
}

fn expire(data: &mut Data, now: u64, args: &[Bytes], out: &mut BytesMut) -> Result<(), Failed> {
    let millis = integer(&args[2])?.checked_mul(1000);
    let expires = millis.and_then(|millis| now.checked_add_signed(millis));
    let expires = expires.ok_or(Failed::InvalidExpiry("expire"))?;
    let Some(entry) = data.live(now, &args[1]) else {
        resp::integer(out, 0);
        return Ok(());
    };
    let entry = Entry { value: entry.value.clone(), expires: Some(expires) };
    if entry.is_over(now) {
        data.remove(&args[1]);
    } else {
        data.insert(copy(&args[1]), entry);
    }
    resp::integer(out, 1);
    Ok(())
}

/// What is left of a key's time, in units of so many milliseconds.
fn ttl(
    data: &mut Data,
    now: u64,
    args: &[Bytes],
    unit: u64,
    out: &mut BytesMut,
) -> Result<(), Failed> {
    let left = match data.live(now, &args[1]).map(|entry| entry.expires) {
        None => -2,
        Some(None) => -1,
        // Rounded as Redis does it.
        Some(Some(expires)) => i64::try_from((expires - now + unit / 2) / unit).unwrap_or(i64::MAX),
    };
    resp::integer(out, left);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn run(data: &mut Data, now: u64, words: &str) -> String {
        let args: Vec<_> = words.split(' ').map(|w| Bytes::from(w.to_owned())).collect();
        let mut out = BytesMut::new();
        let command = Command::find(&args[0]).expect("a command");
        data.apply(command, now, &args, &mut out);
        String::from_utf8(out.to_vec()).unwrap().replace("\r\n", " ").trim_end().to_owned()
    }

    #[test]
    fn commands_answer_as_redis_does() {
        let mut data = Data::default();
        for (words, reply) in [
            ("GET a", "$-1"),
            ("SET a 1", "+OK"),
            ("get a", "$1 1"),
            ("GET", "-ERR wrong number of arguments for 'get' command"),
            ("GET a b", "-ERR wrong number of arguments for 'get' command"),
            ("SET a 2 NX", "$-1"),
            ("SET b 2 xx", "$-1"),
            ("SET b 2 nx", "+OK"),
            ("SET b 3 XX", "+OK"),
            ("SET b 3 XX NX", "-ERR syntax error"),
            ("SET b 3 EX", "-ERR syntax error"),
            ("SET b 3 EX x", "-ERR value is not an integer or out of range"),
            ("SET b 3 EX 0", "-ERR invalid expire time in 'set' command"),
            ("SET b 3 PX 9223372036854775807 EX 1", "-ERR syntax error"),
            ("SET b 3 KEEP", "-ERR syntax error"),
            ("MGET a b c", "*3 $1 1 $1 3 $-1"),
            ("INCR a", ":2"),
            ("DECR c", ":-1"),
            ("SET d 9223372036854775807", "+OK"),
            ("INCR d", "-ERR increment or decrement would overflow"),
            ("SET d x", "+OK"),
            ("INCR d", "-ERR value is not an integer or out of range"),
            ("SET d +1", "+OK"),
            ("INCR d", "-ERR value is not an integer or out of range"),
            ("EXISTS a b a z", ":3"),
            ("DEL a b a z", ":2"),
            ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command"),
            ("EXISTS a", ":0"),
            ("MSET a 1 b 2", "+OK"),
            ("LPUSH l 1 2 3", ":3"),
            ("LRANGE l 0 -1", "*3 $1 3 $1 2 $1 1"),
            ("LRANGE l -2 -2", "*1 $1 2"),
            ("LRANGE l -100 0", "*1 $1 3"),
            ("LRANGE l 1 100", "*2 $1 2 $1 1"),
            ("LRANGE l 2 1", "*0"),
            ("LRANGE l 0 -4", "*0"),
            ("LRANGE l 5 6", "*0"),
            ("LRANGE z 0 -1", "*0"),
            ("LRANGE l a 1", "-ERR value is not an integer or out of range"),
            ("LLEN l", ":3"),
            ("LPUSH a 1", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("GET l", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("MGET l a", "*2 $-1 $1 1"),
            ("SADD s x y x", ":2"),
            ("SADD s x z", ":1"),
            ("SCARD s", ":3"),
            ("INCR s", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("HSET h f 1 g 2", ":2"),
            ("HSET h f 3 i 4", ":1"),
            ("HSET h f", "-ERR wrong number of arguments for 'hset' command"),
            ("HSET h f 3 i", "-ERR wrong number of arguments for 'hset' command"),
            ("HGET h f", "$1 3"),
            ("HGET h z", "$-1"),
            ("HGET z z", "$-1"),
            ("HGET s z", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("SET h 1", "+OK"),
            ("GET h", "$1 1"),
            ("EXPIRE z 1", ":0"),
            ("EXPIRE a x", "-ERR value is not an integer or out of range"),
            ("EXPIRE a 9223372036854775807", "-ERR invalid expire time in 'expire' command"),
            ("TTL a", ":-1"),
            ("TTL z", ":-2"),
            ("EXPIRE a 10", ":1"),
            ("TTL a", ":10"),
            ("PTTL a", ":10000"),
            ("SET a 1", "+OK"),
            ("TTL a", ":-1"),
            ("EXPIRE a -1", ":1"),
            ("EXISTS a", ":0"),
        ] {
            assert_eq!(run(&mut data, NOW, words), reply, "{words}");
        }
    }

    #[test]
    fn a_key_is_there_until_its_time_and_not_after() {
        let mut data = Data::default();
        run(&mut data, NOW, "SET a 1 PX 100");
        run(&mut data, NOW, "SET b 1 EX 1");
        run(&mut data, NOW, "LPUSH l 1");
        run(&mut data, NOW, "EXPIRE l 1");
        assert_eq!(data.next_expiry(), Some(NOW + 100));
        assert_eq!(run(&mut data, NOW + 99, "GET a"), "$1 1");
        assert_eq!(run(&mut data, NOW + 100, "GET a"), "$-1");
        assert_eq!(run(&mut data, NOW + 100, "TTL a"), ":-2");
        assert_eq!(run(&mut data, NOW + 100, "DEL a"), ":0");
        assert_eq!(data.next_expiry(), Some(NOW + 1000));
        assert_eq!(run(&mut data, NOW + 1000, "LPUSH l 2"), ":1", "a new list");
        assert_eq!(run(&mut data, NOW + 1000, "TTL l"), ":-1");
        assert_eq!(run(&mut data, NOW + 1000, "SET b 2 XX"), "$-1");
        assert_eq!(data.expire(NOW + 999, 10), [&b""[..]; 0]);
        assert_eq!(data.expire(NOW + 1000, 10), [&b"b"[..]]);
        assert_eq!((data.next_expiry(), data.len()), (None, 1));
    }

    #[test]
    fn the_bytes_in_use_are_those_of_keys_and_values() {
        let mut data = Data::default();
        for (words, used) in [
            ("SET a 9", 2),
            ("INCR a", 3),
            ("DECR a", 2),
            ("LPUSH l xx yyy", 2 + 6),
            ("LPUSH l z", 2 + 7),
            ("LPUSH a z", 2 + 7),
            ("SADD s x yy x", 9 + 4),
            ("SADD s x zzz", 9 + 7),
            ("HSET h f value", 16 + 7),
            ("HSET h f v g w", 16 + 5),
            ("EXPIRE h 10", 21),
            ("DEL h l", 2 + 7),
            ("SET s x", 2 + 2),
        ] {
            run(&mut data, NOW, words);
            assert_eq!(data.used(), used, "{words}");
        }
    }

    #[test]
    fn an_increment_keeps_the_time_and_a_failure_keeps_everything() {
        let mut data = Data::default();
        run(&mut data, NOW, "SET a 1 EX 10");
        run(&mut data, NOW, "INCR a");
        assert_eq!(run(&mut data, NOW, "TTL a"), ":10");
        let before = data.snapshot();
        for words in ["LPUSH a 1", "SET a 1 EX", "MSET b 1 c", "HSET n f", "INCR"] {
            assert!(run(&mut data, NOW, words).starts_with('-'));
        }
        assert_eq!(data.snapshot(), before);
    }

    #[test]
    fn a_snapshot_is_the_state_whatever_the_way_there() {
        let mut data = Data::default();
        let mut other = Data::default();
        for words in ["SET a 1", "LPUSH l 1 2", "SADD s x y", "HSET h f v g w", "SET e 1 EX 5"] {
            run(&mut data, NOW, words);
        }
        for words in
            ["SET e 1 EX 5", "HSET h g w", "HSET h f v", "SADD s y x", "LPUSH l 1", "LPUSH l 2"]
        {
            run(&mut other, NOW, words);
        }
        assert_ne!(data.snapshot(), other.snapshot());
        run(&mut other, NOW, "INCR a");
        assert_eq!(data.snapshot(), other.snapshot());

        let again = Data::restore(&data.snapshot()).unwrap();
        assert_eq!(again.snapshot(), data.snapshot());
        assert_eq!((again.used(), again.next_expiry()), (data.used(), data.next_expiry()));
        assert_eq!(data.used(), "a1l12sxyhfvgwe1".len());
        assert!(Data::restore(b"\xff\xff").is_err());
    }

    #[test]
    fn the_keys_of_a_command_are_known_before_it_runs() {
        for (words, keys) in [
            ("GET a", &["a"][..]),
            ("SET a b EX 1", &["a"]),
            ("DEL a b c", &["a", "b", "c"]),
            ("MSET a 1 b 2", &["a", "b"]),
            ("GET", &[]),
        ] {
            let args: Vec<_> = words.split(' ').map(|w| Bytes::from(w.to_owned())).collect();
            let command = Command::find(&args[0]).unwrap();
            assert!(command.keys(&args).eq(keys.iter()), "{words}");
        }
        assert!(Command::find(b"NOPE").is_none());
        assert!(Command::find(b"mget").is_some_and(|command| !command.writes));
    }
}
