//! ICMP and ICMPv6 echo (RFC 792, RFC 4443 section 4).
//!
//! One connected socket per execution, from socket2; headers and checksums by `etherparse`.
//! Not `surge-ping`, which shares one unconnected socket among all targets: an ICMP error
//! never reaches the probe it is about, a socket bound to an interface that was deleted and
//! made anew stays dead, and the payload of a reply is not compared.
//!
//! The kernel's ping socket (a datagram socket, no privilege) is taken if
//! `net.ipv4.ping_group_range` lets us, else a raw one (`CAP_NET_RAW`).

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type};
use etherparse::{Icmpv6Header, Icmpv6Slice, Icmpv6Type, Ipv4HeaderSlice};
use nix::sys::socket::{setsockopt, sockopt};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Failure;
use crate::model::Egress;

/// Octets after the echo header, as `ping` sends: some middleboxes look askance at less.
const PAYLOAD_LEN: usize = 56;

/// Enough for our own echo with the longest IPv4 header; what is longer is not ours.
const RECEIVE_LEN: usize = 256;

/// Sends one echo request to `target` and waits for its reply, for as long as it takes;
/// returns how long that was. The caller's `timeout` decides when to stop waiting.
pub(super) async fn probe(target: IpAddr, egress: &Egress) -> Result<Duration, Failure> {
    let (socket, kind) = open(target, egress)?;
    exchange(socket, Echo::new(target, kind)).await
}

/// The two kinds of socket that can send an echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The kernel chooses the identifier, and hands us only what bears it.
    Ping,
    /// We get all ICMP from the target, for IPv4 with the IP header.
    Raw,
}

fn open(target: IpAddr, egress: &Egress) -> Result<(Socket, Kind), Failure> {
    let (socket, kind) = match create(target, Kind::Ping) {
        Ok(socket) => (socket, Kind::Ping),
        Err(_) => {
            let raw =
                create(target, Kind::Raw).map_err(|error| Failure::local("ICMP socket", &error))?;
            (raw, Kind::Raw)
        }
    };
    prepare(&socket, target, egress)?;
    Ok((socket, kind))
}

fn create(target: IpAddr, kind: Kind) -> io::Result<Socket> {
    let (domain, protocol) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let kind = match kind {
        Kind::Ping => Type::DGRAM,
        Kind::Raw => Type::RAW,
    };
    Socket::new(domain, kind.nonblocking(), Some(protocol))
}

fn prepare(socket: &Socket, target: IpAddr, egress: &Egress) -> Result<(), Failure> {
    // Without it only the fatal ones among ICMP errors get through.
    match target {
        IpAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &true),
        IpAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &true),
    }
    .map_err(|errno| Failure::local("ICMP socket", &errno.into()))?;
    egress.apply(socket, target)?;
    socket
        .connect(&SocketAddr::new(target, 0).into())
        .map_err(|error| failure(&error))
}

async fn exchange(socket: Socket, echo: Echo) -> Result<Duration, Failure> {
    // It is no UDP, but to tokio all sockets of datagrams are the same, and its `AsyncFd` is unsafe.
    let socket = UdpSocket::from_std(socket.into())
        .map_err(|error| Failure::local("ICMP socket", &error))?;
    let begun = Instant::now();
    send(&socket, &echo.request(), SendFlags::empty()).map_err(|errno| failure(&errno.into()))?;
    let mut buffer = [0; RECEIVE_LEN];
    // What `UdpSocket::recv` waits for does not include errors.
    let interest = Interest::READABLE | Interest::ERROR;
    loop {
        let receive = || Ok(recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?.0);
        match socket.async_io(interest, receive).await {
            Ok(len) if echo.is_answered_by(&buffer[..len]) => return Ok(begun.elapsed()),
            Ok(_) => {}
            // About somebody else's packet, a long one; a raw socket hears of it too.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {}
            Err(error) => return Err(failure(&error)),
        }
    }
}

fn failure(error: &io::Error) -> Failure {
    match Failure::of(error) {
        // Port unreachable, of all things: there are no ports, but there is an ICMP error.
        Failure::Refused => Failure::Unreachable,
        other => other,
    }
}

/// One echo request, and how its reply is known.
#[derive(Clone, Debug)]
struct Echo {
    target: IpAddr,
    kind: Kind,
    header: IcmpEchoHeader,
    payload: [u8; PAYLOAD_LEN],
}

impl Echo {
    /// An echo that cannot be confused with any other's, nor guessed.
    fn new(target: IpAddr, kind: Kind) -> Self {
        static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let token = SECRET.hash_one(count).to_be_bytes();
        let mut payload = [0; PAYLOAD_LEN];
        payload[..token.len()].copy_from_slice(&token);
        let [.., id_high, id_low, seq_high, seq_low] = count.to_be_bytes();
        let header = IcmpEchoHeader {
            id: u16::from_be_bytes([id_high, id_low]),
            seq: u16::from_be_bytes([seq_high, seq_low]),
        };
        Self {
            target,
            kind,
            header,
            payload,
        }
    }

    /// The request as ICMP message; the kernel fills in an ICMPv6 checksum (RFC 3542 section 3.1).
    fn request(&self) -> Vec<u8> {
        match self.target {
            IpAddr::V4(_) => {
                let kind = Icmpv4Type::EchoRequest(self.header);
                let header = Icmpv4Header::with_checksum(kind, &self.payload).to_bytes();
                [header.as_slice(), &self.payload].concat()
            }
            IpAddr::V6(_) => {
                let header = Icmpv6Header::new(Icmpv6Type::EchoRequest(self.header)).to_bytes();
                [header.as_slice(), &self.payload].concat()
            }
        }
    }

    /// Whether what the socket received is the reply.
    fn is_answered_by(&self, received: &[u8]) -> bool {
        self.reply_in(received).is_some_and(|(header, payload)| {
            let ours = match self.kind {
                Kind::Ping => header.seq == self.header.seq,
                Kind::Raw => header == self.header,
            };
            ours && payload == self.payload
        })
    }

    fn reply_in<'a>(&self, received: &'a [u8]) -> Option<(IcmpEchoHeader, &'a [u8])> {
        match self.target {
            IpAddr::V4(_) => {
                let message = match self.kind {
                    Kind::Ping => received,
                    Kind::Raw => {
                        received.get(Ipv4HeaderSlice::from_slice(received).ok()?.slice().len()..)?
                    }
                };
                let icmp = Icmpv4Slice::from_slice(message).ok()?;
                let Icmpv4Type::EchoReply(header) = icmp.icmp_type() else {
                    return None;
                };
                Some((header, icmp.payload()))
            }
            IpAddr::V6(_) => {
                let icmp = Icmpv6Slice::from_slice(received).ok()?;
                let Icmpv6Type::EchoReply(header) = icmp.icmp_type() else {
                    return None;
                };
                Some((header, icmp.payload()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::testing::Netns;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const LOCALHOSTS: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];

    /// The probe with one kind of socket; `None` where the kernel refuses that kind.
    async fn probe_with(
        kind: Kind,
        target: IpAddr,
        egress: &Egress,
    ) -> Option<Result<Duration, Failure>> {
        let socket = create(target, kind).ok()?;
        Some(match prepare(&socket, target, egress) {
            Ok(()) => {
                let exchange = exchange(socket, Echo::new(target, kind));
                tokio::time::timeout(Duration::from_secs(5), exchange)
                    .await
                    .unwrap_or(Err(Failure::TimedOut))
            }
            Err(failure) => Err(failure),
        })
    }

    #[tokio::test]
    async fn localhost_answers() {
        for target in LOCALHOSTS {
            if create(target, Kind::Ping).is_err() && create(target, Kind::Raw).is_err() {
                eprintln!("skipped: the kernel refuses both kinds of ICMP socket for {target}");
                continue;
            }
            let took = probe(target, &Egress::default()).await.unwrap();
            assert!(
                took > Duration::ZERO && took < Duration::from_secs(1),
                "{took:?}"
            );
        }
    }

    #[test]
    fn both_kinds_of_socket_and_what_routers_say() {
        let Some(netns) = Netns::new("icmp") else {
            return;
        };
        netns.with_router();
        netns.ip("route add unreachable 192.0.2.1");
        netns.run(async {
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
            let out = |interface: &str| Egress {
                interface: Some(interface.to_owned()),
                source: None,
            };
            let from = |source: &str| Egress {
                interface: None,
                source: Some(source.parse().unwrap()),
            };
            for kind in [Kind::Ping, Kind::Raw] {
                for (target, egress, want) in [
                    ("127.0.0.1", Egress::default(), Ok(())),
                    ("::1", Egress::default(), Ok(())),
                    ("127.0.0.1", out("lo"), Ok(())),
                    ("10.9.0.1", Egress::default(), Ok(())),
                    ("fd09::1", Egress::default(), Ok(())),
                    ("10.9.0.1", out("near0"), Ok(())),
                    ("10.9.0.1", from("10.9.0.2"), Ok(())),
                    ("fd09::1", from("fd09::2"), Ok(())),
                    // No route here; no route at the router.
                    ("203.0.113.1", Egress::default(), Err(Failure::Unreachable)),
                    ("192.0.2.1", Egress::default(), Err(Failure::Unreachable)),
                    ("198.51.100.1", Egress::default(), Err(Failure::Unreachable)),
                    (
                        "2001:db8:1::1",
                        Egress::default(),
                        Err(Failure::Unreachable),
                    ),
                    (
                        "127.0.0.1",
                        out("nosuch0"),
                        Err(Failure::Local(
                            "interface nosuch0: No such device (os error 19)".into(),
                        )),
                    ),
                ] {
                    let outcome = probe_with(kind, target.parse().unwrap(), &egress).await;
                    let outcome = outcome.map(|outcome| outcome.map(drop));
                    assert_eq!(outcome, Some(want), "{kind:?} {target} {egress:?}");
                }
            }
        });
    }

    #[test]
    fn only_the_very_reply_counts() {
        for target in LOCALHOSTS {
            for kind in [Kind::Ping, Kind::Raw] {
                let echo = Echo::new(target, kind);
                let reply = |header: IcmpEchoHeader, payload: &[u8]| match target {
                    IpAddr::V4(_) => {
                        let icmp =
                            Icmpv4Header::with_checksum(Icmpv4Type::EchoReply(header), payload);
                        [icmp.to_bytes().as_slice(), payload].concat()
                    }
                    IpAddr::V6(_) => {
                        let icmp = Icmpv6Header::new(Icmpv6Type::EchoReply(header));
                        [icmp.to_bytes().as_slice(), payload].concat()
                    }
                };
                // With an IPv4 header of 24 octets where the kernel hands one over.
                let ip: &[u8] = match (target, kind) {
                    (IpAddr::V4(_), Kind::Raw) => &[
                        0x46, 0, 0, 88, 0, 0, 0, 0, 64, 1, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1, 1, 1,
                        1, 0,
                    ],
                    _ => &[],
                };
                let received = |message: Vec<u8>| [ip, &message].concat();
                let IcmpEchoHeader { id, seq } = echo.header;
                let other_payload = Echo::new(target, kind).payload;
                let truncated = received(reply(echo.header, &echo.payload));
                let table = [
                    (
                        "the reply",
                        received(reply(echo.header, &echo.payload)),
                        true,
                    ),
                    (
                        "another identifier",
                        received(reply(IcmpEchoHeader { id: !id, seq }, &echo.payload)),
                        kind == Kind::Ping,
                    ),
                    (
                        "another sequence number",
                        received(reply(IcmpEchoHeader { id, seq: !seq }, &echo.payload)),
                        false,
                    ),
                    (
                        "another payload",
                        received(reply(echo.header, &other_payload)),
                        false,
                    ),
                    ("no payload", received(reply(echo.header, &[])), false),
                    ("the request itself", received(echo.request()), false),
                    ("truncated", truncated[..ip.len() + 5].to_vec(), false),
                    ("nothing", Vec::new(), false),
                ];
                for (name, received, want) in table {
                    assert_eq!(
                        echo.is_answered_by(&received),
                        want,
                        "{name}, {kind:?}, {target}"
                    );
                }
            }
        }
    }
}
