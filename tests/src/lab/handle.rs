//! A lab seen from anywhere: by its directory.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::processes::{self, StartTime};
use super::{Config, Host, Netns, RUN_DIR, Server, Wan, files, serve_command};
use crate::command;

/// How long a server may take to listen, and a link to come up.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a lab was started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A test.
    Test,
    /// `cargo xtask bench`.
    Bench,
    /// `cargo xtask demo`.
    Demo,
    /// `cargo xtask run`, the one that somebody plays with.
    Run,
}

/// What a WAN link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Works.
    Up,
    /// Has lost its carrier.
    Down,
    /// Has its carrier, but nothing that leaves by it arrives.
    BlackHole,
}

/// `lab.json`: what other processes need to know about a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    pid: u32,
    started: StartTime,
    purpose: Purpose,
    serve: Vec<OsString>,
}

/// A lab by its directory; operates it, but does not own it.
#[derive(Clone, Debug)]
pub struct Handle {
    id: String,
    dir: PathBuf,
    record: Record,
}

impl Handle {
    pub(super) fn create(count: u32, purpose: Purpose, serve: Vec<OsString>) -> Result<Self> {
        let pid = std::process::id();
        let started = processes::start_time(pid).context("cannot read our own /proc entry")?;
        let id = match count {
            0 => pid.to_string(),
            n => format!("{pid}-{n}"),
        };
        let dir = Path::new(RUN_DIR).join(&id);
        let record = Record {
            pid,
            started,
            purpose,
            serve,
        };
        for sub in ["processes", "logs", "state"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).with_context(|| format!("cannot create {}", sub.display()))?;
        }
        fs::write(dir.join("lab.json"), serde_json::to_vec_pretty(&record)?)?;
        Ok(Self { id, dir, record })
    }

    /// Opens the lab of that id.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn open(id: &str) -> Result<Self> {
        let dir = Path::new(RUN_DIR).join(id);
        let record = fs::read(dir.join("lab.json")).with_context(|| format!("no lab {id}"))?;
        let record = serde_json::from_slice(&record)
            .with_context(|| format!("{}/lab.json is damaged", dir.display()))?;
        Ok(Self {
            id: id.to_owned(),
            dir,
            record,
        })
    }

    /// All labs whose owner is alive; the one most likely meant comes first.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let ids = fs::read_dir(RUN_DIR).into_iter().flatten().flatten();
        let ids = ids.filter_map(|entry| entry.file_name().into_string().ok());
        let mut labs: Vec<_> = ids
            .filter_map(|id| Self::open(&id).ok())
            .filter(Self::is_alive)
            .collect();
        labs.sort_by_key(|lab| std::cmp::Reverse((lab.record.purpose, lab.record.started)));
        labs
    }

    /// The lab's id, part of its namespaces' names.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it was started for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.record.purpose
    }

    /// The directory of its files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("failover.toml")
    }

    /// The daemon's directory on bpffs.
    #[must_use]
    pub fn bpf_dir(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(format!("failover-lab-{}", self.id))
    }

    /// The namespace of a host.
    #[must_use]
    pub fn netns(&self, host: Host) -> Netns {
        Netns::named(format!("fo-{}-{host}", self.id))
    }

    /// Whether the process that started the lab still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        processes::start_time(self.record.pid) == Some(self.record.started)
    }

    /// Writes the configuration file.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn configure(&self, config: &Config) -> Result<()> {
        let file = self.config_file();
        fs::write(&file, config.render(&self.dir, &self.bpf_dir()))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Writes the configuration file from one that says nothing of interfaces and directories.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written.
    pub fn configure_from(&self, from: &Path) -> Result<()> {
        let text = fs::read_to_string(from).with_context(|| from.display().to_string())?;
        let config = files::in_lab(&text, &self.dir, &self.bpf_dir())
            .with_context(|| format!("no [server] in {}", from.display()))?;
        let file = self.config_file();
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Starts a program on a host, its output in a log of that name. It ends with the lab, if not
    /// before.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start_program(&self, name: &str, host: Host, command: &mut Command) -> Result<Child> {
        processes::start(self, name, host, command)
    }

    /// Starts a program on a host, its output as the command says. It ends with the lab, if not
    /// before.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start_piped(&self, name: &str, host: Host, command: &mut Command) -> Result<Child> {
        processes::spawn(self, name, host, command)
    }

    /// Ends a program that [`start_program`](Self::start_program) started; returns whether it ran.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop_program(&self, name: &str) -> Result<bool> {
        processes::stop(self, name, processes::Stop::Politely)
    }

    /// Where a program of that name logs.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(name)
    }

    /// Starts a server, or takes it out of its black hole. One that serves stays as it is.
    ///
    /// # Errors
    ///
    /// When it does not come to listen.
    pub fn revive(&self, server: Server) -> Result<()> {
        if has_own_host(server) {
            self.discard(server.host(), "eth0", Discard::Nothing)?;
        }
        if processes::running(self, server.name()).is_some() {
            return Ok(());
        }
        let mut command = serve_command(&self.record.serve)?;
        command
            .args([server.listens_on(), server.name()])
            .stdin(Stdio::null());
        processes::start(self, server.name(), server.host(), &mut command)?;
        self.wait_until_listening(server)
    }

    /// Kills a server: connections to it are refused from now on.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn kill(&self, server: Server) -> Result<()> {
        if !processes::stop(self, server.name(), processes::Stop::Kill)? {
            bail!("{} does not run", server.name());
        }
        Ok(())
    }

    /// Puts a server into a black hole: connections to it time out, until it is revived.
    ///
    /// # Errors
    ///
    /// When it has no host of its own.
    pub fn black_hole(&self, server: Server) -> Result<()> {
        if !has_own_host(server) {
            bail!("{} has no host of its own; kill it instead", server.name());
        }
        self.discard(server.host(), "eth0", Discard::Everything)
    }

    /// Whether the server's process runs.
    #[must_use]
    pub fn serves(&self, server: Server) -> bool {
        processes::running(self, server.name()).is_some()
    }

    /// Waits until the kernel has taken note that an interface has its carrier.
    ///
    /// # Errors
    ///
    /// When it does not within seconds.
    pub fn wait_until_up(&self, host: Host, interface: &str) -> Result<()> {
        let netns = self.netns(host);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut show = command::command("ip");
            show.args([
                "-n",
                netns.name(),
                "-oneline",
                "link",
                "show",
                "dev",
                interface,
            ]);
            if command::output(&mut show)?.contains(" state UP ") {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{interface} of {host} does not come up");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Changes what a WAN link does.
    ///
    /// # Errors
    ///
    /// What `ip` complains about.
    pub fn set_link(&self, wan: Wan, state: LinkState) -> Result<()> {
        let inet = self.netns(Host::Inet);
        let carrier = |state| inet.ip(&["link", "set", wan.name(), state]);
        match state {
            // Nothing else, so that the moment is known to whoever measures.
            LinkState::Down => carrier("down"),
            LinkState::Up => {
                self.discard(Host::Inet, wan.name(), Discard::Nothing)?;
                carrier("up")
            }
            LinkState::BlackHole => {
                carrier("up")?;
                self.discard(Host::Inet, wan.name(), Discard::Everything)
            }
        }
    }

    /// Makes a host discard what an interface receives, or take it again.
    fn discard(&self, host: Host, interface: &str, what: Discard) -> Result<()> {
        let netns = self.netns(host);
        for family in ["-4", "-6"] {
            let rule = |verb| {
                [
                    family,
                    "rule",
                    verb,
                    "pref",
                    "1",
                    "iif",
                    interface,
                    "blackhole",
                ]
            };
            // Fails when there is none, which is as good.
            netns.ip(&rule("delete")).ok();
            if what == Discard::Everything {
                netns.ip(&rule("add"))?;
            }
        }
        Ok(())
    }

    fn wait_until_listening(&self, server: Server) -> Result<()> {
        let address: SocketAddr = server.listens_on().replace("[::]", "[::1]").parse()?;
        let deadline = Instant::now() + PATIENCE;
        self.netns(server.host()).enter(|| {
            while TcpStream::connect(address).is_err() {
                if Instant::now() > deadline {
                    bail!(
                        "{} does not listen on {address}; see its log in {}/logs",
                        server.name(),
                        self.dir.display()
                    );
                }
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Discard {
    Nothing,
    Everything,
}

fn has_own_host(server: Server) -> bool {
    server.host() != Host::Inet
}
