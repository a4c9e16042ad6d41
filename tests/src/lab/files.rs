//! The files of the reference case: configuration, zone, queries for dnsperf.

use std::fmt::Write as _;
use std::path::Path;

use super::topology::INTERFACES;

/// What may differ from the reference configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// An interface for the XDP program beside those of the topology.
    pub more_interface: Option<&'static str>,
    /// `redundancy_only` of the service `www`.
    pub redundancy_only: bool,
    /// Lines for the `[server]` section.
    pub server: String,
    /// Lines for the `[[zone]]` section beside name and file.
    pub zone: String,
    /// Lines for the `[check]` section; the defaults where empty.
    pub check: String,
    /// More sections, put at the end of the file.
    pub extra: String,
}

impl Config {
    /// The configuration file of a lab whose files are in `dir` and whose pins are in `bpf_dir`.
    #[must_use]
    pub fn render(&self, dir: &Path, bpf_dir: &Path) -> String {
        let Self {
            more_interface,
            redundancy_only,
            server,
            zone,
            check,
            extra,
        } = self;
        let interfaces = INTERFACES.iter().chain(more_interface);
        let interfaces: Vec<_> = interfaces.map(|name| format!("{name:?}")).collect();
        let interfaces = interfaces.join(", ");
        let mut file = format!(
            r#"# The reference case, in the lab. Written by `cargo xtask`.
[server]
interfaces = [{interfaces}]
listen = ["198.51.100.130", "203.0.113.66", "2001:db8:1::130", "2001:db8:2::66"]
control_socket = "{dir}/control.sock"
state_dir = "{dir}/state"
bpf_dir = "{bpf_dir}"
{server}

[[zone]]
name = "example.com"
file = "example.com.zone"
{zone}

[check]
{check}

[[wan]]
name = "wan1"
interface = "wan1"
source = "198.51.100.130"
targets = ["icmp:198.51.100.129", "tcp:192.0.2.53:53", "tcp:192.0.2.54:53"]

[[wan]]
name = "wan2"
interface = "wan2"
source = "203.0.113.66"
targets = ["icmp:203.0.113.65", "tcp:192.0.2.53:53", "tcp:192.0.2.54:53"]

[[service]]
name = "www"
fqdn = ["www.example.com"]
ttl = "30s"
port = 80
redundancy_only = {redundancy_only}
wan = [
  {{ link = "wan1", address = "198.51.100.134" }},
  {{ link = "wan2", address = "203.0.113.70" }},
]
"#,
            dir = dir.display(),
            bpf_dir = bpf_dir.display(),
        );
        push_servers(&mut file, SERVERS);
        file.push_str(
            r#"
# The same servers with IPv6 as well.
[[service]]
name = "dual"
fqdn = ["dual.example.com"]
ttl = "30s"
port = 80
wan = [
  { link = "wan1", address = "198.51.100.134" },
  { link = "wan2", address = "203.0.113.70" },
  { link = "wan1", address = "2001:db8:1::134" },
  { link = "wan2", address = "2001:db8:2::70" },
]
"#,
        );
        push_servers(&mut file, SERVERS);
        push_servers(
            &mut file,
            &[("offsite-v6", "2001:db8:200::200", "backup2", true)],
        );
        file.push_str(extra);
        file
    }
}

/// A configuration with the interfaces and directories of a lab in its section `[server]`; `None`
/// where it has no such section.
pub(super) fn in_lab(config: &str, dir: &Path, bpf_dir: &Path) -> Option<String> {
    let (before, after) = config.split_once("[server]\n")?;
    let dir = dir.display();
    Some(format!(
        "{before}[server]\ninterfaces = {INTERFACES:?}\ncontrol_socket = \"{dir}/control.sock\"\n\
         state_dir = \"{dir}/state\"\nbpf_dir = {bpf_dir:?}\n{after}"
    ))
}

/// Name, address, priority, offsite.
type ServerLine = (&'static str, &'static str, &'static str, bool);

const SERVERS: &[ServerLine] = &[
    ("web-a", "192.168.10.10", "primary", false),
    ("web-b", "192.168.10.11", "backup", false),
    ("offsite", "192.0.2.200", "backup2", true),
];

fn push_servers(file: &mut String, servers: &[ServerLine]) {
    for (name, address, priority, offsite) in servers {
        write!(
            file,
            "\n[[service.server]]\nname = {name:?}\naddress = {address:?}\n\
             priority = {priority:?}\noffsite = {offsite}\n"
        )
        .expect("a String takes everything");
    }
}

/// The zone of the reference case, with a few static records beside it.
pub(super) const ZONE: &str = "\
$ORIGIN example.com.
$TTL 900
@       IN SOA  ns1 hostmaster 2026112201 3600 900 1209600 300
@       IN NS   ns1
@       IN NS   ns2
ns1     IN A    198.51.100.130
ns2     IN A    203.0.113.66
@       IN MX   10 mail
mail    IN A    192.0.2.25
@       IN TXT  \"the reference case\"
";

/// Queries for dnsperf: what XDP answers.
pub(super) const QUERIES: &str = "\
www.example.com A
www.example.com AAAA
dual.example.com A
dual.example.com AAAA
WwW.eXaMpLe.CoM A
";
