//! The hash table of names: home slots, and chains for what collides.

use std::hash::{BuildHasher, RandomState};
use std::mem::offset_of;

use failover_common::layout::{LongName, NameSlot};
use failover_common::question::{self, NameHash};

use super::Error;
use super::mapped::Mapped;
use super::pool::Pool;
use crate::model::Name;

/// Longest chain the program follows.
const MAX_CHAIN: usize = 16;

/// Size and seed of a table that holds a given set of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Seed of the hash.
    pub seed: u64,
    /// Home slots, less one.
    pub mask: u32,
    /// All slots.
    pub slots: u32,
    /// Names that do not fit their slot.
    pub long_names: u32,
}

impl Shape {
    /// Finds a seed under which no chain is too long and no two names of a chain share a tag.
    pub(super) fn find<'a, I>(names: I) -> Self
    where
        I: Iterator<Item = &'a Name> + Clone,
    {
        let count = names.clone().count();
        let homes = count.next_power_of_two().max(64) as u32;
        let random = RandomState::new();
        let mut attempt = 0u64;
        loop {
            let seed = random.hash_one(attempt);
            if let Some(collided) = collisions(names.clone(), seed, homes - 1) {
                return Self {
                    seed,
                    mask: homes - 1,
                    slots: homes + collided + 1,
                    long_names: names
                        .filter(|name| name.len() > NameSlot::INLINE)
                        .count()
                        .max(1) as u32,
                };
            }
            attempt += 1;
        }
    }
}

/// How many names do not get a home slot; `None` if the seed does not do.
fn collisions<'a>(names: impl Iterator<Item = &'a Name>, seed: u64, mask: u32) -> Option<u32> {
    let mut places: Vec<(u32, u32)> = names
        .filter_map(|name| {
            hash(seed, name).map(|hash| (hash.home(mask), hash.tag(name.len() as u8)))
        })
        .collect();
    places.sort_unstable();
    let mut collided = 0;
    for chain in places.chunk_by(|a, b| a.0 == b.0) {
        if chain.len() > MAX_CHAIN || chain.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        collided += chain.len() as u32 - 1;
    }
    Some(collided)
}

fn hash(seed: u64, name: &Name) -> Option<NameHash> {
    let (words, used) = question::words(name.as_slice())?;
    Some(question::hash(seed, &words[..used]))
}

/// The table in the maps.
pub(super) struct Names {
    shape: Shape,
    slots: Mapped<NameSlot>,
    long: Pool<LongName>,
    /// The next slot for a name that collides.
    next_spare: u32,
}

/// What a name leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// See [`NameSlot::target`].
    pub target: u32,
    /// See [`NameSlot::tail`].
    pub tail: u32,
}

impl Names {
    /// An empty table in fresh maps.
    pub(super) fn new(shape: Shape, mut slots: Mapped<NameSlot>, long: Pool<LongName>) -> Self {
        for index in 0..slots.len() {
            slots.write(index, &NameSlot::FREE);
        }
        Self {
            shape,
            slots,
            long,
            next_spare: shape.mask + 1,
        }
    }

    /// Adds a name that is visible from generation `born` on.
    pub(super) fn insert(&mut self, name: &Name, target: Target, born: u64) -> Result<(), Error> {
        let octets = name.as_slice();
        let too_long = || Error::Name {
            name: name.to_string(),
        };
        let (words, used) = question::words(octets).ok_or_else(too_long)?;
        let hash = question::hash(self.shape.seed, &words[..used]);
        let mut slot = NameSlot {
            born,
            died: u64::MAX,
            tag: hash.tag(octets.len() as u8),
            next: 0,
            target: target.target,
            tail: target.tail,
            name: [0; NameSlot::INLINE],
        };
        if let Some(padded) = question::padded(octets) {
            slot.name = padded;
        } else {
            let name = question::padded(octets).ok_or_else(too_long)?;
            let index = self.long.put(&LongName { name })?;
            slot.name[..8].copy_from_slice(&u64::from(index).to_ne_bytes());
        }
        let home = hash.home(self.shape.mask);
        let mut last = home;
        let first = self.slots.read(home);
        if first.born == NameSlot::FREE.born {
            self.slots.write(
                home,
                &NameSlot {
                    next: first.next,
                    ..slot
                },
            );
            return Ok(());
        }
        let mut chain = 1;
        while let next @ 1.. = self.slots.read(last).next {
            last = next;
            chain += 1;
        }
        if self.next_spare >= self.slots.len() || chain >= MAX_CHAIN {
            return Err(Error::Full {
                map: "NAMES",
                needed: 1,
                available: 0,
            });
        }
        self.slots.write(self.next_spare, &slot);
        self.slots
            .publish_u32(last, offset_of!(NameSlot, next), self.next_spare);
        self.next_spare += 1;
        Ok(())
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
        assert_eq!(shape.mask, 8191);
        let collided = collisions(names.iter(), shape.seed, shape.mask).unwrap();
        assert_eq!(shape.slots, 8192 + collided + 1);
        // Of 5 000 names in 8 192 slots, about a quarter find their home taken.
        assert!((700..2000).contains(&collided), "{collided}");
    }

    #[test]
    fn the_same_name_twice_is_never_accepted() {
        let names = [name("a.example"), name("a.example")];
        assert_eq!(collisions(names.iter(), 1, 63), None);
    }
}
