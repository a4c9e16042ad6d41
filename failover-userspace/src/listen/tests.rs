//! Over the loopback, on ports of no account.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::authority::{Authority, Snapshot};
use crate::dataplane::Generation;

const SOON: Duration = Duration::from_secs(5);
const TXT: u16 = 16;
const SOA: u16 = 6;
const AXFR: u16 = 252;

/// Sockets that serve a zone without services.
struct Server {
    port: u16,
    counters: Arc<Counters>,
    sockets: Sockets,
    publisher: watch::Sender<Arc<Published>>,
}

fn model() -> crate::model::Model {
    model_of("")
}

/// The zone with more lines; whoever is on this host may transfer it.
fn model_of(more: &str) -> crate::model::Model {
    let directory = tempfile::tempdir().unwrap();
    let txt = "x".repeat(250);
    let zone = format!(
        "$TTL 60\n@ SOA ns.example.net. h 1 2 3 4 5\n@ NS ns.example.net.\nlarge TXT {txt} {txt} {txt} {txt}\n{more}"
    );
    std::fs::write(directory.path().join("zone"), zone).unwrap();
    let file = directory.path().join("failover.toml");
    let toml = "[server]\nlisten = [\"127.0.0.1\"]\n[[zone]]\nname = \"example.com\"\nfile = \"zone\"\nallow_transfer = [\"127.0.0.1\"]\n";
    std::fs::write(&file, toml).unwrap();
    let loaded = crate::config::load(&file);
    loaded.unwrap_or_else(|errors| panic!("{errors}")).model
}

fn published() -> Arc<Published> {
    publish(&model())
}

fn publish(model: &crate::model::Model) -> Arc<Published> {
    Arc::new(Published {
        authority: Arc::new(Authority::new(model)),
        snapshot: Snapshot::new(Generation(1), &[]),
    })
}

fn free_port() -> u16 {
    let any = (Ipv4Addr::LOCALHOST, 0);
    let socket = std::net::TcpListener::bind(any).unwrap();
    socket.local_addr().unwrap().port()
}

fn with_port(addresses: &[&str], port: u16) -> Vec<SocketAddr> {
    let addresses = addresses.iter().map(|a| a.parse().unwrap());
    addresses
        .map(|address| SocketAddr::new(address, port))
        .collect()
}

fn start(addresses: &[&str], patience: Patience) -> Server {
    let (port, listener) = (0..20)
        .find_map(|_| {
            let port = free_port();
            Some((port, Listener::bind(with_port(addresses, port)).ok()?))
        })
        .expect("a free port");
    let (publisher, reader) = watch::channel(published());
    let counters = Arc::new(Counters::default());
    let mut sockets = Sockets::new(reader, Arc::clone(&counters));
    Arc::get_mut(&mut sockets.common).unwrap().patience = patience;
    sockets.open(listener);
    Server {
        port,
        counters,
        sockets,
        publisher,
    }
}

fn query(id: u16, name: &[u8], qtype: u16) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.extend(name);
    query.extend(b"\x07example\x03com\0");
    query.extend(qtype.to_be_bytes());
    query.extend([0, 1]);
    query
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

async fn next_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// The ID of the next reply.
async fn next_reply(stream: &mut TcpStream) -> io::Result<u16> {
    let reply = next_message(stream).await?;
    assert_eq!(reply[2] & 0x84, 0x84, "QR and AA");
    Ok(u16::from_be_bytes([reply[0], reply[1]]))
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .await
            .unwrap()
    }

    async fn answers_over_tcp(&self) {
        let mut stream = self.connect().await;
        stream
            .write_all(&framed(&query(7, b"", SOA)))
            .await
            .unwrap();
        let reply = timeout(SOON, next_reply(&mut stream)).await;
        assert_eq!(reply.unwrap().unwrap(), 7);
    }

    async fn answers_over_udp(&self, from: &str, to: &str) {
        let socket = UdpSocket::bind((from, 0)).await.unwrap();
        let mut buffer = [0; 512];
        let (_, source) = timeout(SOON, async {
            socket.send_to(&query(8, b"", SOA), (to, self.port)).await?;
            socket.recv_from(&mut buffer).await
        })
        .await
        .unwrap()
        .unwrap();
        assert_eq!(buffer[..2], [0, 8]);
        assert_eq!(source, SocketAddr::new(to.parse().unwrap(), self.port));
    }

    /// Whatever connections there are, the tasks end soon.
    async fn shut_down(self) {
        let tasks = Arc::downgrade(&self.sockets.common);
        let start = Instant::now();
        drop(self.sockets);
        while tasks.strong_count() > 0 {
            assert!(start.elapsed() < SOON, "still serving");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(start.elapsed() < SHUTDOWN_GRACE, "{:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_leave_from_the_address_that_was_asked() {
    let server = start(&["127.0.0.1", "127.0.0.2"], Patience::default());
    server.answers_over_udp("127.0.0.1", "127.0.0.1").await;
    server.answers_over_udp("127.0.0.1", "127.0.0.2").await;
    server.answers_over_tcp().await;
    assert_eq!(server.counters.slow_path(), 3);
    server.shut_down().await;
}

#[tokio::test]
async fn ipv6_is_served_next_to_ipv4() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 here");
        return;
    }
    let server = start(&["127.0.0.1", "::1"], Patience::default());
    server.answers_over_udp("127.0.0.1", "127.0.0.1").await;
    server.answers_over_udp("::1", "::1").await;
    let mut stream = TcpStream::connect(("::1", server.port)).await.unwrap();
    stream
        .write_all(&framed(&query(9, b"", SOA)))
        .await
        .unwrap();
    assert_eq!(next_reply(&mut stream).await.unwrap(), 9);
    server.shut_down().await;
}

#[tokio::test]
async fn queries_come_in_pieces_and_in_heaps() {
    let server = start(&["127.0.0.1"], Patience::default());
    let mut stream = server.connect().await;
    stream.set_nodelay(true).unwrap();
    for octet in framed(&query(1, b"", SOA)) {
        stream.write_all(&[octet]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(next_reply(&mut stream).await.unwrap(), 1);
    let heap: Vec<u8> = (2..200)
        .flat_map(|id| framed(&query(id, b"\x05large", TXT)))
        .collect();
    let (head, tail) = heap.split_at(1001);
    stream.write_all(head).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.write_all(tail).await.unwrap();
    // No more to come, but answers are still wanted.
    stream.shutdown().await.unwrap();
    for id in 2..200 {
        let reply = timeout(SOON, next_reply(&mut stream)).await.unwrap();
        assert_eq!(reply.unwrap(), id);
    }
    let end = next_reply(&mut stream).await.unwrap_err();
    assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
    server.shut_down().await;
}

#[tokio::test]
async fn messages_without_reply_are_passed_over() {
    let server = start(&["127.0.0.1"], Patience::default());
    let mut stream = server.connect().await;
    let mut response = query(1, b"", SOA);
    response[2] |= 0x80;
    for message in [&[][..], b"short", &response, &query(2, b"", SOA)] {
        stream.write_all(&framed(message)).await.unwrap();
    }
    assert_eq!(next_reply(&mut stream).await.unwrap(), 2);
    assert_eq!(server.counters.ignored.load(Ordering::Relaxed), 3);
    assert_eq!(server.counters.slow_path(), 1);
    server.shut_down().await;
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let patience = Patience {
        idle: Duration::from_millis(300),
        write: Duration::from_millis(300),
    };
    let server = start(&["127.0.0.1"], patience);

    // Says nothing.
    let mut silent = server.connect().await;
    let closed = timeout(SOON, silent.read(&mut [0])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));

    // Announces a query, and dribbles octets.
    let mut slow = server.connect().await;
    let start = Instant::now();
    let mut octets = [0xff, 0xff].into_iter().chain(std::iter::repeat(1));
    while let Some(octet) = octets.next()
        && slow.write_all(&[octet]).await.is_ok()
    {
        assert!(start.elapsed() < SOON, "still open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // Asks, and does not read.
    let mut deaf = server.connect().await;
    let heap: Vec<u8> = (0..500)
        .flat_map(|id| framed(&query(id, b"\x05large", TXT)))
        .collect();
    let cut_off = async { while deaf.write_all(&heap).await.is_ok() {} };
    timeout(SOON, cut_off).await.expect("still open");
    server.answers_over_tcp().await;
    server.shut_down().await;
}

/// Lines of a zone file, each for a record of about 4 KiB.
fn long_records(count: u64) -> String {
    let data = format!("{} ", "x".repeat(255)).repeat(16);
    (0..count)
        .map(|number| format!("h{number} TXT {data}\n"))
        .collect()
}

/// Records of a transfer's messages up to the one that ends with the SOA again.
async fn read_transfer(stream: &mut TcpStream, id: u16) -> io::Result<u64> {
    let (mut records, mut soas) = (0, 0);
    while soas < 2 {
        let message = next_message(stream).await?;
        assert_eq!(message[..2], id.to_be_bytes());
        let message = domain::base::Message::from_octets(message).unwrap();
        for record in message.answer().unwrap() {
            records += 1;
            soas += u32::from(record.unwrap().rtype() == domain::base::iana::Rtype::SOA);
        }
    }
    Ok(records)
}

#[tokio::test]
async fn a_transfer_is_one_of_many_queries() {
    // 4 MiB.
    const RECORDS: u64 = 1024;
    let server = start(&["127.0.0.1"], Patience::default());
    let large = model_of(&long_records(RECORDS));
    server.publisher.send(publish(&large)).unwrap();
    let mut stream = server.connect().await;
    let queries = [(1, SOA), (2, AXFR), (3, SOA), (4, AXFR), (5, SOA)];
    for (id, qtype) in queries {
        stream
            .write_all(&framed(&query(id, b"", qtype)))
            .await
            .unwrap();
    }
    // What is published now is for later transfers.
    assert_eq!(next_reply(&mut stream).await.unwrap(), 1);
    let first = next_message(&mut stream).await.unwrap();
    assert_eq!(first[1], 2);
    server.publisher.send(published()).unwrap();
    // Others are served meanwhile.
    server.answers_over_tcp().await;
    server.answers_over_udp("127.0.0.1", "127.0.0.1").await;

    let mut records = u64::from(u16::from_be_bytes([first[6], first[7]]));
    let rest = async {
        let mut soas = 1;
        while soas < 2 {
            let message = next_message(&mut stream).await?;
            let message = domain::base::Message::from_octets(message).unwrap();
            assert_eq!(message.header().id(), 2);
            for record in message.answer().unwrap() {
                records += 1;
                soas += u32::from(record.unwrap().rtype() == domain::base::iana::Rtype::SOA);
            }
        }
        io::Result::Ok(())
    };
    timeout(SOON * 4, rest).await.unwrap().unwrap();
    // SOA twice, NS, and "large".
    assert_eq!(records, 4 + RECORDS);
    assert_eq!(next_reply(&mut stream).await.unwrap(), 3);
    let small = timeout(SOON, read_transfer(&mut stream, 4)).await.unwrap();
    assert_eq!(small.unwrap(), 4);
    assert_eq!(next_reply(&mut stream).await.unwrap(), 5);
    assert_eq!(server.counters.transfers.load(Ordering::Relaxed), 2);
    server.shut_down().await;
}

#[tokio::test]
async fn who_does_not_read_a_zone_is_cut_off() {
    let patience = Patience {
        write: Duration::from_millis(300),
        ..Patience::default()
    };
    let server = start(&["127.0.0.1"], patience);
    // 16 MiB, more than the sender's socket takes.
    let large = model_of(&long_records(4096));
    server.publisher.send(publish(&large)).unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.port);
    let mut deaf = socket.connect(to).await.unwrap();
    deaf.write_all(&framed(&query(1, b"", AXFR))).await.unwrap();
    next_message(&mut deaf).await.unwrap();
    let held = Arc::downgrade(&*server.publisher.borrow());
    server.publisher.send(published()).unwrap();
    let cut_off = async {
        while held.upgrade().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON * 4, cut_off).await.expect("still sending");
    let end = timeout(SOON, read_transfer(&mut deaf, 1)).await.unwrap();
    assert!(end.is_err());
    assert_eq!(server.counters.transfers.load(Ordering::Relaxed), 0);
    server.answers_over_tcp().await;
    server.shut_down().await;
}

#[tokio::test]
async fn who_may_not_transfer_is_told_so() {
    let server = start(&["127.0.0.1"], Patience::default());
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.port);
    let mut stream = socket.connect(to).await.unwrap();
    for id in 1..3 {
        let query = query(id, b"", AXFR);
        stream.write_all(&framed(&query)).await.unwrap();
        let reply = next_message(&mut stream).await.unwrap();
        assert_eq!((reply[1], reply[3]), (id as u8, 5), "REFUSED");
    }
    server.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_connections_are_no_harm() {
    allow_many_files();
    let server = start(&["127.0.0.1"], Patience::default());
    let mut idle = Vec::new();
    for _ in 0..1000 {
        let mut stream = server.connect().await;
        // A length without data.
        stream.write_all(&[0, 40]).await.unwrap();
        idle.push(stream);
    }
    server.answers_over_tcp().await;
    server.answers_over_udp("127.0.0.1", "127.0.0.1").await;
    let accepted = server.counters.connections.load(Ordering::Relaxed);
    let evicted = server.counters.evicted.load(Ordering::Relaxed);
    assert!(accepted > 1000, "{accepted}");
    let left = accepted - evicted;
    assert!(left <= connections::CLIENT_LIMIT as u64 + 1, "{left} left");
    // Of the first, nothing is left on our side.
    let closed = timeout(SOON, idle[0].read(&mut [0])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    server.shut_down().await;
}

#[tokio::test]
async fn a_busy_client_keeps_its_connection() {
    allow_many_files();
    let server = start(&["127.0.0.1"], Patience::default());
    let mut busy = server.connect().await;
    let mut idle = Vec::new();
    for id in 0..200 {
        idle.push(server.connect().await);
        busy.write_all(&framed(&query(id, b"", SOA))).await.unwrap();
        let reply = timeout(SOON, next_reply(&mut busy)).await.unwrap();
        assert_eq!(reply.unwrap(), id);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_published_is_served() {
    let server = start(&["127.0.0.1"], Patience::default());
    let mut stream = server.connect().await;
    let nothing = Published {
        authority: Arc::new(Authority::new(&crate::model::Model {
            zones: Vec::new(),
            ..model()
        })),
        snapshot: Snapshot::default(),
    };
    server.publisher.send(Arc::new(nothing)).unwrap();
    stream
        .write_all(&framed(&query(1, b"", SOA)))
        .await
        .unwrap();
    let reply = next_message(&mut stream).await.unwrap();
    assert_eq!(reply[3], 5, "REFUSED");
    server.shut_down().await;
}

/// A query that waits in a socket is answered though its address is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_come_and_go_while_others_are_served() {
    let mut server = start(&["127.0.0.1"], Patience::default());
    let port = server.port;
    let [first, second] = ["127.0.0.1", "127.0.0.2"].map(|a| with_port(&[a], port)[0]);
    let mut before = server.connect().await;
    server.sockets.open(Listener::bind([second]).unwrap());
    assert!(server.sockets.has(&first) && server.sockets.has(&second));
    server.answers_over_udp("127.0.0.1", "127.0.0.2").await;
    let mut there = TcpStream::connect(second).await.unwrap();

    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    for id in 0..100 {
        socket.send_to(&query(id, b"", SOA), second).await.unwrap();
    }
    let mut waiting = TcpStream::connect(second).await.unwrap();
    server.sockets.keep(&[first]);
    assert!(!server.sockets.has(&second));
    let mut buffer = [0; 512];
    let mut ids = std::collections::BTreeSet::new();
    while ids.len() < 100 {
        let received = timeout(SOON, socket.recv_from(&mut buffer)).await;
        received.expect("a reply").unwrap();
        ids.insert(buffer[1]);
    }
    // Connections are served on, and no new ones are taken.
    for stream in [&mut there, &mut waiting, &mut before] {
        for id in [7, 8] {
            let query = framed(&query(id, b"", SOA));
            stream.write_all(&query).await.unwrap();
            let reply = timeout(SOON, next_reply(stream)).await.unwrap();
            assert_eq!(reply.unwrap(), id);
        }
    }
    timeout(SOON, async {
        while TcpStream::connect(second).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("still accepting");
    server.answers_over_udp("127.0.0.1", "127.0.0.1").await;
    // The address can be had again, even with connections left.
    timeout(SOON, async {
        while Listener::bind([second]).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("still bound");
    server.shut_down().await;
}

#[tokio::test]
async fn an_address_that_is_not_there_is_named() {
    let nowhere = with_port(&["203.0.113.254"], free_port());
    let error = Listener::bind(nowhere).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("UDP 203.0.113.254:") && message.contains("on no interface"),
        "{message}"
    );
    let address = with_port(&["127.0.0.1"], free_port());
    let _first = Listener::bind(address.clone()).unwrap();
    let message = Listener::bind(address).unwrap_err().to_string();
    assert!(message.contains("another name server"), "{message}");
}

/// Both ends of every connection are in this process.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
