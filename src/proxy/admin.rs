//! Answers requests for the health and the metrics of the proxy itself.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::members::Members;
use super::metrics::Metrics;

/// How long a client may take to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// An HTTP/1.1 answer after which the connection is closed.
fn response(status: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Answers `/health` in the form of etcd's proxy, from the last health checks.
pub(super) fn health(members: &Members) -> String {
    let (status, health, reason) = match members.health() {
        // Reads work, so the application must not be ended for it.
        Ok(()) => (
            "200 OK",
            "true",
            members.alarms().iter().map(|alarm| format!("alarm {alarm}")).collect::<Vec<_>>().join(", "),
        ),
        Err(why) => ("503 Service Unavailable", "false", why),
    };
    response(status, "application/json", &json!({"health": health, "reason": reason}).to_string())
}

/// Answers `/metrics`.
pub(super) fn metrics(metrics: &Metrics, members: &Members) -> String {
    response("200 OK", "text/plain; version=0.0.4", &metrics.render(members))
}

/// Answers any other request to the metrics port.
pub(super) fn not_found() -> String {
    response("404 Not Found", "text/plain", "this port serves only /metrics and /health\n")
}

/// Sends the answer and closes the connection.
pub(super) async fn answer(mut client: TcpStream, response: &str) {
    if client.write_all(response.as_bytes()).await.is_err() || client.shutdown().await.is_err() {
        return;
    }
    // Closing with unread bytes would reset the connection, and the answer with it.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, tokio::io::copy(&mut client, &mut tokio::io::sink())).await;
}
