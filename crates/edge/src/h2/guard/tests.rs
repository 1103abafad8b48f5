//! The arithmetic of the guard, with a clock of its own: what floods cost, and what browsers and gRPC never reach.

use std::cell::Cell;

use super::*;

const DATA: u8 = 0;
const HEADERS_FRAME: u8 = 1;
const PRIORITY_FRAME: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS_FRAME: u8 = 4;
const PING_FRAME: u8 = 6;
const WINDOW: u8 = 8;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    [&length.to_be_bytes()[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// A guard and the time it is told.
struct Bench {
    guard: Guard,
    now: Cell<Instant>,
    asked: Cell<u32>,
}

impl Bench {
    fn new(peer: Peer) -> Self {
        let now = Instant::now();
        let mut guard = Guard::new(peer, 0, now);
        if peer == Peer::Client {
            assert_eq!(guard.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || now), None);
        }
        Self { guard, now: Cell::new(now), asked: Cell::new(0) }
    }

    fn read(&mut self, bytes: &[u8]) -> Option<Flood> {
        self.guard.read(bytes, || {
            self.asked.set(self.asked.get() + 1);
            self.now.get()
        })
    }

    fn ended(&mut self, fate: Fate) {
        self.guard.ended(fate, || self.now.get());
    }

    fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }

    /// How many of these frames are read before the connection is to be closed.
    fn endures(&mut self, bytes: &[u8]) -> (u32, Option<Flood>) {
        for count in 0..1_000_000 {
            if let Some(flood) = self.read(bytes) {
                return (count, Some(flood));
            }
        }
        (u32::MAX, None)
    }
}

#[test]
fn every_flood_ends_after_a_bounded_number_of_frames() {
    let check = |bytes: &[u8], most: u32, flood: Flood| {
        let (count, seen) = Bench::new(Peer::Client).endures(bytes);
        assert_eq!(seen, Some(flood));
        assert!(count <= most, "{flood:?}: {count}");
    };
    let reset = [frame(HEADERS_FRAME, 5, b"\x82"), frame(RST_STREAM, 0, &[0; 4])].concat();
    check(&reset, 2_000, Flood::Resets);
    check(&frame(RST_STREAM, 0, &[0; 4]), 10_000, Flood::Resets);
    check(&frame(9, 0, b""), 500, Flood::Continuations);
    check(&frame(SETTINGS_FRAME, 0, b""), 100, Flood::Settings);
    check(&frame(SETTINGS_FRAME, 0, &[0, 4, 0, 0, 0, 0].repeat(2_000)), 100, Flood::Settings);
    check(&frame(PING_FRAME, 0, &[0; 8]), 10_000, Flood::Pings);
    check(&frame(PING_FRAME, 1, &[0; 8]), 10_000, Flood::Pings);
    check(&frame(PRIORITY_FRAME, 0, &[0; 5]), 10_000, Flood::Priorities);
    check(&frame(16, 0, &[0; 9]), 10_000, Flood::Priorities);
    check(&frame(DATA, 0, b""), 500, Flood::Data);
    check(&frame(DATA, 0, b"x"), 50_000, Flood::Data);
    check(&frame(WINDOW, 0, &[0, 0, 0, 1]), 5_000, Flood::Windows);
    check(&frame(WINDOW, 0, &[0, 0, 255, 255]), 25_000, Flood::Windows);
    check(&frame(7, 0, &[0; 8]), 100, Flood::Goaways);
    check(&frame(0x2b, 0, &[0; 100]), 5_000, Flood::Unknown);
}

#[test]
fn frames_are_seen_in_any_pieces() {
    let bytes = [
        frame(WINDOW, 0, &[0, 0, 0, 1]),
        frame(DATA, 0, &[8; 300]),
        frame(PING_FRAME, 0, &[6; 8]),
        frame(WINDOW, 0, &[0, 1, 0, 0]),
        frame(WINDOW, 0, b"odd"),
        frame(0x2b, 0, &[0; 5]),
    ]
    .concat();
    for step in [1, 2, 7, 9, 13, 64, bytes.len()] {
        let mut bench = Bench::new(Peer::Client);
        bytes.chunks(step).for_each(|piece| assert_eq!(bench.read(piece), None));
        assert_eq!(bench.guard.control.spent, 10 + 5 + 2 + 10, "in pieces of {step}");
        assert_eq!((bench.guard.have, bench.guard.skip), (0, 0));
    }
}

#[test]
fn given_up_requests_cost_more_and_answered_ones_pay() {
    let request = frame(HEADERS_FRAME, 5, b"\x82");
    let reset = frame(RST_STREAM, 0, &[0; 4]);
    let mut bench = Bench::new(Peer::Client);
    let count = (0..10_000).take_while(|_| {
        bench.ended(Fate::Abandoned);
        bench.read(&[request.clone(), reset.clone()].concat()).is_none()
    });
    assert_eq!(count.count(), (BUDGET / (HEADERS + RESET + ABANDONED)) as usize);

    // As many as may be open can be given up at once on top of that.
    let mut bench = Bench::new(Peer::Client);
    bench.guard = Guard { skip: 0, ..Guard::new(Peer::Client, 10_000, bench.now.get()) };
    for _ in 0..10_000 {
        assert_eq!(bench.read(&[request.clone(), reset.clone()].concat()), None);
        bench.ended(Fate::Abandoned);
    }
    // Two requests of five given up, for ever and at once: a map whose tiles scroll away.
    let mut bench = Bench::new(Peer::Client);
    for i in 0..100_000 {
        assert_eq!(bench.read(&request), None, "request {i}");
        if i % 5 < 2 {
            assert_eq!(bench.read(&reset), None);
            bench.ended(Fate::Abandoned);
        } else {
            bench.ended(Fate::Answered);
        }
    }
    assert_eq!(bench.guard.flood(), None);
}

#[test]
fn time_forgives_and_is_not_asked_without_need() {
    let ping = frame(PING_FRAME, 0, &[0; 8]);
    let mut bench = Bench::new(Peer::Client);
    for _ in 0..100_000 {
        bench.pass(Duration::from_millis(1));
        assert_eq!(bench.read(&ping), None);
    }
    assert!(bench.asked.get() <= 100_000 * PING / BUDGET, "asked {} times", bench.asked.get());
    // At the rate that time forgives it goes on for ever; at twice that rate it does not.
    let mut bench = Bench::new(Peer::Client);
    let pause = Duration::from_micros(u64::from(PING) * MICROS_PER_POINT);
    for _ in 0..100_000 {
        bench.pass(pause);
        assert_eq!(bench.read(&ping), None);
    }
    let faster = (0..100_000).take_while(|_| {
        bench.pass(pause / 2);
        bench.read(&ping).is_none()
    });
    assert!(faster.count() < 50_000);
}

#[test]
fn flow_control_of_a_download_is_paid_by_the_download() {
    let update = frame(WINDOW, 0, &109u32.to_be_bytes());
    let ping = frame(PING_FRAME, 0, &[0; 8]);
    // Two WINDOW_UPDATEs and one PING for every small message, faster than any network: a gRPC client beside its server.
    let mut bench = Bench::new(Peer::Client);
    for _ in 0..200_000 {
        bench.guard.wrote(160);
        bench.read(&update);
        bench.read(&update);
        assert_eq!(bench.read(&ping), None);
    }
    // One byte at a time pays nothing worth mentioning.
    let mut bench = Bench::new(Peer::Client);
    let update = frame(WINDOW, 0, &[0, 0, 0, 1]);
    let count = (0..200_000).take_while(|_| {
        bench.guard.wrote(10);
        bench.read(&update).is_none()
    });
    assert!(count.count() < 6_000);
}

#[test]
fn a_long_download_pays_for_one_budget_and_no_more() {
    let mut bench = Bench::new(Peer::Client);
    bench.guard.wrote(usize::MAX);
    let (count, _) = bench.endures(&frame(PING_FRAME, 0, &[0; 8]));
    assert!(count <= 2 * BUDGET / PING);
}

#[test]
fn messages_from_an_origin_are_what_somebody_asked_for() {
    let (count, flood) = Bench::new(Peer::Origin).endures(&frame(DATA, 0, b"tiny"));
    assert_eq!((count, flood), (u32::MAX, None));
    assert_eq!(Bench::new(Peer::Origin).endures(&frame(DATA, 0, b"")).1, Some(Flood::Data));
    // Interim responses without end.
    assert_eq!(Bench::new(Peer::Origin).endures(&frame(HEADERS_FRAME, 4, b"\x88")).1, Some(Flood::Headers));
}

#[tokio::test]
async fn given_up_requests_keep_their_place_for_a_moment() {
    let mut abandoned = Abandoned::default();
    std::future::poll_fn(|cx| {
        assert!(abandoned.poll_room(cx, 1_000, 100).is_ready(), "nothing was given up");
        for _ in 0..150 {
            abandoned.note(Instant::now);
        }
        assert!(abandoned.poll_room(cx, 49, 100).is_ready());
        assert!(abandoned.poll_room(cx, 50, 100).is_pending());
        Poll::Ready(())
    })
    .await;
    std::future::poll_fn(|cx| abandoned.poll_room(cx, 50, 100)).await;
    assert_eq!((abandoned.count, abandoned.until), (0, None));
}
