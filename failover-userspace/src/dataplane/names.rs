//! The hash table of names: buckets of two, and chains of them for what finds its bucket full.

use std::hash::{BuildHasher, RandomState};

use failover_common::layout::{LongName, NameBucket, NameSlot};
use failover_common::question::{self, Multipliers, NameHash};

use super::Error;
use super::mapped::Mapped;
use super::pool::Pool;
use crate::model::Name;

/// Fewest buckets.
const MIN_HOMES: u32 = 64;
/// Hashes of which the best is taken: names that count, as many do, suit some better than others.
const CANDIDATES: usize = 4;

/// Size and hash of a table that holds a given set of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Of the hash.
    pub multipliers: Multipliers,
    /// Buckets that names are looked for in first: about as many as there are names, so that one in
    /// ten finds its bucket full.
    pub homes: u32,
    /// All buckets.
    pub buckets: u32,
    /// Names that do not fit their slot.
    pub long_names: u32,
}

impl Shape {
    /// Finds a hash under which few names find their bucket full, no chain is too long, and no two names
    /// of a chain share a tag.
    pub(super) fn find<'a, I>(names: I) -> Self
    where
        I: Iterator<Item = &'a Name> + Clone,
    {
        let homes = u32::try_from(names.clone().count())
            .unwrap_or(u32::MAX)
            .max(MIN_HOMES);
        let random = RandomState::new();
        let (further, multipliers) = (0u64..)
            .map(|attempt| question::multipliers(random.hash_one(attempt)))
            .filter_map(|multipliers| {
                let further = further_buckets(names.clone(), &multipliers, homes)?;
                Some((further, multipliers))
            })
            .take(CANDIDATES)
            .min_by_key(|(further, _)| *further)
            .expect("there is no end of them");
        Self {
            multipliers,
            homes,
            buckets: homes + further,
            long_names: names
                .filter(|name| name.len() > NameSlot::INLINE)
                .count()
                .max(1) as u32,
        }
    }
}

/// How many buckets the chains need beside the homes; `None` if the hash does not do.
fn further_buckets<'a>(
    names: impl Iterator<Item = &'a Name>,
    multipliers: &Multipliers,
    homes: u32,
) -> Option<u32> {
    let mut places: Vec<(u32, u32)> = names
        .filter_map(|name| {
            hash(multipliers, name).map(|hash| (hash.home(homes), hash.tag(name.len() as u8)))
        })
        .collect();
    places.sort_unstable();
    let mut further = 0;
    for chain in places.chunk_by(|a, b| a.0 == b.0) {
        let buckets = chain.len().div_ceil(NameBucket::SLOTS);
        if buckets > NameBucket::MAX_CHAIN || chain.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        further += buckets as u32 - 1;
    }
    Some(further)
}

fn hash(multipliers: &Multipliers, name: &Name) -> Option<NameHash> {
    let (words, used) = question::words(name.as_slice())?;
    Some(question::hash(multipliers, &words[..used]))
}

/// The table in the maps.
pub(super) struct Names {
    shape: Shape,
    buckets: Mapped<NameBucket>,
    long: Pool<LongName>,
    /// The next bucket for a chain.
    next_spare: u32,
}

/// What a name leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// See [`NameSlot::target`].
    pub target: u32,
    /// See [`NameSlot::tail`].
    pub tail: u32,
    /// See [`NameSlot::sums`].
    pub sums: [u16; 3],
}

impl Names {
    /// An empty table in fresh maps, which are all zeros: no slot is in use.
    pub(super) fn new(shape: Shape, buckets: Mapped<NameBucket>, long: Pool<LongName>) -> Self {
        const { assert!(NameSlot::FREE.tag == 0) };
        Self {
            shape,
            buckets,
            long,
            next_spare: shape.homes,
        }
    }

    /// Adds a name. No reader may look at the table yet.
    pub(super) fn insert(&mut self, name: &Name, target: Target) -> Result<(), Error> {
        let octets = name.as_slice();
        let too_long = || Error::Name {
            name: name.to_string(),
        };
        let (words, used) = question::words(octets).ok_or_else(too_long)?;
        let hash = question::hash(&self.shape.multipliers, &words[..used]);
        let mut slot = NameSlot {
            tag: hash.tag(octets.len() as u8),
            target: target.target,
            tail: target.tail,
            sums: target.sums,
            ..NameSlot::FREE
        };
        if let Some(padded) = question::padded(octets) {
            slot.name = padded;
        } else {
            let name = question::padded(octets).ok_or_else(too_long)?;
            let index = self.long.put(&LongName { name })?;
            slot.name[..8].copy_from_slice(&u64::from(index).to_ne_bytes());
        }
        let mut index = hash.home(self.shape.homes);
        loop {
            let mut bucket = self.buckets.read(index);
            let [first, _] = &mut bucket.slots;
            let (next, is_first) = (first.next, first.tag == NameSlot::FREE.tag);
            if let Some(free) = bucket
                .slots
                .iter_mut()
                .find(|slot| slot.tag == NameSlot::FREE.tag)
            {
                *free = NameSlot {
                    next: if is_first { next } else { 0 },
                    ..slot
                };
                self.buckets.write(index, &bucket);
                return Ok(());
            }
            if next != 0 {
                index = next;
                continue;
            }
            if self.next_spare >= self.buckets.len() {
                return Err(Error::Full {
                    map: "NAMES",
                    needed: 1,
                    available: 0,
                });
            }
            bucket.slots[0].next = self.next_spare;
            self.buckets.write(index, &bucket);
            index = self.next_spare;
            self.next_spare += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::base::name::UncertainName;
    use std::str::FromStr;

    fn name(text: &str) -> Name {
        match UncertainName::<bytes::Bytes>::from_str(text).unwrap() {
            UncertainName::Absolute(name) => name,
            UncertainName::Relative(name) => name.into_absolute().unwrap(),
        }
    }

    #[test]
    fn a_shape_has_room_for_every_name() {
        let names: Vec<Name> = (0..5000)
            .map(|i| name(&format!("host-{i}.service.example.com")))
            .collect();
        let shape = Shape::find(names.iter());
        assert_eq!(shape.homes, 5000);
        let further = further_buckets(names.iter(), &shape.multipliers, shape.homes).unwrap();
        assert_eq!(shape.buckets, 5000 + further);
        // Of 5 000 buckets that get one name each on average, one in twelve would get three or more by
        // chance; names that count are spread more evenly.
        assert!(further < 5000 / 10, "{further}");
    }

    #[test]
    fn the_same_name_twice_is_never_accepted() {
        let names = [name("a.example"), name("a.example")];
        assert_eq!(
            further_buckets(names.iter(), &question::multipliers(1), 64),
            None
        );
    }
}
