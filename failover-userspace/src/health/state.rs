//! What the checks say, what the operator says, and what follows from both.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the checks say about a server or a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It serves.
    Up,
    /// It does not.
    Down,
    /// Nothing has been heard yet.
    #[default]
    Unknown,
}

/// What the operator says about a server or a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// As the checks say.
    #[default]
    Auto,
    /// Up, whatever the checks say.
    Up,
    /// Down, whatever the checks say.
    Down,
    /// Not answered any more, but still checked.
    Drain,
    /// Not answered and not checked.
    Maint,
}

/// Admin state over verdict: what the policy uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effective {
    /// May be answered.
    Up,
    /// Does not work, say the checks or the operator.
    Down,
    /// Taken out by the operator, still checked.
    Drain,
    /// Taken out by the operator, not checked.
    Maint,
    /// Not known yet; not answered.
    #[default]
    Unknown,
}

/// Admin state over verdict.
#[must_use]
pub const fn effective(admin: AdminState, verdict: Verdict) -> Effective {
    match (admin, verdict) {
        (AdminState::Up, _) | (AdminState::Auto, Verdict::Up) => Effective::Up,
        (AdminState::Down, _) | (AdminState::Auto, Verdict::Down) => Effective::Down,
        (AdminState::Drain, _) => Effective::Drain,
        (AdminState::Maint, _) => Effective::Maint,
        (AdminState::Auto, Verdict::Unknown) => Effective::Unknown,
    }
}

impl Verdict {
    /// The word used in status output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

impl AdminState {
    /// All admin states, in the order in which the command line lists them.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Up, Self::Down, Self::Drain, Self::Maint];

    /// The word used on the command line and in status output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Up => "up",
            Self::Down => "down",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// Whether probes run in this state.
    #[must_use]
    pub const fn is_checked(self) -> bool {
        !matches!(self, Self::Maint)
    }
}

impl Effective {
    /// The word used in status output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Drain => "drain",
            Self::Maint => "maint",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the policy may answer it.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Up)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The word is no admin state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown state {0:?}: expected auto, up, down, drain or maint")]
pub struct UnknownAdminState(String);

impl FromStr for AdminState {
    type Err = UnknownAdminState;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or_else(|| UnknownAdminState(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_state_wins_over_verdict() {
        use Effective as E;
        // (admin state, effective state with verdict up, down, unknown)
        let table = [
            (AdminState::Auto, [E::Up, E::Down, E::Unknown]),
            (AdminState::Up, [E::Up; 3]),
            (AdminState::Down, [E::Down; 3]),
            (AdminState::Drain, [E::Drain; 3]),
            (AdminState::Maint, [E::Maint; 3]),
        ];
        for (admin, want) in table {
            let got = [Verdict::Up, Verdict::Down, Verdict::Unknown].map(|v| effective(admin, v));
            assert_eq!(got, want, "{admin}");
        }
    }

    #[test]
    fn only_up_is_up() {
        use Effective as E;
        let up = [E::Up, E::Down, E::Drain, E::Maint, E::Unknown].map(E::is_up);
        assert_eq!(up, [true, false, false, false, false]);
    }

    #[test]
    fn only_maint_is_not_checked() {
        let checked = AdminState::ALL.map(AdminState::is_checked);
        assert_eq!(checked, [true, true, true, true, false]);
    }

    #[test]
    fn admin_states_are_read_as_they_are_written() {
        for state in AdminState::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
            let json = serde_json::to_string(&state).expect("a word");
            assert_eq!(json, format!("\"{state}\""));
        }
        for word in ["", "UP", "up ", "on", "maintenance"] {
            let error = word.parse::<AdminState>().expect_err(word);
            assert_eq!(
                error.to_string(),
                format!("unknown state {word:?}: expected auto, up, down, drain or maint"),
            );
        }
    }

    #[test]
    fn json_uses_the_words_of_display() {
        for verdict in [Verdict::Up, Verdict::Down, Verdict::Unknown] {
            let json = serde_json::to_string(&verdict).expect("a word");
            assert_eq!(json, format!("\"{verdict}\""));
        }
        use Effective as E;
        for state in [E::Up, E::Down, E::Drain, E::Maint, E::Unknown] {
            let json = serde_json::to_string(&state).expect("a word");
            assert_eq!(json, format!("\"{state}\""));
        }
    }
}
