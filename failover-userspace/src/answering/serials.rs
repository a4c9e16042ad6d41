//! Serial numbers that secondaries would not follow.

use std::cmp::Ordering;

use domain::base::Serial;

use crate::authority::Published;
use crate::model::{Content, Model, Succession, ZoneId};

/// What is wrong with the serial numbers after a reload: those that go back, and those that stay
/// though the zone has changed.
pub(super) fn warnings(
    model: &Model,
    succession: &Succession,
    before: &Published,
    after: &Published,
) -> Vec<String> {
    let zones = (0..).map(ZoneId).zip(&succession.zones);
    let warnings = zones.filter_map(|(id, parent)| {
        let (parent, content) = (*parent)?;
        let zone = model.zone(id);
        let (old, new) = (before.serial(parent)?, after.serial(id)?);
        warning(old, new, content, !zone.allow_transfer.is_empty())
            .map(|warning| format!("zone {}: {warning}", zone.name))
    });
    warnings.collect()
}

fn warning(old: u32, new: u32, content: Content, is_transferred: bool) -> Option<String> {
    match Serial(new).partial_cmp(&Serial(old)) {
        Some(Ordering::Greater) => None,
        Some(Ordering::Equal) if content == Content::Same || !is_transferred => None,
        Some(Ordering::Equal) => Some(format!(
            "it has changed, but its serial number is still {old}: secondaries do not fetch it"
        )),
        Some(Ordering::Less) | None => Some(format!(
            "its serial number goes back from {old} to {new}: secondaries do not fetch it before it has passed {old}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_only_grow() {
        use Content::{Changed, Same};
        for (old, new, content, is_transferred, want) in [
            (7, 8, Changed, true, None),
            (u32::MAX, 0, Changed, true, None),
            (7, 7, Same, true, None),
            (7, 7, Changed, false, None),
            (7, 7, Changed, true, Some("is still 7")),
            (8, 7, Changed, false, Some("back from 8 to 7")),
            (0, u32::MAX, Changed, true, Some("back from 0 to")),
            // Neither comes before the other (RFC 1982 section 3.2).
            (0, 1 << 31, Changed, true, Some("back from 0")),
        ] {
            let found = warning(old, new, content, is_transferred);
            assert_eq!(found.is_some(), want.is_some(), "{old} {new}: {found:?}");
            if let (Some(found), Some(want)) = (found, want) {
                assert!(found.contains(want), "{found}");
            }
        }
    }
}
