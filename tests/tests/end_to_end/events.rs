//! What the operator is told: later, at once, and over HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context as _, Result, bail};
use failover_tests::lab::{Config, Host, Lab, Server};
use failover_tests::privileged;
use failover_tests::reference::{OFFSITE, WAN1, WAN2};
use serde_json::{Value, json};

use crate::site::{BOUND, Site, lab, wait_until};

/// Where receivers listen, on the name server itself.
const HOOK: &str = "127.0.0.1:8099";
const DEAD: &str = "127.0.0.1:8098";

#[test]
fn are_kept_shown_and_sent() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let extra = format!(
        r#"
[[notify]]
url = "http://{HOOK}/in"
events = ["server", "service"]
services = ["www"]

[[notify]]
name = "dead"
url = "http://{DEAD}/in"
"#
    );
    let config = Config {
        extra,
        ..Config::default()
    };
    let lab = lab(&config)?;
    let told = receive(&lab)?;
    // Takes connections, and never says anything.
    let dead = lab.netns(Host::Ns).enter(|| Ok(TcpListener::bind(DEAD)?))?;
    let mut site = Site::start_in(lab, "native")?;
    site.wait_for_answer(&[WAN1, WAN2])?;
    let mut follower = Follower::start(&site)?;
    follower.wait_for(|event| event["subject"] == "daemon" && event["to"] == "ready")?;

    site.lab.kill(Server::WebA)?;
    let generation = site.wait_for_answer(&[OFFSITE])?.generation;
    let down = json!({
        "kind": "server", "subject": "www/web-a", "from": "up", "to": "down",
        "severity": "warning", "reason": "tcp:192.168.10.10:80: connection refused",
    });
    let answer = json!({
        "kind": "service", "subject": "service/www", "from": "primary", "to": "backup2",
        "old": [WAN1, WAN2], "new": [OFFSITE], "rcode": "NOERROR", "generation": generation,
    });
    let seen = [&down, &answer].map(|want| follower.wait_for(|event| is(event, want)));
    let [seen_down, seen_answer] = seen;
    let (seen_down, seen_answer) = (seen_down?, seen_answer?);
    assert!(seen_down["seq"].as_u64() < seen_answer["seq"].as_u64());

    // The same later, and over HTTP.
    let kept = events(&site, &["--service", "www"])?;
    assert!(
        kept.contains(&seen_down) && kept.contains(&seen_answer),
        "{kept:#?}"
    );
    let shown = site.failover(&["events", "-n", "50"])?;
    for want in [
        "www/web-a",
        "up → down",
        "connection refused",
        "→ 192.0.2.200",
    ] {
        assert!(shown.out.contains(want), "{want}: {shown:?}");
    }
    assert_eq!(
        site.failover(&["events", "-n", "2", "--json"])?
            .out
            .lines()
            .count(),
        2
    );
    // web-b has been down from the start.
    for (subject, want) in [
        ("www/web-b", None),
        ("www/web-a", Some(&seen_down)),
        ("service/www", Some(&seen_answer)),
    ] {
        let body: Value = told.recv_timeout(BOUND).context(subject)?;
        assert_eq!(body["subject"], subject, "{body:#}");
        assert!(body["host"].is_string(), "{body:#}");
        assert!(
            want.is_none_or(|want| is(&body, want)),
            "{body:#} is not {want:#?}"
        );
    }
    wait_until("the counters of webhooks tell both fates", || {
        let stats = site.failover(&["stats", "--json"])?;
        let stats: Value = serde_json::from_str(&stats.out)?;
        let hooks = &stats["webhooks"];
        assert_eq!(
            (&hooks[0]["name"], &hooks[1]["name"]),
            (&json!(HOOK), &json!("dead"))
        );
        assert_eq!(
            (&hooks[0]["failed"], &hooks[1]["sent"]),
            (&json!(0), &json!(0))
        );
        Ok(hooks[0]["sent"] == 3 && hooks[1]["queued"].as_u64() > Some(0))
    })?;

    // The end, and another beginning.
    let ended = site.daemon.terminate(BOUND)?;
    assert!(ended.success(), "{ended}");
    let last = follower.wait_for(|event| event["to"] == "stopped")?;
    assert_eq!(last["subject"], "daemon");
    let (code, says) = follower.end()?;
    assert_eq!(
        (code, &*says),
        (Some(1), "failover: the daemon has stopped\n")
    );
    site.start_again()?;
    let kept = events(&site, &[])?;
    assert!(
        kept.contains(&seen_down) && kept.contains(&last),
        "{kept:#?}"
    );
    let numbers: Vec<u64> = kept
        .iter()
        .filter_map(|event| event["seq"].as_u64())
        .collect();
    assert_eq!(numbers, (1..=kept.len() as u64).collect::<Vec<_>>());

    // A crash has no word of its own.
    site.crash()?;
    site.start_again()?;
    let daemon = events(&site, &["--subject", "daemon"])?;
    let words: Vec<&str> = daemon
        .iter()
        .filter_map(|event| event["to"].as_str())
        .collect();
    assert_eq!(
        words,
        [
            "started", "ready", "stopped", "started", "ready", "died", "started", "ready"
        ]
    );
    drop(dead);
    Ok(())
}

/// Whether an event has these fields, among others.
fn is(event: &Value, want: &Value) -> bool {
    let want = want.as_object().into_iter().flatten();
    want.into_iter().all(|(key, value)| event[key] == *value)
}

fn events(site: &Site, args: &[&str]) -> Result<Vec<Value>> {
    let run = site.failover(&[&["events", "--json"], args].concat())?;
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{args:?}");
    let lines = run.out.lines();
    lines
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// `failover events --follow --json`, while it runs.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(site: &Site) -> Result<Self> {
        let mut child = Command::new(failover_tests::daemon()?)
            .args(["events", "--follow", "--json", "-c"])
            .arg(site.lab.config_file())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().context("no output")?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The next event that is wanted, as soon as it comes.
    fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            let line = self.lines.recv_timeout(BOUND).context("no such event")?;
            let event = serde_json::from_str(&line).with_context(|| line.clone())?;
            if wanted(&event) {
                return Ok(event);
            }
        }
    }

    /// Waits for it to end by itself; its exit status and what it complains about.
    fn end(mut self) -> Result<(Option<i32>, String)> {
        wait_until("the follower has ended", || {
            Ok(self.child.try_wait()?.is_some())
        })?;
        let mut says = String::new();
        let mut err = self.child.stderr.take().context("no complaints")?;
        err.read_to_string(&mut says)?;
        Ok((self.child.wait()?.code(), says))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Takes what is sent to [`HOOK`]; the bodies come in order.
fn receive(lab: &Lab) -> Result<Receiver<Value>> {
    let netns = lab.netns(Host::Ns);
    let listener = netns.enter(|| Ok(TcpListener::bind(HOOK)?))?;
    let (sender, bodies) = channel();
    // Ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Err(error) = take(stream, &sender) {
                eprintln!("receiver: {error:#}");
            }
        }
    });
    Ok(bodies)
}

fn take(stream: TcpStream, sender: &Sender<Value>) -> Result<()> {
    stream.set_read_timeout(Some(BOUND))?;
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            bail!("the request ends early");
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse()?;
            }
            Some(_) => {}
            None if line.trim_end().is_empty() => break,
            None => assert_eq!(line.trim_end(), "POST /in HTTP/1.1"),
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    stream
        .get_mut()
        .write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")?;
    sender.send(serde_json::from_slice(&body)?)?;
    Ok(())
}
