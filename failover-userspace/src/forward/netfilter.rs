//! Questions to the kernel's netfilter over netlink: whose table it is, and connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Status, Tuple,
};
use netlink_packet_netfilter::nftables::{NfTablesMessage, TableAttribute, TableMessage};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr as Peer};
use socket2::SockRef;

use super::script::{COMMENT, TABLE};

/// Room for what the kernel sends at once (`NLMSG_GOODSIZE` is at most 32 KiB).
const BUFFER: usize = 64 * 1024;
/// Messages in a datagram are aligned to so many octets.
const ALIGNED: usize = 4;
/// Connections that are ended at a time.
const BATCH: usize = 128;
/// The kernel answers at once; this only keeps us from waiting for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// `NFTNL_UDATA_TABLE_COMMENT` of libnftnl: the kind of a table's comment in its user data.
const UDATA_COMMENT: u8 = 0;
/// Attributes of a connection that netlink-packet-netfilter has no names for.
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_STATUS_MASK: u16 = 26;

/// A netlink socket to netfilter.
pub(super) struct Netfilter {
    socket: Socket,
    sequence: u32,
}

/// The table that has our name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Another for each table that is made.
    pub(super) handle: u64,
    /// Whether it has our comment.
    pub(super) ours: bool,
}

/// A connection as the kernel tracks it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Connection {
    /// What the client has connected to.
    to: SocketAddr,
    /// Who answers.
    server: SocketAddr,
    /// What names it to the kernel.
    key: Vec<ConntrackAttribute>,
}

impl Netfilter {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&Peer::new(0, 0))?;
        SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// The table of our name, if there is one.
    pub(super) fn table(&mut self) -> io::Result<Option<Table>> {
        let name = TableAttribute::Name(TABLE.to_owned());
        let ask = NfTablesMessage::GetTable(TableMessage {
            attributes: vec![name],
        });
        let mut found = None;
        let asked = self.ask(NLM_F_ACK, NetfilterProtoFamily::Inet, ask, |message| {
            if let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = message.inner
            {
                found = Table::of(&table.attributes);
            }
        });
        match asked {
            Ok(()) => Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends all translated TCP connections to the addresses in `families` that may not `stay`: the
    /// kernel forgets them, so that what comes next of them is refused. `stay` is asked with what
    /// the client has connected to, and the server. Returns how many there were.
    pub(super) fn end(
        &mut self,
        families: Families,
        stay: impl Fn(SocketAddr, SocketAddr) -> bool,
    ) -> io::Result<usize> {
        let mut ended = 0;
        for (wanted, family) in [
            (families.v4, NetfilterProtoFamily::IPv4),
            (families.v6, NetfilterProtoFamily::IPv6),
        ] {
            if !wanted {
                continue;
            }
            let leaving = self.leaving(family, &stay)?;
            for batch in leaving.chunks(BATCH) {
                let requests = (1..).zip(batch).map(|(count, connection)| {
                    let delete = ConntrackMessage::Delete(connection.key.clone());
                    let last = count == batch.len();
                    (if last { NLM_F_ACK } else { 0 }, delete.into())
                });
                let errors = self.exchange(family, requests, |_| {})?;
                ended += batch.len() - errors.len();
                // That it is not found says that it has ended by itself.
                let is_other = |error: &io::Error| error.kind() != io::ErrorKind::NotFound;
                if let Some(error) = errors.into_iter().find(is_other) {
                    return Err(error);
                }
            }
        }
        Ok(ended)
    }

    fn leaving(
        &mut self,
        family: NetfilterProtoFamily,
        stay: impl Fn(SocketAddr, SocketAddr) -> bool,
    ) -> io::Result<Vec<Connection>> {
        let mask = Status::DstNat.bits().to_be_bytes().to_vec();
        let translated = vec![
            ConntrackAttribute::CtaStatus(Status::DstNat),
            ConntrackAttribute::Other(DefaultNla::new(CTA_STATUS_MASK, mask)),
        ];
        let mut leaving = Vec::new();
        let dump = ConntrackMessage::Get(translated);
        self.ask(NLM_F_DUMP, family, dump, |message| {
            if let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) =
                message.inner
                && let Some(connection) = Connection::of(attributes)
                && !stay(connection.to, connection.server)
            {
                leaving.push(connection);
            }
        })?;
        Ok(leaving)
    }

    /// Sends a request and takes in what comes back, until all has come.
    fn ask(
        &mut self,
        flags: u16,
        family: NetfilterProtoFamily,
        request: impl Into<NetfilterMessageInner>,
        each: impl FnMut(NetfilterMessage),
    ) -> io::Result<()> {
        let errors = self.exchange(family, [(flags, request.into())], each)?;
        errors.into_iter().next().map_or(Ok(()), Err)
    }

    /// Sends requests with their flags, and takes in what comes back until the last of them is
    /// answered, which it must ask for. The errors that the requests have met.
    fn exchange(
        &mut self,
        family: NetfilterProtoFamily,
        requests: impl IntoIterator<Item = (u16, NetfilterMessageInner)>,
        mut each: impl FnMut(NetfilterMessage),
    ) -> io::Result<Vec<io::Error>> {
        let before = self.sequence;
        let mut octets = Vec::new();
        for (flags, request) in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | flags;
            header.sequence_number = self.sequence;
            let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), request);
            let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
            message.finalize();
            let begin = octets.len();
            octets.resize(begin + message.buffer_len().next_multiple_of(ALIGNED), 0);
            message.serialize(&mut octets[begin..]);
        }
        self.socket.send(&octets, 0)?;

        let mut errors = Vec::new();
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            let mut rest = buffer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let length = (message.header.length as usize).next_multiple_of(ALIGNED);
                rest = rest.get(length.max(1)..).unwrap_or_default();
                let number = message.header.sequence_number;
                let (nth, count) = (
                    number.wrapping_sub(before),
                    self.sequence.wrapping_sub(before),
                );
                if !(1..=count).contains(&nth) {
                    // To an earlier request, which was given up.
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => {
                        each(message);
                        continue;
                    }
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        errors.push(error.to_io());
                    }
                    NetlinkPayload::Done(done) if done.code != 0 => {
                        errors.push(io::Error::from_raw_os_error(done.code.saturating_neg()));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => {}
                    _ => continue,
                }
                if number == self.sequence {
                    return Ok(errors);
                }
            }
        }
    }
}

/// Which connections are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

impl<'a> FromIterator<&'a SocketAddr> for Families {
    fn from_iter<I: IntoIterator<Item = &'a SocketAddr>>(addresses: I) -> Self {
        addresses
            .into_iter()
            .fold(Self::default(), |families, address| Self {
                v4: families.v4 || address.is_ipv4(),
                v6: families.v6 || address.is_ipv6(),
            })
    }
}

impl Table {
    fn of(attributes: &[TableAttribute]) -> Option<Self> {
        let handle = attributes.iter().find_map(|attribute| match attribute {
            TableAttribute::Handle(handle) => Some(*handle),
            _ => None,
        })?;
        let ours = attributes.iter().any(|attribute| {
            matches!(attribute, TableAttribute::UserData(data)
                if comment(data) == Some(COMMENT.as_bytes()))
        });
        Some(Self { handle, ours })
    }
}

/// The comment in the user data that nft gives a table: kind, length, value; and so on.
fn comment(mut data: &[u8]) -> Option<&[u8]> {
    while let [kind, length, rest @ ..] = data {
        let (value, next) = rest.split_at_checked(usize::from(*length))?;
        if *kind == UDATA_COMMENT {
            return Some(value.strip_suffix(b"\0").unwrap_or(value));
        }
        data = next;
    }
    None
}

impl Connection {
    /// A TCP connection.
    fn of(attributes: Vec<ConntrackAttribute>) -> Option<Self> {
        let (mut to, mut server) = (None, None);
        for attribute in &attributes {
            match attribute {
                ConntrackAttribute::CtaTupleOrig(tuple) => to = Side::of(tuple).destination(),
                ConntrackAttribute::CtaTupleReply(tuple) => server = Side::of(tuple).source(),
                _ => {}
            }
        }
        let (to, server) = (to?, server?);
        let names_it = |attribute: &ConntrackAttribute| match attribute {
            ConntrackAttribute::CtaTupleOrig(_) => true,
            ConntrackAttribute::Other(other) => {
                use rtnetlink::packet_core::Nla;
                matches!(other.kind(), CTA_ID | CTA_ZONE)
            }
            _ => false,
        };
        let mut key = attributes;
        key.retain(names_it);
        Some(Self { to, server, key })
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Side {
    tcp: bool,
    from: (Option<IpAddr>, Option<u16>),
    to: (Option<IpAddr>, Option<u16>),
}

impl Side {
    fn of(tuple: &[Tuple]) -> Self {
        let mut side = Self::default();
        for part in tuple {
            match part {
                Tuple::Ip(parts) => {
                    for part in parts {
                        match part {
                            IPTuple::SourceAddress(address) => side.from.0 = Some(*address),
                            IPTuple::DestinationAddress(address) => side.to.0 = Some(*address),
                            _ => {}
                        }
                    }
                }
                Tuple::Proto(parts) => {
                    for part in parts {
                        match part {
                            ProtoTuple::Protocol(protocol) => {
                                side.tcp = *protocol == Protocol::Tcp;
                            }
                            ProtoTuple::SourcePort(port) => side.from.1 = Some(*port),
                            ProtoTuple::DestinationPort(port) => side.to.1 = Some(*port),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        side
    }

    fn source(&self) -> Option<SocketAddr> {
        self.tcp
            .then_some(SocketAddr::new(self.from.0?, self.from.1?))
    }

    fn destination(&self) -> Option<SocketAddr> {
        self.tcp.then_some(SocketAddr::new(self.to.0?, self.to.1?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_of_a_table() {
        for (data, want) in [
            (&b""[..], None),
            (b"\0\x05ours\0", Some(&b"ours"[..])),
            (b"\0\x04ours", Some(b"ours")),
            // Behind something that we do not know.
            (b"\x07\x02ab\0\x05ours\0", Some(b"ours")),
            (b"\x07\x02ab", None),
            // Cut off.
            (b"\0\x09ours\0", None),
            (b"\0", None),
        ] {
            assert_eq!(comment(data), want, "{data:?}");
        }
        let table = |comment: &[u8]| {
            let length = comment.len() as u8;
            let data = [&[UDATA_COMMENT, length], comment].concat();
            Table::of(&[TableAttribute::UserData(data), TableAttribute::Handle(7)])
        };
        let ours = |ours| Some(Table { handle: 7, ours });
        assert_eq!(table(format!("{COMMENT}\0").as_bytes()), ours(true));
        assert_eq!(table(b"somebody else's\0"), ours(false));
        let bare = Table::of(&[TableAttribute::Handle(7)]);
        assert_eq!(bare, ours(false));
    }

    fn tuple(from: &str, to: &str, protocol: Protocol) -> Vec<Tuple> {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (from, to) = (address(from), address(to));
        vec![
            Tuple::Ip(vec![
                IPTuple::SourceAddress(from.ip()),
                IPTuple::DestinationAddress(to.ip()),
            ]),
            Tuple::Proto(vec![
                ProtoTuple::Protocol(protocol),
                ProtoTuple::SourcePort(from.port()),
                ProtoTuple::DestinationPort(to.port()),
            ]),
        ]
    }

    #[test]
    fn a_connection_is_what_was_asked_for_and_who_answers() {
        let original = |protocol| {
            ConntrackAttribute::CtaTupleOrig(tuple(
                "192.0.2.18:4000",
                "198.51.100.134:80",
                protocol,
            ))
        };
        let reply = |protocol| {
            ConntrackAttribute::CtaTupleReply(tuple(
                "192.168.10.10:8080",
                "192.0.2.18:4000",
                protocol,
            ))
        };
        let other = |kind| ConntrackAttribute::Other(DefaultNla::new(kind, vec![0, 0, 0, 1]));
        let (id, zone, timestamp) = (other(CTA_ID), other(CTA_ZONE), other(20));
        let attributes = vec![
            original(Protocol::Tcp),
            reply(Protocol::Tcp),
            ConntrackAttribute::CtaMark(3),
            timestamp,
            id.clone(),
            zone.clone(),
        ];
        let want = Connection {
            to: "198.51.100.134:80".parse().unwrap(),
            server: "192.168.10.10:8080".parse().unwrap(),
            key: vec![original(Protocol::Tcp), id, zone],
        };
        assert_eq!(Connection::of(attributes), Some(want));
        let udp = vec![original(Protocol::Udp), reply(Protocol::Udp)];
        assert_eq!(Connection::of(udp), None);
        assert_eq!(Connection::of(vec![original(Protocol::Tcp)]), None);
    }
}
