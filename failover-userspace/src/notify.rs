//! Tells secondaries that a zone has changed (RFC 1996), so that they transfer it at once.
//!
//! [`run`] watches what is published. Each target of each zone is followed up on by a task of
//! its own, `follow`, from the first publication on: it sends the newest serial number, tries
//! again until the target has said that it heard, and drops all that for a newer number. How
//! a message goes out and what comes back is `exchange`'s work. A reload changes the targets;
//! those that stay are told only of what is new.
//!
//! Nobody waits for any of this: who publishes only leaves the newest state behind.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::message_builder::TreeCompressor;
use domain::base::{Message, MessageBuilder, Ttl};
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::listen::PublishedReader;
use crate::model::{Model, Name, Zone};

/// Messages about one serial number, at most.
const TRIES: usize = 5;
/// How long the first of them may go without a response; each further one twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Between the first messages about two serial numbers, at least: of changes that follow each
/// other more quickly a target hears the first at once and then the newest.
const GAP: Duration = Duration::from_millis(200);
/// Sockets open at a time; with all connections still below the usual limit of 1024 files.
const SOCKETS: usize = 256;
/// Longer responses are no responses to NOTIFY.
const RESPONSE_LIMIT: usize = 1232;

/// Who is to hear of the changes of one zone.
#[derive(Clone, Debug)]
pub struct Target {
    zone: Arc<Zone>,
    address: SocketAddr,
    /// The addresses that messages leave from, in turn; the kernel's choice if there are none.
    sources: Vec<IpAddr>,
}

/// The targets of all zones of a model; replaced with it.
pub type Targets = Arc<[Arc<Target>]>;

/// What a target is to hear.
#[derive(Clone, Debug)]
struct News {
    target: Arc<Target>,
    serial: u32,
}

/// The targets of all zones of a model.
///
/// Messages leave from our listen addresses, as secondaries know us by these; from each in
/// turn, as one may belong to a link that is down.
#[must_use]
pub fn targets(model: &Model) -> Targets {
    let mut targets = Vec::new();
    for zone in &model.zones {
        if zone.notify.is_empty() {
            continue;
        }
        let shared = Arc::new(zone.clone());
        targets.extend(zone.notify.iter().map(|address| {
            let listen = model.settings.listen.iter().copied();
            Arc::new(Target {
                zone: Arc::clone(&shared),
                address: *address,
                sources: listen
                    .filter(|source| source.is_ipv4() == address.is_ipv4())
                    .collect(),
            })
        }));
    }
    targets.into()
}

impl Target {
    fn key(&self) -> (Name, SocketAddr) {
        (self.zone.name.clone(), self.address)
    }
}

/// Tells each target of every change of its zone's serial number, the first included, until
/// nothing more will be published.
pub async fn run(mut targets: watch::Receiver<Targets>, mut published: PublishedReader) {
    let udp = Udp::default();
    let mut followers = JoinSet::new();
    // Who loses his sender has nothing more to tell.
    let mut followed: HashMap<(Name, SocketAddr), watch::Sender<News>> = HashMap::new();
    loop {
        let wanted = Arc::clone(&targets.borrow_and_update());
        let now = Arc::clone(&published.borrow_and_update());
        let mut before = std::mem::take(&mut followed);
        for target in wanted.iter() {
            let key = target.key();
            // Zones and targets are not replaced in the same moment.
            let Some(serial) = now.serial_of(&target.zone.name) else {
                continue;
            };
            let news = News {
                target: Arc::clone(target),
                serial,
            };
            let sender = if let Some(sender) = before.remove(&key) {
                sender.send_if_modified(|known| std::mem::replace(known, news).serial != serial);
                sender
            } else {
                let (sender, receiver) = watch::channel(news);
                followers.spawn(follow(receiver, udp.clone()));
                sender
            };
            followed.insert(key, sender);
        }
        drop(before);
        tokio::select! {
            changed = published.changed() => if changed.is_err() {
                return;
            },
            Ok(()) = targets.changed() => {}
        }
        // Finished tasks are forgotten.
        while followers.try_join_next().is_some() {}
    }
}

/// One message and what becomes of it.
trait Exchange {
    /// Sends `message`, and waits up to `wait` for the response to it.
    fn exchange(
        &self,
        message: &[u8],
        from: Option<IpAddr>,
        to: SocketAddr,
        wait: Duration,
    ) -> impl Future<Output = Response> + Send;
}

/// What the target said to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Response {
    /// It has heard.
    Heard,
    /// It does not want to hear this, at least not from this address.
    Error(Rcode),
    /// Nothing in time.
    Silence,
}

/// Tells one target of one serial number after the other; ends with their source.
async fn follow(mut news: watch::Receiver<News>, exchange: impl Exchange) {
    let mut last = Response::Heard;
    loop {
        let News { target, serial } = news.borrow_and_update().clone();
        let not_before = Instant::now() + GAP;
        let superseded = tokio::select! {
            changed = news.changed() => Some(changed),
            response = tell(&target, serial, &exchange) => {
                log(&target, serial, response, &mut last);
                None
            }
        };
        let changed = match superseded {
            Some(changed) => changed,
            None => news.changed().await,
        };
        if changed.is_err() {
            return;
        }
        sleep_until(not_before).await;
    }
}

/// Sends a serial number until the target responds, or there is no hope left.
///
/// An error is final for the address that it was sent to: the target may know us by another.
async fn tell(target: &Target, serial: u32, exchange: &impl Exchange) -> Response {
    let id = RandomState::new().hash_one(serial) as u16;
    let Ok(message) = message(id, &target.zone, serial) else {
        return Response::Silence;
    };
    let mut sources: VecDeque<_> = target.sources.iter().copied().map(Some).collect();
    if sources.is_empty() {
        sources.push_back(None);
    }
    let mut wait = FIRST_WAIT;
    let mut last = Response::Silence;
    for _ in 0..TRIES {
        let Some(source) = sources.pop_front() else {
            break;
        };
        let address = target.address;
        match exchange.exchange(&message, source, address, wait).await {
            Response::Heard => return Response::Heard,
            error @ Response::Error(_) => last = error,
            Response::Silence => {
                sources.push_back(source);
                wait *= 2;
            }
        }
    }
    last
}

/// Logs what is news: failures when they begin or change, and when they end.
fn log(target: &Target, serial: u32, response: Response, last: &mut Response) {
    let (zone, to) = (&target.zone.name, target.address);
    let is_news = *last != response;
    *last = response;
    match response {
        Response::Heard if is_news => tracing::info!(%zone, %to, serial, "NOTIFY answered again"),
        Response::Heard => tracing::debug!(%zone, %to, serial, "NOTIFY answered"),
        _ if !is_news => tracing::debug!(%zone, %to, serial, ?response, "NOTIFY failed again"),
        Response::Error(rcode) => {
            tracing::warn!(%zone, %to, serial, %rcode, "NOTIFY refused");
        }
        Response::Silence => tracing::warn!(%zone, %to, serial, "NOTIFY not answered"),
    }
}

/// A NOTIFY with the new SOA (RFC 1996 section 3).
fn message(id: u16, zone: &Zone, serial: u32) -> Result<Vec<u8>, NoRoom> {
    let target = TreeCompressor::new(Vec::new());
    let mut message = MessageBuilder::from_target(target).map_err(|_| NoRoom)?;
    let header = message.header_mut();
    header.set_id(id);
    header.set_opcode(Opcode::NOTIFY);
    header.set_aa(true);
    let mut message = message.question();
    message
        .push((&zone.name, Rtype::SOA, Class::IN))
        .map_err(|_| NoRoom)?;
    let mut message = message.answer();
    let ttl = Ttl::from_secs(zone.soa.ttl);
    message
        .push((&zone.name, Class::IN, ttl, zone.soa_data(serial)))
        .map_err(|_| NoRoom)?;
    Ok(message.finish().into_target())
}

/// The message does not fit: never, as two records are short.
#[derive(Clone, Copy, Debug)]
struct NoRoom;

/// Messages in datagrams, each from a socket of its own with a port that nobody can guess.
#[derive(Clone)]
struct Udp {
    /// Sockets that may still be opened.
    room: Arc<Semaphore>,
}

impl Default for Udp {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(SOCKETS)),
        }
    }
}

impl Exchange for Udp {
    async fn exchange(
        &self,
        message: &[u8],
        from: Option<IpAddr>,
        to: SocketAddr,
        wait: Duration,
    ) -> Response {
        let _permit = self.room.acquire().await;
        let deadline = Instant::now() + wait;
        match timeout_at(deadline, ask(message, from, to)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                // No route, or nobody listens: it may be different next time.
                tracing::debug!(%to, %error, "send NOTIFY");
                sleep_until(deadline).await;
                Response::Silence
            }
            Err(_late) => Response::Silence,
        }
    }
}

/// Sends a message and waits for the response to it, for as long as it takes.
async fn ask(message: &[u8], from: Option<IpAddr>, to: SocketAddr) -> io::Result<Response> {
    let any = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((from.unwrap_or(any), 0)).await?;
    // Nobody else's datagrams arrive then.
    socket.connect(to).await?;
    socket.send(message).await?;
    let mut buffer = [0; RESPONSE_LIMIT];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if let Some(response) = response_to(message, &buffer[..len]) {
            return Ok(response);
        }
    }
}

/// What a message says, if it is the response to ours.
fn response_to(message: &[u8], received: &[u8]) -> Option<Response> {
    let received = Message::from_octets(received).ok()?;
    let header = received.header();
    let is_response = header.qr()
        && header.opcode() == Opcode::NOTIFY
        && message.get(..2) == Some(&header.id().to_be_bytes()[..]);
    is_response.then(|| match header.rcode() {
        Rcode::NOERROR => Response::Heard,
        rcode => Response::Error(rcode),
    })
}
