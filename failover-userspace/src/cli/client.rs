//! The client's side of the socket.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::{DEFAULT_CONFIG, Daemon};
use crate::config::{self, DEFAULT_BPF_DIR, DEFAULT_CONTROL_SOCKET, Diagnostics};
use crate::protocol::{Reply, Request};

/// How long the daemon may take for a reply.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a daemon.
pub(super) struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Daemon {
    /// Where its socket is.
    ///
    /// Reads no more of the configuration than that: a running daemon can be asked, whatever
    /// has become of its file.
    fn socket(&self) -> Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let table = self
            .table()
            .context("where is the daemon's socket? say --socket PATH")?;
        let server = table.get("server");
        let socket = server.and_then(|server| server.get("control_socket")?.as_str());
        let socket = socket.unwrap_or(DEFAULT_CONTROL_SOCKET);
        Ok(self.directory().join(socket))
    }

    /// Where it pins its program; `None`: not known.
    pub(super) fn bpf_dir(&self) -> Result<Option<PathBuf>> {
        if self.socket.is_some() {
            return Ok(None);
        }
        let table = self.table()?;
        let server = table.get("server");
        let dir = server.and_then(|server| server.get("bpf_dir")?.as_str());
        let dir = dir.unwrap_or(DEFAULT_BPF_DIR);
        Ok(Some(self.directory().join(dir)))
    }

    /// Whether its configuration asks for port forwarding, as far as it is known.
    pub(super) fn forwards(&self) -> Result<bool> {
        if self.socket.is_some() {
            return Ok(false);
        }
        let table = self.table()?;
        let section = table.get("port_forward");
        let enabled = section.and_then(|section| section.get("enabled")?.as_bool());
        Ok(enabled.unwrap_or(false))
    }

    fn file(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG))
    }

    /// What the paths in the configuration are relative to.
    fn directory(&self) -> &Path {
        self.file().parent().unwrap_or(Path::new(""))
    }

    /// The configuration as TOML; empty when there is none and none was named.
    fn table(&self) -> Result<toml::Table> {
        let file = self.file();
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.config.is_none() => {
                String::new()
            }
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        text.parse()
            .map_err(|error: toml::de::Error| anyhow!("{}: {}", file.display(), error.message()))
    }

    /// What is wrong with the configuration, if it does not even tell where the socket is.
    pub(super) fn mistakes(&self) -> Option<Diagnostics> {
        if self.socket().is_ok() {
            return None;
        }
        let file = self.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
        config::load(file).err()
    }

    /// Connects to the daemon.
    pub(super) fn connect(&self) -> Result<Client> {
        self.try_connect()?.map_err(anyhow::Error::from)
    }

    /// As [`Daemon::connect`]; tells apart that there is nobody.
    pub(super) fn try_connect(&self) -> Result<Result<Client, NoDaemon>> {
        let path = self.socket()?;
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(source) => return Ok(Err(NoDaemon { path, source })),
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Ok(Client {
            path,
            stream: BufReader::new(stream),
        }))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{} {}", self.trouble(), path.display())]
pub(super) struct NoDaemon {
    path: PathBuf,
    source: io::Error,
}

impl NoDaemon {
    /// Whether there is none, as opposed to one that cannot be asked.
    pub(super) fn is_certain(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        matches!(self.source.kind(), ConnectionRefused | NotFound)
    }

    fn trouble(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => {
                "neither control_read nor control_change lets you use"
            }
            _ => "no daemon answers at",
        }
    }
}

impl Client {
    /// Gives the daemon so long for its replies.
    pub(super) fn wait_for(&self, patience: Duration) -> Result<()> {
        self.stream.get_ref().set_read_timeout(Some(patience))?;
        Ok(())
    }

    /// Asks, and waits for the reply; a refusal is an error.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Reply> {
        self.send(request)?;
        match self.receive()? {
            Some(reply) => Ok(reply),
            None => bail!(self.lost()),
        }
    }

    /// Asks.
    pub(super) fn send(&mut self, request: &Request) -> Result<()> {
        let mut text = serde_json::to_vec(request)?;
        text.push(b'\n');
        let sent = self.stream.get_mut().write_all(&text);
        sent.with_context(|| self.lost())
    }

    /// Waits for a reply; a refusal is an error. `None`: the daemon has hung up.
    pub(super) fn receive(&mut self) -> Result<Option<Reply>> {
        let mut line = Vec::new();
        let read = self.stream.read_until(b'\n', &mut line);
        read.with_context(|| self.lost())?;
        if !line.ends_with(b"\n") {
            return Ok(None);
        }
        let reply = serde_json::from_slice(&line).with_context(|| {
            let path = self.path.display();
            format!("the daemon at {path} is of another version than this command")
        })?;
        match reply {
            Reply::Error(why) => bail!(why),
            reply => Ok(Some(reply)),
        }
    }

    /// From now on waits for replies for as long as it takes.
    pub(super) fn wait_for_ever(&self) -> Result<()> {
        Ok(self.stream.get_ref().set_read_timeout(None)?)
    }

    fn lost(&self) -> String {
        format!("no reply from the daemon at {}", self.path.display())
    }
}

/// The reply is to another request.
pub(super) fn unexpected() -> anyhow::Error {
    anyhow!("the daemon's reply is to another request")
}
