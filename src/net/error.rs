//! Why a member cannot be reached or used.

use std::fmt;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use nix::errno::Errno;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage, OtherError};

use super::chain::{Owner, Refusal};
use crate::os::clock::rfc3339;
use crate::os::log::without_errno;

/// Why a member cannot be used. `Display` gives the sentence for people, [`kind`](Self::kind) the label for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DialError {
    /// With the resolver's own message.
    Unresolved(String),
    Refused,
    /// No progress in this step, within the time given for the whole attempt.
    TimedOut(Step, Duration),
    Unreachable(String),
    /// This process lacks something to open a connection: files, memory, ports.
    Local(String),
    /// It ends the connection before it answers.
    Closed,
    NotTls,
    /// It speaks TLS, but the endpoint is plain HTTP.
    OnlyTls,
    /// It does not speak HTTP/2, which gRPC needs.
    NotHttp2,
    /// It speaks HTTP/2, but not gRPC.
    NotGrpc,
    /// Names the setting with the trusted authority; `None` for the system's authorities.
    UnknownAuthority(Option<String>),
    Expired(UnixTime),
    NotYetValid(UnixTime),
    /// The name that the certificate should have, and those that it does have.
    WrongName(String, Vec<String>),
    BadCertificate(String),
    ClientCertificateRequired,
    ClientCertificateRefused(AlertDescription),
    Tls(String),
    /// Our TLS lacks something that Go's TLS may have.
    Unsupported(String),
    /// The endpoint is the proxy's own listen address.
    OwnAddress,
    /// It answers, but a read through it fails for this reason.
    Ill(String),
    /// It answers, but not to a read, within this time.
    Stuck(Duration),
}

/// The steps of an attempt to use a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Resolve,
    Connect,
    Handshake,
    Answer,
}

impl DialError {
    /// All results of [`kind`](Self::kind).
    pub(crate) const KINDS: [&str; 10] =
        ["dns", "refused", "timeout", "unreachable", "closed", "protocol", "own_address", "local", "ill", "tls"];

    /// A label of few values, for metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Unresolved(_) | Self::TimedOut(Step::Resolve, _) => "dns",
            Self::Refused => "refused",
            Self::TimedOut(..) => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::NotHttp2 | Self::NotGrpc => "protocol",
            Self::OwnAddress => "own_address",
            Self::Local(_) => "local",
            Self::Closed => "closed",
            Self::Ill(_) | Self::Stuck(_) => "ill",
            _ => "tls",
        }
    }

    /// From a failed system call.
    pub(super) fn from_io(err: &io::Error) -> Self {
        const LOCAL: [Errno; 6] =
            [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EADDRNOTAVAIL, Errno::EAGAIN];
        match err.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ if err.raw_os_error().is_some_and(|errno| LOCAL.contains(&Errno::from_raw(errno))) => {
                Self::Local(without_errno(err))
            }
            _ => Self::Unreachable(without_errno(err)),
        }
    }

    /// `authority` names the setting with the trusted authority; `None` stands for the system's authorities.
    pub(super) fn from_tls(err: &TlsError, authority: Option<&str>, has_certificate: bool) -> Self {
        match err {
            TlsError::InvalidCertificate(CertificateError::Other(OtherError(err))) => {
                match err.downcast_ref::<Refusal>() {
                    Some(refusal) => Self::from_refusal(refusal, authority),
                    None => Self::BadCertificate(err.to_string()),
                }
            }
            TlsError::InvalidCertificate(err) => Self::BadCertificate(err.to_string()),
            TlsError::AlertReceived(AlertDescription::HandshakeFailure) | TlsError::PeerIncompatible(_) => {
                Self::Unsupported("the two sides have no TLS parameters in common".to_owned())
            }
            TlsError::AlertReceived(AlertDescription::NoApplicationProtocol) | TlsError::NoApplicationProtocol => {
                Self::NotHttp2
            }
            TlsError::AlertReceived(AlertDescription::ProtocolVersion) => {
                Self::Tls("it speaks neither TLS 1.2 nor 1.3".to_owned())
            }
            TlsError::AlertReceived(alert) => Self::from_alert(*alert, has_certificate),
            TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            other => Self::Tls(other.to_string()),
        }
    }

    fn from_refusal(refusal: &Refusal, authority: Option<&str>) -> Self {
        match refusal {
            Refusal::UnknownAuthority => Self::UnknownAuthority(authority.map(ToOwned::to_owned)),
            Refusal::Expired(Owner::Server, when) => Self::Expired(*when),
            Refusal::NotYetValid(Owner::Server, when) => Self::NotYetValid(*when),
            Refusal::Expired(Owner::Authority(name), when) => {
                Self::BadCertificate(format!("its authority ({name}) expired on {}: renew it", date(*when)))
            }
            Refusal::NotYetValid(Owner::Authority(name), when) => Self::BadCertificate(format!(
                "its authority ({name}) is not valid before {}: check the clocks",
                date(*when)
            )),
            Refusal::WrongName(wanted, names) => Self::WrongName(wanted.clone(), names.clone()),
            Refusal::Invalid(why) => Self::BadCertificate(why.clone()),
            Refusal::Unsupported(why) => Self::Unsupported(why.clone()),
        }
    }

    /// The server's answer to the client's certificate, or to the lack of one.
    fn from_alert(alert: AlertDescription, has_certificate: bool) -> Self {
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
            (false, _) => Self::Tls(format!("the server sent the alert {alert:?}")),
        }
    }
}

fn date(time: UnixTime) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}

impl std::error::Error for DialError {}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved(why) => write!(f, "its name does not resolve ({why}): check the name and this host's DNS"),
            Self::TimedOut(step, after) => {
                let seconds = after.as_secs_f32();
                match step {
                    Step::Resolve => {
                        write!(f, "its name does not resolve within {seconds} s: check this host's DNS")
                    }
                    Step::Connect => {
                        write!(f, "no connection within {seconds} s: the host is down, or a firewall drops the packets")
                    }
                    Step::Handshake | Step::Answer => write!(
                        f,
                        "it accepts the connection but does not answer within {seconds} s: is the member hung?"
                    ),
                }
            }
            Self::Refused => f.write_str("the connection is refused: nothing listens there"),
            Self::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
            Self::Local(why) => write!(f, "this process cannot open a connection: {why}"),
            Self::Closed => {
                f.write_str("it closes the connection before it answers: is the member starting or stopping?")
            }
            Self::NotTls => f.write_str("it does not speak TLS: begin the endpoint with http://"),
            Self::OnlyTls => f.write_str("it speaks TLS only: begin the endpoint with https://"),
            Self::NotHttp2 => f.write_str("the server is not etcd: it does not speak HTTP/2"),
            Self::NotGrpc => f.write_str("the server is not etcd: it speaks HTTP/2, but not gRPC"),
            Self::UnknownAuthority(None) => f.write_str(
                "its certificate is signed by an authority that is not trusted here: give that authority's \
                 certificate with --cacert or ETCDPROXY_CACERT",
            ),
            Self::UnknownAuthority(Some(name)) => write!(
                f,
                "its certificate is not signed by the authority of {name}: is this the right authority, and does the \
                 member send its intermediate certificates?"
            ),
            Self::Expired(when) => write!(f, "its certificate expired on {}: renew it on the member", date(*when)),
            Self::NotYetValid(when) => {
                write!(f, "its certificate is not valid before {}: check the clocks", date(*when))
            }
            Self::WrongName(_, names) if names.is_empty() => {
                f.write_str("its certificate names no host (it has no subject alternative name): issue one that does")
            }
            Self::WrongName(wanted, names) => write!(
                f,
                "its certificate is for {}, not for {wanted}: write one of these names in the endpoint, or give it \
                 with --server-name",
                names.join(", ")
            ),
            Self::BadCertificate(why) => write!(f, "its certificate cannot be used: {why}"),
            Self::ClientCertificateRequired => {
                f.write_str("it asks for a client certificate: give one with --cert and --key")
            }
            Self::ClientCertificateRefused(alert) => write!(
                f,
                "it refuses the client certificate ({alert:?}): is it signed by an authority the members trust?"
            ),
            Self::Tls(why) => write!(f, "the TLS handshake fails: {why}"),
            Self::Unsupported(why) => f.write_str(why),
            Self::OwnAddress => {
                f.write_str("the proxy itself listens on this address: name the cluster's members instead")
            }
            Self::Ill(why) => write!(f, "it answers, but a read fails: {why}"),
            Self::Stuck(after) => write!(
                f,
                "it answers, but not to a read within {} s: do the cluster's members reach each other, and are their \
                 disks fast enough?",
                after.as_secs_f32()
            ),
        }
    }
}

/// Whether the reason only means that the cluster refuses anonymous users. Such a cluster is healthy.
pub(crate) fn is_refusal(reason: &str) -> bool {
    ["user name is empty", "permission denied"].iter().any(|refusal| reason.contains(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_about_certificates_depends_on_whether_the_client_has_one() {
        let alert = TlsError::AlertReceived(AlertDescription::UnknownCA);
        assert_eq!(DialError::from_tls(&alert, None, false), DialError::ClientCertificateRequired);
        let refused = DialError::from_tls(&alert, None, true);
        assert_eq!(refused, DialError::ClientCertificateRefused(AlertDescription::UnknownCA));
        let other = TlsError::AlertReceived(AlertDescription::InternalError);
        assert_eq!(DialError::from_tls(&other, None, false).kind(), "tls");
    }

    #[test]
    fn what_this_process_lacks_is_no_fault_of_the_member() {
        let kind = |errno| DialError::from_io(&io::Error::from_raw_os_error(errno as i32)).kind();
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EADDRNOTAVAIL, Errno::EAGAIN]
        {
            assert_eq!(kind(errno), "local", "{errno}");
        }
        for (errno, expected) in [
            (Errno::ECONNREFUSED, "refused"),
            (Errno::EHOSTUNREACH, "unreachable"),
            (Errno::ENETUNREACH, "unreachable"),
            (Errno::ECONNRESET, "unreachable"),
        ] {
            assert_eq!(kind(errno), expected, "{errno}");
        }
    }

    #[test]
    fn a_time_out_names_the_step_and_the_time() {
        let error = |step| DialError::TimedOut(step, Duration::from_millis(1500));
        assert_eq!(error(Step::Resolve).to_string(), "its name does not resolve within 1.5 s: check this host's DNS");
        assert_eq!(error(Step::Resolve).kind(), "dns");
        assert_eq!(error(Step::Connect).kind(), "timeout");
        assert!(error(Step::Answer).to_string().contains("does not answer within 1.5 s"));
    }
}
