//! `failover events`: what the journal has, and what comes.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;

use super::send;
use crate::journal::{Entry, Filter, Kept, Matcher, Reader};
use crate::protocol::Reply;

/// Clients that follow at once: others shall find the socket free.
const MOST_FOLLOWERS: usize = 32;
/// Clients that read what there was, at once: each may take some megabytes.
const MOST_READERS: usize = 4;
/// Entries sent at once.
const PART: usize = 64;

/// What a client asks for.
pub(super) struct Wanted {
    pub(super) filter: Filter,
    pub(super) last: Option<usize>,
    pub(super) follow: bool,
}

/// What became of the client.
pub(super) enum Sent {
    /// It has what it asked for, and may ask for more.
    All,
    /// It is gone, or shall go.
    NoMore,
}

/// Sends entries to clients.
pub(super) struct Events {
    journal: Reader,
    followers: Semaphore,
    readers: Semaphore,
}

impl Events {
    pub(super) fn new(journal: Reader) -> Self {
        Self {
            journal,
            followers: Semaphore::new(MOST_FOLLOWERS),
            readers: Semaphore::new(MOST_READERS),
        }
    }

    /// Sends one client what it wants, for as long as it wants it.
    pub(super) async fn send(
        &self,
        wanted: Wanted,
        reader: &mut BufReader<OwnedReadHalf>,
        writer: &mut OwnedWriteHalf,
        stop: &mut watch::Receiver<()>,
    ) -> std::io::Result<Sent> {
        let refuse = async |writer: &mut OwnedWriteHalf, why: String| {
            send(writer, [&Reply::Error(why)]).await.map(|()| Sent::All)
        };
        let matcher = match wanted.filter.matcher() {
            Ok(matcher) => matcher,
            Err(error) => {
                let why = format!("subject: expected a pattern such as \"www/*\": {error}");
                return refuse(writer, why).await;
            }
        };
        let permit = if wanted.follow {
            match self.followers.try_acquire() {
                Ok(permit) => Some(permit),
                Err(_) => {
                    let why = format!("{MOST_FOLLOWERS} others follow already, which is the limit");
                    return refuse(writer, why).await;
                }
            }
        } else {
            None
        };
        let live = match self.send_kept(&matcher, wanted.last, writer).await? {
            Ok(live) => live,
            Err(error) => return refuse(writer, format!("{error:#}")).await,
        };
        if permit.is_none() {
            return Ok(Sent::All);
        }
        let end = tokio::select! {
            end = follow(&matcher, live, writer, stop) => end?,
            // Whatever it says, it is not patient any more.
            _ = reader.fill_buf() => return Ok(Sent::NoMore),
        };
        send(writer, [&Reply::Error(end)]).await?;
        Ok(Sent::NoMore)
    }

    /// Sends what there was; returns what comes.
    async fn send_kept(
        &self,
        matcher: &Matcher,
        last: Option<usize>,
        writer: &mut OwnedWriteHalf,
    ) -> std::io::Result<Result<Receiver<Arc<Entry>>>> {
        // The semaphore is never closed.
        let _permit = self.readers.acquire().await;
        let (journal, wanted) = (self.journal.clone(), matcher.clone());
        let read = spawn_blocking(move || journal.read(&wanted, last)).await;
        let read = read.map_err(std::io::Error::other)?;
        let Kept { entries, live } = match read.context("read the files of events") {
            Ok(kept) => kept,
            Err(error) => return Ok(Err(error)),
        };
        for part in entries.chunks(PART) {
            let replies: Vec<Reply> = part.iter().map(reply).collect();
            send(writer, &replies).await?;
        }
        send(writer, [&Reply::UpToDate {}]).await?;
        Ok(Ok(live))
    }
}

/// Sends what comes; returns why there will be no more.
async fn follow(
    matcher: &Matcher,
    mut live: Receiver<Arc<Entry>>,
    writer: &mut OwnedWriteHalf,
    stop: &mut watch::Receiver<()>,
) -> std::io::Result<String> {
    let mut stopping = false;
    loop {
        let first = if stopping {
            live.try_recv().map_err(|error| match error {
                TryRecvError::Lagged(missed) => RecvError::Lagged(missed),
                TryRecvError::Empty | TryRecvError::Closed => RecvError::Closed,
            })
        } else {
            tokio::select! {
                entry = live.recv() => entry,
                _ = stop.changed() => {
                    // Once more for what came before.
                    stopping = true;
                    continue;
                }
            }
        };
        let mut part = match first {
            Ok(first) => vec![first],
            Err(RecvError::Closed) => return Ok("the daemon has stopped".to_owned()),
            Err(RecvError::Lagged(missed)) => return Ok(too_slow(missed)),
        };
        let mut end = None;
        while part.len() < PART {
            match live.try_recv() {
                Ok(entry) => part.push(entry),
                Err(TryRecvError::Lagged(missed)) => {
                    end = Some(too_slow(missed));
                    break;
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let wanted = part.iter().filter(|entry| matcher.matches(entry));
        let replies: Vec<Reply> = wanted.map(reply).collect();
        send(writer, &replies).await?;
        if let Some(end) = end {
            return Ok(end);
        }
    }
}

fn too_slow(missed: u64) -> String {
    format!("too slow: {missed} events were not read in time, and no more are sent")
}

fn reply(entry: &Arc<Entry>) -> Reply {
    Reply::Event(Box::new(Entry::clone(entry)))
}
