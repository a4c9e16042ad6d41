//! Taking labs down: on drop, on signals, and those that a killed process left behind.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::process::exit;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::processes::{self, Stop};
use super::{Handle, Host, Netns, RUN_DIR};

/// The labs of this process that still stand.
static LIVE: Mutex<Vec<Handle>> = Mutex::new(Vec::new());

fn live() -> MutexGuard<'static, Vec<Handle>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a lab to be taken down on signals.
pub(super) fn register(lab: &Handle) {
    live().push(lab.clone());
}

/// Takes a lab down, unless that is done already.
pub(super) fn unregister(lab: &Handle) -> Result<()> {
    // Held to the end, so that a signal handler does not exit in the middle.
    let mut live = live();
    let Some(at) = live.iter().position(|other| other.id() == lab.id()) else {
        return Ok(());
    };
    live.remove(at);
    take_down(lab)
}

/// From now on SIGINT, SIGTERM and SIGHUP take the labs of this process down before it ends.
pub(super) fn on_signals() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = start_signal_thread());
    result
}

fn start_signal_thread() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot install signal handlers")?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                eprintln!("\ntaking the lab down");
                let mut live = live();
                for lab in live.drain(..) {
                    if let Err(error) = take_down(&lab) {
                        eprintln!("lab {} is not wholly gone: {error:#}", lab.id());
                    }
                }
                exit(128 + signal);
            }
        })?;
    Ok(())
}

/// Takes down labs whose owner is dead; returns their ids.
///
/// One at a time, over threads and processes: each test calls it first, and what a killed
/// process left behind is found by several of them at once.
///
/// # Errors
///
/// When one cannot be taken down.
pub fn clean_stale() -> Result<Vec<String>> {
    let run_dir = match File::open(RUN_DIR) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.with_context(|| format!("cannot open {RUN_DIR}"))?,
    };
    // Given back when the file is closed, also by the end of the process.
    run_dir
        .lock()
        .with_context(|| format!("cannot lock {RUN_DIR}"))?;

    let mut cleaned = Vec::new();
    for entry in fs::read_dir(RUN_DIR)?.flatten() {
        let Ok(id) = entry.file_name().into_string() else {
            continue;
        };
        match Handle::open(&id) {
            Ok(lab) if lab.is_alive() => continue,
            Ok(lab) => take_down(&lab)?,
            // Its owner died before, or is only just about to write the record.
            Err(_) if owner_may_live(&id) => continue,
            Err(_) => {
                remove_namespaces(&id)?;
                fs::remove_dir_all(entry.path())?;
            }
        }
        cleaned.push(id);
    }
    Ok(cleaned)
}

fn owner_may_live(id: &str) -> bool {
    let pid = id.split('-').next().unwrap_or(id);
    pid.parse()
        .is_ok_and(|pid| processes::start_time(pid).is_some())
}

/// Goes on after an error, so that as much as possible is gone; returns the first one.
fn take_down(lab: &Handle) -> Result<()> {
    let mut result = Ok(());
    let mut note = |step: Result<()>| {
        if result.is_ok() {
            result = step;
        }
    };
    // The daemon first: it is to end in a network that is still whole.
    let mut names = processes::names(lab);
    names.sort_by_key(|name| name != super::daemon::PROCESS);
    for name in names {
        note(processes::stop(lab, &name, Stop::Politely).map(drop));
    }
    note(remove_namespaces(lab.id()));
    note(remove_dir(&lab.bpf_dir()));
    note(remove_dir(lab.dir()));
    result
}

fn remove_namespaces(id: &str) -> Result<()> {
    for host in Host::ALL {
        let netns = Netns::named(format!("fo-{id}-{host}"));
        if netns.path().exists() {
            netns.delete()?;
        }
    }
    Ok(())
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
