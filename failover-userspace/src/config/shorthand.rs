//! Spells out what zone files abbreviate and the scanner does not know: `@` in data, which is
//! the origin (RFC 1035 section 5.1), and times with units, such as `1h30m` (as BIND, Knot DNS and
//! NSD have them). What becomes of a word depends on where it stands: `@` in a TXT record is text.

use std::borrow::Cow;
use std::ops::Range;
use std::str::FromStr;

use domain::base::iana::{Class, Rtype};

use crate::model::Name;

/// An entry as the scanner is to read it, and how to find back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SpelledOut<'a> {
    /// The entry; as many lines as before.
    pub(super) text: Cow<'a, [u8]>,
    /// What is not as it was, in order.
    changes: Vec<Change>,
}

/// A word that was spelled out.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    /// Lines of the entry before it.
    line: usize,
    /// Octets of its line before it, and before what follows, as they were.
    columns: Range<usize>,
    /// How many octets stand there now.
    length: usize,
}

impl SpelledOut<'_> {
    /// Where an octet of a line stood before; both from 0.
    pub(super) fn column(&self, line: usize, column: usize) -> usize {
        let (mut before, mut now) = (0, 0);
        for change in self.changes.iter().filter(|change| change.line == line) {
            let start = change.columns.start - before + now;
            if column < start {
                break;
            }
            if column < start + change.length {
                return change.columns.start;
            }
            before += change.columns.len();
            now += change.length;
        }
        column + before - now
    }
}

/// Spells out an entry; `origin` is that of the place where it stands.
pub(super) fn spell_out<'a>(text: &'a [u8], origin: &Name) -> SpelledOut<'a> {
    let words = Words::new(text);
    let mut spelled = SpelledOut {
        text: Cow::Borrowed(text),
        changes: Vec::new(),
    };
    let mut rest = 0;
    let mut octets = Vec::new();
    for (index, meaning) in words.meanings() {
        let Some(word) = words.list.get(index) else {
            continue;
        };
        let Some(long) = meaning.long_form(words.octets(word), word.is_quoted, origin) else {
            continue;
        };
        let Range { start, end } = word.range.clone();
        let before = &text[..start];
        let line_start = before.iter().rposition(|octet| *octet == b'\n');
        let column = start - line_start.map_or(0, |feed| feed + 1);
        spelled.changes.push(Change {
            line: before.iter().filter(|octet| **octet == b'\n').count(),
            columns: column..column + (end - start),
            length: long.len(),
        });
        octets.extend_from_slice(&text[rest..start]);
        octets.extend_from_slice(long.as_bytes());
        rest = end;
    }
    if rest > 0 {
        octets.extend_from_slice(&text[rest..]);
        spelled.text = Cow::Owned(octets);
    }
    spelled
}

/// What a word stands for.
#[derive(Clone, Copy, Debug)]
enum Meaning {
    /// The owner of a record. The scanner knows `@` here, but takes it for the origin in
    /// quotes as well.
    Owner,
    /// Another domain name.
    Name,
    /// A number of seconds.
    Time,
}

impl Meaning {
    /// What to write instead of a word, if it is an abbreviation.
    fn long_form(self, word: &[u8], is_quoted: bool, origin: &Name) -> Option<String> {
        match (self, word, is_quoted) {
            (Self::Owner, b"@", true) => Some(r"\@".to_owned()),
            (Self::Name, b"@", false) => Some(absolute(origin)),
            (Self::Time, _, false) => Some(seconds(word)?.to_string()),
            _ => None,
        }
    }
}

/// A name in a form that has no special character but the dots.
fn absolute(name: &Name) -> String {
    let mut text = String::new();
    for label in name.iter().filter(|label| !label.is_root()) {
        for octet in label.iter() {
            if octet.is_ascii_alphanumeric() || b"-_".contains(&octet) {
                text.push(char::from(octet));
            } else {
                text.push_str(&format!("\\{octet:03}"));
            }
        }
        text.push('.');
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

/// The seconds of a time in which each number has a unit.
fn seconds(word: &[u8]) -> Option<u32> {
    let mut total = 0_u32;
    let mut rest = std::str::from_utf8(word).ok()?;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..unit].parse().ok()?;
        let factor = match rest.as_bytes()[unit].to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = &rest[unit + 1..];
    }
    Some(total)
}

/// Which words of a record's data are names, and which are times, of all types that the
/// scanner knows in a form of their own.
fn meanings_of_data(rtype: Rtype) -> &'static [(usize, Meaning)] {
    use Meaning::{Name, Time};
    match rtype {
        Rtype::CNAME
        | Rtype::DNAME
        | Rtype::MB
        | Rtype::MD
        | Rtype::MF
        | Rtype::MG
        | Rtype::MR
        | Rtype::NS
        | Rtype::NSEC
        | Rtype::PTR => &[(0, Name)],
        Rtype::MINFO | Rtype::RP => &[(0, Name), (1, Name)],
        Rtype::MX | Rtype::SVCB | Rtype::HTTPS => &[(1, Name)],
        Rtype::SOA => &[
            (0, Name),
            (1, Name),
            (3, Time),
            (4, Time),
            (5, Time),
            (6, Time),
        ],
        Rtype::SRV | Rtype::IPSECKEY => &[(3, Name)],
        Rtype::NAPTR => &[(5, Name)],
        Rtype::RRSIG => &[(7, Name)],
        _ => &[],
    }
}

/// A word of an entry.
struct Word {
    /// Its octets, without quotes.
    range: Range<usize>,
    is_quoted: bool,
}

/// The words of an entry, cut as the scanner cuts them.
struct Words<'a> {
    text: &'a [u8],
    list: Vec<Word>,
    /// White space in front of the first word: the owner is left out.
    is_indented: bool,
}

impl<'a> Words<'a> {
    fn new(text: &'a [u8]) -> Self {
        let mut words = Self {
            text,
            list: Vec::new(),
            is_indented: false,
        };
        let mut at = 0;
        while let Some(octet) = text.get(at) {
            match octet {
                b' ' | b'\t' | b'\r' => {
                    words.is_indented |= words.list.is_empty();
                    at += 1;
                }
                b'\n' | b'(' | b')' => at += 1,
                b';' => at += length(&text[at..], |octet| octet == b'\n'),
                b'"' => {
                    let end = at + 1 + length(&text[at + 1..], |octet| octet == b'"');
                    words.push(at + 1..end, true);
                    at = end + 1;
                }
                _ => {
                    let end = at + length(&text[at..], |octet| b" \t\r\n();\"".contains(&octet));
                    words.push(at..end, false);
                    at = end;
                }
            }
        }
        words
    }

    fn push(&mut self, range: Range<usize>, is_quoted: bool) {
        self.list.push(Word { range, is_quoted });
    }

    fn octets(&self, word: &Word) -> &'a [u8] {
        &self.text[word.range.clone()]
    }

    /// What words stand for, by index and in order, as far as it matters.
    fn meanings(&self) -> Vec<(usize, Meaning)> {
        let Some(first) = self.list.first() else {
            return Vec::new();
        };
        let first = self.octets(first);
        if self.is_indented {
            self.meanings_of_record(0)
        } else if first.eq_ignore_ascii_case(b"$TTL") {
            vec![(1, Meaning::Time)]
        } else if first.eq_ignore_ascii_case(b"$ORIGIN") {
            vec![(1, Meaning::Name)]
        } else if first.eq_ignore_ascii_case(b"$INCLUDE") {
            vec![(2, Meaning::Name)]
        } else {
            let mut meanings = vec![(0, Meaning::Owner)];
            meanings.extend(self.meanings_of_record(1));
            meanings
        }
    }

    /// From word `start` on: TTL and class in any order, or not; the type; data.
    fn meanings_of_record(&self, start: usize) -> Vec<(usize, Meaning)> {
        let mut meanings = Vec::new();
        for (index, word) in self.list.iter().enumerate().skip(start).take(3) {
            let Ok(text) = std::str::from_utf8(self.octets(word)) else {
                break;
            };
            if text.starts_with(|c: char| c.is_ascii_digit()) {
                meanings.push((index, Meaning::Time));
            } else if let Ok(rtype) = Rtype::from_str(text) {
                meanings.extend(self.meanings_from(index + 1, rtype));
                break;
            } else if Class::from_str(text).is_err() {
                break;
            }
        }
        meanings
    }

    /// The data of a record, from word `start` on.
    fn meanings_from(
        &self,
        start: usize,
        rtype: Rtype,
    ) -> impl Iterator<Item = (usize, Meaning)> + use<> {
        // RFC 3597 section 5: octets, of whatever type.
        let is_generic = self
            .list
            .get(start)
            .is_some_and(|word| !word.is_quoted && self.octets(word) == br"\#");
        let meanings = if is_generic {
            &[]
        } else {
            meanings_of_data(rtype)
        };
        meanings.iter().map(move |(at, what)| (start + at, *what))
    }
}

/// Octets before the first that is an end, and is not escaped.
fn length(text: &[u8], is_end: impl Fn(u8) -> bool) -> usize {
    let mut at = 0;
    while let Some(octet) = text.get(at) {
        if is_end(*octet) {
            return at;
        }
        at += if *octet == b'\\' { 2 } else { 1 };
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::name::parse;

    #[test]
    fn what_is_abbreviated_is_spelled_out() {
        let rows = [
            // The scanner knows this one.
            ("@ NS ns", "@ NS ns"),
            ("@ NS @", "@ NS o.test."),
            (" NS @", " NS o.test."),
            ("(\tNS\n@ ) ; @", "(\tNS\no.test. ) ; @"),
            ("@ 60 IN NS @;@", "@ 60 IN NS o.test.;@"),
            ("@ in 60 ns (@)", "@ in 60 ns (o.test.)"),
            ("@ TYPE2 @", "@ TYPE2 o.test."),
            ("@ \"NS\" @", "@ \"NS\" o.test."),
            ("CNAME CNAME @", "CNAME CNAME o.test."),
            (
                "@ SOA @ @ 1 1h 15M 1w2d 5",
                "@ SOA o.test. o.test. 1 3600 900 777600 5",
            ),
            ("$ORIGIN @", "$ORIGIN o.test."),
            ("$include @ @", "$include @ o.test."),
            ("$TTL 1d", "$TTL 86400"),
            ("a 1h30m A 192.0.2.1", "a 5400 A 192.0.2.1"),
            ("a IN 0s A 192.0.2.1", "a IN 0 A 192.0.2.1"),
            ("1h 1h MX 1 @", "1h 3600 MX 1 o.test."),
            // Not a whole word.
            ("a CNAME @.b", "a CNAME @.b"),
            ("a CNAME @@", "a CNAME @@"),
            // Escaped, or in quotes.
            (r"a CNAME \@", r"a CNAME \@"),
            (r"a CNAME \064", r"a CNAME \064"),
            ("a CNAME \"@\"", "a CNAME \"@\""),
            ("\"@\" NS @", "\"\\@\" NS o.test."),
            ("a\\ b NS @", "a\\ b NS o.test."),
            // No name, and no time.
            ("@ TXT @ \"@\" 1h", "@ TXT @ \"@\" 1h"),
            ("@ CAA 0 issue @", "@ CAA 0 issue @"),
            ("@ HINFO @ @", "@ HINFO @ @"),
            ("@ TYPE2 \\# @", "@ TYPE2 \\# @"),
            ("@ SOA a b 1h 1 1 1 1", "@ SOA a b 1h 1 1 1 1"),
            ("@ MX 1h a", "@ MX 1h a"),
            // Not times either.
            ("$TTL 1", "$TTL 1"),
            ("$TTL 1x", "$TTL 1x"),
            ("$TTL 1h2", "$TTL 1h2"),
            ("$TTL h", "$TTL h"),
            ("$TTL 4294967296s", "$TTL 4294967296s"),
            ("$TTL 4294967295w", "$TTL 4294967295w"),
            ("$TTL 4294967295s1s", "$TTL 4294967295s1s"),
            ("$TTL 1\u{fc}", "$TTL 1\u{fc}"),
            // Nothing at all.
            ("", ""),
            ("@", "@"),
            ("@ NS", "@ NS"),
            ("@ NS \"@", "@ NS \"@"),
            ("@ NS @\\", "@ NS @\\"),
        ];
        let origin = parse("o.test").unwrap();
        for (short, long) in rows {
            let spelled = spell_out(short.as_bytes(), &origin);
            assert_eq!(String::from_utf8_lossy(&spelled.text), long, "{short}");
        }
    }

    #[test]
    fn names_stand_where_each_type_has_them() {
        let names = [
            "CNAME @",
            "DNAME @",
            "HTTPS 1 @ alpn=h2",
            "IPSECKEY 10 3 2 @ AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==",
            "MB @",
            "MD @",
            "MF @",
            "MG @",
            "MINFO @ @",
            "MR @",
            "MX 10 @",
            "NAPTR 100 50 \"s\" \"http+I2L\" \"\" @",
            "NS @",
            "NSEC @ A",
            "PTR @",
            "RP @ @",
            "RRSIG A 8 2 60 20300101000000 20200101000000 1 @ AQNRU3mG",
            "SOA @ @ 1 2 3 4 5",
            "SRV 1 2 53 @",
            "SVCB 1 @",
        ];
        for text in names {
            let entry = format!("x.test. 60 IN {text}\n");
            let spelled = spell_out(entry.as_bytes(), &parse("o.test").unwrap());
            // Whoever reads it needs no origin, and finds no name `@`.
            let mut scanner = domain::zonefile::inplace::Zonefile::from(&*spelled.text);
            let record = match scanner.next_entry() {
                Ok(Some(domain::zonefile::inplace::Entry::Record(record))) => record,
                other => panic!("{text}: {other:?}"),
            };
            let shown = record.data().to_string();
            assert!(shown.contains("o.test") && !shown.contains('@'), "{shown}");
        }
    }

    #[test]
    fn an_origin_may_have_any_octets() {
        let name = r#"a\;b\.c\"\(\\\255-_Z"#;
        let origin: Name = Name::bytes_from_str(name).unwrap();
        let long = r"a\059b\046c\034\040\092\255-_Z.";
        assert_eq!(absolute(&origin), long);
        assert_eq!(Name::bytes_from_str(long).unwrap(), origin);
        assert_eq!(absolute(&Name::root_bytes()), ".");
    }

    #[test]
    fn places_are_found_again() {
        let origin = parse("o.test").unwrap();
        let spelled = spell_out(b"a 1h SOA @ b (\n 1 1d @ 1w x", &origin);
        assert_eq!(
            *spelled.text,
            *b"a 3600 SOA o.test. b (\n 1 86400 @ 604800 x"
        );
        let rows = [
            // Before, in and behind the TTL.
            (0, 0, 0),
            (0, 2, 2),
            (0, 5, 2),
            (0, 6, 4),
            // In and behind the origin.
            (0, 11, 9),
            (0, 17, 9),
            (0, 18, 10),
            (0, 19, 11),
            (1, 1, 1),
            (1, 3, 3),
            (1, 8, 5),
            (1, 9, 6),
            (1, 11, 8),
            (1, 17, 10),
            (1, 18, 11),
            (2, 7, 7),
        ];
        for (line, now, before) in rows {
            assert_eq!(spelled.column(line, now), before, "{line} {now}");
        }
    }
}
