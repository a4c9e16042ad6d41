//! What the program is told when it is loaded: constants to the verifier, which removes
//! what they make unreachable.

use crate::question::{Ends, MAX_NAME_WORDS, Multipliers};

/// Addresses of one family that the program can be given.
pub const MAX_LISTEN: usize = 16;

/// From so many home buckets on, 32 MiB of them, the memory of a name is taken to be far away.
pub const FAR_HOMES: u32 = 1 << 18;

/// Settings of the program, in its read-only data.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Settings {
    /// Zero, for what has to be read from memory.
    pub zero: u64,
    /// Of the name hash.
    pub multipliers: Multipliers,
    /// Buckets of the name table that names are looked for in first.
    pub name_homes: u32,
    /// Our port, in network byte order.
    pub port: u16,
    /// Largest UDP payload we send and announce, in octets.
    pub edns_udp_size: u16,
    /// How many of `listen_v4` are in use.
    pub listen_v4_len: u32,
    /// How many of `listen_v6` are in use.
    pub listen_v6_len: u32,
    /// EDNS options (bit 1 << code) that user space answers: a query with one is passed.
    pub passed_options: u32,
    /// Most labels of a name in the table.
    pub max_labels: u32,
    /// How many services there are.
    pub services: u32,
    /// Whether cookies are answered: 1 or 0.
    pub cookies: u32,
    /// Key of the server cookies, as its octets lie in memory.
    pub cookie_secret: [u64; 2],
    /// How the names of our zones end.
    pub zone_ends: Ends,
    /// Our IPv4 addresses, each as its octets lie in a packet; then the first of them once more.
    pub listen_v4: [u32; MAX_LISTEN],
    /// Our IPv6 addresses, each as two words as their octets lie in a packet; then the first of them
    /// once more.
    pub listen_v6: [[u64; 2]; MAX_LISTEN],
}

impl Settings {
    /// A program that answers nothing.
    pub const NONE: Self = Self {
        zero: 0,
        multipliers: [0; MAX_NAME_WORDS],
        name_homes: 0,
        port: 0,
        edns_udp_size: 0,
        listen_v4_len: 0,
        listen_v6_len: 0,
        passed_options: 0,
        max_labels: 0,
        services: 0,
        cookies: 0,
        cookie_secret: [0; 2],
        zone_ends: Ends::NONE,
        listen_v4: [0; MAX_LISTEN],
        listen_v6: [[0; 2]; MAX_LISTEN],
    };
}

#[cfg(feature = "user")]
mod user {
    use super::Settings;

    // SAFETY: `repr(C)`, integers that need no padding: 8 + 256 + 4 + 2 + 2 + 6 * 4 + 16 + 64 + 64 + 256 octets
    // without padding, every bit pattern is valid.
    unsafe impl bytemuck::Zeroable for Settings {}
    // SAFETY: as above.
    unsafe impl bytemuck::Pod for Settings {}
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_padding() {
        assert_eq!(
            size_of::<super::Settings>(),
            8 + 256 + 4 + 2 + 2 + 6 * 4 + 16 + 64 + 64 + 256
        );
    }
}
