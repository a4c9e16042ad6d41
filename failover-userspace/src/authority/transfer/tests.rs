//! What is sent, of which generation, and to whom.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use domain::base::MessageBuilder;
use domain::base::iana::{Class, Rcode as Code};
use domain::rdata::AllRecordData;
use ipnet::IpNet;
use proptest::prelude::*;

use super::super::{Authority, Snapshot};
use super::*;
use crate::model::{Generation, Model, ServiceId};
use crate::policy::{Answer, Weighted};
use crate::wire::{AddressAnswer, Change, Family};

const TCP: Transport = Transport::Tcp {
    idle: Duration::from_secs(10),
};

const CLIENT: &str = "192.0.2.77";

const ZONE: &str = "$TTL 900
@ SOA ns1 hostmaster 41 3600 600 1209600 300
@ NS ns1
@ NS ns.example.net.
ns1 A 198.51.100.130
www TXT \"beside the service\"
*.wild TXT wild
a.b CNAME www
d DNAME wild
sub NS ns.sub
sub DS 1 13 2 00
ns.sub A 192.0.2.1
hidden.sub TXT hidden
child NS ns.child
ns.child A 192.0.2.2
Mixed MX 10 Mail.Example.com.
";

const CHILD: &str = "$TTL 60
@ SOA ns h 1 2 3 4 5
@ NS ns.example.net.
own TXT child
";

/// One per service: its names and its addresses.
const SERVICES: &[(&str, &[&str])] = &[
    (
        r#"["www.example.com", "deep.svc.example.com"]"#,
        &["192.0.2.12", "192.0.2.11", "2001:db8::1"],
    ),
    (r#"["*.app.example.com"]"#, &["192.0.2.21", "192.0.2.22"]),
    (r#"["broken.example.com"]"#, &[]),
    (
        r#"["ns.child.example.com", "own.child.example.com"]"#,
        &["192.0.2.31"],
    ),
];

/// The model of these zones and services.
fn model(zone: &str, services: &[(&str, &[&str])], keys: &str) -> Model {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("zone"), zone).unwrap();
    std::fs::write(directory.path().join("child"), CHILD).unwrap();
    let mut toml = format!(
        "[server]\nlisten = [\"192.0.2.1\"]\nnsid = \"ns\"\n\
         [[zone]]\nname = \"example.com\"\nfile = \"zone\"\n{keys}\n\
         [[zone]]\nname = \"child.example.com\"\nfile = \"child\"\n{keys}\n"
    );
    for (number, (fqdn, _)) in services.iter().enumerate() {
        write!(
            toml,
            "[[service]]\nname = \"s{number}\"\nfqdn = {fqdn}\nport = 80\nttl = \"30s\"\nmax_answers = 1\n\
             [[service.server]]\nname = \"s\"\naddress = \"192.0.2.200\"\noffsite = true\n"
        )
        .unwrap();
    }
    let file = directory.path().join("failover.toml");
    std::fs::write(&file, toml).unwrap();
    let loaded = crate::config::load(&file);
    loaded.unwrap_or_else(|errors| panic!("{errors}")).model
}

const ALLOWED: &str = "allow_transfer = [\"192.0.2.0/24\"]";

fn change(model: &Model, service: u32, answer: &Answer) -> Change {
    let id = ServiceId(service);
    let [a, aaaa] = Family::ALL.map(|family| AddressAnswer::new(model.service(id), answer, family));
    Change {
        service: id,
        a,
        aaaa,
    }
}

fn addresses(texts: &[&str]) -> Answer {
    let addresses = texts.iter().map(|text| Weighted {
        address: text.parse().unwrap(),
        weight: crate::wire::WEIGHT_ONE,
    });
    Answer::Addresses(addresses.collect())
}

fn publish(model: &Model, services: &[(&str, &[&str])]) -> Arc<Published> {
    let changes: Vec<_> = (0..)
        .zip(services)
        .map(|(number, (_, texts))| match texts {
            [] => change(model, number, &Answer::Servfail),
            _ => change(model, number, &addresses(texts)),
        })
        .collect();
    Arc::new(Published {
        authority: Arc::new(Authority::new(model)),
        snapshot: Snapshot::new(Generation(7), &changes),
    })
}

fn published() -> Arc<Published> {
    publish(&model(ZONE, SERVICES, ALLOWED), SERVICES)
}

fn from(client: &str, transport: Transport) -> Origin {
    Origin {
        client: client.parse().unwrap(),
        transport,
        time: 0,
    }
}

fn name(text: &str) -> Name {
    Name::bytes_from_str(text).unwrap()
}

/// A query as secondaries send it; IXFR with the serial number they have.
fn query(zone: &str, qtype: Rtype, serial: Option<u32>) -> Vec<u8> {
    let mut query = MessageBuilder::new_vec();
    query.header_mut().set_id(0xabcd);
    let mut query = query.question();
    query.push((name(zone), qtype, Class::IN)).unwrap();
    let mut query = query.authority();
    if let Some(serial) = serial {
        let zero = domain::base::Ttl::ZERO;
        let root = Name::root_bytes();
        let soa = Soa::new(root.clone(), root, Serial(serial), zero, zero, zero, zero);
        query.push((name(zone), Class::IN, zero, soa)).unwrap();
    }
    query.finish()
}

fn axfr(zone: &str) -> Vec<u8> {
    query(zone, Rtype::AXFR, None)
}

fn transfer(published: &Arc<Published>, query: &[u8]) -> Transfer {
    Transfer::of(published, query, &from(CLIENT, TCP)).expect("a transfer")
}

fn rcode(published: &Published, query: &[u8], origin: &Origin) -> Code {
    let reply = published.answer(query, origin, 0).unwrap();
    Message::from_octets(reply).unwrap().header().rcode()
}

/// The answer section of one message as lines, after a look at the rest.
fn records(message: &[u8]) -> Vec<String> {
    let message = Message::from_octets(message).unwrap();
    let header = message.header();
    assert_eq!(
        (header.id(), header.qr(), header.aa(), header.tc()),
        (0xabcd, true, true, false)
    );
    assert_eq!(header.rcode(), Code::NOERROR);
    assert_eq!(message.header_counts().qdcount(), 1);
    assert_eq!(message.header_counts().nscount(), 0);
    let answer = message.answer().unwrap();
    answer
        .limit_to::<AllRecordData<_, _>>()
        .map(|record| {
            let record = record.unwrap();
            let (owner, ttl) = (record.owner(), record.ttl().as_secs());
            format!("{owner} {ttl} {} {}", record.rtype(), record.data())
        })
        .collect()
}

fn all_records(transfer: Transfer) -> Vec<String> {
    transfer.flat_map(|message| records(&message)).collect()
}

const SOA: &str =
    "example.com 900 SOA ns1.example.com. hostmaster.example.com. 48 3600 600 1209600 300";

#[test]
fn the_whole_zone_with_what_services_answer() {
    let found = all_records(transfer(&published(), &axfr("example.com")));
    assert_eq!(
        found,
        [
            SOA,
            "example.com 900 NS ns1.example.com.",
            "example.com 900 NS ns.example.net.",
            "*.app.example.com 30 A 192.0.2.21",
            "*.app.example.com 30 A 192.0.2.22",
            "a.b.example.com 900 CNAME www.example.com.",
            "child.example.com 900 NS ns.child.example.com.",
            "ns.child.example.com 900 A 192.0.2.2",
            "d.example.com 900 DNAME wild.example.com.",
            "mixed.example.com 900 MX 10 Mail.Example.com.",
            "ns1.example.com 900 A 198.51.100.130",
            "sub.example.com 900 NS ns.sub.example.com.",
            "sub.example.com 900 DS 1 13 2 00",
            "hidden.sub.example.com 900 TXT \"hidden\"",
            "ns.sub.example.com 900 A 192.0.2.1",
            "deep.svc.example.com 30 A 192.0.2.12",
            "deep.svc.example.com 30 A 192.0.2.11",
            "deep.svc.example.com 30 AAAA 2001:db8::1",
            "*.wild.example.com 900 TXT \"wild\"",
            "www.example.com 900 TXT \"beside the service\"",
            "www.example.com 30 A 192.0.2.12",
            "www.example.com 30 A 192.0.2.11",
            "www.example.com 30 AAAA 2001:db8::1",
            SOA,
        ]
    );
    let child = all_records(transfer(&published(), &axfr("child.example.com")));
    let soa = "child.example.com 60 SOA ns.child.example.com. h.child.example.com. 8 2 3 4 5";
    assert_eq!(
        child,
        [
            soa,
            "child.example.com 60 NS ns.example.net.",
            "ns.child.example.com 30 A 192.0.2.31",
            "own.child.example.com 60 TXT \"child\"",
            "own.child.example.com 30 A 192.0.2.31",
            soa,
        ]
    );
}

#[test]
fn what_is_published_meanwhile_is_for_the_next_transfer() {
    let mut zone = ZONE.to_owned();
    for number in 0..1000 {
        writeln!(zone, "m{number} TXT \"to make it more than one message\"").unwrap();
    }
    let model = model(&zone, SERVICES, ALLOWED);
    let mut current = publish(&model, SERVICES);
    let mut transfer = transfer(&current, &axfr("example.com"));
    let mut found = records(&transfer.next().unwrap());
    let change = change(&model, 0, &addresses(&["192.0.2.99"]));
    current = Arc::new(Published {
        authority: Arc::clone(&current.authority),
        snapshot: current
            .snapshot
            .next(Generation(8), &[change], &[ZoneId(0)]),
    });
    let rest = all_records(transfer);
    assert!(!rest.is_empty());
    found.extend(rest);
    assert_eq!(
        (found.first(), found.last()),
        (Some(&SOA.into()), Some(&SOA.into()))
    );
    assert!(found.contains(&"www.example.com 30 A 192.0.2.12".to_owned()));

    let next = all_records(super::tests::transfer(&current, &axfr("example.com")));
    assert_eq!(next[0], SOA.replace(" 48 ", " 49 "));
    assert_eq!(next.first(), next.last());
    assert!(next.contains(&"www.example.com 30 A 192.0.2.99".to_owned()));
    assert!(!next.contains(&"www.example.com 30 A 192.0.2.12".to_owned()));
}

#[test]
fn a_large_zone_takes_messages_of_sensible_size() {
    let mut zone = ZONE.to_owned();
    for number in 0..10_000 {
        writeln!(
            zone,
            "host-{number} 60 A 10.0.{}.{}",
            number / 256,
            number % 256
        )
        .unwrap();
    }
    // More than a message is meant to have, in a set and in one record.
    for number in 0..900 {
        writeln!(zone, "set TXT \"{number:0>30}\"").unwrap();
    }
    let long = format!("\"{}\" ", "x".repeat(250)).repeat(100);
    writeln!(zone, "long TXT {long}").unwrap();
    let published = publish(&model(&zone, &[], ALLOWED), &[]);
    let messages: Vec<_> = transfer(&published, &axfr("example.com")).collect();
    let (large, ordinary): (Vec<_>, Vec<_>) = messages
        .iter()
        .partition(|message| message.len() > MESSAGE_SIZE);
    assert_eq!(large.len(), 1);
    assert!(large[0].len() > 25_100 && records(large[0]).len() == 1);
    // All but the last one, and the ones before the long record, are full.
    let full = ordinary
        .iter()
        .filter(|message| message.len() > MESSAGE_SIZE - 100);
    assert!(full.count() + 2 >= ordinary.len());

    let found: Vec<_> = messages
        .iter()
        .flat_map(|message| records(message))
        .collect();
    assert_eq!(
        (found.first(), found.last()),
        (Some(&SOA.into()), Some(&SOA.into()))
    );
    let distinct: BTreeSet<_> = found.iter().collect();
    assert_eq!(found.len(), 10_000 + 900 + 1 + 14 + 2);
    assert_eq!(distinct.len(), found.len() - 1);
    // Label, pointer, fixed part and address: 9 + 1 + 2 + 10 + 4 octets.
    let octets: usize = messages.iter().map(Vec::len).sum();
    let texts = 900 * (31 + 12) + 25_100;
    assert!(octets < 10_000 * 26 + texts + 2000, "{octets}");
}

#[test]
fn a_record_too_long_for_any_message_ends_the_transfer() {
    let long = format!("\"{}\" ", "x".repeat(250)).repeat(261);
    let zone = format!("{ZONE}long TXT {long}\n");
    let published = publish(&model(&zone, &[], ALLOWED), &[]);
    let mut transfer = transfer(&published, &axfr("example.com"));
    let messages: Vec<_> = transfer.by_ref().collect();
    assert!(transfer.has_failed());
    let (last, before) = messages.split_last().unwrap();
    assert_eq!(records(&before[0])[0], SOA);
    let last = Message::from_octets(last).unwrap();
    assert_eq!(last.header().rcode(), Code::SERVFAIL);
    assert_eq!(last.header_counts().ancount(), 0);
}

#[test]
fn names_keep_their_case() {
    let query = axfr("EXAMPLE.com");
    let message = transfer(&published(), &query).next().unwrap();
    assert_eq!(message[12..12 + 13], query[12..12 + 13]);
    let found = records(&message);
    assert_eq!(found[0], SOA);
    assert!(found.contains(&"mixed.example.com 900 MX 10 Mail.Example.com.".to_owned()));
}

#[test]
fn every_message_has_opt_if_the_query_had_it() {
    let mut zone = ZONE.to_owned();
    for number in 0..1000 {
        writeln!(zone, "m{number} TXT \"to make it more than one message\"").unwrap();
    }
    let published = publish(&model(&zone, &[], ALLOWED), &[]);
    let plain = axfr("example.com");
    let mut edns = plain.clone();
    edns[11] = 1;
    // Asks for NSID.
    edns.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 4, 0, 3, 0, 0]);
    for (query, has_opt) in [(plain, false), (edns, true)] {
        let messages: Vec<_> = transfer(&published, &query).collect();
        assert!(messages.len() > 1);
        for message in messages {
            let nsid = message.ends_with(b"\0\x03\0\x02ns");
            let message = Message::from_octets(message).unwrap();
            assert_eq!(message.opt().is_some(), has_opt);
            assert_eq!(nsid, has_opt);
        }
    }
}

#[test]
fn those_who_have_the_zone_get_its_soa() {
    // Ours is 48.
    let half = 1 << 31;
    let rows = [
        (48, false),
        (49, false),
        (48 + half - 1, false),
        (47, true),
        (0, true),
        (u32::MAX, true),
        (48 + half + 1, true),
        // Neither older nor newer (RFC 1982 section 3.2).
        (48 + half, true),
    ];
    let published = published();
    for (serial, whole) in rows {
        let query = query("example.com", Rtype::IXFR, Some(serial));
        let over_tcp = Transfer::of(&published, &query, &from(CLIENT, TCP));
        assert_eq!(over_tcp.is_some(), whole, "{serial}");
        let mut single = vec![Transport::Udp];
        match over_tcp {
            Some(transfer) => assert_eq!(all_records(transfer).len(), 24),
            None => single.push(TCP),
        }
        for transport in single {
            let origin = from(CLIENT, transport);
            assert!(transport == TCP || Transfer::of(&published, &query, &origin).is_none());
            let reply = published.answer(&query, &origin, 0).unwrap();
            assert_eq!(records(&reply), [SOA], "{serial} {transport:?}");
        }
    }
}

#[test]
fn refusals() {
    let both = [Transport::Udp, TCP];
    let stranger = "198.51.100.1";
    let other_class = |mut query: Vec<u8>, class: u8| {
        let at = query.len() - 1;
        query[at] = class;
        query
    };
    let ixfr = |zone| query(zone, Rtype::IXFR, Some(1));
    let rows: &[(&str, Vec<u8>, &[Transport], Code)] = &[
        (
            CLIENT,
            axfr("example.com"),
            &[Transport::Udp],
            Code::REFUSED,
        ),
        (CLIENT, axfr("www.example.com"), &[TCP], Code::NOTAUTH),
        (CLIENT, axfr("example.net"), &[TCP], Code::NOTAUTH),
        (
            CLIENT,
            axfr("example.net"),
            &[Transport::Udp],
            Code::REFUSED,
        ),
        (CLIENT, axfr("com"), &[TCP], Code::NOTAUTH),
        (CLIENT, ixfr("www.example.com"), &both, Code::NOTAUTH),
        (stranger, axfr("example.com"), &both, Code::REFUSED),
        (stranger, ixfr("example.com"), &both, Code::REFUSED),
        ("2001:db8::1", axfr("example.com"), &both, Code::REFUSED),
        (
            CLIENT,
            query("example.com", Rtype::IXFR, None),
            &both,
            Code::FORMERR,
        ),
        (
            CLIENT,
            query("example.com", Rtype::AXFR, Some(1)),
            &both,
            Code::FORMERR,
        ),
        (
            CLIENT,
            other_class(axfr("example.com"), 3),
            &both,
            Code::REFUSED,
        ),
        (
            CLIENT,
            other_class(axfr("example.com"), 255),
            &both,
            Code::REFUSED,
        ),
    ];
    let published = published();
    for (client, query, transports, want) in rows {
        for transport in *transports {
            let origin = from(client, *transport);
            assert!(Transfer::of(&published, query, &origin).is_none());
            let found = rcode(&published, query, &origin);
            assert_eq!(found, *want, "{client} {query:?} {transport:?}");
        }
    }
}

#[test]
fn nobody_transfers_unless_allowed() {
    let published = publish(&model(ZONE, SERVICES, ""), SERVICES);
    let origin = from(CLIENT, TCP);
    let query = axfr("example.com");
    assert!(Transfer::of(&published, &query, &origin).is_none());
    assert_eq!(rcode(&published, &query, &origin), Code::REFUSED);
}

proptest! {
    /// Nothing that is no transfer becomes one, and no octets panic.
    #[test]
    fn damaged_queries_are_no_harm(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        is_incremental in any::<bool>(),
    ) {
        let mut message = if is_incremental {
            query("example.com", Rtype::IXFR, Some(1))
        } else {
            axfr("example.com")
        };
        for (at, octet) in damage {
            let at = at.index(message.len());
            message[at] = octet;
        }
        static PUBLISHED: LazyLock<Arc<Published>> = LazyLock::new(published);
        let published = &*PUBLISHED;
        let origin = from(CLIENT, TCP);
        let asked = u16::from_be_bytes([message[25], message[26]]);
        if let Some(transfer) = Transfer::of(published, &message, &origin) {
            prop_assert!(matches!(asked, 251 | 252));
            prop_assert!(transfer.count() > 0);
        } else {
            let is_response = message[2] & 0x80 != 0;
            prop_assert_eq!(published.answer(&message, &origin, 0).is_none(), is_response);
        }
    }
}

#[test]
fn networks_are_of_one_family() {
    let mut zone = model(ZONE, &[], "").zones.swap_remove(0);
    let networks = ["192.0.2.0/24", "2001:db8::/32", "198.51.100.1/32"];
    zone.allow_transfer = networks.map(|text| text.parse::<IpNet>().unwrap()).into();
    for (client, want) in [
        ("192.0.2.255", true),
        ("192.0.3.0", false),
        ("198.51.100.1", true),
        ("198.51.100.2", false),
        ("2001:db8:ffff::1", true),
        ("2001:db9::", false),
    ] {
        let client: IpAddr = client.parse().unwrap();
        assert_eq!(zone.may_transfer(client), want, "{client}");
    }
}
