//! Whose turn it is: counts of the replies to each question.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters; questions that share one take turns from each other, which does no harm.
const SLOTS: usize = 4096;
/// Octets before the question.
const HEADER_LEN: usize = 12;

/// Counts of replies by question.
#[derive(Debug)]
pub(super) struct Turns {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Turns {
    /// How often this question was asked before, about.
    pub(super) fn next(&self, query: &[u8]) -> u64 {
        let question = question(query).to_ascii_lowercase();
        let hash = self.hasher.hash_one(question) as usize;
        self.slots[hash % SLOTS].fetch_add(1, Ordering::Relaxed)
    }
}

/// Name and type of the first question, as far as they are there.
fn question(query: &[u8]) -> &[u8] {
    let rest = query.get(HEADER_LEN..).unwrap_or_default();
    let name = rest
        .iter()
        .take(255)
        .position(|octet| *octet == 0)
        .map_or(rest.len().min(255), |end| end + 3);
    rest.get(..name).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_has_its_own_count() {
        let turns = Turns::default();
        let ask = |name: &[u8], qtype: u8, rest: &[u8]| {
            let query = [&[0; HEADER_LEN], name, &[0, 0, qtype, 0, 1], rest].concat();
            turns.next(&query)
        };
        let first = ask(b"\x03www", 1, b"");
        assert_eq!(ask(b"\x03WwW", 1, b"cookie"), first + 1);
        assert_eq!(ask(b"\x03www", 1, b"other"), first + 2);
        turns.next(b"");
        turns.next(&[7; 300]);
    }
}
