//! The name of a question as little-endian 64-bit words: lower-casing, hash, tag.
//!
//! A name in wire format (RFC 1035 section 3.1) of `len` octets is cut into
//! `ceil(len / 8)` words from its end on: in a query, the end is next to what else is read, and
//! what lies before the name is always there to be read with its first octets. The word with
//! these is padded with zeros in front. Label lengths are at most 63 and so lie below `'A'`:
//! lower-casing the raw wire changes letters only, and no walk over the labels is needed. Two
//! names of one length without zero octets inside their labels are equal exactly if their words
//! are.

/// Longest name in wire format (RFC 1035 section 2.3.4), in octets.
pub const MAX_NAME_LEN: usize = 255;
/// Most labels of a name, without the root.
pub const MAX_LABELS: usize = 127;
/// Words of the longest name.
pub const MAX_NAME_WORDS: usize = MAX_NAME_LEN.div_ceil(8);
const ONES: u64 = 0x0101_0101_0101_0101;
/// The bits that are set in small letters and not in capital ones.
const CASE: u64 = ONES << 5;
const HIGHS: u64 = 0x8080_8080_8080_8080;
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Lower-cases the ASCII letters among eight octets.
#[inline(always)]
#[must_use]
pub const fn lower_case(word: u64) -> u64 {
    // Per octet, without carries between octets: bit 7 of `at_least_a` is set from 'A' on,
    // that of `above_z` after 'Z'; octets above 127 are no ASCII.
    let low_bits = word & !HIGHS;
    let at_least_a = low_bits + ONES * (0x80 - b'A' as u64);
    let above_z = low_bits + ONES * (0x7f - b'Z' as u64);
    let upper = at_least_a & !above_z & !word & HIGHS;
    word | (upper >> 2)
}

/// Marks zero octets: the lowest bit set in the result is bit 7 of the first zero octet
/// (in little-endian order); 0 when there is none.
#[inline(always)]
#[must_use]
pub const fn zero_octets(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// What the words of a name are multiplied by for its hash: odd numbers.
pub type Multipliers = [u64; MAX_NAME_WORDS];

/// Multipliers that a seed leads to.
#[must_use]
pub const fn multipliers(seed: u64) -> Multipliers {
    let mut multipliers = [0; MAX_NAME_WORDS];
    let mut state = seed;
    let mut index = 0;
    while index < MAX_NAME_WORDS {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(MULTIPLIER);
        let word = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        multipliers[index] = word ^ word >> 31 | 1;
        index += 1;
    }
    multipliers
}

/// A hash over the words of a name: the sum of each word's product with its multiplier.
///
/// No product depends on another one, so that a processor works on several at once. Each word's upper
/// half is folded into its lower one before, so that each octet is seen in more than the highest
/// bits of its product. What tells lower from upper case is left out: a name has the same hash, however
/// it is written.
///
/// Not keyed against attackers: only names of the configuration are ever inserted, so that
/// a query can at worst miss. Of names that are told apart by the bit of case in an octet that is no
/// letter only one may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameHash(u64);

impl NameHash {
    /// Adds a word, in whatever case. A word of zeros changes nothing.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, word: u64, multiplier: u64) -> Self {
        let folded = (word ^ word >> 32) & !CASE;
        let product = folded.wrapping_mul(multiplier);
        Self(self.0.wrapping_add(product))
    }

    /// The home among so many.
    #[inline(always)]
    #[must_use]
    pub const fn home(self, homes: u32) -> u32 {
        (((self.0 >> 32) * homes as u64) >> 32) as u32
    }

    /// 24 other bits of the hash and the length of the name: what is compared before the name.
    #[inline(always)]
    #[must_use]
    pub const fn tag(self, len: u8) -> u32 {
        // The mask says at once that it fits.
        ((self.0 ^ self.0 >> 32) & 0xffff_ff00 | len as u64) as u32
    }
}

/// How our zones' names end: a query for a name that ends otherwise is none of ours.
///
/// A set of the last eight octets of the zones' names, that may have more in it (a Bloom filter
/// with one hash). With few zones it has nearly nothing else; with thousands it is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Ends(pub [u64; 8]);

impl Ends {
    /// No zones.
    pub const NONE: Self = Self([0; 8]);

    /// Adds a zone's name in wire format, of lower case. One that is shorter than eight octets
    /// makes it a set of everything.
    pub fn add(&mut self, zone: &[u8]) {
        match zone.last_chunk() {
            Some(end) => {
                let (word, bit) = Self::place(u64::from_le_bytes(*end));
                self.0[word] |= 1 << bit;
            }
            None => self.0 = [u64::MAX; 8],
        }
    }

    /// Which bit of which word stands for the last octets of a name.
    #[inline(always)]
    #[must_use]
    pub const fn place(end: u64) -> (usize, u32) {
        let hash = end.wrapping_mul(MULTIPLIER);
        ((hash >> 61) as usize, (hash >> 55) as u32 & 63)
    }

    /// Whether a name that ends in these eight octets, lower-cased, may be in one of the zones.
    #[must_use]
    pub const fn contains(&self, end: u64) -> bool {
        let (word, bit) = Self::place(end);
        self.0[word] >> bit & 1 != 0
    }
}

/// What is left of a word with the first `len` octets of a name, 1 to 7, at its end.
#[inline(always)]
#[must_use]
pub const fn first_octets(word: u64, len: usize) -> u64 {
    word & u64::MAX << (64 - 8 * len as u32)
}

/// The lower-cased words of a name in wire format, the last one first, for user space.
///
/// Returns the words and how many of them are used; `None` if the name is longer than
/// [`MAX_NAME_LEN`].
#[must_use]
pub fn words(name: &[u8]) -> Option<([u64; MAX_NAME_WORDS], usize)> {
    if name.len() > MAX_NAME_LEN {
        return None;
    }
    let mut words = [0; MAX_NAME_WORDS];
    for (word, chunk) in words.iter_mut().zip(name.rchunks(8)) {
        let mut bytes = [0; 8];
        bytes[8 - chunk.len()..].copy_from_slice(chunk);
        *word = lower_case(u64::from_le_bytes(bytes));
    }
    Some((words, name.len().div_ceil(8)))
}

/// A name in wire format as map values have it: lower-cased, at the end of `LEN` octets.
/// `None`: it is longer.
#[must_use]
pub fn padded<const LEN: usize>(name: &[u8]) -> Option<[u8; LEN]> {
    let mut padded = [0; LEN];
    let place = padded.get_mut(LEN.checked_sub(name.len())?..)?;
    place.copy_from_slice(name);
    place.make_ascii_lowercase();
    Some(padded)
}

/// The hash of a name with these words, for user space.
#[must_use]
pub fn hash(multipliers: &Multipliers, words: &[u64]) -> NameHash {
    words
        .iter()
        .zip(multipliers)
        .fold(NameHash::default(), |hash, (word, multiplier)| {
            hash.add(*word, *multiplier)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_case_agrees_with_ascii_on_every_octet_at_every_place() {
        for octet in 0..=u8::MAX {
            for place in 0..8 {
                for other in [0, b'A', b'Z', b'z', 0x7f, 0x80, 0xff] {
                    let mut bytes = [other; 8];
                    bytes[place] = octet;
                    let want = bytes.map(|b| b.to_ascii_lowercase());
                    assert_eq!(lower_case(u64::from_le_bytes(bytes)).to_le_bytes(), want);
                }
            }
        }
    }

    #[test]
    fn first_zero_octet_is_found() {
        for zeros in 0..=u8::MAX {
            let bytes = core::array::from_fn(|i| {
                if zeros >> i & 1 == 1 {
                    0
                } else {
                    1 + i as u8 * 31
                }
            });
            let marks = zero_octets(u64::from_le_bytes(bytes));
            let want = bytes.iter().position(|b| *b == 0);
            assert_eq!(
                (marks != 0).then(|| marks.trailing_zeros() as usize / 8),
                want
            );
        }
    }

    #[test]
    fn names_end_as_their_zones_do() {
        let end = |name: &[u8]| u64::from_le_bytes(*name.last_chunk().unwrap());
        let mut ends = Ends::NONE;
        ends.add(b"\x07example\x03com\0");
        ends.add(b"\x02ab\x03net\0");
        assert!(ends.contains(end(b"\x03www\x07example\x03com\0")));
        assert!(ends.contains(end(b"\x01a\x02ab\x03net\0")));
        // Not by certainty, but with these two and this hash.
        for name in [&b"\x07outside\x03net\0"[..], b"\x04test\x03org\0"] {
            assert!(!ends.contains(end(name)), "{name:?}");
        }
        ends.add(b"\x01a\x02nl\0");
        assert_eq!(ends, Ends([u64::MAX; 8]));
    }

    #[test]
    fn names_that_differ_only_in_case_have_the_same_words() {
        let (mixed, small) = (
            b"\x03WwW\x07eXample\x03com\0",
            b"\x03www\x07example\x03com\0",
        );
        assert_eq!(words(mixed), words(small));
        // And the same hash, without having been made words of one case.
        let hash = |name: &[u8]| {
            let (words, _) = name.as_chunks();
            let multipliers = multipliers(7);
            let words = words.iter().zip(multipliers);
            words
                .fold(NameHash::default(), |hash, (word, multiplier)| {
                    hash.add(u64::from_le_bytes(*word), multiplier)
                })
                .tag(0)
        };
        assert_eq!(hash(mixed), hash(small));
        assert_ne!(hash(mixed), hash(b"\x03www\x07example\x03net\0"));
        assert!(words(&[1; 256]).is_none());
    }

    #[test]
    fn names_that_differ_in_one_octet_differ_in_their_hashes() {
        extern crate std;
        let whole = [b'x'; 255];
        for seed in [0, 1, 0x0123_4567_89ab_cdef] {
            let mut hashes = std::collections::HashSet::new();
            for place in 0..whole.len() {
                for octet in [b'-', b'y', b'z'] {
                    let mut name = whole;
                    name[place] = octet;
                    let (words, used) = words(&name).unwrap();
                    let hash = hash(&multipliers(seed), &words[..used]);
                    assert!(
                        hashes.insert((hash.home(u32::MAX), hash.tag(255))),
                        "{place}"
                    );
                }
            }
        }
    }

    #[test]
    fn words_are_those_of_the_padded_name_from_its_end_on() {
        let name: [u8; 255] = core::array::from_fn(|i| i as u8);
        for len in 0..=255 {
            let (words, used) = words(&name[..len]).unwrap();
            let padded: [u8; 8 * MAX_NAME_WORDS] = padded(&name[..len]).unwrap();
            assert_eq!(used, len.div_ceil(8));
            for (word, octets) in words.iter().zip(padded.rchunks(8)) {
                assert_eq!(word.to_le_bytes(), octets, "{len}");
            }
        }
        assert!(padded::<32>(&name[..33]).is_none());
    }

    #[test]
    fn of_a_word_the_first_octets_of_a_name_are_its_last() {
        let word = u64::from_le_bytes(*b"12345678");
        assert_eq!(first_octets(word, 1).to_le_bytes(), *b"\0\0\0\0\0\0\x008");
        assert_eq!(first_octets(word, 7).to_le_bytes(), *b"\x002345678");
    }
}
