//! The unix socket behind `failover status` and its siblings.
//!
//! Several clients at once, each with a bounded request and a bounded patience. Nothing here
//! holds state: what a client asks goes to the controller, except for the search for a name, and
//! for the journal, which `events` reads by itself.
//!
//! Each request needs a right ([`crate::rights`]), which the client's user and groups have or
//! have not. The mode of the socket's file is wide enough for all who have one.

mod events;
mod peer;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::Mode;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::controller::{Asked, Query, Reload, Set, WhenBusy};
use crate::health::Order;
use crate::journal::Reader;
use crate::model::{Model, ServiceId};
use crate::protocol::{JournalStats, MAX_REQUEST, Reply, Request, SetResult, Stats, Status};
use crate::rights::{Access, Peer, Right, Rights};
use crate::webhook::Webhooks;

/// Clients at once that may change something; more wait.
const MOST_CLIENTS: usize = 64;
/// Other clients at once; more are sent away, so that they keep nobody waiting who matters more.
const MOST_READERS: usize = 64;
/// A client that asks nothing for so long is sent away.
const IDLE: Duration = Duration::from_secs(60);
/// A client that does not read its reply for so long is given up.
const WRITE: Duration = Duration::from_secs(10);
/// How long what was set may take to be saved before the client is told that it is not.
const SAVE: Duration = Duration::from_secs(5);
/// What running requests get when the daemon stops.
const GRACE: Duration = Duration::from_secs(1);

/// The socket, bound; its file is removed with it.
#[derive(Debug)]
pub struct Socket {
    listener: StdListener,
    file: File,
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

impl File {
    /// Lets in whoever may come from now on.
    fn admit(&self, access: &Access) {
        let path = &self.0;
        warn_if_closed(path, access);
        if let Err(error) = fs::set_permissions(path, Permissions::from_mode(mode(access))) {
            warn!(file = %path.display(), %error, "the control socket lets in who could come before");
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens at a path, with no more than these permissions at any time: the file has those of the socket
/// that it is made for, less what the umask takes.
fn listen(path: &Path, mode: u32) -> io::Result<StdListener> {
    /// Connections that may wait, as in the standard library.
    const BACKLOG: i32 = 128;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

impl Socket {
    /// Binds the socket at `path`, for its owner and group, or for everybody if `access` gives
    /// anything to others. Makes the directory, and replaces the socket of a daemon that is dead.
    ///
    /// # Errors
    ///
    /// If a daemon answers there, something else is there, or the file system refuses.
    pub fn bind(path: &Path, access: &Access) -> Result<Self> {
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
        warn_if_closed(path, access);
        let listener = listen(path, mode(access)).with_context(|| format!("bind {shown}"))?;
        let file = File(path.to_path_buf());
        fs::set_permissions(path, Permissions::from_mode(mode(access)))
            .with_context(|| format!("permissions of {shown}"))?;
        Ok(Self { listener, file })
    }

    /// Serves clients until `stop` changes or is dropped; then lets running requests end.
    ///
    /// # Errors
    ///
    /// If the socket cannot be used.
    pub async fn serve(
        self,
        models: watch::Receiver<Arc<Model>>,
        queries: mpsc::Sender<Asked>,
        sources: Sources,
        mut stop: watch::Receiver<()>,
    ) -> io::Result<()> {
        let Self { listener, file } = self;
        let listener = UnixListener::from_std(listener)?;
        let mut settings = models.clone();
        let door = Arc::new(Door {
            models,
            queries,
            own: rustix::process::geteuid().as_raw(),
            events: events::Events::new(sources.journal.clone()),
            sources,
        });
        let permits = Arc::new(Semaphore::new(MOST_CLIENTS));
        let readers = Arc::new(Semaphore::new(MOST_READERS));
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
                        let Some((peer, permit)) = door.admit(&stream, permit.ok(), &readers) else {
                            continue;
                        };
                        let door = Arc::clone(&door);
                        let stop = stop.clone();
                        clients.spawn(async move {
                            let _permit = permit;
                            if let Err(error) = client(stream, &peer, &door, stop).await {
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
                Ok(()) = settings.changed() => {
                    let model = Arc::clone(&settings.borrow_and_update());
                    file.admit(&model.settings.control);
                }
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

/// Of the socket's file: its owner and group, or all, as their rights are looked at anyway.
fn mode(access: &Access) -> u32 {
    if access.is_nobody() { 0o660 } else { 0o666 }
}

/// Says so if those who may use the socket cannot get at it.
fn warn_if_closed(path: &Path, access: &Access) {
    if access.is_nobody() {
        return;
    }
    const SEARCH_BY_OTHERS: u32 = 0o001;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let mode = fs::metadata(directory).map(|metadata| metadata.mode());
    if mode.is_ok_and(|mode| mode & SEARCH_BY_OTHERS == 0) {
        warn!(
            directory = %directory.display(),
            "control_read or control_change lets others use the socket, but its directory lets none in"
        );
    }
}

async fn client(
    stream: UnixStream,
    peer: &Peer,
    door: &Door,
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
        let request = if too_long {
            Err(format!("a request has at most {MAX_REQUEST} octets"))
        } else {
            serde_json::from_slice(&line)
                .map_err(|error| format!("not a request of this version: {error}"))
        };
        let request = match request {
            Ok(request) => door.check(peer, request).await,
            Err(error) => Err(error),
        };
        let reply = match request {
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
                let events = &door.events;
                match events
                    .send(wanted, &mut reader, &mut writer, &mut stop)
                    .await?
                {
                    events::Sent::All => continue,
                    events::Sent::NoMore => return Ok(()),
                }
            }
            Ok(request) => door.reply(peer, request).await,
            Err(error) => Reply::Error(error),
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

/// The way to the controller, whatever its model.
struct Door {
    models: watch::Receiver<Arc<Model>>,
    queries: mpsc::Sender<Asked>,
    /// The daemon's own user.
    own: u32,
    events: events::Events,
    sources: Sources,
}

impl Door {
    fn rights(&self) -> Rights {
        Rights::new(self.models.borrow().settings.control.clone(), self.own)
    }

    /// Who has connected, and a place for them; `permit` is one for who may change something.
    fn admit(
        &self,
        stream: &UnixStream,
        permit: Option<OwnedSemaphorePermit>,
        readers: &Arc<Semaphore>,
    ) -> Option<(Peer, OwnedSemaphorePermit)> {
        let peer = match Peer::of(stream) {
            Ok(peer) => peer,
            Err(error) => {
                debug!(%error, "control client of whom the kernel knows nothing");
                return None;
            }
        };
        if self.rights().allow(&peer, Right::Change) {
            return Some((peer, permit?));
        }
        match Arc::clone(readers).try_acquire_owned() {
            Ok(permit) => Some((peer, permit)),
            Err(_) => {
                debug!(uid = peer.uid, "control client sent away: too many");
                None
            }
        }
    }

    /// The request, if the client has the right to it; otherwise why not.
    async fn check(&self, peer: &Peer, request: Request) -> Result<Request, String> {
        let right = request.right();
        if self.rights().allow(peer, right) {
            return Ok(request);
        }
        let who = in_words(peer, Peer::described).await;
        let key = right.key();
        info!(who, %right, "refused over the control socket");
        Err(format!(
            "you are {who} and may not {right} anything: only root, the daemon's own user, and those in {key} of [server] may"
        ))
    }

    /// The reply to a request that the client has the right to. What is asked while the model
    /// changes is asked again by the new one.
    async fn reply(&self, peer: &Peer, request: Request) -> Reply {
        loop {
            let model = Arc::clone(&self.models.borrow());
            let controller = Controller {
                model: Arc::clone(&model),
                queries: &self.queries,
                sources: &self.sources,
            };
            let reply = controller.reply(peer, request.clone()).await;
            let is_of_now = Arc::ptr_eq(&model, &self.models.borrow());
            match reply {
                Ok(reply) => return reply,
                Err(error) if is_of_now => return Reply::Error(format!("{error:#}")),
                Err(_) => {}
            }
        }
    }
}

/// The way to the controller while it has this model.
struct Controller<'a> {
    model: Arc<Model>,
    queries: &'a mpsc::Sender<Asked>,
    sources: &'a Sources,
}

impl Controller<'_> {
    async fn reply(&self, peer: &Peer, request: Request) -> Result<Reply> {
        match request {
            Request::Status {} => self.status().await.map(Reply::Status),
            Request::Explain { name } => self.explain(name).await,
            Request::Stats {} => self.stats().await.map(Reply::Stats),
            Request::Set { targets, order } => self.set(peer, targets, order).await.map(Reply::Set),
            Request::Detach {} => self.ask(Query::Detach).await.map(Reply::Detached),
            Request::Reload {} => self.reload(peer).await,
            Request::Events { .. } => Err(anyhow!("events have replies of their own")),
        }
    }

    async fn reload(&self, peer: &Peer) -> Result<Reply> {
        let by = in_words(peer, Peer::name).await.into();
        let reload = |reply| {
            Query::Reload(Reload {
                when_busy: WhenBusy::Refuse,
                by,
                reply,
            })
        };
        Ok(match self.ask(reload).await? {
            Ok(reloaded) => Reply::Reloaded(Box::new(reloaded)),
            Err(errors) => Reply::NotReloaded(errors),
        })
    }

    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T> {
        const STOPPING: &str = "the daemon is stopping";
        let (sender, receiver) = oneshot::channel();
        let asked = Asked::of(&self.model, query(sender));
        self.queries.send(asked).await.ok().context(STOPPING)?;
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

    async fn set(&self, peer: &Peer, targets: Vec<String>, order: Order) -> Result<SetResult> {
        let by = in_words(peer, Peer::name).await.into();
        let set = Set { targets, order, by };
        let (mut result, saved) = self.ask(|reply| Query::Set(set, reply)).await??;
        result.saved = matches!(timeout(SAVE, saved).await, Ok(Ok(())));
        Ok(result)
    }

    async fn explain(&self, name: String) -> Result<Reply> {
        let Some(id) = find(&self.model, &name) else {
            bail!("no service is called {name:?}, and none answers for that name");
        };
        let explain = self.ask(|reply| Query::Explain(name, id, reply)).await?;
        Ok(Reply::Explain(Box::new(explain)))
    }
}

/// Who somebody is. A directory service may be asked, so this is not for a thread of tasks.
async fn in_words(peer: &Peer, words: fn(&Peer) -> String) -> String {
    let (who, uid) = (peer.clone(), peer.uid);
    let asked = tokio::task::spawn_blocking(move || words(&who));
    asked.await.unwrap_or_else(|_| format!("uid {uid}"))
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
    use crate::journal::Recorder;
    use crate::protocol::{Detached, Removed};
    use crate::rights::Who;

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

    #[tokio::test]
    async fn what_is_asked_while_the_model_changes_is_asked_again() {
        let [old, new] = [(); 2].map(|()| Arc::new(testing::reference()));
        let (models, receiver) = watch::channel(Arc::clone(&old));
        let (queries, mut asked) = mpsc::channel(1);
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(dir.path(), Box::new(|_| {})).unwrap();
        let door = door(receiver, queries, &recorder);
        let was_detached = Detached {
            interfaces: vec!["eth0".to_owned()],
            rules: Ok(Removed::Nothing),
        };
        let controller = async {
            let first: Asked = asked.recv().await.unwrap();
            assert!(first.is_of(&old));
            models.send_replace(Arc::clone(&new));
            drop(first);
            let second = asked.recv().await.unwrap();
            assert!(second.is_of(&new) && !second.is_of(&old));
            let Query::Detach(reply) = second.query else {
                panic!("{second:?}");
            };
            reply.send(was_detached.clone()).unwrap();
            // Without another model there is nobody to be asked again.
            drop(asked.recv().await.unwrap());
        };
        let client = async {
            let peer = Peer::default();
            let detached = door.reply(&peer, Request::Detach {}).await;
            let stopping = door.reply(&peer, Request::Detach {}).await;
            (detached, stopping)
        };
        let ((), (detached, stopping)) = tokio::join!(controller, client);
        assert_eq!(detached, Reply::Detached(was_detached));
        assert!(matches!(stopping, Reply::Error(_)), "{stopping:?}");
    }

    #[test]
    fn one_daemon_per_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let first = Socket::bind(&path, &Access::default()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = Socket::bind(&path, &Access::default())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("a daemon is already running"), "{error}");
        drop(first);
        assert!(!path.exists());

        // As after a kill: the file stays, and nobody listens.
        drop(StdListener::bind(&path).unwrap());
        drop(Socket::bind(&path, &Access::default()).unwrap());

        fs::write(&path, "").unwrap();
        let error = Socket::bind(&path, &Access::default())
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("is no socket"), "{error}");
    }

    #[test]
    fn the_file_lets_in_who_may_come() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let access = Access {
            read: Who::All,
            change: Who::NOBODY,
        };
        let socket = Socket::bind(&path, &access).unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o666);
        socket.file.admit(&Access::default());
        assert_eq!(mode(), 0o660);
        socket.file.admit(&access);
        assert_eq!(mode(), 0o666);
    }

    #[tokio::test]
    async fn each_request_needs_its_right() {
        let access = Access {
            read: Who::Listed {
                users: Vec::new(),
                groups: vec![500],
            },
            change: Who::NOBODY,
        };
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(dir.path(), Box::new(|_| {})).unwrap();
        let mut model = testing::reference();
        model.settings.control = access;
        let (models, receiver) = watch::channel(Arc::new(model));
        let door = door(receiver, mpsc::channel(1).0, &recorder);
        let peer = |groups: &[u32]| Peer {
            uid: 4_000_000_000,
            gid: 4_000_000_000,
            groups: groups.to_vec(),
        };
        let set = r#"{"request":"set","targets":["*/*"],"order":{"state":"down"}}"#;
        let explain = r#"{"request":"explain","name":"www"}"#;
        let events = r#"{"request":"events","filter":{},"last":null,"follow":false}"#;
        for (request, right) in [
            (r#"{"request":"status"}"#, Right::Read),
            (r#"{"request":"stats"}"#, Right::Read),
            (events, Right::Read),
            (explain, Right::Read),
            (set, Right::Change),
            (r#"{"request":"detach"}"#, Right::Change),
            (r#"{"request":"reload"}"#, Right::Change),
        ] {
            for (peer, may) in [(peer(&[]), false), (peer(&[500]), right == Right::Read)] {
                let request: Request = serde_json::from_str(request).unwrap();
                let checked = door.check(&peer, request).await;
                let who = peer.described();
                let key = right.key();
                let refusal = format!(
                    "you are {who} and may not {right} anything: only root, the daemon's own user, and those in {key} of [server] may"
                );
                assert_eq!(checked.err(), (!may).then_some(refusal));
            }
        }
        // What a reload gives and takes counts at once.
        let somebody = peer(&[]);
        for read in [Who::All, Who::NOBODY] {
            let mut model = testing::reference();
            model.settings.control.read = read.clone();
            models.send_replace(Arc::new(model));
            let checked = door.check(&somebody, Request::Status {}).await;
            assert_eq!(checked.is_ok(), read == Who::All);
        }
    }

    fn door(
        models: watch::Receiver<Arc<Model>>,
        queries: mpsc::Sender<Asked>,
        recorder: &Recorder,
    ) -> Door {
        let sources = Sources {
            journal: recorder.reader().clone(),
            webhooks: Webhooks::new(),
        };
        Door {
            models,
            queries,
            own: 0,
            events: events::Events::new(sources.journal.clone()),
            sources,
        }
    }
}
