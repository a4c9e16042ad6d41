//! What commands mean by `SERVICE/SERVER` and `wan/NAME`, with `*` and `?` in them.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use wildmatch::WildMatch;

use super::core::Subject;
use crate::config::closest;
use crate::model::{Model, ServerId, Service, ServiceId, WanId};

/// Before the name of a link. No service is called so.
const LINKS: &str = "wan";
/// Names listed in an error, at most.
const MOST_NAMES: usize = 10;
/// Names among which the one is looked for that may have been meant, at most.
const MOST_SEARCHED: usize = 4096;
/// Targets that an error explains, at most.
const MOST_EXPLAINED: usize = 10;

impl Subject {
    /// `SERVICE/SERVER` or `wan/NAME`.
    #[must_use]
    pub fn name(self, model: &Model) -> String {
        match self {
            Self::Server(id) => {
                let server = model.server(id);
                format!("{}/{}", model.service(server.service).name, server.name)
            }
            Self::Wan(id) => format!("{LINKS}/{}", model.wan(id).name),
        }
    }
}

/// Some targets mean nobody; the first of them, each with what there is instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing has been changed: {}", .0.join("; "))]
pub struct UnknownTargets(Vec<String>);

/// Whom `targets` mean, each once.
///
/// A name means its bearer, though there be wildcards in it; else `*` stands for any characters
/// and `?` for one, but neither for a slash, and a service's part never for the links.
///
/// # Errors
///
/// If any of them means nobody.
pub(super) fn resolve(model: &Model, targets: &[String]) -> Result<Vec<Subject>, UnknownTargets> {
    let names = Names::new(model);
    let mut seen = HashSet::new();
    let mut subjects = Vec::new();
    let mut unknown = Vec::new();
    for target in targets {
        match names.find(target) {
            Ok(found) => subjects.extend(found.into_iter().filter(|subject| seen.insert(*subject))),
            Err(why) => unknown.push(why),
        }
        if unknown.len() == MOST_EXPLAINED {
            break;
        }
    }
    if unknown.is_empty() {
        Ok(subjects)
    } else {
        Err(UnknownTargets(unknown))
    }
}

struct Names<'m> {
    model: &'m Model,
    services: HashMap<&'m str, ServiceId>,
}

impl<'m> Names<'m> {
    fn new(model: &'m Model) -> Self {
        let services = model.services.iter().zip((0..).map(ServiceId));
        let services = services.map(|(service, id)| (service.name.as_str(), id));
        Self {
            model,
            services: services.collect(),
        }
    }

    fn find(&self, target: &str) -> Result<Vec<Subject>, String> {
        let Some((group, name)) = target
            .split_once('/')
            .filter(|(_, name)| !name.contains('/'))
        else {
            return Err(format!(
                "{target:?} is neither SERVICE/SERVER nor {LINKS}/NAME"
            ));
        };
        if group == LINKS {
            self.links(name)
        } else {
            self.servers(group, name)
        }
    }

    fn links(&self, name: &str) -> Result<Vec<Subject>, String> {
        let wans = self.model.wans.iter();
        let names: Vec<&str> = wans.map(|wan| wan.name.as_str()).collect();
        let found = choose(name, &names);
        if found.is_empty() {
            return Err(nobody("link", "", name, &names));
        }
        let ids = found.into_iter().filter_map(|at| u32::try_from(at).ok());
        Ok(ids.map(|id| Subject::Wan(WanId(id))).collect())
    }

    fn servers(&self, service: &str, name: &str) -> Result<Vec<Subject>, String> {
        let services: Vec<&Service> = match self.services.get(service) {
            Some(id) => vec![self.model.service(*id)],
            None => {
                let pattern = WildMatch::new(service);
                let all = self.model.services.iter();
                all.filter(|service| pattern.matches(&service.name))
                    .collect()
            }
        };
        if services.is_empty() {
            let all = self.model.services.iter();
            let names: Vec<&str> = all.map(|service| service.name.as_str()).collect();
            return Err(nobody("service", "", service, &names));
        }
        let ids = |service: &&Service| service.server_ids();
        let ids: Vec<ServerId> = services.iter().flat_map(ids).collect();
        let names = ids.iter().map(|id| self.model.server(*id).name.as_str());
        let names: Vec<&str> = names.collect();
        let found = choose(name, &names);
        if found.is_empty() {
            let place = match services.as_slice() {
                [service] => format!(" in service {:?}", service.name),
                _ => format!(" in any of {} services", services.len()),
            };
            return Err(nobody("server", &place, name, &names));
        }
        Ok(found
            .into_iter()
            .map(|at| Subject::Server(ids[at]))
            .collect())
    }
}

/// The positions of the names that are meant: all that are just so, else all that match.
fn choose(wanted: &str, names: &[&str]) -> Vec<usize> {
    let positions = |fits: &dyn Fn(&str) -> bool| -> Vec<usize> {
        let found = names.iter().enumerate().filter(|(_, name)| fits(name));
        found.map(|(at, _)| at).collect()
    };
    let exact = positions(&|name| name == wanted);
    if !exact.is_empty() {
        return exact;
    }
    let pattern = WildMatch::new(wanted);
    positions(&|name| pattern.matches(name))
}

/// That nobody has this name, and who may have been meant.
fn nobody(what: &str, place: &str, name: &str, names: &[&str]) -> String {
    let mut known = HashSet::new();
    let names = names.iter().copied();
    let names: Vec<&str> = names.filter(|name| known.insert(*name)).collect();
    let is_pattern = name.contains(['*', '?']);
    let mut text = if is_pattern {
        format!("no {what}{place} matches {name:?}")
    } else {
        format!("no {what} {name:?}{place}")
    };
    let searched = &names[..names.len().min(MOST_SEARCHED)];
    let near = closest(name, searched).filter(|_| !is_pattern);
    if let Some(near) = near {
        let _ = write!(text, ", did you mean {near:?}?");
    } else if names.is_empty() {
        text.push_str(": there are none");
    } else {
        let shown = names[..names.len().min(MOST_NAMES)].join(", ");
        let more = if names.len() > MOST_NAMES {
            ", …"
        } else {
            ""
        };
        let _ = write!(text, ", expected one of: {shown}{more}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::example;

    const MORE: &str = r#"
[[wan]]
name = "web-a"
[[service]]
name = "mail"
port = 143
fqdn = ["imap.example.com"]
[[service.server]]
name = "web-a"
address = "192.0.2.201"
priority = "primary"
offsite = true
[[service.server]]
name = "web-*"
address = "192.0.2.202"
priority = "primary"
offsite = true
[[service]]
name = "mail?"
port = 25
fqdn = ["smtp.example.com"]
[[service.server]]
name = "m"
address = "192.0.2.203"
priority = "primary"
offsite = true
"#;

    fn names(targets: &str) -> Result<Vec<String>, String> {
        let model = example(MORE);
        let targets: Vec<String> = targets.split_whitespace().map(str::to_owned).collect();
        let found = resolve(&model, &targets).map_err(|error| error.to_string())?;
        Ok(found
            .into_iter()
            .map(|subject| subject.name(&model))
            .collect())
    }

    #[test]
    fn whom_targets_mean() {
        for (targets, want) in [
            ("www/web-a", "www/web-a"),
            ("wan/wan1", "wan/wan1"),
            ("*/web-a", "www/web-a mail/web-a"),
            ("www/*", "www/web-a www/web-b www/web-c"),
            ("www/web-?", "www/web-a www/web-b www/web-c"),
            ("w*/*b", "www/web-b"),
            (
                "*/*",
                "www/web-a www/web-b www/web-c mail/web-a mail/web-* mail?/m",
            ),
            // Links are only meant by their own word.
            ("wan/*", "wan/wan1 wan/wan2 wan/web-a"),
            ("wan/wan?", "wan/wan1 wan/wan2"),
            ("wa?/* wan/wan2", ""),
            // Somebody is called so.
            ("mail/web-*", "mail/web-*"),
            ("mail?/*", "mail?/m"),
            ("mai?/*", "mail/web-a mail/web-*"),
            // In the order of the targets, each once.
            (
                "wan/wan2 www/web-b www/* wan/*",
                "wan/wan2 www/web-b www/web-a www/web-c wan/wan1 wan/web-a",
            ),
        ] {
            let want: Vec<&str> = want.split_whitespace().collect();
            match names(targets) {
                Ok(found) => assert_eq!(found, want, "{targets}"),
                Err(error) => assert!(want.is_empty(), "{targets}: {error}"),
            }
        }
    }

    #[test]
    fn nobody_is_meant() {
        for (targets, want) in [
            ("web-a", r#""web-a" is neither SERVICE/SERVER nor wan/NAME"#),
            ("www/web-a/x", r#""www/web-a/x" is neither"#),
            ("*", r#""*" is neither"#),
            (
                "www/",
                r#"no server "" in service "www", expected one of: web-a, web-b, web-c"#,
            ),
            (
                "www/web-x",
                r#"no server "web-x" in service "www", did you mean "web-a"?"#,
            ),
            (
                "www/db",
                r#"no server "db" in service "www", expected one of: web-a, web-b, web-c"#,
            ),
            ("ww/web-a", r#"no service "ww", did you mean "www"?"#),
            (
                "shop/web-a",
                r#"no service "shop", expected one of: www, mail, mail?"#,
            ),
            (
                "s*/web-a",
                r#"no service matches "s*", expected one of: www, mail, mail?"#,
            ),
            (
                "*/db?",
                r#"no server in any of 3 services matches "db?", expected one of: web-a"#,
            ),
            ("wan/wam1", r#"no link "wam1", did you mean "wan1"?"#),
            (
                "wan/x*",
                r#"no link matches "x*", expected one of: wan1, wan2, web-a"#,
            ),
            ("WWW/web-a", "no service \"WWW\", did you mean \"www\"?"),
            (
                "www/x?? nope/a",
                r#""x??", expected one of: web-a, web-b, web-c; no service "nope""#,
            ),
        ] {
            let error = names(targets).unwrap_err();
            assert!(error.contains(want), "{targets}: {error}");
        }
        // Not a book.
        let many = "x/y ".repeat(1000);
        assert_eq!(
            names(&many).unwrap_err().matches("no service").count(),
            MOST_EXPLAINED
        );
    }
}
