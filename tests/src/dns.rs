//! A DNS client that asks from inside a namespace, often, and with a watch in its hand.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
pub use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::AllRecordData;

use crate::lab::Netns;

/// Port 53.
const PORT: u16 = 53;

/// A client in one namespace.
#[derive(Debug)]
pub struct Client {
    v4: UdpSocket,
    v6: UdpSocket,
    next_id: u16,
    sent: u64,
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The response code.
    pub rcode: Rcode,
    /// The addresses of the answer section, in their order.
    pub addresses: Vec<IpAddr>,
    /// The whole message.
    pub message: Message<Vec<u8>>,
}

impl Reply {
    /// The addresses without their order.
    #[must_use]
    pub fn set(&self) -> BTreeSet<IpAddr> {
        self.addresses.iter().copied().collect()
    }
}

impl Client {
    /// A client whose packets leave from `netns`.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered.
    pub fn new(netns: &Netns) -> Result<Self> {
        netns.enter(|| {
            Ok(Self {
                v4: UdpSocket::bind("0.0.0.0:0")?,
                v6: UdpSocket::bind("[::]:0")?,
                next_id: 1,
                sent: 0,
            })
        })
    }

    /// How many queries were sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Asks once; `None` when no reply came within `timeout`.
    ///
    /// # Errors
    ///
    /// When the query cannot be made or the reply cannot be read.
    pub fn ask(
        &mut self,
        server: IpAddr,
        name: &str,
        rtype: Rtype,
        timeout: Duration,
    ) -> Result<Option<Reply>> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let query = query(id, name, rtype)?;
        let socket = if server.is_ipv4() { &self.v4 } else { &self.v6 };
        self.sent += 1;
        // The way there may be gone for the moment; that is no reply, and no error.
        if socket
            .send_to(&query, SocketAddr::new(server, PORT))
            .is_err()
        {
            return Ok(None);
        }
        receive(socket, id, Instant::now() + timeout)
    }

    /// Asks over and over until the set of addresses is `wanted`; returns how long that took.
    ///
    /// # Errors
    ///
    /// When it is not within `bound`.
    pub fn time_until(
        &mut self,
        server: IpAddr,
        name: &str,
        rtype: Rtype,
        wanted: &BTreeSet<IpAddr>,
        bound: Duration,
    ) -> Result<Duration> {
        let start = Instant::now();
        let mut last = None;
        loop {
            if let Some(reply) = self.ask(server, name, rtype, Duration::from_millis(20))? {
                let set = reply.set();
                if set == *wanted {
                    return Ok(start.elapsed());
                }
                last = Some(set);
            }
            if start.elapsed() > bound {
                bail!("{server} does not answer {wanted:?} within {bound:?}; last: {last:?}");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Makes a change and measures how long it takes until `wanted` is the set of addresses.
    ///
    /// # Errors
    ///
    /// Those of the change; when it takes longer than `bound`.
    pub fn time_change(
        &mut self,
        server: IpAddr,
        name: &str,
        wanted: &BTreeSet<IpAddr>,
        bound: Duration,
        change: impl FnOnce() -> Result<()> + Send,
    ) -> Result<Duration> {
        thread::scope(|scope| {
            // Beside the questions, or the programs that change things would be measured.
            let change = scope.spawn(change);
            let took = self.time_until(server, name, Rtype::A, wanted, bound);
            change.join().expect("a change does not panic")?;
            took
        })
    }
}

fn query(id: u16, name: &str, rtype: Rtype) -> Result<Vec<u8>> {
    let name: Name<Vec<u8>> = name
        .parse()
        .with_context(|| format!("{name:?} is no name"))?;
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut question = builder.question();
    question.push((&name, rtype))?;
    let mut additional = question.additional();
    additional.opt(|opt| {
        opt.set_udp_payload_size(1232);
        Ok(())
    })?;
    Ok(additional.finish())
}

fn receive(socket: &UdpSocket, id: u16, deadline: Instant) -> Result<Option<Reply>> {
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            // ICMP errors from an earlier query arrive here as well.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(_) => continue,
        };
        let message = Message::from_octets(buffer[..length].to_vec())
            .map_err(|_| anyhow::anyhow!("a reply of {length} octets"))?;
        // A late reply to an earlier query says nothing about now.
        if message.header().id() == id && message.header().qr() {
            return reply(message).map(Some);
        }
    }
}

fn reply(message: Message<Vec<u8>>) -> Result<Reply> {
    let mut addresses = Vec::new();
    for record in message.answer()?.limit_to::<AllRecordData<_, _>>() {
        match record?.data() {
            AllRecordData::A(a) => addresses.push(IpAddr::V4(a.addr())),
            AllRecordData::Aaaa(aaaa) => addresses.push(IpAddr::V6(aaaa.addr())),
            _ => {}
        }
    }
    Ok(Reply {
        rcode: message.header().rcode(),
        addresses,
        message,
    })
}
