//! What `dig` printed, taken apart.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// A reply as `dig` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dig {
    /// `NOERROR` and so on.
    pub status: String,
    /// The flags, such as `qr aa rd`.
    pub flags: String,
    /// `QUERY`, `ANSWER`, `AUTHORITY` and `ADDITIONAL` of the header; OPT counts.
    pub counts: BTreeMap<String, u16>,
    /// The name that was asked for, as the reply repeats it.
    pub question: String,
    /// What the reply's OPT says, such as `version: 0, flags: do; udp: 1232`.
    pub edns: Option<String>,
    /// The answer section.
    pub answer: Vec<Record>,
    /// The authority section.
    pub authority: Vec<Record>,
    /// The additional section, without OPT.
    pub additional: Vec<Record>,
}

/// A resource record as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// The owner, absolute.
    pub owner: String,
    /// The TTL in seconds.
    pub ttl: u32,
    /// The type.
    pub rtype: String,
    /// The data.
    pub data: String,
}

impl Dig {
    /// Reads the output of a `dig` with one reply.
    ///
    /// # Errors
    ///
    /// When there is none in it.
    pub fn parse(output: &str) -> Result<Self> {
        let mut dig = Self::default();
        let mut section = None;
        for line in output.lines() {
            if let Some(rest) = line.strip_prefix(";; ->>HEADER<<-") {
                dig.status = field(rest, "status: ")
                    .context("a header without status")?
                    .to_owned();
            } else if let Some(rest) = line.strip_prefix(";; flags: ") {
                dig.read_flags(rest)?;
            } else if let Some(title) = line.strip_prefix(";; ") {
                section = title.strip_suffix(" SECTION:");
            } else if let Some(edns) = line.strip_prefix("; EDNS: ") {
                dig.edns = Some(edns.to_owned());
            } else if let (Some("QUESTION"), Some(question)) = (section, line.strip_prefix(';')) {
                let name = question.split_whitespace().next();
                name.unwrap_or_default().clone_into(&mut dig.question);
            } else if !line.is_empty() && !line.starts_with(';') {
                let record = Record::parse(line)
                    .with_context(|| format!("dig printed a record that is none: {line:?}"))?;
                match section {
                    Some("ANSWER") => dig.answer.push(record),
                    Some("AUTHORITY") => dig.authority.push(record),
                    Some("ADDITIONAL") => dig.additional.push(record),
                    _ => {}
                }
            }
        }
        if dig.status.is_empty() {
            anyhow::bail!("dig got no reply: {}", output.trim());
        }
        Ok(dig)
    }

    /// A count of the header, by its name in `dig`'s output.
    #[must_use]
    pub fn count(&self, section: &str) -> u16 {
        self.counts.get(section).copied().unwrap_or_default()
    }

    fn read_flags(&mut self, line: &str) -> Result<()> {
        let (flags, counts) = line.split_once(';').context("no counts beside the flags")?;
        flags.trim().clone_into(&mut self.flags);
        for count in counts.split(',') {
            let (name, value) = count.split_once(':').context("a count without value")?;
            self.counts
                .insert(name.trim().to_owned(), value.trim().parse()?);
        }
        Ok(())
    }
}

impl Record {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let owner = fields.next()?.to_owned();
        let ttl = fields.next()?.parse().ok()?;
        let _class = fields.next()?;
        let rtype = fields.next()?.to_owned();
        let data = fields.collect::<Vec<_>>().join(" ");
        Some(Self {
            owner,
            ttl,
            rtype,
            data,
        })
    }
}

/// The word after `name`, up to a comma.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(name)?;
    rest.split(',').next().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_taken_apart() {
        let dig = Dig::parse(
            "; <<>> DiG 9.18 <<>> @198.51.100.130 www.example.com\n\
             ;; Got answer:\n\
             ;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 4711\n\
             ;; flags: qr aa rd; QUERY: 1, ANSWER: 1, AUTHORITY: 1, ADDITIONAL: 2\n\
             \n\
             ;; OPT PSEUDOSECTION:\n\
             ; EDNS: version: 0, flags:; udp: 1232\n\
             ;; QUESTION SECTION:\n\
             ;www.example.com.\t\tIN\tA\n\
             \n\
             ;; ANSWER SECTION:\n\
             www.example.com.\t30\tIN\tA\t198.51.100.134\n\
             \n\
             ;; AUTHORITY SECTION:\n\
             example.com.\t\t900\tIN\tNS\tns1.example.com.\n\
             \n\
             ;; ADDITIONAL SECTION:\n\
             ns1.example.com.\t900\tIN\tA\t198.51.100.130\n\
             \n\
             ;; Query time: 0 msec\n",
        )
        .unwrap();
        assert_eq!(
            (dig.status.as_str(), dig.flags.as_str()),
            ("NOERROR", "qr aa rd")
        );
        assert_eq!(dig.count("ADDITIONAL"), 2);
        assert_eq!(dig.question, "www.example.com.");
        assert_eq!(dig.edns.as_deref(), Some("version: 0, flags:; udp: 1232"));
        assert_eq!(dig.answer[0].data, "198.51.100.134");
        assert_eq!(dig.authority[0].ttl, 900);
        assert_eq!(dig.additional[0].owner, "ns1.example.com.");
    }

    #[test]
    fn silence_is_an_error() {
        assert!(Dig::parse(";; connection timed out; no servers could be reached\n").is_err());
    }
}
