//! The reference case, for tests, and a core that is fed in few words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Command, Core, Event, Input, Now, Subject};
use crate::config;
use crate::dataplane::Generation;
use crate::health::{AdminState, Carrier, Failure};
use crate::model::{Model, ProbeId, ServerId, Service, WanId, compare};
use crate::policy::Forward;
use crate::probe::{LinkEvent, Report};
use crate::state::{Kept, Record};

/// `examples/reference.toml`.
pub(crate) fn reference() -> Model {
    example("")
}

/// The same with more text at the end of the configuration.
pub(crate) fn example(more: &str) -> Model {
    let dir = tempfile::tempdir().expect("a directory");
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let zone = dir.path().join("example.com.zone");
    std::fs::copy(format!("{examples}/example.com.zone"), zone).expect("the zone file");
    let text = std::fs::read_to_string(format!("{examples}/reference.toml")).expect("the file");
    let file = dir.path().join("reference.toml");
    std::fs::write(&file, text + more).expect("a file");
    config::load(&file).expect("a configuration").model
}

/// The reference case with each first text replaced by the second, in the configuration or else
/// in the zone file.
pub(crate) fn edited(edits: &[(&str, &str)]) -> Model {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let read = |name: &str| std::fs::read_to_string(format!("{examples}/{name}")).expect("a file");
    let mut zone = read("example.com.zone");
    let mut text = read("reference.toml");
    for (from, to) in edits {
        let place = if text.contains(from) {
            &mut text
        } else {
            &mut zone
        };
        assert!(place.contains(from), "{from:?}");
        *place = place.replacen(from, to, 1);
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("example.com.zone"), zone).expect("a file");
    let file = dir.path().join("failover.toml");
    std::fs::write(&file, text).expect("a file");
    let mut model = config::load(&file)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .model;
    // Each is in a directory of its own, and makes up a secret of its own.
    for zone in &mut model.zones {
        zone.file = zone.file.file_name().expect("a name").into();
    }
    model.settings.cookies = None;
    model
}

/// The probes of a server, called as in the configuration, or of a link.
pub(crate) fn probes(model: &Model, name: &str) -> Vec<ProbeId> {
    let servers = model.servers.iter().filter(|server| server.name == name);
    let wans = model.wans.iter().filter(|wan| wan.name == name);
    let targets = wans.flat_map(|wan| wan.targets.iter().map(|target| target.probe));
    servers
        .flat_map(|server| server.probes.iter().copied())
        .chain(targets)
        .collect()
}

/// A report of a probe.
pub(crate) fn report(probe: ProbeId, outcome: Result<(), Failure>) -> Report {
    Report {
        probe,
        started: Instant::now(),
        late: Duration::ZERO,
        outcome: outcome.map(|()| Duration::from_micros(310)),
    }
}

/// A link event.
pub(crate) fn link(interface: &str, carrier: Carrier, index: Option<u32>) -> LinkEvent {
    LinkEvent {
        interface: interface.to_owned(),
        carrier,
        index,
    }
}

/// A core whose inputs are words and whose commands are lines.
pub(crate) struct Bench {
    pub(crate) core: Core,
    pub(crate) now: Now,
    pub(crate) model: Arc<Model>,
    pub(crate) kept: Kept,
}

impl Bench {
    pub(crate) fn new(model: Model) -> Self {
        let kept = Kept::nothing(&model);
        Self::restarted(model, kept)
    }

    pub(crate) fn restarted(model: Model, kept: Kept) -> Self {
        Self::restarted_at(model, kept, Timestamp::UNIX_EPOCH)
    }

    pub(crate) fn restarted_at(model: Model, kept: Kept, wall: Timestamp) -> Self {
        let model = Arc::new(model);
        let now = Now {
            at: Instant::now(),
            wall,
        };
        Self {
            core: Core::new(Arc::clone(&model), &kept, now),
            now,
            model,
            kept,
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.wall += jiff::SignedDuration::try_from(time).expect("short");
    }

    /// `NAME+` a success of each of its probes, `NAME-` a timeout, `NAME!` a local error;
    /// `IF=INDEX` an interface with carrier, `IF~INDEX` without, `IF~` none;
    /// `NAME:WORD` the operator's word.
    pub(crate) fn feed(&mut self, inputs: &str) {
        for input in inputs.split_whitespace() {
            self.feed_one(input);
        }
    }

    fn feed_one(&mut self, input: &str) {
        let at = input.find(['+', '-', '!', '=', '~', ':'].map(|c| c).as_slice());
        // Names have hyphens.
        let at = if input.ends_with(['+', '-', '!']) {
            Some(input.len() - 1)
        } else {
            at
        };
        let (name, rest) = input.split_at(input.rfind([':', '=', '~']).or(at).expect(input));
        let outcome = match &rest[..1] {
            "+" => Ok(()),
            "-" => Err(Failure::TimedOut),
            "!" => Err(Failure::Local("too many open files".to_owned())),
            ":" => {
                let state: AdminState = rest[1..].parse().expect(input);
                return self
                    .core
                    .input(Input::Admin(self.subject(name), state.into()), self.now);
            }
            sign => {
                let carrier = if sign == "=" {
                    Carrier::Up
                } else {
                    Carrier::Down
                };
                let event = link(name, carrier, rest[1..].parse().ok());
                return self.core.input(Input::Link(event), self.now);
            }
        };
        for probe in probes(&self.model, name) {
            self.core
                .input(Input::Probe(report(probe, outcome.clone())), self.now);
        }
    }

    pub(crate) fn subject(&self, name: &str) -> Subject {
        let server = self
            .model
            .servers
            .iter()
            .position(|server| server.name == name);
        let wan = self.model.wans.iter().position(|wan| wan.name == name);
        match (server, wan) {
            (Some(at), _) => Subject::Server(ServerId(at as u32)),
            (_, Some(at)) => Subject::Wan(WanId(at as u32)),
            _ => panic!("{name}"),
        }
    }

    /// Goes over to another model, with `news` (`NAME+` or `NAME-`) of what must be probed first;
    /// what that is, and what follows.
    pub(crate) fn reload(&mut self, model: Model, news: &str) -> (Vec<String>, Vec<String>) {
        let model = Arc::new(model);
        let (_, succession) = compare(&self.model, &model);
        let successor = |news| {
            self.core
                .successor(Arc::clone(&model), &succession, news, self.now)
        };
        let begun = self.core.begins(&successor(Vec::new()), &succession);
        let news = news.split_whitespace().flat_map(|word| {
            let (name, sign) = word.split_at(word.len() - 1);
            let outcome = if sign == "+" {
                Ok(())
            } else {
                Err(Failure::TimedOut)
            };
            let probes = probes(&model, name).into_iter();
            let probes = probes.filter(|probe| begun.contains(probe));
            probes.map(move |probe| report(probe, outcome.clone()))
        });
        let core = successor(news.collect());
        let begun = begun.iter();
        let begun = begun.map(|probe| model.probe(*probe).target.to_string());
        let begun = begun.collect();
        (self.core, self.model) = (core, model);
        let lines = self.settle();
        self.kept = self.core.kept();
        (begun, lines)
    }

    /// Settles, and publishes with success; the commands, without those about saving.
    pub(crate) fn settle(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for command in self.core.settle(self.now) {
            let line = self.line(&command);
            match command {
                Command::PublishAll(_) | Command::Publish(_) => {
                    self.core.published(Generation(self.core.generation.0 + 1));
                }
                Command::Save(record) => {
                    self.kept.apply(record);
                    continue;
                }
                _ => {}
            }
            lines.push(line);
        }
        lines
    }

    fn line(&self, command: &Command) -> String {
        let answers = |changes: &[crate::dataplane::Change]| {
            let answers = changes.iter().map(|change| {
                let service = self.model.service(change.service);
                let decision = self.core.services[change.service.index()].decision.as_ref();
                format!("{} {}", service.name, decision.expect("decided").answer)
            });
            answers.collect::<Vec<_>>().join("; ")
        };
        match command {
            Command::PublishAll(changes) => format!("publish all: {}", answers(changes)),
            Command::Publish(changes) => format!("publish: {}", answers(changes)),
            Command::ForwardAll(forwards) => {
                let services = self.model.services.iter().zip(forwards);
                let lines = services.map(|(service, forward)| self.forward(service, forward));
                format!("forward all: {}", lines.collect::<Vec<_>>().join("; "))
            }
            Command::Forward(forwards) => {
                let lines = forwards
                    .iter()
                    .map(|(id, forward)| self.forward(self.model.service(*id), forward));
                format!("forward: {}", lines.collect::<Vec<_>>().join("; "))
            }
            Command::Attach { interface, index } => format!("attach {interface} {index}"),
            Command::Forget { interface } => format!("forget {interface}"),
            Command::SetPace(probe, pace) => {
                format!("pace {} {pace:?}", self.model.probe(*probe).target)
            }
            Command::Save(record) => match record {
                Record::Verdict(..) | Record::Server(..) | Record::Wan(..) => "save".to_owned(),
                Record::Last(..) => "save last".to_owned(),
            },
            Command::Log(event) => match event {
                Event::Server { id, effective, .. } => {
                    format!("log {} {effective}", self.model.server(*id).name)
                }
                Event::Wan { id, effective, .. } => {
                    format!("log {} {effective}", self.model.wan(*id).name)
                }
                Event::Admin(event) => {
                    let name = event.subject.name(&self.model);
                    format!("log {name} {} -> {}", event.before, event.after.state)
                }
                Event::Service { id, decision, .. } => {
                    format!("log {}: {}", self.model.service(*id).name, decision.reason)
                }
                Event::NoInterface { name } => format!("log no {name}"),
                // The shell's own.
                other => format!("log {other:?}"),
            },
        }
    }

    fn forward(&self, service: &Service, forward: &Forward) -> String {
        let servers = forward.v4.iter().flat_map(|to| &to.servers);
        let servers = servers.map(|id| self.model.server(*id).name.as_str());
        format!("{} {}", service.name, servers.collect::<Vec<_>>().join(" "))
    }

    /// The publications and the rules among what follows from these inputs.
    #[track_caller]
    pub(crate) fn check(&mut self, inputs: &str, want: &[&str]) {
        self.feed(inputs);
        let lines = self.settle();
        let published: Vec<&str> = lines
            .iter()
            .map(String::as_str)
            .filter(|line| line.starts_with("publish") || line.starts_with("forward"))
            .collect();
        assert_eq!(published, want, "{inputs:?}: {lines:#?}");
    }
}
