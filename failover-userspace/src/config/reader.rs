//! Reads tables of the TOML tree key by key, noting what is wrong and going on.
//!
//! The keys that the code asks a [`Table`] for are the keys the table may have:
//! [`Table::finish`] refuses all others.

use toml::de::{DeTable, DeValue};

use super::report::{At, Report, Span};

/// What became of a key.
#[derive(Clone, Debug)]
pub(super) enum Field<T> {
    /// It was not written.
    Absent,
    /// It was written, but wrong, which has been reported.
    Bad,
    /// It was written.
    Given(At<T>),
}

impl<T> Field<T> {
    pub(super) fn given(&self) -> Option<&At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Absent | Self::Bad => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub(super) fn value(&self) -> Option<&T> {
        self.given().map(|at| &at.value)
    }

    pub(super) fn value_or(&self, default: T) -> T
    where
        T: Clone,
    {
        self.value().cloned().unwrap_or(default)
    }
}

/// The elements of an array that could be read.
#[derive(Clone, Debug)]
pub(super) struct List<T> {
    pub(super) items: Vec<At<T>>,
    /// How many there are, with those that could not be read.
    pub(super) written: usize,
}

/// The tables of `[[key]]`.
pub(super) struct Tables<T> {
    pub(super) items: Vec<T>,
    /// Whether `items` is all that was written.
    pub(super) complete: bool,
}

/// A value of the tree and the key it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a DeValue<'a>,
    pub(super) span: Span,
}

impl Node<'_> {
    /// Reports that this value is not what was expected.
    pub(super) fn expected(self, what: &str, report: &mut Report<'_>) {
        let found = match self.value {
            DeValue::Table(_) => "a table".to_owned(),
            _ => report.quote(self.span),
        };
        report.error(
            self.span,
            format!("{}: expected {what}, found {found}", self.key),
        );
    }
}

/// A table and the keys it was asked for.
pub(super) struct Table<'a> {
    entries: &'a DeTable<'a>,
    /// Of its header, or of the whole inline table.
    pub(super) span: Span,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn root(entries: &'a DeTable<'a>) -> Self {
        Self {
            entries,
            span: Span::default(),
            known: Vec::new(),
        }
    }

    pub(super) fn open(node: Node<'a>, report: &mut Report<'_>) -> Option<Self> {
        match node.value {
            DeValue::Table(entries) => Some(Self {
                entries,
                span: node.span,
                known: Vec::new(),
            }),
            _ => {
                node.expected("a table", report);
                None
            }
        }
    }

    /// Where a key stands, if it is there.
    pub(super) fn key_span(&self, key: &str) -> Option<Span> {
        let (key, _) = self.entries.get_key_value(key)?;
        Some(key.span().into())
    }

    fn get(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.known.push(key);
        let value = self.entries.get(key)?;
        Some(Node {
            key,
            value: value.get_ref(),
            span: value.span().into(),
        })
    }

    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        report: &mut Report<'_>,
        read: impl FnOnce(Node<'a>, &mut Report<'_>) -> Option<T>,
    ) -> Field<T> {
        let Some(node) = self.get(key) else {
            return Field::Absent;
        };
        match read(node, report) {
            Some(value) => Field::Given(At {
                value,
                span: node.span,
            }),
            None => Field::Bad,
        }
    }

    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        report: &mut Report<'_>,
        read: impl FnOnce(Node<'a>, &mut Report<'_>) -> Option<T>,
    ) -> Field<T> {
        let field = self.optional(key, report, read);
        if field.is_absent() {
            report.consequence(self.span, format!("missing key \"{key}\""));
        }
        field
    }

    /// The tables of `[[key]]`; none when there are none.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        header: &str,
        report: &mut Report<'_>,
        mut read: impl FnMut(Table<'a>, &mut Report<'_>) -> T,
    ) -> Tables<T> {
        let Some(node) = self.get(key) else {
            return Tables {
                items: Vec::new(),
                complete: true,
            };
        };
        let DeValue::Array(array) = node.value else {
            node.expected(&format!("an array of tables: write {header}"), report);
            return Tables {
                items: Vec::new(),
                complete: false,
            };
        };
        let mut items = Vec::with_capacity(array.len());
        for value in array {
            let node = Node {
                key,
                value: value.get_ref(),
                span: value.span().into(),
            };
            if let Some(table) = Table::open(node, report) {
                items.push(read(table, report));
            }
        }
        Tables {
            complete: items.len() == array.len(),
            items,
        }
    }

    /// A key whose feature does not exist yet is refused, never ignored.
    pub(super) fn unavailable(&mut self, key: &'static str, shown: &str, report: &mut Report<'_>) {
        self.known.push(key);
        if let Some((key, _)) = self.entries.get_key_value(key) {
            report.error(
                key.span().into(),
                format!("{shown} is not available in this version"),
            );
        }
    }

    /// Refuses every key that was not asked for.
    pub(super) fn finish(self, report: &mut Report<'_>) {
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let mut message = format!("unknown key \"{}\"", super::report::quote(name));
            match closest(name, &self.known) {
                Some(known) => message += &format!(", did you mean \"{known}\"?"),
                None => message += &format!(", expected one of: {}", self.known.join(", ")),
            }
            report.error(key.span().into(), message);
        }
    }
}

/// The word that was probably meant.
pub(crate) fn closest<'w>(written: &str, words: &[&'w str]) -> Option<&'w str> {
    let (distance, word) = words
        .iter()
        .map(|word| (distance(written, word), *word))
        .min_by_key(|(d, _)| *d)?;
    (distance <= 1 + word.len() / 3).then_some(word)
}

/// Levenshtein distance; long words are simply far away.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 32 {
        return usize::MAX;
    }
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, wanted) in b.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, written) in a.iter().enumerate() {
            let substituted = diagonal + usize::from(*written != wanted);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[a.len()]
}
