//! The sockets of the name server: UDP and TCP on every listen address.
//!
//! A thin shell around [`crate::authority`]: it receives, asks [`Published::answer`], and
//! sends. Each listen address has sockets of its own, so that a reply leaves from the
//! address that was asked. `udp` is a loop; `tcp` keeps hostile clients within bounds, by
//! the rules in `connections`.
//!
//! Port 53 is closed before the first publication: nothing is bound before
//! [`Listener::bind`]. [`Sockets`] opens and closes single addresses while others stay open.

mod connections;
mod sockets;
mod tcp;
#[cfg(test)]
mod tests;
mod turns;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::authority::{Origin, Published, Transfer, Transport};
use connections::Connections;
pub use sockets::Sockets;
use turns::Turns;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 256;
/// Octets of queries that may wait in a UDP socket.
const UDP_RECEIVE_BUFFER: usize = 1 << 20;
/// How long connections may take to end after the listener was told to.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// The one who publishes replaces the content; queries that come later see it.
pub type PublishedReader = watch::Receiver<Arc<Published>>;

/// What became of messages and connections.
#[derive(Debug, Default)]
pub struct Counters {
    /// Replies sent over UDP.
    pub udp_replies: AtomicU64,
    /// Replies sent over TCP.
    pub tcp_replies: AtomicU64,
    /// Messages that get no reply.
    pub ignored: AtomicU64,
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections closed to make room for others.
    pub evicted: AtomicU64,
    /// Whole zones sent; each is a reply over TCP as well.
    pub transfers: AtomicU64,
}

impl Counters {
    /// Replies sent: `counters.slow_path` in the status.
    #[must_use]
    pub fn slow_path(&self) -> u64 {
        self.udp_replies.load(Ordering::Relaxed) + self.tcp_replies.load(Ordering::Relaxed)
    }

    /// All of them, by name.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        [
            ("udp_replies", &self.udp_replies),
            ("tcp_replies", &self.tcp_replies),
            ("ignored", &self.ignored),
            ("connections", &self.connections),
            ("evicted", &self.evicted),
            ("transfers", &self.transfers),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
        .into()
    }
}

/// A listen address that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("listen on {transport} {address}: {}", explain(.source))]
pub struct BindError {
    /// The address and port.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => "the address is on no interface of this host".to_owned(),
        io::ErrorKind::AddrInUse => "another name server has it already".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => error.to_string(),
    }
}

/// How patient we are with clients that use TCP.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// How long a connection is kept without a whole query.
    idle: Duration,
    /// How long a client may take to accept replies.
    write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(10),
            write: Duration::from_secs(5),
        }
    }
}

/// Bound sockets; queries wait in them until they are served.
#[derive(Debug, Default)]
pub struct Listener {
    sockets: Vec<Bound>,
}

/// The sockets of one address.
#[derive(Debug)]
struct Bound {
    address: SocketAddr,
    udp: UdpSocket,
    tcp: TcpListener,
}

/// What the sockets of all addresses share.
#[derive(Debug)]
struct Common {
    published: PublishedReader,
    counters: Arc<Counters>,
    turns: Turns,
    connections: Arc<Connections>,
    patience: Patience,
}

/// What becomes of the sockets of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// They serve.
    Open,
    /// What has arrived is still answered, and connections are served to their end.
    Closing,
    /// Replies that are being sent go out. Losing the sender says the same.
    Ended,
}

/// What the tasks of one address share.
#[derive(Debug)]
struct Shared {
    common: Arc<Common>,
    stage: watch::Receiver<Stage>,
}

impl Common {
    fn new(published: PublishedReader, counters: Arc<Counters>) -> Self {
        Self {
            published,
            counters,
            turns: Turns::default(),
            connections: Arc::default(),
            patience: Patience::default(),
        }
    }
}

impl Shared {
    /// The reply to a message, if it gets one.
    fn answer(&self, query: &[u8], client: IpAddr, transport: Transport) -> Option<Vec<u8>> {
        let published = self.published();
        let origin = origin(client, transport);
        let reply = published.answer(query, &origin, self.common.turns.next(query));
        if reply.is_none() {
            self.common.counters.ignored.fetch_add(1, Ordering::Relaxed);
        }
        reply
    }

    /// The transfer that a message over a connection asks for, if it may have one.
    fn transfer(&self, query: &[u8], client: IpAddr, transport: Transport) -> Option<Transfer> {
        Transfer::of(&self.published(), query, &origin(client, transport))
    }

    fn published(&self) -> Arc<Published> {
        Arc::clone(&self.common.published.borrow())
    }

    /// Ends when nothing more is to be accepted.
    async fn closing(&self) {
        self.at_least(Stage::Closing).await;
    }

    /// Ends when everything is to end.
    async fn ended(&self) {
        self.at_least(Stage::Ended).await;
    }

    async fn at_least(&self, wanted: Stage) {
        // An error means that the sender is gone, which says the same.
        let mut stage = self.stage.clone();
        let _ = stage.wait_for(|stage| *stage >= wanted).await;
    }
}

impl Listener {
    /// Opens UDP and TCP sockets on all addresses, or none.
    ///
    /// Call it inside a tokio runtime, and not before there is something to publish.
    ///
    /// # Errors
    ///
    /// The first address that cannot be had, and why.
    pub fn bind(addresses: impl IntoIterator<Item = SocketAddr>) -> Result<Self, BindError> {
        let bind = |address: SocketAddr| {
            let failed = |transport| {
                move |source| BindError {
                    address,
                    transport,
                    source,
                }
            };
            Ok(Bound {
                address,
                udp: bind_udp(address).map_err(failed("UDP"))?,
                tcp: bind_tcp(address).map_err(failed("TCP"))?,
            })
        };
        let sockets = addresses.into_iter().map(bind);
        Ok(Self {
            sockets: sockets.collect::<Result<_, _>>()?,
        })
    }
}

impl Bound {
    /// Answers until the stage says otherwise; then does as it says, and returns.
    ///
    /// Must run in a tokio runtime with time and I/O. Dropping the future ends everything at
    /// once.
    async fn serve(self, common: Arc<Common>, stage: watch::Receiver<Stage>) {
        let shared = Arc::new(Shared { common, stage });
        let mut tasks = JoinSet::new();
        let tasks_per_socket = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let socket = Arc::new(self.udp);
        for _ in 0..tasks_per_socket {
            tasks.spawn(udp::serve(Arc::clone(&socket), Arc::clone(&shared)));
        }
        drop(socket);
        tasks.spawn(tcp::serve(self.tcp, Arc::clone(&shared)));
        let mut all = pin!(async { while tasks.join_next().await.is_some() {} });
        tokio::select! {
            () = &mut all => return,
            () = shared.ended() => {}
        }
        // What is left is cut off by dropping the set.
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, all).await;
    }
}

fn origin(client: IpAddr, transport: Transport) -> Origin {
    Origin {
        client,
        transport,
        time: unix_time(),
    }
}

/// Seconds since 1970, see [`Origin::time`].
fn unix_time() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs() as u32)
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
    // The kernel takes what it allows.
    socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    // Connections of our predecessor in TIME_WAIT are no reason to fail.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn new_socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
