//! HTTP/1.1 and HTTPS: one request on a connection of its own.
//!
//! By hyper, on a connection that we make, as it must leave through the check's egress.
//! Redirects are not followed: their status counts. What a server may send is bounded: the
//! head of a response by [`HEAD_LIMIT`], the body by [`BODY_LIMIT`] — and it is only read when
//! the check looks for text in it — and all of it by the deadline.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout_at;

use super::{Failure, tcp, tls};
use crate::health::HttpFailure;
use crate::model::{Egress, HttpCheck, HttpMethod};

/// Octets of a response's status line and header fields.
pub(crate) const HEAD_LIMIT: usize = 64 * 1024;
/// Octets of the body in which the wanted text must be.
const BODY_LIMIT: usize = 64 * 1024;
/// How servers know us in their logs.
pub(crate) const AGENT: &str = concat!("failover/", env!("CARGO_PKG_VERSION"));

/// Sends the request and judges the response, all before `deadline`; returns how long it took.
///
/// `client` is that of the check's trust, for a check with TLS.
pub(super) async fn probe(
    check: &HttpCheck,
    client: Option<Arc<ClientConfig>>,
    egress: &Egress,
    deadline: Instant,
) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let connecting = tcp::connect(check.address, egress);
    let stream = match before(deadline, Failure::ConnectTimedOut, connecting).await {
        // The kernel gave up before us.
        Err(Failure::TimedOut) => Err(Failure::ConnectTimedOut),
        other => other,
    }?;
    let late = Failure::ResponseTimedOut;
    let Some((tls, client)) = check.tls.as_ref().zip(client) else {
        before(deadline, late, exchange(stream, check)).await?;
        // Closed with RST: nothing is left to be told.
        return Ok(begun.elapsed());
    };
    let handshake = tls::connect(client, &tls.name, stream);
    let stream = before(deadline, Failure::TlsTimedOut, handshake).await?;
    let mut stream = before(deadline, late, exchange(stream, check)).await?;
    let took = begun.elapsed();
    // A TLS session ends with a good-bye (RFC 8446 section 6.1), and then with RST.
    let _ = timeout_at(deadline.into(), stream.shutdown()).await;
    Ok(took)
}

/// What `step` leads to, or `late` after the deadline.
pub(crate) async fn before<T, E>(
    deadline: Instant,
    late: E,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout_at(deadline.into(), step).await.unwrap_or(Err(late))
}

/// The request and its response; gives the stream back when the response is as wanted.
async fn exchange<S>(stream: S, check: &HttpCheck) -> Result<S, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, mut connection) = http1::Builder::new()
        .max_buf_size(HEAD_LIMIT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failure(&error))?;
    let judged = {
        let talk = pin!(talk(&mut sender, check));
        // Who closes is decided by us, and not by hyper when it has read the response.
        let driven = pin!(poll_fn(|context| connection.poll_without_shutdown(context)));
        match select(talk, driven).await {
            Either::Left((judged, _)) => judged,
            // What the connection has still delivered, or why it ended.
            Either::Right((_, talk)) => talk.await,
        }
    };
    judged.map(|()| connection.into_parts().io.into_inner())
}

async fn talk(sender: &mut SendRequest<Empty<Bytes>>, check: &HttpCheck) -> Result<(), Failure> {
    let response = sender
        .send_request(request(check)?)
        .await
        .map_err(|error| failure(&error))?;
    let status = response.status().as_u16();
    if !check.expect.iter().any(|codes| codes.contains(&status)) {
        return Err(HttpFailure::Status(status).into());
    }
    match &check.body {
        Some(text) => find(response.into_body(), text.as_bytes()).await,
        None => Ok(()),
    }
}

fn request(check: &HttpCheck) -> Result<Request<Empty<Bytes>>, Failure> {
    let method = match check.method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Head => Method::HEAD,
    };
    Request::builder()
        .method(method)
        .uri(&check.path)
        .header(HOST, &check.host)
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| Failure::Local(format!("request: {error}")))
}

/// Reads no more of the body than it takes to find `text`, which is not empty.
async fn find(mut body: Incoming, text: &[u8]) -> Result<(), Failure> {
    let mut seen = Vec::new();
    while seen.len() < BODY_LIMIT
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| failure(&error))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        // It may have begun at the end of what came before.
        let from = seen.len().saturating_sub(text.len() - 1);
        let room = BODY_LIMIT - seen.len();
        seen.extend_from_slice(&data[..data.len().min(room)]);
        if seen[from..].windows(text.len()).any(|part| part == text) {
            return Ok(());
        }
    }
    Err(HttpFailure::Body.into())
}

impl From<HttpFailure> for Failure {
    fn from(failure: HttpFailure) -> Self {
        Self::Http(failure)
    }
}

/// What hyper says, in our words.
pub(crate) fn failure(error: &hyper::Error) -> Failure {
    let mut cause = error.source();
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<io::Error>() {
            return of_stream(error);
        }
        cause = current.source();
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return HttpFailure::Closed.into();
    }
    HttpFailure::Malformed(error.to_string()).into()
}

/// A failure to read or write, or what hyper says of a body's chunks.
fn of_stream(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => HttpFailure::Closed.into(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => match Failure::of_tls(error) {
            Failure::Local(text) => HttpFailure::Malformed(text).into(),
            failure => failure,
        },
        _ => Failure::of_tls(error),
    }
}

#[cfg(test)]
mod tests;
