//! The Internet checksum (RFC 1071) from pieces.
//!
//! Sums are over native-endian words, which RFC 1071 section 2(B) allows: the sum is
//! byte-swapped like its words. Pieces are added unfolded into a `u64`; each piece must
//! start at an even offset of the message or be passed through [`shift_odd`].

/// Adds the 16-bit words of a 64-bit word, unfolded.
#[inline(always)]
#[must_use]
pub const fn add64(sum: u64, word: u64) -> u64 {
    sum + (word & 0xffff_ffff) + (word >> 32)
}

/// Folds an unfolded sum below 2^48 into 16 bits.
///
/// The sum is q · 65535 + r, and 65535 times the multiplier is -1 modulo 2^64. So the product has r
/// in each of its four quarters, less q, which takes nothing from the highest one: unless r is 0,
/// where it borrows from all and leaves 65535 there. In ones' complement that is zero, too.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    (sum.wrapping_mul(0x0001_0001_0001_0001) >> 48) as u16
}

/// Whether what has this unfolded sum, below 2^48 and not 0, has its checksum in it, and the right one.
#[inline(always)]
#[must_use]
pub const fn is_right(sum: u64) -> bool {
    fold(sum) == 0xffff
}

/// The sum of a piece that starts at an odd offset of the message (RFC 1071 section 2(B)).
#[inline(always)]
#[must_use]
pub const fn shift_odd(sum: u16, odd: bool) -> u16 {
    if odd { sum.swap_bytes() } else { sum }
}

/// [`shift_odd`] for an unfolded sum below 2^48: without folding, and without a branch.
///
/// Swapping the octets of a word is multiplying by 256, modulo 65535.
#[inline(always)]
#[must_use]
pub const fn shift_odd64(sum: u64, odd: bool) -> u64 {
    sum << (8 * odd as u32)
}

/// The folded sum of `bytes`, as if they started at an even offset.
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let mut sum = 0;
    for word in words {
        sum += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = rest {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    fold(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_example() {
        let sum = sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.to_ne_bytes(), [0xdd, 0xf2]);
    }

    /// As RFC 1071 section 4.1 has it.
    fn fold_by_carries(mut sum: u64) -> u16 {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn a_product_folds_as_carries_do() {
        for high in [0, 1, 2, 0x7fff, 0x8000, 0xfffe, 0xffff] {
            for middle in [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff] {
                for low in 0..=0xffff {
                    let sum: u64 = (high << 32) + (middle << 16) + low;
                    assert_eq!(fold(sum), fold_by_carries(sum), "{sum:x}");
                }
            }
        }
        for multiple in (1..1 << 32).step_by(65_521) {
            let sum = multiple * 0xffff;
            assert_eq!(fold(sum), 0xffff, "{sum:x}");
            assert_eq!(fold(sum + 1), 1, "{sum:x}");
            assert_eq!(fold(sum - 1), 0xfffe, "{sum:x}");
        }
    }

    #[test]
    fn pieces_add_up_to_the_whole_at_every_cut() {
        let bytes: [u8; 61] = core::array::from_fn(|i| (i * 37 + 201) as u8);
        for cut in 0..bytes.len() {
            let (head, tail_bytes) = bytes.split_at(cut);
            let tail = shift_odd(sum(tail_bytes), cut % 2 == 1);
            assert_eq!(
                fold(u64::from(sum(head)) + u64::from(tail)),
                sum(&bytes),
                "cut {cut}"
            );
            let unfolded = u64::from(sum(tail_bytes)) + (1 << 40);
            let head = u64::from(sum(head)) + 0xffff * 3;
            assert_eq!(
                fold(head + shift_odd64(unfolded, cut % 2 == 1)),
                fold(head + u64::from(shift_odd(fold(unfolded), cut % 2 == 1))),
                "cut {cut}, unfolded"
            );
        }
    }

    #[test]
    fn wide_words_sum_like_narrow_ones() {
        let bytes: [u8; 32] = core::array::from_fn(|i| 255 - i as u8);
        let wide = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .fold(0, |s, w| add64(s, u64::from_ne_bytes(*w)));
        assert_eq!(fold(wide), sum(&bytes));
    }
}
