//! Reading the case files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Case, Peer, Protocol, difference, directory, query};

/// Differences from a peer that have a name, by that name.
type Classes = HashMap<String, BTreeSet<String>>;

/// All cases, in the order of their files.
///
/// # Errors
///
/// What cannot be read, and where.
pub fn load() -> Result<Vec<Case>> {
    let dir = directory();
    let classes = classes(&fs::read_to_string(dir.join("peers.classes"))?)?;
    let mut unused: BTreeSet<_> = classes.keys().map(|name| format!("[{name}]")).collect();
    let mut files: Vec<_> = fs::read_dir(&dir)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|end| end == "cases"));
    files.sort();
    let mut cases = Vec::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(&path)?;
        unused.retain(|class| !text.contains(class.as_str()));
        cases.extend(parse(&name, &text, &classes)?);
    }
    ensure!(!cases.is_empty(), "no cases in {}", dir.display());
    ensure!(unused.is_empty(), "no case refers to {unused:?}");
    Ok(cases)
}

/// Blocks of lines with the number of their first, comments left out.
fn blocks(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let lines: Vec<_> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.starts_with(';'))
        .collect();
    let blocks: Vec<_> = lines
        .split(|(_, line)| line.trim().is_empty())
        .filter_map(|block| {
            let (line, _) = *block.first()?;
            Some((line, block.iter().map(|(_, text)| *text).collect()))
        })
        .collect();
    blocks.into_iter()
}

fn classes(text: &str) -> Result<Classes> {
    let mut classes = Classes::new();
    for (line, block) in blocks(text) {
        let (head, lines) = block.split_first().context("an empty block")?;
        let head = head.strip_prefix("class ");
        let (name, _reason) = head
            .and_then(|head| head.split_once(": "))
            .with_context(|| format!("line {line}: expected `class NAME: REASON`"))?;
        let lines = lines.iter().map(|line| difference::folded(line)).collect();
        classes.insert(name.to_owned(), lines);
    }
    Ok(classes)
}

fn parse(file: &str, text: &str, classes: &Classes) -> Result<Vec<Case>> {
    let mut sets: HashMap<&str, Vec<String>> = HashMap::new();
    let mut cases = Vec::new();
    for (line, block) in blocks(text) {
        let place = format!("{file}:{line}");
        let (first, rest) = block.split_first().context("an empty block")?;
        let mut lines = Vec::new();
        for line in rest {
            match line.strip_prefix('@') {
                Some(name) => {
                    let set = sets.get(name);
                    let set = set.with_context(|| format!("{place}: no set {name:?}"))?;
                    lines.extend(set.iter().cloned());
                }
                None => lines.push((*line).to_owned()),
            }
        }
        if let Some(name) = first.strip_prefix("set ") {
            sets.insert(name, lines);
        } else if let Some(words) = first.strip_prefix("> ") {
            let case = case(place.clone(), words, lines, classes);
            cases.push(case.with_context(|| place)?);
        } else {
            bail!("{place}: expected `set` or `>`, found {first:?}");
        }
    }
    Ok(cases)
}

fn case(place: String, words: &str, mut lines: Vec<String>, classes: &Classes) -> Result<Case> {
    let (query, over) = query::parse(words)?;
    let end = lines.iter().position(|line| line.starts_with("! "));
    let explanations = lines.split_off(end.unwrap_or(lines.len()));
    Ok(Case {
        place,
        query,
        over,
        expected: lines,
        explained: explained(&explanations, classes)?,
    })
}

/// Whom an explanation is about.
type Subject = (Peer, Protocol);

/// What stands below the reply: `! PEER… [CLASS]…: REASON`, each with lines of differences.
fn explained(lines: &[String], classes: &Classes) -> Result<BTreeMap<Subject, BTreeSet<String>>> {
    let mut explained: BTreeMap<Subject, BTreeSet<String>> = BTreeMap::new();
    for explanation in lines.chunk_by(|_, next| !next.starts_with("! ")) {
        let (head, lines) = explanation.split_first().context("no explanation")?;
        let (about, mut differences) = headline(head, classes).with_context(|| head.clone())?;
        differences.extend(lines.iter().map(|line| difference::folded(line)));
        ensure!(!differences.is_empty(), "{head:?} explains no difference");
        for subject in about {
            let known = explained.entry(subject).or_default();
            known.extend(differences.iter().cloned());
        }
    }
    Ok(explained)
}

/// Whom the first line of an explanation is about, and the differences it names.
fn headline(head: &str, classes: &Classes) -> Result<(Vec<Subject>, BTreeSet<String>)> {
    let head = head.strip_prefix("! ").context("no explanation")?;
    let (words, reason) = head.split_once(": ").unwrap_or((head, ""));
    let (mut about, mut differences) = (Vec::new(), BTreeSet::new());
    for word in words.split(' ') {
        if let Some(name) = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')) {
            let class = classes.get(name);
            let class = class.with_context(|| format!("no class {name:?}"))?;
            differences.extend(class.iter().cloned());
        } else {
            about.extend(subjects(word).with_context(|| format!("no peer {word:?}"))?);
        }
    }
    ensure!(!about.is_empty(), "an explanation names a peer");
    ensure!(
        !(differences.is_empty() && reason.is_empty()),
        "an explanation names a class or a reason"
    );
    Ok((about, differences))
}

/// `PEER`, `PEER/udp` or `PEER/tcp`.
fn subjects(word: &str) -> Option<Vec<Subject>> {
    let (name, protocol) = word.split_once('/').unwrap_or((word, ""));
    let peer = Peer::ALL.into_iter().find(|peer| peer.name() == name)?;
    Some(match protocol {
        "" => Protocol::ALL.map(|protocol| (peer, protocol)).to_vec(),
        "udp" => vec![(peer, Protocol::Udp)],
        "tcp" => vec![(peer, Protocol::Tcp)],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: &str = "; comment\n\nclass minimal: sends less\n-authority\n-additional\n";

    fn parse(text: &str) -> Result<Vec<Case>> {
        super::parse("some.cases", text, &classes(CLASSES)?)
    }

    #[test]
    fn sets_and_explanations_belong_to_their_case() -> Result<()> {
        let cases = parse(
            "set ns\nauthority a. 1 NS b.\n\n; comment\n> a A\n< NOERROR qr aa\n@ns\n\
             ! knotd nsd/tcp [minimal]\n! nsd/udp: a reason\n+answer a. 1 A 192.0.2.1\n\n\
             > b A\n< REFUSED qr\n",
        )?;
        let [first, second] = &cases[..] else {
            panic!("{cases:?}")
        };
        assert_eq!(first.expected, ["< NOERROR qr aa", "authority a. 1 NS b."]);
        let minimal = BTreeSet::from(["-authority", "-additional"].map(str::to_owned));
        let added = BTreeSet::from(["+answer a. 1 a 192.0.2.1".to_owned()]);
        let explained = BTreeMap::from([
            ((Peer::Knotd, Protocol::Udp), minimal.clone()),
            ((Peer::Knotd, Protocol::Tcp), minimal.clone()),
            ((Peer::Nsd, Protocol::Udp), added),
            ((Peer::Nsd, Protocol::Tcp), minimal),
        ]);
        assert_eq!(first.explained, explained);
        assert!(second.place == "some.cases:12" && second.explained.is_empty());
        Ok(())
    }

    #[test]
    fn mistakes_are_named() {
        let rows = [
            ("< NOERROR", "expected `set` or `>`"),
            ("> a A\n@ns", "no set \"ns\""),
            ("> a A +bogus", "+bogus"),
            ("> a A\n! knotd [none]", "no class \"none\""),
            ("> a A\n! bind: a reason\n-edns", "no peer \"bind\""),
            ("> a A\n! [minimal]", "names a peer"),
            ("> a A\n! knotd\n-edns", "a class or a reason"),
            ("> a A\n! knotd: a reason", "explains no difference"),
        ];
        for (text, want) in rows {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(want), "{text:?}: {error}");
        }
    }
}
