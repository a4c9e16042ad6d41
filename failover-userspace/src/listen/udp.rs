//! Queries in datagrams.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::Shared;
use crate::authority::Transport;

/// Longer queries are cut off by the kernel and so malformed; the longest sensible ones have
/// a name, cookies and padding (RFC 8467).
const QUERY_LIMIT: usize = 4096;
/// After an error of the socket, so that a lasting one does not take a CPU.
const PAUSE: Duration = Duration::from_millis(10);

/// Answers queries to one address until the listener ends.
pub(super) async fn serve(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    tokio::select! {
        () = shared.stopped() => {}
        () = answer(&socket, &shared) => {}
    }
}

async fn answer(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = vec![0; QUERY_LIMIT];
    loop {
        let (len, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "receive from UDP socket");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let query = buffer.get(..len).unwrap_or_default();
        let Some(reply) = shared.answer(query, client.ip(), Transport::Udp) else {
            continue;
        };
        match socket.send_to(&reply, client).await {
            Ok(_) => {
                shared.counters.udp_replies.fetch_add(1, Ordering::Relaxed);
            }
            // The way back may be gone, or never was: the client's problem.
            Err(error) => tracing::trace!(%client, %error, "send UDP reply"),
        }
    }
}
