//! A minimal Debian with systemd as its init, in the place of the lab's name server.
//!
//! It is a container that has nothing of its own but files and processes: its network is that of
//! the lab's host, its kernel ours. It is in the lab's directory and among the lab's processes, and
//! so goes when the lab goes, however that ends.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use failover_tests::command;
use failover_tests::lab::{Host, Lab};

use crate::wait_until;

/// The name of its process and its log.
const PROCESS: &str = "machine";

/// The machine; it is shut down when this is dropped.
pub(crate) struct Machine<'a> {
    lab: &'a Lab,
    root: PathBuf,
    /// Its init, as we see it.
    init: u32,
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl<'a> Machine<'a> {
    /// Unpacks the archive and boots what is in it.
    pub(crate) fn boot(lab: &'a Lab, archive: &Path) -> Result<Self> {
        let root = lab.dir().join("root");
        fs::create_dir(&root)?;
        let mut unpack = command::command("tar");
        unpack.arg("-xf").arg(archive).arg("-C").arg(&root);
        // The container gets devices of its own.
        command::output(unpack.arg("--exclude=./dev/*"))?;

        let mut boot = command::command("systemd-nspawn");
        boot.args(["--quiet", "--settings=no", "--register=no"]);
        if !Path::new("/run/systemd/system").exists() {
            // Nobody is there who could give it a scope.
            boot.arg("--keep-unit");
        }
        boot.args(["--link-journal=no", "--resolv-conf=off", "--timezone=off"]);
        // As a real machine has them; the unit is to give up what the daemon does not need.
        boot.args(["--capability=all", "--system-call-filter=bpf"]);
        // The lab removes it in the end.
        let pins = lab.bpf_dir();
        fs::create_dir(&pins)?;
        boot.arg(format!("--bind={}:/sys/fs/bpf", pins.display()));
        boot.args(["--console=pipe", "--boot", "--directory"])
            .arg(&root);
        let nspawn = lab.start_program(PROCESS, Host::Ns, &mut boot)?.id();

        let mut machine = Self { lab, root, init: 0 };
        wait_until("the machine has an init", || {
            machine.init = init_of(nspawn).unwrap_or_default();
            Ok(machine.init != 0)
        })
        .and_then(|()| {
            wait_until("the machine is up", || {
                let state = machine.run(&["systemctl", "is-system-running"])?;
                Ok(matches!(state.out.trim(), "running" | "degraded"))
            })
        })
        .with_context(|| fs::read_to_string(lab.log(PROCESS)).unwrap_or_default())?;
        Ok(machine)
    }

    /// A file of the machine, as we see it.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// Runs a command on the machine, as its root.
    pub(crate) fn run(&self, command: &[&str]) -> Result<Run> {
        let output = self.command(command).output()?;
        Ok(Run {
            code: output.status.code(),
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    /// Runs a command that is to succeed; returns what it prints.
    pub(crate) fn output(&self, command: &[&str]) -> Result<String> {
        let run = self.run(command)?;
        ensure!(run.code == Some(0), "{}: {run:?}", command.join(" "));
        Ok(run.out)
    }

    fn command(&self, command: &[&str]) -> Command {
        let mut enter = command::command("nsenter");
        enter.args(["--target", &self.init.to_string()]);
        enter.args([
            "--mount", "--uts", "--ipc", "--pid", "--net", "--root", "--wd",
        ]);
        enter.arg("--").args(command).env_clear();
        enter.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        enter
    }

    /// What the machine has in these directories: the packages' and the administrator's files,
    /// without what dpkg and systemd keep for themselves.
    pub(crate) fn files(&self) -> Result<Vec<OsString>> {
        const KEPT: [&str; 4] = [
            "/var/lib/dpkg",
            "/var/lib/systemd",
            "/var/lib/private",
            "/etc/machine-id",
        ];
        let kept = KEPT.map(|path| self.path(path));
        let mut found = Vec::new();
        let mut directories = ["/etc", "/usr", "/opt", "/srv", "/var/lib", "/var/cache"]
            .map(|path| self.path(path))
            .to_vec();
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory)? {
                let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
                let kind = kind?;
                if kept.contains(&path) || kind.is_socket() {
                    continue;
                }
                if kind.is_dir() {
                    directories.push(path.clone());
                }
                found.push(path.strip_prefix(&self.root)?.as_os_str().to_owned());
            }
        }
        found.sort();
        Ok(found)
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.lab.stop_program(PROCESS).ok();
    }
}

/// The init of a container, once it is that: nspawn's only child, after its set-up.
fn init_of(nspawn: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
    let init: u32 = children.split_whitespace().next()?.parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{init}/comm")).ok()?;
    (name.trim() == "systemd").then_some(init)
}
