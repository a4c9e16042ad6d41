//! When each probe runs: pure, with time as an argument.
//!
//! ```text
//!            first            second                third           every interval
//!  probe 0   |                                 |                                  |
//!  probe 1    |                          |                      |
//!  probe 2     |                    |                |
//!            └─ quick round ─┘ └── gaps shortened by half the phase ──┘ └ spread evenly ┘
//! ```
//!
//! The first round is quick, since nothing is published before it has ended. Each of the
//! two gaps after it is then shortened by half of the probe's phase, so that from the third
//! start on the probes of one interval are spread evenly over it, and yet no gap was ever
//! shorter than half an interval or longer than one.
//!
//! Gaps count from the time a start was due, not from the time it happened, so that
//! lateness does not add up; half of the gap is kept in any case. After a stall (a start more than half a gap late) they count
//! from the start itself, and the probe is brought to its phase anew.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::health::Pace;
use crate::model::Timing;

/// Distance of two starts in the first round.
const FIRST_ROUND_STEP: Duration = Duration::from_micros(100);

/// How many gaps it takes to bring a probe to its phase.
const SPREADING_GAPS: u32 = 2;

/// A probe while it is executed. Unlike a [`ProbeId`](crate::model::ProbeId) it means the same
/// after a reload, and is not given to another probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeKey(pub u32);

/// When added probes start for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At once, one after the other: somebody waits for the outcome.
    AtOnce,
    /// Spread over their interval: the verdict is known.
    Spread,
}

/// A probe that is to be executed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Which one.
    pub probe: ProbeKey,
    /// When it should have started.
    pub due: Instant,
}

/// What becomes of the outcome of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It counts.
    Report,
    /// The probe was paused or removed meanwhile, so it does not count.
    Discard,
}

/// The times of all probes. Every operation is O(log n).
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    entries: HashMap<ProbeKey, Entry>,
    /// Exactly the entries in state [`State::Waiting`].
    queue: BTreeSet<(Instant, ProbeKey)>,
}

#[derive(Clone, Debug)]
struct Entry {
    interval: Duration,
    fastinter: Duration,
    pace: Pace,
    state: State,
    /// When it starts for the first time.
    first: Instant,
    /// The last start; `None` before the first.
    last: Option<Last>,
    /// What each gap is shortened by while the probe is brought to its phase.
    lead: Duration,
    /// How many more gaps are shortened.
    shortened: u32,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    /// From when the next gap counts.
    counted: Instant,
    /// When it happened.
    happened: Instant,
}

impl Last {
    /// However late the last start was, at least half of the gap is kept.
    fn plus(self, gap: Duration) -> Instant {
        (self.counted + gap).max(self.happened + gap / 2)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting(Instant),
    Running,
    Paused,
}

impl Schedule {
    /// A schedule of probes with these timings, whose keys count from zero.
    ///
    /// All are at [`Pace::Normal`] and start for the first time at `now` or soon after.
    #[must_use]
    pub fn new(timings: impl IntoIterator<Item = Timing>, now: Instant) -> Self {
        let probes: Vec<_> = (0..).map(ProbeKey).zip(timings).collect();
        let mut schedule = Self::default();
        schedule.add(&probes, Begin::AtOnce, now);
        schedule
    }

    /// Adds probes, which are at [`Pace::Normal`]; those that are there already go on as before.
    pub fn add(&mut self, probes: &[(ProbeKey, Timing)], begin: Begin, now: Instant) {
        let total = u32::try_from(probes.len()).unwrap_or(u32::MAX);
        let mut groups: HashMap<Duration, (u32, u32)> = HashMap::new();
        for (_, timing) in probes {
            groups.entry(timing.interval).or_default().1 += 1;
        }
        for (place, (probe, timing)) in (0..total).zip(probes) {
            let (rank, size) = groups.get_mut(&timing.interval).expect("counted above");
            let (first, shortened) = match begin {
                Begin::AtOnce => {
                    let round = (FIRST_ROUND_STEP * total).min(timing.interval);
                    (now + round * place / total, SPREADING_GAPS)
                }
                Begin::Spread => (now + timing.interval * (2 * *rank + 1) / (2 * *size), 0),
            };
            let entry = Entry {
                interval: timing.interval,
                fastinter: timing.fastinter,
                pace: Pace::Normal,
                state: State::Waiting(first),
                first,
                last: None,
                lead: timing.interval * *rank / (*size * SPREADING_GAPS),
                shortened,
            };
            self.remove(*probe);
            self.entries.insert(*probe, entry);
            self.queue.insert((first, *probe));
            *rank += 1;
        }
    }

    /// Forgets a probe; the outcome of one that is running is discarded.
    pub fn remove(&mut self, probe: ProbeKey) {
        if let Some(entry) = self.entries.remove(&probe)
            && let State::Waiting(due) = entry.state
        {
            self.queue.remove(&(due, probe));
        }
    }

    /// When the next start is due; `None` while every probe is running or paused.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|&(due, _)| due)
    }

    /// Starts the probe that has been due for longest, if any is due at `now`.
    ///
    /// The probe is running until [`Self::finish`] is called, and is not started again before.
    pub fn start(&mut self, now: Instant) -> Option<Start> {
        let &(due, probe) = self.queue.first()?;
        if due > now {
            return None;
        }
        self.queue.pop_first();
        self.entries.get_mut(&probe)?.start(due, now);
        Some(Start { probe, due })
    }

    /// Ends the execution of a probe and plans its next.
    pub fn finish(&mut self, probe: ProbeKey, now: Instant) -> Finished {
        let Some(entry) = self.entries.get(&probe) else {
            return Finished::Discard;
        };
        let pace = entry.pace;
        if entry.state == State::Running {
            let due = entry.planned().map(|due| due.max(now));
            self.plan(probe, due);
        }
        match pace {
            Pace::Normal | Pace::Fast => Finished::Report,
            Pace::Paused => Finished::Discard,
        }
    }

    /// Changes how often a probe runs, from its last start on.
    ///
    /// A probe that is running goes on. One that was paused starts at once, but not before
    /// `fastinter` has passed since its last start. An unknown key is ignored.
    pub fn set_pace(&mut self, probe: ProbeKey, pace: Pace, now: Instant) {
        let Some(entry) = self.entries.get_mut(&probe) else {
            return;
        };
        let before = std::mem::replace(&mut entry.pace, pace);
        if before == pace || entry.state == State::Running {
            return;
        }
        let planned = if before == Pace::Paused {
            entry.shortened = SPREADING_GAPS;
            Some(
                entry
                    .last
                    .map_or(entry.first, |last| last.plus(entry.fastinter)),
            )
        } else {
            entry.planned()
        };
        self.plan(probe, planned.map(|due| due.max(now)));
    }

    fn plan(&mut self, probe: ProbeKey, due: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&probe) else {
            return;
        };
        if let State::Waiting(old) = entry.state {
            self.queue.remove(&(old, probe));
        }
        entry.state = due.map_or(State::Paused, State::Waiting);
        if let Some(due) = due {
            self.queue.insert((due, probe));
        }
    }
}

impl Entry {
    /// When the next start is due by the rules, be it in the past.
    fn planned(&self) -> Option<Instant> {
        let gap = self.gap()?;
        Some(self.last.map_or(self.first, |last| last.plus(gap)))
    }

    fn gap(&self) -> Option<Duration> {
        match self.pace {
            Pace::Normal if self.shortened > 0 => Some(self.interval - self.lead),
            Pace::Normal => Some(self.interval),
            Pace::Fast => Some(self.fastinter),
            Pace::Paused => None,
        }
    }

    fn start(&mut self, due: Instant, now: Instant) {
        if self.last.is_some() && self.pace == Pace::Normal {
            self.shortened = self.shortened.saturating_sub(1);
        }
        let stalled = self
            .gap()
            .is_some_and(|gap| now.saturating_duration_since(due) > gap / 2);
        if stalled {
            self.shortened = SPREADING_GAPS;
        }
        self.last = Some(Last {
            counted: if stalled { now } else { due },
            happened: now,
        });
        self.state = State::Running;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn timing(interval: u64, fastinter: u64) -> Timing {
        Timing {
            interval: ms(interval),
            fastinter: ms(fastinter),
            timeout: ms(500),
            rise: 2,
            fall: 3,
        }
    }

    /// What the outside does to one probe with interval 1 s and fastinter 200 ms, and what it does.
    enum Step {
        /// At this time the probe starts, having been due at the second.
        Starts(u64, u64),
        /// Until this time, inclusive, nothing starts.
        Quiet(u64),
        Ends(u64, Finished),
        Pace(u64, Pace),
    }
    use Finished::{Discard, Report};
    use Pace::{Fast, Normal, Paused};
    use Step::{Ends, Pace as SetPace, Quiet, Starts};

    #[test]
    fn one_probe() {
        let table: &[(&str, &[Step])] = &[
            (
                "interval counts from start to start",
                &[
                    Starts(0, 0),
                    Ends(300, Report),
                    Quiet(999),
                    Starts(1000, 1000),
                    Ends(1001, Report),
                    Quiet(1999),
                    Starts(2000, 2000),
                ],
            ),
            (
                "one at a time, and an outlasting one is followed at once",
                &[
                    Starts(0, 0),
                    Quiet(1700),
                    Ends(1700, Report),
                    Starts(1700, 1700),
                    Ends(1750, Report),
                    Quiet(2699),
                    Starts(2700, 2700),
                ],
            ),
            (
                "lateness does not add up",
                &[
                    Starts(0, 0),
                    Ends(10, Report),
                    Starts(1300, 1000),
                    Ends(1310, Report),
                    Quiet(1999),
                    Starts(2000, 2000),
                ],
            ),
            (
                "late, and then faster",
                &[
                    Starts(0, 0),
                    Ends(10, Report),
                    Starts(1400, 1000),
                    Ends(1410, Report),
                    SetPace(1420, Fast),
                    Quiet(1499),
                    Starts(1500, 1500),
                ],
            ),
            (
                "after a stall gaps count from the start",
                &[
                    Starts(0, 0),
                    Ends(10, Report),
                    Starts(1600, 1000),
                    Ends(1610, Report),
                    Quiet(2599),
                    Starts(2600, 2600),
                ],
            ),
            (
                "faster, counted from the last start",
                &[
                    Starts(0, 0),
                    Ends(10, Report),
                    SetPace(50, Fast),
                    Quiet(199),
                    Starts(200, 200),
                    Ends(210, Report),
                    Quiet(399),
                    Starts(400, 400),
                    SetPace(405, Normal),
                    Ends(410, Report),
                    Quiet(1399),
                    Starts(1400, 1400),
                ],
            ),
            (
                "faster, and already past",
                &[
                    Starts(0, 0),
                    Ends(10, Report),
                    SetPace(700, Fast),
                    Starts(700, 700),
                    Ends(710, Report),
                    Quiet(899),
                    Starts(900, 900),
                ],
            ),
            (
                "faster while running",
                &[
                    Starts(0, 0),
                    SetPace(100, Fast),
                    Quiet(500),
                    Ends(500, Report),
                    Starts(500, 500),
                ],
            ),
            (
                "paused while waiting",
                &[
                    Starts(0, 0),
                    Ends(10, Report),
                    SetPace(20, Paused),
                    Quiet(9000),
                    SetPace(9000, Normal),
                    Starts(9000, 9000),
                    Ends(9010, Report),
                    Quiet(9999),
                    Starts(10_000, 10_000),
                ],
            ),
            (
                "paused while running",
                &[
                    Starts(0, 0),
                    SetPace(10, Paused),
                    Ends(20, Discard),
                    Quiet(5000),
                ],
            ),
            (
                "paused and resumed while running",
                &[
                    Starts(0, 0),
                    SetPace(10, Paused),
                    SetPace(11, Normal),
                    Ends(20, Report),
                    Quiet(999),
                    Starts(1000, 1000),
                ],
            ),
            (
                "paused and resumed in between",
                &[
                    Starts(0, 0),
                    Ends(10, Report),
                    SetPace(20, Paused),
                    SetPace(30, Normal),
                    Quiet(199),
                    Starts(200, 200),
                ],
            ),
            (
                "paused before it ever ran",
                &[
                    SetPace(0, Paused),
                    Quiet(3000),
                    SetPace(3000, Fast),
                    Starts(3000, 3000),
                ],
            ),
            (
                "the same pace again changes nothing",
                &[
                    Starts(0, 0),
                    Ends(10, Report),
                    SetPace(500, Normal),
                    Quiet(999),
                    Starts(1000, 1000),
                ],
            ),
        ];
        for (name, steps) in table {
            let t0 = Instant::now();
            let at = |time| t0 + ms(time);
            let mut schedule = Schedule::new([timing(1000, 200)], t0);
            let probe = ProbeKey(0);
            for (i, step) in steps.iter().enumerate() {
                match *step {
                    Starts(now, due) => {
                        assert_eq!(
                            schedule.start(at(now)),
                            Some(Start {
                                probe,
                                due: at(due)
                            }),
                            "{name}, {i}"
                        );
                    }
                    Quiet(now) => assert_eq!(schedule.start(at(now)), None, "{name}, {i}"),
                    Ends(now, want) => {
                        assert_eq!(schedule.finish(probe, at(now)), want, "{name}, {i}");
                    }
                    SetPace(now, pace) => schedule.set_pace(probe, pace, at(now)),
                }
            }
        }
    }

    #[test]
    fn unknown_keys_are_ignored() {
        let t0 = Instant::now();
        let mut schedule = Schedule::new([timing(1000, 200)], t0);
        schedule.set_pace(ProbeKey(7), Fast, t0);
        assert_eq!(schedule.finish(ProbeKey(7), t0), Discard);
        assert_eq!(Schedule::new([], t0).next_due(), None);
    }

    #[test]
    fn probes_come_and_go_while_others_stay() {
        let t0 = Instant::now();
        let at = |time| t0 + ms(time);
        let start = |probe, due| {
            let probe = ProbeKey(probe);
            Some(Start {
                probe,
                due: at(due),
            })
        };
        let mut schedule = Schedule::new([timing(1000, 200)], t0);
        assert_eq!(schedule.start(at(0)), start(0, 0));
        assert_eq!(schedule.finish(ProbeKey(0), at(1)), Report);
        // Wanted at once, 0.1 ms apart; and spread over the interval.
        let both = |a, b| {
            [
                (ProbeKey(a), timing(1000, 200)),
                (ProbeKey(b), timing(1000, 200)),
            ]
        };
        schedule.add(&both(7, 8), Begin::AtOnce, at(100));
        schedule.add(&both(9, 10), Begin::Spread, at(100));
        assert_eq!(schedule.start(at(101)), start(7, 100));
        let second = schedule.start(at(101)).unwrap();
        assert_eq!(second.due, t0 + Duration::from_micros(100_100));
        assert_eq!(schedule.start(at(349)), None);
        assert_eq!(schedule.start(at(350)), start(9, 350));
        assert_eq!(schedule.start(at(850)), start(10, 850));
        // Those that run, wait and are paused are gone alike.
        schedule.finish(ProbeKey(8), at(850));
        schedule.finish(ProbeKey(9), at(850));
        schedule.set_pace(ProbeKey(9), Paused, at(850));
        for probe in 7..10 {
            schedule.remove(ProbeKey(probe));
            schedule.remove(ProbeKey(probe));
        }
        assert_eq!(schedule.finish(ProbeKey(7), at(860)), Discard);
        assert_eq!(schedule.finish(ProbeKey(10), at(860)), Report);
        // The first one has not noticed anything.
        assert_eq!(schedule.start(at(999)), None);
        assert_eq!(schedule.start(at(1000)), start(0, 1000));
        schedule.finish(ProbeKey(0), at(1001));
        assert_eq!(schedule.start(at(1849)), None);
        assert_eq!(schedule.start(at(1850)), start(10, 1850));
    }

    /// The starts, in milliseconds, that each of `timings` makes before `end`, when every
    /// execution takes `takes` and is started `late` after it was due.
    fn starts(
        timings: &[Timing],
        end: Duration,
        takes: Duration,
        late: Duration,
    ) -> Vec<Vec<Duration>> {
        let t0 = Instant::now();
        let mut schedule = Schedule::new(timings.iter().copied(), t0);
        let mut ends: BTreeSet<(Instant, ProbeKey)> = BTreeSet::new();
        let mut starts = vec![Vec::new(); timings.len()];
        loop {
            let start = schedule.next_due().map(|due| due + late);
            let ended = ends.first().map(|&(at, _)| at);
            let now = start
                .into_iter()
                .chain(ended)
                .min()
                .expect("a probe waits or runs");
            if now >= t0 + end {
                return starts;
            }
            if ended == Some(now) {
                let (at, probe) = ends.pop_first().expect("seen above");
                schedule.finish(probe, at);
            } else if let Some(Start { probe, .. }) = schedule.start(now) {
                starts[probe.0 as usize].push(now - t0);
                ends.insert((now + takes, probe));
            }
        }
    }

    #[test]
    fn the_first_round_is_quick_and_the_others_are_spread() {
        for (count, interval, first_round) in [
            (1, 1000, 1),
            (10, 1000, 1),
            (500, 1000, 50),
            (20_000, 10_000, 2000),
        ] {
            let timings = vec![timing(interval, 200); count];
            let starts = starts(&timings, ms(interval) * 5, ms(1), Duration::ZERO);
            let last_first = starts.iter().map(|of| of[0]).max().unwrap();
            assert!(
                last_first < ms(first_round),
                "{count} probes: the first round takes {last_first:?}"
            );

            // In the fourth interval each twentieth of it has its share.
            let share = 20;
            let mut shares = vec![0_usize; share];
            for at in starts
                .iter()
                .flatten()
                .filter(|at| (ms(interval) * 3..ms(interval) * 4).contains::<Duration>(at))
            {
                shares[((*at - ms(interval) * 3).as_nanos() * share as u128
                    / ms(interval).as_nanos()) as usize] += 1;
            }
            assert_eq!(shares.iter().sum::<usize>(), count);
            let fair = count.div_ceil(share);
            // The quick first round shifts a little; two starts may share a slot at its edge.
            assert!(
                shares.iter().all(|&n| n <= fair + fair / 4 + 1),
                "{count} probes: {shares:?}"
            );
        }
    }

    #[test]
    fn a_stall_does_not_bring_lockstep() {
        let t0 = Instant::now();
        let count = 100;
        let mut schedule = Schedule::new(vec![timing(1000, 200); count], t0);
        let mut at = Vec::new();
        let mut now = t0;
        while now < t0 + ms(40_000) {
            // Nothing runs for twenty seconds.
            if now >= t0 + ms(5000) && now < t0 + ms(25_000) {
                now = t0 + ms(25_000);
            }
            while let Some(start) = schedule.start(now) {
                schedule.finish(start.probe, now);
                at.push(now - t0);
            }
            now += ms(1);
        }
        let last_second = at.iter().filter(|at| **at >= ms(39_000));
        let mut per_tenth = [0; 10];
        last_second.for_each(|at| per_tenth[((at.as_millis() - 39_000) / 100) as usize] += 1);
        assert!(
            per_tenth.iter().all(|&n| (5..=15).contains(&n)),
            "{per_tenth:?}"
        );
    }

    proptest! {
        /// Whatever the mix of intervals, gaps lie between half an interval and one, and from
        /// the third start on they are exactly one.
        #[test]
        fn spacing(intervals in prop::collection::vec(50_u64..5000, 1..40)) {
            let timings: Vec<_> = intervals.iter().map(|&i| timing(i, i.min(200))).collect();
            for (timing, starts) in timings.iter().zip(starts(&timings, ms(20_000), ms(10), Duration::ZERO)) {
                for (nth, pair) in starts.windows(2).enumerate() {
                    let gap = pair[1] - pair[0];
                    prop_assert!(gap >= timing.interval / 2 && gap <= timing.interval, "{gap:?}");
                    prop_assert!(nth < 2 || gap == timing.interval, "gap {nth} is {gap:?}");
                }
            }
        }

        /// An execution that outlasts the interval is followed at once.
        #[test]
        fn outlasting(interval in 50_u64..1000, more in 0_u64..3000) {
            let takes = ms(interval + more);
            for starts in starts(&[timing(interval, 50); 3], ms(30_000), takes, Duration::ZERO) {
                prop_assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == takes));
            }
        }

        /// Whatever happens in whatever order: no probe runs twice at once, none starts before it
        /// is due or while it is paused, gaps keep to the pace, and none is forgotten.
        #[test]
        fn invariants(
            count in 1_usize..8,
            events in prop::collection::vec((prop_oneof![0_u64..20, 0_u64..600], 0_usize..8, 0_u8..6), 1..300),
        ) {
            let t0 = Instant::now();
            let timing = timing(1000, 200);
            let mut schedule = Schedule::new(vec![timing; count], t0);
            let mut now = t0;
            let mut running = vec![false; count];
            let mut pace = vec![Normal; count];
            let mut last: Vec<Option<Instant>> = vec![None; count];
            for (advance, which, what) in events {
                now += ms(advance);
                let probe = ProbeKey((which % count) as u32);
                match what {
                    0 | 1 => if running[probe.0 as usize] {
                        running[probe.0 as usize] = false;
                        let want = if pace[probe.0 as usize] == Paused { Discard } else { Report };
                        prop_assert_eq!(schedule.finish(probe, now), want);
                    },
                    2 => if let Some(Start { probe, due }) = schedule.start(now) {
                        prop_assert!(!running[probe.0 as usize]);
                        prop_assert!(due <= now);
                        prop_assert!(pace[probe.0 as usize] != Paused);
                        prop_assert!(last[probe.0 as usize].is_none_or(|last| now - last >= timing.fastinter / 2));
                        running[probe.0 as usize] = true;
                        last[probe.0 as usize] = Some(now);
                    },
                    _ => {
                        pace[probe.0 as usize] = [Normal, Fast, Paused][usize::from(what) - 3];
                        schedule.set_pace(probe, pace[probe.0 as usize], now);
                    }
                }
                let waiting = (0..count).filter(|&i| !running[i] && pace[i] != Paused).count();
                prop_assert_eq!(schedule.queue.len(), waiting);
                prop_assert!(schedule.next_due().is_none_or(|due| due <= now + timing.interval));
            }
        }
    }
}
