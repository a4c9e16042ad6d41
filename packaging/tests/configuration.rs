//! failover.toml(5) against the daemon: it has every key, in its section, with the true default.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use failover::config;
use failover_packaging::manual::CONFIGURATION;

/// The functions of the daemon that read a table, by their types; and the section of the page that
/// has its keys. Others are no tables.
const SECTIONS: [(&str, &str); 10] = [
    ("Spec", ""),
    ("ServerSpec", "[server]"),
    ("ZoneSpec", "[[zone]]"),
    ("WanSpec", "[[wan]]"),
    ("ServiceSpec", "[[service]]"),
    ("WanAddressSpec", "An element of a service's wan"),
    ("BackendSpec", "[[service.server]]"),
    ("CheckSpec", "check"),
    ("WebhookSpec", "[[notify]]"),
    ("PortForwardSpec", "[port_forward]"),
];

/// `CheckSpec` reads these in a function of their own.
const CHECK_OPTIONS: &str = "Options";

/// A paragraph about a key: section, key, default.
struct Entry {
    section: &'static str,
    key: &'static str,
    default: Option<&'static str>,
}

/// The entries of the page.
fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut section = "";
    for line in CONFIGURATION.lines() {
        if let Some(title) = line.strip_prefix(".SS ") {
            section = title;
        } else if line.starts_with(".SH ") {
            section = "";
        }
        let Some(tag) = line.strip_prefix("\\fB").filter(|_| !section.is_empty()) else {
            continue;
        };
        let (keys, rest) = match tag.split_once(" = ") {
            Some((keys, rest)) => (keys, rest),
            // Several, as described elsewhere.
            None => (tag, ""),
        };
        let default = rest.split_once("(default \\fB");
        let default = default.and_then(|(_, rest)| rest.strip_suffix("\\fR)"));
        for key in keys.split(", ") {
            let key = key.trim_start_matches("\\fB").trim_end_matches("\\fR");
            entries.push(Entry {
                section,
                key,
                default,
            });
        }
    }
    entries
}

/// The keys that the daemon's source asks tables for, by the type that reads them.
fn keys_read() -> BTreeMap<String, BTreeSet<String>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../failover-userspace/src/config");
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in fs::read_dir(directory).expect("the source") {
        let path = file.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("tests.rs")
        {
            continue;
        }
        let mut reader = String::new();
        let mut call_open = false;
        for line in fs::read_to_string(path).expect("UTF-8").lines() {
            if let Some(rest) = line.strip_prefix("impl") {
                let name = rest.rsplit(" for ").next().unwrap_or(rest);
                let name = name.trim_start_matches(|c| c != ' ').trim();
                reader = name.split(['<', ' ', '{']).next().unwrap_or("").to_owned();
            }
            // The key may be on the next line.
            let mut rest = line.trim();
            loop {
                if !call_open {
                    let calls = [".optional(", ".required(", ".tables("];
                    let found = calls.iter().filter_map(|call| {
                        let at = rest.find(call)?;
                        Some((at, at + call.len()))
                    });
                    let Some((_, end)) = found.min() else { break };
                    rest = rest[end..].trim_start();
                    call_open = true;
                }
                if rest.is_empty() {
                    break;
                }
                call_open = false;
                if let Some((key, _)) = rest.strip_prefix('"').and_then(|key| key.split_once('"')) {
                    keys.entry(reader.clone())
                        .or_default()
                        .insert(key.to_owned());
                }
            }
        }
    }
    keys
}

#[test]
fn every_key_is_in_its_section() {
    let mut read = keys_read();
    let options = read.remove(CHECK_OPTIONS).expect("the options of checks");
    read.get_mut("CheckSpec").expect("checks").extend(options);
    for (reader, keys) in &read {
        let section = SECTIONS.iter().find(|(name, _)| name == reader);
        let (_, section) = section.unwrap_or_else(|| {
            panic!("{reader} reads {keys:?}: say in SECTIONS where failover.toml(5) has them")
        });
        for key in keys {
            let there = if section.is_empty() {
                let titles = [format!("[{key}]"), format!("[[{key}]]")];
                titles
                    .iter()
                    .any(|title| CONFIGURATION.contains(&format!("\n.SS {title}\n")))
            } else {
                entries()
                    .iter()
                    .any(|entry| entry.section == *section && entry.key == key)
            };
            assert!(there, "failover.toml(5) says nothing of {key} in {section}");
        }
    }
    for (reader, section) in SECTIONS {
        let keys = read.get(reader);
        let keys = keys.unwrap_or_else(|| panic!("nobody reads the keys of {section} as {reader}"));
        for entry in entries().iter().filter(|entry| entry.section == section) {
            assert!(
                keys.contains(entry.key),
                "failover.toml(5) has {} in {section}, which nobody reads",
                entry.key
            );
        }
    }
}

/// A configuration with one of everything; `@…@` stands for more keys of that section.
const ONE_OF_EVERYTHING: &str = r#"
[server]
listen = ["192.0.2.1"]
cookie_secret = "000102030405060708090a0b0c0d0e0f"
@[server]@

[[zone]]
name = "example.com"
file = "example.com.zone"
@[[zone]]@

[check]
@[check]@

[[wan]]
name = "wan1"
targets = ["icmp:192.0.2.2"]
@[[wan]]@

[[service]]
name = "www"
fqdn = ["www.example.com"]
port = 80
wan = [{ link = "wan1", address = "192.0.2.3" @An element of a service's wan@ }]
@[[service]]@

[[service.server]]
name = "onsite"
address = "192.0.2.4"
check = { timeout = "400ms" @check@ }
@[[service.server]]@
"#;

/// One name only, so that its table has but one order.
const ZONE: &str = "\
example.com. 900 IN SOA example.com. hostmaster.example.com. 1 2 3 4 5
example.com. 900 IN NS example.com.
example.com. 900 IN A 192.0.2.1
";

/// Keys whose default cannot be written there: there is something else already.
const TAKEN: [(&str, &str); 2] = [("[[service]]", "wan"), ("[[wan]]", "targets")];

/// Keys that only checks of type "https" have.
const OF_HTTPS: [&str; 4] = ["path", "method", "expect", "verify"];

/// What the daemon makes of it with one more key.
fn model(directory: &Path, section: &str, key: &str) -> String {
    let mut text = String::new();
    for (number, part) in ONE_OF_EVERYTHING.split('@').enumerate() {
        let is_place = number % 2 == 1;
        match part {
            // In the braces of an inline table.
            place if place == section && !key.is_empty() && !place.starts_with('[') => {
                text += &format!(", {key}");
            }
            place if place == section => text += key,
            _ if is_place => {}
            _ => text += part,
        }
    }
    let file = directory.join("failover.toml");
    fs::write(&file, &text).expect("written");
    let loaded = config::load(&file).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    format!("{:?}", loaded.model)
}

#[test]
fn defaults_are_those_of_the_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    fs::write(directory.join("example.com.zone"), ZONE).expect("written");
    let mut compared = 0;
    for Entry {
        section,
        key,
        default,
    } in entries()
    {
        let Some(default) = default else { continue };
        if TAKEN.contains(&(section, key)) {
            continue;
        }
        let written = format!("{key} = {default}");
        let [without, with] = if section == "check" && OF_HTTPS.contains(&key) {
            let https = "type = \"https\"".to_owned();
            let written = format!("{https}, {written}");
            [https, written]
        } else if section == "check" {
            ["rise = 2".to_owned(), format!("rise = 2, {written}")]
        } else {
            [String::new(), written]
        };
        assert!(
            model(directory, section, &with) == model(directory, section, &without),
            "failover.toml(5): the default of {key} in {section} is not {default}"
        );
        compared += 1;
    }
    assert!(compared > 25, "{compared}");
}

#[test]
fn examples_are_configurations() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("failover.toml");
    let zone = root.join("examples/example.com.zone");
    fs::copy(zone, directory.path().join("example.com.zone")).expect("copied");

    let read = |name: &str| fs::read_to_string(root.join(name)).expect(name);
    let example = read("packaging/examples/failover.toml");
    let installed = read("packaging/default/failover.toml");
    // With all that is left out there.
    let (server, rest) = installed.split_once("\n# [[").expect("sections");
    let rest = format!("\n# [[{rest}").replace("\n# ", "\n");
    let whole = format!("{server}{}", rest.replace("\n#", "\n"));
    let (_, page) = CONFIGURATION.split_once(".SH EXAMPLE\n.nf\n").expect("one");
    let (page, _) = page.split_once(".fi\n").expect("an end");
    for text in [example, installed, whole, page.replace("\\-", "-")] {
        fs::write(&file, &text).expect("written");
        if let Err(errors) = config::load(&file) {
            panic!("{errors}\n{text}");
        }
    }
}
