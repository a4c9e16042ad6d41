//! From the octets of a reply to the words of a case.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use domain::base::iana::Rtype;
use domain::base::opt::UnknownOptData;
use domain::base::{Message, Record, ToName};
use domain::rdata::AllRecordData;

use super::query::ID;

/// Octets of a header (RFC 1035 section 4.1.1).
const HEADER_LEN: usize = 12;
/// The size that OPT records announce where nothing else is said.
const EDNS_UDP_SIZE: u16 = 1232;

/// The reply to `query` in the words of a case.
///
/// # Errors
///
/// When it is no DNS message, or not the reply to this query.
pub fn render(query: &[u8], reply: &[u8]) -> Result<Vec<String>> {
    let message = Message::from_slice(reply)
        .ok()
        .context("less than a header")?;
    ensure!(message.header().id() == ID, "another ID");
    let mut lines = vec![status(query, message)];
    let (_, answer, authority, additional) = message.sections()?;
    let mut used = 0;
    for (section, records) in [
        ("answer", answer),
        ("authority", authority),
        ("additional", additional),
    ] {
        for record in records.limit_to::<AllRecordData<_, _>>() {
            let record: Record<_, AllRecordData<_, _>> = record?;
            used += 1;
            if record.rtype() == Rtype::OPT {
                continue;
            }
            let owner = record.owner().fmt_with_dot();
            let (ttl, rtype, data) = (record.ttl().as_secs(), record.rtype(), record.data());
            lines.push(format!("{section} {owner} {ttl} {rtype} {data}"));
        }
    }
    let counts = message.header_counts();
    let total = counts.ancount() + counts.nscount() + counts.arcount();
    ensure!(used == total, "records of unknown format");
    lines.extend(edns(message)?);
    Ok(lines)
}

/// The code, the flags, and what is unusual.
fn status(query: &[u8], message: &Message<[u8]>) -> String {
    let header = message.header();
    let mut status = format!("< {}", message.opt_rcode());
    let bits = [
        ("qr", header.qr()),
        ("aa", header.aa()),
        ("tc", header.tc()),
        ("rd", header.rd()),
        ("ra", header.ra()),
        ("z", header.z()),
        ("ad", header.ad()),
        ("cd", header.cd()),
    ];
    for (bit, _) in bits.into_iter().filter(|(_, is_set)| *is_set) {
        status.push(' ');
        status.push_str(bit);
    }
    if header.opcode().to_int() != 0 {
        // A `String` takes everything.
        let _ = write!(status, " opcode={}", header.opcode().to_int());
    }
    let count = message.header_counts().qdcount();
    if count == 0 {
        status.push_str(" no-question");
    } else if count > 1 || first_question(query) != first_question(message.as_slice()) {
        status.push_str(" other-question");
    }
    status
}

/// Name, type and class of the first question, octet for octet.
fn first_question(message: &[u8]) -> Option<&[u8]> {
    let mut end = HEADER_LEN;
    loop {
        let label = usize::from(*message.get(end)?);
        end += 1 + label;
        if label == 0 {
            return message.get(HEADER_LEN..end + 4);
        }
    }
}

/// The OPT record as a line, if there is one.
fn edns(message: &Message<[u8]>) -> Result<Option<String>> {
    let Some(opt) = message.opt() else {
        return Ok(None);
    };
    let mut line = format!("edns {}", opt.version());
    if opt.udp_payload_size() != EDNS_UDP_SIZE {
        write!(line, " size={}", opt.udp_payload_size())?;
    }
    if opt.dnssec_ok() {
        line.push_str(" do");
    }
    for option in opt.opt().iter::<UnknownOptData<_>>() {
        let option = option?;
        write!(line, " {}:", option.code().to_int())?;
        for octet in option.as_slice() {
            write!(line, "{octet:02x}")?;
        }
    }
    Ok(Some(line))
}
