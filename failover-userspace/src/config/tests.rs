//! The reference case, one row per rule, and files with everything wrong.
//!
//! Most rows edit the reference case; `^` in the new text stands where the error must be
//! reported, and is taken out.

mod port_forward;
mod webhooks;

use std::fs;
use std::path::Path;
use std::time::Duration;

use domain::base::iana::Rtype;
use proptest::prelude::*;

use super::*;
use crate::model::{Egress, OnAllDown, Priority, ProbeTarget, Site, Tier};
use crate::rights::{Access, Who};

const REFERENCE: &str = include_str!("../../../examples/reference.toml");
const ZONE: &str = include_str!("../../../examples/example.com.zone");

/// Loads `toml` next to a zone file with the content `zone`.
fn load_text(toml: impl AsRef<[u8]>, zone: impl AsRef<[u8]>) -> Result<Loaded, Diagnostics> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("example.com.zone"), zone).unwrap();
    let file = directory.path().join("failover.toml");
    fs::write(&file, toml).unwrap();
    load(&file)
}

/// Asserts that each finding has its place and contains its text, and that there are no others.
#[track_caller]
fn check_findings(found: &[Diagnostic], expected: &[(usize, usize, &str)], context: &str) {
    let fits = found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(found, (line, column, text))| {
                (found.line, found.column) == (*line, *column) && found.message.contains(text)
            });
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(fits, "{context}\nexpected {expected:#?}\nfound {shown:#?}");
}

#[track_caller]
fn check_errors(toml: &str, expected: &[(usize, usize, &str)]) {
    match load_text(toml, ZONE) {
        Ok(_) => assert!(expected.is_empty(), "loaded without error: {toml}"),
        Err(errors) => check_findings(&errors.0, expected, toml),
    }
}

#[track_caller]
fn check_zone(zone: &str, expected: &[(usize, usize, &str)]) {
    match load_text(
        "[server]\nlisten = [\"192.0.2.1\"]\n[[zone]]\nname = \"example.com\"\nfile = \"example.com.zone\"\n",
        zone,
    ) {
        Ok(_) => assert!(expected.is_empty(), "loaded without error: {zone}"),
        Err(errors) => check_findings(&errors.0, expected, zone),
    }
}

/// The reference case with `old`, which occurs in it, replaced once; and where `^` stood.
#[track_caller]
fn edited(old: &str, new: &str) -> (String, usize, usize) {
    assert!(REFERENCE.contains(old), "the reference case has no {old}");
    let text = REFERENCE.replacen(old, new, 1);
    let at = text.find('^').unwrap_or_default();
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (text.replace('^', ""), line, column)
}

/// Rows of (old, new, part of the one message).
#[track_caller]
fn check_edits(rows: &[(&str, &str, &str)]) {
    for (old, new, message) in rows {
        let (toml, line, column) = edited(old, new);
        check_errors(&toml, &[(line, column, message)]);
    }
}

#[track_caller]
fn model(old: &str, new: &str) -> Model {
    let (toml, ..) = edited(old, new);
    load_text(&toml, ZONE)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .model
}

#[test]
fn the_reference_case_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference.toml");
    let Loaded { model, warnings } = load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(warnings, []);

    assert_eq!(model.settings.listen.len(), 2);
    assert_eq!(model.settings.port.get(), 53);
    assert_eq!(model.settings.max_stale, Some(Duration::from_secs(30)));
    assert_eq!(
        model.settings.control_socket,
        Path::new("/run/failover/control.sock")
    );

    let zone = &model.zones[0];
    assert_eq!(zone.soa.mname.to_string(), "ns1.example.com");
    assert_eq!(
        (zone.soa.serial, zone.soa.minimum, zone.soa.ttl),
        (2_026_112_201, 300, 900)
    );
    assert_eq!(zone.ns_ttl, 900);
    let glue: Vec<_> = zone
        .name_servers
        .iter()
        .map(|ns| (ns.name.to_string(), ns.addresses.clone()))
        .collect();
    assert_eq!(
        glue,
        [
            (
                "ns1.example.com".to_owned(),
                vec![("198.51.100.130".parse().unwrap(), 900)]
            ),
            (
                "ns2.example.com".to_owned(),
                vec![("203.0.113.66".parse().unwrap(), 900)]
            ),
        ]
    );

    let service = &model.services[0];
    assert_eq!(
        (service.ttl, service.port.get(), service.redundancy_only),
        (30, 80, false)
    );
    assert_eq!(service.on_all_down, OnAllDown::Primary);
    let wan: Vec<_> = service
        .wan
        .iter()
        .map(|w| (model.wan(w.wan).name.as_str(), w.address.to_string()))
        .collect();
    assert_eq!(
        wan,
        [
            ("wan1", "198.51.100.134".to_owned()),
            ("wan2", "203.0.113.70".to_owned())
        ]
    );
    let servers: Vec<_> = service
        .server_ids()
        .map(|id| model.server(id))
        .map(|s| {
            (
                s.name.as_str(),
                s.address.to_string(),
                s.port.get(),
                s.priority,
                s.site,
            )
        })
        .collect();
    let row = |name, address: &str, tier, site| {
        (name, address.to_owned(), 80, Priority::Tier(tier), site)
    };
    assert_eq!(
        servers,
        [
            row("web-a", "192.168.10.10", Tier::Primary, Site::Onsite),
            row("web-b", "192.168.10.11", Tier::Backup, Site::Onsite),
            row("web-c", "192.0.2.200", Tier::Backup2, Site::Offsite),
        ]
    );
    // tcp:192.0.2.53:53 is a target of both links, which have neither interface nor source.
    assert_eq!(model.probes.len(), 7);
    assert_eq!(
        model.wans[0].targets[1].probe,
        model.wans[1].targets[1].probe
    );
    assert_eq!((model.wans[0].min_up, model.wans[1].min_up), (1, 1));
}

#[test]
fn values_of_server_are_checked() {
    let port = |new| ("interfaces = []", new);
    for (new, message) in [
        port("port = ^0"),
        port("port = ^65536"),
        port("port = ^-1"),
        port("port = ^\"53\""),
        port("port = ^99999999999999999999"),
        port("port = ^5.3"),
    ]
    .map(|(old, new)| {
        (
            (old, new),
            "port: expected an integer from 1 to 65535, found",
        )
    }) {
        check_edits(&[(new.0, new.1, message)]);
    }
    let listen = "listen = [\"198.51.100.130\", \"203.0.113.66\"]";
    check_edits(&[
        (
            listen,
            "listen = [^\"198.51.100\"]",
            "listen: expected an IP address in quotes",
        ),
        (listen, "listen = [^53]", "found 53"),
        (
            listen,
            "listen = ^\"192.0.2.1\"",
            "listen: expected an array",
        ),
        (listen, "listen = ^[]", "at least one address"),
        (
            listen,
            "listen = [^\"0.0.0.0\"]",
            "not the unspecified address, found \"0.0.0.0\"",
        ),
        (listen, "listen = [^\"::\"]", "not the unspecified address"),
        (
            listen,
            "listen = [^\"224.0.0.1\"]",
            "not a multicast address",
        ),
        (listen, "listen = [^\"ff02::1\"]", "not a multicast address"),
        (
            listen,
            "listen = [^\"255.255.255.255\"]",
            "not the broadcast address",
        ),
        (
            listen,
            "listen = [^\"::ffff:192.0.2.1\"]",
            "write it as IPv4",
        ),
        (
            listen,
            "listen = [\"192.0.2.1\", ^\"192.0.2.1\"]",
            "duplicate listen address \"192.0.2.1\", first on line 9",
        ),
        (
            "interfaces = []",
            "interfaces = [^\"a-name-too-long-for-linux\"]",
            "interfaces: expected an interface name",
        ),
        (
            "interfaces = []",
            "interfaces = [^\"a/b\"]",
            "interfaces: expected an interface name",
        ),
        (
            "interfaces = []",
            "interfaces = [\"eth0\", ^\"eth0\"]",
            "duplicate interface",
        ),
        (
            "interfaces = []",
            "edns_udp_size = ^511",
            "from 512 to 1232, found 511",
        ),
        (
            "interfaces = []",
            "edns_udp_size = ^1233",
            "from 512 to 1232",
        ),
        ("interfaces = []", "xdp = ^\"of\"", "did you mean \"off\"?"),
        (
            "interfaces = []",
            "xdp = ^1",
            "one of \"auto\", \"native\", \"generic\", \"off\", found 1",
        ),
        (
            "interfaces = []",
            "control_socket = ^\"\"",
            "control_socket: expected a path",
        ),
        (
            "interfaces = []",
            "max_stale = ^\"100ms\"",
            "at least \"1s\"",
        ),
        ("interfaces = []", "max_stale = ^30", "a string with a unit"),
        (
            "interfaces = []",
            "nsid = ^\"\"",
            "nsid: expected 1 to 128 printable ASCII characters, found",
        ),
        (
            "interfaces = []",
            "nsid = ^\"bücher\"",
            "nsid: expected 1 to 128 printable",
        ),
        (
            "interfaces = []",
            "^lisen = []",
            "unknown key \"lisen\", did you mean \"listen\"?",
        ),
        (
            "interfaces = []",
            "^zzzzzz = []",
            "unknown key \"zzzzzz\", expected one of: interfaces, listen",
        ),
    ]);
    let long = format!("control_socket = ^\"/{}\"", "x".repeat(120));
    check_edits(&[("interfaces = []", &long, "at most 107 octets")]);
}

#[test]
fn metrics_have_an_address_and_a_port() {
    let metrics = |line: &str| model("interfaces = []", line).settings.metrics;
    assert_eq!(metrics("interfaces = []"), None);
    for text in [
        "127.0.0.1:9153",
        "0.0.0.0:80",
        "[::1]:9153",
        "[::]:9153",
        // The name server's port on another address, and its address with another port.
        "127.0.0.1:53",
        "198.51.100.130:9153",
    ] {
        let line = format!("metrics = {text:?}");
        assert_eq!(metrics(&line), Some(text.parse().unwrap()), "{text}");
    }
    for (value, message) in [
        (
            "\"127.0.0.1\"",
            "metrics: expected \"ADDRESS:PORT\" or \"[IPV6]:PORT\"",
        ),
        ("\"::1:9153\"", "such as \"127.0.0.1:9153\""),
        ("\"127.0.0.1:0\"", "found \"127.0.0.1:0\""),
        ("\"localhost:9153\"", "expected \"ADDRESS:PORT\""),
        ("\":9153\"", "expected \"ADDRESS:PORT\""),
        ("9153", "found 9153"),
        ("true", "found true"),
        ("\"[fe80::1%2]:9153\"", "expected \"ADDRESS:PORT\""),
        (
            "\"224.0.0.1:9153\"",
            "an address of this host, not a multicast address",
        ),
        ("\"[::ffff:127.0.0.1]:9153\"", "write it as IPv4"),
        (
            "\"198.51.100.130:53\"",
            "another port than the name server's, found 198.51.100.130:53",
        ),
        ("\"0.0.0.0:53\"", "another port than the name server's"),
    ] {
        let line = format!("metrics = ^{value}");
        check_edits(&[("interfaces = []", &line, message)]);
    }
    check_edits(&[(
        "interfaces = []",
        "port = 9153\nmetrics = ^\"[::]:9153\"",
        "another port than the name server's, found [::]:9153",
    )]);
}

#[test]
fn rights_are_of_users_and_groups_of_this_host() {
    const NOBODY: Who = Who::NOBODY;
    let listed = |users: &[u32], groups: &[u32]| Who::Listed {
        users: users.to_vec(),
        groups: groups.to_vec(),
    };
    for (lines, read, change) in [
        ("", NOBODY, NOBODY),
        ("control_read = []", NOBODY, NOBODY),
        ("control_read = \"all\"", Who::All, NOBODY),
        (
            "control_read = [\"user:root\", \"group:4000000000\", \"user:7\", \"group:root\"]",
            listed(&[0, 7], &[4_000_000_000, 0]),
            NOBODY,
        ),
        (
            "control_change = [\"group:root\"]",
            NOBODY,
            listed(&[], &[0]),
        ),
    ] {
        let model = model("[server]\n", &format!("[server]\n{lines}\n"));
        assert_eq!(model.settings.control, Access { read, change }, "{lines}");
    }
    for (value, message) in [
        ("^true", "expected \"all\", or an array such as"),
        ("^\"group:root\"", "expected \"all\", or an array such as"),
        ("[^\"root\"]", "expected \"user:NAME\" or \"group:NAME\""),
        ("[^\"all\"]", "expected \"user:NAME\" or \"group:NAME\""),
        ("[^\"user:\"]", "expected \"user:NAME\" or \"group:NAME\""),
        ("[^0]", "expected \"user:NAME\" or \"group:NAME\""),
        (
            "[\"user:root\", ^\"user:no such user\"]",
            "expected a user of this host, found \"user:no such user\"",
        ),
        (
            "[^\"group:no such group\"]",
            "expected a group of this host, found \"group:no such group\"",
        ),
        // Nobody's id.
        ("[^\"user:4294967295\"]", "expected a user of this host"),
        (
            "[\"group:root\", ^\"group:root\"]",
            "\"group:root\", first on line",
        ),
    ] {
        for key in ["control_read", "control_change"] {
            let lines = format!("[server]\n{key} = {value}\n");
            let (toml, line, column) = edited("[server]\n", &lines);
            for text in [message, key] {
                check_errors(&toml, &[(line, column, text)]);
            }
        }
    }
    let (toml, line, column) = edited("[server]\n", "[server]\ncontrol_change = ^\"all\"\n");
    let loaded = load_text(&toml, ZONE).unwrap();
    let warning = (
        line,
        column,
        "control_change: every user of this host may change",
    );
    check_findings(&loaded.warnings, &[warning], &toml);
}

#[test]
fn sixteen_listen_addresses_per_family() {
    let list = |count: usize| -> String {
        (1..=count)
            .map(|n| format!("\"192.0.2.{n}\", \"2001:db8::{n}\", "))
            .collect()
    };
    let listen = "listen = [\"198.51.100.130\", \"203.0.113.66\"]";
    assert_eq!(
        model(listen, &format!("listen = [{}]", list(16)))
            .settings
            .listen
            .len(),
        32
    );
    let new = format!("listen = [{}^\"192.0.2.77\"]", list(16));
    check_edits(&[(listen, &new, "at most 16 IPv4 addresses")]);
    let new = format!("listen = [{}^\"2001:db8::77\"]", list(16));
    check_edits(&[(listen, &new, "at most 16 IPv6 addresses")]);
}

#[test]
fn sections_are_known() {
    let end = "offsite = true\n";
    check_edits(&[
        (
            end,
            "offsite = true\n[^console]\nlisten = \"127.0.0.1:8053\"\n",
            "the section [console] is not available",
        ),
        (
            end,
            "offsite = true\n[^sever]\n",
            "unknown key \"sever\", did you mean \"server\"?",
        ),
        (
            "[[zone]]\nname",
            "^[zone]\nname",
            "expected an array of tables: write [[zone]], found a table",
        ),
        (
            "[[zone]]\nname",
            "[[zone]]\n^nmae = 1\nname",
            "did you mean \"name\"?",
        ),
        (
            "[[zone]]\nname = \"example.com\"\n",
            "^[[zone]]\n",
            "missing key \"name\"",
        ),
        (
            "file = \"example.com.zone\"",
            "file = ^\"absent.zone\"",
            "cannot read",
        ),
        (
            "file = \"example.com.zone\"",
            "file = \"example.com.zone\"\n[[zone]]\nname = ^\"EXAMPLE.com.\"\nfile = \"example.com.zone\"",
            "duplicate zone",
        ),
        (
            "name = \"example.com\"",
            "name = ^\"exa mple.com\"",
            "no ' ' in names",
        ),
    ]);
    check_errors("", &[(1, 1, "missing key \"server\"")]);
    check_errors("[server]\nport = 53\n", &[(1, 1, "missing key \"listen\"")]);
    check_errors(
        "server = 3",
        &[(1, 10, "server: expected a table, found 3")],
    );
    check_errors("[server]\nlisten = [\"127.0.0.1\", \"::1\"]", &[]);
}

#[test]
fn transfers_are_checked() {
    let file = "file = \"example.com.zone\"";
    let row = |new: &str| format!("{file}\n{new}");
    for (new, message) in [
        (
            "allow_transfer = ^\"192.0.2.53\"",
            "allow_transfer: expected an array",
        ),
        (
            "allow_transfer = [^\"192.0.2\"]",
            "allow_transfer: expected an IP address or a network in quotes, such as \"192.0.2.53\" or \"2001:db8::/32\", found \"192.0.2\"",
        ),
        ("allow_transfer = [^53]", "or a network in quotes"),
        (
            "allow_transfer = [^\"192.0.2.0/33\"]",
            "found \"192.0.2.0/33\"",
        ),
        (
            "allow_transfer = [^\"2001:db8::/x\"]",
            "found \"2001:db8::/x\"",
        ),
        (
            "allow_transfer = [^\"192.0.2.53/24\"]",
            "allow_transfer: expected \"192.0.2.0/24\" for the network or \"192.0.2.53\" for the one address, found \"192.0.2.53/24\"",
        ),
        (
            "allow_transfer = [\"192.0.2.0/24\", ^\"2001:db8::1/32\"]",
            "expected \"2001:db8::/32\" for the network or \"2001:db8::1\" for",
        ),
        (
            "allow_transfer = [^\"0.0.0.0\"]",
            "not the unspecified address",
        ),
        (
            "allow_transfer = [^\"ff02::/16\"]",
            "not a multicast address",
        ),
        (
            "allow_transfer = [^\"::ffff:192.0.2.0/120\"]",
            "write it as IPv4",
        ),
        (
            "allow_transfer = [\"192.0.2.53\", ^\"192.0.2.53/32\"]",
            "duplicate network \"192.0.2.53/32\", first on line",
        ),
        ("notify = ^\"192.0.2.53\"", "notify: expected an array"),
        (
            "notify = [^\"ns.example.net\"]",
            "notify: expected \"ADDRESS\", \"ADDRESS:PORT\" or \"[IPV6]:PORT\", such as \"192.0.2.53\" or \"[2001:db8::1]:5300\", found \"ns.example.net\"",
        ),
        (
            "notify = [^\"192.0.2.53:0\"]",
            "notify: expected \"ADDRESS\"",
        ),
        (
            "notify = [^\"192.0.2.53:x\"]",
            "notify: expected \"ADDRESS\"",
        ),
        (
            "notify = [^\"192.0.2.0/24\"]",
            "notify: expected \"ADDRESS\"",
        ),
        (
            "notify = [^\"[fe80::1%2]:53\"]",
            "notify: expected \"ADDRESS\"",
        ),
        ("notify = [^\"224.0.0.1\"]", "not a multicast address"),
        (
            "allow_transfer = [\"192.0.2.53\"]\nnotify = [\"192.0.2.53\", ^\"192.0.2.53:53\"]",
            "duplicate target \"192.0.2.53:53\", first on line",
        ),
        (
            "^allow_transfers = []",
            "unknown key \"allow_transfers\", did you mean \"allow_transfer\"?",
        ),
    ] {
        check_edits(&[(file, &row(new), message)]);
    }
}

#[test]
fn single_addresses_are_notified_unless_told_otherwise() {
    let file = "file = \"example.com.zone\"";
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("", &[], &[]),
        (
            "allow_transfer = [\"192.0.2.53\", \"198.51.100.0/24\", \"192.0.2.54/32\", \"2001:db8::1\", \"::/0\"]",
            &[
                "192.0.2.53/32",
                "198.51.100.0/24",
                "192.0.2.54/32",
                "2001:db8::1/128",
                "::/0",
            ],
            &["192.0.2.53:53", "192.0.2.54:53", "[2001:db8::1]:53"],
        ),
        (
            "allow_transfer = [\"192.0.2.53\"]\nnotify = []",
            &["192.0.2.53/32"],
            &[],
        ),
        (
            "allow_transfer = [\"192.0.2.0/24\"]\nnotify = [\"192.0.2.53\", \"2001:db8::1\", \"192.0.2.54:5353\", \"[2001:db8::1]:5300\"]",
            &["192.0.2.0/24"],
            &[
                "192.0.2.53:53",
                "[2001:db8::1]:53",
                "192.0.2.54:5353",
                "[2001:db8::1]:5300",
            ],
        ),
    ];
    for (keys, allowed, notified) in rows {
        let zone = model(file, &format!("{file}\n{keys}")).zones.swap_remove(0);
        let shown: Vec<_> = zone
            .allow_transfer
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, *allowed, "{keys}");
        let shown: Vec<_> = zone.notify.iter().map(ToString::to_string).collect();
        assert_eq!(shown, *notified, "{keys}");
    }
}

#[test]
fn targets_that_may_not_transfer_are_worth_a_warning() {
    let file = "file = \"example.com.zone\"";
    let (toml, line, column) = edited(file, &format!("{file}\nnotify = ^[\"192.0.2.53\"]"));
    let warnings = load_text(&toml, ZONE).unwrap().warnings;
    let expected = [(line, column, "nobody may transfer the zone")];
    check_findings(&warnings, &expected, &toml);
}

#[test]
fn checks_are_checked() {
    check_edits(&[
        (
            "interval = \"1s\"",
            "interval = ^1",
            "interval: expected a duration: a string with a unit",
        ),
        (
            "interval = \"1s\"",
            "interval = ^\"1\"",
            "interval: expected a duration with a unit",
        ),
        (
            "interval = \"1s\"",
            "interval = ^\"9ms\"",
            "from 10ms to 1day, found \"9ms\"",
        ),
        (
            "interval = \"1s\"",
            "interval = ^\"2days\"",
            "from 10ms to 1day",
        ),
        (
            "timeout = \"500ms\"",
            "timeout = ^\"0s\"",
            "timeout: expected a duration from 1ms",
        ),
        (
            "timeout = \"500ms\"",
            "timeout = ^\"fast\"",
            "found \"fast\"",
        ),
        (
            "fastinter = \"200ms\"",
            "fastinter = ^\"2s\"",
            "fastinter: expected at most the interval, 1s, found \"2s\"",
        ),
        (
            "rise = 2",
            "rise = ^0",
            "rise: expected an integer from 1 to 255, found 0",
        ),
        ("rise = 2", "rise = ^256", "from 1 to 255"),
        ("fall = 3", "fall = ^\"3\"", "fall: expected an integer"),
        (
            "fall = 3",
            "fall = 3\n^fal = 3",
            "unknown key \"fal\", did you mean \"fall\"?",
        ),
        (
            "ttl = \"30s\"",
            "check = { type = ^\"ping\" }",
            "one of \"tcp\", \"http\", \"https\", \"icmp\", \"exec\", found \"ping\"",
        ),
        (
            "ttl = \"30s\"",
            "check = { ^pth = \"/\" }",
            "unknown key \"pth\", did you mean \"path\"?",
        ),
        (
            "ttl = \"30s\"",
            "check = ^\"tcp\"",
            "check: expected a table, or an array of tables",
        ),
        (
            "ttl = \"30s\"",
            "check = ^[]",
            "expected 1 to 16 checks, found 0",
        ),
        (
            "ttl = \"30s\"",
            "check = [{ type = \"icmp\" }, ^\"tcp\"]",
            "check: expected a table, found \"tcp\"",
        ),
        (
            "ttl = \"30s\"",
            "check = { fastinter = ^\"1001ms\" }",
            "at most the interval, 1s",
        ),
        (
            "priority = \"backup\"",
            "check = { interval = \"50ms\", fastinter = ^\"60ms\" }",
            "at most the interval, 50ms",
        ),
    ]);
}

#[test]
fn checks_inherit_key_by_key() {
    let toml = REFERENCE
        .replace("ttl = \"30s\"", "check = { type = \"icmp\", interval = \"100ms\", rise = 7 }")
        .replace("priority = \"backup\"", "check = { type = \"tcp\", interval = \"3s\", fall = 9 }\ncheck_address = \"10.0.0.5\"\nport = 8080")
        .replace("priority = \"backup2\"", "priority = \"disabled\"");
    let model = load_text(toml, ZONE).unwrap().model;
    let probe = |index: usize| model.probe(model.servers[index].probes[0]);

    assert_eq!(
        probe(0).target,
        ProbeTarget::Icmp("192.168.10.10".parse().unwrap())
    );
    assert_eq!(probe(0).timing.interval, Duration::from_millis(100));
    assert_eq!(
        probe(0).timing.fastinter,
        Duration::from_millis(100),
        "lowered"
    );
    assert_eq!((probe(0).timing.rise, probe(0).timing.fall), (7, 3));

    assert_eq!(
        probe(1).target,
        ProbeTarget::Tcp("10.0.0.5:8080".parse().unwrap())
    );
    assert_eq!(
        probe(1).timing.fastinter,
        Duration::from_millis(200),
        "as [check] says"
    );
    assert_eq!((probe(1).timing.rise, probe(1).timing.fall), (7, 9));

    assert_eq!(model.servers[2].probes, [], "disabled");
}

/// Rows of (`check` of the service, part of the one message).
#[track_caller]
fn check_refused(rows: &[(&str, &str)]) {
    for (check, message) in rows {
        check_edits(&[("ttl = \"30s\"", &format!("check = {check}"), message)]);
    }
}

#[test]
fn keys_belong_to_types() {
    check_refused(&[
        (
            "{ ^path = \"/\" }",
            "\"path\" has no place in a check of type \"tcp\"; expected with type \"http\" or \"https\"",
        ),
        (
            "{ type = \"icmp\", ^port = 80 }",
            "expected with type \"tcp\" or \"http\" or",
        ),
        (
            "{ type = \"tcp\", ^host = \"a.b\" }",
            "no place in a check of type \"tcp\"",
        ),
        (
            "{ type = \"exec\", command = [\"/x\"], ^expect = [200] }",
            "\"exec\"",
        ),
        (
            "{ type = \"icmp\", ^method = \"GET\" }",
            "\"method\" has no place",
        ),
        (
            "{ type = \"icmp\", ^body = \"ok\" }",
            "\"body\" has no place",
        ),
        (
            "{ type = \"http\", ^ca_file = \"ca.pem\" }",
            "expected with type \"https\"",
        ),
        (
            "{ type = \"http\", ^verify = false }",
            "expected with type \"https\"",
        ),
        (
            "{ type = \"http\", ^command = [\"/x\"] }",
            "expected with type \"exec\"",
        ),
        (
            "[{ type = \"http\" }, { ^path = \"/\" }]",
            "in a check of type \"tcp\"",
        ),
    ]);
    // The service says what it is, the server what is wrong.
    let toml = REFERENCE
        .replace("ttl = \"30s\"", "check = { type = \"http\", path = \"/\" }")
        .replace(
            "priority = \"backup\"",
            "check = { path = \"/b\", verify = false }",
        );
    let line = toml[..toml.find("verify").unwrap()].matches('\n').count() + 1;
    check_errors(
        &toml,
        &[(
            line,
            24,
            "\"verify\" has no place in a check of type \"http\"",
        )],
    );
}

#[test]
fn http_checks_are_checked() {
    let path = "a path that starts with '/'";
    let host = "a host name or an IP address, without port";
    let codes = "a status code from 200 to 599";
    check_refused(&[
        ("{ type = \"http\", path = ^\"health\" }", path),
        ("{ type = \"http\", path = ^\"/a b\" }", path),
        ("{ type = \"http\", path = ^\"/a#b\" }", path),
        ("{ type = \"http\", path = ^7 }", "expected a string"),
        ("{ type = \"http\", host = ^\"a.b:80\" }", host),
        ("{ type = \"http\", host = ^\"*.a.b\" }", host),
        ("{ type = \"http\", host = ^\"\" }", host),
        (
            "{ type = \"http\", method = ^\"POST\" }",
            "one of \"GET\", \"HEAD\"",
        ),
        ("{ type = \"http\", expect = ^200 }", "an array"),
        (
            "{ type = \"http\", expect = ^[] }",
            "at least one status code",
        ),
        ("{ type = \"http\", expect = [200, ^101] }", codes),
        ("{ type = \"http\", expect = [^600] }", codes),
        ("{ type = \"http\", expect = [^\"2xx\"] }", codes),
        ("{ type = \"http\", expect = [^\"399-200\"] }", codes),
        ("{ type = \"http\", body = ^\"\" }", "1 to 1024 octets"),
        (
            "{ type = \"http\", method = \"HEAD\", body = ^\"ok\" }",
            "a response to HEAD has none",
        ),
        (
            "{ type = \"http\", port = ^0 }",
            "an integer from 1 to 65535",
        ),
        ("{ type = \"https\", verify = ^1 }", "true or false"),
        (
            "{ type = \"https\", ca_file = ^\"no.pem\" }",
            "no.pem: cannot read the file: No such file",
        ),
        (
            "{ type = \"https\", ca_file = ^\"example.com.zone\" }",
            "expected certificates in PEM, found none",
        ),
        (
            "{ type = \"https\", verify = false, ca_file = ^\"no.pem\" }",
            "verify = false needs none",
        ),
    ]);
    let wildcard = REFERENCE
        .replace("[\"www.example.com\"]", "[\"*.example.com\"]")
        .replace("ttl = \"30s\"", "check = { type = \"http\" }");
    let line = wildcard[..wildcard.find("check = {").unwrap()]
        .matches('\n')
        .count()
        + 1;
    check_errors(&wildcard, &[(line, 9, "missing key \"host\"")]);
}

#[test]
fn exec_checks_are_checked() {
    let program = "the absolute path of a program";
    check_refused(&[
        ("^{ type = \"exec\" }", "missing key \"command\""),
        ("{ type = \"exec\", command = ^\"/bin/true\" }", "an array"),
        ("{ type = \"exec\", command = ^[] }", program),
        ("{ type = \"exec\", command = ^[\"true\"] }", program),
        (
            "{ type = \"exec\", command = [\"/bin/true\", ^1] }",
            "expected a string",
        ),
        (
            "{ type = \"exec\", command = [\"/bin/true\", ^\"\\u0000\"] }",
            "without NUL",
        ),
    ]);
}

#[test]
fn a_missing_program_is_noted() {
    for (program, want) in [("/bin/sh", 0), ("/nonexistent/check", 1)] {
        let check = format!("check = {{ type = \"exec\", command = [\"{program}\"] }}");
        let (toml, ..) = edited("ttl = \"30s\"", &check);
        let warnings = load_text(toml, ZONE).unwrap().warnings;
        // Once, though three servers have it.
        assert_eq!(warnings.len(), want, "{warnings:?}");
        assert!(
            warnings
                .iter()
                .all(|warning| warning.message.contains(program))
        );
    }
}

/// What the servers of the reference case probe, when its service has this `check` and its
/// second server that one.
#[track_caller]
fn targets(service: &str, server: &str) -> Vec<Vec<String>> {
    let toml = REFERENCE.replace("ttl = \"30s\"", service).replace(
        "priority = \"backup\"",
        &format!("priority = \"backup\"\n{server}"),
    );
    let model = load_text(toml, ZONE)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .model;
    let servers = model.servers.iter();
    let targets = |server: &crate::model::Server| {
        let probes = server.probes.iter().map(|probe| model.probe(*probe));
        probes
            .map(|probe| format!("{} {:?}", probe.target.definition(), probe.timing.interval))
            .collect()
    };
    servers.map(targets).collect()
}

#[test]
fn checks_with_everything_said_and_nothing() {
    for (check, want) in [
        (
            "{ type = \"http\" }",
            "http:192.168.10.10:80/ (www.example.com) GET expect 200-200 1s",
        ),
        (
            "{ type = \"https\", port = 443 }",
            "https:192.168.10.10:443/ (www.example.com) GET expect 200-200 1s",
        ),
        (
            "{ type = \"https\", path = \"/h?a=b\", host = \"2001:db8::1\", method = \"HEAD\", expect = [0o314, \"300-399\"], verify = false }",
            "https:192.168.10.10:80/h?a=b ([2001:db8::1]) HEAD expect 204-204 300-399 unverified 1s",
        ),
        (
            "{ type = \"http\", body = \"all \\\"well\\\"\" }",
            "http:192.168.10.10:80/ (www.example.com) GET expect 200-200 body \"all \\\"well\\\"\" 1s",
        ),
        (
            "{ type = \"exec\", command = [\"/bin/x\", \"-v\"], port = 81 }",
            "exec:/bin/x -v for 192.168.10.10:81 1s",
        ),
        ("{ port = 8080 }", "tcp:192.168.10.10:8080 1s"),
    ] {
        assert_eq!(
            targets(&format!("check = {check}"), "")[0],
            [want],
            "{check}"
        );
    }
    // A name, and not a wildcard, if there is one.
    let (toml, ..) = edited(
        "[\"www.example.com\"]",
        "[\"*.example.com\", \"www.example.com\"]\ncheck = { type = \"http\" }",
    );
    let model = load_text(toml, ZONE).unwrap().model;
    assert_eq!(
        model.probes.last().unwrap().target.to_string(),
        "http:192.0.2.200:80/ (www.example.com)"
    );
}

#[test]
fn several_checks() {
    let both = "check = [{ type = \"tcp\" }, { type = \"icmp\", interval = \"5s\" }]";
    let [a, b] = [10, 11].map(|host| format!("192.168.10.{host}"));
    for (service, server, want_a, want_b) in [
        (
            both,
            "",
            vec![format!("tcp:{a}:80 1s"), format!("icmp:{a} 5s")],
            vec![format!("tcp:{b}:80 1s"), format!("icmp:{b} 5s")],
        ),
        // Without a type it changes each.
        (
            both,
            "check = { interval = \"2s\" }",
            vec![format!("tcp:{a}:80 1s"), format!("icmp:{a} 5s")],
            vec![format!("tcp:{b}:80 2s"), format!("icmp:{b} 2s")],
        ),
        // With one it takes their place.
        (
            both,
            "check = { type = \"icmp\" }",
            vec![format!("tcp:{a}:80 1s"), format!("icmp:{a} 5s")],
            vec![format!("icmp:{b} 1s")],
        ),
        // An array builds on the one check of the service.
        (
            "check = { interval = \"3s\" }",
            "check = [{ type = \"icmp\" }, { port = 81 }]",
            vec![format!("tcp:{a}:80 3s")],
            vec![format!("icmp:{b} 3s"), format!("tcp:{b}:81 3s")],
        ),
        // The same twice is one.
        (
            "",
            "check = [{ type = \"icmp\" }, { type = \"icmp\" }]",
            vec![format!("tcp:{a}:80 1s")],
            vec![format!("icmp:{b} 1s")],
        ),
        // What belongs to another type is forgotten, what belongs to both is not.
        (
            "check = { type = \"http\", path = \"/h\" }",
            "check = { type = \"tcp\" }",
            vec![format!(
                "http:{a}:80/h (www.example.com) GET expect 200-200 1s"
            )],
            vec![format!("tcp:{b}:80 1s")],
        ),
        (
            "check = { type = \"http\", path = \"/h\" }",
            "check = { type = \"https\", verify = false }",
            vec![format!(
                "http:{a}:80/h (www.example.com) GET expect 200-200 1s"
            )],
            vec![format!(
                "https:{b}:80/h (www.example.com) GET expect 200-200 unverified 1s"
            )],
        ),
    ] {
        let got = targets(service, server);
        assert_eq!((&got[0], &got[1]), (&want_a, &want_b), "{service} {server}");
    }
}

#[test]
fn what_another_type_does_not_have_is_forgotten() {
    let toml = REFERENCE
        .replace(
            "[check]",
            "[check]\ntype = \"http\"\npath = \"/h\"\nport = 81",
        )
        .replace("ttl = \"30s\"", "check = { type = \"tcp\" }")
        .replace("priority = \"backup\"", "check = { type = \"http\" }");
    let model = load_text(toml, ZONE).unwrap().model;
    let target = |index: usize| {
        model
            .probe(model.servers[index].probes[0])
            .target
            .to_string()
    };
    assert_eq!(target(0), "tcp:192.168.10.10:81");
    assert_eq!(target(1), "http:192.168.10.11:81/ (www.example.com)");
}

#[test]
fn a_ca_file_is_read() {
    let ca = crate::probe::testing::pki::Ca::new();
    let load = |content: &str| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("example.com.zone"), ZONE).unwrap();
        fs::write(directory.path().join("ca.pem"), content).unwrap();
        let file = directory.path().join("failover.toml");
        let check = "check = { type = \"https\", ca_file = \"ca.pem\" }";
        fs::write(&file, REFERENCE.replace("ttl = \"30s\"", check)).unwrap();
        super::load(&file).map_err(|errors| errors.to_string())
    };
    let model = load(&format!("the CA\n{0}{0}", ca.pem())).unwrap().model;
    let ProbeTarget::Http(check) = &model.probe(model.servers[0].probes[0]).target else {
        panic!("{:?}", model.probes);
    };
    let Some(crate::model::Trust::File { path, certificates }) =
        check.tls.as_ref().map(|tls| &tls.trust)
    else {
        panic!("{check:?}");
    };
    assert!(path.ends_with("ca.pem"), "{path:?}");
    assert_eq!(certificates.len(), 2);
    for (content, message) in [
        ("-----BEGIN CERTIFICATE-----\n", "expected PEM: "),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "certificate 1 is of no use: ",
        ),
    ] {
        let errors = load(content).unwrap_err();
        // Once, though three servers have it.
        assert!(
            errors.contains(message) && errors.lines().count() == 1,
            "{errors}"
        );
    }
}

#[test]
fn links_are_checked() {
    let targets = "targets = [\"icmp:203.0.113.65\", \"tcp:192.0.2.53:53\"]";
    let form = "expected \"icmp:ADDRESS\", \"tcp:ADDRESS:PORT\" or";
    check_edits(&[
        (targets, "targets = [^\"192.0.2.1\"]", form),
        (targets, "targets = [^\"tcp:192.0.2.1\"]", form),
        (targets, "targets = [^\"tcp:192.0.2.1:0\"]", form),
        (targets, "targets = [^\"tcp:2001:db8::1:53\"]", form),
        (targets, "targets = [^\"udp:192.0.2.1:53\"]", form),
        (targets, "targets = [^\"icmp:192.0.2.1:53\"]", form),
        (targets, "targets = [^7]", form),
        (
            targets,
            "targets = [^\"icmp:0.0.0.0\"]",
            "not the unspecified address",
        ),
        (
            targets,
            "targets = [\"icmp:192.0.2.1\", ^\"icmp:192.0.2.1\"]",
            "duplicate target",
        ),
        (
            targets,
            "source = \"192.0.2.9\"\ntargets = [^\"icmp:2001:db8::1\"]",
            "source 192.0.2.9 is IPv4",
        ),
        (
            targets,
            "source = ^\"here\"",
            "source: expected an IP address",
        ),
        (
            targets,
            "interface = ^\"\"",
            "interface: expected an interface name",
        ),
        (
            targets,
            "min_up = ^1",
            "expected 0, as the link has no targets, found 1",
        ),
        (
            "min_up = 1",
            "min_up = ^4",
            "expected 1 to 3, the number of targets, found 4",
        ),
        (
            "min_up = 1",
            "min_up = ^0",
            "expected 1 to 3, the number of targets, found 0",
        ),
        ("min_up = 1", "min_up = ^-1", "expected an integer from 0"),
        (
            "name = \"wan2\"\ntargets",
            "^traget = []\nname = \"wan2\"\ntargets",
            "did you mean \"targets\"?",
        ),
        (
            "name = \"wan2\"\ntargets",
            "name = \"wan2\"\n[[wan]]\nname = ^\"wan1\"\ntargets",
            "duplicate WAN link \"wan1\", first on line 23",
        ),
    ]);
    // A target that cannot be read still counts.
    check_edits(&[(
        "targets = [\"icmp:198.51.100.129\"",
        "targets = [^\"x\"",
        form,
    )]);
}

#[test]
fn probes_leave_through_their_link() {
    let toml = REFERENCE
        .replace(
            "name = \"wan2\"\n",
            "name = \"wan2\"\ninterface = \"eth2\"\nsource = \"203.0.113.66\"\n",
        )
        .replace("offsite = true", "offsite = true\nvia = \"wan2\"");
    let model = load_text(toml, ZONE).unwrap().model;
    let egress = Egress {
        interface: Some("eth2".to_owned()),
        source: "203.0.113.66".parse().ok(),
    };
    assert_eq!(model.probe(model.wans[1].targets[0].probe).egress, egress);
    assert_eq!(model.probe(model.servers[2].probes[0]).egress, egress);
    assert_eq!(
        model.probe(model.servers[0].probes[0]).egress,
        Egress::default()
    );
    assert_eq!(model.wans[1].interface.as_deref(), Some("eth2"));
}

#[test]
fn services_are_checked() {
    let fqdn = "fqdn = [\"www.example.com\"]";
    let wan2 = "{ link = \"wan2\", address = \"203.0.113.70\" }";
    check_edits(&[
        (
            fqdn,
            "fqdn = [^\"www.example.org\"]",
            "\"www.example.org\" lies in no [[zone]]",
        ),
        (
            fqdn,
            "fqdn = [\"www.example.com\", ^\"WWW.example.com.\"]",
            "duplicate fqdn",
        ),
        (
            fqdn,
            "fqdn = [^'a\\000b.example.com']",
            "no zero octet in names",
        ),
        (
            fqdn,
            "fqdn = [^\"a..example.com\"]",
            "fqdn: expected a domain name",
        ),
        (fqdn, "fqdn = [^\"\"]", "it is empty"),
        (
            fqdn,
            "fqdn = [^\"bücher.example.com\"]",
            "write the xn-- form",
        ),
        (fqdn, "fqdn = ^[]", "at least one name"),
        (
            fqdn,
            "fqdn = ^\"www.example.com\"",
            "fqdn: expected an array",
        ),
        (
            fqdn,
            "fqdn = [^\"mail.example.com\"]",
            "\"mail.example.com\" has A in the zone file, line 17",
        ),
        (
            "ttl = \"30s\"",
            "ttl = ^30",
            "ttl: expected a duration: a string with a unit, such as \"500ms\" or \"2s\", found 30",
        ),
        ("ttl = \"30s\"", "ttl = ^\"1500ms\"", "whole seconds"),
        (
            "ttl = \"30s\"",
            "ttl = ^\"2147483648s\"",
            "ttl: expected a duration from 0s",
        ),
        (
            "ttl = \"30s\"",
            "max_answers = ^0",
            "max_answers: expected an integer from 1",
        ),
        (
            "redundancy_only = false",
            "redundancy_only = ^\"no\"",
            "expected true or false",
        ),
        (
            "on_all_down = \"primary\"",
            "on_all_down = ^\"lst\"",
            "or an array of addresses, found \"lst\"",
        ),
        (
            "on_all_down = \"primary\"",
            "on_all_down = ^[]",
            "\"empty\" answers none",
        ),
        (
            "on_all_down = \"primary\"",
            "on_all_down = [^\"::\"]",
            "not the unspecified address",
        ),
        (
            "on_all_down = \"primary\"",
            "on_all_down = [\"192.0.2.1\", ^\"192.0.2.1\"]",
            "duplicate address",
        ),
        (
            wan2,
            "{ link = ^\"wan3\", address = \"203.0.113.70\" }",
            "link: expected the name of a [[wan]], found \"wan3\", did you mean \"wan",
        ),
        (wan2, "^{ link = \"wan2\" }", "missing key \"address\""),
        (
            wan2,
            "{ link = \"wan2\", address = ^\"203.0.113\" }",
            "address: expected an IP address",
        ),
        (
            wan2,
            "{ link = \"wan2\", address = ^\"198.51.100.134\" }",
            "duplicate WAN address",
        ),
        (
            wan2,
            "{ link = \"wan2\", address = \"203.0.113.70\", weight = ^0 }",
            "weight: expected an integer from 1 to 65535",
        ),
        (
            wan2,
            "{ link = \"wan2\", address = \"203.0.113.70\", ^wieght = 1 }",
            "did you mean \"weight\"?",
        ),
        ("name = \"www\"", "name = ^\"w w\"", "name: expected a name"),
        ("name = \"www\"", "name = ^\"a/b\"", "name: expected a name"),
        ("name = \"www\"", "name = ^\"wan\"", "expected another name"),
        (
            "[[service]]\nname = \"www\"",
            "^[[service]]",
            "missing key \"name\"",
        ),
        (
            "[[service]]\nname = \"www\"",
            "^[[service]]\nname = \"x\"\nport = 80\nfqdn = [\"x.example.com\"]\n[[service]]\nname = \"www\"",
            "missing [[service.server]]",
        ),
        (
            "[[service]]\nname = \"www\"\nfqdn = [\"www.example.com\"]\nttl = \"30s\"\nport = 80",
            "^[[service]]\nname = \"www\"\nfqdn = [\"www.example.com\"]",
            "missing key \"port\"",
        ),
    ]);
    let offsite = "\n[[service]]\nname = ^\"www\"\nfqdn = [\"b.example.com\"]\n[[service.server]]\nname = \"x\"\naddress = \"192.0.2.1\"\noffsite = true\nport = 1\n";
    check_edits(&[(
        "offsite = true\n",
        &format!("offsite = true\n{offsite}"),
        "duplicate service \"www\", first on line 32",
    )]);
}

#[test]
fn servers_are_checked() {
    let b = "name = \"web-b\"\naddress = \"192.168.10.11\"\npriority = \"backup\"";
    let with = |extra: &str| format!("{b}\n{extra}");
    check_edits(&[
        (
            b,
            &b.replace("\"web-b\"", "^\"web-a\""),
            "duplicate server \"web-a\", first on line 44",
        ),
        (
            b,
            &b.replace("\"backup\"", "^\"backup4\""),
            "one of \"disabled\", \"primary\", \"backup\", \"backup2\", \"backup3\" (did you mean",
        ),
        (
            b,
            &b.replace("\"192.168.10.11\"", "^\"web-b.local\""),
            "address: expected an IP address",
        ),
        (
            b,
            &with("weight = ^65536"),
            "weight: expected an integer from 1 to 65535",
        ),
        (b, &with("port = ^0"), "port: expected an integer"),
        (b, &with("offsite = ^1"), "offsite: expected true or false"),
        (
            b,
            &with("via = ^\"wan9\""),
            "via: expected the name of a [[wan]]",
        ),
        (
            b,
            &with("check_address = ^\"x\""),
            "check_address: expected an IP address",
        ),
        (b, &with("^prioritiy = 1"), "did you mean \"priority\"?"),
    ]);

    let only = |head: &str, server: &str| {
        format!(
            "[server]\nlisten = [\"192.0.2.1\"]\n[[zone]]\nname = \"example.com\"\nfile = \"example.com.zone\"\n[[service]]\nname = \"a\"\nfqdn = [\"a.example.com\"]\n{head}\n[[service.server]]\nname = \"s\"\naddress = \"192.0.2.7\"\n{server}\n"
        )
    };
    check_errors(
        &only("port = 80", ""),
        &[(
            10,
            1,
            "server \"s\" is onsite, but its service has no `wan`",
        )],
    );
    check_errors(
        &only("", "offsite = true"),
        &[(6, 1, "missing key \"port\"")],
    );
    check_errors(&only("", "offsite = true\nport = 80"), &[]);
    check_errors(
        &only("port = 80", "offsite = true\npriority = \"disabled\""),
        &[(6, 1, "no server of this service can ever be answered")],
    );
}

#[test]
fn an_answer_has_at_most_64_addresses() {
    let servers = |count: usize, tier: &str| -> String {
        (0..count)
            .map(|n| format!("[[service.server]]\nname = \"{tier}{n}\"\naddress = \"10.0.{}.{n}\"\noffsite = true\npriority = \"{tier}\"\n", tier.len()))
            .collect()
    };
    let first = "[[service.server]]\n";
    let new = |backup2, primary| {
        format!(
            "{}{}{first}",
            servers(backup2, "backup2"),
            servers(primary, "primary")
        )
    };
    assert_eq!(model(first, &new(63, 62)).servers.len(), 128);
    let head = "[[service]]\n";
    for (backup2, primary, tier) in [(64, 1, "backup2"), (1, 63, "primary")] {
        let toml = REFERENCE.replacen(first, &new(backup2, primary), 1);
        let line = toml[..toml.find(head).unwrap()].matches('\n').count() + 1;
        let message =
            format!("expected at most 64 addresses in one answer, found 65 in tier {tier}");
        check_errors(&toml, &[(line, 1, &message)]);
    }
}

#[test]
fn the_closest_zone_holds_a_name() {
    let directory = tempfile::tempdir().unwrap();
    let zone = |name: &str| {
        format!("@ 60 IN SOA ns.{name}. h.{name}. 1 2 3 4 5\n@ 60 IN NS ns\nns 60 IN A 192.0.2.1\n")
    };
    let parent = format!(
        "{}sub 60 NS ns.sub\nns.sub 60 A 192.0.2.2\ndel 60 NS ns.example.net.\nali CNAME www\ntree DNAME example.net.\nx AAAA ::1\ntxt TXT \"kept\"\n",
        zone("example.com")
    );
    fs::write(directory.path().join("example.com.zone"), parent).unwrap();
    fs::write(directory.path().join("sub.zone"), zone("sub.example.com")).unwrap();
    let file = directory.path().join("failover.toml");
    let load_names = |names: &str| {
        let toml = format!(
            "[server]\nlisten = [\"192.0.2.1\"]\n[[zone]]\nname = \"example.com\"\nfile = \"example.com.zone\"\n[[zone]]\nname = \"Sub.Example.Com\"\nfile = \"sub.zone\"\n[[service]]\nname = \"a\"\nport = 80\nfqdn = [\n{names}]\n[[service.server]]\nname = \"s\"\naddress = \"192.0.2.7\"\noffsite = true\n"
        );
        fs::write(&file, toml).unwrap();
        load(&file)
    };
    let model = load_names(
        "\"WWW.sub.example.com\",\n\"www.example.com\",\n\"example.com\",\n\"txt.example.com\"",
    )
    .unwrap()
    .model;
    let zones: Vec<_> = model.services[0]
        .fqdn
        .iter()
        .map(|fqdn| (fqdn.name.to_string(), fqdn.zone.0))
        .collect();
    let expected = [
        ("www.sub.example.com", 1),
        ("www.example.com", 0),
        ("example.com", 0),
        ("txt.example.com", 0),
    ];
    assert_eq!(zones, expected.map(|(name, zone)| (name.to_owned(), zone)));

    let errors = load_names(
        "\"a.b.del.example.com\",\n\"del.example.com\",\n\"ali.example.com\",\n\"a.tree.example.com\",\n\"x.example.com\",\n\"ns.sub.example.com\"",
    )
    .unwrap_err();
    check_findings(
        &errors.0,
        &[
            (13, 1, "lies below a delegation, zone file line 6"),
            (14, 1, "lies below a delegation"),
            (15, 1, "has CNAME in the zone file, line 7"),
            (16, 1, "lies below a DNAME, zone file line 8"),
            (17, 1, "has AAAA in the zone file, line 9"),
            (18, 1, "has A in the zone file, line 3"),
        ],
        "clashes",
    );
}

#[test]
fn zone_files_are_checked() {
    const HEAD: &str = "@ 60 SOA ns h 1 2 3 4 5\n@ 60 NS ns\nns 60 A 192.0.2.1\n";
    let with = |extra: &str| format!("{HEAD}{extra}");
    check_zone(HEAD, &[]);
    check_zone(&with("; bücher\r\n\r\n  TXT \"a;b(\" ( x\n y )"), &[]);
    check_zone(
        "",
        &[
            (1, 1, "no NS record at example.com."),
            (1, 1, "no SOA record at example.com."),
        ],
    );
    check_zone(
        "@ 60 SOA ns h 1 2 3 4 5\n@ 60 NS ns\n",
        &[(2, 1, "name server ns.example.com. has no A or AAAA record")],
    );
    check_zone("@ 60 SOA ns h 1 2 3 4 5\n@ 60 NS ns.example.net.\n", &[]);
    check_zone(
        &with("@ 60 SOA ns h 2 2 3 4 5\n"),
        &[(1, 1, "expected one SOA at example.com., found 2")],
    );
    check_zone(
        &with("a 60 SOA ns h 2 2 3 4 5\n"),
        &[(4, 1, "expected SOA only at example.com.")],
    );
    check_zone(
        &with("a.example.net. 60 A 192.0.2.1\n"),
        &[(4, 1, "a.example.net. lies outside the zone example.com.")],
    );
    check_zone(
        &with("$INCLUDE other.zone\n"),
        &[(4, 1, "$INCLUDE: cannot read ")],
    );
    check_zone(
        &with(
            "*.w NS ns\nx.*.w TXT ok\nd DNAME e\nb.a.d TXT x\n*.t DNAME f\ng DNAME a\ng DNAME b\n",
        ),
        &[
            (4, 1, "*.w.example.com. is a wildcard with NS"),
            (7, 1, "b.a.d.example.com. lies below a DNAME, line 6"),
            (8, 1, "*.t.example.com. is a wildcard with DNAME"),
            (9, 1, "g.example.com. has more than one DNAME"),
        ],
    );
    check_zone(
        &with("a 60 CH A 192.0.2.1\n"),
        &[(4, 1, "expected class IN in a 60 CH A 192.0.2.1")],
    );
    check_zone(
        &with("a 4294967295 A 192.0.2.1\n"),
        &[(4, 1, "a TTL of at most 2147483647")],
    );
    check_zone(
        &with("a CNAME b\na TXT x\nb CNAME c\nb CNAME d\n"),
        &[
            (4, 1, "a.example.com. has both CNAME and TXT"),
            (6, 1, "b.example.com. has more than one CNAME"),
        ],
    );
    // Every bad entry is reported, and does not spoil the next.
    check_zone(
        &with(
            "$TTL 1x\nb A 192.0.2.256\nc AA 192.0.2.1\nd A\ne TXT \"open\n  A 192.0.2.1 more\nf..g A 192.0.2.1\ni NS a..b\nh A (\n",
        ),
        &[
            (4, 6, "expected a TTL such as 3600 or 1h, found 1x"),
            (5, 5, "found 192.0.2.256"),
            (
                6,
                3,
                "expected a TTL such as 3600 or 1h, a class or a record type, found AA",
            ),
            (7, 3, "unexpected end of entry"),
            (
                8,
                1,
                "this quoted string does not end on its line: e TXT \"open",
            ),
            (9, 15, "trailing tokens, found more"),
            (
                10,
                1,
                "a name with an empty label, or data too long, in f..g A 192.0.2.1",
            ),
            (
                11,
                1,
                "a name with an empty label, or data too long, in i NS a..b",
            ),
            (12, 1, "a '(' without a ')'"),
        ],
    );
    // Places are those of the file, not of what is spelled out.
    check_zone(
        &with(
            "@ 1h MX x @\n@ 1h SRV 1 2 53 @ @\n$ORIGIN a\n@ 1h SOA @ @ (\n 1 2h 3h 4x 5 )\n@ 1d LOC 51 30 12 N 0 7 39 W 0m\n@ 5000d A 192.0.2.1\n@ 1h NS\n@ 100000w A 192.0.2.1\n",
        ),
        &[
            (4, 9, "expected decimal number, found x"),
            (5, 19, "trailing tokens, found @"),
            (8, 10, "expected decimal number, found 4x"),
            (
                9,
                10,
                "expected data of this type in the form \\# LENGTH HEXADECIMAL (RFC 3597), found 51",
            ),
            (11, 7, "unexpected end of entry"),
            (
                12,
                3,
                "expected a TTL such as 3600 or 1h, a class or a record type, found 100000w",
            ),
        ],
    );
    check_zone(
        &with("a 30000d A 192.0.2.1\n"),
        &[(4, 1, "a TTL of at most 2147483647, found 2592000000")],
    );
}

#[test]
fn a_zone_file_has_any_records() {
    check_zone(
        r#"$TTL 300
@ SOA ns.example.com. hostmaster\.dns.example.com. ( 2026112201 3600 600
      1209600 300 ) ; in parentheses
@ NS ns
ns A 192.0.2.1
 AAAA 2001:db8::1
\* 60 IN TXT "wild" card..dots
_dns.tcp 60 IN SRV 1 2 53 ns
@ MX 10 mail
@ CAA 0 issue "ca.example.net"
key._domainkey TXT ( "v=DKIM1; k=rsa; p=MIIBIjANBgkqh"
    "kiG9w0BAQEFAAOCAQ8A" )
@ HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1
@ TYPE999 \# 4 0a000001
@ NAPTR 100 50 "s" "http+I2L" "" _http._tcp.gatech.edu.
_443._tcp TLSA 3 1 1 92003BA34942DC74152E2F2C408D29ECA5A520E7F2E06BB944F4DCA346BAF63C
host SSHFP 4 2 92003BA34942DC74152E2F2C408D29ECA5A520E7F2E06BB944F4DCA346BAF63C
sub NS ns.sub
sub DS 60485 13 2 D4B7D520E7BB5F0F67674A0CCEB1E3E0614B93C4F9E99B8383F6A1E4469DA50A
ns.sub A 192.0.2.3
$ORIGIN deep.example.com.
@ PTR www
alias CNAME www.example.net.
"#
        .replace("\\\\", "\\")
        .as_str(),
        &[],
    );
}

#[test]
fn what_zone_files_abbreviate_is_served_in_full() {
    let zone = r#"$TTL 1d
@ 15m SOA @ hostmaster 1 1h 15m 2w 5m
@ NS @
@ A 192.0.2.1
@ 1h MX 10 @
@ TXT @ 1h
www CNAME @
quoted CNAME "@"
escaped CNAME \@
longer CNAME @.b
loc LOC \# 16 00000000 80000000 80000000 00989680
$INCLUDE sub/hosts @
@ 60 HINFO @ @
$ORIGIN dept
@ PTR @
_sip._tcp 1H30M IN SRV 1 2 53 @
"#;
    let hosts = "$ORIGIN sub.example.com.\nb CNAME @\n";
    let loaded = load_zone_files(&[("zone", zone), ("sub/hosts", hosts)])
        .unwrap_or_else(|errors| panic!("{errors}"));
    let zone = &loaded.model.zones[0];
    let soa = &zone.soa;
    assert_eq!(
        (soa.ttl, soa.mname.to_string().as_str()),
        (900, "example.com")
    );
    let times = (soa.refresh, soa.retry, soa.expire, soa.minimum);
    assert_eq!(times, (3600, 900, 1_209_600, 300));
    assert_eq!(zone.name_servers[0].name, zone.name);
    for (owner, rtype, ttl, want) in [
        ("example.com", Rtype::NS, 86_400, "example.com."),
        ("example.com", Rtype::MX, 3600, "10 example.com."),
        ("example.com", Rtype::TXT, 86_400, "\"@\" \"1h\""),
        ("example.com", Rtype::HINFO, 60, "\"@\" \"@\""),
        ("www.example.com", Rtype::CNAME, 86_400, "example.com."),
        ("quoted.example.com", Rtype::CNAME, 86_400, "@.example.com."),
        (
            "escaped.example.com",
            Rtype::CNAME,
            86_400,
            "@.example.com.",
        ),
        (
            "longer.example.com",
            Rtype::CNAME,
            86_400,
            "@.b.example.com.",
        ),
        (
            "b.sub.example.com",
            Rtype::CNAME,
            86_400,
            "sub.example.com.",
        ),
        ("dept.example.com", Rtype::PTR, 86_400, "dept.example.com."),
        (
            "_sip._tcp.dept.example.com",
            Rtype::SRV,
            5400,
            "1 2 53 dept.example.com",
        ),
    ] {
        let name = name::parse(owner).unwrap();
        let rrset = zone.records.rrset(name.as_slice(), rtype).unwrap();
        assert_eq!(rrset.data[0].to_string(), want, "{owner} {rtype}");
        assert_eq!(rrset.ttl, ttl, "{owner} {rtype}");
    }
    let loc = name::parse("loc.example.com").unwrap();
    assert!(zone.records.rrset(loc.as_slice(), Rtype::LOC).is_some());
}

/// `files` are the zone file and what it includes.
#[track_caller]
fn load_zone_files(files: &[(&str, &str)]) -> Result<Loaded, Diagnostics> {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("sub")).unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let file = directory.path().join("failover.toml");
    let toml = "[server]\nlisten = [\"192.0.2.1\"]\nnsid = \"ns1.site-a\"\n[[zone]]\nname = \"example.com\"\nfile = \"zone\"\n";
    fs::write(&file, toml).unwrap();
    load(&file)
}

#[test]
fn a_zone_may_lie_in_several_files() {
    let zone = "$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n$INCLUDE sub/hosts hosts\n TXT \"of ns\"\nafter A 192.0.2.2\n";
    let hosts = "$ORIGIN rack1.hosts.example.com.\na A 192.0.2.3\n$INCLUDE more\n";
    let loaded = load_zone_files(&[
        ("zone", zone),
        ("sub/hosts", hosts),
        ("sub/more", "b 5 A 192.0.2.4"),
    ])
    .unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.model.settings.nsid.as_deref(), Some("ns1.site-a"));
    let records = &loaded.model.zones[0].records;
    for (name, rtype, ttl) in [
        ("a.rack1.hosts.example.com", Rtype::A, 60),
        ("b.rack1.hosts.example.com", Rtype::A, 5),
        ("ns.example.com", Rtype::TXT, 60),
        ("after.example.com", Rtype::A, 60),
        ("example.com", Rtype::SOA, 60),
    ] {
        let name = name::parse(name).unwrap();
        let rrset = records.rrset(name.as_slice(), rtype);
        assert_eq!(rrset.map(|rrset| rrset.ttl), Some(ttl), "{name} {rtype}");
    }
    let hosts = name::parse("hosts.example.com").unwrap();
    assert_eq!(records.node(hosts.as_slice()), Some(&[][..]));
}

#[test]
fn mistakes_in_included_files_have_their_place() {
    let zone = "$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n$INCLUDE sub/hosts\nx A 192.0.2.999\n";
    let hosts = "a A 192.0.2.3\n$INCLUDE hosts\n\nb A 1.2.3\n$INCLUDE ../sub/hosts\n";
    let errors = load_zone_files(&[("zone", zone), ("sub/hosts", hosts)]).unwrap_err();
    let found: Vec<_> = errors
        .0
        .iter()
        .map(|e| {
            (
                e.file.file_name().unwrap().to_str().unwrap(),
                e.line,
                e.column,
            )
        })
        .collect();
    assert!(
        found.contains(&("hosts", 2, 1))
            && found.contains(&("hosts", 4, 5))
            && found.contains(&("zone", 6, 5)),
        "{errors}"
    );
    assert!(errors.0[0].message.contains("includes itself"), "{errors}");
    assert!(errors.0.len() < 40, "{errors}");
}

#[test]
fn one_set_has_one_ttl_and_no_record_twice() {
    let zone = "@ 60 SOA ns h 1 2 3 4 5\n@ 60 NS ns\n@ 30 NS ns2\nns 60 A 192.0.2.1\nns 60 A 192.0.2.1\nns2 60 AAAA 2001:db8::1\n";
    let loaded = load_text(
        "[server]\nlisten = [\"192.0.2.1\"]\n[[zone]]\nname = \"example.com\"\nfile = \"example.com.zone\"\n",
        zone,
    )
    .unwrap();
    let zone = &loaded.model.zones[0];
    assert_eq!(zone.ns_ttl, 30);
    assert_eq!(zone.name_servers[0].addresses.len(), 1);
    assert_eq!(
        zone.name_servers[1].addresses,
        [("2001:db8::1".parse().unwrap(), 60)]
    );
    check_findings(
        &loaded.warnings,
        &[
            (3, 1, "taking the lowest, 30"),
            (4, 1, "a record is there twice"),
        ],
        "warnings",
    );
}

#[test]
fn ten_mistakes_make_ten_errors() {
    let toml = r#"[server]
listen = ["0.0.0.0"]
prot = 53

[[zone]]
name = "example.com"
file = "example.com.zone"

[check]
interval = 1
rise = 0

[[wan]]
name = "wan1"
targets = ["ping:192.0.2.1"]
min_up = 3

[[service]]
fqdn = ["www.example.org"]
port = 80
wan = [{ link = "wan2", address = "192.0.2.1" }]

[[service.server]]
name = "a"
address = "192.168.10"
"#;
    let expected = [
        (2, 11, "unspecified"),
        (3, 1, "unknown key \"prot\", did you mean \"port\"?"),
        (10, 12, "a string with a unit"),
        (11, 8, "from 1 to 255, found 0"),
        (15, 12, "found \"ping:192.0.2.1\""),
        (16, 10, "as the link has one target, found 3"),
        (18, 1, "missing key \"name\""),
        (19, 9, "lies in no [[zone]]"),
        (21, 17, "found \"wan2\", did you mean \"wan1\"?"),
        (25, 11, "found \"192.168.10\""),
    ];
    check_errors(toml, &expected);
    let printed = load_text(toml, ZONE).unwrap_err().to_string();
    assert_eq!(printed.lines().count(), 10);
    assert!(
        printed.lines().all(|line| line.contains("failover.toml:")),
        "{printed}"
    );
}

#[test]
fn syntax_errors_have_their_place() {
    // A broken `key = value` does not hide what else is wrong.
    check_errors(
        "[server]\nlisten = [\"192.0.2.1\"]\nport = \nxdp = auto\nedns_udp_size = 1\n",
        &[
            (3, 8, "TOML syntax"),
            (4, 7, "TOML syntax"),
            (5, 17, "from 512 to 1232"),
        ],
    );
    // A broken header or array does, as keys may have moved.
    check_errors(
        "[server\nlisten = [\"192.0.2.1\"]\nport = 0\n",
        &[(1, 8, "TOML syntax")],
    );
    check_errors(
        "[server]\nlisten = [\"192.0.2.1\"]\nlisten = []\n",
        &[(3, 1, "TOML syntax: duplicate key, found listen")],
    );
    let errors = load_text(b"[server]\nport = \"\xff\"\n", ZONE).unwrap_err();
    check_findings(
        &errors.0,
        &[(2, 9, "expected UTF-8, found octet 0xff")],
        "UTF-8",
    );
}

#[test]
fn an_unreadable_file_is_an_error() {
    let errors = load(Path::new("/nonexistent/failover.toml")).unwrap_err();
    check_findings(&errors.0, &[(1, 1, "cannot read the file")], "missing file");
}

#[test]
fn the_command_line_wins() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("failover.toml");
    fs::write(&file, "[server]\nlisten = [\"192.0.2.1\"]\ninterfaces = [\"eth0\"]\nstate_dir = \"state\"\nmax_stale = \"0s\"\n").unwrap();
    let mut overrides = Overrides {
        interfaces: vec!["eth1".to_owned()],
        xdp: Some(XdpMode::Off),
        ..Overrides::default()
    };
    let settings = load_with(&file, &overrides).unwrap().model.settings;
    assert_eq!(
        (settings.interfaces, settings.xdp),
        (vec!["eth1".to_owned()], XdpMode::Off)
    );
    assert_eq!(settings.state_dir, directory.path().join("state"));
    assert_eq!(settings.max_stale, None);
    assert_eq!(load(&file).unwrap().model.settings.interfaces, ["eth0"]);
    overrides.interfaces.push("a/b".to_owned());
    let errors = load_with(&file, &overrides).unwrap_err();
    check_findings(
        &errors.0,
        &[(1, 1, "--interface: expected an interface name")],
        "override",
    );
}

/// Loading is linear: a quadratic step would take minutes here.
#[test]
fn many_names_load() {
    let names: String = (0..50_000)
        .map(|n| format!("\"n{n}.example.com\","))
        .collect();
    let model = model("fqdn = [\"www.example.com\"]", &format!("fqdn = [{names}]"));
    assert_eq!(model.services[0].fqdn.len(), 50_000);
}

proptest! {
    #[test]
    fn no_octets_panic(toml in proptest::collection::vec(any::<u8>(), 0..200), zone in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = load_text(&toml, ZONE);
        let _ = load_text(REFERENCE, &zone);
    }

    #[test]
    fn no_damage_panics(at in 0..REFERENCE.len(), length in 0_usize..40, new in "[\\[\\]{}\"'=.,#\\\\\n a-c0-9é-]{0,6}") {
        let end = (at + length).min(REFERENCE.len());
        let damaged = [&REFERENCE.as_bytes()[..at], new.as_bytes(), &REFERENCE.as_bytes()[end..]].concat();
        if let Err(errors) = load_text(&damaged, ZONE) {
            prop_assert!(!errors.0.is_empty());
        }
    }

    #[test]
    fn no_damaged_zone_panics(at in 0..ZONE.len(), length in 0_usize..40, new in "[\"();\\\\@$\n\t a-c0-9.é#-]{0,8}") {
        let end = (at + length).min(ZONE.len());
        let damaged = [&ZONE.as_bytes()[..at], new.as_bytes(), &ZONE.as_bytes()[end..]].concat();
        let _ = load_text(REFERENCE, &damaged);
    }

    #[test]
    fn no_records_panic(records in proptest::collection::vec("[a-c.@\"\\\\]{0,4} (A|NS|TXT|SOA|MX|CNAME|SRV|DS|SVCB|CAA|TYPE999|NSEC|LOC|TXT \"|60 IN) [a-z0-9.@\"\\\\() ;#=]{0,24}", 1..6)) {
        let _ = load_text(REFERENCE, format!("{ZONE}\n{}", records.join("\n")));
    }
}
