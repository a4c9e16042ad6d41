//! The machine that turns outcomes of probes into a verdict.
//!
//! ```text
//!            first probe succeeds  ┌─────────┐  first probe fails
//!          ┌───────────────────────┤ Unknown ├───────────────────────┐
//!          │                       └─────────┘                       │
//!          ▼                                                         ▼
//!   ┌──────────────┐   fall = 1 and a failure                 ┌──────────────┐
//!   │      Up      ├─────────────────────────────────────────►│     Down     │
//!   │    (firm)    │◄─────────────────────────────────────────┤    (firm)    │
//!   └──┬───────────┘                 rise = 1 and a success   └──┬───────────┘
//!      │       ▲                                                 │       ▲
//! failure    rise successes                                success     failure
//!      ▼       │ in a row                                        ▼       │
//!   ┌──────────┴───┐   failures reach fall                    ┌──────────┴───┐
//!   │      Up      ├──────────────► Down (firm)               │     Down     │
//!   │  (in doubt)  │                                          │  (in doubt)  │
//!   └──────────────┘   Up (firm) ◄────────────────────────────┤              │
//!                                   rise successes in a row   └──────────────┘
//! ```
//!
//! Failures need not be consecutive to add up: a single success among them leaves their
//! count as it is, and only `rise` successes in a row clear it. So a server that fails two
//! probes of three goes down (unless with `rise = 1` each success is enough). While in
//! doubt, probes run at the fast pace.

use super::Verdict;

#[cfg(test)]
mod tests;

/// Health of one probed target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    rise: u8,
    fall: u8,
    state: State,
}

/// A change of verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flip {
    /// The verdict until now.
    pub from: Verdict,
    /// The verdict from now on.
    pub to: Verdict,
}

/// How soon the next probe is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pace {
    /// After `interval`: the verdict is firm, or the first probe has yet to tell.
    #[default]
    Normal,
    /// After `fastinter`: the verdict is in doubt.
    Fast,
    /// Not at all: nobody wants to know. No machine asks for it; the operator may.
    Paused,
}

/// Counts stay below the limit at which they would change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown,
    /// `failures` not cleared yet, and `successes` in a row since the last of them;
    /// without failures, successes are not counted.
    Up {
        failures: u8,
        successes: u8,
    },
    /// `successes` in a row.
    Down {
        successes: u8,
    },
}

impl State {
    const FIRMLY_UP: Self = Self::Up {
        failures: 0,
        successes: 0,
    };
    const FIRMLY_DOWN: Self = Self::Down { successes: 0 };
}

impl Machine {
    /// A target not probed yet: its first probe decides. A `rise` or `fall` of 0 counts as 1.
    #[must_use]
    pub fn new(rise: u8, fall: u8) -> Self {
        Self::restore(rise, fall, Verdict::Unknown)
    }

    /// A target with a verdict saved before a restart or a reload, firm until probes
    /// cast doubt on it. With [`Verdict::Unknown`] the first probe decides.
    #[must_use]
    pub fn restore(rise: u8, fall: u8, verdict: Verdict) -> Self {
        Self {
            rise,
            fall,
            state: match verdict {
                Verdict::Up => State::FIRMLY_UP,
                Verdict::Down => State::FIRMLY_DOWN,
                Verdict::Unknown => State::Unknown,
            },
        }
    }

    /// The same target under other rules: the verdict stays, and so does what was counted, as
    /// far as it leaves the verdict to the next probe.
    #[must_use]
    pub fn adjusted(&self, rise: u8, fall: u8) -> Self {
        let state = match self.state {
            // Without failures, successes are not counted.
            State::Up { .. } if fall <= 1 => State::FIRMLY_UP,
            State::Up {
                failures,
                successes,
            } => State::Up {
                failures: failures.min(fall - 1),
                successes: successes.min(rise.saturating_sub(1)),
            },
            State::Down { successes } => State::Down {
                successes: successes.min(rise.saturating_sub(1)),
            },
            State::Unknown => State::Unknown,
        };
        Self { rise, fall, state }
    }

    /// Counts one probe, and tells whether it turned the verdict.
    pub fn on_outcome(&mut self, success: bool) -> Option<Flip> {
        let from = self.verdict();
        self.state = if success {
            self.after_success()
        } else {
            self.after_failure()
        };
        let to = self.verdict();

        (from != to).then_some(Flip { from, to })
    }

    /// What the probes say so far.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self.state {
            State::Unknown => Verdict::Unknown,
            State::Up { .. } => Verdict::Up,
            State::Down { .. } => Verdict::Down,
        }
    }

    /// How soon the next probe is due: [`Pace::Normal`] or [`Pace::Fast`].
    #[must_use]
    pub const fn pace(&self) -> Pace {
        match self.state {
            State::Unknown | State::Up { failures: 0, .. } | State::Down { successes: 0 } => {
                Pace::Normal
            }
            State::Up { .. } | State::Down { .. } => Pace::Fast,
        }
    }

    const fn after_success(&self) -> State {
        match self.state {
            State::Unknown | State::Up { failures: 0, .. } => State::FIRMLY_UP,
            State::Up { successes, .. } | State::Down { successes }
                if successes.saturating_add(1) >= self.rise =>
            {
                State::FIRMLY_UP
            }
            State::Up {
                failures,
                successes,
            } => State::Up {
                failures,
                successes: successes.saturating_add(1),
            },
            State::Down { successes } => State::Down {
                successes: successes.saturating_add(1),
            },
        }
    }

    const fn after_failure(&self) -> State {
        match self.state {
            State::Unknown | State::Down { .. } => State::FIRMLY_DOWN,
            State::Up { failures, .. } if failures.saturating_add(1) >= self.fall => {
                State::FIRMLY_DOWN
            }
            State::Up { failures, .. } => State::Up {
                failures: failures.saturating_add(1),
                successes: 0,
            },
        }
    }
}
