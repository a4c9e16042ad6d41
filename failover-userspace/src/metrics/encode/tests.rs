use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Write as _;

use failover_common::counters::{Counters, ServiceHits};
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::controller::testing::{Bench, example, reference};
use crate::listen::Counters as Replies;
use crate::metrics::Overview;
use crate::metrics::testing::Scrape;
use crate::model::Model;
use crate::webhook::Webhooks;

/// A sample of all that a core knows, asked for in parts.
fn sample(bench: &Bench, counters: Counters, replies: &Replies, hits: ServiceHits) -> Sample {
    let overview: Overview = bench.core.overview(counters, replies.named());
    let mut sample = Sample {
        model: std::sync::Arc::clone(&bench.model),
        overview,
        services: Vec::new(),
        servers: Vec::new(),
    };
    let mut next = Some(0);
    while let Some(from) = next {
        let part = bench.core.metrics(from, |_| Ok::<_, Infallible>(hits));
        let Ok(mut part) = part;
        sample.services.append(&mut part.services);
        sample.servers.append(&mut part.servers);
        next = part.next;
    }
    sample
}

fn idle(bench: &Bench) -> Sample {
    let (counters, hits) = (Counters::default(), ServiceHits::default());
    sample(bench, counters, &Replies::default(), hits)
}

fn scrape(bench: &Bench) -> Scrape {
    Scrape::of(
        &Meters::new(Timestamp::UNIX_EPOCH, Webhooks::new()),
        Some(idle(bench)),
    )
}

/// The reference case after its first round, with an interface.
fn live() -> Bench {
    let mut model = reference();
    model.settings.interfaces = vec!["eth0".to_owned(), "eth1".to_owned()];
    let mut bench = Bench::new(model);
    bench.pass(Duration::from_millis(1500));
    bench.feed("eth0=4 eth1~ web-a+ web-b- web-c+ wan1+ wan2+");
    bench.settle();
    bench
}

#[test]
fn of_the_reference_case() {
    let mut bench = live();
    bench.core.attached("eth0", 4, AttachedMode::Generic);
    bench.pass(Duration::from_secs(1));
    bench.feed("web-b:drain web-c:maint web-a+ wan2:down");
    let scrape = scrape(&bench);
    for (series, want) in [
        ("failover_controller_responding", 1.0),
        ("failover_generation", 1.0),
        (
            "failover_interface_attached interface=eth0 mode=generic",
            1.0,
        ),
        (
            "failover_interface_attached interface=eth0 mode=native",
            0.0,
        ),
        (
            "failover_interface_attached interface=eth1 mode=generic",
            0.0,
        ),
        (
            "failover_interface_attached interface=eth1 mode=native",
            0.0,
        ),
        ("failover_service_tier service=www", 1.0),
        ("failover_service_all_down service=www", 0.0),
        ("failover_service_addresses service=www", 2.0),
        (
            "failover_server_up service=www server=web-a priority=primary site=onsite",
            1.0,
        ),
        (
            "failover_server_up service=www server=web-b priority=backup site=onsite",
            0.0,
        ),
        (
            "failover_server_up service=www server=web-c priority=backup2 site=offsite",
            0.0,
        ),
        (
            "failover_server_verdict service=www server=web-a verdict=up",
            1.0,
        ),
        (
            "failover_server_verdict service=www server=web-b verdict=down",
            1.0,
        ),
        (
            "failover_server_verdict service=www server=web-b verdict=up",
            0.0,
        ),
        (
            "failover_server_admin_state service=www server=web-b state=drain",
            1.0,
        ),
        (
            "failover_server_admin_state service=www server=web-b state=auto",
            0.0,
        ),
        (
            "failover_server_admin_state service=www server=web-c state=maint",
            1.0,
        ),
        (
            "failover_server_last_probe_timestamp_seconds service=www server=web-a",
            2.5,
        ),
        (
            "failover_server_last_probe_timestamp_seconds service=www server=web-b",
            1.5,
        ),
        (
            "failover_server_probe_interval_seconds service=www server=web-a",
            1.0,
        ),
        ("failover_wan_up wan=wan1", 1.0),
        ("failover_wan_up wan=wan2", 0.0),
        ("failover_wan_verdict wan=wan2 verdict=up", 1.0),
        ("failover_wan_admin_state wan=wan2 state=down", 1.0),
        ("failover_wan_targets_required wan=wan1", 1.0),
        (
            "failover_wan_target_up wan=wan1 target=tcp:192.0.2.53:53",
            1.0,
        ),
        (
            "failover_wan_target_last_probe_timestamp_seconds wan=wan1 target=tcp:192.0.2.53:53",
            1.5,
        ),
        (
            "failover_wan_target_probe_interval_seconds wan=wan1 target=tcp:192.0.2.53:53",
            1.0,
        ),
        ("failover_probes_total kind=tcp outcome=timeout", 1.0),
    ] {
        assert_eq!(scrape.get(series), want, "{series}");
    }
    // What the operator lets rest is not late.
    for series in [
        "failover_server_last_probe_timestamp_seconds service=www server=web-c",
        "failover_server_probe_interval_seconds service=www server=web-c",
    ] {
        assert_eq!(scrape.find(series), None);
    }
    // Without an interface there is no carrier.
    assert!(scrape.by("failover_wan_carrier", "wan").is_empty());
}

#[test]
fn tiers_have_numbers() {
    let mut bench = live();
    let mut fallen = Vec::new();
    for inputs in ["", "web-a:down web-b:up", "web-b:down", "web-c:down"] {
        bench.feed(inputs);
        bench.settle();
        let scrape = scrape(&bench);
        let [tier, all_down] = ["tier", "all_down"]
            .map(|name| scrape.get(&format!("failover_service_{name} service=www")));
        fallen.push((tier, all_down));
    }
    assert_eq!(fallen, [(1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (0.0, 1.0)]);
}

#[test]
fn before_the_first_publication_nothing_is_said_of_answers() {
    let scrape = scrape(&Bench::new(reference()));
    assert_eq!(scrape.find("failover_service_tier service=www"), None);
    let last = "failover_server_last_probe_timestamp_seconds service=www server=web-a";
    assert_eq!(scrape.get(last), 0.0);
    assert_eq!(scrape.get("failover_generation"), 0.0);
}

const TWO_CHECKS: &str = r#"
[[service]]
name = "two"
fqdn = ["two.example.com"]
port = 80
[[service.server]]
name = "both"
address = "192.0.2.7"
offsite = true
check = [
  { type = "tcp", port = 1, interval = "10s" },
  { type = "exec", command = ["/bin/true"], interval = "2s", timeout = "20s" },
]
[[service.server]]
name = "none"
address = "192.0.2.8"
offsite = true
priority = "disabled"
"#;

#[test]
fn of_several_checks_the_oldest_and_the_longest() {
    let mut bench = Bench::new(example(TWO_CHECKS));
    bench.pass(Duration::from_secs(5));
    bench.feed("both+");
    bench.pass(Duration::from_secs(5));
    let [first, _] = crate::controller::testing::probes(&bench.model, "both")[..] else {
        panic!("two checks");
    };
    let report = crate::controller::testing::report(first, Ok(()));
    bench
        .core
        .input(crate::controller::Input::Probe(report), bench.now);
    let scrape = scrape(&bench);
    let of = |name: &str| scrape.get(&format!("failover_server_{name} service=two server=both"));
    assert_eq!(of("last_probe_timestamp_seconds"), 5.0);
    assert_eq!(of("probe_interval_seconds"), 20.0);
    // A server that is disabled has no checks.
    let none = "failover_server_last_probe_timestamp_seconds service=two server=none";
    assert_eq!(scrape.find(none), None);
    let up = "failover_server_up service=two server=none priority=disabled site=offsite";
    assert_eq!(scrape.get(up), 0.0);
}

#[test]
fn all_kinds_of_checks_are_known() {
    let checks = ["tcp", "http", "https", "icmp"].map(|kind| format!("{{ type = \"{kind}\" }}"));
    let config = format!(
        "[[service]]\nname = \"all\"\nfqdn = [\"all.example.com\"]\nport = 80\n\
         check = [{}, {{ type = \"exec\", command = [\"/bin/true\"] }}]\n\
         [[service.server]]\nname = \"b\"\naddress = \"192.0.2.9\"\noffsite = true\n",
        checks.join(", ")
    );
    let model = example(&config);
    let kinds: BTreeSet<&str> = model.probes.iter().map(|p| p.target.kind()).collect();
    assert_eq!(kinds, BTreeSet::from(ProbeTarget::KINDS));
}

#[test]
fn odd_names_survive() {
    let odd = [
        r#"a"b"#,
        r"a\b",
        r"a\nb",
        r#"\""#,
        "a{b}=\"c\",d",
        "#TYPE",
        "größe-日本",
        "\u{202e}x",
    ];
    let mut config = String::new();
    for (number, name) in odd.iter().enumerate() {
        let name = name.replace('\\', "\\\\").replace('"', "\\\"");
        write!(
            config,
            "[[service]]\nname = \"{name}\"\nfqdn = [\"n{number}.example.com\"]\nport = 80\n\
             [[service.server]]\nname = \"{name}\"\naddress = \"192.0.2.9\"\noffsite = true\n"
        )
        .unwrap();
    }
    let scrape = scrape(&Bench::new(example(&config)));
    let seen: BTreeSet<&str> = scrape
        .by("failover_service_answers_total", "service")
        .into_keys()
        .collect();
    let want: BTreeSet<&str> = odd.into_iter().chain(["www"]).collect();
    assert_eq!(seen, want);
    let servers = scrape.by("failover_server_up", "server");
    assert!(odd.iter().all(|name| servers.contains_key(name)));
}

fn many(services: usize, names: usize, servers: usize) -> Model {
    let mut config = String::new();
    for service in 0..services {
        let names: Vec<String> = (0..names)
            .map(|name| format!("\"n{name}.s{service}.example.com\""))
            .collect();
        let names = names.join(", ");
        writeln!(
            config,
            "[[service]]\nname = \"s{service}\"\nfqdn = [{names}]\nport = 80"
        )
        .unwrap();
        for server in 0..servers {
            writeln!(
                config,
                "[[service.server]]\nname = \"b{server}\"\naddress = \"192.0.2.{server}\"\noffsite = true"
            )
            .unwrap();
        }
    }
    example(&config)
}

#[test]
fn names_make_no_series() {
    let count = |services, names, servers| {
        let bench = Bench::new(many(services, names, servers));
        scrape(&bench).values.len()
    };
    assert_eq!(count(2, 1, 1), count(2, 300, 1));
    // Answers of two types; of a server one, three verdicts, five admin states, two of its
    // checks.
    let (service, server) = (2, 11);
    assert_eq!(count(3, 1, 1) - count(2, 1, 1), service + server);
    assert_eq!(count(2, 1, 2) - count(2, 1, 1), 2 * server);
}

#[test]
fn many_services_come_in_parts() {
    let bench = Bench::new(many(2500, 1, 2));
    let mut sizes = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let part = bench
            .core
            .metrics(from, |_| Ok::<_, Infallible>(ServiceHits::default()));
        let Ok(part) = part;
        assert!(std::sync::Arc::ptr_eq(&part.model, &bench.model));
        sizes.push((part.services.len(), part.servers.len()));
        next = part.next;
    }
    // The reference case's own service is the first.
    assert_eq!(sizes, [(1024, 2049), (1024, 2048), (453, 906)]);
    let scrape = scrape(&bench);
    let up = |series: &str| scrape.get(&format!("failover_server_up {series} site=offsite"));
    assert_eq!(up("service=s2499 server=b1 priority=primary"), 0.0);
    assert_eq!(up("service=www server=web-c priority=backup2"), 0.0);
}

#[test]
fn every_counter_has_its_series() {
    let bench = live();
    let mut counters = Counters::default();
    let replies = Replies::default();
    let mut total = 0;
    for (number, value) in (1..).zip(bytemuck::cast_slice_mut::<_, u64>(bytemuck::bytes_of_mut(
        &mut counters,
    ))) {
        *value = number;
        total += number;
    }
    // A counter of user space that no metric shows makes this fail.
    let names: BTreeSet<&str> = replies.named().into_iter().map(|(name, _)| name).collect();
    let shown = SLOW_PATH_REPLIES.map(|(_, name)| name).into_iter();
    let shown: BTreeSet<&str> = shown.chain(SLOW_PATH.map(|(name, ..)| name)).collect();
    assert_eq!(names, shown);
    for (number, counter) in [
        (1, &replies.udp_replies),
        (2, &replies.tcp_replies),
        (3, &replies.ignored),
        (4, &replies.connections),
        (5, &replies.evicted),
        (6, &replies.transfers),
    ] {
        counter.store(number, std::sync::atomic::Ordering::Relaxed);
    }
    let hits = ServiceHits { a: 7, aaaa: 8 };
    let sample = sample(&bench, counters, &replies, hits);
    let scrape = Scrape::of(
        &Meters::new(Timestamp::UNIX_EPOCH, Webhooks::new()),
        Some(sample),
    );
    let answers = scrape.by("failover_xdp_answers_total", "kind");
    let passes = scrape.by("failover_xdp_passes_total", "reason");
    assert_eq!(answers.len() + passes.len(), Counter::ALL.len());
    let sum: f64 = answers.values().chain(passes.values()).sum();
    assert_eq!(sum, total as f64);
    for (series, want) in [
        ("failover_xdp_answers_total kind=addresses", 1.0),
        ("failover_xdp_answers_total kind=nodata", 2.0),
        ("failover_xdp_passes_total reason=other", 6.0),
        ("failover_service_answers_total service=www type=A", 7.0),
        ("failover_service_answers_total service=www type=AAAA", 8.0),
        ("failover_slow_path_replies_total transport=udp", 1.0),
        ("failover_slow_path_replies_total transport=tcp", 2.0),
        ("failover_slow_path_ignored_messages_total", 3.0),
        ("failover_slow_path_connections_total", 4.0),
        ("failover_slow_path_evicted_connections_total", 5.0),
        ("failover_slow_path_transfers_total", 6.0),
    ] {
        assert_eq!(scrape.get(series), want, "{series}");
    }
}

#[test]
fn what_has_not_happened_is_zero() {
    let scrape = scrape(&Bench::new(reference()));
    for series in [
        "failover_publications_total result=published",
        "failover_publications_total result=refused",
        "failover_publication_duration_seconds_count",
        "failover_reloads_total result=applied",
        "failover_reloads_total result=refused",
        "failover_webhooks_total result=sent",
        "failover_webhooks_total result=failed",
        "failover_webhooks_total result=dropped",
        "failover_events_total kind=server",
        "failover_events_total kind=wan",
        "failover_events_total kind=service",
        "failover_events_total kind=interface",
        "failover_heartbeat_timestamp_seconds",
        "failover_probe_lateness_seconds_count",
        "failover_probe_duration_seconds_count kind=icmp",
        "failover_probes_total kind=tcp outcome=success",
        "failover_probes_total kind=icmp outcome=timeout",
        "failover_probes_total kind=http outcome=http_status",
        "failover_probes_total kind=https outcome=tls_expired",
        "failover_probes_total kind=exec outcome=exec_signal",
        "failover_xdp_answers_total kind=nxdomain",
        "failover_xdp_passes_total reason=stale",
        "failover_service_answers_total service=www type=AAAA",
    ] {
        assert_eq!(scrape.get(series), 0.0, "{series}");
    }
    assert_eq!(scrape.get("failover_config_last_reload_successful"), 1.0);
    // An exec check has no certificate.
    let nonsense = "failover_probes_total kind=exec outcome=tls_expired";
    assert_eq!(scrape.find(nonsense), None);
}

#[test]
fn an_outcome_that_nobody_expected_is_counted() {
    let bench = live();
    let mut sample = idle(&bench);
    sample.overview.outcomes.insert(("http", "timeout"), 4);
    let scrape = Scrape::of(
        &Meters::new(Timestamp::UNIX_EPOCH, Webhooks::new()),
        Some(sample),
    );
    let count = scrape.get("failover_probes_total kind=http outcome=timeout");
    assert_eq!(count, 4.0);
}

#[test]
fn everything_is_explained() {
    let scrape = scrape(&live());
    let undo = |name: &str| {
        let suffixes = ["_bucket", "_sum", "_count"];
        let of = suffixes.iter().find_map(|end| name.strip_suffix(end));
        let is_histogram = |of: &&str| scrape.types.get(*of).is_some_and(|t| t == "histogram");
        of.filter(is_histogram).unwrap_or(name).to_owned()
    };
    for series in scrape.values.keys() {
        let name = undo(&series.name);
        assert!(name.starts_with("failover_"), "{name}");
        let help = scrape.help.get(&name).expect(&name);
        assert!(
            help.ends_with('.') && !help.ends_with(".."),
            "{name}: {help}"
        );
        let kind = scrape.types.get(&name).expect(&name);
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
    }
}

#[test]
fn without_the_controller_the_meters_remain() {
    let meters = Meters::new(Timestamp::from_second(100).unwrap(), Webhooks::new());
    meters.beat(Timestamp::from_second(200).unwrap());
    let scrape = Scrape::of_meters(&meters);
    for (series, want) in [
        ("failover_controller_responding", 0.0),
        ("failover_start_time_seconds", 100.0),
        ("failover_heartbeat_timestamp_seconds", 200.0),
    ] {
        assert_eq!(scrape.get(series), want, "{series}");
    }
    assert_eq!(scrape.find("failover_generation"), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever happens, no counter goes back, and none disappears.
    #[test]
    fn counters_only_grow(steps in prop::collection::vec(0..13_usize, 1..30)) {
        const INPUTS: [&str; 13] = [
            "web-a+", "web-a-", "web-a!", "web-b-", "web-c+", "wan1+", "wan1-", "wan2-",
            "web-a:maint", "web-a:auto", "web-a:down", "eth0~", "eth0=4",
        ];
        let meters = Meters::new(Timestamp::UNIX_EPOCH, Webhooks::new());
        let mut bench = live();
        let mut before = Scrape::of(&meters, Some(idle(&bench)));
        for step in steps {
            bench.pass(Duration::from_millis(300));
            bench.feed(INPUTS[step]);
            for command in bench.core.settle(bench.now) {
                match command {
                    crate::controller::Command::Publish(_) => {
                        let result: Result<(), ()> = if step % 2 == 0 { Ok(()) } else { Err(()) };
                        meters.publication(&result, Duration::from_micros(step as u64));
                        match result {
                            Ok(()) => bench.core.published(crate::dataplane::Generation(2)),
                            Err(()) => bench.core.refused(bench.now),
                        }
                    }
                    crate::controller::Command::Log(event) => meters.event(event.kind()),
                    _ => {}
                }
            }
            let after = Scrape::of(&meters, Some(idle(&bench)));
            for (series, value) in &before.values {
                let grows = ["_total", "_count", "_sum", "_bucket"];
                if grows.iter().any(|end| series.name.ends_with(end)) {
                    let later = after.values.get(series);
                    prop_assert!(later >= Some(value), "{:?}: {} {:?}", series, value, later);
                }
            }
            before = after;
        }
    }
}
