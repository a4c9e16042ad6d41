use proptest::collection::vec;
use proptest::prelude::*;

use super::State::Unknown;
use super::*;

const SUCCESS: bool = true;
const FAILURE: bool = false;

fn up(failures: u8, successes: u8) -> State {
    State::Up {
        failures,
        successes,
    }
}

fn down(successes: u8) -> State {
    State::Down { successes }
}

fn machine(rise: u8, fall: u8, outcomes: &[bool]) -> Machine {
    let mut machine = Machine::new(rise, fall);
    for &success in outcomes {
        machine.on_outcome(success);
    }
    machine
}

/// `S` is a probe that succeeds, `F` one that fails; the verdict after each of them as
/// `u`, `d`, in upper case where the probes to come run at the fast pace.
fn check(rise: u8, fall: u8, outcomes: &str, want: &str) {
    let mut machine = Machine::new(rise, fall);
    let got: String = outcomes
        .chars()
        .map(|outcome| {
            machine.on_outcome(outcome == 'S');
            match (machine.verdict(), machine.pace()) {
                (Verdict::Up, Pace::Normal) => 'u',
                (Verdict::Up, Pace::Fast) => 'U',
                (Verdict::Down, Pace::Normal) => 'd',
                (Verdict::Down, Pace::Fast) => 'D',
                (Verdict::Unknown, _) => '?',
                (_, Pace::Paused) => 'P',
            }
        })
        .collect();
    assert_eq!(got, want, "rise {rise} fall {fall}: {outcomes}");
}

/// Every transition with the default `rise = 2` and `fall = 3`.
#[test]
fn transitions() {
    #[rustfmt::skip]
    let table = [
        // state,   input,   want
        (Unknown,   SUCCESS, up(0, 0)),
        (Unknown,   FAILURE, down(0)),
        (up(0, 0),  SUCCESS, up(0, 0)),
        (up(0, 0),  FAILURE, up(1, 0)),
        (up(1, 0),  SUCCESS, up(1, 1)),
        (up(1, 0),  FAILURE, up(2, 0)),
        (up(1, 1),  SUCCESS, up(0, 0)),
        (up(1, 1),  FAILURE, up(2, 0)),
        (up(2, 0),  SUCCESS, up(2, 1)),
        (up(2, 0),  FAILURE, down(0)),
        (up(2, 1),  SUCCESS, up(0, 0)),
        (up(2, 1),  FAILURE, down(0)),
        (down(0),   SUCCESS, down(1)),
        (down(0),   FAILURE, down(0)),
        (down(1),   SUCCESS, up(0, 0)),
        (down(1),   FAILURE, down(0)),
    ];
    for (state, input, want) in table {
        let mut machine = Machine {
            rise: 2,
            fall: 3,
            state,
        };
        let from = machine.verdict();
        let flip = machine.on_outcome(input);
        let to = machine.verdict();
        assert_eq!(machine.state, want, "{state:?} {input}");
        assert_eq!(
            flip,
            (from != to).then_some(Flip { from, to }),
            "{state:?} {input}"
        );
    }
}

#[test]
fn other_rules_leave_the_verdict() {
    #[rustfmt::skip]
    let table = [
        // state,  rise, fall, want
        (Unknown,  1,    1,    Unknown),
        (up(0, 0), 1,    1,    up(0, 0)),
        (up(2, 1), 2,    3,    up(2, 1)),
        (up(2, 1), 5,    9,    up(2, 1)),
        (up(2, 1), 1,    2,    up(1, 0)),
        (up(2, 1), 2,    1,    up(0, 0)),
        (up(2, 1), 0,    0,    up(0, 0)),
        (down(3),  5,    1,    down(3)),
        (down(3),  2,    1,    down(1)),
        (down(3),  1,    1,    down(0)),
    ];
    for (state, rise, fall, want) in table {
        let machine = Machine {
            rise: 4,
            fall: 4,
            state,
        };
        let adjusted = machine.adjusted(rise, fall);
        assert_eq!(adjusted.state, want, "{state:?} {rise} {fall}");
        assert_eq!((adjusted.rise, adjusted.fall), (rise, fall));
    }
}

#[test]
fn pace_is_fast_while_in_doubt() {
    #[rustfmt::skip]
    let table = [
        (Unknown,  Verdict::Unknown, Pace::Normal),
        (up(0, 0), Verdict::Up,      Pace::Normal),
        (up(1, 0), Verdict::Up,      Pace::Fast),
        (up(1, 1), Verdict::Up,      Pace::Fast),
        (down(0),  Verdict::Down,    Pace::Normal),
        (down(1),  Verdict::Down,    Pace::Fast),
    ];
    for (state, verdict, pace) in table {
        let machine = Machine {
            rise: 2,
            fall: 3,
            state,
        };
        assert_eq!((machine.verdict(), machine.pace()), (verdict, pace));
    }
}

#[test]
fn sequences() {
    // The first probe decides; after that, `fall` failures or `rise` successes.
    check(2, 3, "SSS", "uuu");
    check(2, 3, "SFFF", "uUUd");
    check(2, 3, "FSS", "dDu");
    check(2, 3, "FSFSS", "dDdDu");
    // A single success does not clear the count, two in a row do.
    check(2, 3, "SFFSF", "uUUUd");
    check(2, 3, "SFSFSF", "uUUUUd");
    check(2, 3, "SFFSSFF", "uUUUuUU");
    // Two probes of three fail: down, and stays so.
    check(2, 3, "SFFSFFSFFS", "uUUUddDddD");
    // One probe of three fails: up.
    check(2, 3, "SFSSFSSFSS", "uUUuUUuUUu");
    // At the limits.
    check(1, 1, "SFSFF", "ududd");
    check(1, 3, "SFFSFFF", "uUUuUUd");
    check(3, 1, "SFSSFSSS", "udDDdDDu");
    // 0 counts as 1.
    check(0, 0, "SFSFF", "ududd");
}

#[test]
fn restored_verdict_is_not_flipped_by_the_first_probe() {
    let mut up = Machine::restore(2, 2, Verdict::Up);
    assert_eq!((up.verdict(), up.pace()), (Verdict::Up, Pace::Normal));
    assert_eq!(up.on_outcome(FAILURE), None);
    assert!(up.on_outcome(FAILURE).is_some());

    let mut down = Machine::restore(2, 2, Verdict::Down);
    assert_eq!((down.verdict(), down.pace()), (Verdict::Down, Pace::Normal));
    assert_eq!(down.on_outcome(SUCCESS), None);
    assert!(down.on_outcome(SUCCESS).is_some());

    assert_eq!(
        Machine::restore(2, 2, Verdict::Unknown),
        Machine::new(2, 2),
        "nothing saved"
    );
}

/// The rules once more, read off the whole history instead of kept as counts.
fn verdict_of(history: &[bool], rise: usize, fall: usize) -> Verdict {
    let mut verdict = Verdict::Unknown;
    let mut since = 0; // Where counting starts: behind the last flip or the last clearing.
    for (i, &success) in history.iter().enumerate() {
        let counted = &history[since..=i];
        let in_a_row = counted.iter().rev().take_while(|&&success| success).count();
        let failures = counted.iter().filter(|&&success| !success).count();
        let next = match verdict {
            Verdict::Unknown if success => Verdict::Up,
            Verdict::Unknown => Verdict::Down,
            Verdict::Up if failures >= fall => Verdict::Down,
            Verdict::Down if in_a_row >= rise => Verdict::Up,
            same => same,
        };
        if next != verdict || (verdict == Verdict::Up && in_a_row >= rise) {
            since = i + 1;
        }
        verdict = next;
    }
    verdict
}

proptest! {
    #[test]
    fn counts_agree_with_the_history(
        rise in 1..6_u8, fall in 1..6_u8, history in vec(any::<bool>(), 0..60),
    ) {
        prop_assert_eq!(
            machine(rise, fall, &history).verdict(),
            verdict_of(&history, rise.into(), fall.into())
        );
    }

    #[test]
    fn flips_are_the_changes_of_verdict(
        rise: u8, fall: u8, history in vec(any::<bool>(), 0..600),
    ) {
        let mut machine = Machine::new(rise, fall);
        for success in history {
            let from = machine.verdict();
            let flip = machine.on_outcome(success);
            let to = machine.verdict();
            prop_assert_eq!(flip, (from != to).then_some(Flip { from, to }));
            // A flip goes the way of the probe that caused it, and leaves no doubt.
            if flip.is_some() {
                prop_assert_eq!(to == Verdict::Up, success);
                prop_assert_eq!(machine.pace(), Pace::Normal);
            }
        }
    }

    #[test]
    fn a_run_of_equal_outcomes_decides(
        rise in 1..=u8::MAX, fall in 1..=u8::MAX, history in vec(any::<bool>(), 0..60),
    ) {
        let run = |outcome, count: u8| {
            machine(rise, fall, &[history.clone(), vec![outcome; count.into()]].concat())
        };
        let (up, down) = (run(SUCCESS, rise), run(FAILURE, fall));
        prop_assert_eq!((up.verdict(), up.pace()), (Verdict::Up, Pace::Normal));
        prop_assert_eq!((down.verdict(), down.pace()), (Verdict::Down, Pace::Normal));
    }

    #[test]
    fn failing_two_of_three_goes_down_and_stays_down(rise in 2..=u8::MAX, fall: u8) {
        let mut machine = Machine::new(rise, fall);
        machine.on_outcome(SUCCESS);
        let cycle = [FAILURE, FAILURE, SUCCESS];
        for success in cycle.repeat(usize::from(fall) / 2 + 1) {
            machine.on_outcome(success);
        }
        for success in cycle.repeat(10) {
            prop_assert_eq!(machine.on_outcome(success), None);
            prop_assert_eq!(machine.verdict(), Verdict::Down);
        }
    }

    #[test]
    fn doubt_ends_the_moment_the_verdict_is_firm(
        rise in 1..6_u8, fall in 1..6_u8, history in vec(any::<bool>(), 1..60),
    ) {
        // In doubt: the last flip or clearing is followed by something against the verdict.
        let machine = machine(rise, fall, &history);
        let firm = Machine::restore(rise, fall, machine.verdict());
        prop_assert_eq!(machine.pace() == Pace::Normal, machine == firm);
    }
}
