//! Scripts as text, and what holds for all of them, executed by a table of sets.

use std::collections::HashMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

/// `PLACE > SERVER SERVER…` for each entry.
fn rules(lines: &[&str]) -> Rules {
    let entry = |line: &&str| {
        let (place, servers) = line.split_once(" > ").expect(line);
        let slots: Vec<SocketAddr> = servers
            .split(' ')
            .map(|server| server.parse().expect(line))
            .collect();
        let keep = slots.iter().copied().collect();
        (place.parse().expect(line), Arc::new(Entry { slots, keep }))
    };
    Rules {
        snat: false,
        entries: lines.iter().map(entry).collect(),
    }
}

const WAN1: &str = "198.51.100.134:80 > 192.168.10.10:80";
const BOTH: &str = "198.51.100.134:80 > 192.168.10.10:80 192.168.10.11:8080";
const WAN6: &str = "[2001:db8:1::134]:80 > [2001:db8:10::10]:80";

#[test]
fn the_whole_table() {
    let two = rules(&[BOTH, "203.0.113.70:80 > 192.168.10.10:80", WAN6]);
    assert_eq!(replace(&two), include_str!("table.nft"));
    let all = Rules { snat: true, ..two };
    assert_eq!(replace(&all), include_str!("snat.nft"));
}

#[test]
fn nothing_changes() {
    for lines in [&[][..], &[BOTH, WAN6]] {
        assert_eq!(patch(&rules(lines), &rules(lines)), None);
    }
    // Who may finish is nothing to the table.
    let mut other = rules(&[BOTH]);
    for entry in other.entries.values_mut() {
        let slots = entry.slots.clone();
        let keep = slots.iter().take(1).copied().collect();
        *entry = Arc::new(Entry { slots, keep });
    }
    assert_eq!(patch(&rules(&[BOTH]), &other), None);
}

#[test]
fn what_changes_is_all_that_is_told() {
    let add = "\
add chain inet failover one_of_1_v6
add rule inet failover one_of_1_v6 meta l4proto tcp dnat ip6 to ip6 daddr . tcp dport . numgen random mod 1 map @servers6
add element inet failover servers6 {
	2001:db8:1::134 . 80 . 0 : 2001:db8:10::10 . 80
}
add element inet failover services6 {
	2001:db8:1::134 . 80 : goto one_of_1_v6
}
add element inet failover addresses6 {
	2001:db8:1::134 . 80
}
";
    let delete = "\
delete element inet failover servers6 {
	2001:db8:1::134 . 80 . 0
}
delete element inet failover services6 {
	2001:db8:1::134 . 80
}
delete element inet failover addresses6 {
	2001:db8:1::134 . 80
}
delete chain inet failover one_of_1_v6
";
    let another = "\
delete element inet failover servers4 {
	198.51.100.134 . 80 . 0
}
add element inet failover servers4 {
	198.51.100.134 . 80 . 0 : 192.168.10.11 . 80
}
";
    let one_more = "\
add chain inet failover one_of_2_v4
add rule inet failover one_of_2_v4 meta l4proto tcp dnat ip to ip daddr . tcp dport . numgen random mod 2 map @servers4
delete element inet failover services4 {
	198.51.100.134 . 80
}
add element inet failover servers4 {
	198.51.100.134 . 80 . 1 : 192.168.10.11 . 8080
}
add element inet failover services4 {
	198.51.100.134 . 80 : goto one_of_2_v4
}
delete chain inet failover one_of_1_v4
";
    let other = "198.51.100.134:80 > 192.168.10.11:80";
    for (before, after, want) in [
        (&[WAN1][..], &[WAN1, WAN6][..], add),
        (&[WAN1, WAN6], &[WAN1], delete),
        (&[WAN1, WAN6], &[other, WAN6], another),
        (&[WAN1, WAN6], &[BOTH, WAN6], one_more),
    ] {
        let patch = patch(&rules(before), &rules(after));
        assert_eq!(patch.as_deref(), Some(want), "{before:?}, {after:?}");
    }
}

#[test]
fn another_table_is_never_named() {
    let all = rules(&[BOTH, WAN6]);
    let scripts = [
        replace(&all),
        patch(&all, &rules(&[WAN1])).unwrap_or_default(),
        remove(),
    ];
    let commands = ["add ", "delete ", "table "];
    for line in scripts.iter().flat_map(|script| script.lines()) {
        let is_command = commands.iter().any(|command| line.starts_with(command));
        assert!(!is_command || line.contains(" inet failover"), "{line}");
        assert!(!line.starts_with("flush"), "{line}");
    }
}

/// Sets with their elements, and chains with who goes to them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kernel {
    sets: HashMap<String, HashMap<String, String>>,
    chains: HashMap<String, String>,
}

impl Kernel {
    /// Executes what [`Changes::push`] writes, and refuses what the kernel would refuse.
    fn execute(&mut self, script: &str) {
        let mut lines = script.lines();
        while let Some(line) = lines.next() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["add", "chain", "inet", TABLE, chain] => {
                    let before = self.chains.insert(chain.to_owned(), String::new());
                    assert_eq!(before, None, "{line}");
                }
                ["add", "rule", "inet", TABLE, chain, ref rule @ ..] => {
                    *self.chains.get_mut(chain).expect(line) += &rule.join(" ");
                }
                ["delete", "chain", "inet", TABLE, chain] => {
                    self.chains.remove(chain).expect(line);
                    let goto = format!("goto {chain}");
                    for elements in self.sets.values() {
                        assert!(!elements.values().any(|to| *to == goto), "{line}");
                    }
                }
                [verb, "element", "inet", TABLE, set, "{"] => {
                    let set = self.sets.entry(set.to_owned()).or_default();
                    for line in lines.by_ref().take_while(|line| *line != "}") {
                        let element = line.trim().trim_end_matches(',');
                        let (key, value) = element.split_once(" : ").unwrap_or((element, ""));
                        let before = match verb {
                            "add" => set.insert(key.to_owned(), value.to_owned()),
                            _ => set.remove(key),
                        };
                        assert_eq!(before.is_some(), verb == "delete", "{verb} {line}");
                        if let Some(chain) = value.strip_prefix("goto ") {
                            assert!(self.chains.contains_key(chain), "{line}");
                        }
                    }
                }
                _ => panic!("{line}"),
            }
        }
        self.sets.retain(|_, elements| !elements.is_empty());
    }
}

fn elements(rules: &Rules) -> Kernel {
    let script = replace(rules);
    let (_, script) = script.split_once("\n}\n").expect("a table");
    let mut kernel = Kernel::default();
    kernel.execute(script);
    kernel
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let address = |range| {
        (range, any::<bool>()).prop_map(|(n, v6): (u8, bool)| {
            let address = if v6 {
                format!("[2001:db8::{n}]:80")
            } else {
                format!("192.0.2.{n}:80")
            };
            address.parse::<SocketAddr>().expect("an address")
        })
    };
    let entry = vec(address(0..4_u8), 1..4).prop_map(|slots| {
        let keep = slots.iter().copied().collect();
        Arc::new(Entry { slots, keep })
    });
    btree_map(address(0..6), entry, 0..6).prop_map(|entries| Rules {
        snat: false,
        entries,
    })
}

proptest! {
    /// Step by step or at once: the table is the same.
    #[test]
    fn patches_lead_where_replacements_lead(steps in vec(any_rules(), 1..5)) {
        let mut before = Rules::default();
        let mut kernel = elements(&before);
        for rules in steps {
            if let Some(patch) = patch(&before, &rules) {
                kernel.execute(&patch);
            }
            prop_assert_eq!(&kernel, &elements(&rules));
            before = rules;
        }
    }

    /// Each address leads to a chain that has as many slots as there are servers for it.
    #[test]
    fn every_slot_has_its_server(rules in any_rules()) {
        let kernel = elements(&rules);
        for (place, entry) in &rules.entries {
            let digit = if place.is_ipv4() { '4' } else { '6' };
            let key = element(place);
            let goto = &kernel.sets[&format!("services{digit}")][&key];
            let chain = &kernel.chains[goto.strip_prefix("goto ").expect("a chain")];
            let modulus = format!("numgen random mod {} map @servers{digit}", entry.slots.len());
            prop_assert!(chain.ends_with(&modulus), "{chain}");
            for (slot, server) in entry.slots.iter().enumerate() {
                let servers = &kernel.sets[&format!("servers{digit}")];
                prop_assert_eq!(&servers[&format!("{key} . {slot}")], &element(server));
            }
            let addresses = &kernel.sets[&format!("addresses{digit}")];
            prop_assert!(addresses.contains_key(&key));
        }
    }
}
