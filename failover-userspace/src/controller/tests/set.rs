use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::controller::Set;
use crate::controller::testing::{Bench, example, probes, reference};
use crate::health::{AdminState, Order, Pace, Verdict};
use crate::model::{Model, ServiceId};
use crate::protocol::SetResult;

const ALL_UP: &str = "web-a+ web-b+ web-c+ wan1+ wan2+";
const HOUR: Duration = Duration::from_secs(3600);
const BOTH: &str = "publish: www 198.51.100.134, 203.0.113.70";
const OFFSITE: &str = "publish: www 192.0.2.200";

fn live(model: Model) -> Bench {
    let mut bench = Bench::new(model);
    bench.feed(ALL_UP);
    bench.settle();
    assert!(bench.core.is_live());
    bench
}

/// As `failover set` by alice: targets, state, and for how long (`-`: for ever).
fn order(words: &str) -> Set {
    let mut words: Vec<&str> = words.split(' ').collect();
    let lasting = match words.pop() {
        Some("-") => None,
        text => Some(text.unwrap().parse().unwrap()),
    };
    let state: AdminState = words.pop().unwrap().parse().unwrap();
    Set {
        targets: words.into_iter().map(str::to_owned).collect(),
        order: Order::new(state, lasting, None).unwrap(),
        by: "alice".into(),
    }
}

impl Bench {
    /// What is logged and published.
    fn set(&mut self, words: &str) -> Vec<String> {
        self.core.set(&order(words), self.now).unwrap();
        self.settle()
    }

    fn result(&mut self, words: &str) -> SetResult {
        let done = self.core.set(&order(words), self.now).unwrap();
        self.settle();
        self.core.result(&done)
    }

    /// How long until the controller wants to be woken.
    fn wakes_in(&self) -> Option<Duration> {
        let at: Option<Instant> = self.core.wake_at();
        at.map(|at| at.duration_since(self.now.at))
    }

    fn kept(&self, name: &str) -> AdminState {
        let at = self
            .model
            .servers
            .iter()
            .position(|server| server.name == name);
        self.kept.servers[at.unwrap()].admin.state
    }
}

#[test]
fn an_order_ends_when_its_time_is_over() {
    let mut bench = live(reference());
    let lines = bench.set("www/web-a www/web-b drain 2h");
    assert!(lines.iter().any(|line| line == OFFSITE), "{lines:?}");
    assert_eq!(bench.wakes_in(), Some(2 * HOUR));

    bench.pass(2 * HOUR - Duration::from_millis(1));
    bench.check("", &[]);
    assert_eq!(bench.wakes_in(), Some(Duration::from_millis(1)));
    bench.pass(Duration::from_millis(1));
    let lines = bench.settle();
    assert_eq!(
        lines,
        [
            BOTH,
            "log www/web-a drain -> auto",
            "log web-a up",
            "log www/web-b drain -> auto",
            "log web-b up",
            "log www: primary is the highest tier with a candidate",
        ]
    );
    assert_eq!(bench.wakes_in(), None);
    assert_eq!(bench.kept("web-a"), AdminState::Auto);
    let admin = &bench.core.servers.admin[0];
    assert_eq!(
        (admin.by.as_deref(), admin.since),
        (None, Some(bench.now.wall))
    );
}

#[test]
fn the_last_order_sets_the_end() {
    // (orders, an hour apart; in how many hours from then on it ends)
    for (orders, want) in [
        (&["www/web-a drain 3h"][..], Some(3)),
        (&["www/web-a drain 3h", "www/web-a drain 9h"], Some(9)),
        (&["www/web-a drain 9h", "www/web-a maint 2h"], Some(2)),
        (&["www/web-a drain 3h", "www/web-a drain -"], None),
        (&["www/web-a drain 3h", "www/web-a auto -"], None),
        // The first end of several.
        (&["www/web-a drain 3h", "wan/wan1 drain 9h"], Some(2)),
        (&["wan/wan1 drain 9h", "www/web-a drain 3h"], Some(3)),
    ] {
        let mut bench = live(reference());
        for (at, words) in orders.iter().enumerate() {
            if at > 0 {
                bench.pass(HOUR);
                bench.settle();
            }
            bench.set(words);
        }
        assert_eq!(
            bench.wakes_in(),
            want.map(|hours| HOUR * hours),
            "{orders:?}"
        );
    }
}

#[test]
fn the_clock_for_people_decides() {
    let mut bench = live(reference());
    bench.set("www/web-a www/web-b drain 2h");
    // Put back by an hour: the end comes later by the other clock.
    bench.now.wall = bench
        .now
        .wall
        .checked_sub(SignedDuration::from_hours(1))
        .unwrap();
    bench.now.at += 2 * HOUR;
    bench.check("", &[]);
    assert_eq!(bench.wakes_in(), Some(3 * HOUR));
    // Put forward: at the next occasion.
    bench.now.wall = bench
        .now
        .wall
        .checked_add(SignedDuration::from_hours(3))
        .unwrap();
    bench.check("", &[BOTH]);
}

#[test]
fn an_end_outlives_a_restart() {
    let mut bench = live(reference());
    bench.set("www/web-a www/web-b drain 2h");
    // (how long the daemon was down, what is published first, when it wakes for the end)
    for (down, first, wakes) in [
        (HOUR, "publish all: www 192.0.2.200", Some(HOUR)),
        (
            2 * HOUR,
            "publish all: www 198.51.100.134, 203.0.113.70",
            None,
        ),
        (
            99 * HOUR,
            "publish all: www 198.51.100.134, 203.0.113.70",
            None,
        ),
    ] {
        let wall = bench.now.wall + SignedDuration::try_from(down).unwrap();
        let mut again = Bench::restarted_at(reference(), bench.kept.clone(), wall);
        let lines = again.settle();
        assert_eq!(lines.first().map(String::as_str), Some(first), "{lines:?}");
        assert_eq!(again.wakes_in(), wakes);
        let is_over = wakes.is_none();
        let told = lines
            .iter()
            .any(|line| line == "log www/web-a drain -> auto");
        assert_eq!(told, is_over, "{lines:?}");
        let state = if is_over {
            AdminState::Auto
        } else {
            AdminState::Drain
        };
        assert_eq!(again.kept("web-a"), state);
        if !is_over {
            let admin = &again.core.servers.admin[0];
            assert_eq!(admin.by.as_deref(), Some("alice"));
            again.pass(HOUR);
            again.check("", &[BOTH]);
        }
    }
}

/// What a check said before maintenance is no verdict after it, not even if it ended while
/// there was no daemon.
#[test]
fn maintenance_that_ended_while_the_daemon_was_down() {
    let mut bench = live(reference());
    bench.set("www/web-a maint 2h");
    let probe = probes(&bench.model, "web-a")[0];
    let wall = bench.now.wall + SignedDuration::from_hours(2);
    let mut again = Bench::restarted_at(reference(), bench.kept, wall);
    assert_eq!(again.core.pace(probe), Pace::Normal);
    assert_eq!(again.core.servers.verdict[0], Verdict::Unknown);
    // The first round waits for it.
    again.check("", &[]);
    again.check("web-a-", &["publish all: www 198.51.100.134, 203.0.113.70"]);
    assert_eq!(again.core.servers.verdict[0], Verdict::Down);
}

#[test]
fn all_or_nothing() {
    let mut bench = live(reference());
    for words in [
        "www/web-a www/web-x down -",
        "www/* nope/* down -",
        "wan/* wan/wan9 maint 1h",
    ] {
        let error = bench.core.set(&order(words), bench.now).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("nothing has been changed: "), "{error}");
        assert_eq!(bench.settle(), [""; 0], "{words}");
    }
}

#[test]
fn what_was_and_what_is() {
    let mut bench = live(reference());
    let result = bench.result("www/web-a drain 2h");
    let [target] = &result.targets[..] else {
        panic!("{result:?}")
    };
    assert_eq!(target.target, "www/web-a");
    assert_eq!(
        (target.before, target.admin.state),
        (AdminState::Auto, AdminState::Drain)
    );
    assert_eq!(
        (target.verdict, target.effective.as_str()),
        (Verdict::Up, "drain")
    );
    assert!(target.changed);
    assert_eq!(
        target.admin.until,
        Some(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(2))
    );
    assert_eq!(target.admin.by.as_deref(), Some("alice"));
    // Another tier, the same addresses.
    let [service] = &result.services[..] else {
        panic!("{result:?}")
    };
    assert_eq!((service.name.as_str(), service.changed), ("www", false));
    assert_eq!(service.tier, Some(crate::model::Tier::Backup));

    let result = bench.result("www/web-b www/web-a drain -");
    let told = |result: &SetResult| {
        let targets = result.targets.iter();
        let targets = targets.map(|t| format!("{} {} {}", t.target, t.before, t.changed));
        targets.collect::<Vec<_>>()
    };
    assert_eq!(
        told(&result),
        ["www/web-b auto true", "www/web-a drain true"]
    );
    assert!(result.services[0].changed && result.published);
    assert_eq!(result.generation.0, 2);

    // Said before.
    let result = bench.result("www/web-? drain -");
    assert_eq!(
        told(&result),
        [
            "www/web-a drain false",
            "www/web-b drain false",
            "www/web-c auto true"
        ]
    );
    assert_eq!(bench.set("www/* drain -"), [""; 0]);
}

/// The reference case with so many services, each with its three servers, on the same probes.
fn many(services: u32) -> Model {
    let mut model = reference();
    let (service, servers) = (model.services[0].clone(), model.servers.clone());
    for n in 1..services {
        let first = n * 3;
        let mut service = service.clone();
        service.name = format!("www{n}");
        service.servers = first..first + 3;
        model.services.push(service);
        for server in &servers {
            let mut server = server.clone();
            server.service = ServiceId(n);
            model.servers.push(server);
        }
    }
    model
}

#[test]
fn many_are_one_step_and_one_publication() {
    const SERVICES: u32 = 4000;
    let mut bench = live(many(SERVICES));
    for (words, targets, services) in [
        ("*/web-[ab] down -", 0, 0),
        ("*/web-a */web-b down 1h", 8000, SERVICES),
        ("*/* maint -", 12_000, SERVICES),
        ("wan/* down -", 2, SERVICES),
        ("*/* wan/* auto -", 12_002, SERVICES),
    ] {
        let Ok(done) = bench.core.set(&order(words), bench.now) else {
            assert_eq!(targets, 0, "{words}");
            continue;
        };
        let commands = bench.settle();
        let publications = commands.iter().filter(|line| line.starts_with("publish"));
        assert!(publications.count() <= 1, "{words}");
        let result = bench.core.result(&done);
        assert!(result.published);
        assert_eq!(result.targets.len(), targets, "{words}");
        assert_eq!(result.services.len(), services as usize, "{words}");
    }
    // And all their ends.
    bench.feed(ALL_UP);
    bench.settle();
    bench.set("*/web-a */web-b drain 1h");
    bench.pass(HOUR);
    let commands = bench.settle();
    let publications = commands.iter().filter(|line| line.starts_with("publish"));
    assert_eq!(publications.count(), 1);
}

#[test]
fn a_link_moves_all_its_services_in_one_publication() {
    let more = r#"
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
    let mut bench = Bench::new(example(more));
    bench.feed(&format!("{ALL_UP} mail-a+ mail-b+"));
    bench.settle();
    let result = bench.result("wan/wan2 drain 1h");
    let told = result.services.iter().map(|s| (s.name.as_str(), s.changed));
    assert_eq!(told.collect::<Vec<_>>(), [("www", true), ("mail", true)]);
    assert_eq!(result.generation.0, bench.core.services[0].generation.0);
    assert_eq!(result.generation.0, bench.core.services[1].generation.0);
}

#[test]
fn nothing_is_published_before_all_is() {
    let mut bench = Bench::new(reference());
    let done = bench
        .core
        .set(&order("www/web-a down -"), bench.now)
        .unwrap();
    bench.settle();
    assert!(!bench.core.result(&done).published);
    bench.feed(ALL_UP);
    bench.settle();
    assert!(bench.core.result(&done).published);

    let done = bench
        .core
        .set(&order("www/web-b down -"), bench.now)
        .unwrap();
    assert!(!bench.core.result(&done).published);
    let _ = bench.core.settle(bench.now);
    bench.core.refused(bench.now);
    assert!(!bench.core.result(&done).published);
    bench.pass(Duration::from_secs(1));
    bench.settle();
    assert!(bench.core.result(&done).published);
}
