//! Queries as frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use failover_common::checksum;

/// Our IPv4 address.
pub(crate) const LISTEN_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 130);
/// Our IPv6 address.
pub(crate) const LISTEN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x130, 0, 0, 0, 0, 0x53);
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1);
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
const UDP: u8 = 17;
const TCP: u8 = 6;

/// A question with RD, and EDNS unless told otherwise.
pub(crate) struct Question {
    name: Vec<u8>,
    qtype: u16,
    edns: bool,
    cookie: bool,
}

impl Question {
    /// `name` in wire format.
    pub(crate) const fn new(name: Vec<u8>, qtype: u16) -> Self {
        Self {
            name,
            qtype,
            edns: true,
            cookie: false,
        }
    }

    /// The same without OPT.
    pub(crate) fn without_edns(self) -> Self {
        Self {
            edns: false,
            ..self
        }
    }

    /// The same with a client cookie.
    pub(crate) fn with_cookie(self) -> Self {
        Self {
            cookie: true,
            ..self
        }
    }

    /// Every second letter in upper case, as resolvers do it against spoofing.
    pub(crate) fn mixed_case(mut self) -> Self {
        // Lengths of labels are no letters.
        for octet in self.name.iter_mut().step_by(2) {
            octet.make_ascii_uppercase();
        }
        self
    }

    /// The message.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0xbe, 0xef, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(self.edns)];
        bytes.extend(&self.name);
        bytes.extend(self.qtype.to_be_bytes());
        bytes.extend([0, 1]);
        if self.edns {
            let options: &[u8] = if self.cookie {
                b"\0\x0a\0\x08CLIENT.."
            } else {
                &[]
            };
            bytes.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, options.len() as u8]);
            bytes.extend(options);
        }
        bytes
    }
}

/// A frame to one of our addresses.
pub(crate) struct Frame {
    /// Destination, then source.
    macs: [u8; 12],
    source: IpAddr,
    source_port: u16,
    destination: IpAddr,
    protocol: u8,
    port: u16,
    tagged: bool,
    payload: Vec<u8>,
}

impl Frame {
    /// Over IPv4 and UDP.
    pub(crate) const fn v4(payload: Vec<u8>) -> Self {
        Self {
            macs: MACS,
            source: IpAddr::V4(CLIENT_V4),
            source_port: 40_000,
            destination: IpAddr::V4(LISTEN_V4),
            protocol: UDP,
            port: 53,
            tagged: false,
            payload,
        }
    }

    /// Over IPv6 and UDP.
    pub(crate) fn v6(payload: Vec<u8>) -> Self {
        Self {
            source: IpAddr::V6(CLIENT_V6),
            destination: IpAddr::V6(LISTEN_V6),
            ..Self::v4(payload)
        }
    }

    /// Between other machines.
    pub(crate) fn between(
        self,
        macs: [u8; 12],
        (source, source_port): (Ipv4Addr, u16),
        destination: Ipv4Addr,
    ) -> Self {
        Self {
            macs,
            source: source.into(),
            source_port,
            destination: destination.into(),
            ..self
        }
    }

    /// With a VLAN tag.
    pub(crate) fn tagged(self) -> Self {
        Self {
            tagged: true,
            ..self
        }
    }

    /// The same octets as TCP, which is enough for a program that looks no further.
    pub(crate) fn tcp(self) -> Self {
        Self {
            protocol: TCP,
            ..self
        }
    }

    /// To another port.
    pub(crate) fn at_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Where the DNS message starts in a frame of ours, query or reply.
    pub(crate) fn dns_offset(frame: &[u8]) -> usize {
        match (frame[12], frame[13]) {
            (0x81, _) => 18 + 20 + 8,
            (0x86, _) => 14 + 40 + 8,
            _ => 14 + 20 + 8,
        }
    }

    /// The frame, with true checksums.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut frame = self.macs.to_vec();
        if self.tagged {
            frame.extend([0x81, 0x00, 0x00, 0x07]);
        }
        let len = (8 + self.payload.len()) as u16;
        let mut udp = Vec::new();
        for half in [self.source_port, self.port, len, 0] {
            udp.extend(half.to_be_bytes());
        }
        udp.extend(&self.payload);
        let mut pseudo = Vec::new();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                pseudo.extend([source.octets(), destination.octets()].concat());
                frame.extend(self.v4_header(len, &pseudo));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(len.to_be_bytes());
                frame.extend([self.protocol, 61]);
                pseudo.extend([source.octets(), destination.octets()].concat());
                frame.extend(&pseudo);
            }
            _ => unreachable!("a frame has one family"),
        }
        pseudo.extend([0, self.protocol]);
        pseudo.extend(len.to_be_bytes());
        pseudo.extend(&udp);
        let sum = !checksum::sum(&pseudo);
        udp[6..8].copy_from_slice(&sum.to_ne_bytes());
        frame.extend(udp);
        frame
    }

    fn v4_header(&self, payload_len: u16, addresses: &[u8]) -> Vec<u8> {
        let mut header = vec![0x45, 0];
        header.extend((20 + payload_len).to_be_bytes());
        header.extend([0x12, 0x34, 0x40, 0, 61, self.protocol, 0, 0]);
        header.extend(addresses);
        let sum = !checksum::sum(&header);
        header[10..12].copy_from_slice(&sum.to_ne_bytes());
        header
    }
}
