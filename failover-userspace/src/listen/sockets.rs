//! Which addresses are served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Common, Counters, Listener, PublishedReader, Stage};

/// The sockets that serve; all are closed when this is dropped.
#[derive(Debug)]
pub struct Sockets {
    pub(super) common: Arc<Common>,
    open: BTreeMap<SocketAddr, watch::Sender<Stage>>,
    /// Whose connections are served to their end.
    closing: Vec<watch::Sender<Stage>>,
}

impl Sockets {
    /// Sockets that serve what is published; none yet.
    #[must_use]
    pub fn new(published: PublishedReader, counters: Arc<Counters>) -> Self {
        Self {
            common: Arc::new(Common::new(published, counters)),
            open: BTreeMap::new(),
            closing: Vec::new(),
        }
    }

    /// Serves what was bound, in tasks of the tokio runtime it is called in.
    pub fn open(&mut self, listener: Listener) {
        for bound in listener.sockets {
            let (stage, reader) = watch::channel(Stage::Open);
            let address = bound.address;
            tokio::spawn(bound.serve(Arc::clone(&self.common), reader));
            self.open.insert(address, stage);
        }
    }

    /// Whether an address is served.
    #[must_use]
    pub fn has(&self, address: &SocketAddr) -> bool {
        self.open.contains_key(address)
    }

    /// Closes all other addresses: what has arrived there is answered, and connections are
    /// served to their end.
    pub fn keep(&mut self, addresses: &[SocketAddr]) {
        self.closing.retain(|stage| !stage.is_closed());
        let gone = self
            .open
            .extract_if(.., |address, _| !addresses.contains(address));
        for (_, stage) in gone {
            stage.send_replace(Stage::Closing);
            self.closing.push(stage);
        }
    }
}
