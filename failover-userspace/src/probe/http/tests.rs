//! Checks of servers on loopback that do as they are told.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::health::{Outcome, TlsFailure};
use crate::model::{Tls, Trust};
use crate::probe::testing::BlackHole;
use crate::probe::testing::pki::Ca;

/// For what is to be answered, however busy the machine is.
const PATIENT: Duration = Duration::from_secs(30);
/// For what is never answered.
const SHORT: Duration = Duration::from_millis(300);
/// The same, after a handshake.
const HANDSHAKEN: Duration = Duration::from_secs(3);
const NAME: &str = "www.example.com";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is well\n";
const VALID: std::ops::Range<i32> = 2000..4000;

/// What a server does once it has read a request's head.
#[derive(Clone, Debug)]
enum Does {
    /// Sends this and closes.
    Says(String),
    /// Sends this and waits.
    Holds(String),
    /// Sends this, and then one octet after another for ever.
    Drips(String),
    /// Sends this, and then the second for ever.
    Floods(String, String),
    /// Resets the connection.
    Resets,
}
use Does::{Drips, Floods, Holds, Resets, Says};

fn says(text: &str) -> Does {
    Says(text.to_owned())
}

/// A server; what it read of each request, and how its connections ended, come in order.
struct Server {
    address: SocketAddr,
    heard: mpsc::UnboundedReceiver<String>,
}

impl Server {
    async fn start(tls: Option<Arc<ServerConfig>>, does: Does) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self::start_on(listener, tls, does)
    }

    fn start_on(listener: TcpListener, tls: Option<Arc<ServerConfig>>, does: Does) -> Self {
        let address = listener.local_addr().unwrap();
        let (tell, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, does, tell) = (tls.clone(), does.clone(), tell.clone());
                tokio::spawn(async move {
                    if let Resets = does {
                        socket2::SockRef::from(&stream)
                            .set_linger(Some(Duration::ZERO))
                            .unwrap();
                    }
                    let Some(tls) = tls else {
                        return talk_as_server(stream, &does, &tell).await;
                    };
                    if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                        let kind = stream.get_ref().1.handshake_kind();
                        let _ = tell.send(format!("{:?} handshake", kind.unwrap()));
                        talk_as_server(stream, &does, &tell).await;
                    }
                });
            }
        });
        Self { address, heard }
    }

    async fn heard(&mut self) -> String {
        self.heard.recv().await.unwrap()
    }
}

async fn talk_as_server<S>(mut stream: S, does: &Does, tell: &mpsc::UnboundedSender<String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(octet) = stream.read_u8().await else {
            return;
        };
        request.push(octet);
    }
    let _ = tell.send(String::from_utf8(request).unwrap());
    match does {
        Resets => return,
        Says(text) | Holds(text) | Drips(text) | Floods(text, _) => {
            // An early end of the probe is no error of ours.
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.flush().await;
        }
    }
    match does {
        Says(_) => {
            let _ = stream.shutdown().await;
        }
        Drips(_) => {
            while send(&mut stream, b"x").await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Floods(_, text) => while send(&mut stream, text.as_bytes()).await {},
        Holds(_) | Resets => {}
    }
    let end = stream.read_u8().await.unwrap_err();
    let _ = tell.send(format!("{:?}", end.kind()));
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), octets: &[u8]) -> bool {
    stream.write_all(octets).await.is_ok() && stream.flush().await.is_ok()
}

fn check(address: SocketAddr) -> HttpCheck {
    HttpCheck {
        address,
        tls: None,
        method: HttpMethod::Get,
        host: NAME.to_owned(),
        path: "/health?deep=1".to_owned(),
        expect: vec![200..=200],
        body: None,
    }
}

async fn run(check: &HttpCheck, limit: Duration) -> Outcome {
    let client = check
        .tls
        .as_ref()
        .map(|tls| tls::Clients::default().of(&tls.trust));
    probe(check, client, &Egress::default(), Instant::now() + limit).await
}

/// What becomes of a check without TLS, by its label.
async fn label(does: Does, limit: Duration, change: impl FnOnce(&mut HttpCheck)) -> &'static str {
    let server = Server::start(None, does).await;
    let mut check = check(server.address);
    change(&mut check);
    run(&check, limit)
        .await
        .as_ref()
        .err()
        .map_or("success", Failure::label)
}

#[tokio::test]
async fn the_request_is_as_configured() {
    for (method, line) in [(HttpMethod::Get, "GET"), (HttpMethod::Head, "HEAD")] {
        let mut server = Server::start(None, Holds(OK.to_owned())).await;
        let check = HttpCheck {
            method,
            ..check(server.address)
        };
        let took = run(&check, PATIENT).await.unwrap();
        assert!(took > Duration::ZERO && took < PATIENT, "{took:?}");
        let head = format!(
            "{line} /health?deep=1 HTTP/1.1\r\nhost: www.example.com\r\nuser-agent: {AGENT}\r\naccept: */*\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(server.heard().await, head);
        assert_eq!(server.heard().await, "ConnectionReset");
    }
}

#[tokio::test]
async fn status_codes() {
    let status = |line: &str| says(&format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"));
    let many = vec![200..=204, 301..=301];
    for (line, expect, want) in [
        ("200 OK", vec![200..=200], "success"),
        ("503 Service Unavailable", vec![200..=200], "http_status"),
        // Redirects are not followed.
        ("302 Found\r\nLocation: /", vec![200..=200], "http_status"),
        ("204 No Content", many.clone(), "success"),
        (
            "301 Moved Permanently\r\nLocation: /",
            many.clone(),
            "success",
        ),
        ("205 Reset Content", many, "http_status"),
        // Interim responses do not count.
        (
            "103 Early Hints\r\n\r\nHTTP/1.1 200 OK",
            vec![200..=200],
            "success",
        ),
    ] {
        let got = label(status(line), PATIENT, |check| check.expect = expect).await;
        assert_eq!(got, want, "{line}");
    }
    let server = Server::start(None, status("503 Service Unavailable")).await;
    let failure = run(&check(server.address), PATIENT).await.unwrap_err();
    assert_eq!(failure, HttpFailure::Status(503).into());
}

#[tokio::test]
async fn bodies() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let unending = "HTTP/1.1 200 OK\r\n\r\n";
    let long = "x".repeat(BODY_LIMIT - 4);
    for (does, text, want) in [
        (says(OK), "all is well", "success"),
        (says(OK), "well\n", "success"),
        (says(OK), "not well", "http_body"),
        // Over the border of two chunks, and without waiting for the end.
        (
            Holds(format!("{chunked}6\r\nall is\r\n5\r\n well\r\n")),
            "is well",
            "success",
        ),
        (
            says(&format!("{chunked}6\r\nall is\r\n0\r\n\r\n")),
            "is well",
            "http_body",
        ),
        (
            says(&format!("{unending}all is well")),
            "is well",
            "success",
        ),
        (says(&format!("{unending}{long}well")), "well", "success"),
        // Too far in.
        (says(&format!("{unending}{long} well")), "well", "http_body"),
        (
            Floods(unending.to_owned(), "x".repeat(1000)),
            "well",
            "http_body",
        ),
        (
            says(&format!("{chunked}no length\r\n")),
            "well",
            "http_malformed",
        ),
        (
            says("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nall"),
            "well",
            "http_closed",
        ),
    ] {
        let shown = format!("{does:?}").chars().take(80).collect::<String>();
        let got = label(does, PATIENT, |check| check.body = Some(text.to_owned())).await;
        assert_eq!(got, want, "{text:?} in {shown}");
    }
    // Nobody looks for text in it, so it may be as it likes.
    let got = label(Floods(unending.to_owned(), "x".to_owned()), PATIENT, |_| {}).await;
    assert_eq!(got, "success");
}

#[tokio::test]
async fn what_is_no_response() {
    for (does, want) in [
        (says(""), "http_closed"),
        (says("HTTP/1.1 200 OK\r\nContent-"), "http_closed"),
        (says("SSH-2.0-OpenSSH_9.2p1\r\n"), "http_malformed"),
        (says("HTTP/1.1 2000 OK\r\n\r\n"), "http_malformed"),
        (
            says("HTTP/1.1 200 OK\r\nbad header\r\n\r\n"),
            "http_malformed",
        ),
        (
            Floods(
                "HTTP/1.1 200 OK\r\n".to_owned(),
                format!("A: {}\r\n", "x".repeat(500)),
            ),
            "http_malformed",
        ),
        (
            Floods("HTTP/1.1 200 OK\r\nA: ".to_owned(), "x".repeat(500)),
            "http_malformed",
        ),
        (Resets, "reset"),
    ] {
        let shown = format!("{does:?}").chars().take(80).collect::<String>();
        assert_eq!(label(does, PATIENT, |_| {}).await, want, "{shown}");
    }
}

/// Each stage of a check that lasts too long is told apart, and none lasts longer than the whole.
#[tokio::test]
async fn all_is_bounded_by_the_timeout() {
    let begun = Instant::now();
    for (does, body) in [
        (Holds(String::new()), None),
        (Drips("HTTP/1.1 200 OK\r\nA: ".to_owned()), None),
        (Drips("HTTP/1.1 200 OK\r\n\r\n".to_owned()), Some("well")),
        (
            Floods(String::new(), "HTTP/1.1 103 Early Hints\r\n\r\n".to_owned()),
            None,
        ),
    ] {
        let shown = format!("{does:?}");
        let got = label(does, SHORT, |check| check.body = body.map(str::to_owned)).await;
        assert_eq!(got, "response_timeout", "{shown}");
    }
    let hole = BlackHole::new();
    let failure = run(&check(hole.address()), SHORT).await.unwrap_err();
    assert_eq!(failure, Failure::ConnectTimedOut);

    // Accepts, and never says anything: no TLS server.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let check = with_tls(check(listener.local_addr().unwrap()), NAME, Trust::Anybody);
    assert_eq!(run(&check, SHORT).await, Err(Failure::TlsTimedOut));
    // Six times the limit, and plenty for a busy machine.
    assert!(begun.elapsed() < PATIENT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_is_not_there_refuses() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let check = check(listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(run(&check, PATIENT).await, Err(Failure::Refused));
    let egress = Egress {
        interface: None,
        source: Some("192.0.2.1".parse().unwrap()),
    };
    let outcome = probe(&check, None, &egress, Instant::now() + PATIENT).await;
    assert_eq!(outcome.unwrap_err().label(), "local");
}

#[tokio::test]
async fn egress_is_obeyed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let check = check(listener.local_addr().unwrap());
    let egress = Egress {
        interface: Some("lo".to_owned()),
        source: Some("127.7.7.7".parse().unwrap()),
    };
    let deadline = Instant::now() + PATIENT;
    let (tell, _heard) = mpsc::unbounded_channel();
    let serve = async {
        let (stream, peer) = listener.accept().await.unwrap();
        talk_as_server(stream, &says(OK), &tell).await;
        peer
    };
    let (outcome, peer) = tokio::join!(probe(&check, None, &egress, deadline), serve);
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(peer.ip().to_string(), "127.7.7.7");
}

#[tokio::test]
async fn over_ipv6() {
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else {
        eprintln!("skipped: no IPv6 here");
        return;
    };
    let ca = Ca::new();
    let server = Server::start_on(listener, Some(ca.server("::1", VALID)), says(OK));
    let check = with_tls(check(server.address), "::1", ca.trust());
    run(&check, PATIENT).await.unwrap();
}

fn with_tls(check: HttpCheck, name: &str, trust: Trust) -> HttpCheck {
    HttpCheck {
        tls: Some(Tls {
            name: ServerName::try_from(name.to_owned()).unwrap(),
            trust,
        }),
        ..check
    }
}

#[tokio::test]
async fn certificates_are_told_apart() {
    let (ca, other, namesake) = (Ca::new(), Ca::called("another CA"), Ca::new());
    let tls = |failure| Err(Failure::Tls(failure));
    let with_12 = {
        let config = ca.server(NAME, VALID);
        Arc::new(without_tls13(&config))
    };
    for (what, server, name, want) in [
        ("good", ca.server(NAME, VALID), NAME, Ok(())),
        ("good, TLS 1.2", with_12, NAME, Ok(())),
        (
            "good, by address",
            ca.server("127.0.0.1", VALID),
            "127.0.0.1",
            Ok(()),
        ),
        (
            "good, wildcard",
            ca.server("*.example.com", VALID),
            NAME,
            Ok(()),
        ),
        (
            "expired",
            ca.server(NAME, 2000..2020),
            NAME,
            tls(TlsFailure::Expired),
        ),
        (
            "not yet",
            ca.server(NAME, 3000..4000),
            NAME,
            tls(TlsFailure::NotYetValid),
        ),
        (
            "wrong name",
            ca.server("www.example.net", VALID),
            NAME,
            tls(TlsFailure::WrongName),
        ),
        (
            "wrong CA",
            other.server(NAME, VALID),
            NAME,
            tls(TlsFailure::UnknownCa),
        ),
        (
            "wrong CA of the same name",
            namesake.server(NAME, VALID),
            NAME,
            tls(TlsFailure::UnknownCa),
        ),
    ] {
        for (trust, want) in [(ca.trust(), want), (Trust::Anybody, Ok(()))] {
            let server = Server::start(Some(Arc::clone(&server)), says(OK)).await;
            let mut check = with_tls(check(server.address), name, trust);
            check.body = Some("well".to_owned());
            let outcome = run(&check, PATIENT).await.map(drop);
            assert_eq!(outcome, want, "{what}, {:?}", check.tls);
        }
    }
    // Nobody that the system trusts has issued it.
    let server = Server::start(Some(ca.server(NAME, VALID)), says(OK)).await;
    let check = with_tls(check(server.address), NAME, Trust::System);
    assert_eq!(
        run(&check, PATIENT).await.map(drop),
        tls(TlsFailure::UnknownCa)
    );
}

/// The same server without TLS 1.3.
fn without_tls13(config: &ServerConfig) -> ServerConfig {
    let mut old = ServerConfig::builder_with_provider(Arc::clone(config.crypto_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&config.cert_resolver));
    old.send_tls13_tickets = 0;
    old
}

#[tokio::test]
async fn over_tls_too_the_response_counts() {
    let ca = Ca::new();
    for (does, limit, want) in [
        (
            says("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
            PATIENT,
            "http_status",
        ),
        (says(""), PATIENT, "http_closed"),
        (Holds(String::new()), HANDSHAKEN, "response_timeout"),
        (Resets, PATIENT, "http_closed"),
    ] {
        let shown = format!("{does:?}");
        let server = Server::start(Some(ca.server(NAME, VALID)), does).await;
        let check = with_tls(check(server.address), NAME, ca.trust());
        let failure = run(&check, limit).await.unwrap_err();
        let early = failure == Failure::Reset && want == "http_closed";
        assert!(failure.label() == want || early, "{shown}: {failure}");
    }
    // No TLS at all.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held: Vec<TcpStream> = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            held.push(stream);
        }
    });
    let check = with_tls(check(address), NAME, Trust::Anybody);
    let failure = run(&check, PATIENT).await.unwrap_err();
    assert_eq!(failure.label(), "tls_handshake", "{failure}");
}

#[tokio::test]
async fn a_session_ends_with_a_good_bye_and_is_never_resumed() {
    let ca = Ca::new();
    let config = ca.server(NAME, VALID);
    let mut server = Server::start(Some(config), Holds(OK.to_owned())).await;
    let check = with_tls(check(server.address), NAME, ca.trust());
    let client = tls::Clients::default().of(&ca.trust());
    for _ in 0..2 {
        let client = Some(Arc::clone(&client));
        probe(&check, client, &Egress::default(), Instant::now() + PATIENT)
            .await
            .unwrap();
        assert_eq!(server.heard().await, "Full handshake");
        assert!(server.heard().await.starts_with("GET /health"));
        // Without close_notify rustls would not call it a plain end of file.
        assert_eq!(server.heard().await, "UnexpectedEof");
    }
}
