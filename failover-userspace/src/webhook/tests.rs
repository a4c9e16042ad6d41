//! Receivers on loopback, plain and with TLS, that do as they are told.

use std::net::{Ipv4Addr, SocketAddr};

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::post::{Post, Refusal};
use super::*;
use crate::controller::testing::reference;
use crate::journal::{Kind, News, Severity};
use crate::model::{Secret, Tls, Trust};
use crate::probe::testing::pki::Ca;

/// For what is to happen, however busy the machine is.
const PATIENT: Duration = Duration::from_secs(30);
const NAME: &str = "hooks.example.net";
const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// A receiver; each request comes as its head and its body.
struct Server {
    address: SocketAddr,
    heard: mpsc::UnboundedReceiver<(String, Value)>,
}

impl Server {
    /// Answers one request after the other with these, and then with the last of them; an empty
    /// one is none.
    async fn start(tls: Option<Arc<ServerConfig>>, replies: &[&str]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, heard) = mpsc::unbounded_channel();
        let mut replies: Vec<String> = replies.iter().rev().map(ToString::to_string).collect();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let reply = match replies.as_slice() {
                    [last] => last.clone(),
                    _ => replies.pop().unwrap(),
                };
                let (tls, tell) = (tls.clone(), tell.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else {
                        return serve(stream, &reply, &tell).await;
                    };
                    if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                        serve(stream, &reply, &tell).await;
                    }
                });
            }
        });
        Self { address, heard }
    }

    async fn heard(&mut self) -> (String, Value) {
        let heard = tokio::time::timeout(PATIENT, self.heard.recv());
        heard.await.unwrap().unwrap()
    }
}

async fn serve<S>(mut stream: S, reply: &str, tell: &mpsc::UnboundedSender<(String, Value)>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(octet) = stream.read_u8().await else {
            return;
        };
        head.push(octet);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().unwrap())
    });
    let mut body = vec![0; length.unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap();
    let _ = tell.send((head, body));
    if reply.is_empty() {
        std::future::pending::<()>().await;
    }
    // An early end of the client is no error of ours.
    let _ = stream.write_all(reply.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn webhook(to: SocketAddr, trust: Option<Trust>) -> Webhook {
    Webhook {
        name: NAME.to_owned(),
        host: to.ip().to_string(),
        port: to.port(),
        tls: trust.map(|trust| Tls {
            name: ServerName::try_from(NAME).unwrap(),
            trust,
        }),
        authority: NAME.to_owned(),
        path: Secret("/in?a=b".to_owned()),
        headers: Vec::new(),
        timeout: PATIENT,
        kinds: None,
        services: Vec::new(),
    }
}

fn receiver(webhook: Webhook) -> Receiver {
    let mut clients = Clients::default();
    Receiver {
        client: webhook.tls.as_ref().map(|tls| clients.of(&tls.trust)),
        webhook: Arc::new(webhook),
        sender: Sender {
            host: "ns1".to_owned(),
            instance: Some("ns1.site-a".to_owned()),
        },
    }
}

fn entry(seq: u64, kind: Kind, subject: &str) -> Arc<Entry> {
    let news = News::new(kind, subject, Severity::Warning);
    Arc::new(Entry {
        seq,
        time: Timestamp::UNIX_EPOCH,
        news: news.from("up").to("down").because("it is"),
    })
}

async fn post(webhook: Webhook) -> Result<(), Refusal> {
    let entry = entry(7, Kind::Server, "www/web-a");
    receiver(webhook).post(&entry, 2).await
}

#[tokio::test]
async fn what_is_sent() {
    let ca = Ca::new();
    for trust in [None, Some(ca.trust()), Some(Trust::Anybody)] {
        let tls = trust.as_ref().map(|_| ca.server(NAME, 2000..4000));
        let mut server = Server::start(tls, &[OK]).await;
        let mut webhook = webhook(server.address, trust);
        let token = hyper::header::HeaderValue::from_static("Bearer x");
        webhook.headers = vec![(hyper::header::AUTHORIZATION, token)];
        post(webhook).await.unwrap();
        let (head, body) = server.heard().await;
        let lines: Vec<&str> = head.trim_end().lines().collect();
        assert_eq!(lines[0], "POST /in?a=b HTTP/1.1");
        for want in [
            "host: hooks.example.net",
            concat!("user-agent: failover/", env!("CARGO_PKG_VERSION")),
            "content-type: application/json",
            "authorization: Bearer x",
        ] {
            assert!(lines.contains(&want), "{want} in {head}");
        }
        let want = json!({
            "host": "ns1", "instance": "ns1.site-a", "missed": 2,
            "seq": 7, "time": "1970-01-01T00:00:00.000Z", "kind": "server",
            "subject": "www/web-a", "severity": "warning",
            "from": "up", "to": "down", "reason": "it is",
        });
        assert_eq!(body, want);
    }
}

#[tokio::test]
async fn what_the_receiver_says() {
    for (reply, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(())),
        ("HTTP/1.1 202 Accepted\r\n\r\n", Ok(())),
        // It is taken, whatever becomes of the body.
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Ok(())),
        (
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 19\r\n\r\nno\r\n such \x1b[channel",
            Err(("HTTP status 400: no such [channel", false)),
        ),
        (
            "HTTP/1.1 401 Unauthorized\r\n\r\n",
            Err(("HTTP status 401", false)),
        ),
        (
            "HTTP/1.1 408 Request Timeout\r\n\r\n",
            Err(("HTTP status 408", true)),
        ),
        (
            "HTTP/1.1 429 Too Many\r\n\r\n",
            Err(("HTTP status 429", true)),
        ),
        ("HTTP/1.1 500 Oops\r\n\r\n", Err(("HTTP status 500", true))),
        ("HTTP/1.1 503 Later\r\n\r\n", Err(("HTTP status 503", true))),
        // Not followed.
        (
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
            Err(("HTTP status 302", false)),
        ),
        (
            "SMTP\r\n\r\n",
            Err(("malformed HTTP response: invalid HTTP version parsed", true)),
        ),
        (
            "HTTP/1.1 ",
            Err(("connection closed before the end of the response", true)),
        ),
    ] {
        let server = Server::start(None, &[reply]).await;
        let outcome = post(webhook(server.address, None)).await;
        let outcome = outcome.map_err(|refusal| (refusal.to_string(), refusal.passing));
        let want = want.map_err(|(text, passing)| (text.to_owned(), passing));
        assert_eq!(outcome, want, "{reply:?}");
    }
}

#[tokio::test]
async fn what_goes_wrong_on_the_way() {
    let ca = Ca::new();
    let other = Ca::called("another CA");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let failure = async |webhook: Webhook| {
        let refusal = post(webhook).await.unwrap_err();
        assert!(refusal.passing, "{refusal}");
        refusal.to_string()
    };
    assert_eq!(failure(webhook(closed, None)).await, "connection refused");

    let silent = Server::start(None, &[""]).await;
    let mut hurried = webhook(silent.address, None);
    hurried.timeout = Duration::from_millis(200);
    assert_eq!(failure(hurried).await, "response timed out");

    for (server, want) in [
        (
            ca.server("www.example.com", 2000..4000),
            "certificate for another name",
        ),
        (ca.server(NAME, 2000..2001), "certificate expired"),
        (
            other.server(NAME, 2000..4000),
            "certificate from an unknown CA",
        ),
    ] {
        let server = Server::start(Some(server), &[OK]).await;
        assert_eq!(
            failure(webhook(server.address, Some(ca.trust()))).await,
            want
        );
    }
    let plain = Server::start(None, &[OK]).await;
    let mut hurried = webhook(plain.address, Some(ca.trust()));
    hurried.timeout = Duration::from_secs(1);
    let text = failure(hurried).await;
    assert!(text.starts_with("TLS handshake"), "{text}");

    let mut nobody = webhook(closed, None);
    nobody.host = "nobody.invalid".to_owned();
    let text = failure(nobody).await;
    assert!(
        text.starts_with("local error: look up nobody.invalid: "),
        "{text}"
    );
}

/// A model with these receivers and no others.
fn model(webhooks: Vec<Webhook>) -> Model {
    let mut model = reference();
    model.webhooks = webhooks;
    model
}

/// Waits until the first receiver's counts are these: sent, failed, retries.
async fn wait(webhooks: &Webhooks, want: [u64; 3]) {
    let begun = Instant::now();
    loop {
        let stats = webhooks.stats();
        let counts = [stats[0].sent, stats[0].failed, stats[0].retries];
        if counts == want {
            return;
        }
        assert!(begun.elapsed() < PATIENT, "{stats:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_error_of_the_server_is_not_the_end() {
    let mut server = Server::start(None, &["HTTP/1.1 500 Oops\r\n\r\n", OK]).await;
    let webhooks = Webhooks::new();
    webhooks.configure(&model(vec![webhook(server.address, None)]));
    for seq in 1..=2 {
        webhooks.offer(&entry(seq, Kind::Server, "www/web-a"));
    }
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(server.heard().await.1["seq"].as_u64());
    }
    assert_eq!(heard, [Some(1), Some(1), Some(2)]);
    wait(&webhooks, [2, 0, 1]).await;
    webhooks.stop(PATIENT).await;
}

#[tokio::test]
async fn each_gets_what_it_wants() {
    let mut server = Server::start(None, &["HTTP/1.1 400 No\r\n\r\n", OK]).await;
    let mut picky = webhook(server.address, None);
    picky.kinds = Some(vec![Kind::Server, Kind::Service]);
    picky.services = vec![glob::Pattern::new("www*").unwrap()];
    let webhooks = Webhooks::new();
    webhooks.configure(&model(vec![picky.clone()]));
    for (kind, subject) in [
        (Kind::Server, "www/web-a"),
        (Kind::Server, "mail/mx"),
        (Kind::Wan, "wan/wan1"),
        (Kind::Service, "service/mail"),
        (Kind::Service, "service/www2"),
        (Kind::Daemon, "daemon"),
        (Kind::Lost, "journal"),
    ] {
        webhooks.offer(&entry(1, kind, subject));
    }
    for want in [("www/web-a", 0), ("service/www2", 1), ("journal", 0)] {
        let body = server.heard().await.1;
        assert_eq!(body["subject"], want.0);
        assert_eq!(body["missed"], want.1);
    }
    wait(&webhooks, [2, 1, 0]).await;

    // The same again keeps its counters; another one begins anew.
    webhooks.configure(&model(vec![picky.clone()]));
    wait(&webhooks, [2, 1, 0]).await;
    picky.timeout = Duration::from_secs(1);
    webhooks.configure(&model(vec![picky]));
    wait(&webhooks, [0, 0, 0]).await;
    webhooks.configure(&model(vec![]));
    assert_eq!(webhooks.stats(), []);
    webhooks.offer(&entry(1, Kind::Lost, "journal"));
    webhooks.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn the_end_waits_for_what_goes_well() {
    let mut well = Server::start(None, &[OK]).await;
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addresses = [well.address, gone.local_addr().unwrap()];
    drop(gone);
    let webhooks = Webhooks::new();
    webhooks.configure(&model(addresses.map(|to| webhook(to, None)).to_vec()));
    for seq in 1..=20 {
        webhooks.offer(&entry(seq, Kind::Server, "www/web-a"));
    }
    let begun = Instant::now();
    webhooks.stop(PATIENT).await;
    assert!(begun.elapsed() < PATIENT);
    for seq in 1..=20 {
        assert_eq!(well.heard().await.1["seq"], seq);
    }
}

#[tokio::test]
async fn the_end_does_not_wait_for_ever() {
    let mut silent = Server::start(None, &[""]).await;
    let webhooks = Webhooks::new();
    webhooks.configure(&model(vec![webhook(silent.address, None)]));
    webhooks.offer(&entry(1, Kind::Server, "www/web-a"));
    silent.heard().await;
    let begun = Instant::now();
    webhooks.stop(Duration::from_millis(100)).await;
    assert!(begun.elapsed() < PATIENT);
}
