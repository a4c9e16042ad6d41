//! Health of a server: all its checks together.

use super::Verdict;

/// The verdict on a server: up while each of its checks says so, down as soon as one says so.
///
/// It is unknown while a check that has not been heard of could still turn it, and for a
/// server without checks.
#[must_use]
pub fn server_verdict(checks: impl IntoIterator<Item = Verdict>) -> Verdict {
    let both = |a, b| match (a, b) {
        (Verdict::Down, _) | (_, Verdict::Down) => Verdict::Down,
        (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
        (Verdict::Up, Verdict::Up) => Verdict::Up,
    };
    checks.into_iter().reduce(both).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::Verdict::{Down, Unknown, Up};
    use super::*;
    use crate::health::Machine;

    #[test]
    fn all_checks_must_pass() {
        let table: &[(&[Verdict], Verdict)] = &[
            (&[], Unknown),
            (&[Up], Up),
            (&[Down], Down),
            (&[Unknown], Unknown),
            (&[Up, Up], Up),
            (&[Up, Down], Down),
            (&[Down, Up], Down),
            (&[Up, Unknown], Unknown),
            (&[Unknown, Up], Unknown),
            // One that fails decides early.
            (&[Unknown, Down], Down),
            (&[Down, Unknown], Down),
            (&[Down, Down], Down),
            (&[Up, Up, Unknown], Unknown),
            (&[Up, Unknown, Down], Down),
        ];
        for (checks, want) in table {
            assert_eq!(server_verdict(checks.iter().copied()), *want, "{checks:?}");
        }
    }

    /// `a` and `b` are checks that succeed, `A` and `B` such that fail; after each the verdict
    /// on the server, with rise 2 and fall 2 for `a`, rise 1 and fall 1 for `b`.
    #[test]
    fn each_check_counts_for_itself() {
        for (outcomes, want) in [
            ("ab", "?u"),
            ("aB", "?d"),
            ("Ab", "dd"),
            // The failures of one are no failures of the other.
            ("abABbA", "?uudud"),
            // Both must come back, each in its own time.
            ("abAABabaa", "?uudddduu"),
        ] {
            let mut machines = [Machine::new(2, 2), Machine::new(1, 1)];
            let verdicts = outcomes.chars().map(|outcome| {
                let machine = usize::from(outcome.eq_ignore_ascii_case(&'b'));
                machines[machine].on_outcome(outcome.is_lowercase());
                match server_verdict(machines.iter().map(Machine::verdict)) {
                    Up => 'u',
                    Down => 'd',
                    Unknown => '?',
                }
            });
            assert_eq!(verdicts.collect::<String>(), want, "{outcomes}");
        }
    }

    proptest! {
        /// Unknown is what could still turn out both ways; the order does not matter.
        #[test]
        fn unknown_means_undecided(checks in vec(prop_oneof![Just(Up), Just(Down), Just(Unknown)], 1..6)) {
            let verdict = |unknown| {
                let known = |check: &Verdict| if *check == Unknown { unknown } else { *check };
                server_verdict(checks.iter().map(known))
            };
            let (best, worst) = (verdict(Up), verdict(Down));
            let want = if best == worst { best } else { Unknown };
            prop_assert_eq!(server_verdict(checks.iter().copied()), want);
            prop_assert_eq!(server_verdict(checks.iter().rev().copied()), want);
        }
    }
}
