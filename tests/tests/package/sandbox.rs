//! What the unit takes from the daemon, and that the rest is enough.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::HostWithPackage;

/// A service whose check looks around: it is up if what it finds is as the unit promises.
pub(crate) const CHECKED_FROM_INSIDE: &str = r#"
[[service]]
name = "inside"
fqdn = ["inside.example.com"]
port = 80

[[service.server]]
name = "script"
address = "192.0.2.200"
offsite = true
check = { type = "exec", command = ["/etc/failover/look-around"], timeout = "10s" }
"#;

/// The check. Every line must succeed.
const LOOK_AROUND: &str = r#"#!/bin/sh -e
grep -q '^CapEff:.0000000000000000$' /proc/self/status
grep -q '^CapPrm:.0000000000000000$' /proc/self/status
grep -q '^NoNewPrivs:.1$' /proc/self/status
grep -q '^Seccomp:.2$' /proc/self/status
echo x >/tmp/mine
echo x >/var/lib/failover/mine
test ! -e /tmp/theirs
test ! -e /home/secret
test -r /proc/sys/net/ipv4/ip_forward
for file in /etc/x /usr/x /home/x /sys/x /proc/sys/kernel/hostname; do
    if (echo x >$file) 2>/dev/null; then
        echo "could write $file"
        exit 1
    fi
done
"#;

/// Settings of the unit that are about the daemon itself and not its confines.
const THE_DAEMONS: [&str; 4] = ["Exec", "Restart", "WatchdogSec=", "RuntimeDirectory="];

/// What port forwarding asks of nftables.
const RULES: &str = "\
table inet failover-test {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        ip daddr 198.51.100.134 tcp dport 80 dnat to 192.168.10.10
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip daddr 192.168.10.10 masquerade
    }
}
";

/// Of `systemd-analyze security`, in tenths; the unit has 21.
const MOST_EXPOSED: &str = "21";

const UNIT: &str = "/usr/lib/systemd/system/failover.service";

/// The bits of CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF.
const TO_RUN: u64 = 1 << 10 | 1 << 12 | 1 << 13 | 1 << 39;
/// CAP_PERFMON.
const PERFMON: u64 = 1 << 38;

/// systemd finds no mistake in the unit, and little that it leaves open.
pub(crate) fn unit_as_analysed(host: &HostWithPackage<'_>) -> Result<()> {
    let analyse = ["systemd-analyze", "verify", "--man=no", "failover.service"];
    let found = host.machine.run(&analyse)?;
    ensure!(
        found.code == Some(0) && !found.err.contains("failover.service:"),
        "{found:?}"
    );

    let threshold = format!("--threshold={MOST_EXPOSED}");
    let analyse = [
        "systemd-analyze",
        "security",
        "--offline=true",
        &threshold,
        UNIT,
    ];
    let found = host.machine.run(&analyse)?;
    ensure!(found.code == Some(0), "{found:?}");
    Ok(())
}

/// The files that the check is to see, or not.
pub(crate) fn prepare(host: &HostWithPackage<'_>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let script = host.machine.path("/etc/failover/look-around");
    fs::write(&script, LOOK_AROUND)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    fs::write(host.machine.path("/home/secret"), "")?;
    // On a file system of its own on the machine.
    host.machine.output(&["touch", "/tmp/theirs"]).map(drop)
}

/// The daemon that runs has what it needs, and nothing else; its checks have still less, and its
/// ICMP probes succeed.
pub(crate) fn daemon_in_its_confines(host: &HostWithPackage<'_>) -> Result<()> {
    let status = host.status()?;
    let services = status["services"].as_array().context("services")?;
    let inside = services.iter().find(|service| service["name"] == "inside");
    let script = &inside.context("the service")?["servers"][0];
    ensure!(script["verdict"] == "up", "{script:#}");
    for wan in status["wans"].as_array().context("links")? {
        let targets = wan["targets"].as_array().context("targets")?;
        for target in targets {
            ensure!(target["verdict"] == "up", "{wan:#}");
        }
    }

    let pid = host.unit("MainPID")?;
    let status = host
        .machine
        .output(&["cat", &format!("/proc/{pid}/status")])?;
    for (set, want) in [
        ("CapPrm", TO_RUN),
        ("CapEff", TO_RUN),
        ("CapBnd", TO_RUN | PERFMON),
        ("CapInh", 0),
        ("CapAmb", 0),
    ] {
        let line = format!("{set}:\t{want:016x}");
        ensure!(
            status.lines().any(|found| found == line),
            "{line}: {status}"
        );
    }
    Ok(())
}

/// `nft`, which forwards ports, does its work with the capabilities, the system calls and the
/// sockets that the unit leaves.
pub(crate) fn nft_within_the_same_confines(host: &HostWithPackage<'_>) -> Result<()> {
    let unit = fs::read_to_string(host.machine.path(UNIT))?;
    let unit: String = unit
        .lines()
        .filter(|line| !THE_DAEMONS.iter().any(|setting| line.starts_with(setting)))
        .map(|line| match line {
            "Type=notify" => "Type=oneshot\nExecStart=/usr/sbin/nft -f /etc/failover/rules\n\
                 ExecStart=/usr/sbin/nft delete table inet failover-test\n"
                .to_owned(),
            line => format!("{line}\n"),
        })
        .collect();
    fs::write(host.machine.path("/etc/failover/rules"), RULES)?;
    let copy = host
        .machine
        .path("/etc/systemd/system/nft-as-failover.service");
    fs::write(&copy, unit)?;
    host.machine.output(&["systemctl", "daemon-reload"])?;
    let started = host
        .machine
        .run(&["systemctl", "start", "nft-as-failover"])?;
    ensure!(started.code == Some(0), "{started:?}\n{}", host.journal());
    fs::remove_file(copy)?;
    fs::remove_file(host.machine.path("/etc/failover/rules"))?;
    host.machine
        .output(&["systemctl", "daemon-reload"])
        .map(drop)
}
