//! The HTTP server: one request on a connection, all within bounds.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::encode::write;
use super::format::{Format, Translator};
use super::meters::Meters;
use super::sample::Sample;
use crate::controller::Asked;

/// Connections at once; more wait.
const MOST_CLIENTS: usize = 16;
/// Octets of a request's first line and header fields.
const HEAD_LIMIT: usize = 16 * 1024;
/// Octets of text that are sent at once.
const PIECE: usize = 64 * 1024;
/// Pieces that wait for a client; with more, their maker waits.
const PIECES: usize = 2;
/// After an error of the listening socket, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the metrics are.
const PATH: &str = "/metrics";
/// What is allowed there.
const METHODS: &str = "GET, HEAD";

/// How patient we are with clients.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// How long the head of a request may take.
    head: Duration,
    /// How long the controller may take for one part of what it knows.
    part: Duration,
    /// How long a connection may take in all.
    whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            // Less than Prometheus waits by default, which is ten seconds.
            part: Duration::from_secs(3),
            whole: Duration::from_secs(60),
        }
    }
}

/// The server, bound.
#[derive(Debug)]
pub struct Server {
    listener: StdListener,
    patience: Patience,
}

impl Server {
    /// Binds the address; connections wait until [`Server::serve`] runs.
    ///
    /// # Errors
    ///
    /// If it cannot be had.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let bind = || {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(listener)
        };
        Ok(Self {
            listener: bind().with_context(|| format!("listen on {address} for metrics"))?,
            patience: Patience::default(),
        })
    }

    /// Serves clients until `stop` changes or is dropped, which cuts them off.
    ///
    /// # Errors
    ///
    /// If the socket cannot be used.
    pub async fn serve(
        self,
        meters: Meters,
        queries: mpsc::Sender<Asked>,
        mut stop: watch::Receiver<()>,
    ) -> io::Result<()> {
        let Self { listener, patience } = self;
        let listener = TcpListener::from_std(listener)?;
        let source = Arc::new(Source {
            meters,
            queries,
            patience: patience.part,
        });
        let permits = Arc::new(Semaphore::new(MOST_CLIENTS));
        let mut clients = JoinSet::new();
        loop {
            let accepted = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&permits).acquire_owned().await;
                (listener.accept().await, permit)
            };
            tokio::select! {
                (accepted, permit) = accepted => match accepted {
                    Ok((stream, peer)) => {
                        let source = Arc::clone(&source);
                        clients.spawn(async move {
                            let _permit = permit;
                            if let Err(error) = client(stream, source, patience).await {
                                debug!(%peer, %error, "metrics client");
                            }
                        });
                    }
                    Err(error) => {
                        debug!(%error, "accept on the socket for metrics");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some(_) = clients.join_next() => {}
                _ = stop.changed() => return Ok(()),
            }
        }
    }
}

/// Serves clients of `server`, and of whatever takes its place, until `stop` changes or is dropped.
///
/// # Errors
///
/// If a socket cannot be used.
pub async fn serve(
    mut server: Option<Server>,
    mut successors: mpsc::UnboundedReceiver<Option<Server>>,
    meters: Meters,
    queries: mpsc::Sender<Asked>,
    mut stop: watch::Receiver<()>,
) -> io::Result<()> {
    loop {
        let stops = stop.clone();
        let serving = async {
            match server.take() {
                Some(server) => server.serve(meters.clone(), queries.clone(), stops).await,
                None => pending().await,
            }
        };
        tokio::select! {
            served = serving => return served,
            // Without a controller there are no more.
            Some(successor) = successors.recv() => server = successor,
            _ = stop.changed() => return Ok(()),
        }
    }
}

/// Answers the one request of a connection.
async fn client(stream: TcpStream, source: Arc<Source>, patience: Patience) -> Result<()> {
    let service = service_fn(|request| {
        let source = Arc::clone(&source);
        async move { Ok::<_, Infallible>(source.respond(&request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    Ok(timeout(patience.whole, connection)
        .await
        .context("it takes too long")??)
}

/// Where metrics come from.
struct Source {
    meters: Meters,
    queries: mpsc::Sender<Asked>,
    /// With the controller, for each part.
    patience: Duration,
}

/// A line, or a scrape.
type Content = Either<Full<Bytes>, Pieces>;

impl Source {
    async fn respond(&self, request: &Request<Incoming>) -> Response<Content> {
        if request.uri().path() != PATH {
            return line(StatusCode::NOT_FOUND, "Not here: see /metrics.\n");
        }
        let accept = request.headers().get(ACCEPT);
        let accept = accept.and_then(|accept| accept.to_str().ok());
        let format = Format::accepted(accept.unwrap_or_default());
        let content = match *request.method() {
            Method::GET => Either::Right(self.scrape(format).await),
            Method::HEAD => Either::Left(Full::default()),
            _ => {
                let mut response = line(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.\n");
                let allow = HeaderValue::from_static(METHODS);
                response.headers_mut().insert(ALLOW, allow);
                return response;
            }
        };
        let mut response = Response::new(content);
        let content_type = HeaderValue::from_static(format.content_type());
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }

    async fn scrape(&self, format: Format) -> Pieces {
        let sample = Sample::collect(&self.queries, self.patience).await;
        let meters = self.meters.clone();
        let (sender, pieces) = mpsc::channel(PIECES);
        // On a thread that may wait. Fails when the client is gone, and then nobody minds.
        tokio::task::spawn_blocking(move || {
            let send = |text: String| {
                let piece = Bytes::from(text);
                sender.blocking_send(piece).map_err(|_| fmt::Error)
            };
            write(&meters, sample, Translator::new(format, PIECE, send))
        });
        Pieces(pieces)
    }
}

fn line(status: StatusCode, text: &'static str) -> Response<Content> {
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A body that arrives in pieces.
struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests;
