//! What of a core lives on in the core of another model.

use std::time::Duration;

use crate::controller::testing::{Bench, edited};
use crate::health::{AdminState, Effective, Pace, Verdict};
use crate::model::Model;

const ALL_UP: &str = "web-a+ web-b+ web-c+ wan1+ wan2+";
const BOTH: &str = "publish all: www 198.51.100.134, 203.0.113.70";
/// wan1 is on eth1, and the program on eth0.
const WITH_INTERFACES: &[(&str, &str)] = &[
    ("interfaces = []", "interfaces = [\"eth0\"]"),
    ("name = \"wan1\"", "name = \"wan1\"\ninterface = \"eth1\""),
];
const MAIL: &str = "[[service]]\nname = \"mail\"\nfqdn = [\"imap.example.com\"]\nport = 143\n\
    [[service.server]]\nname = \"m\"\naddress = \"192.0.2.201\"\noffsite = true\n\
    priority = \"primary\"\n\n[[service]]\nname = \"www\"";

/// A minute later, so that it shows since when something is.
fn live(edits: &[(&str, &str)], inputs: &str) -> Bench {
    let mut bench = Bench::new(edited(edits));
    bench.feed(inputs);
    bench.settle();
    assert!(bench.core.is_live());
    bench.pass(Duration::from_secs(60));
    bench
}

fn with_mail() -> Model {
    edited(&[("[[service]]\nname = \"www\"", MAIL)])
}

#[test]
fn what_did_not_change_goes_on() {
    let mut bench = live(&[], ALL_UP);
    let began = bench.core.servers.since[0];
    // Two of three failures.
    bench.feed("web-a- web-a-");
    assert_eq!(bench.settle(), ["pace tcp:192.168.10.10:80 Fast"]);
    let outcomes = bench.core.outcomes.clone();

    let (begun, lines) = bench.reload(with_mail(), "m+");
    assert_eq!(begun, ["tcp:192.0.2.201:143"]);
    assert_eq!(
        lines,
        [
            "publish all: mail 192.0.2.201; www 198.51.100.134, 203.0.113.70",
            // Nothing is news but the new.
            "log m up",
            "log mail: primary is the highest tier with a candidate",
        ]
    );
    assert!(bench.core.is_live());
    let core = &bench.core;
    assert_eq!(core.servers.since[1..], [began; 3]);
    assert_eq!(core.servers.since[0], bench.now.wall);
    assert_eq!(
        (core.services[1].since, core.services[1].generation.0),
        (began, 1)
    );
    assert_eq!(
        (core.services[0].since, core.services[0].generation.0),
        (bench.now.wall, 2)
    );
    assert_eq!(core.generation.0, 2);
    let [a, b] = ["web-a", "web-b"].map(|name| {
        let probe = crate::controller::testing::probes(&bench.model, name)[0];
        let state = &core.probes[probe.index()];
        (
            core.pace(probe),
            state.last_error.is_some(),
            state.rtt.is_some(),
        )
    });
    assert_eq!(
        (a, b),
        ((Pace::Fast, true, true), (Pace::Normal, false, true))
    );
    assert_eq!(
        core.outcomes[&("tcp", "success")],
        outcomes[&("tcp", "success")] + 1
    );

    // The third.
    bench.check("web-a-", &[]);
    assert_eq!(bench.core.servers.effective[1], Effective::Down);
    bench.check("wan1:down", &["publish: www 203.0.113.70"]);
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut bench = Bench::new(with_mail());
    bench.feed("m+");
    bench.feed(ALL_UP);
    bench.settle();
    let (begun, lines) = bench.reload(edited(&[]), "");
    assert_eq!((begun.len(), lines), (0, vec![BOTH.to_owned()]));
    assert_eq!(bench.kept.servers.len(), 3);
    bench.check("web-a:down web-b:down", &["publish: www 192.0.2.200"]);
}

#[test]
fn what_is_tested_otherwise_must_be_tested() {
    let altered = || edited(&[("192.168.10.10", "192.168.10.99")]);
    // (news, what is published)
    for (news, want) in [
        ("web-a+", BOTH),
        ("web-a-", "publish all: www 192.0.2.200"),
        // Not heard of in time: not a candidate.
        ("", "publish all: www 192.0.2.200"),
    ] {
        let mut bench = live(&[], ALL_UP);
        bench.feed("web-b:drain");
        bench.settle();
        let (begun, lines) = bench.reload(altered(), news);
        assert_eq!(begun, ["tcp:192.168.10.99:80"]);
        assert_eq!(lines[0], want, "{news}");
        assert_eq!(bench.core.servers.admin[1], AdminState::Drain.into());
        // Another server under the old name.
        let since = bench.core.servers.since[0];
        assert_eq!(since, bench.now.wall, "{news}");
    }
}

#[test]
fn a_failover_before_the_switch_is_in_it() {
    let mut bench = live(&[], ALL_UP);
    // The old core fails over while the new server is being looked at.
    bench.check(
        "web-a- web-a- web-a- web-b- web-b- web-b-",
        &["publish: www 192.0.2.200"],
    );
    let (_, lines) = bench.reload(with_mail(), "m-");
    assert_eq!(
        lines,
        [
            // Fails open: the address of a server that is down.
            "publish all: mail 192.0.2.201; www 192.0.2.200",
            "log m down",
            "log mail: no candidate: primary, as if everything were up",
        ]
    );
}

#[test]
fn other_rules_leave_verdicts() {
    let mut bench = live(&[], ALL_UP);
    bench.feed("web-a- web-a-");
    bench.settle();
    let (begun, lines) = bench.reload(
        edited(&[("fall = 3", "fall = 2"), ("rise = 2", "rise = 1")]),
        "",
    );
    assert_eq!((begun.len(), lines), (0, vec![BOTH.to_owned()]));
    assert_eq!(bench.core.servers.effective, [Effective::Up; 3]);
    // The next failure counts by the new rules, and so does the next success.
    bench.check("web-b:down web-a-", &["publish: www 192.0.2.200"]);
    bench.check("web-a+", &["publish: www 198.51.100.134, 203.0.113.70"]);
}

#[test]
fn the_operators_word_belongs_to_names() {
    let mut bench = live(&[], ALL_UP);
    bench.feed("web-a:maint wan2:down");
    bench.settle();
    // Whatever becomes of it otherwise, it is not to be probed.
    let (begun, lines) = bench.reload(edited(&[("192.168.10.10", "192.168.10.99")]), "");
    assert_eq!(
        (begun.len(), &*lines[0]),
        (0, "publish all: www 198.51.100.134")
    );
    let probe = crate::controller::testing::probes(&bench.model, "web-a")[0];
    assert_eq!(bench.core.pace(probe), Pace::Paused);
    assert_eq!(bench.core.wans.admin[1], AdminState::Down.into());
    assert_eq!(bench.kept.servers[0].admin, AdminState::Maint.into());
    // Another name is another server.
    let (begun, _) = bench.reload(edited(&[("name = \"web-a\"", "name = \"web-x\"")]), "");
    assert_eq!(begun, ["tcp:192.168.10.10:80"]);
    assert_eq!(bench.core.servers.admin[0], AdminState::Auto.into());
}

/// Nobody wanted to know about the target, and now a new server has the same.
#[test]
fn a_paused_probe_with_a_new_user_begins_anew() {
    let mut bench = live(&[], ALL_UP);
    bench.feed("web-c:maint");
    bench.settle();
    let twin = MAIL
        .replace("192.0.2.201", "192.0.2.200")
        .replace("143", "80");
    let edits = [("[[service]]\nname = \"www\"", &*twin)];
    let (begun, lines) = bench.reload(edited(&edits), "m-");
    assert_eq!(begun, ["tcp:192.0.2.200:80"]);
    assert!(lines.contains(&"log m down".to_owned()), "{lines:?}");
    assert_eq!(bench.core.servers.effective[3], Effective::Maint);

    // While it is tested, it is known.
    let mut bench = live(&[], ALL_UP);
    let (begun, _) = bench.reload(edited(&edits), "");
    assert_eq!(begun, [""; 0]);
    assert_eq!(bench.core.servers.effective[0], Effective::Up);
}

#[test]
fn links_and_interfaces_go_on() {
    let mut bench = live(WITH_INTERFACES, &format!("{ALL_UP} eth0=2 eth1=3"));
    bench
        .core
        .attached("eth0", 2, crate::dataplane::AttachedMode::Native);
    bench.feed("eth1~3");
    bench.settle();
    let since = bench.core.wans.since[0];
    bench.pass(Duration::from_secs(60));
    // News of interfaces that the new model alone is about.
    bench.feed("eth2=4");
    let more = [
        (
            "interfaces = []",
            "interfaces = [\"eth0\", \"eth2\", \"eth9\"]",
        ),
        WITH_INTERFACES[1],
        ("name = \"wan2\"", "name = \"wan2\"\ninterface = \"eth0\""),
    ];
    let (begun, lines) = bench.reload(edited(&more), "wan2+");
    // wan2 is bound to its interface now, so all of its targets are other ones.
    assert_eq!(begun, ["icmp:203.0.113.65", "tcp:192.0.2.53:53"]);
    // It is up, as it was; eth0 has the program already.
    assert_eq!(
        lines,
        [
            "publish all: www 203.0.113.70",
            "attach eth2 4",
            "log no eth9"
        ]
    );
    assert_eq!(bench.core.wans.since[0], since);
    assert_eq!(bench.core.wans.effective[0], Effective::Down);
    bench.check("eth0~2", &["publish: www 192.0.2.200"]);
}

#[test]
fn the_last_answer_goes_on() {
    let last = ("on_all_down = \"primary\"", "on_all_down = \"last\"");
    let mut bench = live(&[last], ALL_UP);
    bench.check("web-a:down web-b:down web-c:down", &[]);
    let (_, lines) = bench.reload(edited(&[last, ("ttl = \"30s\"", "ttl = \"31s\"")]), "");
    assert_eq!(lines, [BOTH]);
    assert_eq!(bench.kept.last.len(), 1);
    // Another TTL is another answer, though the addresses are the same.
    assert_eq!(bench.core.services[0].generation, bench.core.generation);

    // Who asks for it only now gets what is answered.
    let mut bench = live(&[], ALL_UP);
    let (_, lines) = bench.reload(edited(&[last]), "");
    assert_eq!(lines, [BOTH]);
    bench.check("web-a:down web-b:down web-c:down", &[]);
}

#[test]
fn verdicts_that_are_not_known_stay_so() {
    let mut bench = Bench::new(edited(&[]));
    bench.feed("web-a+ web-c+ wan1+");
    bench.pass(Duration::from_secs(1));
    bench.settle();
    let (began, since) = (bench.now.wall, bench.core.servers.since[1]);
    bench.pass(Duration::from_secs(60));
    let (begun, _) = bench.reload(with_mail(), "m+");
    assert_eq!(begun.len(), 1);
    assert_eq!(bench.core.servers.verdict[2], Verdict::Unknown);
    assert_eq!(bench.core.servers.since[2], since);
    assert!(began < bench.now.wall);
    // Its first probe decides.
    bench.check("web-a:down web-b+", &[]);
    assert_eq!(bench.core.servers.verdict[2], Verdict::Up);
}
