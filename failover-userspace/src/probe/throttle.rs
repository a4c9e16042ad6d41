//! Warnings that do not flood the log.

use std::time::{Duration, Instant};

/// Lets one event per period through and counts the others. Pure.
#[derive(Clone, Debug)]
pub(super) struct Throttle {
    period: Duration,
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    pub(super) const fn new(period: Duration) -> Self {
        Self {
            period,
            last: None,
            suppressed: 0,
        }
    }

    /// How many events were suppressed before this one; `None`: this one is, too.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + self.period) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_per_period() {
        let t0 = Instant::now();
        let mut throttle = Throttle::new(Duration::from_secs(10));
        for (at, want) in [
            (0, Some(0)),
            (1, None),
            (9, None),
            (10, Some(2)),
            (11, None),
            (100, Some(1)),
        ] {
            assert_eq!(throttle.admit(t0 + Duration::from_secs(at)), want, "{at}");
        }
    }
}
