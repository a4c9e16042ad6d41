//! All records of a zone, by name.

use std::collections::HashMap;

use bytes::Bytes;
use domain::base::iana::Rtype;
use domain::rdata::ZoneRecordData;

use super::Name;

/// Data of one record of a zone.
pub type RecordData = ZoneRecordData<Bytes, domain::base::Name<Bytes>>;

/// The records of one name and type, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Rrset {
    /// Their type.
    pub rtype: Rtype,
    /// Their TTL, in seconds.
    pub ttl: u32,
    /// Their data, in the zone file's order.
    pub data: Vec<RecordData>,
}

/// All records of a zone: its names, empty non-terminals (RFC 4592 section 2.2.2) among them,
/// each with its sets, in the order of their types.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ZoneData {
    /// By lower-cased name in wire format.
    nodes: HashMap<Bytes, Vec<Rrset>>,
}

impl ZoneData {
    /// The zone at `apex` with these sets, whose owners are lower-cased and lie in it. At most
    /// one set of each name and type.
    #[must_use]
    pub fn new(apex: &Name, rrsets: impl IntoIterator<Item = (Name, Rrset)>) -> Self {
        let mut zone = Self::default();
        for (owner, rrset) in rrsets {
            let octets = owner.as_octets();
            for suffix in suffixes(octets)
                .skip(1)
                .take_while(|suffix| suffix.len() >= apex.len())
            {
                if zone.nodes.contains_key(suffix) {
                    break;
                }
                zone.nodes.insert(octets.slice_ref(suffix), Vec::new());
            }
            let node = zone.nodes.entry(owner.into_octets()).or_default();
            let at = node.partition_point(|before| before.rtype < rrset.rtype);
            node.insert(at, rrset);
        }
        zone
    }

    /// All names, empty non-terminals included, each lower-cased and in wire format.
    pub fn names(&self) -> impl Iterator<Item = &Bytes> {
        self.nodes.keys()
    }

    /// The sets of a name, none for an empty non-terminal; `None`: the file has no such name.
    ///
    /// `name` is lower-cased and in wire format.
    #[must_use]
    pub fn node(&self, name: &[u8]) -> Option<&[Rrset]> {
        self.nodes.get(name).map(Vec::as_slice)
    }

    /// One set; see [`ZoneData::node`].
    #[must_use]
    pub fn rrset(&self, name: &[u8], rtype: Rtype) -> Option<&Rrset> {
        find(self.node(name)?, rtype)
    }
}

/// The set of this type among those of a name.
#[must_use]
pub fn find(node: &[Rrset], rtype: Rtype) -> Option<&Rrset> {
    node.iter().find(|rrset| rrset.rtype == rtype)
}

/// An uncompressed name in wire format and each of its ancestors, the root last.
pub fn suffixes(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(name);
    std::iter::from_fn(move || {
        let suffix = rest?;
        let label = usize::from(*suffix.first()?);
        rest = if label == 0 {
            None
        } else {
            suffix.get(label + 1..)
        };
        Some(suffix)
    })
}

#[cfg(test)]
mod tests {
    use domain::rdata::A;

    use super::*;

    #[test]
    fn names_between_exist_without_records() {
        let name = |text: &str| Name::bytes_from_str(text).unwrap();
        let set = Rrset {
            rtype: Rtype::A,
            ttl: 60,
            data: vec![ZoneRecordData::A(A::new([192, 0, 2, 1].into()))],
        };
        let zone = ZoneData::new(&name("example"), [(name("a.b.c.example"), set.clone())]);
        let node = |text| zone.node(name(text).as_slice()).map(<[_]>::len);
        assert_eq!(node("a.b.c.example"), Some(1));
        assert_eq!(node("b.c.example"), Some(0));
        assert_eq!(node("example"), Some(0));
        assert_eq!(node("d.c.example"), None);
        assert_eq!(zone.node(b"\0"), None);
        let found = zone.rrset(name("a.b.c.example").as_slice(), Rtype::A);
        assert_eq!(found, Some(&set));
    }
}
