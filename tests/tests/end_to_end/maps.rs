//! The maps of a running daemon, as `bpftool` shows them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use failover_tests::lab::Config;
use failover_tests::{command, privileged};
use serde_json::Value;

use crate::site::Site;

/// A field of the first value of each map.
const TABLE: &[(&str, &str)] = &[
    ("STATE", "/generation"),
    ("STATE", "/valid_until"),
    ("STATE", "/layout"),
    ("STATE", "/time"),
    ("NAMES", "/slots/0/tag"),
    ("NAMES", "/slots/1/target"),
    ("LONG_NAMES", "/name"),
    ("NODES", "/otherwise"),
    ("ZONES", "/denial/versions"),
    ("SERVICES_A", "/pointers/versions/0"),
    ("SERVICES_AAAA", "/second/counts"),
    ("ANSWERS", "/header/generation"),
    ("ANSWERS", "/header/records"),
    ("ANSWERS", "/bytes"),
    ("LARGE_ANSWERS", "/header/generation"),
    ("TAILS", "/header/authority_count"),
    ("COUNTERS", "/answered"),
    ("SERVICE_HITS", "/aaaa"),
];

#[test]
fn have_named_fields() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let site = Site::start("native", &Config::default())?;
    let maps = maps(&site)?;
    for (name, pointer) in TABLE {
        let value = maps.get(*name).with_context(|| format!("no {name}"))?;
        assert!(value.pointer(pointer).is_some(), "{name}{pointer}: {value}");
    }
    let generation = site.daemon.status()?.generation;
    assert_eq!(maps["STATE"]["generation"], generation);
    Ok(())
}

/// The first value of each of the program's maps, by name. Not dumped by name: other labs and
/// tests have maps of the same names.
fn maps(site: &Site) -> Result<BTreeMap<String, Value>> {
    let programs = site.programs()?;
    let program = programs.get("wan1").context("no program on wan1")?;
    let mut ids = map_ids(program.id)?;
    let mut maps = BTreeMap::new();
    while let Some(id) = ids.pop_first() {
        let id = id.to_string();
        let map = bpftool(&["map", "show", "id", &id])?;
        // Those of the program that it leads to.
        if map["name"] == "REST" {
            let dump = bpftool(&["map", "dump", "id", &id])?;
            let octets = dump[0]["value"].as_array().context("no value")?;
            let octets = octets.iter().filter_map(Value::as_str);
            let program = octets
                .rev()
                .map(|octet| octet.trim_start_matches("0x"))
                .collect::<String>();
            ids.append(&mut map_ids(u64::from_str_radix(&program, 16)?)?);
            continue;
        }
        // The log's ring has no values that could be shown.
        if map["type"] == "ringbuf" {
            continue;
        }
        let name = map["name"].as_str().context("no name")?.to_owned();
        let dump = bpftool(&["map", "dump", "id", &id])?;
        let formatted = &dump[0]["formatted"];
        // Per CPU there is a list of values.
        let first = formatted.pointer("/values/0/value");
        let first = first.unwrap_or(&formatted["value"]);
        maps.insert(name, first.clone());
    }
    Ok(maps)
}

/// The maps of a program.
fn map_ids(program: u64) -> Result<BTreeSet<u64>> {
    let program = bpftool(&["prog", "show", "id", &program.to_string()])?;
    let ids = program["map_ids"].as_array().context("no map_ids")?;
    Ok(ids.iter().filter_map(Value::as_u64).collect())
}

fn bpftool(args: &[&str]) -> Result<Value> {
    let output = command::output(command::command("bpftool").arg("--json").args(args))?;
    let value: Value = serde_json::from_str(&output)?;
    ensure!(value.get("error").is_none(), "bpftool {args:?}: {value}");
    Ok(value)
}
