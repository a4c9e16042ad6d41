//! What a reload may not change, and what it must not lose.

use std::fs;

use super::*;
use crate::config::{load_with, reload};
use crate::model::CookieSecret;

#[test]
fn a_running_daemon_cannot_change_everything() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("failover.toml");
    let load = |more: &str| {
        let text = format!("[server]\nlisten = [\"192.0.2.1\"]\ninterfaces = [\"eth0\"]\n{more}\n");
        fs::write(&file, text).unwrap();
    };
    load("");
    let settings = load_with(&file, &Overrides::default())
        .unwrap()
        .model
        .settings;
    let native = vec![("eth0".to_owned(), AttachedMode::Native)];
    let mut running = Running::new(&settings, native);
    let errors = |running: &Running, overrides: &Overrides| -> Vec<String> {
        let errors = reload(&file, overrides, running).err();
        let errors = errors
            .map(|errors| errors.0)
            .unwrap_or_default()
            .into_iter();
        errors
            .map(|error| {
                let what = error.message.split(": ").next().unwrap_or_default();
                format!("{}:{}: {what}", error.line, error.column)
            })
            .collect()
    };
    let none = Overrides::default();
    for (more, want) in [
        ("", &[][..]),
        // As it is.
        ("state_dir = \"/var/lib/failover\"\nxdp = \"native\"", &[]),
        ("port = 5353\nxdp = \"off\"", &[]),
        ("state_dir = \"x\"", &["4:13: state_dir"]),
        (
            "control_socket = \"/x\"\nbpf_dir = \"/y\"\nxdp = \"generic\"",
            &["4:18: control_socket", "5:11: bpf_dir", "6:7: xdp"],
        ),
        // Told of together with all else, and not twice.
        (
            "state_dir = 7\nxdp = \"generic\"\nport = 0",
            &["4:13: state_dir", "5:7: xdp", "6:8: port"],
        ),
    ] {
        load(more);
        assert_eq!(errors(&running, &none), want, "{more}");
    }

    // Where the command line has its say the file has none.
    running.control_socket = None;
    let native = Overrides {
        xdp: Some(XdpMode::Native),
        ..Overrides::default()
    };
    load("control_socket = \"/x\"\nxdp = \"generic\"");
    assert_eq!(errors(&running, &native), [""; 0]);
    // Interfaces without the program get it as the file says.
    running.attached[0].0 = "eth9".to_owned();
    load("xdp = \"generic\"");
    assert_eq!(errors(&running, &none), [""; 0]);

    // What stood in the file before stands there no more.
    running.state_dir = "/elsewhere".into();
    load("");
    assert_eq!(errors(&running, &none), ["1:1: state_dir"]);
}

#[test]
fn a_secret_of_this_run_stays_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("failover.toml");
    let secret = CookieSecret([7; 16]);
    let overrides = Overrides {
        cookie_secret: Some(secret),
        ..Overrides::default()
    };
    for (more, want) in [
        ("", Some(secret)),
        ("cookies = false", None),
        (
            "cookie_secret = \"01010101010101010101010101010101\"",
            Some(CookieSecret([1; 16])),
        ),
    ] {
        fs::write(
            &file,
            format!("[server]\nlisten = [\"192.0.2.1\"]\n{more}\n"),
        )
        .unwrap();
        let settings = load_with(&file, &overrides).unwrap().model.settings;
        assert_eq!(settings.cookies, want, "{more}");
    }
}
