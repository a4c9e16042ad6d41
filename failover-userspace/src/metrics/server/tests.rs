//! Over the loopback, on ports of no account.

use std::net::Ipv4Addr;

use failover_common::counters::ServiceHits;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;
use crate::controller::testing::{Bench, example, reference};
use crate::controller::{MetricsPart, Query};
use crate::metrics::testing::Scrape;
use crate::webhook::Webhooks;

/// Within which whatever has to happen happens, however busy the machine.
const SOON: Duration = Duration::from_secs(20);

/// For clients that do as they should.
const PATIENT: Patience = Patience {
    head: SOON,
    part: SOON,
    whole: SOON,
};

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: failover\r\n\r\n";

/// The reply to it is small.
const SMALL: &str = "GET / HTTP/1.1\r\nHost: failover\r\n\r\n";

/// A server and the controller behind it.
struct Running {
    address: SocketAddr,
    stop: watch::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

/// A server whose controller is `controller`, which gets the queries.
fn start<F>(patience: Patience, controller: impl FnOnce(mpsc::Receiver<Asked>) -> F) -> Running
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut server = Server::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    server.patience = patience;
    let address = server.listener.local_addr().unwrap();
    let (queries, receiver) = mpsc::channel(1);
    tokio::spawn(controller(receiver));
    let (stop, stops) = watch::channel(());
    let meters = Meters::new(Timestamp::UNIX_EPOCH, Webhooks::new());
    let task = tokio::spawn(server.serve(meters, queries, stops));
    Running {
        address,
        stop,
        task,
    }
}

/// The reference case, which answers every query.
async fn content(queries: mpsc::Receiver<Asked>) {
    answer(queries, |_| Arc::new(Bench::new(reference()))).await;
}

/// Answers the query of this number by this core.
async fn answer(mut queries: mpsc::Receiver<Asked>, core: impl Fn(usize) -> Arc<Bench>) {
    let mut number = 0;
    while let Some(asked) = queries.recv().await {
        let Query::Metrics(from, reply) = asked.query else {
            panic!("{asked:?}");
        };
        let _ = reply.send(part(&core(number), from));
        number += 1;
    }
}

fn part(bench: &Bench, from: usize) -> Result<MetricsPart, crate::dataplane::Error> {
    let hits = |_| Ok::<_, crate::dataplane::Error>(ServiceHits::default());
    let mut part = bench.core.metrics(from, hits)?;
    if from == 0 {
        part.overview = Some(bench.core.overview(Default::default(), Vec::new()));
    }
    Ok(part)
}

/// What a client gets.
#[derive(Debug)]
struct Reply {
    head: String,
    body: String,
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends the request and reads until the server closes the connection.
    async fn ask(&self, request: &str) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read(stream).await
    }

    async fn scrape(&self) -> Scrape {
        let reply = self.ask(GET).await;
        assert!(reply.head.starts_with("HTTP/1.1 200 "), "{}", reply.head);
        Scrape::parse(&reply.body)
    }
}

async fn read(mut stream: TcpStream) -> Reply {
    let mut octets = Vec::new();
    timeout(SOON, stream.read_to_end(&mut octets))
        .await
        .expect("the server closes")
        .unwrap();
    let text = String::from_utf8(octets).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let chunked = head.contains("transfer-encoding: chunked");
    Reply {
        head: head.to_owned(),
        body: if chunked {
            unchunked(body)
        } else {
            body.to_owned()
        },
    }
}

/// The chunks together; panics if the last one is missing.
fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return text;
        }
        text += &rest[..size];
        body = rest[size..].strip_prefix("\r\n").unwrap();
    }
}

#[tokio::test]
async fn only_metrics_are_here() {
    let server = start(PATIENT, content);
    for (request, status, header) in [
        (
            "GET /metrics HTTP/1.1",
            "200 OK",
            "text/plain; version=0.0.4",
        ),
        (
            "GET /metrics HTTP/1.0",
            "200 OK",
            "text/plain; version=0.0.4",
        ),
        ("GET /metrics?x=1 HTTP/1.1", "200 OK", "content-type"),
        (
            "HEAD /metrics HTTP/1.1",
            "200 OK",
            "text/plain; version=0.0.4",
        ),
        ("GET / HTTP/1.1", "404 Not Found", "content-length: 24"),
        (
            "GET /metrics/ HTTP/1.1",
            "404 Not Found",
            "connection: close",
        ),
        ("GET /../metrics HTTP/1.1", "404 Not Found", ""),
        ("POST / HTTP/1.1", "404 Not Found", ""),
        (
            "POST /metrics HTTP/1.1",
            "405 Method Not Allowed",
            "allow: GET, HEAD",
        ),
        (
            "DELETE /metrics HTTP/1.1",
            "405 Method Not Allowed",
            "allow: GET, HEAD",
        ),
        ("OPTIONS /metrics HTTP/1.1", "405 Method Not Allowed", ""),
        ("nonsense", "400 Bad Request", ""),
        ("GET /metrics HTTP/2.0", "400 Bad Request", ""),
    ] {
        let reply = server
            .ask(&format!("{request}\r\nHost: failover\r\n\r\n"))
            .await;
        let first = reply.head.lines().next().unwrap();
        assert!(first.ends_with(status), "{request}: {first}");
        assert!(reply.head.contains(header), "{request}: {}", reply.head);
        let is_scrape = reply.body.contains("failover_generation 0\n");
        assert_eq!(
            is_scrape,
            request.starts_with("GET /metrics") && status == "200 OK"
        );
    }
    let head = server
        .ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert_eq!(head.body, "");
}

#[tokio::test]
async fn the_format_is_the_clients_choice() {
    let server = start(PATIENT, content);
    let reply = server
        .ask(
            "GET /metrics HTTP/1.1\r\nHost: x\r\n\
             Accept: application/openmetrics-text; version=1.0.0\r\n\r\n",
        )
        .await;
    let content_type = "content-type: application/openmetrics-text; version=1.0.0";
    assert!(reply.head.contains(content_type), "{}", reply.head);
    assert!(reply.body.contains("# TYPE failover_build info\n"));
    assert!(reply.body.ends_with("\n# EOF\n"));
    let reply = server.ask(GET).await;
    assert!(reply.body.contains("# TYPE failover_build_info gauge\n"));
    assert!(!reply.body.contains("EOF"));
}

#[tokio::test]
async fn an_oversized_request_is_refused() {
    let server = start(PATIENT, content);
    for (line, length) in [
        ("GET /", HEAD_LIMIT),
        ("GET /metrics HTTP/1.1\r\nX: ", HEAD_LIMIT),
    ] {
        let mut stream = server.connect().await;
        let request = format!("{line}{}", "x".repeat(length));
        // It may be refused before all of it is there.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut start = [0; 12];
        let read = timeout(SOON, stream.read_exact(&mut start)).await.unwrap();
        // The connection may be reset, as octets were not read.
        if read.is_ok() {
            let status = std::str::from_utf8(&start).unwrap();
            assert!(
                ["HTTP/1.1 431", "HTTP/1.1 414"].contains(&status),
                "{status}"
            );
        }
    }
    // A body is not waited for.
    let reply = server
        .ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        .await;
    assert!(reply.head.starts_with("HTTP/1.1 405"), "{}", reply.head);
    assert_eq!(server.scrape().await.get("failover_generation"), 0.0);
}

#[tokio::test]
async fn who_does_not_say_what_he_wants_is_sent_away() {
    let patience = Patience {
        head: Duration::from_millis(200),
        ..PATIENT
    };
    let server = start(patience, content);
    for start in ["", "G", "GET /metrics HTTP/1.1\r\nHost: x\r\n"] {
        let reply = server.ask(start).await;
        assert!(reply.body.is_empty(), "{reply:?}");
    }
}

#[tokio::test]
async fn one_letter_at_a_time_is_no_way_to_stay() {
    let patience = Patience {
        head: Duration::from_millis(300),
        ..PATIENT
    };
    let server = start(patience, content);
    let mut stream = server.connect().await;
    let begun = Instant::now();
    // A reset is as good as an end.
    while stream.write_all(b"x").await.is_ok() {
        assert!(begun.elapsed() < SOON);
        sleep(Duration::from_millis(20)).await;
    }
}

/// A service whose metrics fill the buffers of any socket.
fn large() -> Arc<Bench> {
    let names = "x".repeat(110);
    let services = (0..4000).map(|n| {
        format!(
            "[[service]]\nname = \"{names}{n}\"\nfqdn = [\"n{n}.example.com\"]\nport = 80\n\
             [[service.server]]\nname = \"{names}\"\naddress = \"192.0.2.9\"\noffsite = true\n"
        )
    });
    Arc::new(Bench::new(example(&services.collect::<String>())))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_cut_off_and_in_nobodys_way() {
    let patience = Patience {
        whole: Duration::from_secs(2),
        ..PATIENT
    };
    let bench = large();
    let server = start(patience, move |queries| {
        answer(queries, move |_| Arc::clone(&bench))
    });
    let mut slow = server.connect().await;
    slow.write_all(GET.as_bytes()).await.unwrap();
    // Begun, as a rule, so that there is something to cut off.
    let mut octets = [0; 16];
    let _ = timeout(SOON, slow.read_exact(&mut octets)).await;

    let begun = Instant::now();
    while !server.ask(SMALL).await.head.starts_with("HTTP/1.1 404") {
        assert!(begun.elapsed() < SOON);
    }

    sleep(patience.whole * 2).await;
    let mut rest = Vec::new();
    // An end or a reset.
    let _ = timeout(SOON, slow.read_to_end(&mut rest)).await.unwrap();
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.ends_with("0\r\n\r\n"), "all {} octets", rest.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_scrape_is_whole() {
    let bench = large();
    let server = start(PATIENT, move |queries| {
        answer(queries, move |_| Arc::clone(&bench))
    });
    let scrape = server.scrape().await;
    assert_eq!(
        scrape.by("failover_service_answers_total", "service").len(),
        4001
    );
    assert_eq!(scrape.by("failover_server_up", "service").len(), 4001);
}

#[tokio::test]
async fn too_many_clients_wait() {
    let patience = Patience {
        head: Duration::from_secs(1),
        ..PATIENT
    };
    let server = start(patience, content);
    let mut idle = Vec::new();
    for _ in 0..MOST_CLIENTS {
        idle.push(server.connect().await);
    }
    // Until the idle ones are sent away.
    let scrape = timeout(SOON, server.scrape()).await.unwrap();
    assert_eq!(scrape.get("failover_generation"), 0.0);
    for stream in idle {
        read(stream).await;
    }
}

#[tokio::test]
async fn a_controller_that_is_silent_is_reported() {
    let patience = Patience {
        part: Duration::from_millis(100),
        ..PATIENT
    };
    // It holds what it is asked, or does not even take it.
    let hanging = start(patience, |mut queries| async move {
        let _kept = queries.recv().await;
        std::future::pending::<()>().await;
    });
    let gone = start(patience, |queries| async move { drop(queries) });
    for server in [&hanging, &hanging, &hanging, &gone] {
        let scrape = server.scrape().await;
        assert_eq!(scrape.get("failover_controller_responding"), 0.0);
        assert_eq!(scrape.get("failover_heartbeat_timestamp_seconds"), 0.0);
        assert_eq!(scrape.find("failover_generation"), None);
    }
}

#[tokio::test]
async fn parts_of_different_configurations_are_not_mixed() {
    let services = |count: usize| {
        let services = (0..count).map(|n| {
            format!(
                "[[service]]\nname = \"s{n}\"\nfqdn = [\"n{n}.example.com\"]\nport = 80\n\
                 [[service.server]]\nname = \"b\"\naddress = \"192.0.2.9\"\noffsite = true\n"
            )
        });
        Arc::new(Bench::new(example(&services.collect::<String>())))
    };
    let (before, after) = (services(1500), services(1200));
    let server = start(PATIENT, move |queries| {
        let core = move |number| Arc::clone(if number == 0 { &before } else { &after });
        answer(queries, core)
    });
    let scrape = server.scrape().await;
    assert_eq!(scrape.get("failover_controller_responding"), 1.0);
    assert_eq!(scrape.by("failover_server_up", "service").len(), 1201);
}

#[tokio::test]
async fn it_stops_when_told_and_its_address_is_free() {
    let server = start(PATIENT, content);
    let taken = Server::bind(server.address).unwrap_err();
    let want = format!("listen on {} for metrics: ", server.address);
    assert!(format!("{taken:#}").starts_with(&want), "{taken:#}");

    let mut idle = server.connect().await;
    server.stop.send(()).unwrap();
    timeout(SOON, server.task).await.unwrap().unwrap().unwrap();
    // An end, or a reset if it had not been accepted.
    let mut octets = Vec::new();
    let _ = timeout(SOON, idle.read_to_end(&mut octets)).await.unwrap();
    Server::bind(server.address).unwrap();
}

/// As by reloads: nowhere, here, there, nowhere.
#[tokio::test]
async fn another_takes_its_place() {
    let (successors, receiver) = mpsc::unbounded_channel();
    let (queries, queries_receiver) = mpsc::channel(1);
    tokio::spawn(content(queries_receiver));
    let (stop, stops) = watch::channel(());
    let meters = Meters::new(Timestamp::UNIX_EPOCH, Webhooks::new());
    let task = tokio::spawn(serve(None, receiver, meters, queries, stops));
    let mut before: Option<SocketAddr> = None;
    for _ in 0..2 {
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = server.listener.local_addr().unwrap();
        successors.send(Some(server)).unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        assert!(read(stream).await.body.contains("failover_generation 0\n"));
        if let Some(before) = before.replace(address) {
            Server::bind(before).unwrap();
        }
    }
    successors.send(None).unwrap();
    let begun = Instant::now();
    while Server::bind(before.unwrap()).is_err() {
        assert!(begun.elapsed() < SOON);
        sleep(Duration::from_millis(1)).await;
    }
    drop(successors);
    assert!(!task.is_finished());
    stop.send(()).unwrap();
    timeout(SOON, task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn ipv6_is_served() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 here");
        return;
    }
    let server = Server::bind("[::1]:0".parse().unwrap()).unwrap();
    let address = server.listener.local_addr().unwrap();
    let (queries, receiver) = mpsc::channel(1);
    tokio::spawn(content(receiver));
    let (_stop, stops) = watch::channel(());
    tokio::spawn(server.serve(
        Meters::new(Timestamp::UNIX_EPOCH, Webhooks::new()),
        queries,
        stops,
    ));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(read(stream).await.body.contains("failover_generation 0\n"));
}

#[tokio::test]
async fn it_stops_with_its_owner() {
    let Running { stop, task, .. } = start(PATIENT, content);
    drop(stop);
    timeout(SOON, task).await.unwrap().unwrap().unwrap();
}
