//! What a file may not ask of a daemon that runs already.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use super::Overrides;
use super::build::Directories;
use super::reader::Field;
use super::report::{At, Report, Span};
use super::spec::{ServerSpec, Spec};
use crate::dataplane::AttachedMode;
use crate::model::{Settings, XdpMode};

/// What cannot change before a daemon is started again.
#[derive(Clone, Debug)]
pub struct Running {
    /// `None`: the command line has chosen it, and the file has no say.
    pub control_socket: Option<PathBuf>,
    /// Where it keeps its state.
    pub state_dir: PathBuf,
    /// Where its pins are.
    pub bpf_dir: PathBuf,
    /// The interfaces with the program, and how it is attached.
    pub attached: Vec<(String, AttachedMode)>,
}

impl Running {
    /// Of a daemon with these settings.
    #[must_use]
    pub fn new(settings: &Settings, attached: Vec<(String, AttachedMode)>) -> Self {
        Self {
            control_socket: Some(settings.control_socket.clone()),
            state_dir: settings.state_dir.clone(),
            bpf_dir: settings.bpf_dir.clone(),
            attached,
        }
    }

    /// Reports each key that would have to change.
    pub(super) fn check(
        &self,
        spec: &Spec,
        base: &Path,
        overrides: &Overrides,
        report: &mut Report<'_>,
    ) {
        let Some(server) = spec.server.given() else {
            return;
        };
        let wanted = Directories::of(&server.value, base);
        let ServerSpec {
            control_socket,
            state_dir,
            bpf_dir,
            ..
        } = &server.value;
        let control = self.control_socket.as_ref();
        for (key, field, wanted, running) in [
            (
                "control_socket",
                control_socket,
                &wanted.control_socket,
                control,
            ),
            (
                "state_dir",
                state_dir,
                &wanted.state_dir,
                Some(&self.state_dir),
            ),
            ("bpf_dir", bpf_dir, &wanted.bpf_dir, Some(&self.bpf_dir)),
        ] {
            if let Some(running) = running
                && running != wanted
                && let Some(span) = span(field, server)
            {
                let message = format!(
                    "{key}: the running daemon has {}, and would have to be restarted to have {}",
                    running.display(),
                    wanted.display()
                );
                report.error(span, message);
            }
        }
        self.check_mode(server, overrides, report);
    }

    /// An interface has one mode at a time, and none while it changes.
    fn check_mode(&self, server: &At<ServerSpec>, overrides: &Overrides, report: &mut Report<'_>) {
        let wanted = match (overrides.xdp, &server.value.xdp) {
            (Some(_), _) | (None, Field::Bad) => return,
            (None, field) => field.value_or(XdpMode::Auto),
        };
        let named = server.value.interfaces.value();
        let is_named = |name: &str| {
            let mut named = named.into_iter().flat_map(|list| &list.items);
            overrides.interfaces.iter().any(|other| other == name)
                || (overrides.interfaces.is_empty() && named.any(|other| other.value == name))
        };
        let other = self.attached.iter().find(|(name, mode)| {
            let fits = match wanted {
                XdpMode::Auto | XdpMode::Off => true,
                XdpMode::Native => *mode == AttachedMode::Native,
                XdpMode::Generic => *mode == AttachedMode::Generic,
            };
            !fits && is_named(name)
        });
        if let Some((interface, mode)) = other
            && let Some(span) = span(&server.value.xdp, server)
        {
            let (wanted, mode) = match mode {
                AttachedMode::Native => ("generic", "natively"),
                AttachedMode::Generic => ("native", "generically"),
            };
            let message = format!(
                "xdp: the running daemon has its program on {interface} {mode}, and would have to be restarted for {wanted:?}"
            );
            report.error(span, message);
        }
    }
}

/// Where a key is written, or the section that lacks it; `None` after an error.
fn span<T>(field: &Field<T>, server: &At<ServerSpec>) -> Option<Span> {
    match field {
        Field::Given(at) => Some(at.span),
        Field::Absent => Some(server.span),
        Field::Bad => None,
    }
}
