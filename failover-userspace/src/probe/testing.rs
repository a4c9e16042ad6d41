//! What the tests of probes share: a black hole and network namespaces.

pub(crate) mod pki;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

/// A TCP port on loopback that neither accepts nor refuses: its queue is full.
pub(super) struct BlackHole {
    listener: Socket,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    pub(super) fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            queued.push(stream);
        }
        Self {
            listener,
            _queued: queued,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }
}

/// A network namespace of its own, deleted when dropped.
pub(super) struct Netns {
    name: String,
    router: String,
}

impl Netns {
    /// `None`, and a word about it, where this user cannot make one.
    pub(super) fn new(test: &str) -> Option<Self> {
        let name = format!("probe-{}-{test}", std::process::id());
        let netns = Self {
            router: format!("{name}-r"),
            name,
        };
        if !try_ip(&["netns", "add", &netns.name]) {
            eprintln!("skipped: needs root");
            return None;
        }
        netns.ip("link set lo up");
        Some(netns)
    }

    /// `ip` with these arguments, in the namespace.
    pub(super) fn ip(&self, arguments: &str) {
        ip_in(&self.name, arguments);
    }

    /// Joins the namespace by interface `near0`, 10.9.0.2 and fd09::2, to a router, 10.9.0.1 and
    /// fd09::1, behind which lie the networks 198.51.100.0/24 and 2001:db8:1::/64, to which the
    /// router has no route.
    pub(super) fn with_router(&self) {
        assert!(try_ip(&["netns", "add", &self.router]));
        self.ip(&format!(
            "link add near0 type veth peer name far0 netns {}",
            self.router
        ));
        for (name, link, ipv4, ipv6) in [
            (&self.router, "far0", "10.9.0.1/24", "fd09::1/64"),
            (&self.name, "near0", "10.9.0.2/24", "fd09::2/64"),
        ] {
            ip_in(name, &format!("link set {link} up"));
            ip_in(name, &format!("addr add {ipv4} dev {link}"));
            ip_in(name, &format!("addr add {ipv6} dev {link} nodad"));
        }
        self.ip("route add 198.51.100.0/24 via 10.9.0.1");
        self.ip("route add 2001:db8:1::/64 via fd09::1");
        run_in(&self.router, async {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        });
    }

    /// Runs `future` in the namespace, on a thread and a runtime of its own.
    pub(super) fn run<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        run_in(&self.name, future)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        for name in [&self.name, &self.router] {
            try_ip(&["netns", "del", name]);
        }
    }
}

fn run_in<T: Send>(name: &str, future: impl Future<Output = T> + Send) -> T {
    let enter_and_run = || {
        let netns = File::open(format!("/run/netns/{name}")).unwrap();
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    };
    std::thread::scope(|scope| match scope.spawn(enter_and_run).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// `ip` with these arguments in this namespace, from whichever one the thread is in.
fn ip_in(name: &str, arguments: &str) {
    let words: Vec<&str> = ["-n", name]
        .into_iter()
        .chain(arguments.split_whitespace())
        .collect();
    assert!(try_ip(&words), "ip {words:?}");
}

fn try_ip(arguments: &[&str]) -> bool {
    Command::new("ip")
        .args(arguments)
        .output()
        .is_ok_and(|output| {
            let message = String::from_utf8_lossy(&output.stderr);
            if !message.is_empty() && !arguments.contains(&"del") {
                eprintln!("ip {arguments:?}: {message}");
            }
            output.status.success()
        })
}
