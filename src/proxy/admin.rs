//! Answers requests for the health and the metrics of the proxy itself.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::oneshot;

use super::detect::{Detection, Page};
use super::listener::{self, Client, Listener, Lobby, MAX_METRICS, listen_tcp};
use super::status::{self, Host, Report};
use crate::os::log::Throttle;
use crate::settings::TcpAddr;

/// A client that sends nothing is disconnected after this time.
pub(super) const DETECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to read the answer and close its side.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest head of a request that is read, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Prometheus' text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
const METRICS_TYPE: &str = prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// What is asked for.
pub(super) trait Subject: Send + Sync + 'static {
    /// Whether the cluster answers, with what is worth knowing even so; and why not.
    fn health(&self) -> Result<String, String>;

    /// The text that Prometheus reads.
    fn metrics(&self) -> impl Future<Output = String> + Send;

    /// Everything that people may want to know.
    fn report(&self) -> Report;

    /// The names, besides `localhost` and addresses, under which a browser of this host may see that.
    fn hosts(&self) -> &[String];

    /// Counts connections that were closed because too many others came after them.
    fn count_evicted(&self, count: u64);
}

/// An HTTP/1.1 answer after which the connection is closed.
struct Response {
    status: &'static str,
    content_type: &'static str,
    /// Further headers, each with its line end.
    headers: &'static str,
    body: Cow<'static, str>,
}

impl Response {
    fn text(status: &'static str, body: impl Into<Cow<'static, str>>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", headers: "", body: body.into() }
    }
}

/// Serves a port that answers nothing else, with a small limit of its own: it may be open to more than the application.
pub(super) async fn serve_port(listener: Listener, subject: Arc<impl Subject>) {
    let lobby = Arc::new(Lobby::default());
    let serve = |mut client| {
        let (lobby, subject) = (Arc::clone(&lobby), Arc::clone(&subject));
        tokio::spawn(async move {
            let (mut guest, evicted) = lobby.enter(MAX_METRICS);
            subject.count_evicted(evicted);
            let work = async {
                let detected = tokio::time::timeout(DETECTION_TIMEOUT, detect(&mut client)).await;
                match detected.ok().flatten() {
                    Some((Detection::Own(page), bytes)) => answer(&mut client, page, bytes, &*subject).await,
                    Some((Detection::Http1 | Detection::Http2, bytes)) => {
                        send(client, &not_found(), is_head(&bytes)).await;
                    }
                    _ => {}
                }
            };
            guest.stay(work).await;
        });
    };
    listener.accept(&Throttle::default(), serve).await;
}

/// A port for metrics with an event loop and a thread of its own. Dropping this closes it.
#[derive(Debug)]
pub(super) struct Port {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why the port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    #[error(transparent)]
    Listen(#[from] listener::Error),
    #[error("cannot serve metrics: {0}: is the number of processes or open files limited?")]
    Thread(#[from] io::Error),
}

impl Port {
    pub(super) fn open(addr: &TcpAddr, subject: Arc<impl Subject>) -> Result<Self, PortError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let in_runtime = runtime.enter();
        let listeners = listen_tcp(addr)?;
        drop(in_runtime);
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            runtime.block_on(async {
                for listener in listeners {
                    tokio::spawn(serve_port(Listener::Tcp(listener), Arc::clone(&subject)));
                }
                let _ = stopped.await;
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads until it is clear what the connection is; `None` when it ends before that.
pub(super) async fn detect(client: &mut (impl AsyncRead + Unpin)) -> Option<(Detection, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        match Detection::of(&bytes) {
            Detection::NeedMore => {}
            detection => return Some((detection, bytes)),
        }
    }
}

/// Whether a request wants no body.
fn is_head(request: &[u8]) -> bool {
    request.starts_with(b"HEAD ")
}

/// Sends a page and closes the connection. `request` is what has been read of it.
pub(super) async fn answer(client: &mut Client, page: Page, mut request: Vec<u8>, of: &impl Subject) {
    // Whoever serves the page to a network has decided that others may see it, under whatever name.
    let is_for_all = !page.is_status() || !client.is_local();
    let response = if is_for_all || is_trusted(client, &mut request, of).await {
        match page {
            Page::Health => health(of.health()),
            Page::Metrics => ok(METRICS_TYPE, "", of.metrics().await),
            Page::Status => ok("text/html; charset=utf-8", status::headers(), status::PAGE),
            Page::StatusJson => {
                let body = serde_json::to_string(&of.report().summed_up()).unwrap_or_default();
                ok("application/json", status::headers(), body)
            }
        }
    } else {
        Response::text("421 Misdirected Request", "this page is at localhost and at this host's addresses only\n")
    };
    send(client, &response, is_head(&request)).await;
}

/// Reads the rest of the request's head, and judges the name that it is for.
async fn is_trusted(client: &mut Client, request: &mut Vec<u8>, of: &impl Subject) -> bool {
    let is_complete = |bytes: &[u8]| bytes.windows(4).any(|end| end == b"\r\n\r\n");
    let read = async {
        while !is_complete(request) && request.len() < MAX_HEAD {
            if client.read_buf(request).await.unwrap_or_default() == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DETECTION_TIMEOUT, read).await;
    status::is_trusted(&Host::of(request), of.hosts())
}

fn ok(content_type: &'static str, headers: &'static str, body: impl Into<Cow<'static, str>>) -> Response {
    Response { status: "200 OK", content_type, headers, body: body.into() }
}

/// Answers a request that is not forwarded, and closes the connection.
pub(super) async fn refuse(client: impl AsyncRead + AsyncWrite + Unpin, status: &'static str, why: &str) {
    send(client, &Response::text(status, why.to_owned()), false).await;
}

/// In the form of etcd's proxy.
fn health(health: Result<String, String>) -> Response {
    let (status, health, reason) = match health {
        Ok(note) => ("200 OK", "true", note),
        Err(why) => ("503 Service Unavailable", "false", why),
    };
    let body = json!({"health": health, "reason": reason}).to_string();
    Response { status, content_type: "application/json", headers: "", body: body.into() }
}

fn not_found() -> Response {
    Response::text("404 Not Found", "this port serves only /, /status.json, /metrics and /health\n")
}

async fn send(mut client: impl AsyncRead + AsyncWrite + Unpin, response: &Response, head: bool) {
    let Response { status, content_type, headers, body } = response;
    let length = body.len();
    let body = if head { "" } else { body };
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{headers}Connection: \
         close\r\n\r\n{body}"
    );
    let sent = async {
        if client.write_all(text.as_bytes()).await.is_ok() && client.shutdown().await.is_ok() {
            // Closing with unread bytes would reset the connection, and the answer with it.
            let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
        }
    };
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, sent).await;
}
