//! In the words of the journal.

use std::fmt::Write;

use super::{AdminEvent, Event, what_changed};
use crate::controller::Subject;
use crate::dataplane::{AttachedMode, Generation};
use crate::health::{AdminState, Carrier, Effective, Failure, Targets, Verdict};
use crate::journal::{News, Severity};
use crate::model::{Model, ProbeId, Tier};
use crate::policy::{Decision, Reason};

impl Event {
    /// What the journal has of it; `None`: it is as it should be from the start. `generation`
    /// is the one that brought the answer of the service it is about, if one has.
    pub(in crate::controller) fn news(
        &self,
        model: &Model,
        generation: Option<Generation>,
    ) -> Option<News> {
        if self.is_routine() {
            return None;
        }
        let kind = self.kind();
        let news = |subject: String, severity| News::new(kind, subject, severity);
        let interface =
            |name: &str, severity| News::new(kind, format!("interface/{name}"), severity);
        let daemon = |severity| News::new(kind, "daemon", severity);
        Some(match self {
            Self::Server {
                id,
                from,
                verdict,
                admin,
                effective,
                failed,
                ..
            } => {
                let checks = match verdict {
                    Verdict::Up => "checks pass".to_owned(),
                    Verdict::Down => failure(model, failed.as_ref()),
                    Verdict::Unknown => "checks have not said anything yet".to_owned(),
                };
                news(server(model, Subject::Server(*id)), severity(*effective))
                    .from(from)
                    .to(effective)
                    .because(told(admin.state, *verdict, checks))
            }
            Self::Wan {
                id,
                from,
                verdict,
                admin,
                effective,
                carrier,
                targets,
                failed,
                ..
            } => {
                let min_up = model.wan(*id).min_up;
                let checks = link(model, *carrier, *targets, min_up, failed.as_ref());
                news(server(model, Subject::Wan(*id)), severity(*effective))
                    .from(from)
                    .to(effective)
                    .because(told(admin.state, *verdict, checks))
            }
            Self::Service {
                id,
                before,
                decision,
            } => {
                let severity = if decision.had_candidate() {
                    Severity::Info
                } else {
                    Severity::Error
                };
                let subject = format!("service/{}", model.service(*id).name);
                let news = news(subject, severity)
                    .to(tier(decision))
                    .because(decision.reason)
                    .answers(
                        before.as_ref().map(|before| &before.answer),
                        &decision.answer,
                    )
                    .generation(generation);
                match before {
                    Some(before) => news.from(tier(before)),
                    None => news,
                }
            }
            Self::Admin(AdminEvent {
                subject,
                before,
                after,
            }) => {
                let news = news(subject.name(model), Severity::Info)
                    .from(before)
                    .to(after.state);
                let news = match &after.reason {
                    Some(reason) => news.because(reason.as_str()),
                    None if after.by.is_none() && after.state == AdminState::Auto => {
                        news.because("its time is over")
                    }
                    None => news,
                };
                match &after.by {
                    Some(by) => news.by(&**by),
                    None => news,
                }
            }
            Self::Refused { services, error } => {
                let answers = count(*services, "answer");
                News::new(kind, "daemon", Severity::Error)
                    .to("refused")
                    .because(format_args!("{answers}: {error}"))
            }
            Self::Published { generation } => News::new(kind, "daemon", Severity::Info)
                .from("refused")
                .to("published")
                .generation(Some(*generation)),
            Self::NoInterface { name } => interface(name, Severity::Warning)
                .to("missing")
                .because("no such interface: attached when it appears"),
            Self::Attached { name, index, mode } => {
                let mode = match mode {
                    AttachedMode::Native => "native",
                    AttachedMode::Generic => "generic",
                };
                interface(name, Severity::Info)
                    .to("attached")
                    .because(format_args!("{mode} XDP, index {index}"))
            }
            Self::NotAttached { name, error, .. } => interface(name, Severity::Warning)
                .to("refused")
                .because(error),
            Self::Gone { name } => interface(name, Severity::Warning)
                .from("attached")
                .to("gone"),
            Self::Detached { name } => interface(name, Severity::Info)
                .from("attached")
                .to("detached"),
            Self::Reloaded {
                by,
                difference,
                generation,
            } => daemon(Severity::Info)
                .to("applied")
                .because(what_changed(difference))
                .generation(Some(*generation))
                .by(&**by),
            Self::NotReloaded { by, errors } => {
                let first = errors.first().map_or("", String::as_str);
                let why = match errors.len() {
                    0 | 1 => first.to_owned(),
                    all => format!("{first} (the first of {})", count(all, "error")),
                };
                daemon(Severity::Warning)
                    .to("refused")
                    .because(why)
                    .by(&**by)
            }
            Self::Started => daemon(Severity::Info).to("started").because(format_args!(
                "version {}: {}, {}, {}",
                env!("CARGO_PKG_VERSION"),
                count(model.services.len(), "service"),
                count(model.servers.len(), "server"),
                count(model.wans.len(), "WAN link"),
            )),
            Self::Ready { generation } => daemon(Severity::Info)
                .from("started")
                .to("ready")
                .because("first publication")
                .generation(Some(*generation)),
            Self::Stopped { why: Ok(why) } => daemon(Severity::Info).to("stopped").because(why),
            Self::Stopped { why: Err(error) } => {
                daemon(Severity::Error).to("stopped").because(error)
            }
        })
    }
}

const fn severity(effective: Effective) -> Severity {
    match effective {
        Effective::Down => Severity::Warning,
        Effective::Up | Effective::Drain | Effective::Maint | Effective::Unknown => Severity::Info,
    }
}

/// As in `failover set`.
fn server(model: &Model, subject: Subject) -> String {
    match subject {
        Subject::Server(id) => {
            let server = model.server(id);
            format!("{}/{}", model.service(server.service).name, server.name)
        }
        Subject::Wan(id) => format!("wan/{}", model.wan(id).name),
    }
}

/// What the checks say, under what the operator says.
fn told(admin: AdminState, verdict: Verdict, checks: String) -> String {
    match admin {
        AdminState::Auto => checks,
        AdminState::Maint => "maint, says the operator".to_owned(),
        AdminState::Up | AdminState::Down | AdminState::Drain => {
            format!("{admin}, says the operator; by its checks {verdict}: {checks}")
        }
    }
}

fn failure(model: &Model, failed: Option<&(ProbeId, Failure)>) -> String {
    match failed {
        Some((probe, failure)) => format!("{}: {failure}", model.probe(*probe).target),
        // Its last probe did not fail, but too many before it.
        None => "not enough successes yet".to_owned(),
    }
}

fn link(
    model: &Model,
    carrier: Option<Carrier>,
    targets: Targets,
    min_up: usize,
    failed: Option<&(ProbeId, Failure)>,
) -> String {
    let carrier = match carrier {
        Some(Carrier::Down) => return "no carrier".to_owned(),
        Some(Carrier::Up) => Some("carrier"),
        Some(Carrier::NotWatched) | None => None,
    };
    let Targets { up, down, unknown } = targets;
    let all = up + down + unknown;
    let mut text = carrier.unwrap_or_default().to_owned();
    if all > 0 {
        let comma = if text.is_empty() { "" } else { ", " };
        let of = count(all, "target");
        let _ = write!(text, "{comma}{up} of {of} up, {min_up} needed");
    }
    if up < min_up && failed.is_some() {
        let _ = write!(text, "; {}", failure(model, failed));
    }
    if text.is_empty() {
        text.push_str("nothing is checked");
    }
    text
}

/// The tier that is answered, as in the status.
const fn tier(decision: &Decision) -> &'static str {
    match decision.reason {
        Reason::Tier(tier) => Tier::as_str(tier),
        Reason::AllDown(_) => "none",
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
