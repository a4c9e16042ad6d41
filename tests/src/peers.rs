//! Other authoritative name servers, to compare with: started in the lab, never as services.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Child;

use anyhow::{Result, bail};

use crate::command;
use crate::lab::{Handle, Host};

/// A name server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Knot DNS.
    Knotd,
    /// NSD, by NLnet Labs.
    Nsd,
    /// gdnsd.
    Gdnsd,
}

/// What a name server is to do beside listening to one address.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// More lines of the section `server`, or of gdnsd's `options`.
    pub server: String,
    /// More sections, the zones among them. `{dir}` is the directory of its files. gdnsd serves
    /// what lies in `zones` there.
    pub sections: String,
}

impl Program {
    /// The name of its program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Knotd => "knotd",
            Self::Nsd => "nsd",
            Self::Gdnsd => "gdnsd",
        }
    }

    /// Why it cannot be started; `None` where it is installed.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        missing(self.name())
    }

    /// The directory of its files in a lab. Zone files belong there, gdnsd's into `zones`.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn directory(self, lab: &Handle) -> Result<PathBuf> {
        let dir = lab.dir().join(self.name());
        fs::create_dir_all(dir.join("zones"))?;
        Ok(dir)
    }

    /// Starts it on a host, listening to one address and in the foreground. It ends with the lab.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(
        self,
        lab: &Handle,
        host: Host,
        listen: IpAddr,
        settings: &Settings,
    ) -> Result<Child> {
        let dir = self.directory(lab)?;
        let config = dir.join("config");
        let text = self.configuration(listen, settings);
        fs::write(&config, text.replace("{dir}", &dir.display().to_string()))?;
        let mut command = command::command(self.name());
        match self {
            Self::Knotd => command.arg("-c").arg(&config),
            Self::Nsd => command.args(["-d", "-c"]).arg(&config),
            Self::Gdnsd => command.arg("-c").arg(&dir).arg("start"),
        };
        lab.start_program(self.name(), host, &mut command)
    }

    /// Its log, if it has ended: it should not have.
    ///
    /// # Errors
    ///
    /// With the end of the log when the process has ended.
    pub fn check_running(self, lab: &Handle, process: &mut Child) -> Result<()> {
        if let Some(status) = process.try_wait()? {
            let log = fs::read_to_string(lab.log(self.name())).unwrap_or_default();
            bail!("{} ended ({status}):\n{log}", self.name());
        }
        Ok(())
    }

    /// Its files are in `{dir}` alone, and nothing but DNS is listened for.
    fn configuration(self, listen: IpAddr, settings: &Settings) -> String {
        let Settings { server, sections } = settings;
        match self {
            Self::Knotd => format!(
                r#"
server:
    rundir: "{{dir}}"
    user: root:root
    listen: {listen}@53
{server}
log:
  - target: stderr
    any: info
database:
    storage: "{{dir}}"
{sections}"#
            ),
            Self::Nsd => format!(
                r#"
server:
    ip-address: {listen}
    username: ""
    chroot: ""
    zonesdir: "{{dir}}"
    database: ""
    pidfile: "{{dir}}/nsd.pid"
    xfrdfile: "{{dir}}/xfrd.state"
    xfrdir: "{{dir}}"
    zonelistfile: "{{dir}}/zone.list"
    rrl-ratelimit: 0
{server}
remote-control:
    control-enable: no
{sections}"#
            ),
            Self::Gdnsd => format!(
                r#"
options => {{
    listen => "{listen}",
    run_dir => "{{dir}}/run",
    state_dir => "{{dir}}/state",
{server}
}}
{sections}"#
            ),
        }
    }
}

/// Why a program of a name server or a generator cannot be used; `None` where it is installed.
#[must_use]
pub fn missing(program: &str) -> Option<String> {
    let missing = command::find(program).is_none();
    missing.then(|| format!("{program}: not installed; `cargo xtask setup --bench` installs it"))
}
