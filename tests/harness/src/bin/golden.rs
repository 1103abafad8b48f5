//! Golden traffic as a program: one line of JSON on standard input says what to ask, the end of input ends it, and one
//! line of JSON on standard output says what became of it.

use std::io::{BufRead, Read, stdin};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use harness::client::tls_config;
use harness::load::{Load, PLAIN_VISITORS, Pace, Target, VISITORS};
use serde::Deserialize;

/// What to ask, of whom, how often.
#[derive(Deserialize)]
struct Order {
    plain: SocketAddr,
    /// Without it only plain HTTP/1.1 is spoken.
    tls: Option<SocketAddr>,
    /// PEM file with the certificate to trust.
    roots: PathBuf,
    source: IpAddr,
    host: String,
    path: String,
    /// File with the body that must come back.
    expect: PathBuf,
    per_second: u32,
    /// Requests to wait for before `warm` is said.
    warm: usize,
}

fn main() {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).expect("standard input can be read");
    let order: Order = serde_json::from_str(&line).expect("an order as JSON");
    let roots = std::fs::read_to_string(&order.roots).expect("the certificate to trust");
    let target = Target {
        plain: order.plain,
        tls: order.tls.unwrap_or(order.plain),
        http1: tls_config(&roots, &["http/1.1"]),
        http2: tls_config(&roots, &["h2"]),
        source: Some(order.source),
        host: order.host,
        path: order.path,
        expect: std::fs::read_to_string(&order.expect).expect("the body to expect"),
    };
    let mix = if order.tls.is_some() { VISITORS } else { PLAIN_VISITORS };
    let load = Load::start(&target, Pace::Mixed { per_second: order.per_second, mix });
    load.wait_for(order.warm);
    println!("warm");
    stdin().lock().read_to_end(&mut Vec::new()).expect("standard input can be read");
    let report = load.stop();
    let [median, high, most] = report.latency.map(|latency| latency.as_secs_f64() * 1000.0);
    let figures = serde_json::json!({
        "sent": report.total(),
        "served": report.served,
        "retried": report.retried,
        "refused": report.refused,
        "dropped": report.dropped + report.lost,
        "wrong": report.wrong,
        "timeouts": report.timeouts,
        "unasked": report.unasked,
        "failures": report.failures,
        "median_ms": median,
        "p99_ms": high,
        "max_ms": most,
    });
    println!("{figures}");
}
