//! Floods over HTTP/2 bounded: a budget for what one connection makes this side do besides requests and their bodies.
//!
//! The guard looks at frame headers as they come in and charges points for each frame that asks for work and brings nothing;
//! what is useful pays them back, and time does. Both clocks and credits are only looked at when a budget seems spent, so a
//! connection that behaves pays an addition per frame. The arithmetic is in docs/guides/attacks.md.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::io::Timer;
use crate::telemetry::metrics::Flood;

/// Points a connection may have spent on control frames; on streams it is what giving up all of them at once costs more.
const BUDGET: u32 = 50_000;
/// One point is forgiven per this many microseconds: 10,000 a second.
const MICROS_PER_POINT: u64 = 100;
/// A request that got its whole answer pays for this much.
const ANSWERED: u32 = 100;
/// A request its peer did not want to the end, besides its HEADERS and RST_STREAM.
const ABANDONED: u32 = 50;
/// This many bytes sent to the peer pay for one point of control frames: they are why it sends WINDOW_UPDATE and PING.
const BYTES_PER_POINT: u32 = 16;
/// A request given up by its client may run on at the origin; it counts as running for this long.
const ABANDONED_RUNS: Duration = Duration::from_secs(1);
/// Requests that run and requests given up, together, in multiples of the streams a client may have open.
const ABANDONED_SHARE: usize = 2;

const HEADERS: u32 = 20;
const CONTINUATION: u32 = 100;
const RESET: u32 = 5;
const SETTINGS: u32 = 500;
const GOAWAY: u32 = 500;
const PRIORITY: u32 = 5;
const PING: u32 = 5;
const UNKNOWN: u32 = 10;
const EMPTY_DATA: u32 = 100;
const TINY_DATA: u32 = 1;
/// DATA up to this many bytes is tiny; a gRPC message has five before it begins.
const TINY_DATA_BYTES: u32 = 16;
const WINDOW_UPDATE: u32 = 2;
const SMALL_WINDOW_UPDATE: u32 = 10;
/// A WINDOW_UPDATE below this makes for DATA frames whose header outweighs them.
const SMALL_INCREMENT: u32 = 64;

/// What a client sends before its first frame (RFC 9113 section 3.4).
const CLIENT_PREFACE: u32 = 24;
const FRAME_HEADER: usize = 9;
/// A frame header and an increment, the only payload that is looked at.
const WITH_INCREMENT: usize = FRAME_HEADER + 4;

/// Whose frames are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client of the edge.
    Client,
    /// An origin.
    Origin,
}

/// How a request ended, as far as its client is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The client got what it asked for, or not, but not by its own doing.
    Answered,
    /// The client gave it up, or made the stream fail.
    Abandoned,
    /// The same before anything had been done for it.
    Unserved,
}

/// Watches the frames of one peer.
#[derive(Debug)]
pub struct Guard {
    peer: Peer,
    /// Start of the frame at hand; `have` bytes of it have come.
    head: [u8; WITH_INCREMENT],
    have: u8,
    /// Bytes to come that are not looked at.
    skip: u32,
    /// For streams opened, given up and made to fail.
    streams: Budget,
    /// For everything else.
    control: Budget,
    /// Bytes sent since the control budget was settled.
    sent: u32,
    flood: Option<Flood>,
}

impl Guard {
    /// From the first byte of a connection that begins now, on which `streams` may be open at a time.
    pub fn new(peer: Peer, streams: u32, now: Instant) -> Self {
        let control = Budget { spent: 0, limit: BUDGET, settled: now };
        let limit = streams.saturating_mul(HEADERS + RESET + ABANDONED).saturating_add(BUDGET);
        let streams = Budget { limit, ..control };
        let skip = if peer == Peer::Client { CLIENT_PREFACE } else { 0 };
        let head = [0; WITH_INCREMENT];
        Self { peer, head, have: 0, skip, streams, control, sent: 0, flood: None }
    }

    /// Whose frames it watches.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Which kind of flood has spent a budget; the connection is to be closed then.
    pub fn flood(&self) -> Option<Flood> {
        self.flood
    }

    /// Bytes that came, in order and without gaps. `now` is asked when a budget seems spent, and not otherwise.
    pub fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Option<Flood> {
        while self.flood.is_none() && !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let missing = self.wanted() - usize::from(self.have);
            let target = self.head.iter_mut().skip(self.have.into()).take(missing);
            let taken = target.zip(bytes).map(|(place, byte)| *place = *byte).count();
            self.have += taken as u8;
            bytes = bytes.get(taken..).unwrap_or_default();
            if taken == missing && usize::from(self.have) == self.wanted() {
                self.frame(&now);
            }
        }
        self.flood
    }

    /// Bytes of this frame that are looked at, as far as is known.
    fn wanted(&self) -> usize {
        let is_window_update = matches!(self.head, [0, 0, 4, 0x8, ..]);
        if usize::from(self.have) >= FRAME_HEADER && is_window_update { WITH_INCREMENT } else { FRAME_HEADER }
    }

    /// Charges the frame whose start is at hand.
    fn frame(&mut self, now: &impl Fn() -> Instant) {
        const END_STREAM_OR_ACK: u8 = 0x1;
        let [l0, l1, l2, kind, flags, .., i0, i1, i2, i3] = self.head;
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        let increment = u32::from_be_bytes([i0 & 0x7f, i1, i2, i3]);
        self.skip = length - (self.have as usize - FRAME_HEADER) as u32;
        self.have = 0;
        let flagged = flags & END_STREAM_OR_ACK != 0;
        let (kind, points) = match kind {
            0x0 if flagged => return,
            0x0 if length == 0 => (Flood::Data, EMPTY_DATA),
            0x0 if length <= TINY_DATA_BYTES && self.peer == Peer::Client => (Flood::Data, TINY_DATA),
            0x0 => return,
            0x1 => (Flood::Headers, HEADERS),
            // PRIORITY_UPDATE (RFC 9218 section 7.1) is the second.
            0x2 | 0x10 => (Flood::Priorities, PRIORITY),
            0x3 => (Flood::Resets, RESET),
            0x4 if flagged => return,
            0x4 => (Flood::Settings, SETTINGS),
            0x6 => (Flood::Pings, PING),
            0x7 => (Flood::Goaways, GOAWAY),
            0x8 if length != 4 => return,
            0x8 if increment < SMALL_INCREMENT => (Flood::Windows, SMALL_WINDOW_UPDATE),
            0x8 => (Flood::Windows, WINDOW_UPDATE),
            0x9 => (Flood::Continuations, CONTINUATION),
            _ => (Flood::Unknown, UNKNOWN),
        };
        self.charge(kind, points, now);
    }

    fn charge(&mut self, kind: Flood, points: u32, now: &impl Fn() -> Instant) {
        let of_streams = matches!(kind, Flood::Headers | Flood::Continuations | Flood::Resets);
        let budget = if of_streams { &mut self.streams } else { &mut self.control };
        budget.spent = budget.spent.saturating_add(points);
        if budget.spent < budget.limit {
            return;
        }
        if !of_streams {
            budget.credit(self.sent / BYTES_PER_POINT);
            self.sent = 0;
        }
        budget.settle(now());
        if budget.spent >= budget.limit {
            self.flood = Some(kind);
        }
    }

    /// Bytes that were sent to the peer.
    pub fn wrote(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// A request has ended, or, from an origin, has begun to be answered.
    pub fn ended(&mut self, fate: Fate, now: impl Fn() -> Instant) {
        match fate {
            Fate::Answered => {
                self.streams.credit(ANSWERED);
                self.control.credit(ANSWERED);
            }
            Fate::Abandoned | Fate::Unserved => self.charge(Flood::Resets, ABANDONED, &now),
        }
    }
}

/// Points spent, and until when time has been counted in.
#[derive(Clone, Copy, Debug)]
struct Budget {
    spent: u32,
    limit: u32,
    settled: Instant,
}

impl Budget {
    fn credit(&mut self, points: u32) {
        self.spent = self.spent.saturating_sub(points);
    }

    /// Forgives what time forgives.
    fn settle(&mut self, now: Instant) {
        let micros = u64::try_from(now.duration_since(self.settled).as_micros()).unwrap_or(u64::MAX);
        let points = micros / MICROS_PER_POINT;
        self.settled += Duration::from_micros(points.saturating_mul(MICROS_PER_POINT));
        self.credit(u32::try_from(points).unwrap_or(u32::MAX));
    }
}

/// Requests given up by their client a moment ago. Resetting a stream frees its place with `h2` at once, while the origin
/// may still be working on it: without this, resets would buy concurrency.
#[derive(Default)]
pub struct Abandoned {
    count: usize,
    until: Option<Instant>,
    timer: Timer,
}

impl Abandoned {
    /// A request was given up. Counted from the first one on, so that all of them count for at most `ABANDONED_RUNS`.
    pub fn note(&mut self, now: impl Fn() -> Instant) {
        self.count += 1;
        self.until.get_or_insert_with(|| now() + ABANDONED_RUNS);
    }

    /// Ready when another request may begin beside `open` ones, where a client may have `limit` open.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, open: usize, limit: u32) -> Poll<()> {
        let Some(until) = self.until else { return Poll::Ready(()) };
        if open + self.count < limit as usize * ABANDONED_SHARE {
            return Poll::Ready(());
        }
        self.timer.poll(cx, until).map(|()| (self.count, self.until) = (0, None))
    }
}

#[cfg(test)]
mod tests;
