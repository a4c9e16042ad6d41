//! What the reference case answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::dig::{Dig, Record};
use crate::lab::topology::{NS1, NS2};

/// The name.
pub const NAME: &str = "www.example.com";

/// The address on wan1.
pub const WAN1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 134));
/// The address on wan2.
pub const WAN2: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 70));
/// The offsite server.
pub const OFFSITE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200));

/// What is wrong with a reply that should have these addresses.
#[must_use]
pub fn differences(dig: &Dig, addresses: &BTreeSet<IpAddr>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |what: &str, got: String, want: String| {
        if got != want {
            wrong.push(format!("{what}: {got} instead of {want}"));
        }
    };
    expect("status", dig.status.clone(), "NOERROR".into());
    expect("flags", dig.flags.clone(), "qr aa rd".into());
    for (section, want) in [("AUTHORITY", 2), ("ADDITIONAL", 3)] {
        let got = dig.count(section).to_string();
        expect(&format!("{section} count"), got, want.to_string());
    }
    let answer: Vec<_> = addresses
        .iter()
        .map(|address| record("www.example.com.", 30, "A", address.to_string()))
        .collect();
    let authority =
        ["ns1", "ns2"].map(|ns| record("example.com.", 900, "NS", format!("{ns}.example.com.")));
    let glue = [("ns1", NS1), ("ns2", NS2)]
        .map(|(ns, address)| record(&format!("{ns}.example.com."), 900, "A", address.to_string()));
    expect("answer", sorted(&dig.answer), sorted(&answer));
    expect("authority", sorted(&dig.authority), sorted(&authority));
    expect("additional", sorted(&dig.additional), sorted(&glue));
    wrong
}

fn record(owner: &str, ttl: u32, rtype: &str, data: String) -> Record {
    Record {
        owner: owner.into(),
        ttl,
        rtype: rtype.into(),
        data,
    }
}

/// The records in an order of ours, since their own rotates.
fn sorted(records: &[Record]) -> String {
    let mut records = records.to_vec();
    records.sort();
    let text = |r: &Record| format!("{} {} {} {}", r.owner, r.ttl, r.rtype, r.data);
    format!(
        "[{}]",
        records.iter().map(text).collect::<Vec<_>>().join(", ")
    )
}
