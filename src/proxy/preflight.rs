//! Trying each endpoint before the start: etcd's proxy itself never says why it cannot reach a cluster.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, Error as TlsError, InvalidMessage};

use super::supervisor::Output;
use crate::net::http2::{self, Frame, Kind};
use crate::net::tls as trust;
use crate::os::child::Events;
use crate::os::log::{Log, words_of};
use crate::settings::{Endpoint, ListenAddr, Preflight, Scheme, Settings, Tls};

/// How often a signal is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// What an endpoint has to answer in.
const PATIENCE: Duration = Duration::from_secs(2);

/// A server that speaks first is not kept waiting for us; one that does not is spoken to after this.
const SETTINGS_GRACE: Duration = Duration::from_millis(100);

/// Why an endpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    Unresolved(String),
    Refused,
    /// While doing this.
    TimedOut(Step),
    Unreachable(String),
    NotTls,
    /// TLS where plain HTTP was asked for.
    OnlyTls,
    /// No HTTP/2 where gRPC should be.
    NotHttp2,
    /// HTTP/2 for something else.
    NotGrpc,
    /// The setting with the authority that is trusted, if it is not the system's.
    UnknownAuthority(Option<String>),
    Expired(UnixTime),
    NotYetValid(UnixTime),
    /// The names its certificate does have.
    WrongName(Vec<String>),
    BadCertificate(String),
    ClientCertificateRequired,
    ClientCertificateRefused(AlertDescription),
    Tls(String),
    /// Go's TLS may be able to do what ours is not.
    CannotTry(String),
    /// It is the proxy itself.
    Own,
}

/// How far the trial of an endpoint has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Resolve,
    Connect,
    Handshake,
    Answer,
}

impl Problem {
    /// `authority` is the setting with the one that is trusted, if it is not the system's.
    pub(crate) fn of_tls(err: &TlsError, authority: Option<&str>, has_certificate: bool) -> Self {
        match err {
            TlsError::InvalidCertificate(err) => match err {
                CertificateError::UnknownIssuer => Self::UnknownAuthority(authority.map(ToOwned::to_owned)),
                CertificateError::ExpiredContext { not_after, .. } => Self::Expired(*not_after),
                CertificateError::NotValidYetContext { not_before, .. } => Self::NotYetValid(*not_before),
                CertificateError::NotValidForNameContext { presented, .. } => Self::WrongName(presented.clone()),
                CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                    Self::CannotTry("its certificate has a kind of key that is not known here".to_owned())
                }
                other => Self::BadCertificate(other.to_string()),
            },
            TlsError::AlertReceived(AlertDescription::HandshakeFailure) | TlsError::PeerIncompatible(_) => {
                Self::CannotTry("there is no kind of TLS that both know".to_owned())
            }
            TlsError::AlertReceived(AlertDescription::NoApplicationProtocol) | TlsError::NoApplicationProtocol => {
                Self::NotHttp2
            }
            TlsError::AlertReceived(AlertDescription::ProtocolVersion) => {
                Self::Tls("it speaks neither TLS 1.2 nor 1.3".to_owned())
            }
            TlsError::AlertReceived(alert) => Self::of_refusal(*alert, has_certificate),
            TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            other => Self::Tls(other.to_string()),
        }
    }

    /// What a server says to a client's certificate, or to there being none.
    fn of_refusal(alert: AlertDescription, has_certificate: bool) -> Self {
        use AlertDescription as Alert;
        let about_certificates = [
            Alert::CertificateRequired,
            Alert::BadCertificate,
            Alert::UnsupportedCertificate,
            Alert::CertificateRevoked,
            Alert::CertificateExpired,
            Alert::CertificateUnknown,
            Alert::UnknownCA,
            Alert::AccessDenied,
        ];
        match (about_certificates.contains(&alert), has_certificate) {
            (true, true) => Self::ClientCertificateRefused(alert),
            (true, false) => Self::ClientCertificateRequired,
            (false, _) => Self::Tls(format!("it says {alert:?}")),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = PATIENCE.as_secs();
        let date = |time: &UnixTime| {
            humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_secs(time.as_secs()))
        };
        match self {
            Self::Unresolved(why) => write!(f, "its name does not resolve ({why}): check the name and this host's DNS"),
            Self::TimedOut(Step::Resolve) => {
                write!(f, "its name does not resolve within {seconds} s: check this host's DNS")
            }
            Self::Refused => f.write_str("the connection is refused: nothing listens there"),
            Self::TimedOut(Step::Connect) => {
                write!(f, "no connection within {seconds} s: the host is down, or a firewall drops the packets")
            }
            Self::TimedOut(Step::Handshake | Step::Answer) => {
                write!(f, "it accepts the connection but does not answer within {seconds} s: is the member hung?")
            }
            Self::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
            Self::NotTls => f.write_str("it does not speak TLS: begin the endpoint with http://"),
            Self::OnlyTls => f.write_str("it speaks TLS only: begin the endpoint with https://"),
            Self::NotHttp2 => f.write_str("what answers is not etcd: it does not speak HTTP/2"),
            Self::NotGrpc => f.write_str("what answers is not etcd: it speaks HTTP/2, but not gRPC"),
            Self::UnknownAuthority(None) => f.write_str(
                "its certificate is signed by an authority that is not trusted here: give that authority's \
                 certificate with --cacert or ETCDPROXY_CACERT",
            ),
            Self::UnknownAuthority(Some(name)) => write!(
                f,
                "its certificate is not signed by the authority of {name}: is it the right one, and does the member \
                 send the certificates in between?"
            ),
            Self::Expired(when) => write!(f, "its certificate expired on {}: renew it on the member", date(when)),
            Self::NotYetValid(when) => {
                write!(f, "its certificate is not valid before {}: check the clocks", date(when))
            }
            Self::WrongName(names) if names.is_empty() => {
                f.write_str("its certificate is for no host name at all (no subject alternative name)")
            }
            Self::WrongName(names) => {
                write!(f, "its certificate is not for this name, but for {}: use one of these", names.join(", "))
            }
            Self::BadCertificate(why) => write!(f, "its certificate cannot be used: {why}"),
            Self::ClientCertificateRequired => {
                f.write_str("it asks for a client certificate: give one with --cert and --key")
            }
            Self::ClientCertificateRefused(alert) => {
                write!(
                    f,
                    "it refuses the client certificate ({alert:?}): is it signed by an authority the members trust?"
                )
            }
            Self::Tls(why) => write!(f, "the TLS handshake fails: {why}"),
            Self::Own => f.write_str("that is the address the proxy itself listens on: name the cluster's members"),
            Self::CannotTry(why) => write!(f, "it cannot be tried before the start: {why}"),
        }
    }
}

/// The result for one endpoint.
pub(crate) type Tried = (Endpoint, Result<(), Problem>);

/// Why there is no start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// And the user wants no start then.
    #[error("no endpoint can be used: {}", .0.join("; "))]
    NoneGood(Vec<String>),
    #[error("--endpoints: {0}: {problem}", problem = Problem::Own)]
    Own(Endpoint),
    #[error("cannot start a thread: {0}: is there a limit to the number of processes?")]
    Thread(#[from] io::Error),
}

/// What came of trying the endpoints before the start.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Go on. These were said to be bad.
    Start(Vec<Endpoint>),
    /// This signal came.
    Interrupted(Signal),
}

/// Waits for the first good endpoint, or for all that are not, and says what is wrong with them.
///
/// # Errors
/// When none is good and the user wants no start then.
pub(crate) fn wait(
    results: &Receiver<Tried>,
    events: Option<&Events>,
    settings: &Settings,
    log: Log,
) -> Result<Verdict, Error> {
    let (mut bad, mut good) = (Vec::new(), settings.preflight == Preflight::Off);
    while !good {
        match results.recv_timeout(LOOK) {
            Ok((_, Ok(()))) => good = true,
            Ok((endpoint, Err(Problem::Own))) => return Err(Error::Own(endpoint)),
            Ok((endpoint, Err(problem))) => bad.push((endpoint, problem)),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(signal) = events.and_then(Events::ending) {
                    return Ok(Verdict::Interrupted(signal));
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // What is known by now costs no time.
    bad.extend(results.try_iter().filter_map(|(endpoint, result)| Some((endpoint, result.err()?))));
    let words: Vec<String> = bad.iter().map(|(endpoint, problem)| format!("{endpoint}: {problem}")).collect();
    // What cannot be tried here may be good all the same.
    good |= bad.iter().any(|(_, problem)| matches!(problem, Problem::CannotTry(_)));
    if !good && settings.preflight == Preflight::Strict {
        return Err(Error::NoneGood(words));
    }
    log.warn_all(&words);
    if !good {
        log.warn("no endpoint can be used yet: starting all the same, and trying on");
    }
    Ok(Verdict::Start(bad.into_iter().map(|(endpoint, _)| endpoint).collect()))
}

/// Says what is wrong with the endpoints whose results were not there yet.
pub(crate) fn report_rest(results: Receiver<Tried>, output: Output) {
    let report = move || {
        for (endpoint, result) in results {
            if let Err(problem) = result {
                output.cannot_reach(&endpoint, &problem);
            }
        }
    };
    let _ = thread::Builder::new().spawn(report); // or etcd's own log says it
}

enum News {
    Step(usize, Step),
    Done(usize, Result<(), Problem>),
}

/// Tries all endpoints, each in a thread of its own; the results come as they are known, each within 2 s.
///
/// # Errors
/// When there can be no more threads.
pub(crate) fn start(settings: &Settings) -> Result<Receiver<Tried>, Error> {
    let settings = settings.clone();
    let (sender, receiver) = mpsc::channel();
    if settings.preflight != Preflight::Off {
        thread::Builder::new().spawn(move || collect(&settings, &sender))?;
    }
    Ok(receiver)
}

fn collect(settings: &Settings, results: &Sender<Tried>) {
    let Settings { endpoints, tls, listen_addr, .. } = settings;
    let deadline = Instant::now() + PATIENCE;
    // The system's authorities are read only where TLS is spoken.
    let needs_tls = endpoints.iter().any(|endpoint| endpoint.scheme == Scheme::Https);
    let config = if needs_tls { configure(tls) } else { Err(String::new()) };
    let (sender, news) = mpsc::channel();
    for (n, endpoint) in endpoints.iter().enumerate() {
        let trial = Trial {
            endpoint: endpoint.clone(),
            config: config.clone(),
            own: listen_addr.clone(),
            authority: tls.ca.as_ref().map(|ca| ca.name.clone()),
            deadline,
            n,
            news: sender.clone(),
        };
        let spawned = thread::Builder::new().spawn(move || {
            let _ = trial.news.send(News::Done(n, trial.run()));
        });
        if let Err(err) = spawned {
            let _ = sender.send(News::Done(n, Err(Problem::CannotTry(words_of(&err)))));
        }
    }
    let mut open: Vec<Option<(Endpoint, Step)>> =
        endpoints.iter().map(|endpoint| Some((endpoint.clone(), Step::Resolve))).collect();
    while open.iter().any(Option::is_some) {
        // A thread that the resolver holds up cannot keep its deadline itself.
        let grace = Duration::from_millis(100);
        match news.recv_timeout((deadline + grace).saturating_duration_since(Instant::now())) {
            Ok(News::Step(n, step)) => {
                if let Some((_, at)) = &mut open[n] {
                    *at = step;
                }
            }
            Ok(News::Done(n, result)) => {
                if let Some((endpoint, _)) = open[n].take() {
                    let _ = results.send((endpoint, result));
                }
            }
            Err(_) => {
                for (endpoint, step) in open.iter_mut().filter_map(Option::take) {
                    let _ = results.send((endpoint, Err(Problem::TimedOut(step))));
                }
            }
        }
    }
}

fn configure(tls: &Tls) -> Result<Arc<ClientConfig>, String> {
    trust::client_config(tls).map(Arc::new)
}

/// The trial of one endpoint.
struct Trial {
    endpoint: Endpoint,
    /// Or why there is none.
    config: Result<Arc<ClientConfig>, String>,
    /// Where the proxy is to listen.
    own: ListenAddr,
    /// Name of the setting with the authority that is trusted, if it is not the system's.
    authority: Option<String>,
    deadline: Instant,
    n: usize,
    news: Sender<News>,
}

impl Trial {
    fn run(&self) -> Result<(), Problem> {
        match self.endpoint.scheme {
            Scheme::Unix => {
                self.step(Step::Connect);
                let socket =
                    UnixStream::connect(self.endpoint.socket_path()).map_err(|err| problem(&err, Step::Connect))?;
                self.greet_plain(Timed { socket, deadline: self.deadline })
            }
            Scheme::Http => match self.greet_plain(self.connect()?) {
                Err(Problem::NotHttp2) if self.speaks_tls() => Err(Problem::OnlyTls),
                other => other,
            },
            Scheme::Https => match self.greet_tls(self.connect()?) {
                // Whatever a plain server makes of a handshake: what it makes of plain HTTP/2 says more.
                Err(Problem::NotTls | Problem::Tls(_)) if self.speaks_plain() => Err(Problem::NotTls),
                other => other,
            },
        }
    }

    fn step(&self, step: Step) {
        let _ = self.news.send(News::Step(self.n, step));
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn connect(&self) -> Result<Timed<TcpStream>, Problem> {
        let Some(host_port) = self.endpoint.host_port() else { return Err(Problem::Refused) };
        self.step(Step::Resolve);
        let addrs: Vec<_> = host_port.to_socket_addrs().map_err(|err| Problem::Unresolved(words_of(&err)))?.collect();
        if addrs.iter().any(|addr| self.own.is_reached_at(*addr)) {
            return Err(Problem::Own);
        }
        self.step(Step::Connect);
        let mut last = Problem::Unresolved("no address".to_owned());
        for (n, addr) in addrs.iter().enumerate() {
            let share = self.left() / u32::try_from(addrs.len() - n).unwrap_or(1);
            match TcpStream::connect_timeout(addr, share.max(Duration::from_millis(1))) {
                Ok(socket) => {
                    // Small messages go at once: a handshake is several.
                    let _ = socket.set_nodelay(true);
                    return Ok(Timed { socket, deadline: self.deadline });
                }
                Err(err) => last = problem(&err, Step::Connect),
            }
        }
        Err(last)
    }

    fn greet_plain<S: Socket>(&self, mut socket: Timed<S>) -> Result<(), Problem> {
        self.step(Step::Answer);
        socket.write_all(&http2::question(&self.endpoint)).map_err(|err| problem(&err, Step::Answer))?;
        let late_or = |err, other| if is_timeout(&err) { Problem::TimedOut(Step::Answer) } else { other };
        read_settings(&mut socket).map_err(|err| late_or(err, Problem::NotHttp2))?;
        let is_grpc = read_answer(&mut socket).map_err(|err| late_or(err, Problem::NotGrpc))?;
        is_grpc.then_some(()).ok_or(Problem::NotGrpc)
    }

    fn greet_tls(&self, mut socket: Timed<TcpStream>) -> Result<(), Problem> {
        self.step(Step::Handshake);
        let Some((host, _)) = self.endpoint.host_port() else { return Err(Problem::NotTls) };
        let config = self.config.as_ref().map_err(|why| Problem::CannotTry(why.clone()))?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Problem::Tls(format!("{host:?} cannot stand in a certificate")))?;
        let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(|err| Problem::Tls(err.to_string()))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).map_err(|err| self.tls_problem(&err, Step::Handshake))?;
        }
        if tls.alpn_protocol() != Some(b"h2") {
            return Err(Problem::NotHttp2);
        }
        // Only now, with TLS 1.3, does a server say what it thinks of the client's certificate; data on its way to
        // it could make that be lost.
        self.step(Step::Answer);
        let early = socket.deadline.min(Instant::now() + SETTINGS_GRACE);
        let deadline = std::mem::replace(&mut socket.deadline, early);
        let mut stream = rustls::Stream::new(&mut tls, &mut socket);
        let settings = match read_settings(&mut stream) {
            Err(err) if !is_timeout(&err) => Err(err),
            _ => Ok(()),
        };
        stream.sock.deadline = deadline;
        let question = http2::question(&self.endpoint);
        let answer = settings.and_then(|()| stream.write_all(&question)).and_then(|()| read_answer(&mut stream));
        let is_grpc = answer.map_err(|err| self.tls_problem(&err, Step::Answer))?;
        is_grpc.then_some(()).ok_or(Problem::NotGrpc)
    }

    fn tls_problem(&self, err: &io::Error, step: Step) -> Problem {
        let Some(tls) = err.get_ref().and_then(|err| err.downcast_ref::<TlsError>()) else {
            return match (problem(err, step), step) {
                (timed_out @ Problem::TimedOut(_), _) => timed_out,
                (_, Step::Answer) if err.kind() == io::ErrorKind::InvalidData => Problem::NotHttp2,
                _ => Problem::Tls(format!("the connection is closed ({})", words_of(err))),
            };
        };
        let has_one = self.config.as_ref().is_ok_and(|config| config.client_auth_cert_resolver.has_certs());
        Problem::of_tls(tls, self.authority.as_deref(), has_one)
    }

    fn speaks_plain(&self) -> bool {
        self.connect().and_then(|socket| self.greet_plain(socket)).is_ok()
    }

    /// Whether a TLS handshake gets an answer that is one; the certificate does not matter here.
    fn speaks_tls(&self) -> bool {
        let config = configure(&Tls::default());
        let trial = Self {
            endpoint: self.endpoint.clone(),
            config,
            own: self.own.clone(),
            authority: None,
            news: self.news.clone(),
            ..*self
        };
        let greeted = trial.connect().and_then(|socket| trial.greet_tls(socket));
        !matches!(greeted, Err(Problem::NotTls | Problem::Tls(_) | Problem::TimedOut(_) | Problem::Refused))
    }
}

fn read_frame(stream: &mut impl Read) -> io::Result<Frame> {
    let mut header = [0; http2::HEADER];
    stream.read_exact(&mut header)?;
    let mut frame = Frame::new(header)?;
    stream.read_exact(&mut frame.payload)?;
    Ok(frame)
}

fn read_settings(stream: &mut impl Read) -> io::Result<()> {
    let is_settings = read_frame(stream)?.kind == Kind::Settings;
    is_settings.then_some(()).ok_or(io::ErrorKind::InvalidData.into())
}

/// Whether what answers the question is gRPC.
fn read_answer(stream: &mut impl Read) -> io::Result<bool> {
    loop {
        if let Some(is_grpc) = read_frame(stream)?.is_grpc() {
            return Ok(is_grpc);
        }
    }
}

fn is_timeout(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn problem(err: &io::Error, step: Step) -> Problem {
    match err.kind() {
        io::ErrorKind::ConnectionRefused => Problem::Refused,
        _ if is_timeout(err) => Problem::TimedOut(step),
        _ => Problem::Unreachable(words_of(err)),
    }
}

trait Socket: Read + Write {
    fn set_timeouts(&self, timeout: Duration) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout)).and_then(|()| self.set_write_timeout(Some(timeout)))
    }
}

impl Socket for UnixStream {
    fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout)).and_then(|()| self.set_write_timeout(Some(timeout)))
    }
}

/// A socket whose operations all end by one deadline.
struct Timed<S> {
    socket: S,
    deadline: Instant,
}

impl<S: Socket> Timed<S> {
    fn arm(&self) -> io::Result<()> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            left => self.socket.set_timeouts(left),
        }
    }
}

impl<S: Socket> Read for Timed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.arm()?;
        self.socket.read(buffer)
    }
}

impl<S: Socket> Write for Timed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.arm()?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}
