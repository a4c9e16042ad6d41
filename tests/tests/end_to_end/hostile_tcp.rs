//! Connections that mean harm: idle ones, slow writers, lengths without data, clients that never
//! read. Ordinary queries go on being answered, and the daemon holds no more than it should.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use failover_tests::cases::{self, Heard, Protocol};
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Config, Host, Netns};
use failover_tests::privileged;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::site::Site;

/// Connections that the daemon holds in all; see `failover-userspace/src/listen/connections.rs`.
const LIMIT: usize = 500;
/// Connections of one client that it holds.
const CLIENT_LIMIT: usize = 50;
/// File descriptors that the daemon may have, the usual limit of a service.
const DAEMON_FILES: u64 = 1024;
/// What its probes may use of them.
const PROBES: usize = 16;

/// Connections that are held against it.
const HOSTILE: usize = 1000;
/// How often those that it closed are opened again.
const WAVES: usize = 2;
/// An ordinary client's address, which hostile connections come from as well.
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
/// Other clients with hostile connections: `10.9.0.1` and so on.
const OTHERS: u8 = 15;
/// A client that opens too many by itself.
const GREEDY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 250);

/// Ordinary queries to be answered to each client before it counts as going on.
const MEANWHILE: u64 = 20;
/// Between the octets of slow writers.
const NOW_AND_THEN: Duration = Duration::from_millis(100);
/// Turns of that length from one query of a busy connection to the next: much less than the ten
/// seconds for which the daemon keeps a connection without a query.
const BUSY_TURNS: usize = 10;
/// How long anything may take, be the machine as busy as it is; much longer than the daemon keeps
/// idle connections. Only ends a test that has failed anyway.
const PATIENCE: Duration = Duration::from_secs(120);

/// `example.com SOA`, which user space answers.
const QUERY: &[u8] = b"\x12\x34\0\0\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x06\0\x01";

#[test]
fn hostile_connections_keep_nobody_out() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let site = Site::start("native", &Config::default())?;
    limit_files(&site)?;
    give_addresses(&site)?;
    let client = site.lab.netns(Host::Client);
    let queries = [&client, &site.lab.netns(Host::Offsite)].map(Ordinary::new);
    let attack = Attack {
        daemon: Watch::new(&site)?,
        queries: &queries,
        hostile: Mutex::default(),
    };
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = queries
            .each_ref()
            .map(|ordinary| scope.spawn(|| ordinary.ask_until(over)));
        let driving = scope.spawn(|| attack.drive_until(over));
        let attacked = client.enter(|| attack.run());
        over.store(true, Ordering::Relaxed);
        driving.join().expect("driving does not panic");
        for asking in asking {
            asking.join().expect("asking does not panic")?;
        }
        attacked
    })
}

/// The daemon gets no more descriptors than usual, we as many as we may.
fn limit_files(site: &Site) -> Result<()> {
    let daemon = i32::try_from(site.daemon.pid())
        .ok()
        .and_then(Pid::from_raw);
    let usual = Rlimit {
        current: Some(DAEMON_FILES),
        maximum: Some(DAEMON_FILES),
    };
    prlimit(daemon, Resource::Nofile, usual)?;
    let mut ours = getrlimit(Resource::Nofile);
    ours.current = ours.maximum;
    Ok(setrlimit(Resource::Nofile, ours)?)
}

fn give_addresses(site: &Site) -> Result<()> {
    let inet = site.lab.netns(Host::Inet);
    inet.ip(&["route", "add", "10.9.0.0/24", "via", &CLIENT.to_string()])?;
    for client in others().chain([GREEDY]) {
        let address = format!("{client}/32");
        let client = site.lab.netns(Host::Client);
        client.ip(&["address", "add", &address, "dev", "lo"])?;
    }
    Ok(())
}

fn all_clients() -> Vec<Ipv4Addr> {
    others().chain([CLIENT]).collect()
}

fn others() -> impl Iterator<Item = Ipv4Addr> {
    (1..=OTHERS).map(|last| Ipv4Addr::new(10, 9, 0, last))
}

/// What is done to the daemon.
struct Attack<'a> {
    daemon: Watch,
    queries: &'a [Ordinary],
    hostile: Mutex<Vec<Hostile>>,
}

impl Attack<'_> {
    /// Runs in the clients' namespace.
    fn run(&self) -> Result<()> {
        self.queries_are_answered()?;
        self.one_client_alone()?;
        self.all_clients()?;
        self.useless_ones()?;
        for _ in 0..WAVES {
            self.once_more()?;
        }
        self.until_all_are_closed()
    }

    /// Somebody who opens many takes room only from himself. The daemon has no other reason to
    /// close these: they are there until we let them go, however long it takes to open them.
    fn one_client_alone(&self) -> Result<()> {
        self.open(2 * CLIENT_LIMIT, &[GREEDY], &[Kind::Busy])?;
        wait_until("the bound of one client", || {
            let held = self.daemon.per_client()?.get(&GREEDY).copied();
            Ok(held.is_some_and(|held| held > CLIENT_LIMIT / 2 && held <= CLIENT_LIMIT))
        })?;
        self.queries_are_answered()?;
        self.hostile().clear();
        Ok(())
    }

    /// There is a bound in all, and each may have less than his own. These as well are closed for
    /// no other reason: were there no bound in all, the clients' own would let more stay.
    fn all_clients(&self) -> Result<()> {
        const { assert!((OTHERS as usize + 1) * CLIENT_LIMIT > LIMIT + LIMIT / 2) };
        self.open(HOSTILE, &all_clients(), &[Kind::Busy])?;
        self.wait_for_bounds()?;
        let held = self.daemon.peers()?.len();
        ensure!(held > LIMIT / 2, "{held} connections are no attack");
        self.queries_are_answered()?;
        self.hostile().clear();
        Ok(())
    }

    /// Connections that do nothing of use.
    fn useless_ones(&self) -> Result<()> {
        self.open(HOSTILE, &all_clients(), &Kind::USELESS)?;
        self.wait_for_bounds()?;
        self.queries_are_answered()
    }

    /// Those that were closed come again.
    fn once_more(&self) -> Result<()> {
        let held = self.daemon.peers()?;
        let mut hostile = self.hostile();
        hostile.retain(|hostile| held.contains(&hostile.from));
        let missing = HOSTILE - hostile.len();
        drop(hostile);
        self.open(missing, &all_clients(), &Kind::USELESS)?;
        self.wait_for_bounds()?;
        self.queries_are_answered()
    }

    fn wait_for_bounds(&self) -> Result<()> {
        wait_until("the bounds of all", || {
            let per_client = self.daemon.per_client()?;
            Ok(per_client.values().sum::<usize>() <= LIMIT
                && per_client.values().all(|count| *count <= CLIENT_LIMIT)
                && self.daemon.descriptors()? <= self.daemon.at_first + LIMIT + PROBES)
        })
    }

    /// Whatever they do, they are closed in time: the idle, the slow, and the deaf.
    fn until_all_are_closed(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let held = self.daemon.peers()?;
            let hostile = self.hostile();
            let left = hostile.iter().filter(|it| held.contains(&it.from)).count();
            drop(hostile);
            if left == 0 {
                break;
            }
            ensure!(Instant::now() < deadline, "{left} are still held");
            self.queries_are_answered()?;
        }
        wait_until("the descriptors to be given back", || {
            Ok(self.daemon.descriptors()? <= self.daemon.at_first + PROBES)
        })
    }

    /// Opens connections from the clients in turn, of these kinds in turn, until the daemon has
    /// them all, and has made up its mind whom to close.
    fn open(&self, count: usize, clients: &[Ipv4Addr], kinds: &[Kind]) -> Result<()> {
        // Kinds change slower than clients: each client has all of them.
        let kinds = kinds
            .iter()
            .flat_map(|kind| clients.iter().map(move |_| *kind));
        let clients = clients.iter().cycle();
        for (client, kind) in clients.zip(kinds.cycle()).take(count) {
            let hostile = Hostile::open(*client, kind)?;
            self.hostile().push(hostile);
        }
        wait_until("all of them to be accepted", || {
            let waiting = self.daemon.peers_in(Stage::Waiting)?;
            Ok(!self.hostile().iter().any(|it| waiting.contains(&it.from)))
        })
    }

    /// Lets the hostile connections do what they do.
    fn drive_until(&self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            self.hostile().iter_mut().for_each(Hostile::go_on);
            thread::sleep(NOW_AND_THEN);
        }
    }

    fn hostile(&self) -> MutexGuard<'_, Vec<Hostile>> {
        self.hostile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until each ordinary client has got more answers.
    fn queries_are_answered(&self) -> Result<()> {
        for ordinary in self.queries {
            let before = ordinary.answered.load(Ordering::Relaxed);
            wait_until("answers to ordinary queries", || {
                Ok(ordinary.answered.load(Ordering::Relaxed) >= before + MEANWHILE)
            })?;
        }
        Ok(())
    }
}

/// What a hostile connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Idle,
    /// Sends the length of a query, and then nothing.
    NoData,
    /// Sends an octet now and then.
    Slow,
    /// Asks all the time, and never reads a reply.
    Deaf,
    /// Asks and reads like an ordinary client; only the number is hostile.
    Busy,
}

impl Kind {
    /// Those that the daemon closes after a while, even if they are few.
    const USELESS: [Self; 4] = [Self::Idle, Self::NoData, Self::Slow, Self::Deaf];
}

/// A hostile connection.
struct Hostile {
    kind: Kind,
    from: SocketAddr,
    stream: TcpStream,
    /// Octets sent so far.
    sent: usize,
    /// How often it has gone on.
    turns: usize,
}

impl Hostile {
    fn open(client: Ipv4Addr, kind: Kind) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddrV4::new(client, 0).into())?;
        // Few replies fill it.
        socket.set_recv_buffer_size(4096)?;
        socket
            .connect_timeout(&SocketAddr::new(NS1, 53).into(), PATIENCE)
            .with_context(|| format!("a connection from {client}"))?;
        socket.set_nonblocking(true)?;
        let stream = TcpStream::from(socket);
        let mut hostile = Self {
            kind,
            from: stream.local_addr()?,
            stream,
            sent: 0,
            turns: 0,
        };
        hostile.go_on();
        Ok(hostile)
    }

    /// A little more of the same. Being closed changes nothing: it stays as it is.
    fn go_on(&mut self) {
        match self.kind {
            Kind::NoData if self.sent == 0 => self.send(&[0, 40]),
            Kind::Idle | Kind::NoData => {}
            Kind::Slow => self.send(if self.sent < 2 { &[0xff] } else { &[0] }),
            Kind::Deaf => {
                let query = framed_query();
                let queries = query.repeat(10);
                self.send(&queries[self.sent % query.len()..]);
            }
            Kind::Busy => {
                // What comes is of no interest, but must not pile up.
                while self.stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
                if self.turns.is_multiple_of(BUSY_TURNS) {
                    let query = framed_query();
                    self.send(&query[self.sent % query.len()..]);
                }
            }
        }
        self.turns += 1;
    }

    fn send(&mut self, octets: &[u8]) {
        self.sent += self.stream.write(octets).unwrap_or_default();
    }
}

/// The query behind its length, as connections carry it.
fn framed_query() -> Vec<u8> {
    [&(QUERY.len() as u16).to_be_bytes(), QUERY].concat()
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The kernel has it, the daemon does not.
    Waiting,
    /// The daemon has it.
    Held,
}

/// The daemon as the kernel sees it.
struct Watch {
    pid: u32,
    /// Descriptors before the attack.
    at_first: usize,
}

impl Watch {
    fn new(site: &Site) -> Result<Self> {
        let mut watch = Self {
            pid: site.daemon.pid(),
            at_first: 0,
        };
        watch.at_first = watch.descriptors()?;
        Ok(watch)
    }

    /// How many file descriptors it has.
    fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid))?.count())
    }

    /// The other ends of the connections to its port 53 that it holds, over IPv4.
    fn peers(&self) -> Result<BTreeSet<SocketAddr>> {
        self.peers_in(Stage::Held)
    }

    fn peers_in(&self, stage: Stage) -> Result<BTreeSet<SocketAddr>> {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.pid))?;
        let mut peers = BTreeSet::new();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [_, local, remote, state, _, _, _, _, _, inode, ..] = fields[..] else {
                bail!("unexpected line {line:?}");
            };
            let is_there = match stage {
                // LISTEN has no other end; what nobody has accepted, or has closed, has no inode.
                Stage::Held => state != "0A" && inode != "0",
                // ESTABLISHED, or CLOSE_WAIT: not closed on this side.
                Stage::Waiting => matches!(state, "01" | "08") && inode == "0",
            };
            if is_there && address(local)?.port() == 53 {
                peers.insert(address(remote)?);
            }
        }
        Ok(peers)
    }

    /// How many connections it holds of each client.
    fn per_client(&self) -> Result<BTreeMap<Ipv4Addr, usize>> {
        let mut counts = BTreeMap::new();
        for peer in self.peers()? {
            if let IpAddr::V4(client) = peer.ip() {
                *counts.entry(client).or_default() += 1;
            }
        }
        Ok(counts)
    }
}

/// An address of `/proc/net/tcp`: the octets as a number of this machine, and the port.
fn address(text: &str) -> Result<SocketAddr> {
    let (address, port) = text.split_once(':').context("no port")?;
    let address = u32::from_str_radix(address, 16)?.to_ne_bytes();
    let port = u16::from_str_radix(port, 16)?;
    Ok(SocketAddr::new(address.into(), port))
}

/// An ordinary client: asks over UDP and TCP, over and over.
struct Ordinary {
    netns: Netns,
    answered: AtomicU64,
}

impl Ordinary {
    fn new(netns: &Netns) -> Self {
        Self {
            netns: netns.clone(),
            answered: AtomicU64::new(0),
        }
    }

    fn ask_until(&self, over: &AtomicBool) -> Result<()> {
        self.netns.enter(|| {
            while !over.load(Ordering::Relaxed) {
                for protocol in Protocol::ALL {
                    ask(protocol)?;
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        })
    }
}

/// Asks until there is an answer. A connection that is closed is tried again, as clients do (RFC
/// 7766 section 6.2.4): while others are opened from the same address by the hundred, its own may
/// be the idlest. So is what is not answered at all for a while: on a busy machine the kernel may
/// have had no room for it.
fn ask(protocol: Protocol) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match cases::ask(NS1, protocol, QUERY) {
            Ok(Heard::Reply(reply)) => {
                let lines = cases::render(QUERY, &reply)?;
                ensure!(lines[0] == "< NOERROR qr aa", "{lines:?}");
                return Ok(());
            }
            _ if Instant::now() < deadline => {}
            Ok(heard) => bail!("{heard:?} over {protocol:?} to an ordinary query"),
            Err(error) => return Err(error),
        }
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        ensure!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
