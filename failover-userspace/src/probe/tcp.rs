//! TCP: a completed handshake is a success.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::Failure;
use crate::model::Egress;

/// Connects to `target` and resets the connection; returns how long the handshake took.
///
/// Never gives up by itself before the kernel does (about two minutes): the caller's
/// `timeout` decides. SYNs are retransmitted as the kernel sees fit, so that with a timeout
/// over a second one lost packet is no failure.
pub(super) async fn probe(target: SocketAddr, egress: &Egress) -> Result<Duration, Failure> {
    let socket = open(target, egress)?;
    let begun = Instant::now();
    establish(socket, target).await?;
    Ok(begun.elapsed())
}

/// A connection to `target` for a probe that has something to say; dropping it resets it.
pub(super) async fn connect(target: SocketAddr, egress: &Egress) -> Result<TcpStream, Failure> {
    establish(open(target, egress)?, target).await
}

async fn establish(socket: TcpSocket, target: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = socket
        .connect(target)
        .await
        .map_err(|error| Failure::of(&error))?;
    // With nobody listening on a local port of the ephemeral range, the kernel may pick just
    // that port as the source, and the socket connects to itself.
    let itself = stream
        .local_addr()
        .is_ok_and(|own| (own.ip(), own.port()) == (target.ip(), target.port()));
    if itself {
        Err(Failure::Refused)
    } else {
        Ok(stream)
    }
}

fn open(target: SocketAddr, egress: &Egress) -> Result<TcpSocket, Failure> {
    let local = |error| Failure::local("socket", &error);
    let kind = Type::STREAM.nonblocking();
    let socket =
        Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP)).map_err(local)?;
    // Closing sends RST: no TIME_WAIT here, and no half-closed connection there.
    socket.set_linger(Some(Duration::ZERO)).map_err(local)?;
    egress.apply(&socket, target.ip())?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::testing::{self, Netns};
    use std::net::{Ipv4Addr, Ipv6Addr};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    fn egress(interface: Option<&str>, source: Option<&str>) -> Egress {
        Egress {
            interface: interface.map(str::to_owned),
            source: source.map(|source| source.parse().unwrap()),
        }
    }

    #[tokio::test]
    async fn a_listener_is_up_and_sees_a_reset() {
        for address in [
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        ] {
            let Ok(listener) = TcpListener::bind(address).await else {
                eprintln!("skipped: no {address} here");
                continue;
            };
            let target = listener.local_addr().unwrap();
            let took = probe(target, &Egress::default()).await.unwrap();
            assert!(
                took > Duration::ZERO && took < Duration::from_secs(1),
                "{took:?}"
            );
            let (mut accepted, peer) = listener.accept().await.unwrap();
            let error = accepted.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            assert!(!in_time_wait(peer.port()), "{peer} is in TIME_WAIT");
        }
    }

    /// Whether a socket bound to `port` is in TIME_WAIT (state 6).
    fn in_time_wait(port: u16) -> bool {
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|file| {
            std::fs::read_to_string(file)
                .unwrap_or_default()
                .lines()
                .skip(1)
                .any(|line| {
                    let mut fields = line.split_whitespace().skip(1);
                    let local = fields.next().unwrap_or_default();
                    local.ends_with(&format!(":{port:04X}")) && fields.nth(1) == Some("06")
                })
        })
    }

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(
            probe(target, &Egress::default()).await,
            Err(Failure::Refused)
        );
    }

    /// The kernel drops SYNs to a listener whose queue is full, as a black hole would.
    #[tokio::test]
    async fn a_black_hole_never_answers() {
        let hole = testing::BlackHole::new();
        let timeout = Duration::from_millis(200);
        let begun = Instant::now();
        let outcome =
            tokio::time::timeout(timeout, probe(hole.address(), &Egress::default())).await;
        assert!(outcome.is_err(), "{outcome:?}");
        assert!(begun.elapsed() >= timeout);
    }

    #[tokio::test]
    async fn egress_is_obeyed_or_a_local_error() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        let table: &[(Egress, Result<&str, &str>)] = &[
            (egress(None, Some("127.7.7.7")), Ok("127.7.7.7")),
            (egress(Some("lo"), None), Ok("127.0.0.1")),
            (egress(Some("lo"), Some("127.7.7.7")), Ok("127.7.7.7")),
            (egress(None, Some("2001:db8::1")), Ok("127.0.0.1")),
            (
                egress(Some("nosuch0"), None),
                Err("local error: interface nosuch0: No such device (os error 19)"),
            ),
            (
                egress(None, Some("192.0.2.1")),
                Err("local error: source 192.0.2.1: Cannot assign requested address (os error 99)"),
            ),
        ];
        for (egress, want) in table {
            match (probe(target, egress).await, want) {
                (Ok(_), Ok(source)) => {
                    let (_, peer) = listener.accept().await.unwrap();
                    assert_eq!(peer.ip().to_string(), *source, "{egress:?}");
                }
                (Err(failure), Err(want)) => assert_eq!(failure.to_string(), *want),
                (got, want) => panic!("{egress:?}: {got:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn what_routes_and_routers_say() {
        let Some(netns) = Netns::new("tcp") else {
            return;
        };
        netns.with_router();
        netns.ip("route add unreachable 192.0.2.1");
        netns.ip("route add prohibit 192.0.2.2");
        netns.run(async {
            for (target, want) in [
                // No route at all, here and at the router.
                ("203.0.113.1:80", Failure::Unreachable),
                ("198.51.100.1:80", Failure::Unreachable),
                ("192.0.2.1:80", Failure::Unreachable),
                ("192.0.2.2:80", Failure::Unreachable),
                ("10.9.0.1:80", Failure::Refused),
                ("[fd09::1]:80", Failure::Refused),
                ("[2001:db8:1::1]:80", Failure::Unreachable),
            ] {
                let target: SocketAddr = target.parse().unwrap();
                let outcome =
                    tokio::time::timeout(Duration::from_secs(5), probe(target, &Egress::default()))
                        .await;
                assert_eq!(outcome, Ok(Err(want)), "{target}");
            }
        });
    }
}
