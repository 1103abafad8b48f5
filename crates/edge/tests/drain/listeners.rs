//! Listeners that are shared, paused, taken up again and removed; full threads; signs of life.

use std::time::Instant;

use edge::ListenerSet;

use crate::client::{Frame, Http1, Http2, MAX_STREAM};
use crate::world::{PATIENCE, World};

#[test]
fn a_pause_keeps_every_connection_and_can_be_taken_back() {
    let world = World::start();
    let (mut old, mut multiplexed) = (Http1::connect(&world), Http2::connect(&world));
    old.ask("/");
    assert!(!old.answer().0.closes);
    world.edge.pause();
    assert_eq!(world.edge.listeners(), []);

    // The kernel takes the connection, for whoever accepts on the socket next.
    let mut new = Http1::connect(&world);
    new.ask("/");
    old.ask("/");
    assert!(!old.answer().0.closes);
    multiplexed.ping();
    assert_eq!(world.edge.connections(), 2);

    let back = world.listener();
    let listener = back.listener.clone();
    world.edge.activate(None, vec![back]);
    assert_eq!(world.edge.listeners(), [listener]);
    assert!(!new.answer().0.closes);
    old.ask("/");
    assert!(!old.answer().0.closes);
    multiplexed.ask(1, "/");
    assert_eq!(multiplexed.next(), Frame::Head(1, true, true));
}

#[test]
fn connections_of_a_removed_listener_end_once_they_have_nothing_to_do() {
    for paused_before in [false, true] {
        let world = World::with(1, 1, |snapshot| snapshot.drain.idle = std::time::Duration::ZERO);
        let [mut idle, mut busy] = std::array::from_fn(|_| Http1::connect(&world));
        idle.ask("/");
        idle.answer();
        world.origin.expect("/");
        busy.ask("/wait");
        world.origin.expect("/wait");
        let mut multiplexed = Http2::connect(&world);
        if paused_before {
            world.edge.pause();
        }
        world.edge.activate(None, Vec::<ListenerSet>::new());
        assert_eq!(idle.rest(), "");
        assert_eq!(multiplexed.next(), Frame::GoAway(MAX_STREAM));
        multiplexed.see_end();
        world.origin.gate.open();
        let (answer, body) = busy.answer();
        assert_eq!((answer.closes, body.as_str()), (true, "ok"));
        assert_eq!(busy.rest(), "");
    }
}

#[test]
fn every_socket_has_a_thread_that_accepts_on_it() {
    // Fewer sockets than threads, more, and as many.
    for (threads, sockets) in [(3, 1), (1, 3), (2, 3), (2, 2)] {
        let world = World::with(threads, sockets, |_| {});
        let mut clients: Vec<_> = (0..48).map(|_| Http1::connect(&world)).collect();
        clients.iter_mut().for_each(|client| client.ask("/"));
        for client in &mut clients {
            assert_eq!(client.answer().0.status, 200, "{threads} threads, {sockets} sockets");
        }
        assert_eq!(world.edge.pulse().accepted, 48);
    }
}

#[test]
fn a_full_thread_says_so_over_plain_http() {
    let world = World::with(1, 1, |snapshot| snapshot.limits.connections = 1);
    let mut first = Http1::connect(&world);
    first.ask("/");
    first.answer();
    let mut second = Http1::connect(&world);
    let told = second.rest();
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("\r\nRetry-After: "), "{told}");
    let (head, body) = told.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{told}");
    assert!(world.metrics.render().contains("rempart_connections_refused_total{reason=\"connections\"} 1\n"));
    assert_eq!(world.edge.pulse().accepted, 1);
    first.ask("/");
    assert_eq!(first.answer().0.status, 200);
}

#[test]
fn the_pulse_tells_what_is_going_on() {
    let world = World::with(2, 1, |_| {});
    let before = world.edge.pulse();
    assert_eq!(before.threads.len(), 2);
    let deadline = Instant::now() + PATIENCE;
    while world.edge.pulse().threads.iter().zip(&before.threads).any(|(now, before)| now <= before) {
        assert!(Instant::now() < deadline, "a thread stands still");
        std::thread::yield_now();
    }

    let mut client = Http1::connect(&world);
    client.ask("/");
    client.answer();
    for host in ["nobody", "broken"] {
        client.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.answer();
    }
    world.origin.expect("/");
    client.ask("/wait");
    world.origin.expect("/wait");
    let pulse = world.edge.pulse();
    assert_eq!((pulse.connections, pulse.accepted, pulse.active, pulse.requests), (1, 1, 1, 3));
    assert_eq!(pulse.failures, 1, "the origin that is not there, not the host that nobody has");
    assert_eq!((pulse.set_aside, pulse.wanted), (world.loader.set_aside(), Vec::new()));
}
