//! Cuts a zone file into entries, so that one bad record does not hide the others
//! and each record has its place (RFC 1035 section 5.1).

/// One entry of a zone file: a record or a directive, over one or more lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawEntry<'a> {
    /// Its octets up to and with the line feed, leading white space included.
    pub(super) text: &'a [u8],
    /// Line of its first octet, from 1.
    pub(super) line: usize,
    /// Column of its first octet that is not white space, from 1.
    pub(super) column: usize,
    /// Why it cannot be an entry.
    pub(super) flaw: Option<&'static str>,
}

/// The entries of a file, without empty lines and those with only a comment.
pub(super) fn entries(file: &[u8]) -> impl Iterator<Item = RawEntry<'_>> {
    let mut rest = file;
    let mut line = 1;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let Extent {
                length,
                is_blank,
                flaw,
            } = first_entry(rest);
            let (text, tail) = rest.split_at(length);
            let first_line = line;
            line += text.iter().filter(|octet| **octet == b'\n').count();
            rest = tail;
            if !is_blank {
                let indent = text
                    .iter()
                    .take_while(|octet| octet.is_ascii_whitespace())
                    .count();
                return Some(RawEntry {
                    text,
                    line: first_line,
                    column: indent + 1,
                    flaw,
                });
            }
        }
        None
    })
}

struct Extent {
    length: usize,
    is_blank: bool,
    flaw: Option<&'static str>,
}

/// How far the entry at the start of `text` reaches: to the first line feed outside
/// parentheses.
fn first_entry(text: &[u8]) -> Extent {
    let mut depth = 0_usize;
    let mut is_blank = true;
    let mut in_quotes = false;
    let mut in_comment = false;
    let mut octets = text.iter().enumerate();
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'\n' if in_quotes => {
                let flaw = Some("this quoted string does not end on its line");
                return Extent {
                    length: at + 1,
                    is_blank,
                    flaw,
                };
            }
            b'\n' if depth == 0 => {
                return Extent {
                    length: at + 1,
                    is_blank,
                    flaw: None,
                };
            }
            b'\n' => in_comment = false,
            _ if in_comment => {}
            b'"' => {
                in_quotes = !in_quotes;
                is_blank = false;
            }
            b'\\' => {
                is_blank = false;
                // The next octet is escaped, but a line feed ends the line all the same.
                if text.get(at + 1).is_some_and(|next| *next != b'\n') {
                    octets.next();
                }
            }
            _ if in_quotes => {}
            b';' => in_comment = true,
            b'(' => {
                depth += 1;
                is_blank = false;
            }
            b')' => {
                depth = depth.saturating_sub(1);
                is_blank = false;
            }
            b' ' | b'\t' | b'\r' => {}
            _ => is_blank = false,
        }
    }
    let flaw = if in_quotes {
        Some("this quoted string does not end on its line")
    } else if depth > 0 {
        Some("this entry has a '(' without a ')'")
    } else {
        None
    };
    Extent {
        length: text.len(),
        is_blank,
        flaw,
    }
}

#[cfg(test)]
mod tests {
    use super::entries;

    #[test]
    fn entries_know_where_they_stand() {
        let file =
            b"; comment (\n\n@ IN SOA a b ( 1 2 ; (\n 3 4\n5 )\n  TXT \"a;(\\\"\"\nx A \\\"1\n";
        let found: Vec<_> = entries(file)
            .map(|entry| (entry.line, entry.column, entry.flaw))
            .collect();
        assert_eq!(found, [(3, 1, None), (6, 3, None), (7, 1, None)]);
    }

    #[test]
    fn what_does_not_end_is_noted() {
        let flaws = |file: &'static [u8]| {
            entries(file)
                .map(|entry| entry.flaw.is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(flaws(b"a TXT \"open\nb A 192.0.2.1\n"), [true, false]);
        assert_eq!(flaws(b"a SOA ( 1 2\nb A 192.0.2.1\n"), [true]);
        assert_eq!(flaws(b"a A 192.0.2.1"), [false]);
    }
}
