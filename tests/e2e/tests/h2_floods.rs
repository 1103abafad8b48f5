//! HTTP/2 floods end their own connection after a bounded number of frames, cost others nothing, and reach no origin; what
//! browsers, gRPC and diligent libraries do goes on for ever.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use harness::config::Config;
use harness::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, Frames, GOAWAY, Goodbye,
    HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, cancel, frame, get, post, window,
};
use harness::origin::{Connection, Origin, Reply};
use harness::rempart::Rempart;
use harness::{PATIENCE, client, memory};

use crate::heavy;

const HOST: &str = "calm.test";
/// Memory that a flood may cost at its worst moment, above the idle process.
const MAX_GROWTH: u64 = 16 << 20;
/// Streams a client may have open (`limits.streams`).
const STREAMS: u32 = 128;
/// The most frames of one kind that no budget lets through at once: two budgets of the cheapest frames.
const MOST: usize = 120_000;

fn origin() -> Origin {
    Origin::answering(|_| Reply::text(200, "calm"))
}

/// One edge thread, so that a flood and the visitor beside it meet.
fn before(origin: &Origin) -> Rempart {
    let text = "[metrics]\nlisten = \"127.0.0.1:0\"\n[log.access]\nto = \"off\"\n[limits]\nthreads = 1";
    let config = Config::empty().raw(text).listeners().site("calm", &[HOST]).origin(origin.url());
    Rempart::with(&config)
}

fn connect(rempart: &Rempart) -> Frames<std::net::TcpStream> {
    Frames::connect(rempart.plain(), &[])
}

/// Waits until at least so many connections are counted as ended for these reasons: the goodbye may come before the count.
fn await_floods(rempart: &Rempart, peer: &str, reasons: &[&str], expected: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = client::get(rempart.metrics(), "localhost", "/metrics").unwrap().text();
        let count = |reason: &&str| {
            let start = format!("rempart_http2_floods_total{{peer=\"{peer}\",reason=\"{reason}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&start)).expect("the metric is there");
            line.parse::<u64>().unwrap()
        };
        let seen: u64 = reasons.iter().map(count).sum();
        if seen >= expected {
            return;
        }
        assert!(Instant::now() < deadline, "{reasons:?}: {seen}, not {expected}");
    }
}

fn is_served(rempart: &Rempart) {
    assert_eq!(client::get(rempart.plain(), HOST, "/").unwrap().text(), "calm");
    let answer = rempart.http2(HOST).get(HOST, "/").unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"calm"[..]));
}

/// Sends rounds of frames until the connection is ended; how many frames were taken, and the goodbye.
fn endures(
    frames: &mut Frames<std::net::TcpStream>,
    mut round: impl FnMut() -> (usize, Vec<u8>),
) -> (usize, Goodbye) {
    let mut taken = 0;
    while taken < MOST {
        let (count, bytes) = round();
        if let Err(goodbye) = frames.settle(&bytes, |_| {}) {
            return (taken, goodbye);
        }
        taken += count;
    }
    panic!("{taken} frames and no end");
}

#[test]
fn each_flood_ends_its_connection_and_no_other() {
    let origin = origin();
    let rempart = before(&origin);
    is_served(&rempart);
    memory::reset_peak(rempart.edge_pid());
    let idle = rempart.resident();
    let check = |reason: &str, most: usize, bytes: Vec<u8>| {
        let mut frames = connect(&rempart);
        let (taken, goodbye) = endures(&mut frames, || (100, bytes.repeat(100)));
        assert_eq!(goodbye.reason, Some(ENHANCE_YOUR_CALM), "{reason} after {taken}: {goodbye:?}");
        assert!(taken <= most, "{reason}: {taken} frames");
        assert_eq!(frames.receive(), None, "{reason}: the connection is closed");
        await_floods(&rempart, "client", &[reason], 1);
        is_served(&rempart);
    };
    check("pings", 25_000, frame(PING, 0, 0, b"12345678"));
    check("settings", 400, frame(SETTINGS, 0, 0, &[]));
    check("priorities", 25_000, frame(PRIORITY, 0, 0x7fff, &[0, 0, 0, 0, 15]));
    check("windows", 15_000, window(0, 1));
    check("unknown", 15_000, frame(0x2b, 0, 0, b"grease"));
    check("goaways", 400, frame(GOAWAY, 0, 0, &[0; 8]));
    let grown = memory::peak(rempart.edge_pid()).saturating_sub(idle);
    println!("floods of frames: {} KiB above idle", grown / 1024);
    assert!(grown < MAX_GROWTH, "{grown} bytes");
}

#[test]
fn initial_window_sizes_that_flip_end_the_connection() {
    let origin = origin();
    let rempart = before(&origin);
    let mut frames = connect(&rempart);
    let flip = [frames::settings(&[(4, 0)]), frames::settings(&[(4, 0x7fff_ffff)])].concat();
    let (taken, goodbye) = endures(&mut frames, || (10, flip.repeat(5)));
    assert_eq!(goodbye.reason, Some(ENHANCE_YOUR_CALM), "{goodbye:?} after {taken}");
    assert!(taken < 400, "{taken}");
    is_served(&rempart);
}

#[test]
fn requests_reset_before_they_are_read_reach_no_origin() {
    let origin = origin();
    let rempart = before(&origin);
    is_served(&rempart);
    let before = (origin.seen().len(), origin.connections());
    let (mut frames, mut next) = (connect(&rempart), 1);
    let (taken, goodbye) = endures(&mut frames, || {
        let round = iter::repeat_with(|| {
            next += 2;
            [get(next - 2, HOST, "/"), cancel(next - 2)].concat()
        });
        (20, round.take(20).collect::<Vec<_>>().concat())
    });
    assert_eq!(goodbye.reason, Some(ENHANCE_YOUR_CALM), "{goodbye:?}");
    assert!(taken < 3_000, "{taken} requests reset");
    is_served(&rempart);
    let seen = origin.seen().len() - before.0;
    println!("rapid reset in one piece: {taken} taken, {seen} reached the origin");
    // A read may end between a request and its reset; the visitor beside it is seen as well.
    assert!(seen <= taken / 10 + 2, "{seen} of {taken} reached the origin");
}

#[test]
fn requests_reset_at_work_neither_buy_concurrency_nor_go_on_for_ever() {
    // It answers nothing: every request that comes is one that runs.
    let origin = Origin::scripted(|connection| {
        while connection.request()?.is_some() {}
        Ok(())
    });
    let rempart = before(&origin);
    let (mut frames, mut taken) = (connect(&rempart), 0);
    let started = Instant::now();
    let goodbye = loop {
        assert!(taken < MOST, "no end");
        let streams = (0..50).map(|i| 2 * (taken + i) as u32 + 1);
        let begun: Vec<u8> = streams.clone().flat_map(|stream| get(stream, HOST, "/")).collect();
        let reset: Vec<u8> = streams.flat_map(cancel).collect();
        // The requests have begun when the first is acknowledged, and only then come the resets.
        let settled = frames.settle(&begun, |_| {}).and_then(|()| frames.settle(&reset, |_| {}));
        if let Err(goodbye) = settled {
            break goodbye;
        }
        taken += 50;
    };
    let seconds = started.elapsed().as_secs() as u32 + 1;
    assert_eq!(goodbye.reason, Some(ENHANCE_YOUR_CALM), "{goodbye:?}");
    let connections = origin.connections();
    println!("rapid reset at work: {taken} taken in {seconds} s, {connections} connections to the origin");
    assert!(u64::from(2 * STREAMS * (seconds + 1)) >= connections, "{connections} in {seconds} s");
    assert!(taken < 3_000 + 200 * seconds as usize, "{taken}");
}

#[test]
fn streams_made_to_fail_end_the_connection() {
    let origin = origin();
    let rempart = before(&origin);
    is_served(&rempart);
    let check = |name: &str, most: usize, provoke: &dyn Fn(u32) -> Vec<u8>| {
        let (mut frames, mut next) = (connect(&rempart), 1);
        let (taken, goodbye) = endures(&mut frames, || {
            let round = iter::repeat_with(|| {
                next += 2;
                provoke(next - 2)
            });
            (20, round.take(20).collect::<Vec<_>>().concat())
        });
        println!("{name}: {taken} taken, {goodbye:?}");
        assert_eq!(goodbye.reason, Some(ENHANCE_YOUR_CALM), "{name}: {goodbye:?}");
        assert!(taken <= most, "{name}: {taken}");
        is_served(&rempart);
    };
    // The window may not grow beyond 2^31 - 1 (RFC 9113 section 6.9.1).
    check("overflow", 3_000, &|id| [post(id, HOST, "/"), window(id, 0x7fff_ffff)].concat());
    // No stream depends on itself (RFC 7540 section 5.3.1).
    check("on itself", 6_000, &|id| {
        [get(id, HOST, "/"), frame(PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[9]].concat())].concat()
    });
    // A field that must not be there (section 8.2.2).
    let connection = [&frames::request_block("GET", HOST, "/")[..], b"\x00\x0aconnection\x01x"].concat();
    check("malformed", 5_000, &|id| frame(HEADERS, END_HEADERS | END_STREAM, id, &connection));
}

#[test]
fn data_for_streams_long_gone_ends_the_connection() {
    let origin = origin();
    let rempart = before(&origin);
    let mut frames = connect(&rempart);
    frames.send(&get(1, HOST, "/")).unwrap();
    assert_eq!(frames.answer(1).unwrap(), b"calm");
    let (taken, goodbye) = endures(&mut frames, || (100, frame(DATA, 0, 1, &[0; 32]).repeat(100)));
    assert_eq!(goodbye.reason, Some(ENHANCE_YOUR_CALM), "{goodbye:?} after {taken}");
    assert!(taken <= 25_000, "{taken}");
    is_served(&rempart);
}

#[test]
fn field_blocks_without_end_and_bombs_are_bounded() {
    let origin = origin();
    let rempart = before(&origin);
    is_served(&rempart);
    memory::reset_peak(rempart.edge_pid());
    let idle = rempart.resident();
    for piece in [&b""[..], b"\x00\x01a\x01b"] {
        let mut frames = connect(&rempart);
        let begun = frame(HEADERS, END_STREAM, 1, &frames::request_block("GET", HOST, "/"));
        frames.send(&begun).unwrap();
        // Nothing may stand between CONTINUATIONs, so there is no asking how far it got.
        let rest = frame(CONTINUATION, 0, 1, piece).repeat(5_000);
        let goodbye = frames.settle(&rest, |_| {}).unwrap_err();
        assert_eq!(goodbye.reason, Some(ENHANCE_YOUR_CALM), "{goodbye:?}");
    }
    // One field of 4,000 bytes, and 12,000 references to it: 48 MB in 12 KB.
    let value = [&b"\x40\x01x\x7f\xa1\x1e"[..], &[b'v'; 4_000]].concat();
    let bomb = [&frames::request_block("GET", HOST, "/")[..], &value, &[0xbe; 12_000]].concat();
    let mut frames = connect(&rempart);
    let goodbye = frames.settle(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb), |_| {}).unwrap_err();
    assert_eq!(goodbye.reason, Some(ENHANCE_YOUR_CALM), "{goodbye:?}");
    await_floods(&rempart, "client", &["continuations", "limits"], 3);
    // Changes of the table's size at the start of a block, as many as fit.
    let mut frames = connect(&rempart);
    let sizes = [&[0x20; 12_000][..], &frames::request_block("GET", HOST, "/")].concat();
    frames.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &sizes)).unwrap();
    assert_eq!(frames.answer(1).unwrap(), b"calm");
    is_served(&rempart);
    let grown = memory::peak(rempart.edge_pid()).saturating_sub(idle);
    println!("field blocks: {} KiB above idle", grown / 1024);
    assert!(grown < MAX_GROWTH, "{grown} bytes");
}

#[test]
fn empty_data_ends_the_connection_and_unfinished_requests_are_bounded() {
    let origin = origin();
    let rempart = before(&origin);
    let mut frames = connect(&rempart);
    frames.send(&post(1, HOST, "/")).unwrap();
    let (taken, goodbye) = endures(&mut frames, || (50, frame(DATA, 0, 1, b"").repeat(50)));
    assert_eq!(goodbye.reason, Some(ENHANCE_YOUR_CALM), "{goodbye:?} after {taken}");
    assert!(taken <= 1_000, "{taken}");
    // Bodies that never come: as many as may be open, the rest is refused.
    let mut frames = connect(&rempart);
    let begun: Vec<u8> = (0..2 * STREAMS).flat_map(|i| post(2 * i + 1, HOST, "/")).collect();
    let mut refused = 0;
    frames
        .settle(&begun, |frame| refused += u32::from(frame.kind == RST_STREAM && frame.number(0) == Some(7)))
        .unwrap();
    assert_eq!(refused, STREAMS);
    is_served(&rempart);
    assert!(origin.connections() <= u64::from(STREAMS) + 8, "{}", origin.connections());
}

/// An origin that sends `GET /BYTES` that many bytes in pieces, and counts them.
fn bulk(sent: Arc<AtomicU64>) -> Origin {
    Origin::scripted(move |connection: &mut Connection| {
        while let Some(seen) = connection.request()? {
            let bytes: u64 = seen.target().trim_start_matches('/').parse().unwrap_or(0);
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n"))?;
            for _ in 0..bytes.div_ceil(16_384) {
                connection.send([b'x'; 16_384])?;
                sent.fetch_add(16_384, Ordering::SeqCst);
            }
        }
        Ok(())
    })
}

#[test]
fn readers_that_do_not_read_cost_little_whatever_their_windows() {
    let _alone = heavy();
    let sent = Arc::new(AtomicU64::new(0));
    let origin = bulk(sent.clone());
    let rempart = before(&origin);
    let mut frames = Frames::connect(rempart.plain(), &[(4, 0x7fff_ffff)]);
    frames.send(&get(1, HOST, "/16384")).unwrap();
    assert_eq!(frames.answer(1).unwrap().len(), 16_384);
    // Nothing is granted; everything is granted and nothing read.
    for (name, window_size) in [("closed", 0), ("wide", 0x7fff_ffff)] {
        memory::reset_peak(rempart.edge_pid());
        let idle = rempart.resident();
        let stalled: Vec<_> = iter::repeat_with(|| {
            let mut frames = Frames::connect(rempart.plain(), &[(4, window_size)]);
            frames.send(&window(0, 0x7fff_0000)).unwrap();
            let begun: Vec<u8> = (0..STREAMS).flat_map(|i| get(2 * i + 1, HOST, "/16777216")).collect();
            frames.send(&begun).unwrap();
            frames
        })
        .take(2)
        .collect();
        crate::memory::settle(&sent);
        let grown = memory::peak(rempart.edge_pid()).saturating_sub(idle);
        println!("2 connections of {STREAMS} streams with {name} windows: {} KiB above idle", grown / 1024);
        assert!(grown < 2 * MAX_GROWTH, "{name}: {grown} bytes");
        drop(stalled);
    }
}

#[test]
fn windows_held_closed_run_into_the_write_limit() {
    let origin = bulk(Arc::default());
    let limits = "[limits]\nthreads = 1\nwrite = \"1s\"";
    let config = Config::new().raw(limits).listeners().site("calm", &[HOST]).origin(origin.url());
    let rempart = Rempart::with(&config);
    const CANCEL: u32 = 8;
    // No window for any stream; and none for the connection once its first 65,535 bytes are used up.
    let mut frames = Frames::connect(rempart.plain(), &[(4, 0)]);
    frames.send(&get(1, HOST, "/16384")).unwrap();
    assert_eq!(frames.answer(1), Err(Some(CANCEL)));
    let mut frames = Frames::connect(rempart.plain(), &[(4, 1 << 20)]);
    frames.send(&get(1, HOST, "/262144")).unwrap();
    assert_eq!(frames.answer(1), Err(Some(CANCEL)));
}

/// Reads an HTTP/2 client's introduction and first request on an origin's side.
fn greet(connection: &mut Connection) -> std::io::Result<()> {
    connection.wire.exactly(frames::PREFACE.len() as u64, &mut |_| {})?;
    connection.send(frames::settings(&[]))?;
    loop {
        let mut head = Vec::new();
        connection.wire.exactly(9, &mut |piece| head.extend_from_slice(piece))?;
        let length = u64::from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
        connection.wire.exactly(length, &mut |_| {})?;
        if head[3] == HEADERS {
            return Ok(());
        }
    }
}

#[test]
fn origins_that_flood_lose_the_connection_and_the_request_is_answered() {
    let check = |reason: &str, flood: Vec<u8>| {
        let origin = Origin::scripted(move |connection: &mut Connection| {
            greet(connection)?;
            let piece = flood.repeat(100);
            // Ends when the edge closes.
            loop {
                connection.send(&piece)?;
            }
        });
        let calm = self::origin();
        let text = "[metrics]\nlisten = \"127.0.0.1:0\"\n[log.access]\nto = \"off\"\n[limits]\nthreads = 1";
        let config = Config::empty()
            .raw(text)
            .listeners()
            .site("wild", &["wild.test"])
            .origin(origin.url())
            .raw("http = \"2\"")
            .site("calm", &[HOST])
            .origin(calm.url());
        let rempart = Rempart::with(&config);
        assert_eq!(client::get(rempart.plain(), "wild.test", "/").unwrap().status, 502, "{reason}");
        await_floods(&rempart, "origin", &[reason], 1);
        is_served(&rempart);
        assert!(rempart.resident() < 256 << 20);
    };
    check("pings", frame(PING, 0, 0, b"12345678"));
    check("settings", frame(SETTINGS, 0, 0, &[]));
    check("windows", window(0, 1));
    check("headers", frame(HEADERS, END_HEADERS, 1, b"\x08\x03103"));
    check("unknown", frame(0x2b, 0, 0, b"grease"));
}

#[test]
fn what_browsers_and_grpc_do_goes_on_for_ever() {
    let _alone = heavy();
    let origin = Origin::scripted(|connection: &mut Connection| {
        while let Some(seen) = connection.request()? {
            let bytes: usize = seen.target().trim_start_matches('/').parse().unwrap_or(4);
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n"))?;
            connection.send(vec![b'x'; bytes])?;
        }
        Ok(())
    });
    let rempart = before(&origin);

    // Firefox of old: five PRIORITY frames for idle streams; then a thousand requests, of which three hundred are cancelled.
    let mut frames = connect(&rempart);
    let tree: Vec<u8> =
        [3, 5, 7, 9, 11].iter().flat_map(|&id| frame(PRIORITY, 0, id, &[0, 0, 0, 0, 200])).collect();
    frames.settle(&tree, |_| {}).unwrap();
    let mut answered = 0;
    let mut count = |frame: Frame| {
        answered += usize::from(frame.kind == DATA && frame.flags & END_STREAM != 0);
    };
    for page in 0..10u32 {
        let streams: Vec<u32> = (0..100).map(|i| 13 + 200 * page + 2 * i).collect();
        let begun: Vec<u8> = streams.iter().flat_map(|&id| get(id, HOST, "/")).collect();
        let reset: Vec<u8> = streams.iter().skip(70).flat_map(|&id| cancel(id)).collect();
        frames.settle(&begun, &mut count).unwrap();
        frames.settle(&reset, &mut count).unwrap();
    }
    frames.send(&get(9_001, HOST, "/")).unwrap();
    assert_eq!(frames.answer(9_001).unwrap(), b"xxxx");
    assert!(answered >= 200, "{answered} answered while pages were turned");

    // A keep-alive PING and a PRIORITY_UPDATE beside every request.
    for id in (9_003u32..11_003).step_by(2) {
        let update = [&id.to_be_bytes()[..], b"u=3"].concat();
        let beside = [frame(0x10, 0, 0, &update), frame(PING, 0, 0, b"keepaliv")].concat();
        frames.send(&[get(id, HOST, "/"), beside].concat()).unwrap();
        assert_eq!(frames.answer(id).unwrap(), b"xxxx");
    }

    // Two WINDOW_UPDATEs for every DATA frame of a large download.
    const LARGE: usize = 32 << 20;
    frames.send(&get(20_001, HOST, &format!("/{LARGE}"))).unwrap();
    let mut got = 0;
    while got < LARGE {
        let next = frames.receive().expect("the download goes on");
        assert!(!matches!(next.kind, RST_STREAM | GOAWAY), "{next:?} after {got}");
        if next.kind == DATA && !next.payload.is_empty() {
            got += next.payload.len();
            let size = next.payload.len() as u32;
            frames.send(&[window(0, size), window(20_001, size)].concat()).unwrap();
        }
    }

    // Two thousand small messages upwards.
    frames.send(&post(20_003, HOST, "/")).unwrap();
    for _ in 0..20 {
        frames.settle(&frame(DATA, 0, 20_003, b"\0\0\0\0\x02hi").repeat(100), |_| {}).unwrap();
    }
    frames.send(&frame(DATA, END_STREAM, 20_003, b"")).unwrap();
    assert_eq!(frames.answer(20_003).unwrap(), b"xxxx");
}
