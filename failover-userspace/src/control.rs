//! The unix socket behind `failover status` and its siblings.
//!
//! Several clients at once, each with a bounded request and a bounded patience. Nothing here
//! holds state: what a client asks goes to the controller, except for the search for a name, and
//! for the journal, which `events` reads by itself.

mod events;

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::Mode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::controller::Query;
use crate::journal::Reader;
use crate::model::{Model, ServiceId};
use crate::protocol::{JournalStats, MAX_REQUEST, Reply, Request, Stats, Status};
use crate::webhook::Webhooks;

/// Clients at once; more wait.
const MOST_CLIENTS: usize = 64;
/// A client that asks nothing for so long is sent away.
const IDLE: Duration = Duration::from_secs(60);
/// A client that does not read its reply for so long is given up.
const WRITE: Duration = Duration::from_secs(10);
/// What running requests get when the daemon stops.
const GRACE: Duration = Duration::from_secs(1);

/// The socket, bound; its file is removed with it.
#[derive(Debug)]
pub struct Socket {
    listener: StdListener,
    _file: File,
}

/// What clients can see without the controller.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What has happened.
    pub journal: Reader,
    /// Who is told of it.
    pub webhooks: Arc<Webhooks>,
}

#[derive(Debug)]
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Socket {
    /// Binds the socket at `path`, for its owner and group. Makes the directory, and replaces
    /// the socket of a daemon that is dead.
    ///
    /// Sets the process's umask for a moment: call it while there is one thread.
    ///
    /// # Errors
    ///
    /// If a daemon answers there, something else is there, or the file system refuses.
    pub fn bind(path: &Path) -> Result<Self> {
        let shown = path.display();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => bail!("{shown} exists and is no socket"),
            Ok(_) => match StdStream::connect(path) {
                Ok(_) => bail!("a daemon is already running: it answers at {shown}"),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).with_context(|| format!("remove the stale {shown}"))?;
                }
                Err(error) => return Err(error).with_context(|| format!("try {shown}")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("look at {shown}")),
        }
        let before = rustix::process::umask(Mode::from_raw_mode(0o117));
        let bound = StdListener::bind(path);
        rustix::process::umask(before);
        let listener = bound.with_context(|| format!("bind {shown}"))?;
        let file = File(path.to_path_buf());
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            _file: file,
        })
    }

    /// Serves clients until `stop` changes or is dropped; then lets running requests end.
    ///
    /// # Errors
    ///
    /// If the socket cannot be used.
    pub async fn serve(
        self,
        model: Arc<Model>,
        queries: mpsc::Sender<Query>,
        sources: Sources,
        mut stop: watch::Receiver<()>,
    ) -> io::Result<()> {
        let Self { listener, _file } = self;
        let listener = UnixListener::from_std(listener)?;
        let controller = Arc::new(Controller {
            model,
            queries,
            events: events::Events::new(sources.journal.clone()),
            sources,
        });
        let permits = Arc::new(Semaphore::new(MOST_CLIENTS));
        let mut clients = JoinSet::new();
        loop {
            let accepted = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&permits).acquire_owned().await;
                (listener.accept().await, permit)
            };
            tokio::select! {
                (accepted, permit) = accepted => match accepted {
                    Ok((stream, _)) => {
                        let controller = Arc::clone(&controller);
                        let stop = stop.clone();
                        clients.spawn(async move {
                            let _permit = permit;
                            if let Err(error) = client(stream, &controller, stop).await {
                                debug!(%error, "control client");
                            }
                        });
                    }
                    Err(error) => {
                        debug!(%error, "accept on the control socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = clients.join_next() => {}
                _ = stop.changed() => break,
            }
        }
        let _ = timeout(GRACE, async {
            while clients.join_next().await.is_some() {}
        })
        .await;
        Ok(())
    }
}

async fn client(
    stream: UnixStream,
    controller: &Controller,
    mut stop: watch::Receiver<()>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(MAX_REQUEST as u64 + 1);
        let read = tokio::select! {
            read = timeout(IDLE, bounded.read_until(b'\n', &mut line)) => read,
            _ = stop.changed() => return Ok(()),
        };
        match read {
            Err(_) => return Ok(()),
            Ok(read) => {
                if read? == 0 {
                    return Ok(());
                }
            }
        }
        let too_long = line.len() > MAX_REQUEST;
        let reply = if too_long {
            Reply::Error(format!("a request has at most {MAX_REQUEST} octets"))
        } else {
            match serde_json::from_slice(&line) {
                Ok(Request::Events {
                    filter,
                    last,
                    follow,
                }) => {
                    let wanted = events::Wanted {
                        filter,
                        last,
                        follow,
                    };
                    let events = &controller.events;
                    match events
                        .send(wanted, &mut reader, &mut writer, &mut stop)
                        .await?
                    {
                        events::Sent::All => continue,
                        events::Sent::NoMore => return Ok(()),
                    }
                }
                Ok(request) => controller.reply(request).await,
                Err(error) => Reply::Error(format!("not a request of this version: {error}")),
            }
        };
        send(&mut writer, [&reply]).await?;
        if too_long {
            return Ok(());
        }
    }
}

/// Sends replies, one on each line, to a client that reads them in time.
async fn send<'a>(
    writer: &mut OwnedWriteHalf,
    replies: impl IntoIterator<Item = &'a Reply>,
) -> io::Result<()> {
    let mut text = Vec::new();
    for reply in replies {
        serde_json::to_writer(&mut text, reply)?;
        text.push(b'\n');
    }
    timeout(WRITE, writer.write_all(&text)).await?
}

/// The way to the controller.
struct Controller {
    model: Arc<Model>,
    queries: mpsc::Sender<Query>,
    events: events::Events,
    sources: Sources,
}

impl Controller {
    async fn reply(&self, request: Request) -> Reply {
        let reply = match request {
            Request::Status {} => self.status().await.map(Reply::Status),
            Request::Explain { name } => self.explain(name).await,
            Request::Stats {} => self.stats().await.map(Reply::Stats),
            Request::Detach {} => self.ask(Query::Detach).await.map(Reply::Detached),
            Request::Events { .. } => Err(anyhow!("events have replies of their own")),
        };
        reply.unwrap_or_else(|error| Reply::Error(format!("{error:#}")))
    }

    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T> {
        const STOPPING: &str = "the daemon is stopping";
        let (sender, receiver) = oneshot::channel();
        self.queries
            .send(query(sender))
            .await
            .ok()
            .context(STOPPING)?;
        receiver.await.ok().context(STOPPING)
    }

    async fn status(&self) -> Result<Status> {
        let mut part = self.ask(|reply| Query::Status(0, reply)).await??;
        let mut services = std::mem::take(&mut part.status.services);
        while let Some(from) = part.next {
            part = self.ask(|reply| Query::Status(from, reply)).await??;
            services.append(&mut part.status.services);
        }
        Ok(Status {
            services,
            ..part.status
        })
    }

    async fn stats(&self) -> Result<Stats> {
        let mut part = self.ask(|reply| Query::Stats(0, reply)).await??;
        let mut services = std::mem::take(&mut part.stats.services);
        while let Some(from) = part.next {
            part = self.ask(|reply| Query::Stats(from, reply)).await??;
            services.append(&mut part.stats.services);
        }
        let (recorded, lost) = self.sources.journal.counts();
        Ok(Stats {
            services,
            journal: JournalStats { recorded, lost },
            webhooks: self.sources.webhooks.stats(),
            ..part.stats
        })
    }

    async fn explain(&self, name: String) -> Result<Reply> {
        let Some(id) = find(&self.model, &name) else {
            bail!("no service is called {name:?}, and none answers for that name");
        };
        let explain = self.ask(|reply| Query::Explain(name, id, reply)).await?;
        Ok(Reply::Explain(Box::new(explain)))
    }
}

/// The service that answers for a name, or else the one that is called so.
fn find(model: &Model, name: &str) -> Option<ServiceId> {
    let services = || model.services.iter().zip((0..).map(ServiceId));
    let wanted = domain::base::Name::<Vec<u8>>::from_str(name).ok();
    let by_fqdn = wanted.and_then(|wanted| {
        services().find(|(service, _)| service.fqdn.iter().any(|fqdn| fqdn.name == wanted))
    });
    by_fqdn
        .or_else(|| services().find(|(service, _)| service.name == name))
        .map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn names_are_found() {
        let model = testing::reference();
        for (name, found) in [
            ("www.example.com", true),
            ("WWW.Example.COM.", true),
            ("www", true),
            ("example.com", false),
            ("", false),
            ("..", false),
        ] {
            assert_eq!(find(&model, name).is_some(), found, "{name:?}");
        }
    }

    #[test]
    fn one_daemon_per_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let first = Socket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = Socket::bind(&path).unwrap_err().to_string();
        assert!(error.starts_with("a daemon is already running"), "{error}");
        drop(first);
        assert!(!path.exists());

        // As after a kill: the file stays, and nobody listens.
        drop(StdListener::bind(&path).unwrap());
        drop(Socket::bind(&path).unwrap());

        fs::write(&path, "").unwrap();
        let error = Socket::bind(&path).unwrap_err().to_string();
        assert!(error.ends_with("is no socket"), "{error}");
    }
}
