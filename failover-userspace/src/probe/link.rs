//! Carrier of interfaces, pushed by the kernel (rtnetlink, group `RTNLGRP_LINK`).
//!
//! The table of links is pure; around it, one task reads notifications. It first subscribes
//! and then dumps, so that no change falls between the two, and it dumps again when the
//! kernel says that notifications were lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{FutureExt, StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, trace, warn};

use crate::health::Carrier;

/// Notifications that fit before some are lost, in octets (a notification takes some 2 KiB).
const RECEIVE_BUFFER: usize = 1 << 20;

/// Before a broken netlink socket is replaced.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// The state of an interface, at first and whenever it has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEvent {
    /// Its name.
    pub interface: String,
    /// Its carrier; never [`Carrier::NotWatched`].
    pub carrier: Carrier,
    /// Its index; `None`: there is no such interface. Another index is another interface,
    /// on which nothing of the old one's (such as an XDP program) is left.
    pub index: Option<u32>,
}

/// Watches the carrier of interfaces until it is dropped.
#[derive(Debug)]
pub struct LinkWatcher {
    task: JoinHandle<()>,
    names: watch::Sender<BTreeSet<String>>,
}

impl LinkWatcher {
    /// Starts to watch the interfaces of these names, in the network namespace of the calling thread.
    ///
    /// Sends one event for each at once, and then one for each change, as it happens. An
    /// interface need not exist. Must be called within a tokio runtime with I/O and time.
    ///
    /// # Errors
    ///
    /// If there is no netlink socket to be had. Should it break later, it is replaced and the
    /// table is read anew.
    pub fn start(
        interfaces: impl IntoIterator<Item = impl Into<String>>,
        events: mpsc::Sender<LinkEvent>,
    ) -> io::Result<Self> {
        let connection = Connection::open(RECEIVE_BUFFER)?;
        let (names, receiver) = watch::channel(interfaces.into_iter().map(Into::into).collect());
        Ok(Self {
            task: tokio::spawn(watch(connection, receiver, events)),
            names,
        })
    }

    /// Watches the interfaces of these names, too; sends one event for each that was not watched
    /// before, soon. Whoever is watched is so for good.
    pub fn watch(&self, mut interfaces: BTreeSet<String>) {
        self.names
            .send_modify(|names| names.append(&mut interfaces));
    }
}

impl Drop for LinkWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Notifications = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// A netlink socket that is subscribed to changes of links.
struct Connection {
    handle: rtnetlink::Handle,
    notifications: Notifications,
    task: JoinHandle<()>,
}

impl Connection {
    fn open(receive_buffer: usize) -> io::Result<Self> {
        let (mut connection, handle, notifications) =
            new_multicast_connection(&[MulticastGroup::Link])?;
        let socket = connection.socket_mut().socket_ref();
        if let Err(error) = socket.set_rx_buf_sz(receive_buffer) {
            debug!(%error, "netlink receive buffer");
        }
        Ok(Self {
            handle,
            notifications,
            task: tokio::spawn(connection),
        })
    }

    async fn dump(&self) -> Result<Vec<LinkState>, rtnetlink::Error> {
        let request = self.handle.link().get();
        let request =
            request.set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
        let messages: Vec<LinkMessage> = request.execute().try_collect().await?;
        Ok(messages.into_iter().filter_map(LinkState::of).collect())
    }

    /// Discards the notifications that have been received, and counts them.
    fn discard(&mut self) -> usize {
        let mut count = 0;
        while let Some(Some(_)) = self.notifications.next().now_or_never() {
            count += 1;
        }
        count
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs until the receiver of the events is gone.
async fn watch(
    mut connection: Connection,
    mut names: watch::Receiver<BTreeSet<String>>,
    events: mpsc::Sender<LinkEvent>,
) {
    let mut links = Links::new(names.borrow_and_update().iter().cloned());
    loop {
        match follow(&mut connection, &mut links, &mut names, &events).await {
            Ended::NoReceiver => return,
            Ended::Broken(why) => warn!(why, "netlink socket broke; links are not watched"),
        }
        connection = loop {
            tokio::time::sleep(RECONNECT_DELAY).await;
            match Connection::open(RECEIVE_BUFFER) {
                Ok(connection) => break connection,
                Err(error) => warn!(%error, "no netlink socket; links are not watched"),
            }
        };
    }
}

enum Ended {
    NoReceiver,
    Broken(String),
}

async fn follow(
    connection: &mut Connection,
    links: &mut Links,
    names: &mut watch::Receiver<BTreeSet<String>>,
    events: &mpsc::Sender<LinkEvent>,
) -> Ended {
    let mut change = Change::Lost;
    loop {
        let mut changed_meanwhile = false;
        let changed = match change {
            Change::Lost => match connection.dump().await {
                Ok(dump) => {
                    // Received before the dump's end, they may be older than it or newer; if there
                    // were any, only another dump can tell.
                    changed_meanwhile = connection.discard() > 0;
                    links.replace(dump)
                }
                Err(error) => return Ended::Broken(error.to_string()),
            },
            Change::Set(link) => links.set(link),
            Change::Removed(index) => links.remove(index),
            Change::None => Vec::new(),
        };
        for event in changed {
            trace!(interface = event.interface, carrier = ?event.carrier, index = event.index, "link");
            if events.send(event).await.is_err() {
                return Ended::NoReceiver;
            }
        }
        if changed_meanwhile {
            change = Change::Lost;
            continue;
        }
        change = tokio::select! {
            message = connection.notifications.next() => match message {
                Some((message, _)) => Change::of(message.payload),
                None => return Ended::Broken("closed".to_owned()),
            },
            Ok(()) = names.changed() => {
                links.watch(&names.borrow_and_update());
                Change::Lost
            }
            () = events.closed() => return Ended::NoReceiver,
        };
    }
}

/// What one message says.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Set(LinkState),
    Removed(u32),
    /// The kernel had to drop notifications.
    Lost,
    None,
}

impl Change {
    fn of(payload: NetlinkPayload<RouteNetlinkMessage>) -> Self {
        match payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
                LinkState::of(message).map_or(Self::None, Self::Set)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
                LinkState::of(message).map_or(Self::None, |link| Self::Removed(link.index))
            }
            NetlinkPayload::Overrun(_) => Self::Lost,
            _ => Self::None,
        }
    }
}

/// One interface as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LinkState {
    index: u32,
    name: String,
    carrier: Carrier,
}

impl LinkState {
    /// `None` for messages about another layer: a port that leaves its bridge is a `DelLink`
    /// of family `AF_BRIDGE`, though the interface stays.
    fn of(message: LinkMessage) -> Option<Self> {
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let name = message
            .attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })?;
        let flags = message.header.flags;
        let up = flags.contains(LinkFlags::Up | LinkFlags::LowerUp)
            && !flags.contains(LinkFlags::Dormant);
        let carrier = if up { Carrier::Up } else { Carrier::Down };
        Some(Self {
            index: message.header.index,
            name,
            carrier,
        })
    }
}

/// What is known of the watched interfaces. Pure.
#[derive(Clone, Debug)]
struct Links {
    /// Index and carrier of each by name; `None`: not known yet.
    watched: BTreeMap<String, Option<(Option<u32>, Carrier)>>,
}

impl Links {
    fn new(names: impl Iterator<Item = String>) -> Self {
        Self {
            watched: names.map(|name| (name, None)).collect(),
        }
    }

    /// These are watched, too.
    fn watch(&mut self, names: &BTreeSet<String>) {
        for name in names {
            self.watched.entry(name.clone()).or_default();
        }
    }

    /// The table is this now.
    fn replace(&mut self, dump: Vec<LinkState>) -> Vec<LinkEvent> {
        let dump: BTreeMap<String, LinkState> = dump
            .into_iter()
            .map(|link| (link.name.clone(), link))
            .collect();
        let names: Vec<String> = self.watched.keys().cloned().collect();
        let now = names.into_iter().map(|name| {
            let state = dump.get(&name).map_or((None, Carrier::Down), |link| {
                (Some(link.index), link.carrier)
            });
            (name, state)
        });
        now.filter_map(|(name, (index, carrier))| self.update(name, index, carrier))
            .collect()
    }

    /// There is a link, perhaps one that had another name.
    fn set(&mut self, link: LinkState) -> Vec<LinkEvent> {
        let mut events = self.lose(link.index, Some(&link.name));
        events.extend(self.update(link.name, Some(link.index), link.carrier));
        events
    }

    /// There is no such link any more.
    fn remove(&mut self, index: u32) -> Vec<LinkEvent> {
        self.lose(index, None)
    }

    /// All names but `except` have ceased to be names of `index`.
    fn lose(&mut self, index: u32, except: Option<&str>) -> Vec<LinkEvent> {
        let had = |known: &Option<(Option<u32>, Carrier)>| {
            known.is_some_and(|(known, _)| known == Some(index))
        };
        let lost = self
            .watched
            .iter()
            .filter(|(name, known)| had(known) && except != Some(name.as_str()));
        let lost: Vec<String> = lost.map(|(name, _)| name.clone()).collect();
        lost.into_iter()
            .filter_map(|name| self.update(name, None, Carrier::Down))
            .collect()
    }

    /// An event, if the interface is watched and its state is another than before.
    fn update(
        &mut self,
        interface: String,
        index: Option<u32>,
        carrier: Carrier,
    ) -> Option<LinkEvent> {
        let known = self.watched.get_mut(&interface)?;
        let before = known.replace((index, carrier));
        (before != Some((index, carrier))).then_some(LinkEvent {
            interface,
            carrier,
            index,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::testing::Netns;
    use Carrier::{Down, Up};
    use std::time::Instant;

    fn link(index: u32, name: &str, carrier: Carrier) -> LinkState {
        LinkState {
            index,
            name: name.to_owned(),
            carrier,
        }
    }

    fn show(events: Vec<LinkEvent>) -> String {
        let words = events.into_iter().map(|event| {
            let index = event
                .index
                .map_or_else(|| "-".to_owned(), |index| index.to_string());
            format!("{} {index} {:?}", event.interface, event.carrier)
        });
        words.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn table() {
        enum Step {
            Dump(Vec<LinkState>),
            Set(LinkState),
            Remove(u32),
            Watch(&'static [&'static str]),
        }
        use Step::{Dump, Remove, Set, Watch};
        let steps = [
            (
                "initial state",
                Dump(vec![link(1, "lo", Up), link(2, "a", Up)]),
                "a 2 Up, b - Down",
            ),
            ("nothing new", Set(link(2, "a", Up)), ""),
            ("not watched", Set(link(1, "lo", Down)), ""),
            ("carrier lost", Set(link(2, "a", Down)), "a 2 Down"),
            ("appears", Set(link(3, "b", Down)), "b 3 Down"),
            ("carrier", Set(link(3, "b", Up)), "b 3 Up"),
            ("renamed to another watched name", Remove(2), "a - Down"),
            (
                "renamed to a watched name",
                Set(link(3, "a", Up)),
                "b - Down, a 3 Up",
            ),
            ("renamed away", Set(link(3, "c", Up)), "a - Down"),
            ("an unknown one goes", Remove(9), ""),
            ("and back", Set(link(3, "a", Up)), "a 3 Up"),
            (
                "made anew, and lost notifications",
                Dump(vec![link(4, "a", Up), link(5, "b", Up)]),
                "a 4 Up, b 5 Up",
            ),
            ("the old index is nobody's", Remove(3), ""),
            (
                "all gone, and lost notifications",
                Dump(vec![]),
                "a - Down, b - Down",
            ),
            ("others are watched, too", Watch(&["b", "c"]), ""),
            (
                "what is new is told",
                Dump(vec![link(7, "c", Up)]),
                "c 7 Up",
            ),
            ("still watched", Set(link(8, "a", Up)), "a 8 Up"),
        ];
        let mut links = Links::new(["a", "b"].into_iter().map(str::to_owned));
        for (name, step, want) in steps {
            let events = match step {
                Dump(dump) => links.replace(dump),
                Set(link) => links.set(link),
                Remove(index) => links.remove(index),
                Watch(names) => {
                    links.watch(&names.iter().map(|name| (*name).to_owned()).collect());
                    Vec::new()
                }
            };
            assert_eq!(show(events), want, "{name}");
        }
    }

    #[test]
    fn messages() {
        let message = |family, flags, name: Option<&str>| {
            let mut message = LinkMessage::default();
            message.header.interface_family = family;
            message.header.index = 7;
            message.header.flags = flags;
            message
                .attributes
                .extend(name.map(|name| LinkAttribute::IfName(name.to_owned())));
            message
        };
        let all = LinkFlags::Up | LinkFlags::LowerUp;
        for (family, flags, name, want) in [
            (AddressFamily::Unspec, all, Some("a"), Some(Up)),
            (
                AddressFamily::Unspec,
                all | LinkFlags::Running,
                Some("a"),
                Some(Up),
            ),
            (
                AddressFamily::Unspec,
                all | LinkFlags::Dormant,
                Some("a"),
                Some(Down),
            ),
            (AddressFamily::Unspec, LinkFlags::Up, Some("a"), Some(Down)),
            (
                AddressFamily::Unspec,
                LinkFlags::LowerUp,
                Some("a"),
                Some(Down),
            ),
            (AddressFamily::Unspec, all, None, None),
            (AddressFamily::Bridge, all, Some("a"), None),
        ] {
            let want = want.map(|carrier| link(7, "a", carrier));
            assert_eq!(
                LinkState::of(message(family, flags, name)),
                want,
                "{family:?} {flags:?} {name:?}"
            );
        }
    }

    async fn next(events: &mut mpsc::Receiver<LinkEvent>) -> LinkEvent {
        tokio::time::timeout(Duration::from_secs(10), events.recv())
            .await
            .expect("an event")
            .unwrap()
    }

    #[test]
    fn an_interface_comes_and_goes() {
        let Some(netns) = Netns::new("link") else {
            return;
        };
        netns.ip("link add wan0 type veth peer name far0");
        netns.run(async {
            let (sender, mut events) = mpsc::channel(16);
            let _watcher = LinkWatcher::start(["wan0", "wan1", "lo"], sender).unwrap();
            let mut initial = Vec::new();
            for _ in 0..3 {
                initial.push(next(&mut events).await);
            }
            let index = initial[1].index;
            assert!(index.is_some());
            assert_eq!(
                show(initial),
                format!("lo 1 Up, wan0 {} Down, wan1 - Down", index.unwrap())
            );

            let event = |interface: &str, carrier, index| LinkEvent {
                interface: interface.to_owned(),
                carrier,
                index,
            };
            for (command, want) in [
                ("link set far0 up", vec![]),
                ("link set wan0 up", vec![event("wan0", Up, index)]),
                ("link set far0 down", vec![event("wan0", Down, index)]),
                ("link set far0 up", vec![event("wan0", Up, index)]),
                ("link set wan0 down", vec![event("wan0", Down, index)]),
                (
                    "link set wan0 name wan1",
                    vec![event("wan0", Down, None), event("wan1", Down, index)],
                ),
                ("link set wan1 up", vec![event("wan1", Up, index)]),
                ("link set wan1 down", vec![event("wan1", Down, index)]),
                ("link set wan1 name other", vec![event("wan1", Down, None)]),
                ("link set other name wan0", vec![event("wan0", Down, index)]),
                ("link set wan0 up", vec![event("wan0", Up, index)]),
            ] {
                netns.ip(command);
                for want in want {
                    assert_eq!(next(&mut events).await, want, "{command}");
                }
            }
            netns.ip("link del wan0");
            while next(&mut events).await != event("wan0", Down, None) {}
            netns.ip("link add wan0 index 77 type veth peer name far0");
            netns.ip("link set far0 up");
            assert_eq!(next(&mut events).await, event("wan0", Down, Some(77)));
            netns.ip("link set wan0 up");
            assert_eq!(next(&mut events).await, event("wan0", Up, Some(77)));

            // Leaving a bridge is a message of removal that removes nothing.
            netns.ip("link add br0 type bridge");
            netns.ip("link set wan0 master br0");
            netns.ip("link set wan0 nomaster");
            netns.ip("link set wan0 down");
            assert_eq!(next(&mut events).await, event("wan0", Down, Some(77)));
            assert_eq!(events.try_recv(), Err(mpsc::error::TryRecvError::Empty));
        });
    }

    #[test]
    fn others_are_watched_on_the_way() {
        let Some(netns) = Netns::new("rewatch") else {
            return;
        };
        netns.ip("link add wan0 index 80 type veth peer name far0");
        netns.run(async {
            let (sender, mut events) = mpsc::channel(16);
            let watcher = LinkWatcher::start(["wan0"], sender).unwrap();
            assert_eq!(show(vec![next(&mut events).await]), "wan0 80 Down");
            watcher.watch(["lo", "wan0"].map(str::to_owned).into());
            assert_eq!(show(vec![next(&mut events).await]), "lo 1 Up");
            watcher.watch(["far0"].map(str::to_owned).into());
            let far = next(&mut events).await;
            assert_eq!((&*far.interface, far.carrier), ("far0", Down));
            netns.ip("link set wan0 up");
            netns.ip("link set far0 up");
            let mut up = [next(&mut events).await, next(&mut events).await];
            up.sort_by(|a, b| a.interface.cmp(&b.interface));
            let up = up.each_ref().map(|up| (&*up.interface, up.carrier));
            assert_eq!(up, [("far0", Up), ("wan0", Up)]);
        });
    }

    /// From the moment the kernel is asked to take the carrier away.
    #[test]
    fn lost_carrier_is_noticed_at_once() {
        let Some(netns) = Netns::new("carrier") else {
            return;
        };
        netns.ip("link add wan0 type veth peer name far0");
        netns.ip("link set wan0 up");
        netns.ip("link set far0 up");
        let mut took = netns.run(async {
            let (sender, mut events) = mpsc::channel(16);
            let _watcher = LinkWatcher::start(["wan0"], sender).unwrap();
            while next(&mut events).await.carrier != Up {}
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let mut far = LinkMessage::default();
            far.attributes
                .push(LinkAttribute::IfName("far0".to_owned()));
            let mut took = Vec::new();
            for _ in 0..20 {
                let mut down = far.clone();
                down.header.change_mask = LinkFlags::Up;
                let mut up = down.clone();
                up.header.flags = LinkFlags::Up;
                let begun = Instant::now();
                let (done, event) =
                    tokio::join!(handle.link().set(down).execute(), next(&mut events));
                took.push(begun.elapsed());
                done.unwrap();
                assert_eq!(event.carrier, Down);
                handle.link().set(up).execute().await.unwrap();
                assert_eq!(next(&mut events).await.carrier, Up);
            }
            took
        });
        took.sort();
        eprintln!(
            "lost carrier to event: median {:?}, worst {:?}",
            took[10], took[19]
        );
        assert!(took[10] <= Duration::from_millis(10), "{took:?}");
    }

    /// More changes than the socket's buffer holds, while nobody reads it.
    #[test]
    fn lost_notifications_are_made_up_for() {
        let Some(netns) = Netns::new("overrun") else {
            return;
        };
        netns.ip("link add wan0 index 70 type veth peer name far0");
        netns.ip("link set far0 up");
        netns.run(async {
            let (sender, mut events) = mpsc::channel(16);
            let connection = Connection::open(1).unwrap();
            let names = ["wan0", "wan1"].into_iter().map(str::to_owned);
            let (_names, receiver) = watch::channel(names.collect());
            let watch = tokio::spawn(watch(connection, receiver, sender));
            assert_eq!(
                show(vec![next(&mut events).await, next(&mut events).await]),
                "wan0 70 Down, wan1 - Down"
            );
            // Blocks the runtime's only thread.
            for _ in 0..10 {
                netns.ip("link set wan0 up");
                netns.ip("link set wan0 down");
            }
            netns.ip("link del wan0");
            netns.ip("link add wan1 index 71 type veth peer name far1");
            netns.ip("link set far1 up");
            netns.ip("link set wan1 up");
            let mut seen = Vec::new();
            while seen
                .last()
                .is_none_or(|last: &LinkEvent| (last.index, last.carrier) != (Some(71), Up))
            {
                seen.push(next(&mut events).await);
            }
            assert!(seen.len() < 20, "nothing was lost: {seen:?}");
            assert!(seen.contains(&LinkEvent {
                interface: "wan0".to_owned(),
                carrier: Down,
                index: None
            }));
            watch.abort();
        });
    }
}
