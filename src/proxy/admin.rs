//! Answers requests for the health and the metrics of the proxy itself.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::oneshot;

use super::detect::{Detection, Page};
use super::listener::{self, Listener, Lobby, MAX_METRICS, listen_tcp};
use crate::os::log::Throttle;
use crate::settings::TcpAddr;

/// A client that sends nothing is disconnected after this time.
pub(super) const DETECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to read the answer and close its side.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Prometheus' text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
const METRICS_TYPE: &str = prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// What is asked for.
pub(super) trait Subject: Send + Sync + 'static {
    /// Whether the cluster answers, with what is worth knowing even so; and why not.
    fn health(&self) -> Result<String, String>;

    /// The text that Prometheus reads.
    fn metrics(&self) -> impl Future<Output = String> + Send;

    /// Counts connections that were closed because too many others came after them.
    fn count_evicted(&self, count: u64);
}

/// An HTTP/1.1 answer after which the connection is closed.
struct Response {
    status: &'static str,
    content_type: &'static str,
    body: String,
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
                    Some((Detection::Own(page), bytes)) => answer(client, page, is_head(&bytes), &*subject).await,
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
pub(super) fn is_head(request: &[u8]) -> bool {
    request.starts_with(b"HEAD ")
}

/// Sends a page and closes the connection.
pub(super) async fn answer(client: impl AsyncRead + AsyncWrite + Unpin, page: Page, head: bool, of: &impl Subject) {
    let response = match page {
        Page::Health => health(of.health()),
        Page::Metrics => Response { status: "200 OK", content_type: METRICS_TYPE, body: of.metrics().await },
    };
    send(client, &response, head).await;
}

/// Answers a request that is not forwarded, and closes the connection.
pub(super) async fn refuse(client: impl AsyncRead + AsyncWrite + Unpin, status: &'static str, why: &str) {
    let response = Response { status, content_type: "text/plain; charset=utf-8", body: why.to_owned() };
    send(client, &response, false).await;
}

/// In the form of etcd's proxy.
fn health(health: Result<String, String>) -> Response {
    let (status, health, reason) = match health {
        Ok(note) => ("200 OK", "true", note),
        Err(why) => ("503 Service Unavailable", "false", why),
    };
    let body = json!({"health": health, "reason": reason}).to_string();
    Response { status, content_type: "application/json", body }
}

fn not_found() -> Response {
    let body = "this port serves only /metrics and /health\n".to_owned();
    Response { status: "404 Not Found", content_type: "text/plain; charset=utf-8", body }
}

async fn send(mut client: impl AsyncRead + AsyncWrite + Unpin, response: &Response, head: bool) {
    let Response { status, content_type, body } = response;
    let length = body.len();
    let body = if head { "" } else { body };
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let sent = async {
        if client.write_all(text.as_bytes()).await.is_ok() && client.shutdown().await.is_ok() {
            // Closing with unread bytes would reset the connection, and the answer with it.
            let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
        }
    };
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, sent).await;
}
