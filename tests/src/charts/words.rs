//! Words and numbers of charts.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Row;
use crate::figures::Quartiles;

/// Text in which columns stand in braces: `asked by {generator}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Template(String);

impl From<&str> for Template {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

enum Part<'a> {
    Text(&'a str),
    Column(&'a str),
}

impl Template {
    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        // Each piece but the first begins with a column.
        let pieces = self.0.split('{').enumerate();
        pieces.flat_map(|(at, piece)| {
            let (column, text) = match piece.split_once('}') {
                Some((column, text)) if at > 0 => (Some(column), text),
                _ => (None, piece),
            };
            let column = column.map(Part::Column).into_iter();
            column.chain([Part::Text(text)])
        })
    }

    /// The columns that it has.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.parts().filter_map(|part| match part {
            Part::Column(column) => Some(column),
            Part::Text(_) => None,
        })
    }

    /// The text with the cells of a row; `None` if one of them has nothing.
    pub(super) fn fill(&self, row: &Row) -> Option<String> {
        self.parts()
            .map(|part| match part {
                Part::Text(text) => Some(text.to_owned()),
                Part::Column(column) => match row.get(column)? {
                    Value::String(text) => Some(text.clone()),
                    figure => Figure::read(figure).map(|figure| number(figure.value)),
                },
            })
            .collect()
    }
}

/// A cell that is a number or quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    /// The number, or the median.
    pub value: f64,
    /// Where the middle half lies, if it is more than a point.
    pub middle: Option<(f64, f64)>,
}

impl Figure {
    /// `None` where there is none.
    pub(super) fn read(cell: &Value) -> Option<Self> {
        if let Some(value) = cell.as_f64() {
            return Some(Self {
                value,
                middle: None,
            });
        }
        let Quartiles {
            median, p25, p75, ..
        } = Quartiles::deserialize(cell).ok()?;
        Some(Self {
            value: median,
            middle: (p25 < p75).then_some((p25, p75)),
        })
    }
}

/// A number to read: at least three digits, thousands apart.
pub(super) fn number(number: f64) -> String {
    let before_point = number.abs().log10().floor().max(-1.0) as i32 + 1;
    let digits = usize::try_from(3 - before_point).unwrap_or(0);
    let text = format!("{number:.digits$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, whole) = whole
        .strip_prefix('-')
        .map_or(("", whole), |whole| ("−", whole));
    let mut apart = String::from(sign);
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            // A space that does not break.
            apart.push('\u{a0}');
        }
        apart.push(digit);
    }
    match fraction.trim_end_matches('0') {
        "" => apart,
        fraction => apart + "." + fraction,
    }
}

/// The text in lines of at most so many characters, if its words are no longer.
pub(super) fn wrap(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    // The other spaces are there not to break.
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
