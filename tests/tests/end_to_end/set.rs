//! `failover set`: what an operator orders is on the wire before the command ends, outlives the
//! daemon, and ends by itself; and not everybody may.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use failover_tests::command;
use failover_tests::dns::Rtype;
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Config, Server};
use failover_tests::privileged;
use failover_tests::reference::{NAME, OFFSITE, WAN1, WAN2};
use serde_json::Value;

use crate::site::{BOUND, Run, Site, set, wait_until};

const BOTH: &[IpAddr] = &[WAN1, WAN2];

impl Site {
    /// `failover set` with these words, which must be done.
    fn set(&self, words: &str) -> Result<String> {
        let args: Vec<&str> = ["set"].into_iter().chain(words.split(' ')).collect();
        let run = self.failover(&args)?;
        ensure!(
            run.code == Some(0) && run.err.is_empty(),
            "{words}: {run:?}"
        );
        Ok(run.out)
    }

    /// What is answered at once, by XDP.
    fn answered(&mut self, want: &[IpAddr]) -> Result<()> {
        let reply = self.answered_by_xdp(1, |site| site.client.ask(NS1, NAME, Rtype::A, BOUND))?;
        let got = reply.context("a query was lost")?.set();
        ensure!(got == set(want), "{got:?} is answered, not {want:?}");
        let dig = self.dig(NS1, &[NAME])?;
        let got = dig.answer.iter().map(|record| record.data.parse());
        let got: Vec<IpAddr> = got.collect::<Result<_, _>>()?;
        ensure!(set(&got) == set(want), "dig gets {got:?}, not {want:?}");
        Ok(())
    }

    /// `web-a` of the service `www` as the status has it.
    fn web_a(&self) -> Result<Value> {
        let run = self.failover(&["status", "--json"])?;
        let status: Value = serde_json::from_str(&run.out).with_context(|| format!("{run:?}"))?;
        Ok(status["services"][0]["servers"][0].clone())
    }
}

#[test]
fn an_order_is_answered_kept_and_ended() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start("native", &Config::default())?;
    site.answered(BOTH)?;

    let reason = "kernel update";
    let order = [
        "set",
        "www/web-a",
        "drain",
        "--for",
        "2h",
        "--reason",
        reason,
    ];
    let run = site.failover(&order)?;
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    site.answered(&[OFFSITE])?;
    for want in ["www/web-a", "auto → drain", "until 20", "192.0.2.200"] {
        assert!(run.out.contains(want), "no {want:?} in {}", run.out);
    }
    let before = site.web_a()?;
    let fields = ["verdict", "admin", "effective", "admin_reason", "admin_by"];
    let want = ["up", "drain", "drain", reason, "root"];
    assert_eq!(fields.map(|field| &before[field]), want, "{before:#}");
    let status = site.failover(&["status"])?.out;
    for want in ["SET BY HAND", "LEFT", reason, "root"] {
        assert!(status.contains(want), "no {want:?} in {status}");
    }
    let explained = site.failover(&["explain", NAME])?.out;
    for want in [
        "(admin drain by root, ",
        " left: kernel update; verdict up)",
    ] {
        assert!(explained.contains(want), "no {want:?} in {explained}");
    }

    site.daemon.terminate(BOUND)?;
    site.start_again()?;
    site.answered(&[OFFSITE])?;
    let after = site.web_a()?;
    for field in [
        "admin",
        "admin_reason",
        "admin_until",
        "admin_by",
        "admin_since",
    ] {
        assert_eq!(after[field], before[field], "{field}");
    }

    let unknown = site.failover(&["set", "www/web-a", "www/web-x", "up"])?;
    assert_eq!((unknown.code, unknown.out.as_str()), (Some(1), ""));
    let want = "no server \"web-x\" in service \"www\", did you mean \"web-a\"?";
    assert!(unknown.err.contains(want), "{}", unknown.err);
    assert_eq!(site.web_a()?["admin"], "drain");

    // Each is on the wire when the command has ended.
    for (words, want) in [
        ("www/web-a auto", BOTH),
        ("wan/wan1 down", &[WAN2]),
        ("wan/* down", &[OFFSITE]),
        ("wan/* auto", BOTH),
        ("*/web-? maint", &[OFFSITE]),
        ("www/offsite */web-b drain", BOTH),
        ("www/web-b up", BOTH),
        ("wan/wan? maint", BOTH),
    ] {
        site.set(words)?;
        site.answered(want).context(words)?;
    }
    assert!(site.set("www/web-b up")?.contains("up already"));

    // What was in maintenance is probed again, and so are the links.
    site.lab.kill(Server::WebA)?;
    site.set("*/* wan/* auto")?;
    site.wait_for_answer(&[OFFSITE])?;
    assert_eq!(site.web_a()?["last_error"], "connection refused");
    site.lab.revive(Server::WebA)?;
    site.wait_for_answer(BOTH)?;
    Ok(())
}

#[test]
fn an_order_ends_by_itself() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    const TIME: Duration = Duration::from_secs(3);
    let mut site = Site::start("native", &Config::default())?;
    let begun = Instant::now();
    site.set("www/web-a drain --for 3s")?;
    site.client
        .time_until(NS1, NAME, Rtype::A, &set(&[OFFSITE]), BOUND)?;
    site.client
        .time_until(NS1, NAME, Rtype::A, &set(BOTH), BOUND)?;
    assert!(begun.elapsed() >= TIME, "{:?}", begun.elapsed());
    let web_a = site.web_a()?;
    assert_eq!(
        [&web_a["admin"], &web_a["admin_by"]],
        [&"auto".into(), &Value::Null]
    );

    // Also while there is no daemon.
    let begun = Instant::now();
    site.set("www/web-a drain --for 3s")?;
    site.daemon.terminate(BOUND)?;
    wait_until("the time is over", || Ok(begun.elapsed() > TIME))?;
    site.start_again()?;
    site.answered(BOTH)?;
    assert_eq!(site.web_a()?["admin"], "auto");
    Ok(())
}

/// A group that nobody is in but our clients.
const GROUP: &str = "4294900000";

/// Who asks, as setpriv(1) makes them.
const NOBODY: &[&str] = &["--reuid=65534", "--regid=65534", "--clear-groups"];
const NOBODY_OF_ROOTS_GROUP: &[&str] = &["--reuid=65534", "--clear-groups"];
const NOBODY_OF_THE_GROUP: &[&str] = &["--reuid=65534", "--regid=65534", "--groups", GROUP];
const ROOT: &[&str] = &["--clear-groups"];

#[test]
fn not_everybody_may() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start("native", &Config::default())?;
    let client = Client::new(&site)?;
    let group = format!("group:{GROUP}");
    // (lines of [server], who, may read, may change)
    let table = [
        (String::new(), ROOT, true, true),
        (String::new(), NOBODY, false, false),
        (String::new(), NOBODY_OF_ROOTS_GROUP, false, false),
        ("control_read = \"all\"".to_owned(), ROOT, true, true),
        ("control_read = \"all\"".to_owned(), NOBODY, true, false),
        (
            "control_read = \"all\"".to_owned(),
            NOBODY_OF_ROOTS_GROUP,
            true,
            false,
        ),
        (
            format!("control_change = [{group:?}]"),
            NOBODY,
            false,
            false,
        ),
        (
            format!("control_change = [{group:?}]"),
            NOBODY_OF_THE_GROUP,
            true,
            true,
        ),
        (
            format!("control_read = [{group:?}]"),
            NOBODY_OF_THE_GROUP,
            true,
            false,
        ),
        (
            "control_change = [\"user:65534\"]".to_owned(),
            NOBODY,
            true,
            true,
        ),
    ];
    let mut running = String::new();
    for (lines, who, may_read, may_change) in table {
        if lines != running {
            site.daemon.terminate(BOUND)?;
            site.lab.configure(&Config {
                server: lines.clone(),
                ..Config::default()
            })?;
            site.start_again()?;
            running.clone_from(&lines);
        }
        let case = format!("{lines} {who:?}");
        for (command, may) in [
            (&["status"][..], may_read),
            (&["explain", NAME], may_read),
            (&["stats", "--json"], may_read),
            (
                &["set", "www/web-a", "drain", "--reason", "rights"],
                may_change,
            ),
            (&["set", "www/web-a", "auto"], may_change),
        ] {
            let run = client.run(who, command)?;
            if may {
                assert_eq!(
                    (run.code, run.err.as_str()),
                    (Some(0), ""),
                    "{case} {command:?}"
                );
                continue;
            }
            assert_eq!(
                (run.code, run.out.as_str()),
                (Some(1), ""),
                "{case} {command:?}"
            );
            // The kernel may have refused already.
            let refused = if command[0] == "set" {
                "control_change"
            } else {
                "control_read"
            };
            assert!(run.err.contains(refused), "{case} {command:?}: {}", run.err);
            if may_read {
                let want = "you are nobody (uid 65534, gid ";
                assert!(run.err.contains(want), "{case} {command:?}: {}", run.err);
            }
        }
        assert_eq!(site.web_a()?["admin"], "auto", "{case}");
        if !may_change {
            assert_eq!(client.run(who, &["detach"])?.code, Some(1), "{case}");
        }
    }
    // Who it was is kept.
    client.run(NOBODY, &["set", "www/web-a", "drain"])?;
    assert_eq!(site.web_a()?["admin_by"], "nobody");
    Ok(())
}

/// The command where anybody may execute it.
struct Client {
    binary: PathBuf,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Client {
    fn new(site: &Site) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let binary = directory.path().join("failover");
        let built: &Path = &failover_tests::daemon()?;
        if fs::hard_link(built, &binary).is_err() {
            fs::copy(built, &binary)?;
        }
        Ok(Self {
            binary,
            socket: site.lab.dir().join("control.sock"),
            _directory: directory,
        })
    }

    fn run(&self, who: &[&str], args: &[&str]) -> Result<Run> {
        let mut command = command::command("setpriv");
        command.args(who).arg(&self.binary).args(args);
        let output = command.arg("--socket").arg(&self.socket).output()?;
        Ok(Run {
            code: output.status.code(),
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }
}
