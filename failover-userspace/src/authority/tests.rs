//! Equal to the XDP program, and safe on any input. What is answered to whom stands in
//! `tests/cases` at the root.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::LazyLock;

use bytes::Bytes;
use domain::base::Message;
use domain::rdata::AllRecordData;
use failover_common::layout::{Follow, LargeAnswer, TailHeader};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::dataplane::{Change, Generation};
use crate::model::{CookieSecret, Fqdn, Name, Service, ServiceId, ZoneId};
use crate::policy::{Answer, Weighted};
use crate::wire::Family;

const TCP: Transport = Transport::Tcp {
    idle: Duration::from_secs(10),
};

fn from(transport: Transport) -> Origin {
    Origin {
        client: IpAddr::from([192, 0, 2, 77]),
        transport,
        time: 0,
    }
}

const ZONE: &str = "$TTL 900
@ SOA ns1 hostmaster 1 3600 600 1209600 300
@ NS ns1
@ NS ns2
@ NS ns3.example.net.
ns1 A 198.51.100.130
ns2 A 203.0.113.66
ns2 AAAA 2001:db8:66::53
*.wild TXT wild
a.b CNAME www
d DNAME wild
sub NS ns.sub
ns.sub A 192.0.2.1
";

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("zone"), ZONE).unwrap();
    let file = directory.path().join("failover.toml");
    let toml = "[server]\nlisten = [\"192.0.2.1\"]\nnsid = \"ns\"\n[[zone]]\nname = \"example.com\"\nfile = \"zone\"\n";
    std::fs::write(&file, toml).unwrap();
    let loaded = crate::config::load(&file);
    loaded.unwrap_or_else(|errors| panic!("{errors}")).model
});

fn name(text: &str) -> Name {
    Name::bytes_from_str(text).unwrap()
}

fn service(fqdn: &Name, max_answers: Option<usize>) -> Service {
    Service {
        name: "www".to_owned(),
        fqdn: vec![Fqdn {
            name: fqdn.clone(),
            zone: ZoneId(0),
        }],
        ttl: 30,
        port: NonZeroU16::MIN,
        redundancy_only: false,
        on_all_down: crate::model::OnAllDown::Empty,
        max_answers,
        wan: Vec::new(),
        servers: 0..0,
    }
}

/// What is published of a service, and all that the XDP program would know of it.
struct Published {
    authority: Authority,
    snapshot: Snapshot,
    zone: Zone,
    a: AddressAnswer,
    aaaa: AddressAnswer,
}

fn publish(service: Service, answer: &Answer) -> Published {
    let mut model = MODEL.clone();
    let [a, aaaa] = Family::ALL.map(|family| AddressAnswer::new(&service, answer, family));
    model.services.push(service);
    let change = Change {
        service: ServiceId(0),
        a: a.clone(),
        aaaa: aaaa.clone(),
    };
    Published {
        authority: Authority::new(&model),
        snapshot: Snapshot::new(Generation(1), &[change]),
        zone: model.zones.swap_remove(0),
        a,
        aaaa,
    }
}

fn query(name: &Name, qtype: Rtype, opt: Option<(u16, bool)>) -> Vec<u8> {
    let mut query = vec![
        0xab,
        0xcd,
        1,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(opt.is_some()),
    ];
    query.extend(name.as_slice());
    query.extend(qtype.to_int().to_be_bytes());
    query.extend([0, 1]);
    if let Some((size, dnssec_ok)) = opt {
        query.extend([0, 0, 41]);
        query.extend(size.to_be_bytes());
        query.extend([0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
    }
    query
}

/// What the program does with a query.
enum Verdict {
    /// Answers it so.
    Reply(Vec<u8>),
    /// Passes it: the reply is too large.
    TooLarge,
    /// Passes it: it does not know the service by this name.
    Name,
}

/// The program's look-up, `plan` and `write`, from the same map values.
fn xdp_verdict(
    published: &Published,
    name: &Name,
    family: Family,
    opt: Option<(u16, bool)>,
    turn: u64,
) -> Verdict {
    let directory = published.authority.directory();
    let known = directory.entries.iter().find(|entry| entry.name == *name);
    if known.and_then(|entry| entry.service) != Some(ServiceId(0)) {
        return Verdict::Name;
    }
    match xdp_reply(published, name, family, opt, turn) {
        Some(reply) => Verdict::Reply(reply),
        None => Verdict::TooLarge,
    }
}

/// `None`: too large.
fn xdp_reply(
    published: &Published,
    name: &Name,
    family: Family,
    opt: Option<(u16, bool)>,
    turn: u64,
) -> Option<Vec<u8>> {
    let (answer, qtype) = match family {
        Family::V4 => (&published.a, Rtype::A),
        Family::V6 => (&published.aaaa, Rtype::AAAA),
    };
    let answer: LargeAnswer = answer.encode(1);
    let header = answer.header;
    let tail = match header.follow {
        follow if follow == Follow::Soa as u8 => {
            let serial = published.zone.serial_after(Generation(1));
            AuthorityTail::negative(&published.zone, name.len(), serial).encode(ZoneId(0), 1232)
        }
        _ => AuthorityTail::positive(&published.zone, name.len()).encode(ZoneId(0), 1232),
    };
    let room = opt.map_or(512, |(size, _)| size.clamp(512, 1232).into());
    let opt_len = if opt.is_some() { 11 } else { 0 };
    let sent = usize::from(header.sent);
    let fixed = 12 + name.len() + 4 + sent * family.record_len() + opt_len;
    let (len, authority_len) = (
        usize::from(tail.header.len),
        usize::from(tail.header.authority_len),
    );
    let (tail_len, authority_count, additional_count) = if fixed > room {
        return None;
    } else if header.follow == Follow::Nothing as u8 {
        (0, 0, 0)
    } else if fixed + len <= room {
        let TailHeader {
            authority_count,
            additional_count,
            ..
        } = tail.header;
        (len, authority_count, additional_count)
    } else if fixed + authority_len <= room {
        (authority_len, tail.header.authority_count, 0)
    } else if sent == 0 {
        return None;
    } else {
        (0, 0, 0)
    };

    let mut reply = vec![0xab, 0xcd];
    reply.extend((u16::from_be(header.flags) | 0x0100).to_be_bytes());
    let additional_count = additional_count + u16::from(opt.is_some());
    for count in [1, sent as u16, authority_count, additional_count] {
        reply.extend(count.to_be_bytes());
    }
    reply.extend(name.as_slice());
    reply.extend(qtype.to_int().to_be_bytes());
    reply.extend([0, 1]);
    let place = turn.wrapping_mul(header.weight_step.into()) % u64::from(header.weight_total);
    let mut record = answer
        .thresholds
        .iter()
        .position(|threshold| place < u64::from(*threshold))
        .unwrap_or(0);
    for _ in 0..sent {
        let from = record * family.record_len();
        reply.extend(&answer.bytes[from..from + family.record_len()]);
        record = (record + 1) % usize::from(header.records);
    }
    reply.extend(&tail.records()[..tail_len]);
    if let Some((_, dnssec_ok)) = opt {
        reply.extend([0, 0, 41, 4, 0xd0, 0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
    }
    Some(reply)
}

fn answers() -> impl Strategy<Value = Answer> {
    let weighted = (any::<bool>(), any::<u8>(), 1..100_u16).prop_map(|(v6, host, weight)| {
        let address = if v6 {
            IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)])
        } else {
            IpAddr::from([192, 0, 2, host])
        };
        let weight = NonZeroU16::new(weight).unwrap();
        Weighted { address, weight }
    });
    prop_oneof![
        1 => Just(Answer::Empty),
        1 => Just(Answer::Servfail),
        8 => proptest::collection::vec(weighted, 1..64).prop_map(Answer::Addresses),
    ]
}

/// Names of the zone of any length, in any case, and such as have something to do with those in
/// its file; but not where that has addresses or CNAME, as a service has no such name.
fn names() -> impl Strategy<Value = Name> {
    const NEAR: &[&str] = &["wild", "x.wild", "b", "d", "A.D", "y.x.d", "sub", "x.Sub"];
    prop_oneof![
        4 => proptest::collection::vec("[a-zA-Z0-9-]{1,63}", 1..4)
            .prop_map(|labels| labels.join(".")),
        1 => select(NEAR).prop_map(str::to_owned),
    ]
    .prop_filter_map("too long", |text| {
        Name::bytes_from_str(&(text + ".eXample.com")).ok()
    })
    .prop_filter("not for services", |name| {
        let rrsets = MODEL.zones[0].records.node(lower_cased(name).as_slice());
        !rrsets
            .unwrap_or_default()
            .iter()
            .any(|rrset| matches!(rrset.rtype, Rtype::A | Rtype::AAAA | Rtype::CNAME))
    })
}

/// Where the zone's file has the last word: below its DNAME, and at and below its delegation.
/// Gives what a reply there begins with, and in which section.
fn hidden_by(name: &Name) -> Option<(Section, Rtype)> {
    let is_below = |top: &Name| name != top && name.ends_with(top);
    let sub = self::name("sub.example.com");
    if is_below(&self::name("d.example.com")) {
        Some((Section::Answer, Rtype::DNAME))
    } else if *name == sub || is_below(&sub) {
        Some((Section::Authority, Rtype::NS))
    } else {
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Answer,
    Authority,
}

/// Where the first record of a reply stands, and its type.
fn first_record(reply: &[u8]) -> Option<(Section, Rtype)> {
    let message = Message::from_octets(reply).unwrap();
    let (_, answer, authority, _) = message.sections().unwrap();
    let first = |section: domain::base::message::RecordSection<'_, _>| {
        let record = section.into_iter().next()?;
        Some(record.unwrap().rtype())
    };
    first(answer)
        .map(|rtype| (Section::Answer, rtype))
        .or_else(|| first(authority).map(|rtype| (Section::Authority, rtype)))
}

fn lower_cased(name: &Name) -> Name {
    Name::from_octets(Bytes::from(name.as_slice().to_ascii_lowercase())).unwrap()
}

fn opts() -> impl Strategy<Value = Option<(u16, bool)>> {
    proptest::option::of((prop_oneof![400..1300_u16, any::<u16>()], any::<bool>()))
}

proptest! {
    #[test]
    fn equal_to_the_xdp_program(
        answer in answers(),
        asked in names(),
        max_answers in proptest::option::of(1..70_usize),
        opt in opts(),
        turn in prop_oneof![0..200_u64, any::<u64>()],
    ) {
        let published = publish(service(&lower_cased(&asked), max_answers), &answer);
        for (family, qtype) in [(Family::V4, Rtype::A), (Family::V6, Rtype::AAAA)] {
            let query = query(&asked, qtype, opt);
            let found = published.authority.answer(&published.snapshot, &query, &from(Transport::Udp), turn).unwrap();
            let hidden = hidden_by(&asked);
            match xdp_verdict(&published, &asked, family, opt, turn) {
                Verdict::Reply(reply) => {
                    prop_assert_eq!(hidden, None);
                    prop_assert_eq!(found, reply);
                }
                Verdict::TooLarge => {
                    prop_assert_eq!(hidden, None);
                    prop_assert_eq!(found[2] & 2, 2, "TC");
                }
                Verdict::Name => {
                    prop_assert!(hidden.is_some(), "the program knows {}", asked);
                    prop_assert_eq!(first_record(&found), hidden);
                }
            }
        }
    }

    #[test]
    fn no_octets_panic(message in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_reply(&FIXTURE, &message)?;
    }

    #[test]
    fn no_damaged_query_panics(
        asked in select(&["www", "none", "x.wild", "a.b", "b", "x.d", "x.sub", "*.wild", "ns1"]),
        qtype in select(&[1, 2, 5, 6, 16, 28, 39, 41, 43, 252, 255, 65, 999]),
        opt in opts(),
        damage in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<Index>()),
    ) {
        let asked = name(&format!("{asked}.example.com"));
        let mut message = query(&asked, Rtype::from_int(qtype), opt);
        for (at, octet) in damage {
            let at = at.index(message.len());
            message[at] = octet;
        }
        if let Some(cut) = cut {
            message.truncate(cut.index(message.len()));
        }
        check_reply(&FIXTURE, &message)?;
    }
}

static FIXTURE: LazyLock<Published> = LazyLock::new(|| {
    let addresses = (1..=40).map(|host| Weighted {
        address: IpAddr::from([192, 0, 2, host]),
        weight: NonZeroU16::MIN,
    });
    publish(
        service(&name("www.example.com"), None),
        &Answer::Addresses(addresses.collect()),
    )
});

/// What is true of every reply.
fn check_reply(published: &Published, message: &[u8]) -> Result<(), TestCaseError> {
    for transport in [Transport::Udp, TCP] {
        let reply = published
            .authority
            .answer(&published.snapshot, message, &from(transport), 1);
        let silent = message.len() < 12 || message[2] & 0x80 != 0;
        prop_assert_eq!(reply.is_none(), silent);
        let Some(reply) = reply else { continue };
        prop_assert_eq!(&reply[..2], &message[..2]);
        // QR, opcode and RD; no Z, AD, CD.
        prop_assert_eq!(reply[2] & 0xf9, 0x80 | message[2] & 0x79);
        prop_assert_eq!(reply[3] & 0xf0, 0);
        let limit = if transport == TCP { 65_535 } else { 1232 };
        prop_assert!(reply.len() <= limit);
        let parsed = Message::from_octets(reply.as_slice()).unwrap();
        prop_assert!(parsed.opt().is_some() || reply.len() <= 512 || transport == TCP);
        let mut count = 0_u16;
        let (_, answer, authority, additional) = parsed.sections().unwrap();
        for section in [answer, authority, additional] {
            for record in section.limit_to::<AllRecordData<_, _>>() {
                prop_assert!(record.is_ok());
                count += 1;
            }
        }
        let counts = parsed.header_counts();
        prop_assert_eq!(
            count,
            counts.ancount() + counts.nscount() + counts.arcount()
        );
    }
    Ok(())
}

#[test]
fn addresses_take_turns_behind_an_alias_as_well() {
    let published = &*FIXTURE;
    for (asked, answers) in [("www.example.com", 40), ("a.b.example.com", 41)] {
        let first = |turn| {
            let query = query(&name(asked), Rtype::A, None);
            let answer = &published.authority;
            let reply = answer.answer(&published.snapshot, &query, &from(TCP), turn);
            let reply = Message::from_octets(reply.unwrap()).unwrap();
            let addresses: Vec<_> = reply
                .answer()
                .unwrap()
                .limit_to::<domain::rdata::A>()
                .map(|record| record.unwrap().data().addr().octets()[3])
                .collect();
            assert_eq!(reply.header_counts().ancount(), answers);
            addresses[0]
        };
        let order: Vec<_> = (0..41).map(first).collect();
        let expected: Vec<_> = (1..=40).chain([1]).collect();
        assert_eq!(order, expected, "{asked}");
    }
}

#[test]
fn a_service_that_was_never_published_is_an_error() {
    let mut model = MODEL.clone();
    model.services.push(service(&name("www.example.com"), None));
    let query = query(&name("www.example.com"), Rtype::A, None);
    let reply = Authority::new(&model).answer(&Snapshot::default(), &query, &from(TCP), 0);
    assert_eq!(reply.unwrap()[3], 2, "SERVFAIL");
}

#[test]
fn the_serial_number_grows_with_each_change_in_its_zone_only() {
    let published = publish(service(&name("www.example.com"), None), &Answer::Empty);
    let authority = &published.authority;
    let first = &published.snapshot;
    let elsewhere = first.next(Generation(2), &[], &[ZoneId(7)]);
    let here = elsewhere.next(Generation(3), &[], &[ZoneId(0)]);
    // The zone file's is 1.
    for (snapshot, want) in [(first, 2), (&elsewhere, 2), (&here, 4)] {
        for (owner, qtype) in [("example.com", Rtype::SOA), ("no.example.com", Rtype::A)] {
            let query = query(&name(owner), qtype, None);
            let reply = authority.answer(snapshot, &query, &from(TCP), 0).unwrap();
            let message = Message::from_octets(reply).unwrap();
            let (_, answer, authority, _) = message.sections().unwrap();
            let soa = answer
                .chain(authority)
                .filter_map(|record| {
                    record
                        .unwrap()
                        .into_record::<AllRecordData<_, _>>()
                        .unwrap()
                })
                .find_map(|record| match record.data() {
                    AllRecordData::Soa(soa) => Some(soa.serial().into_int()),
                    _ => None,
                });
            assert_eq!(soa, Some(want), "{owner} {qtype}");
        }
    }
}

/// Asks with these COOKIE options. Returns the code and the content of the option in the reply.
fn ask(
    cookies: Option<CookieSecret>,
    options: &[&[u8]],
    has_question: bool,
    time: u32,
) -> (u16, Option<Vec<u8>>) {
    let mut model = MODEL.clone();
    model.settings.cookies = cookies;
    let authority = Authority::new(&model);
    let mut message = query(&name("ns1.example.com"), Rtype::A, Some((1232, false)));
    if !has_question {
        message[5] = 0;
        message.drain(12..12 + name("ns1.example.com").len() + 4);
    }
    let mut octets = Vec::new();
    for option in options {
        octets.extend([0, 10]);
        octets.extend((option.len() as u16).to_be_bytes());
        octets.extend(*option);
    }
    let at = message.len() - 2;
    message[at..].copy_from_slice(&(octets.len() as u16).to_be_bytes());
    message.extend(octets);
    let origin = Origin {
        time,
        ..from(Transport::Udp)
    };
    let reply = authority.answer(&Snapshot::default(), &message, &origin, 0);
    let reply = Message::from_octets(reply.unwrap()).unwrap();
    let cookie = reply.opt().and_then(|opt| {
        let mut options = opt.opt().iter::<domain::base::opt::UnknownOptData<_>>();
        let cookie = options.find(|option| {
            option.as_ref().unwrap().code() == domain::base::iana::OptionCode::COOKIE
        });
        cookie.map(|cookie| cookie.unwrap().data().to_vec())
    });
    (reply.opt_rcode().to_int(), cookie)
}

/// RFC 7873 sections 5.2 and 5.4.
#[test]
fn cookies() {
    let on = CookieSecret(*b"0123456789abcdef");
    let client = *b"\x24\x64\xc4\xab\xcf\x10\xc9\x57";
    let (code, first) = ask(Some(on), &[&client], true, 1000);
    let first = first.unwrap();
    assert_eq!((code, &first[..8], first.len()), (0, &client[..], 24));
    assert_eq!(first[8..16], [1, 0, 0, 0, 0, 0, 3, 232]);
    // What the server cookie is worth is of no account while nothing depends on it.
    for server in [&first[8..], &[7; 8][..], &[7; 32][..]] {
        let (code, cookie) = ask(Some(on), &[&[&client, server].concat()], true, 1000);
        assert_eq!((code, cookie), (0, Some(first.clone())));
    }
    let (code, cookie) = ask(Some(on), &[&client, &[9; 8]], true, 1000);
    assert_eq!((code, cookie), (0, Some(first.clone())), "the first counts");
    for len in [0, 7, 9, 15, 41] {
        let (code, cookie) = ask(Some(on), &[&[1; 41][..len]], true, 1000);
        assert_eq!((code, cookie), (1, None), "{len}");
        assert_eq!(ask(None, &[&[1; 41][..len]], true, 1000), (0, None));
    }
    assert_eq!(ask(None, &[&client], true, 1000), (0, None));
    // Without a question only the cookie counts.
    let other = ask(Some(CookieSecret([1; 16])), &[&client], true, 1000)
        .1
        .unwrap();
    let rows: [(&[u8], u32, u16); 6] = [
        (&client, 1000, 0),
        (&first, 1000, 0),
        (&first, 1000 + 3600, 0),
        (&first, 1000 + 3601, 23),
        (&other, 1000, 23),
        (&[1; 16], 1000, 23),
    ];
    for (option, time, want) in rows {
        let (code, cookie) = ask(Some(on), &[option], false, time);
        assert_eq!(code, want, "{option:x?} at {time}");
        assert_eq!(cookie.map(|cookie| cookie.len()), Some(24));
    }
    assert_eq!(ask(Some(on), &[], false, 1000), (1, None));
    assert_eq!(ask(None, &[&client], false, 1000), (1, None));
}
