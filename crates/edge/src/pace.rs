//! Minimum rates: a peer that is waited for has a credit of time, which waiting spends and bytes earn back. No clock is read
//! and no timer armed while bytes flow.

use std::num::NonZeroU64;
use std::task::{Context, Poll};
use std::time::Duration;

use snapshot::generation::ConnectionLimits;
use tokio::time::Instant;

use crate::io::Timer;
use crate::seats::Seat;

/// Bytes the kernel takes of a response beyond what is on its way to the client. Without a bound a client that reads slowly
/// would seem to stand still: megabytes would have to drain before the kernel takes more (tcp(7), TCP_NOTSENT_LOWAT).
const UNSENT: u32 = 128 * 1024;

/// The least a peer has to do while it is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceLimit {
    /// How long it may do nothing, and how far it may fall behind the rate.
    pub pause: Duration,
    /// Bytes per second on average; `None` asks for any byte within each pause.
    pub rate: Option<NonZeroU64>,
}

/// What a client is held to while it takes a response.
pub trait WritePace {
    /// For a response of this kind: one that lasts (a tunnel, events, gRPC) has no rate, only pauses.
    fn write_pace(&self, lasting: bool) -> PaceLimit;
}

impl WritePace for ConnectionLimits {
    fn write_pace(&self, lasting: bool) -> PaceLimit {
        PaceLimit { pause: self.write, rate: self.write_rate.filter(|_| !lasting) }
    }
}

/// The arithmetic: no clock, no timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Credit {
    limit: PaceLimit,
    left: Duration,
}

impl Credit {
    fn full(limit: PaceLimit) -> Self {
        Self { limit, left: limit.pause }
    }

    fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }

    /// Earns the time that these bytes may take at the rate, of which this peer's share is one part in `sharers`; never more
    /// than the pause, so that a fast beginning does not pay for an endless end.
    fn earn(&mut self, bytes: u64, sharers: u32) {
        let Some(rate) = self.limit.rate else {
            if bytes > 0 {
                self.left = self.limit.pause;
            }
            return;
        };
        const NANOS_PER_SECOND: u128 = 1_000_000_000;
        let nanos =
            u128::from(bytes) * NANOS_PER_SECOND * u128::from(sharers.max(1)) / u128::from(rate.get());
        let earned = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.left = self.left.saturating_add(earned).min(self.limit.pause);
    }
}

/// Holds one peer, in one direction, to a limit.
pub struct Pace {
    credit: Credit,
    timer: Timer,
    /// Since when it is waited for, as far as that has not been charged.
    since: Option<Instant>,
    /// Bytes that have been credited.
    moved: u64,
}

impl Pace {
    /// With all of its credit.
    pub fn new(limit: PaceLimit) -> Self {
        Self { credit: Credit::full(limit), timer: Timer::default(), since: None, moved: 0 }
    }

    /// The peer is waited for, has moved so many bytes from the beginning, and shares its connection with so many others,
    /// itself included. Ready when it has been too slow.
    pub fn poll(&mut self, cx: &mut Context<'_>, moved: u64, sharers: u32) -> Poll<()> {
        let deadline = self.wait(Instant::now(), moved, sharers);
        deadline.map_or(Poll::Pending, |deadline| self.timer.poll(cx, deadline))
    }

    /// Until when it may be waited for as things stand; `None` is further than the clock goes.
    fn wait(&mut self, now: Instant, moved: u64, sharers: u32) -> Option<Instant> {
        if let Some(since) = self.since.replace(now) {
            self.credit.spend(now.saturating_duration_since(since));
        }
        // Earned last: what has come at the end of a long wait counts, even if it comes with the timer.
        self.credit.earn(moved.saturating_sub(self.moved), sharers);
        self.moved = self.moved.max(moved);
        now.checked_add(self.credit.left)
    }

    /// The peer has done something: it is not waited for until the next `poll`, and the time until then is not its own.
    pub fn pause(&mut self) {
        if self.since.is_some() {
            self.stop(Instant::now());
        }
    }

    fn stop(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.credit.spend(now.saturating_duration_since(since));
        }
    }

    /// The peer has done all that there was to do, and begins anew.
    pub fn rest(&mut self, moved: u64) {
        if self.since.take().is_some() {
            self.credit = Credit::full(self.credit.limit);
        }
        self.moved = moved;
    }
}

/// The client has taken all that was there for it, if it was ever waited for.
pub fn rest(pace: &mut Option<Pace>, moved: u64, seat: &Seat) {
    if let Some(pace) = pace {
        pace.rest(moved);
        seat.flow();
    }
}

/// Makes the connections accepted from this socket tell early that their clients read: they inherit the setting.
pub fn limit_unsent(listener: &std::net::TcpListener) {
    if let Err(error) = socket2::SockRef::from(listener).set_tcp_notsent_lowat(UNSENT) {
        // Slow readers then seem to stand still for longer than they do.
        tracing::debug!(%error, "the kernel does not bound what it holds for clients");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limit(pause: u64, rate: u64) -> PaceLimit {
        PaceLimit { pause: SECOND * pause as u32, rate: NonZeroU64::new(rate) }
    }

    /// Seconds a peer lasts that moves `bytes` every `every` seconds; `None` when it lasts for an hour.
    fn lasts(limit: PaceLimit, bytes: u64, every: u64, sharers: u32) -> Option<u64> {
        let mut credit = Credit::full(limit);
        for second in 1..3600 {
            if credit.left <= SECOND {
                return Some(second);
            }
            credit.spend(SECOND);
            if second % every == 0 {
                credit.earn(bytes, sharers);
            }
        }
        None
    }

    #[test]
    fn who_is_too_slow_is_cut_and_who_keeps_up_is_not() {
        for (pause, rate, bytes, every, sharers, expected) in [
            // Nothing at all, and a byte now and then.
            (60, 512, 0, 1, 1, Some(60)),
            (60, 512, 1, 1, 1, Some(61)),
            (60, 512, 1, 59, 1, Some(61)),
            // Half of the rate lasts twice as long; just the rate lasts.
            (60, 512, 256, 1, 1, Some(119)),
            (60, 512, 512, 1, 1, None),
            // A phone at 2 KiB/s, in pieces; long pauses between large ones.
            (60, 512, 2_048, 1, 1, None),
            (60, 512, 60_000, 30, 1, None),
            (60, 512, 1 << 30, 61, 1, Some(60)),
            // A hundred streams at 20 bytes each move more than the rate together; at 2 they do not.
            (60, 512, 20, 1, 100, None),
            (60, 512, 2, 1, 100, Some(98)),
            // Without a rate any byte will do.
            (60, 0, 1, 59, 1, None),
            (60, 0, 1, 61, 1, Some(60)),
        ] {
            let got = lasts(limit(pause, rate), bytes, every, sharers);
            assert_eq!(got, expected, "{bytes} bytes every {every} s of {sharers}");
        }
    }

    #[test]
    fn a_fast_beginning_buys_no_more_than_the_pause() {
        let mut credit = Credit::full(limit(60, 512));
        credit.earn(u64::MAX, u32::MAX);
        assert_eq!(credit.left, SECOND * 60);
    }

    #[test]
    fn only_waiting_is_charged() {
        let mut pace = Pace::new(limit(10, 100));
        let (mut now, mut moved) = (Instant::now(), 0);
        // Six seconds of waiting, then bytes worth six seconds, then an hour in which somebody else is waited for.
        for _ in 0..5 {
            let deadline = pace.wait(now, moved, 1).unwrap();
            assert!(deadline > now + SECOND * 6, "{:?} left", deadline - now);
            now += SECOND * 6;
            moved += 600;
            pace.stop(now);
            now += SECOND * 3600;
        }
        assert_eq!(pace.wait(now, moved, 1), Some(now + SECOND * 10));
        assert_eq!(
            pace.wait(now + SECOND * 4, moved, 1),
            Some(now + SECOND * 10),
            "asked again, the same end"
        );
        assert_eq!(pace.wait(now + SECOND * 4, moved + 100, 1), Some(now + SECOND * 11), "a second's worth");
        pace.rest(moved);
        now += SECOND * 5;
        assert_eq!(pace.wait(now, moved, 1), Some(now + SECOND * 10), "a rest gives all of it back");
    }
}
