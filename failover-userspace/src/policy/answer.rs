//! What a decision consists of.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::model::Tier;

/// What a service's names resolve to, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What is answered.
    pub answer: Answer,
    /// Why.
    pub reason: Reason,
}

/// What a service's names resolve to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// These addresses: at least one, each once, in configured order.
    Addresses(Vec<Weighted>),
    /// NOERROR without an answer.
    Empty,
    /// SERVFAIL.
    Servfail,
}

/// An address with its share of first places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Weighted {
    /// The address.
    pub address: IpAddr,
    /// How often it comes first, in proportion to the others' weights.
    pub weight: NonZeroU16,
}

/// Why an answer is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// This tier is the highest with a candidate.
    Tier(Tier),
    /// No tier has a candidate.
    AllDown(Fallback),
}

/// What stands in when no tier has a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// As if everything were up; then this tier wins.
    FailOpen(Tier),
    /// Failing open, too, finds no address: every server is disabled, or the like.
    Nothing,
    /// The last answer that had a candidate.
    Last,
    /// No address, on purpose.
    Empty,
    /// An error, on purpose.
    Servfail,
    /// The configured addresses.
    List,
}

impl Decision {
    /// Whether some tier had a candidate: the answer rests on health, not on `on_all_down`.
    #[must_use]
    pub const fn had_candidate(&self) -> bool {
        matches!(self.reason, Reason::Tier(_))
    }
}

impl Answer {
    /// The addresses; none for an empty answer or an error.
    #[must_use]
    pub fn addresses(&self) -> &[Weighted] {
        match self {
            Self::Addresses(addresses) => addresses,
            Self::Empty | Self::Servfail => &[],
        }
    }

    /// Each address once, at its first place, with the sum of its weights.
    pub(super) fn merged(addresses: impl IntoIterator<Item = Weighted>) -> Self {
        let mut merged: Vec<Weighted> = Vec::new();
        for next in addresses {
            match merged.iter_mut().find(|seen| seen.address == next.address) {
                Some(seen) => seen.weight = seen.weight.saturating_add(next.weight.get()),
                None => merged.push(next),
            }
        }
        if merged.is_empty() {
            Self::Empty
        } else {
            Self::Addresses(merged)
        }
    }
}

impl Reason {
    /// The tier that is answered: the highest with a candidate, or the one failed open to.
    #[must_use]
    pub const fn tier(self) -> Option<Tier> {
        match self {
            Self::Tier(tier) | Self::AllDown(Fallback::FailOpen(tier)) => Some(tier),
            Self::AllDown(_) => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("none"),
            Self::Servfail => f.write_str("SERVFAIL"),
            Self::Addresses(addresses) => {
                for (i, Weighted { address, weight }) in addresses.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{address}")?;
                    if weight.get() != 1 {
                        write!(f, " (weight {weight})")?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tier(tier) => write!(f, "{tier} is the highest tier with a candidate"),
            Self::AllDown(fallback) => write!(f, "no candidate: {fallback}"),
        }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailOpen(tier) => write!(f, "{tier}, as if everything were up"),
            Self::Nothing => f.write_str("nothing to answer even if everything were up"),
            Self::Last => f.write_str("the last answer that had one"),
            Self::Empty => f.write_str("an empty answer, as configured"),
            Self::Servfail => f.write_str("SERVFAIL, as configured"),
            Self::List => f.write_str("the configured addresses"),
        }
    }
}
