//! Server cookies (RFC 7873, RFC 9018).

use std::net::IpAddr;

use failover_common::cookie::{CLIENT_LEN, SERVER_LEN, hash, is_fresh, stamp};

use super::Origin;
use super::query::Cookie;
use crate::model::CookieSecret;

/// Octets of a COOKIE option in a reply.
const REPLY_LEN: usize = CLIENT_LEN + SERVER_LEN;

/// Makes and checks server cookies.
#[derive(Clone, Debug)]
pub(super) struct Cookies {
    secret: CookieSecret,
}

impl Cookies {
    pub(super) const fn new(secret: CookieSecret) -> Self {
        Self { secret }
    }

    /// What the reply's option holds: the client cookie and a new server cookie.
    pub(super) fn reply(&self, cookie: Cookie, origin: &Origin) -> Option<[u8; REPLY_LEN]> {
        let (Cookie::Client(client) | Cookie::Both(client, _)) = cookie else {
            return None;
        };
        let mut reply = [0; REPLY_LEN];
        reply[..CLIENT_LEN].copy_from_slice(&client);
        reply[CLIENT_LEN..].copy_from_slice(&self.server(client, origin.client, origin.time));
        Some(reply)
    }

    /// Whether there is nothing wrong with the server cookie, if there is one.
    pub(super) fn accept(&self, cookie: Cookie, origin: &Origin) -> bool {
        match cookie {
            Cookie::Malformed | Cookie::Both(_, None) => false,
            Cookie::Client(_) => true,
            Cookie::Both(client, Some(server)) => {
                let [.., t0, t1, t2, t3] = *server.first_chunk::<8>().unwrap_or(&[0; 8]);
                let made = u32::from_be_bytes([t0, t1, t2, t3]);
                is_fresh(made, origin.time)
                    && is_equal(server, self.server(client, origin.client, made))
            }
        }
    }

    fn server(&self, client: [u8; CLIENT_LEN], address: IpAddr, time: u32) -> [u8; SERVER_LEN] {
        let (words, is_v4) = match address.to_canonical() {
            IpAddr::V4(address) => ([u64::from(u32::from_le_bytes(address.octets())), 0], true),
            IpAddr::V6(address) => (words(address.octets()), false),
        };
        let stamp = stamp(time);
        let client = u64::from_le_bytes(client);
        let hash = hash(words_of(self.secret), client, stamp, words, is_v4);
        words_to_octets([stamp, hash])
    }
}

/// Compares in a time that does not tell where they differ.
fn is_equal(a: [u8; SERVER_LEN], b: [u8; SERVER_LEN]) -> bool {
    u128::from_ne_bytes(a) ^ u128::from_ne_bytes(b) == 0
}

fn words_of(secret: CookieSecret) -> [u64; 2] {
    words(secret.0)
}

fn words(octets: [u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(octets);
    [both as u64, (both >> 64) as u64]
}

fn words_to_octets([low, high]: [u64; 2]) -> [u8; 16] {
    (u128::from(low) | u128::from(high) << 64).to_le_bytes()
}
