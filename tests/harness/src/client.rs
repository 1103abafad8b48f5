//! An HTTP/1.1 client that sends exactly the bytes it is given and reads answers strictly, with or without TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::PATIENCE;
use crate::wire::{Body, Head, Wire};

/// A TCP connection with or without TLS.
#[derive(Debug)]
pub enum Transport {
    /// As it is.
    Plain(TcpStream),
    /// Inside TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Transport {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    /// 1xx responses that came before it.
    pub interim: Vec<Head>,
    /// Status.
    pub status: u16,
    /// Status line and fields.
    pub head: Head,
    /// Body with framing and trailers.
    pub body: Body,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.bytes).into_owned()
    }
}

/// A client TLS configuration that trusts this authority only and offers these protocols.
pub fn tls_config(authority_pem: &str, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// One connection to a server.
#[derive(Debug)]
pub struct Client {
    /// What comes and goes.
    pub wire: Wire<Transport>,
}

impl Client {
    /// Connects without TLS.
    pub fn plain(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { wire: Wire::new(Transport::Plain(connect(address)?)) })
    }

    /// Connects with TLS and completes the handshake.
    pub fn tls(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut socket = connect(address)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let stream = StreamOwned::new(connection, socket);
        Ok(Self { wire: Wire::new(Transport::Tls(Box::new(stream))) })
    }

    /// Begins TLS on a connection on which something plain was said before, and completes the handshake.
    pub fn upgrade(self, name: &str, config: Arc<ClientConfig>) -> io::Result<Self> {
        let Transport::Plain(mut socket) = self.wire.into_stream() else {
            return Err(io::Error::other("TLS within TLS"));
        };
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Self { wire: Wire::new(Transport::Tls(Box::new(StreamOwned::new(connection, socket)))) })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes.as_ref())
    }

    /// How long one read or write may take from here on.
    pub fn patience(&self, patience: Duration) -> io::Result<()> {
        self.wire.stream().socket().set_read_timeout(Some(patience))?;
        self.wire.stream().socket().set_write_timeout(Some(patience))
    }

    /// Ends the sending half; answers can still be read.
    pub fn finish(&mut self) -> io::Result<()> {
        self.wire.stream().socket().shutdown(Shutdown::Write)
    }

    /// The certificate the server showed, DER.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        match self.wire.stream() {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => Some(stream.conn.peer_certificates()?.first()?.to_vec()),
        }
    }

    /// Whether the handshake continued an earlier session instead of beginning one; `None` without TLS.
    pub fn resumed(&self) -> Option<bool> {
        match self.wire.stream() {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => Some(stream.conn.handshake_kind()? == HandshakeKind::Resumed),
        }
    }

    /// Reads the next head that is not 1xx, and the 1xx heads before it.
    pub fn head(&mut self) -> io::Result<(Vec<Head>, Head)> {
        let mut interim = Vec::new();
        loop {
            let head = self.wire.head()?.ok_or_else(|| {
                io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended instead of an answer")
            })?;
            match head.status()? {
                100 | 102..200 => interim.push(head),
                _ => return Ok((interim, head)),
            }
        }
    }

    /// Reads the whole answer to a request with that method.
    pub fn response(&mut self, method: &str) -> io::Result<Response> {
        let (interim, head) = self.head()?;
        let body = self.wire.body(head.response_length(method)?)?;
        Ok(Response { interim, status: head.status()?, head, body })
    }

    /// Sends a request and reads the answer; the method is the first word of the bytes.
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> io::Result<Response> {
        let request = request.as_ref();
        let method = request.split(|&byte| byte == b' ').next().unwrap_or_default();
        let method = String::from_utf8_lossy(method).into_owned();
        self.send(request)?;
        self.response(&method)
    }

    /// GET of a path.
    pub fn get(&mut self, host: &str, path: &str) -> io::Result<Response> {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }
}

/// GET of a path on a connection of its own.
pub fn get(address: SocketAddr, host: &str, path: &str) -> io::Result<Response> {
    Client::plain(address)?.get(host, path)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}
