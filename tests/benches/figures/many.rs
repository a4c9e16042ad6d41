//! Configurations with many names, in services of a hundred.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use failover_tests::lab::Handle;
use failover_tests::reference::{WAN1, WAN2};

/// Names of one service.
pub(crate) const NAMES_PER_SERVICE: usize = 100;
/// Most names that `wan1` carries.
pub(crate) const CARRIED: usize = 100_000;

/// A configuration of that many names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Many {
    /// How many names.
    pub names: usize,
    /// Where the XDP program is attached.
    pub interfaces: &'static [&'static str],
}

impl Many {
    /// Name number `index`.
    pub(crate) fn name(index: usize) -> String {
        format!("n{index}.example.com")
    }

    /// How many services depend on `wan1`.
    pub(crate) fn carried_services(self) -> usize {
        self.names.min(CARRIED).div_ceil(NAMES_PER_SERVICE)
    }

    /// How many services there are.
    pub(crate) fn services(self) -> usize {
        self.names.div_ceil(NAMES_PER_SERVICE)
    }

    /// Makes it the lab's configuration. All onsite servers are one, and so are the offsite ones:
    /// the probes of this many different ones are measured elsewhere.
    pub(crate) fn configure(self, lab: &Handle) -> Result<()> {
        let (dir, bpf_dir, interfaces) = (lab.dir().display(), lab.bpf_dir(), self.interfaces);
        let mut file = format!(
            r#"[server]
interfaces = {interfaces:?}
listen = ["198.51.100.130"]
control_socket = "{dir}/control.sock"
state_dir = "{dir}/state"
bpf_dir = {bpf_dir:?}

[[zone]]
name = "example.com"
file = "example.com.zone"

[[wan]]
name = "wan1"
interface = "wan1"

[[wan]]
name = "wan2"
interface = "wan2"
"#
        );
        let names: Vec<_> = (0..self.names).map(Self::name).collect();
        for (index, fqdn) in names.chunks(NAMES_PER_SERVICE).enumerate() {
            let both = format!(
                "{{ link = \"wan1\", address = \"{WAN1}\" }}, \
                 {{ link = \"wan2\", address = \"{WAN2}\" }}"
            );
            let second = format!("{{ link = \"wan2\", address = \"{WAN2}\" }}");
            let wan = if index < self.carried_services() {
                both
            } else {
                second
            };
            write!(
                file,
                r#"
[[service]]
name = "s{index}"
fqdn = {fqdn:?}
ttl = "30s"
port = 80
wan = [{wan}]
[[service.server]]
name = "onsite"
address = "192.168.10.10"
priority = "primary"
[[service.server]]
name = "offsite"
address = "192.0.2.200"
priority = "backup"
offsite = true
"#
            )?;
        }
        fs::write(lab.config_file(), file)?;
        Ok(())
    }
}

/// A name in wire format.
pub(crate) fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| {
        let len = u8::try_from(label.len()).expect("a short label");
        std::iter::once(len).chain(label.bytes())
    });
    labels.chain([0]).collect()
}
