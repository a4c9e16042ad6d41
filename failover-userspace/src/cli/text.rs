//! Text for people. Colours are always in it: whoever prints it takes them out where they are
//! not wanted.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use jiff::{SignedDuration, Timestamp};

use crate::health::Effective;
use crate::protocol::{InterfaceStatus, XdpState};

/// Text with a style.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Style::new())
    }
}

/// What a table consists of.
pub(super) trait Shown {
    fn text(&self) -> &str;
    fn style(&self) -> Style;
}

impl Shown for Cell {
    fn text(&self) -> &str {
        &self.text
    }

    fn style(&self) -> Style {
        self.style
    }
}

impl Shown for String {
    fn text(&self) -> &str {
        self
    }

    fn style(&self) -> Style {
        Style::new()
    }
}

/// Works.
pub(super) fn good() -> Style {
    AnsiColor::Green.on_default()
}

/// Does not.
pub(super) fn bad() -> Style {
    AnsiColor::Red.on_default()
}

/// Not as usual.
pub(super) fn unusual() -> Style {
    AnsiColor::Yellow.on_default()
}

/// What to look at.
pub(super) fn emphasis() -> Style {
    Style::new().bold()
}

/// An effective state.
pub(super) fn of_state(state: Effective) -> Cell {
    let style = match state {
        Effective::Up => good(),
        Effective::Down => bad(),
        Effective::Drain | Effective::Maint | Effective::Unknown => unusual(),
    };
    Cell::new(state.as_str(), style)
}

/// Rows in aligned columns, each line after `indent`.
pub(super) fn table<C: Shown>(indent: &str, rows: &[Vec<C>]) -> String {
    let width = |row: &Vec<C>, column: usize| {
        let cell = row.get(column);
        cell.map_or(0, |cell| cell.text().chars().count())
    };
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| width(row, column)).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.iter().zip(&widths) {
            let (text, style) = (cell.text(), cell.style());
            let style = if text.is_empty() { Style::new() } else { style };
            let padding = (width + 2).saturating_sub(text.chars().count());
            let _ = write!(line, "{style}{text}{style:#}{:padding$}", "");
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

/// The same for a table of cells.
pub(super) fn title<const N: usize>(words: [&str; N]) -> Vec<Cell> {
    words.map(|word| Cell::new(word, emphasis())).to_vec()
}

/// How long it takes until then, roughly.
pub(super) fn left(until: Timestamp, now: Timestamp) -> String {
    // A part of a second is not nothing.
    let part = SignedDuration::from_millis(999);
    age(now, until.checked_add(part).unwrap_or(until))
}

/// A number in groups of three digits.
pub(super) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
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
    fn styles_take_no_room() {
        let rows = [
            vec![Cell::new("A", emphasis()), Cell::from("B")],
            vec![Cell::from("wide"), Cell::new("", bad())],
        ];
        assert_eq!(table("", &rows), "\u{1b}[1mA\u{1b}[0m     B\nwide\n");
    }

    #[test]
    fn what_is_left() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        for (until, want) in [
            (7_200_000, "2h00m"),
            (1, "1s"),
            (1000, "1s"),
            (0, "0s"),
            (-5000, "0s"),
        ] {
            assert_eq!(left(at(until), at(0)), want, "{until}");
        }
    }

    #[test]
    fn counts() {
        for (number, want) in [
            (0, "0"),
            (999, "999"),
            (1000, "1 000"),
            (1_234_567, "1 234 567"),
        ] {
            assert_eq!(count(number), want);
        }
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
