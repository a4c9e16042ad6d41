//! Sending the query of a case, and listening for its reply.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Protocol, query};

/// Port 53.
const PORT: u16 = 53;
/// How long a server may take to answer; only ends a test that has failed anyway.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a reply may come after that to a later query, before it is taken for missing.
const GRACE: Duration = Duration::from_millis(250);
/// Another query, with an ID of its own: `. NS`. It is sent behind that of the case, so that
/// silence is known from a server that has not come to it yet.
const SENTINEL: [u8; 17] = [0x43, 0x21, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// What came of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// This message.
    Reply(Vec<u8>),
    /// Nothing, but a query after it was answered.
    Silence,
    /// The connection was closed.
    Closed,
}

impl Heard {
    /// What came, in the words of a case.
    ///
    /// # Errors
    ///
    /// As [`super::render`].
    pub fn render(&self, query: &[u8]) -> Result<Vec<String>> {
        match self {
            Self::Reply(reply) => super::render(query, reply),
            Self::Silence => Ok(vec!["< silence".to_owned()]),
            Self::Closed => Ok(vec!["< closed".to_owned()]),
        }
    }
}

/// Sends a query from the namespace of the calling thread.
///
/// # Errors
///
/// When the server cannot be reached, or answers nothing at all.
pub fn ask(server: IpAddr, protocol: Protocol, query: &[u8]) -> Result<Heard> {
    match protocol {
        Protocol::Udp => over_udp(server, query),
        Protocol::Tcp => over_tcp(server, query),
    }
    .with_context(|| format!("{server} over {protocol:?}"))
}

fn over_udp(server: IpAddr, query: &[u8]) -> Result<Heard> {
    let any: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((server, PORT))?;
    socket.send(query)?;
    socket.send(&SENTINEL)?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    listen(|left| {
        socket.set_read_timeout(Some(left))?;
        let len = socket.recv(&mut buffer)?;
        Ok(buffer[..len].to_vec())
    })
}

fn over_tcp(server: IpAddr, query: &[u8]) -> Result<Heard> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(server, PORT), PATIENCE)?;
    let mut octets = Vec::new();
    for message in [query, &SENTINEL] {
        octets.extend(u16::try_from(message.len())?.to_be_bytes());
        octets.extend(message);
    }
    match stream.write_all(&octets) {
        Err(error) if is_end(&error) => return Ok(Heard::Closed),
        written => written?,
    }
    listen(|left| {
        stream.set_read_timeout(Some(left))?;
        let mut prefix = [0; 2];
        stream.read_exact(&mut prefix)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(prefix))];
        stream.read_exact(&mut message)?;
        Ok(message)
    })
}

/// Listens for the reply with `receive`, which is told how long it may wait.
fn listen(mut receive: impl FnMut(Duration) -> io::Result<Vec<u8>>) -> Result<Heard> {
    let mut deadline = Instant::now() + PATIENCE;
    let mut is_later_answered = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let message = match receive(left.max(Duration::from_millis(1))) {
            Ok(message) => message,
            Err(error) if is_timeout(&error) && is_later_answered => return Ok(Heard::Silence),
            Err(error) if is_timeout(&error) => bail!("nothing is answered within {PATIENCE:?}"),
            Err(error) if is_end(&error) => return Ok(Heard::Closed),
            Err(error) => return Err(error.into()),
        };
        if message.starts_with(&query::ID.to_be_bytes()) {
            return Ok(Heard::Reply(message));
        }
        if message.starts_with(&SENTINEL[..2]) {
            is_later_answered = true;
            deadline = deadline.min(Instant::now() + GRACE);
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}
