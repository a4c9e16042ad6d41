//! The section `[port_forward]`, and what it asks of services.

use super::*;
use crate::model::PortForward;

const ON: &str = "\n[port_forward]\nenabled = true\n";

/// Another service with the WAN addresses and servers of `www`, all on their port 80.
const TWIN: &str = r#"
[[service]]
name = "shop"
fqdn = ["shop.example.com"]
port = 80
wan = [
  { link = "wan2", address = "203.0.113.70" },
]

[[service.server]]
name = "b"
address = "192.168.10.11"
priority = "backup"

[[service.server]]
name = "a"
address = "192.168.10.10"
"#;

fn section(text: &str) -> Option<PortForward> {
    let loaded = load_text(format!("{REFERENCE}\n{text}"), ZONE);
    let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}"));
    loaded.model.port_forward
}

#[test]
fn it_is_off_unless_enabled() {
    let on = |snat| Some(PortForward { snat });
    for (text, want) in [
        ("", None),
        ("[port_forward]\nenabled = false", None),
        ("[port_forward]\nenabled = false\nsnat = true", None),
        ("[port_forward]\nenabled = true", on(false)),
        ("[port_forward]\nenabled = true\nsnat = false", on(false)),
        ("[port_forward]\nsnat = true\nenabled = true", on(true)),
    ] {
        assert_eq!(section(text), want, "{text}");
    }
    let end = "offsite = true\n";
    check_edits(&[
        (
            end,
            "offsite = true\n^[port_forward]\n",
            "missing key \"enabled\"",
        ),
        (
            end,
            "offsite = true\n[port_forward]\nenabled = ^1\n",
            "enabled: expected true or false, found 1",
        ),
        (
            end,
            "offsite = true\n[port_forward]\nenabled = true\n^snta = true\n",
            "unknown key \"snta\", did you mean \"snat\"?",
        ),
    ]);
}

/// The message for the reference case and more text, and where it stands in that.
#[track_caller]
fn check_conflict(more: &str, message: &str) {
    let with_mark = format!("{REFERENCE}{more}{ON}");
    let at = with_mark.find('^').expect("a mark");
    let before = &with_mark[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    check_errors(&with_mark.replace('^', ""), &[(line, column, message)]);
    // Nobody minds without port forwarding.
    let without = format!("{REFERENCE}{more}").replace('^', "");
    check_errors(&without, &[]);
}

#[test]
fn services_that_share_an_address_must_share_their_servers() {
    assert_eq!(
        section(&format!("{TWIN}{ON}")),
        Some(PortForward { snat: false })
    );
    let marked = TWIN.replace("\"203", "^\"203");
    for (old, new) in [
        ("192.168.10.10", "192.168.10.12"),
        ("\"192.168.10.10\"", "\"192.168.10.10\"\nport = 81"),
        ("\"192.168.10.10\"", "\"192.168.10.10\"\nweight = 2"),
        ("\"backup\"", "\"backup2\""),
        ("\"backup\"", "\"disabled\""),
        (
            "\"192.168.10.10\"",
            "\"192.168.10.10\"\ncheck = { type = \"icmp\" }",
        ),
        (
            "address = \"192.168.10.10\"",
            "address = \"192.0.2.200\"\noffsite = true",
        ),
    ] {
        assert!(marked.contains(old), "{old}");
        check_conflict(
            &marked.replacen(old, new, 1),
            "203.0.113.70 port 80 is also a WAN address of service \"www\", on line 40, which has other servers",
        );
    }
    // Another port, and nothing is shared.
    let other = TWIN.replace("port = 80", "port = 8080");
    assert_eq!(
        section(&format!("{other}{ON}")),
        Some(PortForward { snat: false })
    );
}

#[test]
fn the_name_server_keeps_its_port() {
    let more = r#"
[[service]]
name = "doh"
fqdn = ["doh.example.com"]
port = 53
wan = [{ link = "wan1", address = ^"198.51.100.130" }]
[[service.server]]
name = "a"
address = "192.168.10.10"
"#;
    check_conflict(
        more,
        "the name server listens on 198.51.100.130 port 53: with port forwarding, expected another",
    );
}

#[test]
fn addresses_that_lead_nowhere_are_warned_of() {
    let toml = REFERENCE.replacen(
        "address = \"203.0.113.70\" }",
        "address = \"2001:db8::70\" }",
        1,
    );
    let warned = |toml: &str| {
        let loaded = load_text(toml, ZONE).unwrap_or_else(|errors| panic!("{errors}"));
        let mut warnings = loaded.warnings.into_iter();
        let found = warnings.find(|warning| warning.message.contains("are not forwarded: no"));
        found.map(|found| (found.line, found.column, found.message))
    };
    assert_eq!(warned(&toml), None);
    let message =
        "connections to 2001:db8::70 are not forwarded: no onsite server has an IPv6 address";
    let found = warned(&format!("{toml}{ON}"));
    assert_eq!(found, Some((40, 30, message.to_owned())));
}
