//! Queries over connections (RFC 7766, RFC 9210).
//!
//! A connection may carry any number of queries, several at a time; they are answered in
//! order, as no answer has to be waited for. It is closed when no whole query has come for
//! ten seconds, no matter whether the client is silent or dribbles octets, and when the
//! client does not take the replies. A whole zone goes out message by message, each when the
//! client has taken the one before.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::connections::Seat;
use super::{Shared, Stage};
use crate::authority::{Transfer, Transport};

/// After an error of the listening socket, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);
/// Octets of a message's length (RFC 1035 section 4.2.2).
const PREFIX: usize = 2;
/// Octets a read makes room for; a buffer that grew for a long query is given back.
const READ_SIZE: usize = 2048;
/// Replies are sent when there are this many octets of them, or no query is left.
const WRITE_SIZE: usize = 16 * 1024;

/// Accepts connections to one address until it is closed, and serves them to their end.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shared.closing() => break,
            accepted = listener.accept() => accepted,
            // Finished tasks are forgotten.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &mut connections, &shared),
            Err(error) => {
                tracing::debug!(%error, "accept TCP connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    if *shared.stage.borrow() == Stage::Closing {
        // Those that wait to be accepted.
        while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
            admit(stream, peer, &mut connections, &shared);
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn admit(stream: TcpStream, peer: SocketAddr, tasks: &mut JoinSet<()>, shared: &Arc<Shared>) {
    let common = &shared.common;
    let (seat, evicts) = common.connections.admit(peer.ip(), Instant::now());
    let counters = &common.counters;
    counters.connections.fetch_add(1, Ordering::Relaxed);
    counters
        .evicted
        .fetch_add(u64::from(evicts), Ordering::Relaxed);
    tasks.spawn(connection(stream, peer, seat, Arc::clone(shared)));
}

async fn connection(mut stream: TcpStream, peer: SocketAddr, seat: Seat, shared: Arc<Shared>) {
    // Replies are whole when they are written: there is nothing to wait for.
    let _ = stream.set_nodelay(true);
    tokio::select! {
        () = seat.evicted() => {}
        result = converse(&mut stream, peer.ip(), &seat, &shared) => if let Err(error) = result {
            tracing::trace!(%peer, %error, "TCP connection");
        },
    }
}

/// Reads queries and writes replies until the client has no more, or breaks the rules.
async fn converse(
    stream: &mut TcpStream,
    client: IpAddr,
    seat: &Seat,
    shared: &Shared,
) -> io::Result<()> {
    let mut received = Vec::with_capacity(READ_SIZE);
    let idle = shared.common.patience.idle;
    let mut deadline = Instant::now() + idle;
    loop {
        received.reserve(READ_SIZE);
        let count = tokio::select! {
            () = shared.ended() => return Ok(()),
            read = timeout_at(deadline, stream.read_buf(&mut received)) => match read {
                Ok(count) => count?,
                Err(_idle) => return Ok(()),
            },
        };
        if count == 0 {
            return Ok(());
        }
        let Progress { used, answered } =
            answer_all(&received, client, stream, seat, shared).await?;
        if answered > 0 {
            seat.touch(Instant::now());
            deadline = Instant::now() + idle;
            // Who asks without end has his turn like all others, and UDP has its own.
            tokio::task::yield_now().await;
        }
        received.drain(..used);
        if received.is_empty() {
            received.shrink_to(READ_SIZE);
        }
    }
}

/// What became of received octets.
#[derive(Default)]
struct Progress {
    /// Octets of whole messages.
    used: usize,
    /// Messages that got a reply.
    answered: u64,
}

/// Answers the whole queries at the start of `received`.
async fn answer_all(
    received: &[u8],
    client: IpAddr,
    stream: &mut TcpStream,
    seat: &Seat,
    shared: &Shared,
) -> io::Result<Progress> {
    let mut progress = Progress::default();
    let mut replies = Replies::default();
    let transport = Transport::Tcp {
        idle: shared.common.patience.idle,
    };
    while let Some((query, end)) = first_message(received, progress.used) {
        progress.used = end;
        if let Some(transfer) = shared.transfer(query, client, transport) {
            replies.send(stream, shared).await?;
            send_zone(transfer, client, stream, seat, shared).await?;
            progress.answered += 1;
        } else if let Some(reply) = shared.answer(query, client, transport)
            && replies.put(&reply)
        {
            replies.count += 1;
            progress.answered += 1;
        }
        if replies.octets.len() >= WRITE_SIZE {
            replies.send(stream, shared).await?;
        }
    }
    replies.send(stream, shared).await?;
    Ok(progress)
}

/// Sends a whole zone. Each message that the client takes is a sign of life.
async fn send_zone(
    mut transfer: Transfer,
    client: IpAddr,
    stream: &mut TcpStream,
    seat: &Seat,
    shared: &Shared,
) -> io::Result<()> {
    let (mut messages, mut octets) = (0_u64, 0);
    for message in &mut transfer {
        let mut replies = Replies::default();
        replies.put(&message);
        replies.send(stream, shared).await?;
        seat.touch(Instant::now());
        messages += 1;
        octets += message.len();
        // A client that reads as fast as we write leaves room for others, too.
        tokio::task::yield_now().await;
    }
    let zone = transfer
        .zone()
        .map(|zone| tracing::field::display(&zone.name));
    if transfer.has_failed() {
        tracing::warn!(zone, %client, "zone not transferred: a record is too long for any message");
        return Err(io::ErrorKind::InvalidData.into());
    }
    let counters = &shared.common.counters;
    counters.tcp_replies.fetch_add(1, Ordering::Relaxed);
    counters.transfers.fetch_add(1, Ordering::Relaxed);
    tracing::info!(zone, %client, serial = transfer.serial(), messages, octets, "zone transferred");
    Ok(())
}

/// The message at `start`, if it is whole, and where it ends.
fn first_message(received: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let (prefix, rest) = received.get(start..)?.split_first_chunk::<PREFIX>()?;
    let len = usize::from(u16::from_be_bytes(*prefix));
    let message = rest.get(..len)?;
    Some((message, start + PREFIX + len))
}

/// Replies that wait to be sent, each behind its length.
#[derive(Default)]
struct Replies {
    octets: Vec<u8>,
    count: u64,
}

impl Replies {
    /// Puts a message to the others; whether it is short enough to have a length.
    fn put(&mut self, message: &[u8]) -> bool {
        let Ok(len) = u16::try_from(message.len()) else {
            return false;
        };
        self.octets.extend(len.to_be_bytes());
        self.octets.extend(message);
        true
    }

    /// Sends all of them, in one piece if the client takes it.
    async fn send(&mut self, stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
        if self.octets.is_empty() {
            return Ok(());
        }
        timeout(shared.common.patience.write, stream.write_all(&self.octets))
            .await
            .map_err(|_slow| io::Error::from(io::ErrorKind::TimedOut))??;
        let counters = &shared.common.counters;
        counters
            .tcp_replies
            .fetch_add(self.count, Ordering::Relaxed);
        *self = Self::default();
        Ok(())
    }
}
