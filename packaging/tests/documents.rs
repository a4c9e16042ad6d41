//! Unit, pages and completions against the command line.

use std::fs;
use std::path::Path;
use std::process::Command;

use failover_packaging::{command, completions, manual};

/// What the unit calls is what the daemon understands.
#[test]
fn the_unit_calls_commands_that_there_are() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/failover.service");
    let unit = fs::read_to_string(unit).expect("the unit");
    let mut called = Vec::new();
    let calls = |line: &&str| line.starts_with("Exec") && line.contains("=/usr/bin/failover ");
    for line in unit.lines().filter(calls) {
        let (_, call) = line.split_once('=').expect(line);
        let words: Vec<&str> = call.split(' ').collect();
        called.push(words[1].to_owned());
        let parsed = failover::cli::command().try_get_matches_from(&words);
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
    assert_eq!(called, ["run", "reload"]);
}

#[test]
fn every_command_has_a_page() {
    let directory = tempfile::tempdir().expect("a directory");
    manual::write(directory.path(), "2026-11-22").expect("written");
    let read = |file: &str| fs::read_to_string(directory.path().join(file)).expect(file);
    let main = read("man8/failover.8");
    for command in command().get_subcommands() {
        let name = command.get_name();
        let page = read(&format!("man8/failover-{name}.8"));
        assert!(page.contains(".SH SYNOPSIS\n"), "{page}");
        assert!(page.contains("2026-11-22"), "{page}");
        assert!(
            main.contains(&format!("\nfailover\\-{name}(8)\n")),
            "{main}"
        );
    }
    assert!(!directory.path().join("man8/failover-xdp-pass.8").exists());
    for page in [main, read("man5/failover.toml.5")] {
        assert!(!page.contains('@'), "something was not put in: {page}");
    }
}

/// What bash offers for the last of these words.
fn offered(file: &Path, words: &[&str]) -> Vec<String> {
    let [.., previous, last] = words else {
        panic!("at least the program and a word");
    };
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    // As readline calls it.
    let script = format!(
        "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _failover failover '{last}' '{previous}'; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        file.display(),
        quoted.join(" "),
        words.len() - 1,
    );
    let output = Command::new("bash").args(["-c", &script]).output();
    let output = output.expect("bash");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let output = String::from_utf8(output.stdout).expect("UTF-8");
    output.lines().map(str::to_owned).collect()
}

#[test]
fn completions_of_bash() {
    let directory = tempfile::tempdir().expect("a directory");
    completions::write(directory.path()).expect("written");
    let file = directory
        .path()
        .join("bash-completion/completions/failover");
    assert_eq!(offered(&file, &["failover", "expl"]), ["explain"]);
    assert_eq!(offered(&file, &["failover", "run", "--xd"]), ["--xdp"]);
    let modes = offered(&file, &["failover", "run", "--xdp", ""]);
    assert_eq!(modes, ["auto", "native", "generic", "off"]);
    assert_eq!(offered(&file, &["failover", "xdp-p"]), [""]);

    for file in [
        "zsh/vendor-completions/_failover",
        "fish/vendor_completions.d/failover.fish",
    ] {
        let text = fs::read_to_string(directory.path().join(file)).expect(file);
        assert!(
            text.contains("explain") && !text.contains("xdp-pass"),
            "{text}"
        );
    }
}
