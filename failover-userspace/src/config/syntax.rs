//! TOML syntax: text to a tree that knows where each value stands.

use std::collections::HashSet;

use toml::Spanned;
use toml::de::DeTable;

use super::report::{Report, Span};

/// Lines with a syntax error, counted from 0.
#[derive(Debug, Default)]
pub(super) struct BrokenLines(HashSet<usize>);

impl BrokenLines {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, line: usize) -> bool {
        self.0.contains(&line)
    }
}

/// Parses the file and reports every syntax error. `None` when an error may have moved
/// keys into another table, so that judging the rest would only confuse.
pub(super) fn parse<'a>(text: &'a str, report: &mut Report<'_>) -> Option<Spanned<DeTable<'a>>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut broken = BrokenLines::default();
    let mut contained = true;
    for error in &errors {
        let span = error.span().map_or(
            Span {
                start: text.len(),
                end: text.len(),
            },
            Span::from,
        );
        let mut line = report.line_index(span.start);
        // An error at the line feed that ends a line belongs to that line.
        if span.start > 0
            && report.line_text(line).is_empty()
            && line > 0
            && span.start == text.len()
        {
            line -= 1;
        }
        contained &= is_contained(report.line_text(line));
        // One mistake often makes several errors; the first says it best.
        if broken.0.insert(line) {
            let found = report.quote(span);
            let found = if found.is_empty() {
                String::new()
            } else {
                format!(", found {found}")
            };
            report.syntax_error(span, format!("TOML syntax: {}{found}", error.message()));
        }
    }
    report.set_broken(broken);
    contained.then_some(tree)
}

/// Whether a broken line is a plain `key = value`, which cannot disturb other lines.
fn is_contained(line: &str) -> bool {
    let Some((key, value)) = line.split_once('=') else {
        return false;
    };
    let key = key.trim();
    !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        && !value.contains(['[', '{'])
        && !value.contains("\"\"\"")
        && !value.contains("'''")
}
