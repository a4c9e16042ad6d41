//! Collects what is wrong with the configuration file while the rest of it is read.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::diagnostic::Diagnostic;
use super::syntax::BrokenLines;

/// The longest offending text that a message quotes, in characters.
const QUOTE_LIMIT: usize = 60;

/// Octets of the configuration file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self {
            start: range.start,
            end: range.end,
        }
    }
}

/// A value with the place where it was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// The text of the configuration file and the findings so far.
pub(super) struct Report<'a> {
    file: PathBuf,
    text: &'a str,
    ascii: bool,
    line_starts: Vec<usize>,
    broken: BrokenLines,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &Path, text: &'a str) -> Self {
        let newlines = text
            .bytes()
            .enumerate()
            .filter(|(_, octet)| *octet == b'\n');
        Self {
            file: file.to_path_buf(),
            text,
            ascii: text.is_ascii(),
            line_starts: std::iter::once(0)
                .chain(newlines.map(|(at, _)| at + 1))
                .collect(),
            broken: BrokenLines::default(),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// From now on, lines with a syntax error are not judged again, and what may
    /// only be a consequence of them is not reported.
    pub(super) fn set_broken(&mut self, broken: BrokenLines) {
        self.broken = broken;
    }

    /// Something is wrong with the text at `span`.
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) {
        let broken = !self.broken.is_empty()
            && (span == Span::default() || self.broken.contains(self.line_index(span.start)));
        if !broken {
            let diagnostic = self.diagnostic(span, message.into());
            self.errors.push(diagnostic);
        }
    }

    /// As [`Report::error`], for what a line that could not be read may have caused.
    pub(super) fn consequence(&mut self, span: Span, message: impl Into<String>) {
        if self.broken.is_empty() {
            self.error(span, message);
        }
    }

    /// A syntax error: reported wherever it is.
    pub(super) fn syntax_error(&mut self, span: Span, message: String) {
        let diagnostic = self.diagnostic(span, message);
        self.errors.push(diagnostic);
    }

    /// Worth knowing, but no reason to refuse the file.
    pub(super) fn warn(&mut self, span: Span, message: impl Into<String>) {
        let diagnostic = self.diagnostic(span, message.into());
        self.warnings.push(diagnostic);
    }

    /// Takes over what was found in a zone file.
    pub(super) fn absorb(&mut self, errors: Vec<Diagnostic>, warnings: Vec<Diagnostic>) {
        self.errors.extend(errors);
        self.warnings.extend(warnings);
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Errors and warnings, each sorted by file and position.
    pub(super) fn into_findings(mut self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        self.errors.sort();
        self.errors.dedup();
        self.warnings.sort();
        self.warnings.dedup();
        (self.errors, self.warnings)
    }

    /// The text at `span` for a message: its first line, cut when it is long.
    pub(super) fn quote(&self, span: Span) -> String {
        quote(self.text.get(span.start..span.end).unwrap_or_default())
    }

    /// Line of an offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_index(offset) + 1
    }

    pub(super) fn line_index(&self, offset: usize) -> usize {
        self.line_starts
            .partition_point(|start| *start <= offset)
            .saturating_sub(1)
    }

    /// The text of a line, counted from 0, without its line feed.
    pub(super) fn line_text(&self, index: usize) -> &'a str {
        let start = self
            .line_starts
            .get(index)
            .copied()
            .unwrap_or(self.text.len());
        self.text
            .get(start..)
            .unwrap_or_default()
            .lines()
            .next()
            .unwrap_or_default()
    }

    fn diagnostic(&self, span: Span, message: String) -> Diagnostic {
        let index = self.line_index(span.start);
        let before = self.line_starts[index]..span.start.min(self.text.len());
        // Counting characters could be quadratic on one endless line.
        let column = match self.text.get(before.clone()) {
            Some(text) if !self.ascii => text.chars().count(),
            _ => before.len(),
        };
        Diagnostic {
            file: self.file.clone(),
            line: index + 1,
            column: column + 1,
            message,
        }
    }
}

/// The first line of `text`, cut when it is long and without control characters.
pub(super) fn quote(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim_end();
    let cut = line.len() < text.trim_end().len() || line.chars().count() > QUOTE_LIMIT;
    let mut quoted = String::new();
    for character in line.chars().take(QUOTE_LIMIT) {
        match character {
            control if control.is_control() => quoted.extend(control.escape_default()),
            other => quoted.push(other),
        }
    }
    if cut {
        quoted.push('…');
    }
    quoted
}

/// Keys that may occur once, with the place where they did.
pub(super) struct Unique<K> {
    what: &'static str,
    seen: HashMap<K, Span>,
}

impl<K: Hash + Eq> Unique<K> {
    /// `what` names the keys in the message, as in "duplicate `what`".
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            seen: HashMap::new(),
        }
    }

    /// Notes a key; one that was there before is an error.
    pub(super) fn insert(&mut self, key: K, span: Span, report: &mut Report<'_>) {
        match self.seen.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(span);
            }
            Entry::Occupied(first) => {
                let line = report.line(first.get().start);
                let message = format!(
                    "duplicate {} {}, first on line {line}",
                    self.what,
                    report.quote(span)
                );
                report.error(span, message);
            }
        }
    }
}
