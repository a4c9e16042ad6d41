//! Checks of servers: what is answered follows them, and the status says why.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Config, Host, Lab};
use failover_tests::privileged;
use failover_tests::reference::{OFFSITE, WAN1};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::site::{Site, lab, wait_until};

const NAME: &str = "shop.example.com";

fn config(dir: &Path) -> Config {
    let dir = dir.display();
    let extra = format!(
        r#"
[[service]]
name = "shop"
fqdn = ["{NAME}"]
port = 443
wan = [{{ link = "wan1", address = "198.51.100.134" }}]
check = {{ type = "https", path = "/health", ca_file = "ca.pem", body = "all is well" }}

[[service.server]]
name = "shop-a"
address = "192.0.2.1"
check_address = "192.168.10.10"

[[service.server]]
name = "elsewhere"
address = "192.0.2.200"
priority = "backup"
offsite = true
check = [
  {{ type = "tcp", port = 80 }},
  {{ type = "exec", command = ["/bin/sh", "{dir}/check.sh", "{dir}"] }},
]
"#
    );
    Config {
        check: "interval = \"200ms\"\nfastinter = \"50ms\"\ntimeout = \"1s\"\nrise = 1\nfall = 1"
            .to_owned(),
        extra,
        ..Config::default()
    }
}

/// Notes what it was given; fails when there is no file `well`.
const SCRIPT: &str = r#"
{
  grep -e ^CapPrm -e ^CapEff /proc/self/status
  env | grep ^FAILOVER_ | sort
  ls /proc/self/fd | tr '\n' ' '
} > "$1/seen.new"
mv "$1/seen.new" "$1/seen"
[ -e "$1/well" ] || { echo not well; exit 7; }
"#;

/// What the server of the shop shows and says.
#[derive(Clone)]
struct Shop {
    tls: Arc<ServerConfig>,
    /// `None`: it never says anything.
    says: Option<&'static str>,
}

const WELL: Option<&str> = Some("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is well\n");

/// A CA and the certificates that it issues.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self(issuer))
    }

    /// A server that shows a certificate for `name`, valid until the beginning of a year.
    fn server(&self, name: &str, until: i32) -> Result<Arc<ServerConfig>> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate()?;
        let chain = vec![params.signed_by(&key, &self.0)?.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Arc::new(config))
    }
}

/// Serves on port 443 of web-a, each connection as `shop` says when it comes, until the test ends.
fn serve(lab: &Lab, shop: &Arc<Mutex<Shop>>) -> Result<()> {
    let listener = lab
        .netns(Host::WebA)
        .enter(|| TcpListener::bind("[::]:443").context("cannot listen"))?;
    let shop = Arc::clone(shop);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shop = shop.lock().expect("nobody panics").clone();
            // A prober that does not trust us is no error of ours.
            thread::spawn(move || answer(stream, &shop).ok());
        }
    });
    Ok(())
}

fn answer(stream: TcpStream, shop: &Shop) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let session = ServerConnection::new(Arc::clone(&shop.tls))?;
    let mut stream = StreamOwned::new(session, stream);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        request.extend(octet);
    }
    if let Some(text) = shop.says {
        stream.write_all(text.as_bytes())?;
    }
    // Until the prober has gone.
    stream.read_exact(&mut [0])?;
    Ok(())
}

#[test]
fn answers_follow_and_status_tells_why() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let (ca, other) = (Ca::new("our CA")?, Ca::new("another CA")?);
    let good = Shop {
        tls: ca.server(NAME, 4000)?,
        says: WELL,
    };
    let showing = |tls| Shop { tls, says: WELL };
    let saying = |says| Shop {
        says,
        ..good.clone()
    };
    let unavailable = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let not_well = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";
    let table = [
        (
            showing(ca.server(NAME, 2020)?),
            "tls_expired",
            "certificate expired",
        ),
        (
            showing(ca.server("www.example.com", 4000)?),
            "tls_wrong_name",
            "certificate for another name",
        ),
        (
            showing(other.server(NAME, 4000)?),
            "tls_unknown_ca",
            "certificate from an unknown CA",
        ),
        (saying(None), "response_timeout", "response timed out"),
        (saying(Some(unavailable)), "http_status", "HTTP status 503"),
        (
            saying(Some(not_well)),
            "http_body",
            "body without the wanted text",
        ),
    ];

    let lab = lab(&Config::default())?;
    let dir = lab.dir().to_owned();
    fs::write(dir.join("ca.pem"), ca.0.pem())?;
    fs::write(dir.join("check.sh"), SCRIPT)?;
    fs::write(dir.join("well"), "")?;
    lab.configure(&config(&dir))?;
    let shop = Arc::new(Mutex::new(good.clone()));
    serve(&lab, &shop)?;
    let change = |state: &Shop| *shop.lock().expect("nobody panics") = state.clone();

    let site = Site::start_in(lab, "native")?;
    answered(&site, WAN1)?;
    for (state, reason, text) in &table {
        change(state);
        answered(&site, OFFSITE)?;
        let shop_a = server_with(&site, "shop-a", reason)?;
        assert_eq!(shop_a["verdict"], "down", "{shop_a:#}");
        assert_eq!(shop_a["last_error"], *text, "{shop_a:#}");
        let check = "https:192.168.10.10:443/health (shop.example.com)";
        assert_eq!(shop_a["checks"][0]["check"], check, "{shop_a:#}");
        let explained = site.failover(&["explain", NAME])?;
        for want in [check, text] {
            assert!(explained.out.contains(want), "{want}: {}", explained.out);
        }
        change(&good);
        answered(&site, WAN1)?;
    }
    let stats = site.failover(&["stats", "--json"])?;
    let stats: Value = serde_json::from_str(&stats.out)?;
    for (_, reason, _) in &table {
        let count = stats["probes"]["https"][reason].as_u64();
        assert!(count >= Some(1), "{reason}: {stats:#}");
    }

    a_program_gets_nothing_of_ours(&dir, site.daemon.pid())?;
    // One of two checks is enough to fail.
    fs::remove_file(dir.join("well"))?;
    let elsewhere = server_with(&site, "elsewhere", "exec_status")?;
    let command = format!("exec:/bin/sh {0}/check.sh {0}", dir.display());
    assert_eq!(elsewhere["verdict"], "down", "{elsewhere:#}");
    assert_eq!(elsewhere["checks"][0]["verdict"], "up", "{elsewhere:#}");
    assert_eq!(
        elsewhere["last_error"],
        format!("{command}: exit status 7: not well")
    );
    Ok(())
}

/// Waits until `dig` is answered with this address and no other.
fn answered(site: &Site, want: IpAddr) -> Result<()> {
    wait_until(&format!("{NAME} is answered with {want}"), || {
        let dig = site.dig(NS1, &[NAME, "A"])?;
        let addresses: Vec<&str> = dig.answer.iter().map(|record| &*record.data).collect();
        Ok(addresses == [want.to_string()])
    })
}

/// The server of that name in the status, once one of its checks has failed for this reason.
fn server_with(site: &Site, name: &str, reason: &str) -> Result<Value> {
    let mut found = Value::Null;
    wait_until(&format!("{name} has failed: {reason}"), || {
        let status = site.failover(&["status", "--json"])?;
        let status: Value = serde_json::from_str(&status.out)?;
        let services = status["services"].as_array().into_iter().flatten();
        let servers =
            services.flat_map(|service| service["servers"].as_array().into_iter().flatten());
        let server = servers.into_iter().find(|server| server["name"] == name);
        found = server.context("no such server")?.clone();
        let checks = found["checks"].as_array().context("no checks")?;
        Ok(checks.iter().any(|check| check["reason"] == reason))
    })?;
    Ok(found)
}

/// No capability, and no descriptor but its own.
fn a_program_gets_nothing_of_ours(dir: &Path, daemon: u32) -> Result<()> {
    let seen = fs::read_to_string(dir.join("seen"))?;
    let lines: Vec<&str> = seen.lines().collect();
    let [permitted, effective, environment @ .., fds] = lines.as_slice() else {
        anyhow::bail!("unexpected: {seen}");
    };
    let none = "0000000000000000";
    assert_eq!(*permitted, format!("CapPrm:\t{none}"));
    assert_eq!(*effective, format!("CapEff:\t{none}"));
    let want = [
        "FAILOVER_ADDRESS=192.0.2.200",
        "FAILOVER_PORT=443",
        "FAILOVER_SERVER=elsewhere",
        "FAILOVER_SERVICE=shop",
    ];
    assert_eq!(environment, want);
    let fds: BTreeSet<u32> = fds
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let ours: BTreeSet<u32> = fds.difference(&handed_down(daemon)?).copied().collect();
    // The last is the directory that is being listed.
    assert_eq!(ours, BTreeSet::from([0, 1, 2, 3]));
    Ok(())
}

/// Descriptors that the daemon has from whoever started it, and does not close: those of other
/// tests that run at the same time, for example. Its own it opens with CLOEXEC.
fn handed_down(daemon: u32) -> Result<BTreeSet<u32>> {
    const CLOEXEC: u32 = 0o2_000_000;
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{daemon}/fdinfo"))?.flatten() {
        let fd: u32 = entry.file_name().to_string_lossy().parse()?;
        // That of the listing itself is gone.
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.map(|flags| u32::from_str_radix(flags.trim(), 8));
        if fd > 3 && flags.transpose()?.is_some_and(|flags| flags & CLOEXEC == 0) {
            found.insert(fd);
        }
    }
    Ok(found)
}
