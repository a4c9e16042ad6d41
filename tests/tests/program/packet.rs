//! Queries as frames, built octet by octet, and replies taken apart.

use std::net::{IpAddr, Ipv4Addr};

use domain::base::{Message, MessageBuilder, Rtype};

use crate::lab::{LISTEN_V4, LISTEN_V6};

/// RCODE of a name that does not exist.
pub(crate) const NXDOMAIN: u16 = 3;

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The DNS message of a query.
#[derive(Clone, Debug)]
pub(crate) struct Dns {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) counts: [u16; 4],
    pub(crate) qname: Vec<u8>,
    pub(crate) qtype: u16,
    pub(crate) qclass: u16,
    pub(crate) edns: Option<Opt>,
    /// Octets after all of that.
    pub(crate) trailer: Vec<u8>,
}

/// An OPT record.
#[derive(Clone, Debug)]
pub(crate) struct Opt {
    pub(crate) owner: Vec<u8>,
    pub(crate) rtype: u16,
    pub(crate) size: u16,
    pub(crate) version: u8,
    pub(crate) flags: u16,
    pub(crate) options: Vec<u8>,
    /// Added to the true length of the options.
    pub(crate) length_error: i32,
}

impl Opt {
    pub(crate) fn new(size: u16) -> Self {
        Self {
            owner: vec![0],
            rtype: 41,
            size,
            version: 0,
            flags: 0,
            options: vec![],
            length_error: 0,
        }
    }
}

/// A name in wire format, case kept.
pub(crate) fn wire_name(text: &str) -> Vec<u8> {
    let mut wire = vec![];
    for label in text.split('.').filter(|label| !label.is_empty()) {
        wire.push(label.len() as u8);
        wire.extend(label.bytes());
    }
    wire.push(0);
    wire
}

/// A name of exactly `len` octets, 3 or more, in wire format.
pub(crate) fn name_of_len(len: usize) -> Vec<u8> {
    let mut wire = vec![];
    while wire.len() < len - 1 {
        // A label takes two octets at least: never leave room for one only.
        let left = len - 1 - wire.len();
        let label = if left == 65 { 62 } else { (left - 1).min(63) };
        wire.push(label as u8);
        wire.extend((0..label).map(|i| b'a' + ((i + len) % 26) as u8));
    }
    wire.push(0);
    wire
}

impl Dns {
    /// A query with RD and EDNS.
    pub(crate) fn new(qname: &str, qtype: u16) -> Self {
        Self {
            id: 0xbeef,
            flags: 0x0100,
            counts: [1, 0, 0, 1],
            qname: wire_name(qname),
            qtype,
            qclass: 1,
            edns: Some(Opt::new(1232)),
            trailer: vec![],
        }
    }

    /// The same without EDNS.
    pub(crate) fn plain(qname: &str, qtype: u16) -> Self {
        Self {
            counts: [1, 0, 0, 0],
            edns: None,
            ..Self::new(qname, qtype)
        }
    }

    pub(crate) fn with_options(mut self, options: &[u8]) -> Self {
        self.edns.get_or_insert_with(|| Opt::new(1232)).options = options.to_vec();
        self.counts[3] = 1;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![];
        for word in [self.id, self.flags].iter().chain(&self.counts) {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(&self.qname);
        bytes.extend(self.qtype.to_be_bytes());
        bytes.extend(self.qclass.to_be_bytes());
        if let Some(opt) = &self.edns {
            bytes.extend(&opt.owner);
            bytes.extend(opt.rtype.to_be_bytes());
            bytes.extend(opt.size.to_be_bytes());
            bytes.extend([0, opt.version]);
            bytes.extend(opt.flags.to_be_bytes());
            bytes.extend(((opt.options.len() as i32 + opt.length_error) as u16).to_be_bytes());
            bytes.extend(&opt.options);
        }
        bytes.extend(&self.trailer);
        bytes
    }
}

/// A frame around a UDP payload.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) destination_mac: [u8; 6],
    pub(crate) tags: Vec<[u8; 4]>,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ports: [u16; 2],
    pub(crate) payload: Vec<u8>,
    pub(crate) protocol: u8,
    /// IPv4 flags and fragment offset.
    pub(crate) fragment: u16,
    /// IPv4 options, or IPv6 extension headers.
    pub(crate) ip_options: Vec<u8>,
    pub(crate) ip_length_error: i32,
    pub(crate) udp_length_error: i32,
    pub(crate) ip_checksum_error: u16,
    /// `None`: the true one.
    pub(crate) udp_checksum: Option<u16>,
    pub(crate) padding: usize,
}

impl Frame {
    pub(crate) fn v4(payload: Vec<u8>) -> Self {
        Self {
            destination_mac: SERVER_MAC,
            tags: vec![],
            source: "192.0.2.99".parse().expect("address"),
            destination: LISTEN_V4.parse().expect("address"),
            ports: [40000, 53],
            payload,
            protocol: 17,
            fragment: 0x4000,
            ip_options: vec![],
            ip_length_error: 0,
            udp_length_error: 0,
            ip_checksum_error: 0,
            udp_checksum: None,
            padding: 0,
        }
    }

    pub(crate) fn v6(payload: Vec<u8>) -> Self {
        Self {
            source: "2001:db8:99::1".parse().expect("address"),
            destination: LISTEN_V6.parse().expect("address"),
            ..Self::v4(payload)
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut frame = vec![];
        frame.extend(self.destination_mac);
        frame.extend(CLIENT_MAC);
        for tag in &self.tags {
            frame.extend(tag);
        }
        let udp_len = (8 + self.payload.len() as i32 + self.udp_length_error) as u16;
        let mut udp = vec![];
        udp.extend(self.ports[0].to_be_bytes());
        udp.extend(self.ports[1].to_be_bytes());
        udp.extend(udp_len.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        let checksum = self.udp_checksum.unwrap_or_else(|| {
            match !sum(&pseudo_header(self.source, self.destination, &udp), &udp) {
                0 => 0xffff,
                checksum => checksum,
            }
        });
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                frame.extend(self.v4_header(source, destination, udp.len()));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd, 0x60, 0x0a, 0xbc, 0xde]);
                let len = (self.ip_options.len() + udp.len()) as i32 + self.ip_length_error;
                frame.extend((len as u16).to_be_bytes());
                frame.extend([self.protocol, 61]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(&self.ip_options);
            }
            _ => panic!("mixed families"),
        }
        frame.extend(udp);
        frame.extend(std::iter::repeat_n(0xaa, self.padding));
        frame
    }

    fn v4_header(&self, source: Ipv4Addr, destination: Ipv4Addr, payload_len: usize) -> Vec<u8> {
        let header_len = 20 + self.ip_options.len();
        let mut header = vec![0x40 | (header_len / 4) as u8, 0x10];
        header.extend(
            ((header_len + payload_len) as i32 + self.ip_length_error).to_be_bytes()[2..].iter(),
        );
        header.extend([0x12, 0x34]);
        header.extend(self.fragment.to_be_bytes());
        header.extend([61, self.protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(&self.ip_options);
        let checksum = (!sum(&[], &header)).wrapping_add(self.ip_checksum_error);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }
}

/// The Internet checksum of RFC 1071, straight from its text.
fn sum(first: &[u8], second: &[u8]) -> u16 {
    let mut sum = 0u32;
    for bytes in [first, second] {
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pseudo_header(source: IpAddr, destination: IpAddr, udp: &[u8]) -> Vec<u8> {
    let mut header = vec![];
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => header.extend(address.octets()),
            IpAddr::V6(address) => header.extend(address.octets()),
        }
    }
    header.extend((udp.len() as u32).to_be_bytes());
    header.extend([0, 0, 0, 17]);
    header
}

/// A reply whose headers were checked in full.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) message: Message<Vec<u8>>,
    /// Header flags and rcode.
    pub(crate) flags: u16,
    pub(crate) opt: Option<ReplyOpt>,
    /// Records as `owner ttl class type data`, by section.
    pub(crate) answer: Vec<String>,
    pub(crate) authority: Vec<String>,
    pub(crate) additional: Vec<String>,
}

impl Reply {
    /// The addresses of the answer section, in order.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let data = |record: &String| record.rsplit(' ').next()?.parse().ok();
        self.answer.iter().filter_map(data).collect()
    }
}

/// The OPT record of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReplyOpt {
    pub(crate) size: u16,
    pub(crate) ttl: u32,
    pub(crate) has_options: bool,
}

/// Octets of Ethernet header and VLAN tags.
fn l2_len(frame: &[u8]) -> usize {
    let mut at = 12;
    while matches!(frame[at..at + 2], [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    at + 2
}

/// Where a frame comes from.
pub(crate) fn source(frame: &[u8]) -> IpAddr {
    let ip = &frame[l2_len(frame)..];
    if ip[0] >> 4 == 4 {
        let octets: [u8; 4] = ip[12..16].try_into().expect("an address");
        IpAddr::from(octets)
    } else {
        let octets: [u8; 16] = ip[8..24].try_into().expect("an address");
        IpAddr::from(octets)
    }
}

/// Checks every header of a reply against the query that it answers, and the message.
pub(crate) fn check_reply(query: &[u8], reply: &[u8]) -> Reply {
    let (query, message) = check_frame(query, reply);
    take_apart(query, message)
}

/// Checks every header of a reply against the query that it answers. Returns both messages.
pub(crate) fn check_frame<'a>(query: &'a [u8], reply: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let l2 = l2_len(query);
    assert_eq!(reply[0..6], query[6..12], "destination MAC");
    assert_eq!(reply[6..12], query[0..6], "source MAC");
    assert_eq!(reply[12..l2], query[12..l2], "type and tags");
    let (sent, header) = (&query[l2..], &reply[l2..]);
    let (udp_at, pseudo_header) = if sent[0] >> 4 == 4 {
        assert_eq!(header[0..2], sent[0..2], "version, length, service");
        assert_eq!(word(header, 2), header.len(), "total length");
        assert_eq!(header[4..8], sent[4..8], "id and fragment");
        assert_eq!(header[8..10], [64, 17], "TTL and protocol");
        assert_eq!(sum(&[], &header[..20]), 0xffff, "header checksum");
        assert_eq!(header[12..16], sent[16..20], "source");
        assert_eq!(header[16..20], sent[12..16], "destination");
        (20, header[12..20].to_vec())
    } else {
        assert_eq!(header[0..4], sent[0..4], "version, class, flow");
        assert_eq!(word(header, 4), header.len() - 40, "payload length");
        assert_eq!(header[6..8], [17, 64], "next header and hop limit");
        assert_eq!(header[8..24], sent[24..40], "source");
        assert_eq!(header[24..40], sent[8..24], "destination");
        (40, header[8..40].to_vec())
    };
    let (sent, udp) = (&sent[udp_at..], &header[udp_at..]);
    assert_eq!(udp[0..2], sent[2..4], "source port");
    assert_eq!(udp[2..4], sent[0..2], "destination port");
    assert_eq!(word(udp, 4), udp.len(), "UDP length");
    assert_ne!(udp[6..8], [0, 0], "UDP checksum present");
    let pseudo_header = [&pseudo_header[..], &[0, 17], &udp[4..6]].concat();
    assert_eq!(sum(&pseudo_header, udp), 0xffff, "UDP checksum");
    (&sent[8..word(sent, 4)], &udp[8..])
}

/// The 16-bit number at `at`.
fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// Where the records that a message counts end.
pub(crate) fn end_of_message(message: &[u8]) -> usize {
    let mut at = 12;
    let skip_name = |at: &mut usize| {
        loop {
            match message[*at] {
                0 => break *at += 1,
                192.. => break *at += 2,
                label => *at += 1 + usize::from(label),
            }
        }
    };
    for _ in 0..word(message, 4) {
        skip_name(&mut at);
        at += 4;
    }
    for _ in 0..word(message, 6) + word(message, 8) + word(message, 10) {
        skip_name(&mut at);
        at += 10 + word(message, at + 8);
    }
    at
}

/// Checks what every reply shares with its query, and parses it.
pub(crate) fn take_apart(query: &[u8], message: &[u8]) -> Reply {
    assert_eq!(message[0..2], query[0..2], "id");
    let question_end = 12
        + query[12..]
            .iter()
            .position(|octet| *octet == 0)
            .expect("a name")
        + 1
        + 4;
    assert_eq!(
        message[12..question_end],
        query[12..question_end],
        "question, in its own case"
    );
    let flags = u16::from_be_bytes([message[2], message[3]]);
    assert_eq!(flags & 0x0100, word(query, 2) as u16 & 0x0100, "RD");
    // QR and AA, without or with NXDOMAIN, or QR and SERVFAIL.
    assert!(
        matches!(flags & !0x0100, 0x8400 | 0x8403 | 0x8002),
        "{flags:04x}"
    );
    assert_eq!(end_of_message(message), message.len(), "all is counted");
    let parsed = Message::from_octets(message.to_vec()).expect("a message");
    assert_eq!(parsed.header_counts().qdcount(), 1);
    let mut reply = Reply {
        flags,
        opt: None,
        answer: section(parsed.answer().expect("answer section")),
        authority: section(parsed.authority().expect("authority section")),
        additional: vec![],
        message: parsed.clone(),
    };
    for record in parsed.additional().expect("additional section") {
        let record = record.expect("an additional record");
        if record.rtype() == Rtype::OPT {
            let opt = record
                .to_record::<domain::base::opt::Opt<_>>()
                .expect("OPT")
                .expect("OPT");
            assert!(record.owner().is_root() && reply.opt.is_none());
            reply.opt = Some(ReplyOpt {
                size: record.class().to_int(),
                ttl: record.ttl().as_secs(),
                has_options: !opt.data().is_empty(),
            });
        } else {
            reply.additional.push(text(&record));
        }
    }
    reply
}

fn section(section: domain::base::message::RecordSection<'_, Vec<u8>>) -> Vec<String> {
    section
        .map(|record| text(&record.expect("a record")))
        .collect()
}

fn text(record: &domain::base::ParsedRecord<'_, Vec<u8>>) -> String {
    let any = record
        .to_any_record::<domain::rdata::AllRecordData<_, _>>()
        .expect("data of a known type");
    format!(
        "{} {} {} {} {}",
        record.owner().to_string().to_ascii_lowercase(),
        record.ttl().as_secs(),
        record.class(),
        record.rtype(),
        any.data()
    )
}

/// A query as a DNS library encodes it: a second opinion on [`Dns::bytes`].
pub(crate) fn library_query(qname: &str, qtype: Rtype, edns_size: Option<u16>) -> Vec<u8> {
    let name: domain::base::Name<Vec<u8>> = qname.parse().expect("a name");
    let mut builder = MessageBuilder::new_vec().question();
    builder.header_mut().set_id(0xbeef);
    builder.header_mut().set_rd(true);
    builder.push((name, qtype)).expect("room");
    let mut builder = builder.additional();
    if let Some(size) = edns_size {
        let set = |opt: &mut domain::base::message_builder::OptBuilder<'_, _>| {
            opt.set_udp_payload_size(size);
            Ok(())
        };
        builder.opt(set).expect("room");
    }
    builder.finish()
}
