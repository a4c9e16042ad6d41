//! Health of a WAN link: its carrier and its targets together.

use serde::{Deserialize, Serialize};

use super::Verdict;

/// Whether a link's interface has carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// The link has no interface in the configuration.
    NotWatched,
    /// The interface is administratively up and has carrier.
    Up,
    /// The interface has no carrier, is administratively down or does not exist.
    Down,
}

/// How many of a link's targets have which verdict; collected from the verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Targets that answer.
    pub up: usize,
    /// Targets that do not.
    pub down: usize,
    /// Targets not heard of yet.
    pub unknown: usize,
}

impl FromIterator<Verdict> for Targets {
    fn from_iter<I: IntoIterator<Item = Verdict>>(verdicts: I) -> Self {
        let mut targets = Self::default();
        for verdict in verdicts {
            match verdict {
                Verdict::Up => targets.up += 1,
                Verdict::Down => targets.down += 1,
                Verdict::Unknown => targets.unknown += 1,
            }
        }
        targets
    }
}

/// The verdict on a link.
///
/// Up while its interface has carrier, or is not watched, and at least `min_up` of its
/// targets are up; a link cannot ask for more targets than it has, so one without targets
/// is as its carrier. Lost carrier needs no other witness. The verdict is unknown only as
/// long as the targets not heard of yet could turn it.
#[must_use]
pub fn link_verdict(carrier: Carrier, targets: Targets, min_up: usize) -> Verdict {
    let Targets { up, down, unknown } = targets;
    let needed = min_up.min(up + down + unknown);

    match carrier {
        Carrier::Down => Verdict::Down,
        Carrier::Up | Carrier::NotWatched if up >= needed => Verdict::Up,
        Carrier::Up | Carrier::NotWatched if up + unknown < needed => Verdict::Down,
        Carrier::Up | Carrier::NotWatched => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Verdict::{Down, Unknown, Up};
    use super::*;

    #[test]
    fn link_is_up_with_carrier_and_enough_targets() {
        // (targets, min_up, verdict with carrier)
        let table: &[(&[Verdict], usize, Verdict)] = &[
            (&[], 0, Up),
            (&[], 1, Up),
            (&[Up], 1, Up),
            (&[Down], 1, Down),
            (&[Unknown], 1, Unknown),
            (&[Down], 0, Up),
            (&[Unknown], 0, Up),
            // One of several is enough, and decides early.
            (&[Up, Down, Down], 1, Up),
            (&[Up, Unknown, Unknown], 1, Up),
            (&[Down, Down, Unknown], 1, Unknown),
            (&[Down, Down, Down], 1, Down),
            // Two of three.
            (&[Up, Up, Down], 2, Up),
            (&[Up, Up, Unknown], 2, Up),
            (&[Up, Down, Down], 2, Down),
            (&[Up, Down, Unknown], 2, Unknown),
            (&[Down, Down, Unknown], 2, Down),
            // All of them; more than there are means all of them.
            (&[Up, Up], 2, Up),
            (&[Up, Down], 2, Down),
            (&[Up, Up], 3, Up),
            (&[Up, Down], 3, Down),
        ];
        for &(targets, min_up, want) in table {
            let tally = targets.iter().copied().collect();
            for (carrier, want) in [
                (Carrier::Up, want),
                (Carrier::NotWatched, want),
                (Carrier::Down, Down),
            ] {
                assert_eq!(
                    link_verdict(carrier, tally, min_up),
                    want,
                    "{carrier:?} {targets:?} min_up {min_up}",
                );
            }
        }
    }

    proptest! {
        /// A decided verdict stays whatever the unknown targets turn out to be, and an
        /// undecided one can still turn out both ways.
        #[test]
        fn unknown_means_undecided(
            up in 0..5_usize, down in 0..5_usize, unknown in 0..5_usize, min_up in 0..8_usize,
        ) {
            let verdict = |up, down, unknown| {
                link_verdict(Carrier::Up, Targets { up, down, unknown }, min_up)
            };
            let best = verdict(up + unknown, down, 0);
            let worst = verdict(up, down + unknown, 0);
            let want = if best == worst { best } else { Unknown };
            prop_assert_eq!(verdict(up, down, unknown), want);
        }
    }
}
