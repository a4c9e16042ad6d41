//! Domain names: from text to wire format, and their suffixes.

use bytes::Bytes;

use crate::model::Name;

/// Reads an absolute name, with or without the final dot, and lower-cases it.
pub(super) fn parse(text: &str) -> Result<Name, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
        let hint = if odd.is_ascii() {
            ""
        } else {
            ", write the xn-- form"
        };
        return Err(format!("no {odd:?} in names{hint}"));
    }
    let name = Name::bytes_from_str(text).map_err(|error| error.to_string())?;
    if text != "." && name.is_root() {
        return Err("empty label".to_owned());
    }
    if name.iter().any(|label| label.as_slice().contains(&0)) {
        return Err("no zero octet in names".to_owned());
    }
    Ok(lower_cased(name.as_slice()))
}

/// A copy in lower case. `octets` are an absolute name in wire format.
pub(super) fn lower_cased(octets: &[u8]) -> Name {
    // Length octets are at most 63, below 'A': lower-casing leaves them alone.
    let octets = Bytes::from(octets.to_ascii_lowercase());
    Name::from_octets(octets).unwrap_or_else(|_| Name::root_bytes())
}

/// The wire format of a name and of each of its ancestors, the root last.
pub(super) fn suffixes(name: &Name) -> impl Iterator<Item = &[u8]> {
    crate::model::suffixes(name.as_slice())
}
