use std::time::Duration;

use crate::controller::testing::{Bench, example, reference, report};
use crate::controller::{Command, Input};
use crate::health::{AdminState, Effective, Failure, HttpFailure, Pace, TlsFailure, Verdict};
use crate::model::{OnAllDown, ServerId, ServiceId};
use crate::state::Kept;

/// All there is in the reference case, and it is up.
const ALL_UP: &str = "web-a+ web-b+ web-c+ wan1+ wan2+";
/// As the reference case begins: web-b does not answer.
const WITHOUT_B: &str = "web-a+ web-b- web-c+ wan1+ wan2+";

const SECOND_SERVICE: &str = r#"
[[service]]
name = "mail"
port = 143
fqdn = ["imap.example.com"]
wan = [{ link = "wan2", address = "203.0.113.71" }]
[[service.server]]
name = "mail-a"
address = "192.168.10.20"
priority = "primary"
[[service.server]]
name = "mail-b"
address = "192.0.2.201"
priority = "backup"
offsite = true
"#;

fn live(mut bench: Bench, inputs: &str) -> Bench {
    bench.feed(inputs);
    bench.settle();
    assert!(bench.core.is_live());
    bench
}

#[test]
fn the_reference_case() {
    let mut bench = Bench::new(reference());
    bench.check(
        WITHOUT_B,
        &["publish all: www 198.51.100.134, 203.0.113.70"],
    );
    bench.check("web-a- web-a- web-a-", &["publish: www 192.0.2.200"]);
    bench.check(
        "web-a+ web-a+",
        &["publish: www 198.51.100.134, 203.0.113.70"],
    );
    bench.check("wan1- wan1-", &[]);
    bench.check("wan1-", &["publish: www 203.0.113.70"]);
    bench.check("wan2- wan2- wan2-", &["publish: www 192.0.2.200"]);
    // wan1 and wan2 share a target, so that wan1 is up, too.
    bench.check(
        "wan2+ wan2+",
        &["publish: www 198.51.100.134, 203.0.113.70"],
    );

    let mut model = reference();
    model.services[0].redundancy_only = true;
    let mut bench = Bench::new(model);
    bench.check(WITHOUT_B, &["publish all: www 198.51.100.134"]);
    bench.check("wan1:down", &["publish: www 203.0.113.70"]);
}

#[test]
fn nothing_is_published_before_the_first_round_has_ended() {
    let mut bench = Bench::new(reference());
    bench.check("web-a+ web-b+ web-c+ wan1+", &[]);
    let deadline = bench.core.wake_at().unwrap();
    assert!(deadline > bench.now.at + Duration::from_millis(500));
    assert!(deadline < bench.now.at + Duration::from_millis(600));
    bench.check("wan2+", &["publish all: www 198.51.100.134, 203.0.113.70"]);

    // Nor before its time has passed.
    let mut bench = Bench::new(reference());
    bench.check("web-c+", &[]);
    bench.pass(Duration::from_millis(499));
    bench.check("", &[]);
    bench.pass(Duration::from_millis(101));
    bench.check("", &["publish all: www 192.0.2.200"]);
    assert_eq!(bench.core.wake_at(), None);
}

#[test]
fn the_first_round_waits_for_interfaces() {
    let mut model = reference();
    model.settings.interfaces = vec!["eth0".to_owned(), "eth1".to_owned()];
    model.wans[0].interface = Some("eth1".to_owned());
    let mut bench = Bench::new(model);
    bench.check(ALL_UP, &[]);
    bench.check("eth1=3", &[]);
    bench.settle();
    bench.feed("eth0~");
    assert_eq!(
        bench.settle(),
        [
            "publish all: www 198.51.100.134, 203.0.113.70",
            "log www: primary is the highest tier with a candidate",
            "log no eth0",
            "attach eth1 3",
        ]
    );
}

#[test]
fn a_restart_publishes_what_was_saved() {
    let mut bench = live(Bench::new(reference()), WITHOUT_B);
    bench.check("web-a- web-a- web-a-", &["publish: www 192.0.2.200"]);
    bench.feed("web-c:up wan1:drain");
    bench.settle();

    let mut model = reference();
    model.wans[0].interface = Some("eth1".to_owned());
    let mut again = Bench::restarted(model, bench.kept);
    // Links are never taken from memory.
    again.check("", &[]);
    again.check("eth1=2", &["publish all: www 192.0.2.200"]);
    assert_eq!(again.core.servers.admin[2].state, AdminState::Up);
    assert_eq!(again.core.wans.admin[0].state, AdminState::Drain);
    // Verdicts are firm: one probe does not turn them.
    again.check("web-a+", &[]);
    again.check("web-a+", &["publish: www 203.0.113.70"]);
}

#[test]
fn a_state_that_was_before_the_restart_began_before_it() {
    let mut bench = Bench::new(reference());
    bench.pass(Duration::from_secs(100));
    let mut bench = live(bench, ALL_UP);
    let since = bench.now.wall;
    bench.pass(Duration::from_secs(100));
    bench.feed("web-b:up");
    bench.settle();
    let again = Bench::restarted(reference(), bench.kept);
    assert_eq!(again.core.servers.since[0], since);
}

#[test]
fn what_changes_together_is_published_together() {
    let mut bench = live(
        Bench::new(example(SECOND_SERVICE)),
        &format!("{ALL_UP} mail-a+ mail-b+"),
    );
    let want = "publish: www 192.0.2.200; mail 192.0.2.201";
    bench.check("wan1- wan1- wan1- wan2- wan2- wan2-", &[want]);
    let want = "publish: www 198.51.100.134, 203.0.113.70; mail 203.0.113.71";
    bench.check("wan1+ wan1+ wan2+ wan2+", &[want]);
    // There and back again: nothing.
    bench.check("wan2:up wan2:auto", &[]);
    bench.check(
        "web-a:down web-b:down mail-a:down",
        &["publish: www 192.0.2.200; mail 192.0.2.201"],
    );
}

#[test]
fn only_what_depends_is_touched() {
    let mut bench = live(
        Bench::new(example(SECOND_SERVICE)),
        &format!("{ALL_UP} mail-a+ mail-b+"),
    );
    for (inputs, want) in [
        ("wan1:down", &["publish: www 203.0.113.70"][..]),
        ("mail-a:down", &["publish: mail 192.0.2.201"]),
        // Another tier, the same addresses.
        ("web-a:down", &[]),
        ("web-c:down", &[]),
        ("wan1:auto", &["publish: www 198.51.100.134, 203.0.113.70"]),
    ] {
        bench.check(inputs, want);
    }
    assert_eq!(bench.core.services[0].generation.0, 4);
    assert_eq!(bench.core.services[1].generation.0, 3);
}

#[test]
fn a_tier_without_a_change_of_addresses_is_news_but_no_publication() {
    let mut bench = live(Bench::new(reference()), ALL_UP);
    bench.feed("web-a:drain");
    assert_eq!(
        bench.settle(),
        [
            "log www/web-a auto -> drain",
            "log web-a drain",
            "log www: backup is the highest tier with a candidate"
        ]
    );
}

#[test]
fn carrier_decides_at_once() {
    let mut model = reference();
    model.wans[0].interface = Some("eth1".to_owned());
    model.wans[1].interface = Some("eth2".to_owned());
    let mut bench = live(Bench::new(model), &format!("{ALL_UP} eth1=2 eth2=3"));
    bench.check("eth1~2", &["publish: www 203.0.113.70"]);
    bench.check("eth1=2", &["publish: www 198.51.100.134, 203.0.113.70"]);
    bench.check("eth1~ eth2~", &["publish: www 192.0.2.200"]);
}

#[test]
fn local_failures_say_nothing_about_servers() {
    let mut bench = live(Bench::new(reference()), ALL_UP);
    bench.check("web-a! web-a! web-a! web-a!", &[]);
    assert_eq!(bench.core.servers.verdict[0], Verdict::Up);
    assert_eq!(bench.core.outcomes[&("tcp", "local")], 4);
    // They neither add to failures nor clear them.
    bench.check("web-a- web-a! web-a- web-a! web-b:down", &[]);
    bench.check("web-a-", &["publish: www 192.0.2.200"]);

    // A first round of them ends, and nobody is up.
    let mut bench = Bench::new(reference());
    bench.check(
        "web-a! web-b! web-c! wan1! wan2!",
        &["publish all: www 198.51.100.134, 203.0.113.70"],
    );
    assert_eq!(bench.core.servers.effective[0], Effective::Unknown);
}

#[test]
fn admin_states_win() {
    for (word, effective, answer) in [
        ("up", Effective::Up, None),
        ("down", Effective::Down, Some("publish: www 192.0.2.200")),
        ("drain", Effective::Drain, Some("publish: www 192.0.2.200")),
        ("maint", Effective::Maint, Some("publish: www 192.0.2.200")),
        ("auto", Effective::Up, None),
    ] {
        let mut bench = live(Bench::new(reference()), WITHOUT_B);
        bench.check(&format!("web-a:{word}"), answer.as_slice());
        assert_eq!(bench.core.servers.effective[0], effective);
        assert_eq!(bench.kept.servers[0].admin.state.to_string(), word);
    }
}

#[test]
fn maintenance_pauses_probes_and_starts_anew() {
    let mut bench = live(Bench::new(reference()), ALL_UP);
    bench.feed("web-b:maint");
    assert_eq!(
        bench.settle(),
        [
            "log www/web-b auto -> maint",
            "pace tcp:192.168.10.11:80 Paused",
            "log web-b maint"
        ]
    );
    // Sent before the pause.
    bench.check("web-b- web-b- web-b-", &[]);
    bench.feed("web-b:auto");
    assert_eq!(
        bench.settle(),
        [
            "log www/web-b maint -> auto",
            "pace tcp:192.168.10.11:80 Normal",
            "log web-b unknown"
        ]
    );
    bench.feed("web-b-");
    assert_eq!(bench.settle(), ["log web-b down"]);
    assert_eq!(bench.core.servers.verdict[1], Verdict::Down);
}

#[test]
fn a_shared_probe_runs_while_anybody_wants_it() {
    // One target of wan1 is one of wan2, too.
    let mut bench = live(Bench::new(reference()), ALL_UP);
    bench.feed("wan1:maint");
    let lines = bench.settle();
    let paused = lines.iter().filter(|line| line.ends_with("Paused")).count();
    assert_eq!(paused, bench.model.wans[0].targets.len() - 1, "{lines:?}");
    bench.feed("wan2:maint");
    let lines = bench.settle();
    assert!(
        lines
            .iter()
            .any(|line| line == "pace tcp:192.0.2.53:53 Paused"),
        "{lines:?}"
    );
}

#[test]
fn who_is_in_maintenance_is_not_waited_for() {
    let mut kept = Kept::nothing(&reference());
    kept.servers[1].admin = AdminState::Maint.into();
    let mut bench = Bench::restarted(reference(), kept);
    let probe = bench.model.servers[1].probes[0];
    assert_eq!(bench.core.pace(probe), Pace::Paused);
    bench.check(
        "web-a+ web-c+ wan1+ wan2+",
        &["publish all: www 198.51.100.134, 203.0.113.70"],
    );
}

#[test]
fn doubt_hastens_probes() {
    let mut bench = live(Bench::new(reference()), ALL_UP);
    for (inputs, want) in [
        ("web-a-", &["pace tcp:192.168.10.10:80 Fast"][..]),
        ("web-a-", &[]),
        ("web-a+ web-a+", &["pace tcp:192.168.10.10:80 Normal"]),
    ] {
        bench.feed(inputs);
        assert_eq!(bench.settle(), want, "{inputs}");
    }
}

#[test]
fn the_last_answer_is_kept_over_a_restart() {
    let last = || {
        let mut model = reference();
        model.services[0].on_all_down = OnAllDown::Last;
        model
    };
    let mut bench = live(Bench::new(last()), WITHOUT_B);
    bench.check("web-a- web-a- web-a-", &["publish: www 192.0.2.200"]);
    bench.check("web-c- web-c- web-c-", &[]);
    let mut again = Bench::restarted(last(), bench.kept);
    again.check("", &["publish all: www 192.0.2.200"]);
}

#[test]
fn a_refused_publication_is_tried_again() {
    let mut bench = live(Bench::new(reference()), WITHOUT_B);
    bench.feed("web-a:down");
    let commands = bench.core.settle(bench.now);
    assert!(matches!(commands[0], Command::Publish(_)));
    bench.core.refused(bench.now);
    assert!(
        !bench
            .core
            .explain(String::new(), crate::model::ServiceId(0))
            .published
    );
    bench.check("", &[]);
    // What happens meanwhile counts, even if it leads back.
    let again = bench.core.wake_at().unwrap();
    bench.core.input(
        Input::Admin(bench.subject("web-a"), AdminState::Auto.into()),
        bench.now,
    );
    bench.pass(again - bench.now.at);
    bench.check("", &["publish: www 198.51.100.134, 203.0.113.70"]);
    bench.check("", &[]);
}

#[test]
fn interfaces_come_and_go() {
    let mut model = reference();
    model.settings.interfaces = vec!["eth0".to_owned()];
    let mut bench = live(Bench::new(model), &format!("{ALL_UP} eth0~"));
    let mode = crate::dataplane::AttachedMode::Generic;
    for (inputs, want) in [
        ("eth0=5", &["attach eth0 5"][..]),
        ("eth0~5", &[]),
        ("eth0=5", &[]),
        ("eth0=6", &["forget eth0", "attach eth0 6"]),
        ("eth0~", &["forget eth0", "log no eth0"]),
        ("eth7=9", &[]),
    ] {
        bench.feed(inputs);
        let lines = bench.settle();
        assert_eq!(lines, want, "{inputs}");
        for line in lines {
            if let Some(index) = line.strip_prefix("attach eth0 ") {
                bench.core.attached("eth0", index.parse().unwrap(), mode);
            }
        }
    }
    // Refused: again after a while, or as soon as something changes.
    bench.feed("eth0~7");
    assert_eq!(bench.settle(), ["attach eth0 7"]);
    bench.core.not_attached("eth0", bench.now);
    assert!(bench.settle().is_empty());
    bench.feed("eth0=7");
    assert_eq!(bench.settle(), ["attach eth0 7"]);
    bench.core.not_attached("eth0", bench.now);
    bench.pass(bench.core.wake_at().unwrap() - bench.now.at);
    assert_eq!(bench.settle(), ["attach eth0 7"]);
}

const TWO_CHECKS: &str = r#"
[[service.server]]
name = "web-d"
address = "192.0.2.201"
priority = "backup3"
offsite = true
check = [{ type = "tcp" }, { type = "http", fall = 1, rise = 1 }]
"#;

/// A server with two checks: what each step does to it, which is its last error, and which of
/// its verdicts follows.
#[test]
fn all_checks_of_a_server_must_pass() {
    const TCP: usize = 0;
    const HTTP: usize = 1;
    let mut bench = live(
        Bench::new(example(TWO_CHECKS)),
        "web-a- web-b- web-c- web-d+ wan1+ wan2+",
    );
    let server = bench.model.servers.len() - 1;
    let probes = bench.model.servers[server].probes.clone();
    assert_eq!(probes.len(), 2);
    let (refused, status) = (Failure::Refused, Failure::Http(HttpFailure::Status(503)));
    let (tcp, http) = (
        "tcp:192.0.2.201:80: connection refused",
        "http:192.0.2.201:80/ (www.example.com): HTTP status 503",
    );
    let table = [
        (TCP, Err(refused.clone()), Verdict::Up, Some(tcp)),
        // The one that has made it down, though not the first.
        (HTTP, Err(status.clone()), Verdict::Down, Some(http)),
        (TCP, Err(refused.clone()), Verdict::Down, Some(http)),
        (TCP, Err(refused), Verdict::Down, Some(tcp)),
        // Both have; the first is named.
        (HTTP, Ok(()), Verdict::Down, Some(tcp)),
        (TCP, Ok(()), Verdict::Down, None),
        (TCP, Ok(()), Verdict::Up, None),
        // Says nothing about the server.
        (
            HTTP,
            Err(Failure::Local("no".to_owned())),
            Verdict::Up,
            Some("http:192.0.2.201:80/ (www.example.com): local error: no"),
        ),
    ];
    for (step, (probe, outcome, verdict, error)) in table.into_iter().enumerate() {
        let report = report(probes[probe], outcome.clone());
        bench.core.input(Input::Probe(report), bench.now);
        bench.settle();
        let explained = bench.core.explain(String::new(), ServiceId(0));
        let shown = &explained.service.servers[server];
        assert_eq!(
            (shown.verdict, shown.last_error.as_deref()),
            (verdict, error),
            "{step}"
        );
        let reason = outcome.as_ref().err().map(Failure::label);
        assert_eq!(shown.checks[probe].reason.as_deref(), reason, "{step}");
    }
}

#[test]
fn a_server_with_several_checks_is_waited_for() {
    let mut bench = Bench::new(example(TWO_CHECKS));
    bench.check("web-a+ web-b+ web-c+ wan1+ wan2+", &[]);
    let [tcp, http] = bench.model.servers[3].probes[..] else {
        panic!("two checks");
    };
    let input = |bench: &mut Bench, probe, outcome| {
        let input = Input::Probe(report(probe, outcome));
        bench.core.input(input, bench.now);
    };
    input(&mut bench, tcp, Ok(()));
    bench.check("", &[]);
    input(&mut bench, http, Err(Failure::Tls(TlsFailure::Expired)));
    bench.check("", &["publish all: www 198.51.100.134, 203.0.113.70"]);

    // In maintenance none of them runs.
    let id = ServerId(3);
    assert_eq!(bench.model.server(id).name, "web-d");
    bench.feed("web-d:maint");
    bench.settle();
    assert_eq!(
        [tcp, http].map(|probe| bench.core.pace(probe)),
        [Pace::Paused; 2]
    );
}
