//! What a drain does to connections that rest, to requests under way, and to what lasts.

use crate::client::{Frame, Http1, Http2, MAX_STREAM};
use crate::world::{AT_ONCE, HOUR, World};

/// A connection that hears of the drain and says nothing to it.
fn canary(world: &World) -> Http2 {
    Http2::connect(world)
}

fn hears(canary: &mut Http2) {
    assert_eq!(canary.next(), Frame::GoAway(MAX_STREAM));
}

#[test]
fn idle_connections_get_one_more_answer_while_their_time_lasts() {
    let world = World::start();
    let mut used = Http1::connect(&world);
    used.ask("/");
    assert!(!used.answer().0.closes);
    let mut silent = Http1::connect(&world);
    let mut begun = Http1::connect(&world);
    begun.send("GET / HT");
    let mut canary = canary(&world);

    let drain = world.drain(HOUR, HOUR, HOUR);
    hears(&mut canary);
    for client in [&mut used, &mut silent] {
        client.ask("/");
        let (answer, _) = client.answer();
        assert_eq!((answer.status, answer.closes), (200, true));
        assert_eq!(client.rest(), "");
    }
    begun.send("TP/1.1\r\nHost: shop\r\n\r\n");
    assert!(begun.answer().0.closes);
    drop((begun, canary));
    assert!(drain.join().unwrap(), "everything ended by itself");
    assert_eq!(world.edge.connections(), 0);
}

#[test]
fn idle_connections_are_closed_when_their_time_is_over_and_requests_are_finished() {
    let world = World::start();
    let mut used = Http1::connect(&world);
    used.ask("/");
    used.answer();
    world.origin.expect("/");
    let mut silent = Http1::connect(&world);
    let mut waiting = Http1::connect(&world);
    waiting.ask("/wait");
    let mut waiting_too = Http2::connect(&world);
    waiting_too.ask(1, "/wait");
    world.origin.expect("/wait");
    world.origin.expect("/wait");
    let mut canary = canary(&world);

    let drain = world.drain(AT_ONCE, HOUR, HOUR);
    hears(&mut canary);
    assert_eq!((used.rest(), silent.rest()), (String::new(), String::new()));
    canary.see_end();
    waiting_too.see_goodbye(1);
    world.origin.gate.open();
    let (answer, body) = waiting.answer();
    assert_eq!((answer.status, answer.closes, body.as_str()), (200, true, "ok"));
    assert_eq!(waiting_too.next(), Frame::Head(1, false, true));
    assert_eq!(waiting_too.body(1), "ok");
    waiting_too.see_end();
    drop((waiting, waiting_too));
    assert!(drain.join().unwrap());
}

#[test]
fn http2_says_goodbye_in_two_steps_and_serves_what_came_in_between() {
    let world = World::start();
    let (mut idle, mut busy) = (Http2::connect(&world), Http2::connect(&world));
    busy.ask(1, "/wait");
    world.origin.expect("/wait");
    let drain = world.drain(HOUR, HOUR, HOUR);

    idle.see_goodbye(0);
    idle.see_end();
    drop(idle);

    assert_eq!(busy.next(), Frame::GoAway(MAX_STREAM));
    let Frame::Ping(payload) = busy.next() else { panic!("no ping") };
    // Sent before the client had heard.
    busy.ask(3, "/");
    assert_eq!(busy.next(), Frame::Head(3, true, true));
    busy.pong(payload);
    assert_eq!(busy.next(), Frame::GoAway(3));
    world.origin.gate.open();
    assert_eq!(busy.next(), Frame::Head(1, false, true));
    assert_eq!(busy.body(1), "ok");
    busy.see_end();
    drop(busy);
    assert!(drain.join().unwrap());
}

/// Connections on which something runs, all established.
struct Running {
    plain: Http1,
    tunnel: Http1,
    events: Http1,
    /// Streams: 1 waits, 3 is a tunnel, 5 are events.
    multiplexed: Http2,
}

impl Running {
    fn start(world: &World) -> Self {
        let [mut plain, mut tunnel, mut events] = std::array::from_fn(|_| Http1::connect(world));
        plain.ask("/wait");
        world.origin.expect("/wait");
        tunnel.upgrade();
        world.origin.expect("/ws");
        tunnel.echo();
        events.ask("/events");
        world.origin.expect("/events");
        assert_eq!(events.head().status, 200);
        assert_eq!([events.line(), events.line()], ["4", "one"]);
        assert_eq!(events.line(), "");
        let mut multiplexed = Http2::connect(world);
        multiplexed.ask(1, "/wait");
        world.origin.expect("/wait");
        multiplexed.upgrade(3);
        world.origin.expect("/ws");
        multiplexed.echo(3);
        multiplexed.ask(5, "/events");
        assert_eq!(multiplexed.next(), Frame::Head(5, false, true));
        assert_eq!(multiplexed.next(), Frame::Data(5, false, b"one\n".to_vec()));
        Self { plain, tunnel, events, multiplexed }
    }
}

#[test]
fn what_lasts_outlives_the_time_of_requests() {
    let world = World::start();
    let Running { mut plain, mut tunnel, mut events, mut multiplexed } = Running::start(&world);
    let drain = world.drain(HOUR, AT_ONCE, HOUR);

    assert_eq!(plain.rest(), "", "cut off, without an answer");
    assert_eq!(multiplexed.next(), Frame::GoAway(MAX_STREAM));
    let Frame::Ping(payload) = multiplexed.next() else { panic!("no ping") };
    assert_eq!(multiplexed.next(), Frame::Reset(1));
    multiplexed.pong(payload);
    assert_eq!(multiplexed.next(), Frame::GoAway(5));
    tunnel.echo();
    multiplexed.echo(3);
    world.origin.gate.open();
    assert_eq!([events.line(), events.line()], ["4", "two"]);
    assert_eq!(multiplexed.body(5), "two\n");
    drop((tunnel, events));
    multiplexed.finish(3);
    assert_eq!(multiplexed.body(3), "");
    multiplexed.see_end();
    drop(multiplexed);
    assert!(!drain.join().unwrap(), "two requests were cut off");
}

#[test]
fn what_lasts_is_cut_off_when_its_own_time_is_over() {
    let world = World::start();
    let Running { mut plain, mut tunnel, mut events, mut multiplexed } = Running::start(&world);
    let drain = world.drain(HOUR, HOUR, AT_ONCE);

    assert_eq!((tunnel.rest(), events.rest()), (String::new(), String::new()), "no last chunk");
    assert_eq!(multiplexed.next(), Frame::GoAway(MAX_STREAM));
    let Frame::Ping(payload) = multiplexed.next() else { panic!("no ping") };
    let mut cut = [multiplexed.next(), multiplexed.next()];
    cut.sort_by_key(|frame| format!("{frame:?}"));
    assert_eq!(cut, [Frame::Reset(3), Frame::Reset(5)]);
    multiplexed.pong(payload);
    assert_eq!(multiplexed.next(), Frame::GoAway(5));
    world.origin.gate.open();
    assert_eq!(plain.answer().1, "ok");
    assert_eq!(multiplexed.next(), Frame::Head(1, false, true));
    assert_eq!(multiplexed.body(1), "ok");
    drop((plain, multiplexed));
    assert!(!drain.join().unwrap());
}

#[test]
fn an_upload_under_way_is_finished() {
    let world = World::start();
    let mut upload = Http1::connect(&world);
    upload.send("POST /upload HTTP/1.1\r\nHost: shop\r\nContent-Length: 8\r\n\r\nfour");
    world.origin.expect("/upload");
    let mut canary = canary(&world);
    let drain = world.drain(AT_ONCE, HOUR, HOUR);
    hears(&mut canary);
    upload.send("more");
    let (answer, body) = upload.answer();
    assert_eq!((answer.closes, body.as_str()), (true, "fourmore"));
    drop((upload, canary));
    assert!(drain.join().unwrap());
}

#[test]
fn a_drain_without_connections_ends_every_thread_and_comes_once() {
    let world = World::with(3, 1, |_| {});
    assert!(world.drain(HOUR, HOUR, HOUR).join().unwrap());
    assert!(world.drain(AT_ONCE, AT_ONCE, AT_ONCE).join().unwrap(), "nothing left to do");
}
