//! The cases: what is asked, over which protocol, by which load generator.

/// One case.
pub struct Case {
    pub name: &'static str,
    pub path: &'static str,
    /// Bytes of each answer's body.
    pub body_bytes: u64,
    pub tls: bool,
    pub http2: bool,
    pub connections: u32,
    /// Requests at a time on each connection; more than one only with HTTP/2.
    pub streams: u32,
}

/// Every case is a cache-less proxy case: each request goes to the origin over a kept-alive HTTP/1.1 connection.
pub const CASES: &[Case] = &[
    Case {
        name: "H1 proxied 1 KiB",
        path: "/1k",
        body_bytes: 1 << 10,
        tls: false,
        http2: false,
        connections: 32,
        streams: 1,
    },
    Case {
        name: "H1 proxied 64 KiB",
        path: "/64k",
        body_bytes: 64 << 10,
        tls: false,
        http2: false,
        connections: 32,
        streams: 1,
    },
    Case {
        name: "H1 TLS proxied 1 KiB",
        path: "/1k",
        body_bytes: 1 << 10,
        tls: true,
        http2: false,
        connections: 32,
        streams: 1,
    },
    Case {
        name: "H2 TLS to H1 proxied 1 KiB",
        path: "/1k",
        body_bytes: 1 << 10,
        tls: true,
        http2: true,
        connections: 8,
        streams: 8,
    },
    Case {
        name: "H1 proxied 1 MiB",
        path: "/1m",
        body_bytes: 1 << 20,
        tls: false,
        http2: false,
        connections: 8,
        streams: 1,
    },
];
