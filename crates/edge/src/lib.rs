//! Listeners, TLS, HTTP/1 and HTTP/2, the request pipeline and upstreams.

pub mod telemetry;
