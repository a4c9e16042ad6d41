//! One request: an entry as JSON, on a connection of its own.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout_at;

use crate::health::{Failure, HttpFailure};
use crate::journal::Entry;
use crate::model::Webhook;
use crate::probe::{AGENT, HEAD_LIMIT, before, http_failure, tls_connect};

/// Octets of a refusal that are shown.
const BODY_LIMIT: usize = 200;
/// How long they may take: what the status says is enough.
const BODY_PATIENCE: Duration = Duration::from_secs(1);

/// Why an entry has not been taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) failure: Failure,
    /// What the receiver says about it; empty: nothing.
    pub(super) says: String,
    /// It may be different next time.
    pub(super) passing: bool,
}

/// Somebody who takes entries.
pub(super) trait Post {
    /// Delivers an entry; `missed` others before it have not been.
    fn post(
        &mut self,
        entry: &Entry,
        missed: u64,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Who sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    /// The name of this host.
    pub(super) host: String,
    /// `nsid` of the configuration.
    pub(super) instance: Option<String>,
}

/// A receiver that is reached over HTTP.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) webhook: Arc<Webhook>,
    /// `None`: without TLS.
    pub(super) client: Option<Arc<ClientConfig>>,
    pub(super) sender: Sender,
}

/// What is sent.
#[derive(Serialize)]
struct Body<'a> {
    host: &'a str,
    instance: Option<&'a str>,
    /// Entries for this receiver that it has not got, since the last one that it has.
    missed: u64,
    #[serde(flatten)]
    entry: &'a Entry,
}

impl Post for Receiver {
    async fn post(&mut self, entry: &Entry, missed: u64) -> Result<(), Refusal> {
        let body = Body {
            host: &self.sender.host,
            instance: self.sender.instance.as_deref(),
            missed,
            entry,
        };
        let body = serde_json::to_vec(&body).map_err(|error| Failure::Local(error.to_string()))?;
        self.send(body.into()).await
    }
}

impl Receiver {
    async fn send(&self, body: Bytes) -> Result<(), Refusal> {
        let webhook = &*self.webhook;
        let deadline = Instant::now() + webhook.timeout;
        let stream = connect(webhook, deadline).await?;
        let request = request(webhook, body)?;
        let late = Refusal::from(Failure::ResponseTimedOut);
        let Some((tls, client)) = webhook.tls.as_ref().zip(self.client.clone()) else {
            return before(deadline, late, exchange(stream, request)).await;
        };
        let handshake = tls_connect(client, &tls.name, stream);
        let stream = before(deadline, Failure::TlsTimedOut, handshake).await?;
        before(deadline, late, exchange(stream, request)).await
    }
}

/// A connection to the first of the host's addresses that has one to give.
async fn connect(webhook: &Webhook, deadline: Instant) -> Result<TcpStream, Failure> {
    let (host, port) = (&*webhook.host, webhook.port);
    let found = async {
        let found = lookup_host((host, port)).await;
        found.map_err(|error| Failure::local(format_args!("look up {host}"), &error))
    };
    let addresses: Vec<SocketAddr> = before(deadline, Failure::ConnectTimedOut, found)
        .await?
        .collect();
    let mut last = Failure::Local(format!("look up {host}: no address"));
    for (address, left) in addresses.iter().zip((1..=addresses.len() as u32).rev()) {
        // None of them takes the time of those after it.
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / left;
        let connecting = async {
            let stream = TcpStream::connect(address).await;
            stream.map_err(|error| Failure::of(&error))
        };
        match before(now + share, Failure::ConnectTimedOut, connecting).await {
            Ok(stream) => return Ok(stream),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

fn request(webhook: &Webhook, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(&webhook.path.0)
        .header(HOST, &webhook.authority)
        .header(USER_AGENT, AGENT)
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close");
    for (name, value) in &webhook.headers {
        request = request.header(name, value);
    }
    request
        .body(Full::new(body))
        .map_err(|error| Failure::Local(format!("request: {error}")))
}

/// The request and its response.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_LIMIT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http_failure(&error))?;
    let talk = pin!(async {
        let response = sender.send_request(request).await;
        judge(response.map_err(|error| http_failure(&error))?).await
    });
    match select(talk, pin!(connection)).await {
        Either::Left((judged, _)) => judged,
        // What the connection has still delivered, or why it ended.
        Either::Right((_, talk)) => talk.await,
    }
}

async fn judge(response: Response<Incoming>) -> Result<(), Refusal> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let says = beginning(response.into_body()).await;
    let passing = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        );
    Err(Refusal {
        failure: HttpFailure::Status(status.as_u16()).into(),
        says,
        passing,
    })
}

/// The first words of a body, on one line, as far as they come at once.
async fn beginning(mut body: Incoming) -> String {
    let until = Instant::now() + BODY_PATIENCE;
    let mut seen = Vec::new();
    while seen.len() < BODY_LIMIT
        && let Ok(Some(Ok(frame))) = timeout_at(until.into(), body.frame()).await
    {
        let Some(data) = frame.data_ref() else {
            break;
        };
        let room = BODY_LIMIT - seen.len();
        seen.extend_from_slice(&data[..data.len().min(room)]);
    }
    let text = String::from_utf8_lossy(&seen);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

impl From<Failure> for Refusal {
    /// What goes wrong on the way there may go well next time.
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            says: String::new(),
            passing: true,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.failure.fmt(f)?;
        if self.says.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.says)
    }
}
