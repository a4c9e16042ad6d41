//! How many sockets probes may hold at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Sockets at once when nothing else limits them.
const MOST: usize = 4096;

/// Raises the soft limit of open files to the hard one and returns how many of them probes may use.
///
/// A quarter of the files is left to the rest of the daemon. Children inherit the limit.
pub(super) fn sockets() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            warn!(%error, "cannot raise the limit of open files");
        }
    }
    share(getrlimit(Resource::Nofile).current)
}

fn share(files: Option<u64>) -> usize {
    let files = files
        .and_then(|files| usize::try_from(files).ok())
        .unwrap_or(usize::MAX);
    (files / 4 * 3).clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_left() {
        for (files, want) in [
            (None, 4096),
            (Some(1 << 20), 4096),
            (Some(1024), 768),
            (Some(0), 1),
        ] {
            assert_eq!(share(files), want);
        }
    }
}
