//! `failover reload` and SIGHUP, with a daemon on the loopback, without XDP.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const BOUND: Duration = Duration::from_secs(20);

const ZONE: &str = "$TTL 900
@ SOA ns1 hostmaster 2026112201 3600 900 1209600 300
@ NS ns1
ns1 A 127.0.0.1
mail A 192.0.2.25
";

/// A daemon and its directory.
struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
    /// What it tells the service manager.
    told: UnixDatagram,
    port: u16,
}

struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("an address").port()
}

fn configuration(port: u16, services: &[&str]) -> String {
    let mut text = format!(
        "[server]\nlisten = [\"127.0.0.1\"]\nport = {port}\n\
         control_socket = \"control.sock\"\nstate_dir = \"state\"\n\n\
         [[zone]]\nname = \"example.com\"\nfile = \"zone\"\nallow_transfer = [\"127.0.0.1\"]\n"
    );
    for name in services {
        text += &format!(
            "\n[[service]]\nname = \"{name}\"\nfqdn = [\"{name}.example.com\"]\nport = 9\n\
             [[service.server]]\nname = \"only\"\naddress = \"127.0.0.9\"\npriority = \"primary\"\n\
             offsite = true\n"
        );
    }
    text
}

impl Daemon {
    fn start() -> Self {
        let daemon = Self::spawn();
        daemon.hears("READY=1");
        daemon
    }

    fn spawn() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("notify.sock");
        let told = UnixDatagram::bind(&socket).expect("a socket");
        told.set_read_timeout(Some(BOUND)).expect("a timeout");
        let port = free_port();
        fs::write(dir.path().join("zone"), ZONE).expect("written");
        let file = dir.path().join("failover.toml");
        fs::write(&file, configuration(port, &["www"])).expect("written");
        let log = fs::File::create(dir.path().join("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_failover"))
            .args(["run", "-c"])
            .arg(&file)
            .env("NOTIFY_SOCKET", &socket)
            .env("FAILOVER_LOG", "info")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        Self {
            child,
            dir,
            told,
            port,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, services: &[&str]) {
        let text = configuration(self.port, services);
        fs::write(self.path("failover.toml"), text).expect("written");
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.path(file);
        let text = fs::read_to_string(&path).expect("read");
        assert!(text.contains(from), "{from:?} in {text}");
        fs::write(&path, text.replacen(from, to, 1)).expect("written");
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_failover"))
            .args(arguments)
            .arg("--socket")
            .arg(self.path("control.sock"))
            .output()
            .expect("the binary runs");
        Run {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    fn json(&self, command: &str) -> Value {
        let run = self.run(&[command, "--json"]);
        serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {}", run.out))
    }

    /// The next message to the service manager that is about this.
    fn hears(&self, wanted: &str) -> String {
        let mut buffer = [0; 512];
        let deadline = Instant::now() + BOUND;
        while Instant::now() < deadline {
            let len = match self.told.recv(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            };
            let message = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if message.contains(wanted) {
                return message;
            }
        }
        panic!("no {wanted}; {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("sent");
    }

    fn wait_until(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + BOUND;
        while !done() {
            assert!(Instant::now() < deadline, "no {what}; {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The response code to a query for A, from this port.
    fn rcode(&self, port: u16, name: &str) -> u8 {
        let mut query = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(BOUND)).expect("a timeout");
        socket.send_to(&query, ("127.0.0.1", port)).expect("sent");
        let mut reply = [0; 512];
        let len = socket.recv(&mut reply).expect("a reply");
        assert!(len > 12 && reply[1] == 7);
        reply[3] & 0xf
    }

    fn service_names(&self) -> Vec<String> {
        let status = self.json("status");
        let services = status["services"].as_array().expect("services").iter();
        services
            .map(|service| service["name"].as_str().expect("a name").to_owned())
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn place(dir: &Path, file: &str, rest: &str) -> String {
    format!("{}:{rest}", dir.join(file).display())
}

#[test]
fn it_says_what_has_changed() {
    let daemon = Daemon::start();
    let unchanged = daemon.run(&["reload"]);
    assert_eq!(
        (unchanged.code, &*unchanged.out, &*unchanged.err),
        (Some(0), "nothing has changed\n", "")
    );
    let since = daemon.json("status")["services"][0]["servers"][0]["since"].clone();
    assert_eq!((daemon.rcode(daemon.port, "new.example.com")), 3);

    // Names are added, and the status goes on.
    daemon.configure(&["new", "www"]);
    let added = daemon.run(&["reload"]);
    let want = "services  1 added (new)\nservers   1 added (new/only)\ngeneration 2\n";
    assert_eq!((added.code, &*added.out), (Some(0), want), "{}", added.err);
    assert_eq!(daemon.rcode(daemon.port, "new.example.com"), 0);
    assert_eq!(daemon.rcode(daemon.port, "www.example.com"), 0);
    let status = daemon.json("status");
    assert_eq!(status["services"][1]["servers"][0]["since"], since);
    assert_eq!(
        status["services"][1]["servers"][0]["last_error"],
        "connection refused"
    );
    // Two for the new name, one for the old; and the status itself does not count.
    assert_eq!(status["counters"]["slow_path"], 3);

    // Removed, and one altered; as JSON.
    daemon.configure(&["new"]);
    daemon.edit("failover.toml", "port = 9", "port = 9\nttl = \"7s\"");
    let reloaded = daemon.json("reload");
    assert_eq!(reloaded["generation"], 3);
    let services = &reloaded["difference"]["services"];
    assert_eq!(services["removed"], serde_json::json!(["www"]));
    assert_eq!(
        services["altered"],
        serde_json::json!([{ "name": "new", "keys": ["ttl"] }])
    );
    assert_eq!(daemon.rcode(daemon.port, "www.example.com"), 3);

    // Another port: the old one is closed, the new one open.
    let port = free_port();
    daemon.edit(
        "failover.toml",
        &format!("port = {}", daemon.port),
        &format!("port = {port}"),
    );
    let moved = daemon.run(&["reload"]);
    assert_eq!(moved.code, Some(0), "{}", moved.err);
    assert!(
        moved.out.starts_with("settings  1 altered (port)\n"),
        "{}",
        moved.out
    );
    assert_eq!(daemon.rcode(port, "new.example.com"), 0);
    daemon.wait_until("free port", || {
        UdpSocket::bind(("127.0.0.1", daemon.port)).is_ok()
    });
}

#[test]
fn errors_are_told_and_change_nothing() {
    let daemon = Daemon::start();
    daemon.configure(&["new", "www"]);
    daemon.edit("failover.toml", "name = \"new\"", "nam = \"new\"");
    daemon.edit("failover.toml", "\"127.0.0.9\"", "\"127.0.0.999\"");
    daemon.edit(
        "failover.toml",
        "state_dir = \"state\"",
        "state_dir = \"elsewhere\"",
    );
    daemon.edit("zone", "192.0.2.25", "192.0.2.256");
    let refused = daemon.run(&["reload"]);
    assert_eq!((refused.code, &*refused.out), (Some(1), ""));
    let dir = daemon.dir.path();
    let want = [
        place(
            dir,
            "failover.toml",
            "5:13: state_dir: the running daemon has ",
        ),
        place(dir, "failover.toml", "12:1: missing key \"name\""),
        place(dir, "failover.toml", "13:1: unknown key \"nam\""),
        place(
            dir,
            "failover.toml",
            "18:11: address: expected an IP address",
        ),
        place(dir, "zone", "5:8: "),
        "failover: not reloaded: nothing has changed".to_owned(),
    ];
    let lines: Vec<&str> = refused.err.lines().collect();
    assert_eq!(lines.len(), want.len(), "{}", refused.err);
    for (line, want) in lines.iter().zip(&want) {
        assert!(line.starts_with(want), "{line:?} is not {want:?}");
    }
    let run = daemon.run(&["reload", "--json"]);
    let json: Value = serde_json::from_str(&run.out).expect("JSON");
    assert_eq!(json["errors"].as_array().map(Vec::len), Some(5));
    assert_eq!(run.code, Some(1));
    assert_eq!(daemon.json("status")["generation"], 1);
    assert_eq!(daemon.service_names(), ["www"]);
    assert_eq!(daemon.rcode(daemon.port, "mail.example.com"), 0);
    assert!(!dir.join("elsewhere").exists());

    // A file that does not even tell where the socket is.
    daemon.edit("failover.toml", "listen = [", "listen = [[");
    let file = daemon.path("failover.toml").display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_failover"))
        .args(["reload", "-c", &file])
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).expect("UTF-8");
    let want = place(dir, "failover.toml", "");
    assert!(
        err.starts_with(&want) && err.contains(": TOML syntax: "),
        "{err}"
    );
    assert!(
        err.ends_with("\nfailover: not reloaded: nothing has changed\n"),
        "{err}"
    );

    // An address that this host does not have.
    daemon.configure(&["www"]);
    fs::write(daemon.path("zone"), ZONE).expect("written");
    daemon.edit(
        "failover.toml",
        "[\"127.0.0.1\"]",
        "[\"127.0.0.1\", \"203.0.113.254\"]",
    );
    let refused = daemon.run(&["reload"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("on no interface of this host"),
        "{}",
        refused.err
    );
    assert_eq!(daemon.rcode(daemon.port, "www.example.com"), 0);
}

#[test]
fn secondaries_are_thought_of() {
    let daemon = Daemon::start();
    // Generation 1 has changed it last, and 2 would leave it at this much less.
    daemon.edit("zone", "2026112201", "2026112100");
    daemon.edit("zone", "192.0.2.25", "192.0.2.26");
    let reloaded = daemon.run(&["reload"]);
    let want =
        "warning: zone example.com: its serial number goes back from 2026112202 to 2026112102";
    assert!(reloaded.out.starts_with(want), "{}", reloaded.out);
    assert!(
        reloaded
            .out
            .contains("\nzones  1 altered (example.com: records)\n"),
        "{}",
        reloaded.out
    );
}

#[test]
fn hanging_up_at_the_start_does_no_harm() {
    let daemon = Daemon::spawn();
    // The first that it has to say.
    daemon.wait_until("log", || !daemon.log().is_empty());
    daemon.hang_up();
    daemon.hears("READY=1");
    daemon.wait_until("reload", || daemon.log().contains("nothing has changed"));
    assert_eq!(daemon.service_names(), ["www"]);
}

#[test]
fn hanging_up_reloads() {
    let daemon = Daemon::start();
    daemon.configure(&["new", "www"]);
    daemon.hang_up();
    let reloading = daemon.hears("RELOADING=1");
    let since = reloading
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(
        since.is_some_and(|since| since.parse::<u64>().is_ok()),
        "{reloading}"
    );
    assert!(daemon.hears("READY=1").contains("READY=1"));
    assert_eq!(daemon.service_names(), ["new", "www"]);
    assert_eq!(daemon.rcode(daemon.port, "new.example.com"), 0);

    // Nobody is there to be told of errors.
    daemon.edit("failover.toml", "port = 9", "port = 99999");
    daemon.hang_up();
    daemon.hears("RELOADING=1");
    daemon.hears("READY=1");
    let want = place(daemon.dir.path(), "failover.toml", "15:8: port: ");
    assert!(daemon.log().contains(&want), "{}", daemon.log());
    assert_eq!(daemon.service_names(), ["new", "www"]);

    // Whenever it comes, it is not forgotten.
    for services in [&["a"][..], &["a", "b"], &["b", "c"]] {
        daemon.configure(services);
        daemon.hang_up();
    }
    daemon.wait_until("last configuration", || {
        daemon.service_names() == ["b", "c"]
    });
    kill_process(Pid::from_child(&daemon.child), Signal::TERM).expect("sent");
    daemon.hears("STOPPING=1");
}

/// What is at a port of the loopback under `/metrics`; `None`: nobody is there.
fn metrics(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(BOUND)).expect("a timeout");
    let request = b"GET /metrics HTTP/1.1\r\nHost: failover\r\n\r\n";
    stream.write_all(request).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a response");
    Some(text)
}

#[test]
fn whoever_is_told_follows() {
    let daemon = Daemon::start();
    // First at one address, then at another; a third is taken.
    let mut before: Option<u16> = None;
    let count = |text: &str, count: u32| {
        let series = format!("failover_reloads_total{{result=\"applied\"}} {count}\n");
        assert!(text.contains(&series), "{text}");
    };
    for turn in 0..2 {
        let port = free_port();
        let metrics_at = |port: u16| format!("metrics = \"127.0.0.1:{port}\"\n");
        let (from, to) = match before {
            None => ("port = ".to_owned(), metrics_at(port) + "port = "),
            Some(before) => (metrics_at(before), metrics_at(port)),
        };
        daemon.edit("failover.toml", &from, &to);
        let reloaded = daemon.run(&["reload"]);
        let want = "settings  1 altered (metrics)\n";
        assert!(
            reloaded.out.starts_with(want),
            "{}{}",
            reloaded.out,
            reloaded.err
        );
        daemon.wait_until("metrics", || metrics(port).is_some());
        count(&metrics(port).expect("a scrape"), turn + 1);
        if let Some(before) = before.replace(port) {
            daemon.wait_until("end of metrics", || metrics(before).is_none());
        }
    }
    let port = before.expect("a port");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let other = listener.local_addr().expect("an address").to_string();
    daemon.edit("failover.toml", &format!("127.0.0.1:{port}"), &other);
    let refused = daemon.run(&["reload"]);
    assert_eq!(refused.code, Some(1));
    let want = format!("listen on {other} for metrics: ");
    assert!(refused.err.starts_with(&want), "{}", refused.err);
    let text = metrics(port).expect("a scrape");
    count(&text, 2);
    assert!(text.contains("failover_config_last_reload_successful 0\n"));

    // A webhook hears of its own reload, and of what comes then.
    let hook = listener.local_addr().expect("an address");
    daemon.edit(
        "failover.toml",
        &format!("metrics = \"{other}\"\n"),
        "control_read = \"all\"\n",
    );
    daemon.edit(
        "failover.toml",
        "[[service]]",
        &format!("[[notify]]\nurl = \"http://{hook}/\"\nname = \"us\"\n\n[[service]]"),
    );
    let reloaded = daemon.run(&["reload"]);
    let want =
        "settings  2 altered (control_read, metrics)\nwebhooks  1 added (us)\ngeneration 4\n";
    assert_eq!(reloaded.out, want, "{}", reloaded.err);
    let (mut stream, _) = listener.accept().expect("a webhook");
    stream.set_read_timeout(Some(BOUND)).expect("a timeout");
    let mut request = String::new();
    while !request.contains("\"kind\":\"reload\"") {
        let mut buffer = [0; 4096];
        let len = stream.read(&mut buffer).expect("a request");
        assert!(len > 0, "{request}");
        request += &String::from_utf8_lossy(&buffer[..len]);
    }
    daemon.wait_until("end of metrics", || metrics(port).is_none());
    daemon.wait_until("socket for all", || {
        let socket = fs::metadata(daemon.path("control.sock")).expect("a socket");
        socket.permissions().mode() & 0o777 == 0o666
    });
}
