//! The command line from outside: exit status and output.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn failover(arguments: &[&str]) -> Run {
    run(&mut command(arguments))
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_failover"));
    command
        .args(arguments)
        .env_remove("FAILOVER_LOG")
        .env_remove("RUST_LOG");
    command
}

fn run(command: &mut Command) -> Run {
    let output = command.output().expect("the binary runs");
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn reference() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/reference.toml").to_owned()
}

/// The reference configuration with its socket and state in `dir`.
fn configuration(dir: &Path, edit: impl Fn(String) -> String) -> PathBuf {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    fs::copy(
        format!("{examples}/example.com.zone"),
        dir.join("example.com.zone"),
    )
    .expect("copied");
    let text = fs::read_to_string(reference()).expect("the example");
    let places = "[server]\ncontrol_socket = \"run/control.sock\"\nstate_dir = \"state\"\n";
    let file = dir.join("failover.toml");
    fs::write(&file, edit(text.replace("[server]\n", places))).expect("written");
    file
}

#[test]
fn log_filter_is_understood_or_refused() {
    let mut command = command(&["run", "-c", "/nonexistent/failover.toml"]);
    for bad in ["failover=loud", "a=b=c"] {
        let run = run(command.env("FAILOVER_LOG", bad));
        let told = format!("failover: FAILOVER_LOG={bad}: ");
        assert!(run.code == 1 && run.err.starts_with(&told), "{}", run.err);
    }
    for good in ["", "debug", "failover::probe=trace,hyper=off,warn"] {
        let run = run(command.env("FAILOVER_LOG", good));
        let told = "failover: there is no configuration";
        assert!(run.err.starts_with(told), "{}", run.err);
    }
}

#[test]
fn usage() {
    for arguments in [
        &[][..],
        &["nonsense"],
        &["events", "--since", "yesterday"],
        &["events", "--subject", "a[b"],
        &["events", "--service", "www", "--subject", "www/*"],
        &["events", "-n", "few"],
        &["passwd"],
        &["status", "--nonsense"],
        &["explain"],
        &["run", "--xdp", "sideways"],
        &["set"],
        &["set", "www/web-a"],
        &["set", "www/web-a", "offline"],
        &["set", "www/web-a", "DOWN"],
        &["set", "down", "www/web-a"],
        &["set", "www/web-a", "down", "--for", "2"],
        &["set", "www/web-a", "down", "--for", "soon"],
        &["set", "www/web-a", "down", "--for", "0s"],
        &["set", "www/web-a", "down", "--for", "2years"],
        &["set", "www/web-a", "down", "--for", "-2h"],
        &["set", "www/web-a", "auto", "--for", "2h"],
        &["set", "www/web-a", "down", "--reason", ""],
        &["set", "www/web-a", "down", "--reason", "a\nb"],
        &["status", "--color", "red"],
        &["status", "-c", "a.toml", "--socket", "b.sock"],
    ] {
        let run = failover(arguments);
        assert_eq!(
            (run.code, run.out.as_str()),
            (2, ""),
            "{arguments:?}: {}",
            run.err
        );
    }
    for arguments in [&["--help"][..], &["--version"], &["status", "--help"]] {
        assert_eq!(failover(arguments).code, 0, "{arguments:?}");
    }
}

#[test]
fn usage_errors_say_what_is_expected() {
    let long = "x".repeat(201);
    for (arguments, want) in [
        (
            &["www/web-a", "drian"][..],
            "a similar value exists: 'drain'",
        ),
        (
            &["www/web-a", "offline"],
            "possible values: auto, up, down, drain, maint",
        ),
        (&["a/b", "up", "--for", "1ms"], "from 1s to 366days"),
        (
            &["a/b", "auto", "--for", "1h"],
            "auto has no end: what is set for a time becomes auto",
        ),
        (
            &["a/b", "up", "--reason", &long],
            "expected at most 200 characters, found 201",
        ),
    ] {
        let run = failover(&[&["set"], arguments].concat());
        assert_eq!(run.code, 2, "{arguments:?}");
        assert!(run.err.contains(want), "{arguments:?}: {}", run.err);
    }
}

#[test]
fn check_is_content() {
    let file = reference();
    for arguments in [&["check", &file][..], &["check", "-c", &file]] {
        let run = failover(arguments);
        assert_eq!((run.code, run.err.as_str()), (0, ""));
        let last = run.out.lines().last().unwrap_or_default();
        assert_eq!(last, format!("{file}: ok (1 service, 1 name, 3 servers)"));
    }
}

#[test]
fn check_tells_every_error() {
    let mistakes = [
        ("control_socket = \"run", "control_soket = \"run"),
        ("\"203.0.113.66\"]", "\"203.0.113.666\"]"),
        ("fastinter = \"200ms\"", "fastinter = 200"),
        ("rise = 2", "rise = 0"),
        ("\"tcp:192.0.2.54:53\"", "\"udp:192.0.2.54:53\""),
        ("\"30s\"", "\"soon\""),
        ("link = \"wan2\"", "link = \"wan3\""),
        ("192.168.10.11", "192.168.10"),
        ("\"backup2\"", "\"backup9\""),
        ("offsite = true", "offsite = true\n\n[console]"),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    let file = configuration(dir.path(), |text| {
        mistakes.iter().fold(text, |text, (right, wrong)| {
            assert!(text.contains(right), "{right}");
            text.replacen(right, wrong, 1)
        })
    });
    let run = failover(&["check", &file.display().to_string()]);
    assert_eq!((run.code, run.err.as_str()), (1, ""));
    let want = [
        "8:1: unknown key \"control_soket\", did you mean \"control_socket\"?",
        "11:29: listen: expected an IP address",
        "20:13: fastinter: expected a duration",
        "21:8: rise: expected an integer from 1 to 255, found 0",
        "26:56: targets: expected \"icmp:ADDRESS\", \"tcp:ADDRESS:PORT\"",
        "36:7: ttl: expected a duration with a unit",
        "42:12: link: expected the name of a [[wan]], found \"wan3\", did you mean \"wan1\"?",
        "52:11: address: expected an IP address",
        "58:12: priority: expected one of \"disabled\"",
        "61:2: the section [console] is not available in this version",
    ];
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines.len(), want.len(), "{}", run.out);
    for (line, want) in lines.iter().zip(want) {
        let want = format!("{}:{want}", file.display());
        assert!(line.starts_with(&want), "{line:?} is not {want:?}");
    }
    assert_eq!(failover(&["check", "/nonexistent.toml"]).code, 1);
}

#[test]
fn without_a_daemon() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = configuration(dir.path(), |text| text).display().to_string();
    let socket = dir.path().join("run/control.sock").display().to_string();
    for place in [["-c", &file], ["--socket", &socket]] {
        for command in [
            &["status"][..],
            &["status", "--json"],
            &["explain", "www"],
            &["events"],
            &["events", "--follow", "--json"],
            &["stats"],
            &[
                "set",
                "www/web-a",
                "wan/*",
                "drain",
                "--for",
                "1day 2h",
                "--reason",
                "kernel",
            ],
            &["status", "--watch"],
            &["reload"],
        ] {
            let run = failover(&[command, &place].concat());
            assert_eq!((run.code, run.out.as_str()), (1, ""), "{command:?}");
            let want = format!("failover: no daemon answers at {socket}: ");
            assert!(run.err.starts_with(&want), "{}", run.err);
        }
        // Root's would remove rules that a daemon on this host has left.
        if !rustix::process::geteuid().is_root() {
            let run = failover(&[&["detach"][..], &place].concat());
            assert_eq!(run.code, 0, "{}", run.err);
        }
    }
    let run = failover(&["status", "-c", "/nonexistent.toml"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("/nonexistent.toml"), "{}", run.err);
}

/// A daemon that runs can be asked although its file is being edited.
#[test]
fn a_broken_file_still_names_its_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = configuration(dir.path(), |text| text.replace("rise = 2", "rise = \"x\""));
    let run = failover(&["status", "-c", &file.display().to_string()]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("no daemon answers"), "{}", run.err);
}

#[test]
fn run_refuses_a_broken_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = configuration(dir.path(), |text| text.replace("fall = 3", "fall = 0"));
    let broken = broken.display().to_string();
    for (arguments, want) in [
        (&["run", "-c", &broken][..], "failover.toml:"),
        (
            &["run", "-c", "/nonexistent.toml"],
            "failover: there is no configuration at /nonexistent.toml: ",
        ),
    ] {
        let run = failover(arguments);
        assert_eq!(run.code, 1, "{arguments:?}");
        assert!(run.err.contains(want), "{arguments:?}: {}", run.err);
    }
    assert!(!dir.path().join("run").exists());
}

#[test]
fn run_refuses_an_address_for_metrics_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let dir = tempfile::tempdir().expect("a directory");
    let metrics = format!("[server]\nmetrics = \"{address}\"\n");
    let file = configuration(dir.path(), |text| text.replace("[server]\n", &metrics));
    let run = failover(&["run", "-c", &file.display().to_string()]);
    assert_eq!(run.code, 1);
    let want = format!("failover: listen on {address} for metrics: ");
    assert!(run.err.contains(&want), "{}", run.err);
    assert!(!dir.path().join("run/control.sock").exists());
}

/// As under systemd: standard error is what `JOURNAL_STREAM` names.
#[test]
fn complaints_in_the_journal_have_a_priority() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = configuration(dir.path(), |text| {
        text.replace("fall = 3", "fall = 0")
            .replace("rise = 2", "rise = 0")
    });
    let broken = broken.display().to_string();
    for (file, lines) in [(broken.as_str(), 2), ("/nonexistent.toml", 1)] {
        let journal = tempfile::NamedTempFile::new().expect("a file");
        let place = journal.as_file().metadata().expect("metadata");
        for (stream, prefix) in [
            (format!("{}:{}", place.dev(), place.ino()), "<3>"),
            (format!("{}:{}", place.dev(), place.ino() + 1), ""),
        ] {
            journal.as_file().set_len(0).expect("emptied");
            let ended = Command::new(env!("CARGO_BIN_EXE_failover"))
                .args(["run", "-c", file])
                .env("JOURNAL_STREAM", &stream)
                .stderr(journal.reopen().expect("opened again"))
                .status()
                .expect("the binary runs");
            assert_eq!(ended.code(), Some(1));
            let text = fs::read_to_string(journal.path()).expect("UTF-8");
            assert_eq!(text.lines().count(), lines, "{text}");
            for line in text.lines() {
                let start = line.strip_prefix(prefix).expect(line);
                assert!(start.starts_with(['/', 'f']), "{line}");
            }
        }
    }
}
