//! `control_read` and `control_change`: users and groups of this host, as written and by id.

use nix::unistd::{Group, User};
use toml::de::DeValue;

use super::reader::{Field, List, Node};
use super::report::{At, Report, Unique};
use super::value;
use crate::rights::Who;

const EXPECTED: &str = "\"all\", or an array such as [\"group:netops\", \"user:alice\"]";

/// To whom a right is given, as written.
#[derive(Clone)]
pub(super) enum WhoSpec {
    All,
    Listed(List<Principal>),
}

/// `user:NAME` or `group:NAME`; a number will do as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Principal {
    User(String),
    Group(String),
}

impl WhoSpec {
    pub(super) fn read(node: Node<'_>, report: &mut Report<'_>) -> Option<Self> {
        match node.value {
            DeValue::String(text) if text == "all" => Some(Self::All),
            DeValue::Array(_) => value::list(Principal::read)(node, report).map(Self::Listed),
            _ => {
                node.expected(EXPECTED, report);
                None
            }
        }
    }

    /// By the ids that this host gives to the names.
    pub(super) fn resolve(field: &Field<Self>, key: &'static str, report: &mut Report<'_>) -> Who {
        let list = match field.value() {
            None => return Who::NOBODY,
            Some(Self::All) => return Who::All,
            Some(Self::Listed(list)) => list,
        };
        let (mut users, mut groups) = (Vec::new(), Vec::new());
        let mut unique = Unique::new(key);
        for principal in &list.items {
            unique.insert(&principal.value, principal.span, report);
            let Some(id) = look_up(principal, key, report) else {
                continue;
            };
            match principal.value {
                Principal::User(_) => users.push(id),
                Principal::Group(_) => groups.push(id),
            }
        }
        Who::Listed { users, groups }
    }
}

impl Principal {
    fn read(node: Node<'_>, report: &mut Report<'_>) -> Option<Self> {
        let text = node.value.as_str().unwrap_or_default();
        let named = text.split_once(':').filter(|(_, name)| !name.is_empty());
        let principal = match named {
            Some(("user", name)) => Some(Self::User(name.to_owned())),
            Some(("group", name)) => Some(Self::Group(name.to_owned())),
            _ => None,
        };
        if principal.is_none() {
            node.expected("\"user:NAME\" or \"group:NAME\"", report);
        }
        principal
    }
}

fn look_up(principal: &At<Principal>, key: &str, report: &mut Report<'_>) -> Option<u32> {
    let (kind, name, found) = match &principal.value {
        Principal::User(name) => {
            let found = User::from_name(name);
            (
                "user",
                name,
                found.map(|user| user.map(|user| user.uid.as_raw())),
            )
        }
        Principal::Group(name) => {
            let found = Group::from_name(name);
            (
                "group",
                name,
                found.map(|group| group.map(|group| group.gid.as_raw())),
            )
        }
    };
    // A name of digits is a name first, as for chown(1).
    let number = || name.parse().ok().filter(|id| *id != u32::MAX);
    match found {
        Ok(found) => {
            let id = found.or_else(number);
            if id.is_none() {
                let quoted = report.quote(principal.span);
                let message = format!("{key}: expected a {kind} of this host, found {quoted}");
                report.error(principal.span, message);
            }
            id
        }
        Err(error) => number().or_else(|| {
            let message = format!("{key}: cannot look up the {kind} {name:?}: {error}");
            report.error(principal.span, message);
            None
        }),
    }
}
