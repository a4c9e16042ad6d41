//! Choices from a seed.

use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// The choices that belong to a seed.
pub(super) fn from_seed(seed: u64) -> TestRng {
    let mut octets = [0; 32];
    octets[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &octets)
}

/// One of several, each as likely as the others.
pub(super) fn one_of<'a, T>(rng: &mut TestRng, list: &'a [T]) -> &'a T {
    &list[rng.random_range(0..list.len())]
}

/// One of several, each as likely as its weight says.
pub(super) fn weighted<'a, T>(rng: &mut TestRng, list: &'a [(u32, T)]) -> &'a T {
    &list[place(rng, list.iter().map(|(weight, _)| *weight))].1
}

/// A place in a list of weights, each as likely as its weight says.
pub(super) fn place(rng: &mut TestRng, weights: impl Iterator<Item = u32> + Clone) -> usize {
    let mut rest = rng.random_range(0..weights.clone().sum());
    let is_here = |weight| match u32::checked_sub(rest, weight) {
        Some(less) => {
            rest = less;
            false
        }
        None => true,
    };
    let place = weights.into_iter().position(is_here);
    place.expect("weights add up")
}

/// So many times of a hundred.
pub(super) fn percent(rng: &mut TestRng, times: u32) -> bool {
    rng.random_range(0..100) < times
}

/// Any octets, so many.
pub(super) fn octets(rng: &mut TestRng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.random()).collect()
}
