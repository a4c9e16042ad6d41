//! Server cookies (RFC 7873) as all servers of a name can make them alike: RFC 9018.
//!
//! A server cookie is 16 octets: version 1, three zero octets, the time of its making and a
//! SipHash-2-4 over client cookie, these eight octets and the client's address.

/// Code of the COOKIE option.
pub const OPTION: u16 = 10;
/// Octets of a client cookie.
pub const CLIENT_LEN: usize = 8;
/// Octets of our server cookie.
pub const SERVER_LEN: usize = 16;
/// Octets that may stand behind the client cookie in an option: none, or a server cookie.
pub const SERVER_LENS: core::ops::RangeInclusive<usize> = 8..=32;
/// How long a server cookie is good for, in seconds.
pub const LIFE: u32 = 3600;
/// How far ahead the clock of another server may be, in seconds.
pub const AHEAD: u32 = 300;

/// Version, zero octets and time of a server cookie as a little-endian word.
#[inline(always)]
#[must_use]
pub const fn stamp(time: u32) -> u64 {
    1 | (time.swap_bytes() as u64) << 32
}

/// The hash of a server cookie as a little-endian word.
///
/// All words hold octets in little-endian order, an IPv4 address in the lower half of the
/// first one.
#[inline(always)]
#[must_use]
pub const fn hash(
    secret: [u64; 2],
    client_cookie: u64,
    stamp: u64,
    address: [u64; 2],
    is_v4: bool,
) -> u64 {
    let state = SipHash::new(secret).add(client_cookie).add(stamp);
    // The last word ends with the length of the message.
    let state = if is_v4 {
        state.add(address[0] & 0xffff_ffff | 20 << 56)
    } else {
        state.add(address[0]).add(address[1]).add(32 << 56)
    };
    state.finish()
}

/// Whether a server cookie of `made` is neither too old nor from the future at `now`, in serial
/// number arithmetic (RFC 9018 section 4.3).
#[must_use]
pub const fn is_fresh(made: u32, now: u32) -> bool {
    let age = now.wrapping_sub(made);
    age <= LIFE || age.wrapping_neg() <= AHEAD
}

/// SipHash-2-4 over whole words.
#[derive(Clone, Copy)]
struct SipHash([u64; 4]);

impl SipHash {
    #[inline(always)]
    const fn new([k0, k1]: [u64; 2]) -> Self {
        Self([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        Self([a, b, c, d])
    }

    #[inline(always)]
    const fn add(mut self, word: u64) -> Self {
        self.0[3] ^= word;
        self = self.round().round();
        self.0[0] ^= word;
        self
    }

    #[inline(always)]
    const fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        let [a, b, c, d] = self.round().round().round().round().0;
        a ^ b ^ c ^ d
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(octets: u128) -> [u64; 2] {
        let [low, high] = [octets as u64, (octets >> 64) as u64];
        [high.swap_bytes(), low.swap_bytes()]
    }

    /// RFC 9018, appendix A.
    #[test]
    fn rfc_9018_examples() {
        let v4 = |address: [u8; 4]| ([u64::from(u32::from_le_bytes(address)), 0], true);
        let v6 = |address| (words(address), false);
        let first = 0xe5e9_73e5_a6b2_a43f_48e7_dc84_9e37_bfcf;
        let rows = [
            (
                first,
                0x2464_c4ab_cf10_c957,
                0x5cf7_9f11,
                v4([198, 51, 100, 100]),
                0x1f81_30c3_eee2_9480,
            ),
            (
                first,
                0x2464_c4ab_cf10_c957,
                0x5cf7_a871,
                v4([198, 51, 100, 100]),
                0xd4a5_64a1_442a_ca77,
            ),
            (
                0x4455_36bc_d251_3298_075a_5d37_9663_c962,
                0x2268_1ab9_7d52_c298,
                0x5cf7_c609,
                v6(0x2001_0db8_0220_0001_59de_d0f4_8769_82b8),
                0xa6bb_79d1_6625_507a,
            ),
        ];
        for (secret, client, time, (address, is_v4), want) in rows {
            let client = u64::swap_bytes(client);
            let hash = hash(words(secret), client, stamp(time), address, is_v4);
            assert_eq!(hash.swap_bytes(), want, "{time:x}");
        }
        assert_eq!(
            stamp(0x5cf7_9f11).to_le_bytes(),
            [1, 0, 0, 0, 0x5c, 0xf7, 0x9f, 0x11]
        );
    }

    #[test]
    fn freshness_wraps_around() {
        for now in [0, 10, 5_000, u32::MAX - 3, u32::MAX / 2] {
            assert!(is_fresh(now, now));
            assert!(is_fresh(now.wrapping_sub(LIFE), now));
            assert!(!is_fresh(now.wrapping_sub(LIFE + 1), now));
            assert!(is_fresh(now.wrapping_add(AHEAD), now));
            assert!(!is_fresh(now.wrapping_add(AHEAD + 1), now));
        }
    }
}
