//! What survives a restart: verdicts, admin states, last answers, and the generation.
//!
//! `state.json` names things as the configuration does, so that it outlives changes of the
//! configuration: [`Kept`] is the same by the ids of one [`Model`]. A verdict is taken over
//! only by what is checked in the same way as before; admin states belong to names.
//!
//! Generations only grow, over restarts too, and yet the file is not written for each of
//! them: it holds a ceiling, up to which they are reserved ahead. A clean stop gives back
//! what was not used.
//!
//! The file is replaced atomically, by a thread of its own: the [`Saver`].

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::dataplane::Generation;
use crate::health::{Admin, Effective, Verdict};
use crate::model::{Model, ProbeId, ServerId, ServiceId, WanId};
use crate::policy::Answer;

/// Version of the file's format.
const VERSION: u32 = 1;
/// Generations reserved at once.
const BLOCK: u64 = 10_000;
/// The data plane has 40 bits for a generation; a file that claims half of that is broken.
const MOST_GENERATIONS: u64 = 1 << 39;
/// Between two writes.
const PERIOD: Duration = Duration::from_secs(1);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(10);

/// What is kept, by the ids of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Verdict of each probe.
    pub verdicts: Vec<Verdict>,
    /// Standing of each server.
    pub servers: Vec<Standing>,
    /// Standing of each WAN link.
    pub wans: Vec<Standing>,
    /// Last answers that had a candidate, of services that may need them.
    pub last: HashMap<ServiceId, Answer>,
}

/// What is kept of a server or a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What the operator said.
    pub admin: Admin,
    /// What followed.
    pub effective: Effective,
    /// Since when; `None`: nothing was saved.
    pub since: Option<Timestamp>,
}

/// A change of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A probe's verdict.
    Verdict(ProbeId, Verdict),
    /// A server's standing.
    Server(ServerId, Standing),
    /// A link's standing.
    Wan(WanId, Standing),
    /// A service's last answer that had a candidate.
    Last(ServiceId, Answer),
}

/// The file's contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// No generation above this one has been used.
    pub generation: Generation,
    /// By `service/server`.
    servers: BTreeMap<String, SavedServer>,
    wans: BTreeMap<String, SavedWan>,
    last: BTreeMap<String, Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedServer {
    /// Verdict of each check by what it rests on.
    #[serde(default)]
    checks: BTreeMap<String, Verdict>,
    #[serde(flatten)]
    admin: Admin,
    effective: Effective,
    since: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedWan {
    #[serde(flatten)]
    admin: Admin,
    effective: Effective,
    since: Option<Timestamp>,
    /// Verdict by what it rests on.
    targets: BTreeMap<String, Verdict>,
}

impl Kept {
    /// Nothing is known.
    #[must_use]
    pub fn nothing(model: &Model) -> Self {
        Self {
            verdicts: vec![Verdict::Unknown; model.probes.len()],
            servers: vec![Standing::default(); model.servers.len()],
            wans: vec![Standing::default(); model.wans.len()],
            last: HashMap::new(),
        }
    }

    /// What `state` says about the things of `model`.
    #[must_use]
    pub fn of(state: &State, model: &Model) -> Self {
        let mut kept = Self::nothing(model);
        for (server, standing) in model.servers.iter().zip(&mut kept.servers) {
            let name = server_key(model, server.service, &server.name);
            let Some(saved) = state.servers.get(&name) else {
                continue;
            };
            standing.admin = saved.admin.clone();
            let mut same = server.probes.len() == saved.checks.len();
            for probe in &server.probes {
                let check = model.probe(*probe).fingerprint();
                match saved.checks.get(&check) {
                    Some(verdict) => kept.verdicts[probe.index()] = *verdict,
                    None => same = false,
                }
            }
            if same && !server.probes.is_empty() {
                standing.effective = saved.effective;
                standing.since = saved.since;
            }
        }
        for (wan, standing) in model.wans.iter().zip(&mut kept.wans) {
            let Some(saved) = state.wans.get(&wan.name) else {
                continue;
            };
            *standing = Standing {
                admin: saved.admin.clone(),
                effective: saved.effective,
                since: saved.since,
            };
            for target in &wan.targets {
                let check = model.probe(target.probe).fingerprint();
                if let Some(verdict) = saved.targets.get(&check) {
                    kept.verdicts[target.probe.index()] = *verdict;
                }
            }
        }
        for (service, id) in model.services.iter().zip((0..).map(ServiceId)) {
            if let Some(answer) = state.last.get(&service.name) {
                kept.last.insert(id, answer.clone());
            }
        }
        kept
    }

    /// Takes over a change.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Verdict(id, verdict) => self.verdicts[id.index()] = verdict,
            Record::Server(id, standing) => self.servers[id.index()] = standing,
            Record::Wan(id, standing) => self.wans[id.index()] = standing,
            Record::Last(id, answer) => drop(self.last.insert(id, answer)),
        }
    }

    fn to_state(&self, model: &Model, generation: Generation) -> State {
        let verdict = |probe: ProbeId| self.verdicts[probe.index()];
        let servers = model
            .servers
            .iter()
            .zip(&self.servers)
            .map(|(server, standing)| {
                let checks = server.probes.iter();
                let checks =
                    checks.map(|probe| (model.probe(*probe).fingerprint(), verdict(*probe)));
                let saved = SavedServer {
                    checks: checks.collect(),
                    admin: standing.admin.clone(),
                    effective: standing.effective,
                    since: standing.since,
                };
                (server_key(model, server.service, &server.name), saved)
            });
        let wans = model.wans.iter().zip(&self.wans).map(|(wan, standing)| {
            let targets = wan.targets.iter().map(|target| {
                let check = model.probe(target.probe).fingerprint();
                (check, verdict(target.probe))
            });
            let saved = SavedWan {
                admin: standing.admin.clone(),
                effective: standing.effective,
                since: standing.since,
                targets: targets.collect(),
            };
            (wan.name.clone(), saved)
        });
        let last = self.last.iter();
        let last = last.map(|(id, answer)| (model.service(*id).name.clone(), answer.clone()));
        State {
            version: VERSION,
            generation,
            servers: servers.collect(),
            wans: wans.collect(),
            last: last.collect(),
        }
    }
}

impl State {
    /// As before the very first start.
    fn fresh() -> Self {
        Self {
            version: VERSION,
            generation: Generation(0),
            servers: BTreeMap::new(),
            wans: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let state: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if state.version != VERSION {
            return Err(format!("version {} of the format", state.version));
        }
        if state.generation.0 >= MOST_GENERATIONS {
            return Err(format!("generation {}", state.generation));
        }
        Ok(state)
    }
}

fn server_key(model: &Model, service: ServiceId, server: &str) -> String {
    format!("{}/{server}", model.service(service).name)
}

/// The file.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// Opens `state.json` in `dir`, which is made if it is missing.
    ///
    /// A file that cannot be understood is put aside as `state.json.bad`, with a warning.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made or the file cannot be read.
    pub fn open(dir: &Path) -> io::Result<(Self, State)> {
        fs::create_dir_all(dir)?;
        let path = dir.join("state.json");
        let state = match fs::read(&path) {
            Ok(text) => State::parse(&text).unwrap_or_else(|error| {
                let aside = dir.join("state.json.bad");
                warn!(file = %path.display(), %error, aside = %aside.display(), "saved state is unusable: starting afresh");
                // The next write replaces it anyway.
                let _ = fs::rename(&path, &aside);
                State::fresh()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                info!(file = %path.display(), "no saved state: starting afresh");
                State::fresh()
            }
            Err(error) => return Err(error),
        };
        Ok((Self { path }, state))
    }

    fn write(&self, state: &State) -> io::Result<()> {
        let temporary = self.path.with_extension("json.tmp");
        let mut file = fs::File::create(&temporary)?;
        let mut text = serde_json::to_vec(state)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(&temporary, &self.path)
    }
}

/// Writes the file on a thread of its own, at most once a second.
///
/// Dropping it without [`Saver::stop`] writes what is known and leaves the ceiling.
#[derive(Debug)]
pub struct Saver {
    messages: Option<Sender<Message>>,
    thread: Option<JoinHandle<()>>,
    ceiling: u64,
}

#[derive(Debug)]
enum Message {
    Record(Record),
    /// Write at once, and say when that is done.
    Flush(oneshot::Sender<()>),
    /// Another model, and what is kept by its ids.
    Model(Arc<Model>, Kept),
    /// Written at once.
    Generation(Generation),
}

impl Saver {
    /// Reserves the first generations after `last` in the file, and starts the thread.
    ///
    /// # Errors
    ///
    /// If the file cannot be written or there is no thread to be had.
    pub fn start(
        store: Store,
        model: Arc<Model>,
        kept: Kept,
        last: Generation,
    ) -> io::Result<Self> {
        let ceiling = last.0 + BLOCK;
        let writer = Writer {
            store,
            model,
            kept,
            generation: Generation(ceiling),
        };
        writer.write()?;
        let (messages, receiver) = channel();
        let thread = thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || writer.run(&receiver))?;
        Ok(Self {
            messages: Some(messages),
            thread: Some(thread),
            ceiling,
        })
    }

    /// Has a change written soon.
    pub fn record(&self, record: Record) {
        self.send(Message::Record(record));
    }

    /// Has all changes written at once. What this returns is ready when they are, and fails if
    /// they cannot be.
    #[must_use]
    pub fn flush(&self) -> oneshot::Receiver<()> {
        let (written, is_written) = oneshot::channel();
        self.send(Message::Flush(written));
        is_written
    }

    /// Has all of this written soon; what comes is by the ids of this model.
    pub fn adopt(&self, model: Arc<Model>, kept: Kept) {
        self.send(Message::Model(model, kept));
    }

    /// `generation` has been published: reserves more long before they are needed.
    pub fn published(&mut self, generation: Generation) {
        if generation.0 + BLOCK / 2 >= self.ceiling {
            self.ceiling = generation.0 + BLOCK;
            self.send(Message::Generation(Generation(self.ceiling)));
        }
    }

    /// Writes everything, with the generation that was really reached.
    pub fn stop(mut self, generation: Generation) {
        self.send(Message::Generation(generation));
        self.join();
    }

    fn send(&self, message: Message) {
        if let Some(messages) = &self.messages {
            // The thread ends only with `self`.
            let _ = messages.send(message);
        }
    }

    fn join(&mut self) {
        self.messages = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        self.join();
    }
}

struct Writer {
    store: Store,
    model: Arc<Model>,
    kept: Kept,
    generation: Generation,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut not_before = Instant::now();
        let mut dirty = false;
        loop {
            let message = if dirty {
                messages.recv_timeout(not_before.saturating_duration_since(Instant::now()))
            } else {
                messages.recv().map_err(RecvTimeoutError::from)
            };
            let last = matches!(message, Err(RecvTimeoutError::Disconnected));
            let mut waiting = None;
            match message {
                Ok(Message::Record(record)) => {
                    self.kept.apply(record);
                    dirty = true;
                    continue;
                }
                Ok(Message::Flush(written)) => waiting = Some(written),
                Ok(Message::Model(model, kept)) => {
                    (self.model, self.kept) = (model, kept);
                    dirty = true;
                    continue;
                }
                Ok(Message::Generation(generation)) => self.generation = generation,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if dirty => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let begun = Instant::now();
            let written = self.write();
            dirty = written.is_err();
            // A big file must not keep the disk busy.
            not_before = begun + PERIOD.max(begun.elapsed() * 20);
            if let Err(error) = written {
                warn!(file = %self.store.path.display(), %error, "cannot save the state");
                not_before = begun + RETRY;
            } else if let Some(waiting) = waiting {
                // Whoever asked may have gone.
                let _ = waiting.send(());
            }
            if last {
                return;
            }
        }
    }

    fn write(&self) -> io::Result<()> {
        self.store
            .write(&self.kept.to_state(&self.model, self.generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing;
    use crate::health::AdminState;

    fn kept(model: &Model) -> Kept {
        let mut kept = Kept::nothing(model);
        let since = Some(Timestamp::UNIX_EPOCH);
        kept.verdicts.fill(Verdict::Up);
        kept.servers.fill(Standing {
            admin: AdminState::Drain.into(),
            effective: Effective::Drain,
            since,
        });
        kept.wans.fill(Standing {
            admin: AdminState::Auto.into(),
            effective: Effective::Up,
            since,
        });
        kept
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made/on/the/way");
        let model = Arc::new(testing::reference());
        let (store, state) = Store::open(&dir).unwrap();
        assert_eq!(Kept::of(&state, &model), Kept::nothing(&model));

        let saver =
            Saver::start(store, Arc::clone(&model), kept(&model), state.generation).unwrap();
        // The reservation is in the file before anything is published.
        assert_eq!(Store::open(&dir).unwrap().1.generation, Generation(BLOCK));
        saver.record(Record::Verdict(ProbeId(0), Verdict::Down));
        saver.stop(Generation(7));

        let (_, state) = Store::open(&dir).unwrap();
        assert_eq!(state.generation, Generation(7));
        let mut want = kept(&model);
        want.verdicts[0] = Verdict::Down;
        assert_eq!(Kept::of(&state, &model), want);
        assert!(!dir.join("state.json.tmp").exists());
    }

    #[test]
    fn files_without_reasons_are_read() {
        let text = br#"{"version":1,"generation":3,"servers":{"www/web-a":{"checks":{},
            "admin":"maint","effective":"maint","since":null}},
            "wans":{"wan1":{"admin":"up","effective":"up","since":null,"targets":{}}},"last":{}}"#;
        let kept = Kept::of(&State::parse(text).unwrap(), &testing::reference());
        assert_eq!(kept.servers[0].admin, AdminState::Maint.into());
        assert_eq!(kept.wans[0].admin, AdminState::Up.into());
    }

    #[test]
    fn what_is_flushed_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let model = Arc::new(testing::reference());
        let (store, state) = Store::open(dir.path()).unwrap();
        let nothing = Kept::nothing(&model);
        let saver = Saver::start(store, Arc::clone(&model), nothing, state.generation).unwrap();
        for (state, turn) in [AdminState::Drain, AdminState::Maint].into_iter().zip(1..) {
            let standing = Standing {
                admin: Admin {
                    reason: Some(format!("turn {turn}").parse().unwrap()),
                    until: Some(Timestamp::UNIX_EPOCH),
                    ..state.into()
                },
                ..Standing::default()
            };
            saver.record(Record::Server(ServerId(0), standing.clone()));
            // Not after a second, but at once.
            saver.flush().blocking_recv().unwrap();
            let (_, saved) = Store::open(dir.path()).unwrap();
            assert_eq!(Kept::of(&saved, &model).servers[0].admin, standing.admin);
        }
        // Where it cannot be written, nobody is told that it is.
        fs::create_dir(dir.path().join("state.json.tmp")).unwrap();
        assert!(saver.flush().blocking_recv().is_err());
        fs::remove_dir(dir.path().join("state.json.tmp")).unwrap();
        saver.stop(Generation(1));
    }

    #[test]
    fn generations_are_reserved_ahead() {
        let dir = tempfile::tempdir().unwrap();
        let model = Arc::new(testing::reference());
        let (store, state) = Store::open(dir.path()).unwrap();
        let mut saver =
            Saver::start(store, Arc::clone(&model), kept(&model), state.generation).unwrap();
        for generation in 1..=BLOCK {
            saver.published(Generation(generation));
        }
        // As after a crash: the ceiling stays.
        drop(saver);
        let (_, state) = Store::open(dir.path()).unwrap();
        assert!(state.generation.0 > BLOCK, "{}", state.generation);
    }

    #[test]
    fn another_check_needs_another_verdict() {
        let old = testing::reference();
        let state = kept(&old).to_state(&old, Generation(1));
        let mut new = testing::reference();
        let [a, b] = ["web-a", "web-b"].map(|name| testing::probes(&new, name)[0].index());
        new.probes[a].egress.interface = Some("eth7".to_owned());
        let got = Kept::of(&state, &new);
        assert_eq!(
            [got.verdicts[a], got.verdicts[b]],
            [Verdict::Unknown, Verdict::Up]
        );
        // The operator's word belongs to the name.
        assert_eq!(
            got.servers[0],
            Standing {
                admin: AdminState::Drain.into(),
                ..Standing::default()
            }
        );
    }

    #[test]
    fn several_checks_are_kept_each_for_itself() {
        let with = |checks: &str| {
            testing::example(&format!(
                "[[service.server]]\nname = \"web-d\"\naddress = \"192.0.2.201\"\noffsite = true\ncheck = {checks}\n"
            ))
        };
        let old = with("[{ type = \"tcp\" }, { type = \"http\" }]");
        let state = kept(&old).to_state(&old, Generation(1));
        let since = Some(Timestamp::UNIX_EPOCH);
        // (checks now, their verdicts, since when the state of the server is as it is)
        let (up, unknown) = (Verdict::Up, Verdict::Unknown);
        for (checks, verdicts, want) in [
            (
                "[{ type = \"tcp\" }, { type = \"http\" }]",
                &[up, up][..],
                since,
            ),
            (
                "[{ type = \"http\" }, { type = \"tcp\" }]",
                &[up, up],
                since,
            ),
            (
                "[{ type = \"tcp\" }, { type = \"http\", rise = 9 }]",
                &[up, up],
                since,
            ),
            // Another question needs another answer.
            (
                "[{ type = \"tcp\" }, { type = \"http\", expect = [204] }]",
                &[up, unknown],
                None,
            ),
            (
                "[{ type = \"tcp\" }, { type = \"https\" }]",
                &[up, unknown],
                None,
            ),
            ("{ type = \"tcp\" }", &[up], None),
        ] {
            let new = with(checks);
            let got = Kept::of(&state, &new);
            let server = new.servers.last().unwrap();
            let found = server
                .probes
                .iter()
                .map(|probe| got.verdicts[probe.index()]);
            assert_eq!(found.collect::<Vec<_>>(), verdicts, "{checks}");
            let standing = got.servers.last().unwrap();
            assert_eq!(
                (standing.admin.state, standing.since),
                (AdminState::Drain, want),
                "{checks}"
            );
        }
    }

    #[test]
    fn broken_files_are_put_aside() {
        for text in ["", "{}", "{\"version\":", "[1]", "\u{0}"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("state.json"), text).unwrap();
            assert_eq!(
                Store::open(dir.path()).unwrap().1,
                State::fresh(),
                "{text:?}"
            );
            assert_eq!(
                fs::read_to_string(dir.path().join("state.json.bad")).unwrap(),
                text
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let model = testing::reference();
        let mut state = Kept::nothing(&model).to_state(&model, Generation(1 << 39));
        for version in [VERSION, VERSION + 1] {
            state.version = version;
            Store {
                path: dir.path().join("state.json"),
            }
            .write(&state)
            .unwrap();
            assert_eq!(Store::open(dir.path()).unwrap().1, State::fresh());
            state.generation = Generation(1);
        }
    }
}
