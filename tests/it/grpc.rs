//! gRPC, byte for byte: what libraries hide, and what they do not let a test do wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use h2::RecvStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use prost::bytes::Bytes;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::codegen::http::{HeaderMap, Request};

/// The prefix of a message: a flag for compression, and its length.
const PREFIX: usize = 5;

/// A call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) http_method: &'static str,
    pub(crate) path: String,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// With the prefixes of messages.
    pub(crate) body: Vec<u8>,
}

impl Call {
    /// A call with one message.
    pub(crate) fn new(path: &str, message: &[u8]) -> Self {
        Self {
            http_method: "POST",
            path: path.to_owned(),
            content_type: "application/grpc",
            headers: Vec::new(),
            body: framed(message),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn head(&self) -> Request<()> {
        let head = Request::builder().method(self.http_method).uri(format!("http://etcd.test{}", self.path));
        let mut head = head.header("content-type", self.content_type).header("te", "trailers");
        for (name, value) in &self.headers {
            head = head.header(*name, value);
        }
        head.body(()).unwrap()
    }
}

/// A message with its prefix.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    pub(crate) http: u16,
    pub(crate) headers: BTreeSet<String>,
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) trailers: BTreeSet<String>,
    /// `grpc-status` and `grpc-message`.
    pub(crate) status: Option<u32>,
    pub(crate) message: String,
    /// How HTTP/2 broke it off.
    pub(crate) broken: Option<String>,
}

impl Outcome {
    fn broken(err: &h2::Error) -> Self {
        Self { broken: Some(reason(err)), ..Self::default() }
    }

    fn take_status(&mut self, fields: &HeaderMap) {
        let text = |name| fields.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        self.status = text("grpc-status").map(|code| code.parse().unwrap());
        self.message = text("grpc-message").unwrap_or_default();
    }

    /// The only message of a call that went well.
    #[track_caller]
    pub(crate) fn answer(self) -> Vec<u8> {
        assert_eq!((self.status, self.messages.len()), (Some(0), 1), "{self:?}");
        self.messages.into_iter().next().unwrap()
    }
}

fn reason(err: &h2::Error) -> String {
    let by = if err.is_remote() { "" } else { " by this side" };
    err.reason().map_or_else(|| err.to_string(), |reason| format!("{reason:?}{by}"))
}

/// A connection.
pub(crate) struct Server {
    send: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl Server {
    pub(crate) async fn connect(addr: &str) -> Self {
        Self::try_connect(addr).await.unwrap()
    }

    pub(crate) async fn try_connect(addr: &str) -> std::io::Result<Self> {
        let socket = TcpStream::connect(addr).await?;
        socket.set_nodelay(true)?;
        let mut builder = Builder::new();
        builder.initial_window_size(64 << 10).initial_connection_window_size(1 << 30).max_send_buffer_size(64 << 20);
        let (send, connection) = builder.handshake(socket).await.map_err(std::io::Error::other)?;
        Ok(Self { send, driver: tokio::spawn(connection) })
    }

    /// Whether the connection still lives.
    pub(crate) fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }

    /// Waits until the other side ends the connection.
    pub(crate) async fn ended(self) -> Result<(), h2::Error> {
        self.driver.await.unwrap()
    }

    /// Another user of the same connection.
    pub(crate) async fn call(&self, path: &str, message: &[u8]) -> Outcome {
        self.send(&Call::new(path, message)).await
    }

    pub(crate) async fn send(&self, call: &Call) -> Outcome {
        match self.begin(call, true).await {
            Ok(stream) => stream.outcome().await,
            Err(err) => Outcome::broken(&err),
        }
    }

    /// Opens a call and sends its body. `end`: nothing follows.
    pub(crate) async fn begin(&self, call: &Call, end: bool) -> Result<Stream, h2::Error> {
        let mut ready = self.send.clone().ready().await?;
        let (answer, mut body) = ready.send_request(call.head(), end && call.body.is_empty())?;
        if !call.body.is_empty() {
            // A server may have answered already, and want nothing of it.
            let _ = body.send_data(Bytes::from(call.body.clone()), end);
        }
        let body = Some(Body(body));
        Ok(Stream { body, answer: Some(answer), read: None, bytes: Vec::new(), outcome: Outcome::default() })
    }
}

/// The client's side of a call that goes on.
pub(crate) struct Body(h2::SendStream<Bytes>);

impl Body {
    /// Sends one more message.
    pub(crate) fn say(&mut self, message: &[u8]) -> Result<(), h2::Error> {
        self.0.send_data(Bytes::from(framed(message)), false)
    }

    /// Sends nothing more, and goes on reading.
    pub(crate) fn end(&mut self) -> Result<(), h2::Error> {
        self.0.send_data(Bytes::new(), true)
    }

    pub(crate) fn cancel(&mut self) {
        self.0.send_reset(h2::Reason::CANCEL);
    }
}

/// A call that goes on.
pub(crate) struct Stream {
    body: Option<Body>,
    answer: Option<ResponseFuture>,
    read: Option<RecvStream>,
    bytes: Vec<u8>,
    outcome: Outcome,
}

impl Stream {
    /// The client's side, for another task.
    pub(crate) fn take_body(&mut self) -> Body {
        self.body.take().unwrap()
    }

    pub(crate) fn cancel(mut self) {
        self.take_body().cancel();
    }

    /// Sends another message.
    pub(crate) fn send(&mut self, message: &[u8]) {
        self.body.as_mut().unwrap().say(message).unwrap();
    }

    /// How far the call has come, or how it ended.
    pub(crate) fn so_far(&self) -> &Outcome {
        &self.outcome
    }

    /// The next message; `None` at the end. Nothing is lost when it is not waited for.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((&[_, a, b, c, d], rest)) = self.bytes.split_first_chunk::<PREFIX>() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if let Some(message) = rest.get(..length) {
                    let message = message.to_vec();
                    self.bytes.drain(..PREFIX + length);
                    return Some(message);
                }
            }
            if let Err(err) = self.read_more().await? {
                self.outcome.broken = Some(reason(&err));
                return None;
            }
        }
    }

    async fn read_more(&mut self) -> Option<Result<(), h2::Error>> {
        if let Some(answer) = &mut self.answer {
            let answer = answer.await;
            self.answer = None;
            let (head, body) = match answer {
                Ok(answer) => answer.into_parts(),
                Err(err) => return Some(Err(err)),
            };
            self.outcome.http = head.status.as_u16();
            self.outcome.headers = head.headers.keys().map(ToString::to_string).collect();
            self.outcome.take_status(&head.headers);
            self.read = Some(body);
        }
        let read = self.read.as_mut()?;
        match read.data().await {
            Some(Ok(bytes)) => {
                self.bytes.extend_from_slice(&bytes);
                Some(read.flow_control().release_capacity(bytes.len()))
            }
            Some(Err(err)) => Some(Err(err)),
            None => {
                let trailers = read.trailers().await;
                self.read = None;
                match trailers {
                    Ok(Some(trailers)) => {
                        self.outcome.trailers = trailers.keys().map(ToString::to_string).collect();
                        self.outcome.take_status(&trailers);
                    }
                    Ok(None) => {}
                    Err(err) => return Some(Err(err)),
                }
                None
            }
        }
    }

    /// The next message, which must come soon.
    pub(crate) async fn soon(&mut self) -> Option<Vec<u8>> {
        tokio::time::timeout(Duration::from_secs(20), self.next()).await.expect("a message within 20 s")
    }

    /// Everything, up to the end.
    pub(crate) async fn outcome(mut self) -> Outcome {
        while let Some(message) = self.next().await {
            self.outcome.messages.push(message);
        }
        self.outcome
    }
}
