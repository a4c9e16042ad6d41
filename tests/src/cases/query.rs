//! From the words of a case to the octets of its query.

use std::str::FromStr as _;

use anyhow::{Context as _, Result, bail};
use domain::base::Name;
use domain::base::iana::Rtype;

use super::Protocol;

/// The ID of every query that is not written as octets; those have it as well.
pub(super) const ID: u16 = 0x1234;

/// The flags of the header by their words (RFC 1035 section 4.1.1, RFC 4035 section 3).
const FLAGS: [(&str, u16); 8] = [
    ("+qr", 0x8000),
    ("+aa", 0x0400),
    ("+tc", 0x0200),
    ("+rd", 0x0100),
    ("+ra", 0x0080),
    ("+z", 0x0040),
    ("+ad", 0x0020),
    ("+cd", 0x0010),
];

/// DO (RFC 3225).
const DNSSEC_OK: u16 = 0x8000;

/// The OPT record of a query.
struct Opt {
    size: u16,
    version: u8,
    flags: u16,
    options: Vec<u8>,
}

impl Default for Opt {
    fn default() -> Self {
        Self {
            size: 1232,
            version: 0,
            flags: 0,
            options: Vec::new(),
        }
    }
}

/// The message that the words describe, and what it is sent over.
pub(super) fn parse(text: &str) -> Result<(Vec<u8>, Vec<Protocol>)> {
    let mut over = vec![Protocol::Udp, Protocol::Tcp];
    let mut words = text.split_whitespace();
    let name = words.next().context("no name")?;
    if name == "raw" {
        return Ok((hex(&words.collect::<String>())?, over));
    }
    let name = Name::<Vec<u8>>::from_str(name)?;
    let qtype = words.next().context("no type")?;
    let qtype = Rtype::from_str(qtype).ok().context("an unknown type")?;
    let (mut flags, mut class, mut header_only) = (0_u16, 1_u16, false);
    let mut opt = None;
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "+opcode" => flags |= value.parse::<u16>()? << 11,
            "+class" => class = class_of(value)?,
            "+udp" => over = vec![Protocol::Udp],
            "+tcp" => over = vec![Protocol::Tcp],
            "+header-only" => header_only = true,
            _ => match FLAGS.iter().find(|(flag, _)| *flag == key) {
                Some((_, bit)) => flags |= bit,
                None => opt
                    .get_or_insert_with(Opt::default)
                    .set(key, value)
                    .with_context(|| format!("word {word:?}"))?,
            },
        }
    }
    let mut query = ID.to_be_bytes().to_vec();
    query.extend(flags.to_be_bytes());
    if header_only {
        query.extend([0; 8]);
        return Ok((query, over));
    }
    query.extend([0, 1, 0, 0, 0, 0, 0, u8::from(opt.is_some())]);
    query.extend(name.as_slice());
    query.extend(qtype.to_int().to_be_bytes());
    query.extend(class.to_be_bytes());
    if let Some(opt) = opt {
        opt.append_to(&mut query)?;
    }
    Ok((query, over))
}

impl Opt {
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "+edns" if value.is_empty() => {}
            "+edns" => self.version = value.parse()?,
            "+bufsize" => self.size = value.parse()?,
            "+do" => self.flags |= DNSSEC_OK,
            "+ednsflags" => self.flags |= u16::from_str_radix(value, 16)?,
            "+option" => {
                let (code, content) = value.split_once(':').unwrap_or((value, ""));
                let content = hex(content)?;
                self.options.extend(code.parse::<u16>()?.to_be_bytes());
                self.options
                    .extend(u16::try_from(content.len())?.to_be_bytes());
                self.options.extend(content);
            }
            _ => bail!("unknown"),
        }
        Ok(())
    }

    fn append_to(&self, query: &mut Vec<u8>) -> Result<()> {
        query.extend([0, 0, 41]);
        query.extend(self.size.to_be_bytes());
        query.extend([0, self.version]);
        query.extend(self.flags.to_be_bytes());
        query.extend(u16::try_from(self.options.len())?.to_be_bytes());
        query.extend(&self.options);
        Ok(())
    }
}

fn class_of(name: &str) -> Result<u16> {
    Ok(match name {
        "CH" => 3,
        "HS" => 4,
        "NONE" => 254,
        "ANY" => 255,
        _ => bail!("class {name:?}"),
    })
}

fn hex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let octet = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16);
    let octets: Result<_, _> = digits.chunks(2).map(octet).collect();
    octets.with_context(|| format!("{text:?} is not hexadecimal"))
}
