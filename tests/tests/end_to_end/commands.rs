//! The commands of a running daemon: what scripts rely on.

use anyhow::{Context as _, Result};
use failover_tests::dns::Rtype;
use failover_tests::lab::Config;
use failover_tests::lab::topology::NS1;
use failover_tests::privileged;
use failover_tests::reference::NAME;
use serde_json::Value;

use crate::site::{BOUND, Site};

/// The stable fields of `status --json`, and their types.
const STATUS: &[(&str, &str)] = &[
    ("/generation", "number"),
    ("/interfaces/0/name", "string"),
    ("/interfaces/0/xdp", "string"),
    ("/services/0/name", "string"),
    ("/services/0/fqdn/0", "string"),
    ("/services/0/tier", "string"),
    ("/services/0/answer/0", "string"),
    ("/services/0/ttl", "number"),
    ("/services/0/servers/0/name", "string"),
    ("/services/0/servers/0/address", "string"),
    ("/services/0/servers/0/port", "number"),
    ("/services/0/servers/0/priority", "string"),
    ("/services/0/servers/0/offsite", "boolean"),
    ("/services/0/servers/0/verdict", "string"),
    ("/services/0/servers/0/admin", "string"),
    ("/services/0/servers/0/effective", "string"),
    ("/services/0/servers/0/since", "string"),
    ("/services/0/servers/0/last_error", "null"),
    ("/services/0/servers/0/rtt_us", "number"),
    ("/services/0/servers/1/last_error", "string"),
    ("/services/0/servers/1/rtt_us", "null"),
    ("/wans/0/name", "string"),
    ("/wans/0/verdict", "string"),
    ("/wans/0/admin", "string"),
    ("/wans/0/effective", "string"),
    ("/wans/0/targets/0", "object"),
    ("/counters/rx", "number"),
    ("/counters/answered", "number"),
    ("/counters/passed", "number"),
    ("/counters/slow_path", "number"),
];

/// Values in the first state of the reference case.
const VALUES: &[(&str, &str)] = &[
    ("/interfaces/0", r#"{ "name": "wan1", "xdp": "native" }"#),
    ("/services/0/name", r#""www""#),
    ("/services/0/fqdn", r#"["www.example.com"]"#),
    ("/services/0/tier", r#""primary""#),
    (
        "/services/0/answer",
        r#"["198.51.100.134", "203.0.113.70"]"#,
    ),
    ("/services/0/ttl", "30"),
    ("/services/0/servers/0/name", r#""web-a""#),
    ("/services/0/servers/0/address", r#""192.168.10.10""#),
    ("/services/0/servers/0/port", "80"),
    ("/services/0/servers/0/priority", r#""primary""#),
    ("/services/0/servers/0/offsite", "false"),
    ("/services/0/servers/0/verdict", r#""up""#),
    ("/services/0/servers/0/admin", r#""auto""#),
    ("/services/0/servers/0/effective", r#""up""#),
    ("/services/0/servers/1/verdict", r#""down""#),
    ("/services/0/servers/2/offsite", "true"),
    ("/wans/0/name", r#""wan1""#),
    ("/wans/0/verdict", r#""up""#),
    ("/counters/slow_path", "0"),
];

#[test]
fn of_a_running_daemon() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start("native", &Config::default())?;
    status(&site)?;
    explain(&site)?;
    stats(&mut site)
}

fn status(site: &Site) -> Result<()> {
    let status = json(site, &["status", "--json"])?;
    for (pointer, want) in STATUS {
        let value = status.pointer(pointer);
        let kind = value.map_or("missing", kind);
        assert_eq!(kind, *want, "{pointer} in {status:#}");
    }
    for (pointer, want) in VALUES {
        let want: Value = serde_json::from_str(want)?;
        assert_eq!(status.pointer(pointer), Some(&want), "{pointer}");
    }
    let since = &status["services"][0]["servers"][0]["since"];
    let since = since.as_str().unwrap_or_default();
    assert!(since.contains('T') && since.ends_with('Z'), "{since}");

    let table = site.failover(&["status"])?;
    assert_eq!(table.code, Some(0), "{table:?}");
    for want in [
        "www/web-a",
        "198.51.100.134, 203.0.113.70",
        "wan2",
        "native",
    ] {
        assert!(table.out.contains(want), "no {want} in {}", table.out);
    }
    Ok(())
}

fn explain(site: &Site) -> Result<()> {
    for name in [NAME, "WWW.Example.COM.", "www"] {
        let explained = site.failover(&["explain", name])?;
        assert_eq!(explained.code, Some(0), "{explained:?}");
        for want in ["service www", "198.51.100.134", "web-a", "web-b"] {
            assert!(explained.out.contains(want), "{want}: {}", explained.out);
        }
        let explained = json(site, &["explain", name, "--json"])?;
        assert_eq!(explained["service"]["name"], "www");
    }
    let unknown = site.failover(&["explain", "ftp.example.com"])?;
    assert_eq!((unknown.code, unknown.out.as_str()), (Some(1), ""));
    assert!(unknown.err.contains("ftp.example.com"), "{}", unknown.err);
    Ok(())
}

fn stats(site: &mut Site) -> Result<()> {
    let before = json(site, &["stats", "--json"])?;
    for rtype in [Rtype::A, Rtype::A, Rtype::AAAA] {
        let reply = site.client.ask(NS1, NAME, rtype, BOUND)?;
        reply.context("a query was lost")?;
    }
    let after = json(site, &["stats", "--json"])?;
    let grown = |pointer: &str| {
        let [before, after] = [&before, &after].map(|stats| {
            let count = stats.pointer(pointer).and_then(Value::as_u64);
            count.unwrap_or_else(|| panic!("no {pointer} in {stats:#}"))
        });
        after - before
    };
    assert_eq!(after["services"][0]["name"], "www");
    assert_eq!([grown("/services/0/a"), grown("/services/0/aaaa")], [2, 1]);
    let probes = after["probes"]["tcp"].as_object().context("no probes")?;
    for outcome in probes.values() {
        assert!(outcome.is_u64(), "{probes:?}");
    }

    let table = site.failover(&["stats"])?;
    assert_eq!(table.code, Some(0), "{table:?}");
    Ok(())
}

fn json(site: &Site, args: &[&str]) -> Result<Value> {
    let run = site.failover(args)?;
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{args:?}");
    serde_json::from_str(&run.out).with_context(|| run.out)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
