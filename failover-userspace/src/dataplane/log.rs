//! Log records of the XDP program join ours.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::DataPlane;

/// Follows the log of one program until it is dropped.
pub(super) struct ProgramLog(
    #[expect(dead_code, reason = "dropping it ends the task")] JoinSet<()>,
);

impl ProgramLog {
    fn follow(ebpf: &mut Ebpf) -> Option<Self> {
        let logger = match EbpfLogger::init(ebpf) {
            Ok(logger) => logger,
            Err(error) => {
                debug!(%error, "the program does not log");
                return None;
            }
        };
        #[expect(
            deprecated,
            reason = "the other constructor is unsafe; a logger keeps its descriptor"
        )]
        let logger = AsyncFd::with_interest(logger, Interest::READABLE);
        let mut logger = match logger {
            Ok(logger) => logger,
            Err(error) => {
                warn!(%error, "cannot follow the program's log");
                return None;
            }
        };
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok(mut guard) = logger.readable_mut().await {
                guard.get_inner_mut().flush();
                guard.clear_ready();
            }
        });
        Some(Self(task))
    }
}

impl DataPlane {
    /// Has what the program logs join our log, inside a tokio runtime.
    pub fn follow_log(&mut self) {
        self.log = ProgramLog::follow(&mut self.ebpf);
    }
}
