//! Programs are small shell scripts.

use std::fs;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use rustix::process::{getpid, test_kill_process};
use tempfile::TempDir;

use super::*;

/// For what ends by itself, however busy the machine is.
const PATIENT: Duration = Duration::from_secs(30);

fn check(command: &[&str]) -> Arc<ExecCheck> {
    Arc::new(ExecCheck {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        service: "www".to_owned(),
        server: "web-a".to_owned(),
        address: "2001:db8::1".parse().unwrap(),
        port: NonZeroU16::new(8080).unwrap(),
    })
}

fn script(text: &str) -> Arc<ExecCheck> {
    check(&["/bin/sh", "-c", text])
}

async fn run_once(check: Arc<ExecCheck>, limit: Duration) -> Outcome {
    Executor::start().unwrap().probe(check, limit).await
}

#[tokio::test]
async fn exit_status_and_output() {
    let status = |status, output: &str| ExecFailure::Status(status, output.to_owned());
    for (text, want) in [
        ("exit 0", None),
        ("echo all is well", None),
        ("exit 1", Some(status(1, ""))),
        (
            "echo disk full; echo 'too  bad' >&2; exit 2",
            Some(status(2, "disk full too bad")),
        ),
        (
            "printf 'a\\033[31m\\000b\\377'; exit 3",
            Some(status(3, "a [31m b\u{fffd}")),
        ),
        (
            "kill -TERM $$",
            Some(ExecFailure::Signal(15, String::new())),
        ),
        // All of it is read, though not all is kept.
        (
            "yes | head -c 1000000; exit 4",
            Some(status(4, "y ".repeat(OUTPUT_LIMIT / 2).trim_end())),
        ),
        // Closed output is no end.
        ("exec >&- 2>&-; sleep 0.1; exit 5", Some(status(5, ""))),
        // What it leaves behind may hold its output open.
        ("sleep 60 & echo $!; exit 0", None),
    ] {
        let outcome = run_once(script(text), PATIENT).await.map(drop);
        assert_eq!(
            outcome,
            want.map_or(Ok(()), |failure| Err(failure.into())),
            "{text}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_started_is_said() {
    let dir = TempDir::new().unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "no program").unwrap();
    for (program, want) in [
        (
            "/nonexistent/check",
            "not started: No such file or directory (os error 2)",
        ),
        (
            text.to_str().unwrap(),
            "not started: Permission denied (os error 13)",
        ),
        ("/", "not started: Permission denied (os error 13)"),
    ] {
        let failure = run_once(check(&[program]), PATIENT).await.unwrap_err();
        assert_eq!(failure.to_string(), want);
    }
}

#[tokio::test]
async fn what_a_program_gets() {
    // Open, and not to be inherited.
    let _file = fs::File::open("/dev/null").unwrap();
    let dir = TempDir::new().unwrap();
    let seen = dir.path().join("seen");
    let text = r#"
        exec > "$1" 2>&1
        pwd
        env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= | sort
        echo "$0 $2"
        grep -e ^CapPrm -e ^CapEff -e ^NoNewPrivs -e ^SigBlk /proc/self/status
        ls /proc/self/fd | tr '\n' ' '
        read -r line || echo nothing to read
    "#;
    let check = check(&[
        "/bin/sh",
        "-c",
        text,
        "zero",
        seen.to_str().unwrap(),
        "a b; $(c)",
    ]);
    run_once(check, PATIENT).await.unwrap();
    let want = format!(
        "/\nFAILOVER_ADDRESS=2001:db8::1\nFAILOVER_PORT=8080\nFAILOVER_SERVER=web-a\nFAILOVER_SERVICE=www\nPATH={SEARCH_PATH}\nzero a b; $(c)\nSigBlk:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n"
    );
    let seen = fs::read_to_string(seen).unwrap();
    let (status, rest) = seen.split_at(want.len());
    assert_eq!(status, want);
    let fds = rest.strip_suffix("nothing to read\n").unwrap();
    let mut fds: Vec<u32> = fds
        .split_whitespace()
        .map(|fd| fd.parse().unwrap())
        .collect();
    fds.retain(|fd| !handed_down().contains(fd));
    fds.sort_unstable();
    // The last is the directory that is being listed.
    assert_eq!(fds, [0, 1, 2, 3]);
}

/// Descriptors above standard error that whoever started this test would have every program
/// inherit.
fn handed_down() -> Vec<u32> {
    const CLOEXEC: u32 = 0o2_000_000;
    let infos = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let is_handed_down = |fd: &u32| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        flags.is_some_and(|flags| u32::from_str_radix(flags.trim(), 8).unwrap() & CLOEXEC == 0)
    };
    let fds = infos.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    fds.filter(|fd| *fd > 3 && is_handed_down(fd)).collect()
}

/// A script that starts another program, writes both ids into files, and waits for ever.
fn couple(dir: &Path) -> (Arc<ExecCheck>, [PathBuf; 2]) {
    let files = ["parent", "child"].map(|name| dir.join(name));
    let text = "sleep 1000 & echo $! > $1.new; echo $$ > $0.new; mv $0.new $0; mv $1.new $1; echo waiting; wait";
    let [parent, child] = files.each_ref().map(|file| file.to_str().unwrap());
    (check(&["/bin/sh", "-c", text, parent, child]), files)
}

/// Waits until the file is there, and reads the id in it.
async fn id_in(file: &Path) -> Pid {
    let begun = Instant::now();
    while !file.exists() {
        assert!(begun.elapsed() < PATIENT, "no {file:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let text = fs::read_to_string(file).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

/// Waits until there is no such process; one that has ended and that nobody has waited for counts
/// as gone.
async fn until_gone(id: Pid) {
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", id.as_raw_pid())).ok()?;
        stat.rsplit_once(") ")
            .map(|(_, rest)| rest.starts_with('Z'))
    };
    let gone = async {
        while test_kill_process(id).is_ok() && state() == Some(false) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(PATIENT, gone).await;
    assert!(waited.is_ok(), "{id:?} is still there");
}

#[tokio::test]
async fn a_timeout_kills_the_whole_group() {
    let dir = TempDir::new().unwrap();
    let (check, files) = couple(dir.path());
    let executor = Executor::start().unwrap();
    // Enough for it to begin.
    let limit = Duration::from_secs(4);
    let failure = executor.probe(check, limit).await.unwrap_err();
    assert_eq!(failure, ExecFailure::TimedOut("waiting".to_owned()).into());
    for file in files {
        until_gone(id_in(&file).await).await;
    }
    // And not ourselves.
    assert!(test_kill_process(getpid()).is_ok());
}

#[tokio::test]
async fn programs_end_with_the_engine() {
    let dir = TempDir::new().unwrap();
    let (check, files) = couple(dir.path());
    let executor = Executor::start().unwrap();
    {
        let mut probe = std::pin::pin!(executor.probe(check, PATIENT));
        let [parent, child] = &files;
        tokio::select! {
            outcome = &mut probe => panic!("{outcome:?}"),
            _ = async { id_in(parent).await; id_in(child).await } => {}
        }
    }
    drop(executor);
    for file in &files {
        until_gone(id_in(file).await).await;
    }
}
