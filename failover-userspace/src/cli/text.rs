//! Text for people.

use std::fmt::Write;

use jiff::Timestamp;

use crate::protocol::{InterfaceStatus, XdpState};

/// Rows in aligned columns, each line after `indent`.
pub(super) fn table(indent: &str, rows: &[Vec<String>]) -> String {
    let width =
        |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| width(row, column)).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A header line.
pub(super) fn header<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// How long ago, roughly.
pub(super) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(since.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// A round-trip time.
pub(super) fn rtt(microseconds: Option<u64>) -> String {
    microseconds.map_or_else(
        || "-".to_owned(),
        |us| format!("{}.{:02} ms", us / 1000, us % 1000 / 10),
    )
}

/// How the program is attached.
pub(super) const fn mode(interface: &InterfaceStatus) -> &'static str {
    match interface.xdp {
        XdpState::Native => "native",
        XdpState::Generic => "generic",
        XdpState::Detached => "not attached",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [header(["A", "LONG", "C"]), header(["wider", "x", ""])];
        assert_eq!(table(" ", &rows), " A      LONG  C\n wider  x\n");
    }

    #[test]
    fn ages() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (seconds, want) in [
            (-5, "0s"),
            (59, "59s"),
            (61, "1m01s"),
            (3660, "1h01m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(age(at(1000), at(1000 + seconds)), want);
        }
    }

    #[test]
    fn round_trips() {
        assert_eq!(
            [rtt(None), rtt(Some(310)), rtt(Some(12_345))],
            ["-", "0.31 ms", "12.34 ms"]
        );
    }
}
