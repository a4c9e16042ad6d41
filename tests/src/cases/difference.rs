//! What differs between the reply that a case has and one that came.

use std::collections::BTreeSet;

use super::Order;

/// The sections of a reply that have records, and OPT.
const SECTIONS: [&str; 3] = ["answer", "authority", "additional"];

/// Whether a reply of ours is as the case says, line for line.
pub(super) fn is_same(expected: &[String], found: &[String], order: Order) -> bool {
    let same_line =
        |(expected, found): (&String, &String)| expected == found || is_longer(expected, found);
    let same_lines = |expected: &[String], found: &[String]| {
        expected.len() == found.len() && expected.iter().zip(found).all(same_line)
    };
    match order {
        Order::AsWritten => same_lines(expected, found),
        Order::Rotated => same_lines(&unrotated(expected), &unrotated(found)),
    }
}

/// Whether an `edns` line has what a case leaves open: where it writes `CODE:HEX*`, the option has
/// more octets than these. Cookies are like that (RFC 7873): the server's part is its own.
fn is_longer(expected: &str, found: &str) -> bool {
    let is_same = |(expected, found): (&str, &str)| match expected.strip_suffix('*') {
        Some(start) => found.len() > start.len() && found.starts_with(start),
        None => expected == found,
    };
    let words = |line: &str| line.split(' ').count();
    expected.starts_with("edns ")
        && words(expected) == words(found)
        && expected.split(' ').zip(found.split(' ')).all(is_same)
}

/// The lines with each set of addresses turned until its least comes first: equal for all
/// rotations, and only for them.
fn unrotated(lines: &[String]) -> Vec<String> {
    let mut lines = lines.to_vec();
    for set in
        lines.chunk_by_mut(|a, b| address_set(a).is_some() && address_set(a) == address_set(b))
    {
        let least = (0..set.len()).min_by_key(|at| &set[*at]).unwrap_or(0);
        set.rotate_left(least);
    }
    lines
}

/// Section, owner, TTL and type of an address record.
fn address_set(line: &str) -> Option<&str> {
    let (set, _data) = line.rsplit_once(' ')?;
    (set.ends_with(" A") || set.ends_with(" AAAA")).then_some(set)
}

/// What a peer does otherwise, in the words of an explanation: its own status or `edns` line,
/// `-SECTION` for a section that it leaves out, and `-` or `+` before a record that it leaves out
/// or adds. Neither the order of records nor the case of letters means anything (RFC 1034 sections
/// 3.6 and 3.1), and a peer that does not count on it is right.
pub(super) fn differences(expected: &[String], found: &[String]) -> BTreeSet<String> {
    let mut differences = BTreeSet::new();
    for kind in ["<", "edns"] {
        let line = |lines: &[String]| lines_of(lines, kind).into_iter().next();
        let (expected, found) = (line(expected), line(found));
        let is_open = expected.iter().zip(&found).any(|(e, f)| is_longer(e, f));
        if expected != found && !is_open {
            differences.insert(found.unwrap_or_else(|| format!("-{kind}")));
        }
    }
    for section in SECTIONS {
        let [expected, found] = [expected, found].map(|lines| records(lines, section));
        if found.is_empty() && !expected.is_empty() {
            differences.insert(format!("-{section}"));
            continue;
        }
        let left_out = expected.difference(&found).map(|line| format!("-{line}"));
        let added = found.difference(&expected).map(|line| format!("+{line}"));
        differences.extend(left_out.chain(added));
    }
    differences
}

fn lines_of(lines: &[String], kind: &str) -> Vec<String> {
    let lines = lines.iter();
    lines
        .filter(|line| line.split(' ').next() == Some(kind))
        .cloned()
        .collect()
}

/// The records of a section.
fn records(lines: &[String], section: &str) -> BTreeSet<String> {
    let lines = lines_of(lines, section).into_iter();
    lines.map(|line| folded(&line)).collect()
}

/// A line about a record in lower case; others as they are.
pub(super) fn folded(line: &str) -> String {
    if line.starts_with("< ") {
        return line.to_owned();
    }
    line.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn addresses_may_take_turns_and_nothing_else() {
        use Order::{AsWritten, Rotated};
        let three = "answer a. 1 A 3, answer a. 1 A 1, answer a. 1 A 2";
        let rows = [
            (three, three, AsWritten, true),
            (
                three,
                "answer a. 1 A 1, answer a. 1 A 2, answer a. 1 A 3",
                AsWritten,
                false,
            ),
            (
                three,
                "answer a. 1 A 1, answer a. 1 A 2, answer a. 1 A 3",
                Rotated,
                true,
            ),
            (
                three,
                "answer a. 1 A 2, answer a. 1 A 1, answer a. 1 A 3",
                Rotated,
                false,
            ),
            (three, "answer a. 1 A 1, answer a. 1 A 2", Rotated, false),
            (
                "answer a. 1 A 1, answer b. 1 A 2",
                "answer b. 1 A 2, answer a. 1 A 1",
                Rotated,
                false,
            ),
            (
                "authority a. 1 NS b., authority a. 1 NS c.",
                "authority a. 1 NS c., authority a. 1 NS b.",
                Rotated,
                false,
            ),
            ("edns 0 10:01*", "edns 0 10:0123", AsWritten, true),
            ("edns 0 10:01*", "edns 0 10:01", AsWritten, false),
            ("edns 0 10:01*", "edns 0 10:0223", AsWritten, false),
            ("edns 0 10:01*", "edns 0", AsWritten, false),
            ("edns 0 10:01*", "edns 0 10:0123 3:00", AsWritten, false),
            ("answer a. 1 TXT *", "answer a. 1 TXT x", AsWritten, false),
        ];
        for (expected, found, order, want) in rows {
            let same = is_same(&lines(expected), &lines(found), order);
            assert_eq!(same, want, "{expected} / {found} {order:?}");
        }
    }

    #[test]
    fn differences_are_in_the_words_of_explanations() {
        let ours = "< NOERROR qr aa, answer a. 1 A 1, authority A. 1 NS b., edns 0";
        let rows = [
            (ours, ""),
            (
                "< NOERROR qr aa, answer a. 1 A 1, authority a. 1 NS b., edns 0",
                "",
            ),
            ("< NOERROR qr aa, answer a. 1 A 1, edns 0", "-authority"),
            ("< REFUSED qr, edns 0", "-answer, -authority, < REFUSED qr"),
            (
                "< NOERROR qr aa, answer a. 1 A 1, authority a. 1 NS b.",
                "-edns",
            ),
            (
                "< NOERROR qr aa, answer a. 1 A 1, authority a. 1 NS b., edns 0 do",
                "edns 0 do",
            ),
            (
                "< NOERROR qr aa, answer a. 1 A 2, authority a. 1 NS b., additional b. 1 A 2, edns 0",
                "+additional b. 1 a 2, +answer a. 1 a 2, -answer a. 1 a 1",
            ),
            ("< silence", "-answer, -authority, -edns, < silence"),
        ];
        for (theirs, want) in rows {
            let found: Vec<_> = differences(&lines(ours), &lines(theirs))
                .into_iter()
                .collect();
            assert_eq!(found.join(", "), want, "{theirs}");
        }
    }
}
