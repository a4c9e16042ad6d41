//! SIGHUP: read the configuration again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::controller::{Asked, Query, Reload, WhenBusy};

/// SIGHUP, which does not end the process from here on.
#[derive(Debug)]
pub(super) struct Hangups {
    /// One has come before anybody could listen.
    early: Arc<AtomicBool>,
}

impl Hangups {
    /// Remembers the signal until somebody listens.
    pub(super) fn remember() -> Result<Self> {
        let early = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&early);
        signal_hook::flag::register(signal_hook::consts::SIGHUP, flag).context("SIGHUP")?;
        Ok(Self { early })
    }

    /// Reloads whenever the signal comes; one that comes during a reload is not forgotten. What
    /// comes of it is in the log.
    pub(super) fn reload(self, queries: mpsc::Sender<Asked>) -> Result<()> {
        let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
        tokio::spawn(async move {
            let mut is_asked = self.early.load(Ordering::Relaxed);
            while is_asked || hangup.recv().await.is_some() {
                is_asked = false;
                ask(&queries).await;
            }
        });
        Ok(())
    }
}

/// Has the configuration read again, now or after a reload that is under way.
async fn ask(queries: &mpsc::Sender<Asked>) {
    let (reply, replied) = oneshot::channel();
    let reload = Reload {
        when_busy: WhenBusy::Wait,
        by: "SIGHUP".into(),
        reply,
    };
    // Neither is answered when the daemon ends.
    if queries
        .send(Asked::of_any(Query::Reload(reload)))
        .await
        .is_ok()
    {
        let _ = replied.await;
    }
}
