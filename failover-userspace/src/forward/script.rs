//! Rules as text for nft(8), pure.
//!
//! ```text
//! packet to 198.51.100.134 port 80
//!   ─► prerouting ─► services4: 198.51.100.134 . 80  ─► chain one_of_2_v4
//!                    servers4:  198.51.100.134 . 80 . 0 or 1, at random ─► 192.168.10.10 . 80
//! ```
//!
//! What changes from answer to answer are elements of maps and nothing else, so that a change
//! costs what it changes, however many services there are. A chain of its own for each service
//! would read better, but the kernel takes a time for many anonymous maps that grows with the
//! square of their number. The modulus of a random number is a constant of a rule; so there is a
//! chain for each number of slots.
//!
//! A client behind us, or this host itself, reaches a WAN address, too. Where the server would
//! answer past us (the connection leaves by the interface it came in by) and where the client is
//! this host, the server sees this host as the client. Only connections to our addresses are
//! touched: others may be translated by other tables.
//!
//! The rules say the same after `nft list ruleset` and back, with nft from 1.0.6 on. JSON would
//! be the other language of nft, but what 1.0.6 lists in it lacks flags of sets and all comments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use super::rules::{Entry, Rules};

/// The name of our table, of the family `inet`.
pub(super) const TABLE: &str = "failover";
/// Tells our table from one that only has its name.
pub(super) const COMMENT: &str = "Failover: port forwarding";

/// What differs between IPv4 and IPv6.
struct Family {
    /// As in `services4`.
    digit: char,
    /// The protocol, in expressions.
    ip: &'static str,
    /// The type of its addresses.
    address: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        digit: '4',
        ip: "ip",
        address: "ipv4_addr",
    },
    Family {
        digit: '6',
        ip: "ip6",
        address: "ipv6_addr",
    },
];

impl Family {
    fn has(&self, place: &SocketAddr) -> bool {
        place.is_ipv4() == (self.digit == '4')
    }

    /// The chain for a number of slots.
    fn chain(&self, slots: usize) -> String {
        format!("one_of_{slots}_v{}", self.digit)
    }

    fn chain_rule(&self, slots: usize) -> String {
        let Self { digit, ip, .. } = self;
        format!(
            "meta l4proto tcp dnat {ip} to {ip} daddr . tcp dport . numgen random mod {slots} map @servers{digit}"
        )
    }
}

/// The table, whatever there was before.
pub(super) fn replace(rules: &Rules) -> String {
    let mut text = format!(
        "add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n\tcomment \"{COMMENT}\"\n"
    );
    for family in &FAMILIES {
        family.push_sets(&mut text);
        if !rules.snat {
            family.push_hairpin(&mut text);
        }
    }
    push_hooks(rules.snat, &mut text);
    text += "}\n";
    let nothing = Entries::new();
    for family in &FAMILIES {
        Changes::between(family, &nothing, &rules.entries).push(family, &mut text);
    }
    text
}

/// What turns a table with the rules `old` into one with the rules `new`; `None`: nothing. Both
/// masquerade alike.
pub(super) fn patch(old: &Rules, new: &Rules) -> Option<String> {
    debug_assert_eq!(old.snat, new.snat, "the hooks stay");
    let mut text = String::new();
    for family in &FAMILIES {
        Changes::between(family, &old.entries, &new.entries).push(family, &mut text);
    }
    (!text.is_empty()).then_some(text)
}

/// No table.
pub(super) fn remove() -> String {
    // Deleting one that is not there would be an error.
    format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
}

impl Family {
    fn push_sets(&self, text: &mut String) {
        let Self { digit, ip, address } = self;
        let _ = write!(
            text,
            "
	# WAN address and port: to the chain for as many slots as its servers have
	map services{digit} {{
		type {address} . inet_service : verdict
		counter
	}}

	# WAN address, port and slot: the server
	map servers{digit} {{
		typeof {ip} daddr . tcp dport . numgen random mod 2 : {ip} daddr . tcp dport
	}}

	# The keys of services{digit}, for what is already translated
	set addresses{digit} {{
		type {address} . inet_service
	}}
"
        );
    }

    fn push_hairpin(&self, text: &mut String) {
        let Self { digit, address, .. } = self;
        let _ = write!(
            text,
            "
	# Connections that leave by the interface they have come in by, for a moment
	set hairpin{digit} {{
		type {address} . inet_service . {address} . inet_service
		size 65535
		flags dynamic,timeout
		timeout 1s
	}}
"
        );
    }
}

/// The chains that packets meet.
fn push_hooks(snat: bool, text: &mut String) {
    let forward = || {
        FAMILIES
            .iter()
            .map(|Family { digit, ip, .. }| format!("{ip} daddr . tcp dport vmap @services{digit}"))
    };
    push_chain(
        text,
        "prerouting",
        Some("nat hook prerouting priority dstnat"),
        forward(),
    );
    push_chain(
        text,
        "output",
        Some("nat hook output priority -100"),
        forward(),
    );

    // Spelled so that a listing can be read back: nft lists no match that a later one implies.
    let ours = |Family { digit, ip, .. }: &Family| {
        format!("ct status dnat ct original {ip} daddr . ct original proto-dst @addresses{digit}")
    };
    let source = Some("nat hook postrouting priority srcnat");
    if snat {
        let rules = FAMILIES
            .iter()
            .map(|family| format!("meta l4proto tcp {} masquerade", ours(family)));
        return push_chain(text, "postrouting", source, rules);
    }
    let connection =
        |Family { ip, .. }: &Family| format!("{ip} saddr . tcp sport . {ip} daddr . tcp dport");
    for family in &FAMILIES {
        let digit = family.digit;
        let rule = format!("add @hairpin{digit} {{ {} }}", connection(family));
        push_chain(text, &format!("hairpin{digit}"), None, [rule]);
    }
    // Only here are both sides known: the translated address and the interface it came in by.
    let arriving = FAMILIES.iter().map(|family| {
        let (ours, digit) = (ours(family), family.digit);
        format!(
            "meta l4proto tcp ct state new {ours} fib daddr . iif oif exists goto hairpin{digit}"
        )
    });
    push_chain(
        text,
        "arriving",
        Some("filter hook prerouting priority dstnat + 1"),
        arriving,
    );
    let rules = FAMILIES.iter().flat_map(|family| {
        let (connection, ours, digit) = (connection(family), ours(family), family.digit);
        [
            format!("{connection} @hairpin{digit} masquerade"),
            format!("meta l4proto tcp {ours} fib saddr type local oifname != \"lo\" masquerade"),
        ]
    });
    push_chain(text, "postrouting", source, rules);
}

fn push_chain(
    text: &mut String,
    name: &str,
    hook: Option<&str>,
    rules: impl IntoIterator<Item = String>,
) {
    let _ = write!(text, "\n\tchain {name} {{\n");
    if let Some(hook) = hook {
        let _ = writeln!(text, "\t\ttype {hook}; policy accept;");
    }
    for rule in rules {
        let _ = writeln!(text, "\t\t{rule}");
    }
    *text += "\t}\n";
}

type Entries = BTreeMap<SocketAddr, Arc<Entry>>;
/// The slots of an address; `None`: it is not forwarded.
type Slots<'a> = Option<&'a [SocketAddr]>;

/// The numbers of slots that there are.
fn chains(family: &Family, entries: &Entries) -> BTreeSet<usize> {
    let entries = entries.iter().filter(|(place, _)| family.has(place));
    entries.map(|(_, entry)| entry.slots.len()).collect()
}

/// The slots of each address, before and after, where they differ.
fn differing<'a>(
    family: &Family,
    old: &'a Entries,
    new: &'a Entries,
) -> BTreeMap<&'a SocketAddr, (Slots<'a>, Slots<'a>)> {
    let slots = |entry: &'a Arc<Entry>| entry.slots.as_slice();
    let changed = old.iter().filter_map(|(place, was)| {
        let is = new.get(place);
        let same = is.is_some_and(|is| Arc::ptr_eq(is, was) || is.slots == was.slots);
        (!same).then(|| (place, (Some(slots(was)), is.map(slots))))
    });
    let added = new.iter().filter(|(place, _)| !old.contains_key(place));
    let added = added.map(|(place, is)| (place, (None, Some(slots(is)))));
    let all = changed.chain(added);
    all.filter(|(place, _)| family.has(place)).collect()
}

/// Elements to be deleted and added, and chains, of one family.
#[derive(Default)]
struct Changes {
    new_chains: BTreeSet<usize>,
    old_chains: BTreeSet<usize>,
    delete: Elements,
    add: Elements,
}

/// Elements by the set they are in, as text.
#[derive(Default)]
struct Elements {
    servers: Vec<String>,
    services: Vec<String>,
    addresses: Vec<String>,
}

impl Changes {
    fn between(family: &Family, old: &Entries, new: &Entries) -> Self {
        let (before, after) = (chains(family, old), chains(family, new));
        let mut changes = Self {
            new_chains: &after - &before,
            old_chains: &before - &after,
            ..Self::default()
        };
        for (place, (was, is)) in differing(family, old, new) {
            let key = element(place);
            let chain = |slots: &[SocketAddr]| family.chain(slots.len());
            if was.map(<[_]>::len) != is.map(<[_]>::len) {
                changes.delete.services.extend(was.map(|_| key.clone()));
                let goto = is.map(|is| format!("{key} : goto {}", chain(is)));
                changes.add.services.extend(goto);
            }
            match (was, is) {
                (Some(_), None) => changes.delete.addresses.push(key.clone()),
                (None, Some(_)) => changes.add.addresses.push(key.clone()),
                _ => {}
            }
            let (was, is) = (was.unwrap_or_default(), is.unwrap_or_default());
            for slot in 0..was.len().max(is.len()) {
                let (was, is) = (was.get(slot), is.get(slot));
                if was != is {
                    let key = format!("{key} . {slot}");
                    let server = is.map(|is| format!("{key} : {}", element(is)));
                    changes.delete.servers.extend(was.map(|_| key));
                    changes.add.servers.extend(server);
                }
            }
        }
        changes
    }

    fn push(self, family: &Family, text: &mut String) {
        for slots in self.new_chains {
            let (chain, rule) = (family.chain(slots), family.chain_rule(slots));
            let _ = write!(
                text,
                "add chain inet {TABLE} {chain}\nadd rule inet {TABLE} {chain} {rule}\n"
            );
        }
        for (verb, elements) in [("delete", self.delete), ("add", self.add)] {
            for (set, elements) in [
                ("servers", elements.servers),
                ("services", elements.services),
                ("addresses", elements.addresses),
            ] {
                if !elements.is_empty() {
                    let (digit, elements) = (family.digit, elements.join(",\n\t"));
                    let _ = write!(
                        text,
                        "{verb} element inet {TABLE} {set}{digit} {{\n\t{elements}\n}}\n"
                    );
                }
            }
        }
        for slots in self.old_chains {
            let _ = writeln!(text, "delete chain inet {TABLE} {}", family.chain(slots));
        }
    }
}

fn element(address: &SocketAddr) -> String {
    format!("{} . {}", address.ip(), address.port())
}

#[cfg(test)]
mod tests;
