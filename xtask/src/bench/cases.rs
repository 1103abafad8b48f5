//! The cases: what is asked, over which protocol, by which load generator, and the bars Rempart is held against.

use crate::peers::Name;

/// One case.
pub struct Case {
    pub name: &'static str,
    pub path: &'static str,
    /// Bytes of each answer's body.
    pub body_bytes: u64,
    pub traffic: Traffic,
    /// With `Handshakes`, how many may be open at a time before reuse of the origin's connections is doubted.
    pub connections: u32,
    /// Requests at a time on each connection; more than one only with HTTP/2.
    pub streams: u32,
    pub bars: &'static [Bar],
}

/// What clients speak, and how they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// HTTP/1.1 on kept connections, as fast as answers come
    Http1,
    /// The same over TLS
    Http1Tls,
    /// HTTP/2 over TLS on kept connections, as fast as answers come
    Http2Tls,
    /// HTTP/1.1 over TLS, one request on each connection, no session resumed, at a fixed rate
    Handshakes,
}

impl Traffic {
    pub fn tls(self) -> bool {
        self != Self::Http1
    }

    /// The name negotiated over TLS (ALPN).
    pub fn protocol(self) -> &'static str {
        if self == Self::Http2Tls { "h2" } else { "http/1.1" }
    }
}

impl Case {
    /// Whether this server takes part.
    pub fn has(&self, server: Name) -> bool {
        match server {
            Name::Floor => !self.traffic.tls(),
            Name::Ruled => self.name == CASES[0].name,
            _ => true,
        }
    }
}

/// Rempart's CPU per request as a share of a peer's, whose upper 95 % bound is not to be above `at_most`.
pub struct Bar {
    pub against: Against,
    pub at_most: f64,
}

/// Whom a bar means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// The peer with the smallest median
    Best,
    Peer(Name),
}

/// CPU per request with 1,000 firewall rules, as a share of that without any, in the first case.
pub const RULES_BAR: f64 = 1.2;

/// Microseconds that Rempart may add to the median latency of the origin.
pub const LATENCY_BAR_MICROS: f64 = 100.0;

const fn best(at_most: f64) -> Bar {
    Bar { against: Against::Best, at_most }
}

/// Every case is a cache-less proxy case: each request goes to the origin over a kept-alive HTTP/1.1 connection.
pub const CASES: &[Case] = &[
    Case {
        name: "H1 proxied 1 KiB",
        path: "/1k",
        body_bytes: 1 << 10,
        traffic: Traffic::Http1,
        connections: 32,
        streams: 1,
        bars: &[best(0.95)],
    },
    Case {
        name: "H1 proxied 64 KiB",
        path: "/64k",
        body_bytes: 64 << 10,
        traffic: Traffic::Http1,
        connections: 32,
        streams: 1,
        bars: &[best(0.9)],
    },
    Case {
        name: "H1 proxied 1 MiB",
        path: "/1m",
        body_bytes: 1 << 20,
        traffic: Traffic::Http1,
        connections: 8,
        streams: 1,
        bars: &[best(0.7)],
    },
    Case {
        name: "H1 TLS proxied 1 KiB",
        path: "/1k",
        body_bytes: 1 << 10,
        traffic: Traffic::Http1Tls,
        connections: 32,
        streams: 1,
        bars: &[best(0.9)],
    },
    Case {
        name: "H2 TLS to H1 proxied 1 KiB",
        path: "/1k",
        body_bytes: 1 << 10,
        traffic: Traffic::Http2Tls,
        connections: 8,
        streams: 8,
        bars: &[Bar { against: Against::Peer(Name::Haproxy), at_most: 1.0 }],
    },
    Case {
        name: "full handshake, one request 1 KiB",
        path: "/1k",
        body_bytes: 1 << 10,
        traffic: Traffic::Handshakes,
        connections: 64,
        streams: 1,
        bars: &[Bar { against: Against::Peer(Name::Nginx), at_most: 0.6 }, best(1.0)],
    },
];
