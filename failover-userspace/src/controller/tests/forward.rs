//! Where connections go: decided with the answers, and also where those stay the same.

use std::time::Duration;

use crate::controller::testing::{Bench, example, reference};
use crate::controller::{Command, Core};
use crate::dataplane::Generation;
use crate::model::{Model, PortForward, ServiceId};

const BOTH: &str = "www 198.51.100.134, 203.0.113.70";

fn forwarding(mut model: Model) -> Bench {
    model.port_forward = Some(PortForward { snat: false });
    Bench::new(model)
}

#[test]
fn rules_follow_the_servers() {
    let mut bench = forwarding(reference());
    // The rules come first, and nobody is told to come before they are in place.
    let first = format!("publish all: {BOTH}");
    bench.check(
        "web-a+ web-b+ web-c+ wan1+ wan2+",
        &["forward all: www web-a", &first],
    );
    // The answer stays, the connections move.
    bench.check("web-a- web-a- web-a-", &["forward: www web-b"]);
    bench.check("web-a+ web-a+", &["forward: www web-a"]);
    bench.check("web-a:drain", &["forward: www web-b"]);
    // After the answer, never before it.
    bench.check("web-b- web-b- web-b-", &["publish: www 192.0.2.200"]);
    bench.check("web-a:maint", &["forward: www web-b"]);
    bench.check(
        "web-a:up",
        &[&format!("publish: {BOTH}"), "forward: www web-a"],
    );
    // Answers change, connections do not.
    bench.check("wan1- wan1- wan1-", &["publish: www 203.0.113.70"]);
    bench.check("", &[]);
}

#[test]
fn nothing_is_forwarded_unless_told() {
    let mut bench = Bench::new(reference());
    let first = format!("publish all: {BOTH}");
    bench.check("web-a+ web-b+ web-c+ wan1+ wan2+", &[&first]);
    bench.check("web-a- web-a- web-a-", &[]);
}

#[test]
fn only_services_that_change_are_told_of() {
    let mut bench = forwarding(example(
        r#"
[[service]]
name = "mail"
port = 143
fqdn = ["imap.example.com"]
wan = [{ link = "wan2", address = "203.0.113.71" }]
[[service.server]]
name = "mail-a"
address = "192.168.10.20"
[[service.server]]
name = "mail-b"
address = "192.168.10.21"
"#,
    ));
    bench.feed("web-a+ web-b+ web-c+ wan1+ wan2+ mail-a+ mail-b+");
    let lines = bench.settle();
    assert_eq!(lines[0], "forward all: www web-a; mail mail-a mail-b");
    bench.check("mail-a- mail-a- mail-a-", &["forward: mail mail-b"]);
}

/// The rules of a publication that is refused are wanted all the same, and only once.
#[test]
fn a_refused_publication_does_not_hold_rules_back() {
    let mut bench = forwarding(reference());
    bench.feed("web-a+ web-b- web-c+ wan1+ wan2+");
    bench.settle();
    bench.feed("web-a:maint");
    let (published, forwarded) = commands(&mut bench.core, bench.now);
    assert_eq!((published, forwarded), (1, vec![ServiceId(0)]));
    bench.core.refused(bench.now);
    bench.pass(Duration::from_secs(1));
    let (published, forwarded) = commands(&mut bench.core, bench.now);
    assert_eq!((published, forwarded), (1, vec![]));
    bench.core.published(Generation(2));
}

/// How often it is to be published, and the services whose rules are to be changed.
fn commands(core: &mut Core, now: crate::controller::Now) -> (usize, Vec<ServiceId>) {
    let (mut published, mut forwarded) = (0, Vec::new());
    for command in core.settle(now) {
        match command {
            Command::Publish(_) => published += 1,
            Command::Forward(changes) => forwarded.extend(changes.into_iter().map(|(id, _)| id)),
            _ => {}
        }
    }
    (published, forwarded)
}
