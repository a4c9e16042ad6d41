//! `failover status --watch` beside a daemon that comes and goes.
//!
//! The daemon is a socket that answers every request with the same status.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Action, Winsize, tcflow, tcsetwinsize};

/// Longer than anything may take.
const BOUND: Duration = Duration::from_secs(30);

/// A daemon for as many requests as its status is listed.
struct Daemon {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl Daemon {
    fn new(directory: &Path) -> Self {
        let path = directory.join("control.sock");
        Self {
            listener: Some(UnixListener::bind(&path).expect("bound")),
            path,
        }
    }

    /// Answers on a new connection so often, with generations from this on, and hangs up.
    fn answer(&self, generation: u64, times: u64) {
        let listener = self.listener.as_ref().expect("it runs");
        let (mut stream, _) = listener.accept().expect("a client");
        let mut requests = BufReader::new(stream.try_clone().expect("cloned"));
        for generation in generation..generation + times {
            let mut request = String::new();
            requests.read_line(&mut request).expect("a request");
            assert_eq!(request, "{\"request\":\"status\"}\n");
            stream
                .write_all(status(generation).as_bytes())
                .expect("answered");
        }
    }

    fn stop(&mut self) {
        self.listener = None;
        std::fs::remove_file(&self.path).expect("removed");
    }

    fn start(&mut self) {
        self.listener = Some(UnixListener::bind(&self.path).expect("bound"));
    }
}

fn status(generation: u64) -> String {
    let server = r#"{"name":"web-a","address":"192.0.2.1","port":80,"priority":"primary","offsite":true,"verdict":"up","admin":"auto","admin_reason":null,"admin_until":null,"admin_by":null,"admin_since":null,"effective":"up","since":"1970-01-01T00:00:00Z","last_error":null,"rtt_us":310,"checks":[]}"#;
    let servers = [server; 60].join(",");
    let service = format!(
        r#"{{"name":"www","fqdn":[],"tier":"primary","reason":"","answer":["192.0.2.1"],"rcode":"NOERROR","ttl":30,"since":"1970-01-01T00:00:00Z","generation":1,"servers":[{servers}]}}"#
    );
    format!(
        r#"{{"status":{{"generation":{generation},"listen":[],"interfaces":[],"services":[{service}],"wans":[],"counters":{{"rx":0,"answered":0,"passed":0,"slow_path":0}}}}}}"#
    ) + "\n"
}

/// Text as it comes, on a thread of its own.
fn read(mut from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        // A terminal that nobody holds any more is an error to read from.
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Waits until `wanted` has come, and returns all up to and with it; what follows is kept in `rest`.
fn until(output: &Receiver<String>, rest: &mut String, wanted: &str) -> String {
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(at) = rest.find(wanted) {
            let tail = rest.split_off(at + wanted.len());
            return std::mem::replace(rest, tail);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match output.recv_timeout(left) {
            Ok(text) => rest.push_str(&text),
            Err(_) => {
                let tail = rest.chars().count().saturating_sub(600);
                let tail: String = rest.chars().skip(tail).collect();
                panic!("no {wanted:?} in …{tail:?}");
            }
        }
    }
}

fn watch(daemon: &Daemon) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_failover"));
    command
        .args(["status", "--watch", "--socket"])
        .arg(&daemon.path);
    command.env_remove("NO_COLOR").env("TERM", "xterm");
    command
}

/// A process that does not outlive its test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("started"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("signalled");
    }

    /// Until SIGTERM would not end it without its doing.
    fn wait_for_signal_handlers(&self) {
        let deadline = Instant::now() + BOUND;
        let file = format!("/proc/{}/status", self.0.id());
        loop {
            let status = std::fs::read_to_string(&file).expect("it runs");
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.expect("a mask").trim(), 16);
            let terminate = 1 << (Signal::TERM.as_raw() - 1);
            if caught.expect("a number") & terminate != 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{status}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + BOUND;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_daemon_that_is_gone_is_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::new(directory.path());
    let mut child = Running::start(watch(&daemon).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let out = read(child.0.stdout.take().expect("piped"));
    let err = read(child.0.stderr.take().expect("piped"));
    let (mut out_rest, mut err_rest) = (String::new(), String::new());
    daemon.answer(7, 2);
    until(&out, &mut out_rest, "generation 7,");
    until(&out, &mut out_rest, "generation 8,");
    daemon.stop();
    let said = until(&err, &mut err_rest, ": waiting for it\n");
    let path = daemon.path.display();
    assert!(said.contains(&format!("{path}")), "{said}");
    daemon.start();
    daemon.answer(9, 1);
    let text = until(&out, &mut out_rest, "generation 9,");
    // One after the other, and nothing of a terminal.
    assert!(!text.contains('\u{1b}'), "{text:?}");
    until(&err, &mut err_rest, "failover: the daemon is back\n");
    child.signal(Signal::INT);
    assert_eq!(child.wait(), Some(0));
}

#[test]
fn a_terminal_is_left_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::new(directory.path());
    let (terminal, mut child) = in_terminal(&mut watch(&daemon), 12, 60);
    let output = read(terminal);
    let mut rest = String::new();

    daemon.answer(7, 2);
    let entered = until(&output, &mut rest, "generation 7,");
    assert!(
        entered.starts_with("\u{1b}[?1049h\u{1b}[?25l"),
        "{entered:?}"
    );
    let first = until(&output, &mut rest, "generation 8,");
    // What does not fit is left out, and nothing is cleared before it is drawn anew.
    assert!(first.contains(" more lines"), "{first:?}");
    assert_eq!(first.matches('\n').count(), 11, "{first:?}");
    assert!(first.contains("\u{1b}[H"), "{first:?}");
    assert!(
        !first.contains("\u{1b}[2J") && !first.contains("\u{1b}[H\u{1b}[J"),
        "{first:?}"
    );
    // It is a terminal, so there are colours.
    assert!(first.contains("\u{1b}[1mSERVICE"), "{first:?}");

    daemon.stop();
    until(&output, &mut rest, "waiting for it");
    let frame = until(&output, &mut rest, "generation 8,");
    assert!(frame.contains("as it was"), "{frame:?}");
    daemon.start();
    daemon.answer(9, 1);
    until(&output, &mut rest, "generation 9,");

    // Somebody else has the terminal for a while.
    child.signal(Signal::TSTP);
    until(&output, &mut rest, "\u{1b}[?25h\u{1b}[?1049l");
    wait_until_stopped(&child);
    child.signal(Signal::CONT);
    until(&output, &mut rest, "\u{1b}[?1049h\u{1b}[?25l");

    child.signal(Signal::INT);
    until(&output, &mut rest, "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l");
    assert_eq!(child.wait(), Some(0));
    while let Ok(text) = output.recv_timeout(BOUND) {
        rest.push_str(&text);
    }
    assert_eq!(rest, "");
}

#[test]
fn a_terminal_that_takes_nothing_keeps_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::new(directory.path());
    for stopped_first in [true, false] {
        let (terminal, mut child) = in_terminal(&mut watch(&daemon), 24, 80);
        let inside = inside(&terminal);
        let output = read(terminal);
        if stopped_first {
            tcflow(&inside, Action::OOff).expect("stopped");
        }
        daemon.answer(1, 1);
        if !stopped_first {
            until(&output, &mut String::new(), "generation 1,");
            tcflow(&inside, Action::OOff).expect("stopped");
        }
        // Its threads are running: it has learned to end.
        child.wait_for_signal_handlers();
        child.signal(Signal::TERM);
        assert_eq!(child.wait(), Some(0));
    }
}

#[test]
fn no_colours_where_they_are_not_wanted() {
    let directory = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::new(directory.path());
    for (environment, arguments, coloured) in [
        (None, &[][..], true),
        (Some("NO_COLOR"), &[], false),
        (Some("NO_COLOR"), &["--color", "always"], true),
        (None, &["--color", "never"], false),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_failover"));
        command.args(["status", "--socket"]).arg(&daemon.path);
        command
            .args(arguments)
            .env("TERM", "xterm")
            .env_remove("NO_COLOR");
        command.envs(environment.map(|name| (name, "1")));
        let (terminal, mut child) = in_terminal(&mut command, 24, 80);
        let output = read(terminal);
        daemon.answer(1, 1);
        let text = until(&output, &mut String::new(), "packets: ");
        assert_eq!(
            text.contains("\u{1b}["),
            coloured,
            "{environment:?} {arguments:?}"
        );
        assert_eq!(child.wait(), Some(0));
    }
}

/// Starts a command in a terminal of that size; returns the terminal's other side.
fn in_terminal(command: &mut Command, rows: u16, columns: u16) -> (File, Running) {
    let terminal =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&terminal).expect("granted");
    unlockpt(&terminal).expect("unlocked");
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal, size).expect("sized");
    let terminal = File::from(terminal);
    let child = Running::start(command.stdin(Stdio::null()).stdout(inside(&terminal)));
    // Else it would hold the terminal open for ever.
    command.stdout(Stdio::null());
    (terminal, child)
}

/// The side of a terminal that programs have.
fn inside(terminal: &File) -> File {
    let name = ptsname(terminal, Vec::new()).expect("named");
    let options = File::options().read(true).write(true).to_owned();
    options.open(name.to_str().expect("UTF-8")).expect("opened")
}

fn wait_until_stopped(child: &Running) {
    let deadline = Instant::now() + BOUND;
    let stat = format!("/proc/{}/stat", child.0.id());
    loop {
        let text = std::fs::read_to_string(&stat).expect("it runs");
        let (_, fields) = text.rsplit_once(") ").expect("a name");
        if fields.starts_with('T') {
            return;
        }
        assert!(Instant::now() < deadline, "{text}");
        thread::sleep(Duration::from_millis(5));
    }
}
