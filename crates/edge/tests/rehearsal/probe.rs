//! Probes against an edge that accepts, one that has paused, and something else altogether.

use std::net::TcpListener;

use api::process::ListenerOrder;
use edge::probe::probe;

use crate::stage::{Silence, Stage, shop};

pub fn orders(stage: &Stage) -> Vec<ListenerOrder> {
    let order = |listener: edge::BoundListener| ListenerOrder {
        id: listener.id,
        configured: listener.configured,
        address: listener.address,
        tls: listener.tls,
        proxy_protocol: listener.proxy_protocol,
        sockets: 2,
    };
    stage.open().into_iter().map(order).collect()
}

#[test]
fn an_edge_that_accepts_is_alive() {
    let silence = Silence::new();
    let stage = Stage::with(&shop(silence.address()));
    let orders = orders(&stage);
    assert_eq!(orders.len(), 2);
    assert_eq!(probe(&orders, &stage.edge.current(), ""), Vec::<String>::new());
    // Four connections to each listener, and they count like anybody's.
    assert_eq!(stage.metrics.totals().requests, 8);
    silence.check();
}

#[test]
fn an_edge_that_has_paused_is_not() {
    let silence = Silence::new();
    let stage = Stage::with(&shop(silence.address()));
    let orders = orders(&stage);
    stage.edge.pause();
    let failures = probe(&orders, &stage.edge.current(), "");
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures.iter().all(|failure| failure.contains("4 of 4 connections")), "{failures:?}");
}

#[test]
fn somebody_else_who_accepts_and_closes_is_not_either() {
    let silence = Silence::new();
    let stage = Stage::with(&shop(silence.address()));
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    std::thread::spawn(move || other.incoming().for_each(drop));
    let order =
        |tls| ListenerOrder { id: 0, configured: address, address, tls, proxy_protocol: false, sockets: 0 };
    for tls in [false, true] {
        let failures = probe(&[order(tls)], &stage.edge.current(), "");
        assert!(!failures.is_empty() && failures[0].starts_with(&address.to_string()), "{failures:?}");
    }
    assert!(stage.edge.drain(snapshot::generation::Drain::default()));
}
