//! Real `dig` with its options, over IPv4 and IPv6.

use anyhow::Result;
use failover_tests::dig::Record;
use failover_tests::lab::Config;
use failover_tests::lab::topology::{NS1, NS1_V6};
use failover_tests::privileged;

use crate::site::Site;

/// What dig is to show; sections as types and data.
struct Want {
    question: &'static str,
    flags: &'static str,
    edns: Option<&'static str>,
    answer: &'static [&'static str],
    authority: &'static [&'static str],
    additional: &'static [&'static str],
}

const PLAIN: Want = Want {
    question: "www.example.com.",
    flags: "qr aa rd",
    edns: Some("version: 0, flags:; udp: 1232"),
    answer: &["30 A 198.51.100.134", "30 A 203.0.113.70"],
    authority: &["900 NS ns1.example.com.", "900 NS ns2.example.com."],
    additional: &["900 A 198.51.100.130", "900 A 203.0.113.66"],
};

const NO_DATA: Want = Want {
    answer: &[],
    authority: &[
        "300 SOA ns1.example.com. hostmaster.example.com. 2026112202 3600 900 1209600 300",
    ],
    additional: &[],
    ..PLAIN
};

/// Options of dig, and what is to come of them.
const TABLE: &[(&[&str], Want)] = &[
    (&["www.example.com", "A"], PLAIN),
    (
        &["www.example.com", "A", "+noedns"],
        Want {
            edns: None,
            ..PLAIN
        },
    ),
    (
        &["www.example.com", "A", "+dnssec"],
        Want {
            edns: Some("version: 0, flags: do; udp: 1232"),
            ..PLAIN
        },
    ),
    (&["www.example.com", "A", "+bufsize=512"], PLAIN),
    (
        &["www.example.com", "A", "+norec"],
        Want {
            flags: "qr aa",
            ..PLAIN
        },
    ),
    (&["www.example.com", "A", "+cdflag"], PLAIN),
    (&["www.example.com", "A", "+noadflag", "+nocookie"], PLAIN),
    (
        &["wWw.eXAMPLE.Com", "A"],
        Want {
            question: "wWw.eXAMPLE.Com.",
            // What is compressed points into the question.
            authority: &["900 NS ns1.eXAMPLE.Com.", "900 NS ns2.eXAMPLE.Com."],
            ..PLAIN
        },
    ),
    (
        &["dual.example.com", "AAAA"],
        Want {
            question: "dual.example.com.",
            answer: &["30 AAAA 2001:db8:1::134", "30 AAAA 2001:db8:2::70"],
            ..PLAIN
        },
    ),
    (&["www.example.com", "AAAA"], NO_DATA),
    (
        &["www.example.com", "AAAA", "+noedns", "+norec"],
        Want {
            flags: "qr aa",
            edns: None,
            ..NO_DATA
        },
    ),
];

#[test]
fn native() -> Result<()> {
    dig("native")
}

#[test]
fn generic() -> Result<()> {
    dig("generic")
}

fn dig(mode: &str) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start(mode, &Config::default())?;
    for server in [NS1, NS1_V6] {
        for (args, want) in TABLE {
            let got = site.answered_by_xdp(1, |site| site.dig(server, args))?;
            let what = format!("dig @{server} {}", args.join(" "));
            assert_eq!(got.status, "NOERROR", "{what}");
            assert_eq!(got.question, want.question, "{what}");
            assert_eq!(got.flags, want.flags, "{what}");
            assert_eq!(got.edns.as_deref(), want.edns, "{what}");
            let opt = usize::from(want.edns.is_some());
            for (section, got_records, want_records, more) in [
                ("ANSWER", &got.answer, want.answer, 0),
                ("AUTHORITY", &got.authority, want.authority, 0),
                ("ADDITIONAL", &got.additional, want.additional, opt),
            ] {
                assert_eq!(sorted(got_records), want_records, "{what}: {section}");
                let count = usize::from(got.count(section));
                assert_eq!(count, want_records.len() + more, "{what}: {section}");
            }
            assert!(
                got.answer
                    .iter()
                    .all(|record| record.owner == want.question)
            );
        }
    }
    Ok(())
}

fn sorted(records: &[Record]) -> Vec<String> {
    let mut records: Vec<_> = records
        .iter()
        .map(|record| format!("{} {} {}", record.ttl, record.rtype, record.data))
        .collect();
    records.sort();
    records
}
