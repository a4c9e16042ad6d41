//! The sockets of the name server: UDP and TCP on every listen address.
//!
//! A thin shell around [`crate::authority`]: it receives, asks [`Published::answer`], and
//! sends. Each listen address has sockets of its own, so that a reply leaves from the
//! address that was asked. `udp` is a loop; `tcp` keeps hostile clients within bounds, by
//! the rules in `connections`.
//!
//! Port 53 is closed before the first publication: nothing is bound before
//! [`Listener::bind`].

mod connections;
mod tcp;
#[cfg(test)]
mod tests;
mod turns;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::authority::{Origin, Published, Transfer, Transport};
use connections::Connections;
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

/// Bound sockets; queries wait in them until [`Listener::serve`] runs.
#[derive(Debug)]
pub struct Listener {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    patience: Patience,
}

/// What the tasks of a listener share.
#[derive(Debug)]
struct Shared {
    published: PublishedReader,
    counters: Arc<Counters>,
    turns: Turns,
    connections: Arc<Connections>,
    patience: Patience,
    /// Becomes true, or loses its sender, when all is to end.
    stop: watch::Receiver<bool>,
}

impl Shared {
    /// The reply to a message, if it gets one.
    fn answer(&self, query: &[u8], client: IpAddr, transport: Transport) -> Option<Vec<u8>> {
        let published = self.published();
        let origin = origin(client, transport);
        let reply = published.answer(query, &origin, self.turns.next(query));
        if reply.is_none() {
            self.counters.ignored.fetch_add(1, Ordering::Relaxed);
        }
        reply
    }

    /// The transfer that a message over a connection asks for, if it may have one.
    fn transfer(&self, query: &[u8], client: IpAddr, transport: Transport) -> Option<Transfer> {
        Transfer::of(&self.published(), query, &origin(client, transport))
    }

    fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }

    /// Ends when the listener is to end.
    async fn stopped(&self) {
        // An error means that the sender is gone, which says the same.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }
}

impl Listener {
    /// Opens UDP and TCP sockets on all addresses, or none.
    ///
    /// Call it after the first publication, inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// The first address that cannot be had, and why.
    pub fn bind(addresses: &[IpAddr], port: u16) -> Result<Self, BindError> {
        let mut listener = Self {
            udp: Vec::with_capacity(addresses.len()),
            tcp: Vec::with_capacity(addresses.len()),
            patience: Patience::default(),
        };
        for &address in addresses {
            let address = SocketAddr::new(address, port);
            let failed = |transport| {
                move |source| BindError {
                    address,
                    transport,
                    source,
                }
            };
            listener.udp.push(bind_udp(address).map_err(failed("UDP"))?);
            listener.tcp.push(bind_tcp(address).map_err(failed("TCP"))?);
        }
        Ok(listener)
    }

    /// Answers until `shutdown` completes; then accepts nothing more, lets replies that are
    /// being sent go out, and returns.
    ///
    /// Must run in a tokio runtime with time and I/O. Dropping the future ends everything at
    /// once.
    pub async fn serve(
        self,
        published: PublishedReader,
        counters: Arc<Counters>,
        shutdown: impl Future<Output = ()>,
    ) {
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            published,
            counters,
            turns: Turns::default(),
            connections: Arc::default(),
            patience: self.patience,
            stop: stopped,
        });
        let mut tasks = JoinSet::new();
        let tasks_per_socket = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        for socket in self.udp {
            let socket = Arc::new(socket);
            for _ in 0..tasks_per_socket {
                tasks.spawn(udp::serve(Arc::clone(&socket), Arc::clone(&shared)));
            }
        }
        for listener in self.tcp {
            tasks.spawn(tcp::serve(listener, Arc::clone(&shared)));
        }
        shutdown.await;
        // Every task holds a receiver.
        let _ = stop.send(true);
        let all = async { while tasks.join_next().await.is_some() {} };
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
