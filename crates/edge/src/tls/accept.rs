//! One TLS handshake with a visitor: what came out of it, or why it failed and what can still be said.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use rustls::server::Acceptor;
use rustls::{CertificateError, CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::challenges::ACME_TLS;
use super::client_auth::{Authorities, ClientCertificate};
use super::client_hello::ClientHello;
use super::server::{ServerSettings, Variant};
use super::tee::HelloTee;

/// Bytes of records that wait to be written to a client.
const UNSENT_BYTES: usize = 32 * 1024;

/// A connection after its handshake.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The encrypted stream. Its inner connection no longer keeps the ClientHello; `hello` does.
    pub stream: TlsStream<HelloTee<IO>>,
    /// What the handshake agreed on.
    pub facts: TlsFacts,
    /// The ClientHello as sent; `None` only when it was not a single well-formed message sequence.
    pub hello: Option<ClientHello>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Accepted<IO> {
    /// Ends a connection that was only made for its handshake; `limit` bounds the wait for a peer that does not read.
    pub async fn close(mut self, limit: Duration) {
        // Whether the peer still hears it changes nothing: it has seen the handshake.
        crate::ignore(tokio::time::timeout(limit, self.stream.shutdown()).await);
    }
}

/// What a handshake agreed on: log fields, and input of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// The application protocol.
    pub alpn: Alpn,
    /// The protocol version.
    pub version: Version,
    /// The cipher suite's IANA name: `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The key exchange group's IANA name: `X25519MLKEM768`. `None` where no group was used.
    pub group: Option<&'static str>,
    /// The server name the client asked for, lower case.
    pub server_name: Option<Arc<str>>,
    /// Whether an earlier session was continued, which spares both sides the certificate.
    pub resumed: bool,
    /// The visitor's certificate, verified; see `certificate_for` before believing it for a site.
    pub client: Option<Arc<ClientCertificate>>,
    /// Whose certificates the visitor was asked for; `None` when it was not asked.
    pub authorities: Option<Authorities>,
}

/// The application protocol of a connection (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// `h2`.
    H2,
    /// `http/1.1`.
    H1,
    /// The client sent no ALPN; it speaks HTTP/1.1.
    None,
    /// `acme-tls/1`: an authority's validation (RFC 8737), which is over with the handshake.
    AcmeTls,
}

/// A TLS version this edge speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl Version {
    /// `TLSv1.2` or `TLSv1.3`, the names logs and rules use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }

    /// As events have it.
    pub fn of_event(self) -> base::event::TlsVersion {
        match self {
            Self::Tls12 => base::event::TlsVersion::Tls12,
            Self::Tls13 => base::event::TlsVersion::Tls13,
        }
    }
}

/// Why there is no TLS connection.
#[derive(thiserror::Error)]
pub enum HandshakeError<IO> {
    /// The client speaks plain HTTP. The connection is untouched by TLS and can be answered in plain text.
    #[error("plain HTTP on a TLS port")]
    PlainHttp {
        /// The connection, still open both ways.
        io: IO,
        /// What was read from it, from its first byte on.
        first: Bytes,
    },
    /// The client closed without sending a byte, as port scans and health checks do.
    #[error("closed before the first byte")]
    Silent,
    /// The client left in the middle.
    #[error("connection lost during the handshake: {0}")]
    Io(io::Error),
    /// The handshake was refused, by this side or by the client's alert.
    #[error("{error}")]
    Refused {
        /// What rustls found.
        error: rustls::Error,
        /// The ClientHello, when it had arrived.
        hello: Option<ClientHello>,
    },
}

impl<IO> fmt::Debug for HandshakeError<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandshakeError({}: {self})", self.reason())
    }
}

impl<IO> HandshakeError<IO> {
    /// A metric label; few and stable.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PlainHttp { .. } => "plain-http",
            Self::Silent => "silent",
            Self::Io(_) => "connection-lost",
            Self::Refused { error, .. } => match error {
                rustls::Error::AlertReceived(_) => "alert-received",
                rustls::Error::PeerIncompatible(_) => "incompatible",
                rustls::Error::NoApplicationProtocol => "no-common-alpn",
                rustls::Error::InvalidMessage(_) => "not-tls",
                rustls::Error::PeerMisbehaved(_) => "misbehaved",
                _ => "refused",
            },
        }
    }
}

/// Shakes hands. The caller limits the time; dropping the future closes the connection.
pub async fn accept<IO>(io: IO, settings: &ServerSettings) -> Result<Accepted<IO>, HandshakeError<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // The ClientHello is read first; the handshake goes on with the settings it calls for.
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), HelloTee::new(io));
    let start = match (&mut acceptor).await {
        Ok(start) => start,
        Err(error) => {
            return Err(match acceptor.take_io() {
                Some(tee) => classify(error, tee).await,
                None => HandshakeError::Io(error),
            });
        }
    };
    drop(acceptor);
    let (variant, config) = settings.choose(&start.client_hello());
    let shaken = start.into_stream(config.clone()).into_fallible().await;
    match shaken {
        Ok(mut stream) => {
            let (tee, session) = stream.get_mut();
            tee.let_go();
            // A client that does not read holds no more than this of what is encrypted for it.
            session.set_buffer_limit(Some(UNSENT_BYTES));
            // What is held are session tickets, which can wait; in TLS 1.2 the client waits for the end of the handshake.
            if session.protocol_version() == Some(ProtocolVersion::TLSv1_2) {
                poll_fn(|context| tee.poll_held(context)).await.map_err(HandshakeError::Io)?;
            }
            let hello = stream.get_mut().0.take_hello();
            match facts(stream.get_ref().1, variant) {
                Ok(facts) => Ok(Accepted { stream, facts, hello }),
                Err(error) => Err(HandshakeError::Refused { error, hello }),
            }
        }
        Err((error, tee)) => Err(classify(error, tee).await),
    }
}

/// Why there is no connection. The alert that says so is still held, and leaves if the client takes it at once.
async fn classify<IO: AsyncWrite + Unpin>(error: io::Error, mut tee: HelloTee<IO>) -> HandshakeError<IO> {
    poll_fn(|context| {
        crate::ignore(tee.poll_held(context));
        Poll::Ready(())
    })
    .await;
    if let Some(first) = tee.plain_http() {
        let first = Bytes::copy_from_slice(first);
        return HandshakeError::PlainHttp { io: tee.into_inner(), first };
    }
    if tee.is_untouched() {
        return HandshakeError::Silent;
    }
    match error.downcast::<rustls::Error>() {
        Ok(error) => HandshakeError::Refused { error, hello: tee.take_hello() },
        Err(error) => HandshakeError::Io(error),
    }
}

fn facts(connection: &rustls::ServerConnection, variant: &Variant) -> Result<TlsFacts, rustls::Error> {
    let client = match connection.peer_certificates() {
        None => None,
        // Presented, verified, and yet not to be read: whoever decides by its fields must not take it for absent.
        Some(chain) => Some(ClientCertificate::read(chain).map_err(|_| CertificateError::BadEncoding)?),
    };
    let unfinished = || rustls::Error::HandshakeNotComplete;
    Ok(TlsFacts {
        alpn: match connection.alpn_protocol() {
            Some(b"h2") => Alpn::H2,
            Some(ACME_TLS) => Alpn::AcmeTls,
            Some(_) => Alpn::H1,
            None => Alpn::None,
        },
        version: match connection.protocol_version().ok_or_else(unfinished)? {
            ProtocolVersion::TLSv1_2 => Version::Tls12,
            ProtocolVersion::TLSv1_3 => Version::Tls13,
            _ => return Err(unfinished()),
        },
        cipher: cipher_name(connection.negotiated_cipher_suite().ok_or_else(unfinished)?.suite()),
        group: connection.negotiated_key_exchange_group().and_then(|group| group_name(group.name())),
        server_name: connection.server_name().map(Arc::from),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        client: client.map(Arc::new),
        authorities: variant.authorities.clone(),
    })
}

/// IANA "TLS Cipher Suites" names; rustls spells those of TLS 1.3 differently.
pub(crate) fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

/// IANA "TLS Supported Groups" names.
fn group_name(group: NamedGroup) -> Option<&'static str> {
    Some(match group {
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::secp256r1MLKEM768 => "SecP256r1MLKEM768",
        NamedGroup::MLKEM768 => "MLKEM768",
        NamedGroup::X25519 => "x25519",
        NamedGroup::secp256r1 => "secp256r1",
        NamedGroup::secp384r1 => "secp384r1",
        NamedGroup::secp521r1 => "secp521r1",
        other => return other.as_str(),
    })
}
