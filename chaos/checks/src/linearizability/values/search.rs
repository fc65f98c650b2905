//! The search for an order: [`search`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::entry::{Entry, Key, Value, undo};

pub(crate) enum Found {
    /// One that explains every answer.
    Order,
    /// There is none; no attempt got past this operation's return.
    Nothing { stuck: usize },
    /// The steps ran out.
    TooMuch,
}

/// Looks for an order of the entries, all of the required ones and any of the optional ones, that agrees with real time
/// and with what each says. `width` is the number of keys. Every attempt to place an entry takes one of the steps.
pub(crate) fn search(entries: &[Entry], width: usize, steps: &mut u64) -> Found {
    Search::new(entries, width).run(steps)
}

/// (hint, entry, alternative): in which order the possible next entries are tried.
type Rank = (u64, usize, usize);

struct Search<'e> {
    entries: &'e [Entry],
    calls_and_returns: CallsAndReturns,
    state: Vec<Value>,
    /// What the writes of the placed entries replaced.
    log: Vec<(Key, Value)>,
    /// Of the state and of the set of placed entries, but for those that the mask tells of.
    fingerprint: u128,
    /// Which optional entries are placed, of those that have a bit.
    mask: u128,
    /// The bit of each entry; 0: none.
    bits: Vec<u128>,
    placed: Vec<Placed>,
    is_placed: Vec<bool>,
    required: usize,
    /// The hint of the last required entry that was placed.
    position: u64,
    /// Entries that wait for a key to have a value, and those of them that it has now.
    triggers: BTreeMap<(Key, Value), Vec<usize>>,
    armed: BTreeSet<usize>,
    tried: Tried,
}

struct Placed {
    rank: Rank,
    log_before: usize,
    fingerprint_before: u128,
    position_before: u64,
}

/// From where everything was, or is being, tried: by fingerprint the masks. What was tried with fewer optional entries
/// placed need not be tried with more: whatever they could still do, they could there, too.
#[derive(Default)]
struct Tried(HashMap<u128, Vec<u128>>);

impl Tried {
    /// Whether it is new.
    fn insert(&mut self, fingerprint: u128, mask: u128) -> bool {
        let masks = self.0.entry(fingerprint).or_default();
        if masks.iter().any(|fewer| fewer & mask == *fewer) {
            return false;
        }
        masks.retain(|more| more & mask != mask);
        masks.push(mask);
        true
    }
}

impl<'e> Search<'e> {
    fn new(entries: &'e [Entry], width: usize) -> Search<'e> {
        let mut triggers: BTreeMap<(Key, Value), Vec<usize>> = BTreeMap::new();
        for (at, entry) in entries.iter().enumerate() {
            if let Some(trigger) = entry.trigger {
                triggers.entry(trigger).or_default().push(at);
            }
        }
        Search {
            entries,
            calls_and_returns: CallsAndReturns::new(entries),
            state: vec![0; width],
            log: Vec::new(),
            fingerprint: 0,
            mask: 0,
            bits: bits(entries),
            placed: Vec::new(),
            is_placed: vec![false; entries.len()],
            required: entries.iter().filter(|entry| !entry.is_optional()).count(),
            position: 0,
            triggers,
            armed: BTreeSet::new(),
            tried: Tried::default(),
        }
    }

    fn run(mut self, steps: &mut u64) -> Found {
        let mut deepest = (0, None);
        let mut after = None;
        while self.required > 0 {
            if let Some(rank) = self.next(after) {
                if *steps == 0 {
                    return Found::TooMuch;
                }
                *steps -= 1;
                after = if self.place(rank) { None } else { Some(rank) };
                continue;
            }
            if deepest.1.is_none() || self.placed.len() > deepest.0 {
                deepest = (
                    self.placed.len(),
                    self.calls_and_returns.visit_before_first_return(&mut |_| {}),
                );
            }
            let Some(rank) = self.take_back() else {
                let stuck = deepest.1.map_or(0, |entry| self.entries[entry].operation);
                return Found::Nothing { stuck };
            };
            after = Some(rank);
        }
        Found::Order
    }

    /// Of the entries that may come next the first that ranks after the given one.
    fn next(&self, after: Option<Rank>) -> Option<Rank> {
        let mut best: Option<Rank> = None;
        let mut consider = |at: usize| {
            let entry = &self.entries[at];
            let first = entry.alike.as_ref().and_then(|alike| alike.only_after);
            if first.is_some_and(|first| !self.is_placed[first]) {
                return;
            }
            let hint = entry.hint_from(self.position);
            for alternative in 0..entry.alternatives.len() {
                // The first is the one that the list of revisions speaks for, if it does for any.
                let hint = if alternative == 0 { hint } else { u64::MAX };
                let rank = (hint, at, alternative);
                if after.is_none_or(|after| rank > after) && best.is_none_or(|best| rank < best) {
                    best = Some(rank);
                }
            }
        };
        let bound = self.calls_and_returns.visit_before_first_return(&mut consider);
        let bound = bound.and_then(|at| self.entries[at].ret).unwrap_or(u64::MAX);
        for &at in self.armed.iter().filter(|at| self.entries[**at].call <= bound) {
            consider(at);
        }
        best
    }

    fn place(&mut self, rank: Rank) -> bool {
        let (_, at, alternative) = rank;
        let entry = &self.entries[at];
        let log_before = self.log.len();
        if !entry.alternatives[alternative].apply(&mut self.state, &mut self.log) {
            return false;
        }
        let without_effect = entry.is_optional() && self.log.len() == log_before;
        let fingerprint = self.fingerprint_with(at, log_before);
        let is_new = self.tried.insert(fingerprint, self.mask | self.bits[at]);
        if without_effect || !(is_new || self.comes_back(rank, fingerprint)) {
            undo(&mut self.state, &mut self.log, log_before);
            return false;
        }
        self.placed.push(Placed {
            rank,
            log_before,
            fingerprint_before: self.fingerprint,
            position_before: self.position,
        });
        self.fingerprint = fingerprint;
        self.mask |= self.bits[at];
        if !entry.is_optional() {
            self.required -= 1;
            self.position = entry.hint;
        }
        self.is_placed[at] = true;
        self.calls_and_returns.lift(at);
        self.arm(log_before, true);
        true
    }

    /// Whether optional entries, each at the place that is meant for it, have led back to a state that is being tried:
    /// a delete and then a put, say, neither of which anybody was told of. They are likely to have happened. So what
    /// follows is looked for here, and not only when everything was tried in which but some of them did.
    fn comes_back(&self, rank: Rank, fingerprint: u128) -> bool {
        let is_meant = |rank: Rank| rank.0 != u64::MAX && self.entries[rank.1].is_optional();
        let since = self
            .placed
            .iter()
            .rev()
            .take_while(|placed| is_meant(placed.rank));
        is_meant(rank)
            && since
                .map(|placed| placed.fingerprint_before)
                .any(|before| before == fingerprint)
    }

    /// What was logged since has changed keys: arms and disarms what waits for their values.
    fn arm(&mut self, log_before: usize, forward: bool) {
        if self.triggers.is_empty() {
            return;
        }
        let logged = &self.log[log_before..];
        for (at, (key, old)) in logged.iter().enumerate() {
            if logged[..at].iter().any(|(other, _)| other == key) {
                continue;
            }
            let new = self.state[*key];
            let (before, after) = if forward { (*old, new) } else { (new, *old) };
            for disarmed in self.triggers.get(&(*key, before)).into_iter().flatten() {
                self.armed.remove(disarmed);
            }
            self.armed
                .extend(self.triggers.get(&(*key, after)).into_iter().flatten());
        }
    }

    /// A key that was written twice is logged twice; the first entry is what it was before.
    fn fingerprint_with(&self, entry: usize, log_before: usize) -> u128 {
        let mut fingerprint = self.fingerprint;
        if self.bits[entry] == 0 && self.entries[entry].trigger.is_none() {
            fingerprint ^= scatter(entry as u64, u64::MAX);
        }
        let logged = &self.log[log_before..];
        for (at, (key, old)) in logged.iter().enumerate() {
            if logged[..at].iter().all(|(other, _)| other != key) {
                fingerprint ^= scatter(*key as u64, u64::from(*old));
                fingerprint ^= scatter(*key as u64, u64::from(self.state[*key]));
            }
        }
        fingerprint
    }

    fn take_back(&mut self) -> Option<Rank> {
        let last = self.placed.pop()?;
        let (_, entry, _) = last.rank;
        self.arm(last.log_before, false);
        undo(&mut self.state, &mut self.log, last.log_before);
        self.is_placed[entry] = false;
        self.fingerprint = last.fingerprint_before;
        self.position = last.position_before;
        self.mask &= !self.bits[entry];
        self.required += usize::from(!self.entries[entry].is_optional());
        self.calls_and_returns.unlift(entry);
        Some(last.rank)
    }
}

/// A bit for each optional entry that has to be remembered, as far as they go.
fn bits(entries: &[Entry]) -> Vec<u128> {
    let mut free = (0..u128::BITS).map(|at| 1 << at);
    let bit = |entry: &Entry| {
        if entry.is_optional() && entry.trigger.is_none() {
            free.next().unwrap_or(0)
        } else {
            0
        }
    };
    entries.iter().map(bit).collect()
}

/// 128 bits that two inputs determine and that look drawn at random, so that sets and states are told apart by the
/// exclusive or of their elements.
fn scatter(one: u64, other: u64) -> u128 {
    let low = mix(one ^ mix(other ^ 0x9e37_79b9_7f4a_7c15));
    let high = mix(low ^ mix(one.rotate_left(32) ^ other.wrapping_mul(0xd134_2543_de82_ef95)));
    u128::from(high) << 64 | u128::from(low)
}

/// A bijection of 64 bits in which every bit of the input changes half of the output.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The calls and returns of what is not placed yet, in the order of time; a doubly linked list over indices. Node `e` is
/// the call of entry `e`, node `entries + e` its return, the last node the end of the ring.
struct CallsAndReturns {
    entries: usize,
    next: Vec<usize>,
    previous: Vec<usize>,
    has_return: Vec<bool>,
    /// What waits for a value is not.
    is_listed: Vec<bool>,
}

impl CallsAndReturns {
    /// At one moment calls come first, as things that touch are taken to be at the same time.
    fn new(entries: &[Entry]) -> CallsAndReturns {
        let count = entries.len();
        let mut nodes: Vec<(u64, usize)> = Vec::with_capacity(2 * count);
        for (at, entry) in entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.trigger.is_none())
        {
            nodes.push((entry.call, at));
            nodes.extend(entry.ret.map(|ret| (ret, count + at)));
        }
        nodes.sort_unstable_by_key(|(time, node)| (*time, *node));
        let end = 2 * count;
        let (mut next, mut previous) = (vec![end; end + 1], vec![end; end + 1]);
        let mut last = end;
        for (_, node) in nodes {
            next[last] = node;
            previous[node] = last;
            last = node;
        }
        next[last] = end;
        previous[end] = last;
        CallsAndReturns {
            entries: count,
            next,
            previous,
            is_listed: entries.iter().map(|entry| entry.trigger.is_none()).collect(),
            has_return: entries.iter().map(|entry| !entry.is_optional()).collect(),
        }
    }

    /// Calls `see` with the entries that are called before anything that is not placed returns, and says what returns
    /// first.
    fn visit_before_first_return(&self, see: &mut impl FnMut(usize)) -> Option<usize> {
        let mut node = self.next[2 * self.entries];
        while node < self.entries {
            see(node);
            node = self.next[node];
        }
        (node < 2 * self.entries).then(|| node - self.entries)
    }

    fn lift(&mut self, entry: usize) {
        if self.is_listed[entry] {
            self.unlink(entry);
        }
        if self.has_return[entry] {
            self.unlink(self.entries + entry);
        }
    }

    /// In the reverse order of lifting, so that the neighbours are those of then.
    fn unlift(&mut self, entry: usize) {
        if self.has_return[entry] {
            self.link(self.entries + entry);
        }
        if self.is_listed[entry] {
            self.link(entry);
        }
    }

    fn unlink(&mut self, node: usize) {
        let (next, previous) = (self.next[node], self.previous[node]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn link(&mut self, node: usize) {
        let (next, previous) = (self.next[node], self.previous[node]);
        self.next[previous] = node;
        self.previous[next] = node;
    }
}
