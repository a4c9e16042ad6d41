//! Queries in datagrams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::{Shared, Stage};
use crate::authority::Transport;

/// Longer queries are cut off by the kernel and so malformed; the longest sensible ones have
/// a name, cookies and padding (RFC 8467).
const QUERY_LIMIT: usize = 4096;
/// After an error of the socket, so that a lasting one does not take a CPU.
const PAUSE: Duration = Duration::from_millis(10);

/// Datagrams that may have waited when the socket is closed.
const LEFT: usize = 4096;

/// Answers queries to one address until it is closed.
pub(super) async fn serve(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; QUERY_LIMIT];
    tokio::select! {
        () = shared.closing() => {}
        () = answer(&socket, &mut buffer, &shared) => {}
    }
    if *shared.stage.borrow() != Stage::Closing {
        return;
    }
    for _ in 0..LEFT {
        let Ok((len, client)) = socket.try_recv_from(&mut buffer) else {
            return;
        };
        reply(&socket, &buffer[..len], client, &shared).await;
    }
}

async fn answer(socket: &UdpSocket, buffer: &mut [u8], shared: &Shared) {
    loop {
        match socket.recv_from(buffer).await {
            Ok((len, client)) => {
                let query = buffer.get(..len).unwrap_or_default();
                reply(socket, query, client, shared).await;
            }
            Err(error) => {
                tracing::debug!(%error, "receive from UDP socket");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn reply(socket: &UdpSocket, query: &[u8], client: SocketAddr, shared: &Shared) {
    let Some(reply) = shared.answer(query, client.ip(), Transport::Udp) else {
        return;
    };
    match socket.send_to(&reply, client).await {
        Ok(_) => {
            let counters = &shared.common.counters;
            counters.udp_replies.fetch_add(1, Ordering::Relaxed);
        }
        // The way back may be gone, or never was: the client's problem.
        Err(error) => tracing::trace!(%client, %error, "send UDP reply"),
    }
}
