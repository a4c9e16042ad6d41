//! Metrics, dashboard and alert rules, with a real Prometheus.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Config, Handle, Host, Server};
use failover_tests::peers::missing;
use failover_tests::reference::{NAME, OFFSITE, WAN1, WAN2};
use failover_tests::{command, privileged};
use serde_json::Value;

use crate::site::Site;

/// Where the daemon has its metrics, on the name server's loopback.
const METRICS: &str = "127.0.0.1:9153";
/// Where Prometheus answers, there as well.
const PROMETHEUS: &str = "127.0.0.1:9090";
/// How long Prometheus may take to start, and to see what has happened; generous, as the machine
/// may be busy.
const BOUND: Duration = Duration::from_secs(90);

/// What users get.
fn contrib(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../contrib")
        .join(file)
}

#[test]
fn alert_rules_do_what_they_promise() -> Result<()> {
    if let Some(why) = missing("promtool") {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    for (check, file) in [
        (&["check", "rules"][..], "prometheus/failover.rules.yml"),
        (&["test", "rules"], "prometheus/failover.rules.test.yml"),
    ] {
        let mut promtool = command::command("promtool");
        println!(
            "{}",
            command::output(promtool.args(check).arg(contrib(file)))?
        );
    }
    Ok(())
}

#[test]
fn prometheus_knows_all_that_the_dashboard_shows() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    if let Some(why) = missing("prometheus").or_else(|| missing("promtool")) {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let config = Config {
        server: format!("metrics = {METRICS:?}"),
        check: "interval = \"500ms\"\nfastinter = \"100ms\"".to_owned(),
        ..Config::default()
    };
    let mut site = Site::start("native", &config)?;
    the_scrape_is_well_formed(&site.lab)?;

    let prometheus = Prometheus::start(&site.lab)?;
    // What happens before the first scrape is no growth.
    prometheus.wait_for(r#"up{job="failover"} == 1"#)?;
    drive(&mut site, &prometheus)?;

    for query in SEEN {
        prometheus.wait_for(query)?;
    }
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(contrib("grafana/failover.json"))?)?;
    for (panel, query) in queries(&dashboard)? {
        let found = prometheus.query(&query).with_context(|| panel.clone())?;
        ensure!(!found.is_empty(), "panel {panel:?} shows nothing: {query}");
    }
    for (metric, label) in variables(&dashboard)? {
        let found = prometheus.query(&metric)?;
        ensure!(!found.is_empty(), "{metric}");
        for series in found {
            ensure!(series["metric"][&label].is_string(), "{label}: {series}");
        }
    }
    prometheus.rules_are_evaluated()
}

/// In both formats, and by the eyes of a linter.
fn the_scrape_is_well_formed(lab: &Handle) -> Result<()> {
    let text = get(lab, METRICS, "/metrics", "")?;
    let file = lab.dir().join("metrics.txt");
    fs::write(&file, &text)?;
    let mut promtool = command::command("promtool");
    promtool
        .args(["check", "metrics"])
        .stdin(File::open(&file)?);
    let lint = promtool
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()?;
    let said = [lint.stdout, lint.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(lint.status.success() && said.is_empty(), "{said}\n{text}");

    let accept = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let text = get(lab, METRICS, "/metrics", accept)?;
    ensure!(text.ends_with("\n# EOF\n"), "{text}");
    Ok(())
}

/// Lets happen what the dashboard is about: failovers, answers of all kinds, replies of user space,
/// reloads.
fn drive(site: &mut Site, prometheus: &Prometheus) -> Result<()> {
    site.lab.kill(Server::WebA)?;
    site.wait_for_answer(&[OFFSITE])?;
    ask(site)?;
    prometheus.wait_for(r#"failover_service_tier{service="www"} == 3"#)?;
    prometheus.wait_for(
        r#"failover_server_verdict{service="www", server="web-a", verdict="down"} == 1"#,
    )?;
    prometheus.wait_for(
        r#"failover_server_up{server="web-a", priority="primary", site="onsite"} == 0"#,
    )?;
    site.lab.revive(Server::WebA)?;
    site.wait_for_answer(&[WAN1, WAN2])?;
    ask(site)?;
    let file = site.lab.config_file();
    let configuration = fs::read_to_string(&file)?;
    fs::write(&file, format!("{configuration}\nnonsense = 1\n"))?;
    let refused = site.failover(&["reload"])?;
    ensure!(refused.code == Some(1), "{refused:?}");
    prometheus.wait_for("failover_config_last_reload_successful == 0")?;
    fs::write(&file, configuration)?;
    let applied = site.failover(&["reload"])?;
    ensure!(applied.code == Some(0), "{applied:?}");
    Ok(())
}

fn ask(site: &Site) -> Result<()> {
    for query in [
        &[NAME, "A"][..],
        &["dual.example.com", "AAAA"],
        &[NAME, "TXT"],
        &["example.com", "MX"],
        &["nobody.example.com", "A"],
        &[NAME, "A", "+tcp"],
        &["example.com", "SOA"],
    ] {
        site.dig(NS1, query)?;
    }
    Ok(())
}

/// What was driven, as Prometheus sees it in the end.
const SEEN: &[&str] = &[
    r#"failover_service_tier{service="www"} == 1"#,
    r#"failover_service_all_down{service="www"} == 0"#,
    r#"failover_service_addresses{service="dual"} == 4"#,
    r#"failover_server_up{service="www", server="web-b", priority="backup"} == 0"#,
    r#"failover_server_admin_state{service="www", server="web-a", state="auto"} == 1"#,
    r#"time() - failover_server_last_probe_timestamp_seconds{service="www", server="web-a"} < 60"#,
    r#"failover_server_probe_interval_seconds{service="www", server="web-a"} == 0.5"#,
    // As in the alert rules, so that their labels are seen to match.
    "time() - failover_server_last_probe_timestamp_seconds < 3 * failover_server_probe_interval_seconds + 30",
    "time() - failover_wan_target_last_probe_timestamp_seconds < 3 * failover_wan_target_probe_interval_seconds + 30",
    "sum by (job, instance, interface) (failover_interface_attached) == 1",
    r#"failover_wan_up{wan="wan1"} == 1"#,
    r#"failover_wan_carrier{wan="wan2", interface="wan2"} == 1"#,
    r#"failover_wan_target_up{wan="wan1", target="icmp:198.51.100.129"} == 1"#,
    r#"failover_interface_attached{interface="wan1", mode="native"} == 1"#,
    r#"failover_interface_attached{interface="wan1", mode="generic"} == 0"#,
    "failover_controller_responding == 1",
    "time() - failover_heartbeat_timestamp_seconds < 60",
    r#"increase(failover_publications_total{result="published"}[5m]) > 0"#,
    r#"increase(failover_publications_total{result="refused"}[5m]) == 0"#,
    "increase(failover_publication_duration_seconds_count[5m]) > 0",
    r#"increase(failover_probes_total{kind="tcp", outcome="success"}[5m]) > 0"#,
    r#"increase(failover_probes_total{kind="icmp", outcome="success"}[5m]) > 0"#,
    r#"increase(failover_probes_total{kind="tcp", outcome="refused"}[5m]) > 0"#,
    r#"increase(failover_probe_duration_seconds_count{kind="tcp"}[5m]) > 0"#,
    "increase(failover_probe_lateness_seconds_count[5m]) > 0",
    r#"increase(failover_events_total{kind="service"}[5m]) > 0"#,
    r#"increase(failover_service_answers_total{service="www", type="A"}[5m]) > 0"#,
    r#"increase(failover_service_answers_total{service="dual", type="AAAA"}[5m]) > 0"#,
    r#"increase(failover_xdp_answers_total{kind="addresses"}[5m]) > 0"#,
    r#"increase(failover_xdp_answers_total{kind="nodata"}[5m]) > 0"#,
    r#"increase(failover_xdp_answers_total{kind="nxdomain"}[5m]) > 0"#,
    r#"increase(failover_xdp_answers_total{kind="static"}[5m]) > 0"#,
    r#"increase(failover_xdp_passes_total{reason="type"}[5m]) > 0"#,
    r#"increase(failover_slow_path_replies_total{transport="udp"}[5m]) > 0"#,
    r#"increase(failover_slow_path_replies_total{transport="tcp"}[5m]) > 0"#,
    r#"increase(failover_reloads_total{result="refused"}[5m]) > 0"#,
    r#"increase(failover_reloads_total{result="applied"}[5m]) > 0"#,
    r#"increase(failover_events_total{kind="reload"}[5m]) > 0"#,
    "failover_config_last_reload_successful == 1",
];

/// The queries of all panels, with their titles, as Grafana sends them when all is selected.
fn queries(dashboard: &Value) -> Result<Vec<(String, String)>> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("no panels")? {
        let title = panel["title"].as_str().context("a panel without title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = substituted(target["expr"].as_str().context("a target without expr")?)?;
            queries.push((title.to_owned(), query));
        }
    }
    ensure!(queries.len() > 30, "{queries:#?}");
    Ok(queries)
}

fn substituted(query: &str) -> Result<String> {
    let query = query
        .replace("$__rate_interval", "5m")
        .replace("$instance", ".*")
        .replace("$service", ".*");
    ensure!(!query.contains('$'), "an unknown variable: {query}");
    Ok(query)
}

/// Metric and label of each variable that lists a label's values.
fn variables(dashboard: &Value) -> Result<BTreeSet<(String, String)>> {
    let variables = dashboard["templating"]["list"].as_array();
    let queries = variables
        .context("no variables")?
        .iter()
        .filter(|variable| variable["type"] == "query");
    let lists = queries.map(|variable| {
        let query = variable["query"]["query"].as_str().unwrap_or_default();
        let inside = query
            .strip_prefix("label_values(")
            .and_then(|query| query.strip_suffix(')'));
        let (metric, label) = inside
            .and_then(|inside| inside.rsplit_once(", "))
            .with_context(|| format!("not label_values(METRIC, LABEL): {query}"))?;
        Ok((substituted(metric)?, label.to_owned()))
    });
    let lists = lists.collect::<Result<BTreeSet<_>>>()?;
    ensure!(lists.len() == 2, "{lists:?}");
    Ok(lists)
}

/// A Prometheus on the name server, which scrapes the daemon. It ends with the lab.
struct Prometheus {
    lab: Handle,
}

impl Prometheus {
    fn start(lab: &Handle) -> Result<Self> {
        let dir = lab.dir().join("prometheus");
        fs::create_dir_all(&dir)?;
        let config = dir.join("prometheus.yml");
        let rules = contrib("prometheus/failover.rules.yml").canonicalize()?;
        fs::write(
            &config,
            format!(
                "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
                 rule_files: [{rules:?}]\n\
                 scrape_configs:\n  - job_name: failover\n    static_configs:\n      \
                 - targets: [{METRICS:?}]\n"
            ),
        )?;
        let mut command = command::command("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg(format!("--web.listen-address={PROMETHEUS}"));
        lab.start_program("prometheus", Host::Ns, &mut command)?;
        Ok(Self { lab: lab.clone() })
    }

    /// The series that a query finds now.
    fn query(&self, query: &str) -> Result<Vec<Value>> {
        let reply = self.ask(&format!("query?query={}", encoded(query)))?;
        let found = reply["data"]["result"].as_array();
        Ok(found.with_context(|| reply.to_string())?.clone())
    }

    /// Waits until a query finds something.
    fn wait_for(&self, query: &str) -> Result<()> {
        let deadline = Instant::now() + BOUND;
        loop {
            // It does not answer before it has started.
            let found = self.query(query);
            if found.as_ref().is_ok_and(|found| !found.is_empty()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.lab.log("prometheus")).unwrap_or_default();
                let scrape = get(&self.lab, METRICS, "/metrics", "").unwrap_or_default();
                found?;
                bail!("not within {BOUND:?}: {query}\n{log}\n{scrape}");
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// All alert rules work on real series, and none but those about servers has reason to fire.
    fn rules_are_evaluated(&self) -> Result<()> {
        let deadline = Instant::now() + BOUND;
        loop {
            let reply = self.ask("rules")?;
            let groups = reply["data"]["groups"].as_array().into_iter().flatten();
            let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
            let rules: Vec<&Value> = rules.collect();
            ensure!(rules.len() == 12, "{reply:#}");
            if rules.iter().all(|rule| rule["health"] == "ok") {
                for rule in rules {
                    let may = rule["name"] == "FailoverServerDown";
                    ensure!(may || rule["state"] != "firing", "{rule:#}");
                }
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{reply:#}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn ask(&self, what: &str) -> Result<Value> {
        let reply = get(&self.lab, PROMETHEUS, &format!("/api/v1/{what}"), "")?;
        let value: Value = serde_json::from_str(&reply).with_context(|| reply.clone())?;
        ensure!(value["status"] == "success", "{what}: {reply}");
        Ok(value)
    }
}

/// What a server on the name server's loopback replies, without its head.
fn get(lab: &Handle, server: &str, path: &str, header: &str) -> Result<String> {
    lab.netns(Host::Ns).enter(|| {
        let mut stream = TcpStream::connect(server).with_context(|| format!("ask {server}"))?;
        stream.set_read_timeout(Some(BOUND))?;
        // A reply of version 1.0 is not in chunks.
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {server}\r\n{header}\r\n"
        )?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        let (head, body) = reply
            .split_once("\r\n\r\n")
            .with_context(|| format!("no head: {reply}"))?;
        ensure!(!head.contains("chunked"), "{head}");
        Ok(body.to_owned())
    })
}

/// A query in a URL.
fn encoded(query: &str) -> String {
    let octets = query.bytes().map(|octet| match octet {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(octet).to_string(),
        _ => format!("%{octet:02X}"),
    });
    octets.collect()
}
