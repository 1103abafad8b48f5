//! The edge as its own visitor: what it learns of the certificate, and how it tells a refusal from a broken connection.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::fixture::*;
use crate::tls::accept;
use crate::tls::server::ServerSettings;
use crate::tls::visitor::{Presented, connect, is_alert};

/// Who is visited.
enum Host {
    Edge(Arc<ServerSettings>),
    Other(Box<ServerConfig>),
    /// Closes the connection.
    Nobody,
}

/// One handshake over loopback.
async fn visit(server: Host, host: &str, http2: bool) -> std::io::Result<Presented> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        match server {
            Host::Edge(settings) => drop(accept(stream, &settings).await),
            Host::Other(config) => drop(TlsAcceptor::from(Arc::new(*config)).accept(stream).await),
            Host::Nobody => {}
        }
    };
    let (presented, ()) =
        tokio::join!(async { connect(TcpStream::connect(address).await?, host, http2).await }, serve);
    presented
}

#[tokio::test]
async fn it_is_told_which_hosts_the_certificate_is_for() {
    let server = development_server(&authority(), &["a.example", "192.0.2.1"]);
    for (host, http2) in [("a.example", true), ("a.example", false), ("192.0.2.1", true)] {
        let presented = visit(Host::Edge(server.clone()), host, http2).await.unwrap();
        assert_eq!(presented.http2, http2);
        for (asked, covered) in
            [("a.example", true), ("192.0.2.1", true), ("b.example", false), ("..", false)]
        {
            assert_eq!(presented.covers(asked), covered, "{asked}");
        }
    }
}

#[tokio::test]
async fn an_alert_is_told_from_silence() {
    let edge = development_server(&authority(), &["a.example"]);
    let mut server = (*edge.first().config).clone();
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let refused = visit(Host::Other(Box::new(server)), "a.example", true).await.err().unwrap();
    assert!(is_alert(&refused), "{refused}");
    let closed = visit(Host::Nobody, "a.example", true).await.err().unwrap();
    assert!(!is_alert(&closed), "{closed}");
}
