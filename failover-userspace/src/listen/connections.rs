//! Who may keep a connection: bounds in all and per client (RFC 7766 section 6.2.2,
//! RFC 9210 section 6.3).
//!
//! A new connection is always let in. If it is one too many, the one that has gone longest
//! without a whole query is closed in its place: first of the same client, so that who opens
//! many takes room only from himself. Somebody who holds connections idle thus cannot keep
//! others out, nor even himself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// Connections in all; well below the usual limit of 1024 file descriptors.
pub(super) const LIMIT: usize = 500;
/// Connections of one client.
pub(super) const CLIENT_LIMIT: usize = 50;

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    entries: HashMap<u64, Entry>,
    per_client: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    client: IpAddr,
    /// When its last whole query came, or when it was opened.
    active: Instant,
    evicted: Arc<Notify>,
}

/// The right to keep a connection; ends when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    connections: Arc<Connections>,
    id: u64,
    evicted: Arc<Notify>,
}

impl Connections {
    /// Lets a connection in; says whether another had to go.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr, now: Instant) -> (Seat, bool) {
        let client = client(peer);
        let mut open = self.lock();
        let of_client = open.per_client.get(&client).copied().unwrap_or_default();
        let loser = if of_client >= CLIENT_LIMIT {
            open.idlest(|entry| entry.client == client)
        } else if open.entries.len() >= LIMIT {
            open.idlest(|_| true)
        } else {
            None
        };
        if let Some(entry) = loser.and_then(|id| open.remove(id)) {
            entry.evicted.notify_one();
        }
        let id = open.next;
        open.next += 1;
        let evicted = Arc::new(Notify::new());
        open.entries.insert(
            id,
            Entry {
                client,
                active: now,
                evicted: Arc::clone(&evicted),
            },
        );
        *open.per_client.entry(client).or_default() += 1;
        let seat = Seat {
            connections: Arc::clone(self),
            id,
            evicted,
        };
        (seat, loser.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing in here leaves it half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn idlest(&self, of: impl Fn(&Entry) -> bool) -> Option<u64> {
        self.entries
            .iter()
            .filter(|(_, entry)| of(entry))
            .min_by_key(|(id, entry)| (entry.active, **id))
            .map(|(id, _)| *id)
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        if let Some(count) = self.per_client.get_mut(&entry.client) {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&entry.client);
            }
        }
        Some(entry)
    }
}

impl Seat {
    /// A whole query has come.
    pub(super) fn touch(&self, now: Instant) {
        if let Some(entry) = self.connections.lock().entries.get_mut(&self.id) {
            entry.active = now;
        }
    }

    /// Ends when the seat was given to another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.lock().remove(self.id);
    }
}

/// Who counts as one client: an IPv4 address or an IPv6 network of 64 bits.
fn client(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(peer) => {
            let [a, b, c, d, ..] = peer.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn is_evicted(seat: &Seat) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let future = std::pin::pin!(seat.evicted());
        future.poll(&mut context).is_ready()
    }

    #[test]
    fn the_idlest_of_the_same_client_goes() {
        let connections = Arc::new(Connections::default());
        let start = Instant::now();
        let at = |n: usize| start + Duration::from_secs(n as u64);
        let greedy: IpAddr = "192.0.2.1".parse().unwrap();
        let (other, _) = connections.admit("192.0.2.2".parse().unwrap(), start);
        let mut seats: Vec<_> = (0..CLIENT_LIMIT)
            .map(|n| connections.admit(greedy, at(n)).0)
            .collect();
        seats[0].touch(at(100));
        let (newest, evicts) = connections.admit(greedy, at(101));
        assert!(evicts && is_evicted(&seats[1]));
        assert!(!is_evicted(&seats[0]) && !is_evicted(&other) && !is_evicted(&newest));
        // What leaves by itself makes room.
        seats.truncate(CLIENT_LIMIT - 1);
        let (_next, evicts) = connections.admit(greedy, at(102));
        assert!(!evicts);
    }

    #[test]
    fn there_is_a_limit_in_all() {
        let connections = Arc::new(Connections::default());
        let start = Instant::now();
        let seats: Vec<_> = (0..LIMIT)
            .map(|n| {
                let peer = IpAddr::from([192, 0, (n / 250) as u8, (n % 250) as u8]);
                connections.admit(peer, start).0
            })
            .collect();
        let (_seat, evicts) = connections.admit("2001:db8::1".parse().unwrap(), start);
        assert!(evicts && is_evicted(&seats[0]));
        drop(seats);
        assert_eq!(connections.lock().entries.len(), 1);
        assert_eq!(connections.lock().per_client.len(), 1);
    }

    #[test]
    fn a_network_of_64_bits_is_one_client() {
        let rows = [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ];
        for (peer, want) in rows {
            let [peer, want]: [IpAddr; 2] = [peer, want].map(|text| text.parse().unwrap());
            assert_eq!(client(peer), want);
        }
    }
}
