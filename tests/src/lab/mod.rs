//! The lab: the reference case in network namespaces.
//!
//! [`Lab::start`] builds the network of [`topology`] under names of its own, starts the TCP
//! servers, and takes everything down again when it is dropped, on Ctrl-C, and — should the
//! process have been killed — when the next lab starts. [`Daemon`] runs `failover` in it.
//! [`Handle`] operates a lab, also from another process: that is how `cargo xtask lab` works.
//!
//! Everything of a lab stands on disk under [`RUN_DIR`], so that whoever cleans up needs nothing
//! else; only processes that are inside one of the lab's namespaces are ever signalled.

mod daemon;
mod files;
mod handle;
mod netns;
mod processes;
mod serve;
mod teardown;
pub mod topology;
mod xdp_pass;

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};

pub use daemon::{
    Counters, Daemon, Options, Output, ServerStatus, Service, Status, WanStatus, XdpInterface,
};
pub use files::Config;
pub use handle::{Handle, LinkState, Purpose};
pub use netns::Netns;
pub use serve::serve;
pub use teardown::clean_stale;
pub use topology::{Host, Server, Wan};
pub use xdp_pass::XdpPass;

/// The directory of all labs; each has a directory in it, named by its id.
pub const RUN_DIR: &str = "/run/failover-lab";

/// A running lab; dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    handle: Handle,
    /// The far ends' programs by interface, attached for as long as the lab lives.
    pass: Vec<(&'static str, XdpPass)>,
}

impl Lab {
    /// Builds the network and starts every server but those in `without`.
    ///
    /// `serve` is the program that calls [`serve`], with arguments that come before the address
    /// and the name.
    ///
    /// # Errors
    ///
    /// For want of privileges or of a kernel feature; what was built by then is taken down.
    pub fn start(purpose: Purpose, serve: Vec<OsString>, without: &[Server]) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("the lab needs root, for its network namespaces");
        }
        teardown::on_signals()?;
        clean_stale()?;

        static COUNT: AtomicU32 = AtomicU32::new(0);
        let handle = Handle::create(COUNT.fetch_add(1, Ordering::Relaxed), purpose, serve)?;
        teardown::register(&handle);
        let mut lab = Self {
            handle,
            pass: Vec::new(),
        };

        lab.build().context("cannot build the lab's network")?;
        for interface in topology::INTERFACES {
            lab.attach_pass(interface)?;
        }
        for server in Server::ALL {
            if !without.contains(&server) {
                lab.revive(server)?;
            }
        }
        fs::write(lab.dir().join("example.com.zone"), files::ZONE)?;
        fs::write(lab.dir().join("queries.txt"), files::QUERIES)?;
        lab.configure(&Config::default())?;
        Ok(lab)
    }

    /// Attaches the program that passes everything to the far end of an interface.
    ///
    /// # Errors
    ///
    /// When there is a program already.
    pub fn attach_pass(&mut self, interface: &'static str) -> Result<()> {
        let pass = XdpPass::attach(&self.netns(Host::Inet), interface)?;
        self.pass.push((interface, pass));
        Ok(())
    }

    /// Makes room for another program on the far end of an interface, which native XDP at this
    /// end needs to be heard.
    pub fn detach_pass(&mut self, interface: &str) {
        self.pass.retain(|(other, _)| *other != interface);
    }

    fn build(&self) -> Result<()> {
        for host in Host::ALL {
            let netns = self.netns(host);
            netns.create()?;
            for (key, value) in topology::SYSCTLS {
                netns.sysctl(key, value)?;
            }
            netns.ip(&["link", "set", "lo", "up"])?;
            // The kernel's first rule is "local"; leave room for a black hole before it.
            for family in ["-4", "-6"] {
                netns.ip(&[family, "rule", "add", "pref", "10", "lookup", "local"])?;
                netns.ip(&[family, "rule", "delete", "pref", "0"])?;
            }
        }
        for host in [Host::Ns, Host::Inet] {
            for (key, value) in topology::ROUTER_SYSCTLS {
                self.netns(host).sysctl(key, value)?;
            }
        }
        for (number, (a, b)) in (1..).zip(topology::CABLES) {
            self.plug_in(number, a, b)?;
        }
        // Routes are only good once the kernel has taken note of each carrier.
        for end in topology::CABLES.iter().flat_map(|(a, b)| [a, b]) {
            self.wait_until_up(end.host, end.interface)?;
        }
        for target in topology::TARGETS {
            self.netns(Host::Inet)
                .ip(&["address", "add", target, "dev", "lo"])?;
        }
        for (host, commands) in topology::ROUTES {
            for command in *commands {
                self.netns(*host)
                    .ip(&command.split(' ').collect::<Vec<_>>())?;
            }
        }
        Ok(())
    }

    fn plug_in(&self, number: u32, a: &topology::End, b: &topology::End) -> Result<()> {
        // Different indices at both ends, though namespaces would allow the same: it is by them
        // that the kernel sees that this is not a network card, whose carrier it would only
        // look at once a second (linkwatch_urgent_event).
        let indices = [number * 10 + 1, number * 10 + 2].map(|index| index.to_string());
        let peer = self.netns(b.host);
        let peer = [
            "peer",
            "name",
            b.interface,
            "index",
            &indices[1],
            "netns",
            peer.name(),
        ];
        let add = [
            "link",
            "add",
            "name",
            a.interface,
            "index",
            &indices[0],
            "type",
            "veth",
        ];
        self.netns(a.host).ip(&[&add[..], &peer[..]].concat())?;
        for end in [a, b] {
            let netns = self.netns(end.host);
            for address in end.addresses {
                netns.ip(&["address", "add", address, "dev", end.interface])?;
            }
            netns.ip(&["link", "set", end.interface, "up"])?;
        }
        Ok(())
    }
}

impl Deref for Lab {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = teardown::unregister(&self.handle) {
            eprintln!("lab {} is not wholly gone: {error:#}", self.handle.id());
        }
    }
}

/// The command that serves, from the parts given to [`Lab::start`].
fn serve_command(serve: &[OsString]) -> Result<Command> {
    let (program, args) = serve.split_first().context("no program to serve with")?;
    let mut command = Command::new(program);
    command.args(args);
    Ok(command)
}
