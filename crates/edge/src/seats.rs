//! The seats of a thread's connections: where each can be woken, what it is at, and which of them makes room when there is
//! none, or has to go when the process is short of resources.

use std::cell::{Cell, OnceCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

/// Seats looked at to find one that makes room.
const SAMPLE: usize = 32;
/// A connection is let be for so long after it went idle: most do something within that.
const LET_BE: Duration = Duration::from_secs(1);
/// The same after its client took something last; a slow line is seen to take something every few seconds only.
const LET_BE_STALLED: Duration = Duration::from_secs(3);
/// Connections of a thread whose clients do not read what they asked for, beyond which those that have not for longest end:
/// each may hold a connection of an origin, and origins have few.
const STALLED_MOST: usize = 512;
/// The same after it was accepted: who connects has something to say, and a hoard that comes fast must not be let be.
const LET_BE_UNUSED: Duration = Duration::from_millis(100);
/// Share of the seats, and least number of them, that is cleared at one time while resources are short.
const CLEARED_SHARE: usize = 16;
const CLEARED_LEAST: usize = 8;

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is shaking hands.
    Shaking,
    /// It has not sent a whole request yet.
    Fresh,
    /// It waits for another request.
    Idle,
    /// It has a request, or the beginning of one.
    Busy,
}

/// How a connection was asked to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leave {
    No,
    /// As soon as it has nothing to do.
    WhenIdle,
    /// Whatever it does.
    Now,
}

/// The seat of one connection.
#[derive(Debug)]
pub struct Seat {
    /// Number of the connection on its thread: the newest has the largest.
    pub number: u64,
    /// Where it comes from.
    pub address: Cell<IpAddr>,
    state: Cell<State>,
    since: Cell<Instant>,
    leave: Cell<Leave>,
    /// What its client had taken, and since when no more, while there is something to take.
    stalled: Cell<Option<(u64, Instant)>>,
    waker: OnceCell<Waker>,
}

impl Seat {
    /// For a connection accepted now.
    pub fn new(number: u64, address: IpAddr, shaking: bool, now: Instant) -> Self {
        Self {
            number,
            address: Cell::new(address),
            state: Cell::new(if shaking { State::Shaking } else { State::Fresh }),
            since: Cell::new(now),
            leave: Cell::new(Leave::No),
            stalled: Cell::new(None),
            waker: OnceCell::new(),
        }
    }

    /// To be called first in the connection's task, with the task's own waker.
    pub fn wake_with(&self, waker: &Waker) {
        // Called once; a second waker would be of the same task.
        crate::ignore(self.waker.set(waker.clone()));
    }

    /// The handshake is over.
    pub fn shaken(&self) {
        self.state.set(State::Fresh);
    }

    /// A request has come.
    pub fn busy(&self) {
        self.state.set(State::Busy);
    }

    /// It waits for the next request since then. A connection that has not sent its first one stays what it is.
    pub fn idle(&self, since: Instant) {
        if self.state.get() == State::Busy {
            self.state.set(State::Idle);
            self.since.set(since);
        }
    }

    /// Its client does not take what is there for it; `taken` tells how much it has by now.
    pub fn stall(&self, taken: u64, now: Instant) {
        if self.stalled.get().is_none_or(|(before, _)| before != taken) {
            self.stalled.set(Some((taken, now)));
        }
    }

    /// There is nothing for its client to take.
    pub fn flow(&self) {
        self.stalled.set(None);
    }

    /// When it was to leave, if it was asked to leave once it has nothing to do.
    pub fn left(&self) -> Option<Instant> {
        (self.leave.get() > Leave::No).then(|| self.since.get())
    }

    /// Whether it was asked to leave whatever it does.
    pub fn is_cleared(&self) -> bool {
        self.leave.get() == Leave::Now
    }

    fn ask(&self, leave: Leave) {
        self.leave.set(leave.max(self.leave.get()));
        self.waker.get().into_iter().for_each(Waker::wake_by_ref);
    }
}

/// All seats of a thread. Freed places are used again, so it grows to the largest number of connections and no further.
#[derive(Default)]
pub struct Seats {
    places: Vec<Option<Rc<Seat>>>,
    free: Vec<u32>,
}

impl Seats {
    /// Seats a connection; answers its place.
    pub fn insert(&mut self, seat: Rc<Seat>) -> u32 {
        if let Some(place) = self.free.pop()
            && let Some(held) = self.places.get_mut(place as usize)
        {
            *held = Some(seat);
            return place;
        }
        self.places.push(Some(seat));
        (self.places.len() - 1) as u32
    }

    /// Frees a place.
    pub fn remove(&mut self, place: u32) {
        if self.places.get_mut(place as usize).is_some_and(|held| held.take().is_some()) {
            self.free.push(place);
        }
    }

    /// Wakes the tasks of all connections, when something other than traffic concerns them.
    pub fn wake(&self) {
        self.places.iter().flatten().filter_map(|seat| seat.waker.get()).for_each(Waker::wake_by_ref);
    }

    /// Has one connection make room for another, out of a few looked at: first one that has never sent a whole request, of
    /// whoever has the most connections (`open` counts them); else the one idle for the longest time. With `shaking`, only one
    /// that is shaking hands. Answers what it was at; `None` when none of them can be asked.
    pub fn make_room(
        &self,
        shaking: bool,
        now: Instant,
        mut random: impl FnMut(u32) -> u32,
        open: impl Fn(IpAddr) -> usize,
    ) -> Option<State> {
        let bound = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        if bound == 0 {
            return None;
        }
        let mut best: Option<(u8, usize, Duration, &Rc<Seat>)> = None;
        for _ in 0..SAMPLE {
            let Some(Some(seat)) = self.places.get(random(bound) as usize) else { continue };
            let waited = now.saturating_duration_since(seat.since.get());
            let state = seat.state.get();
            let unused = matches!(state, State::Shaking | State::Fresh);
            let wanted = if shaking { state == State::Shaking } else { unused || state == State::Idle };
            if !wanted || waited < let_be(state) || seat.leave.get() > Leave::No {
                continue;
            }
            let rank = (u8::from(unused), if unused { open(seat.address.get()) } else { 0 }, waited);
            if best.is_none_or(|(class, open, longest, _)| rank > (class, open, longest)) {
                best = Some((rank.0, rank.1, rank.2, seat));
            }
        }
        let (.., seat) = best?;
        seat.ask(Leave::WhenIdle);
        Some(seat.state.get())
    }

    /// Clears a share of the seats: of connections without a request, those that have been without for the longest time; of
    /// those whose clients do not read, the same; and with `busy`, when there are no such, the newest of the others. Answers
    /// how many were asked to go.
    pub fn clear(&self, busy: bool, now: Instant) -> usize {
        let count = (self.places.len() / CLEARED_SHARE).max(CLEARED_LEAST);
        let staying = || self.places.iter().flatten().filter(|seat| seat.leave.get() < Leave::Now);
        let waiting = staying().filter(|seat| {
            let waited = now.saturating_duration_since(seat.since.get());
            let state = seat.state.get();
            state != State::Busy && seat.leave.get() == Leave::No && waited >= let_be(state)
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable_by_key(|seat| seat.since.get());
        waiting.truncate(count);
        waiting.iter().for_each(|seat| seat.ask(Leave::WhenIdle));
        let stalled = Self::clear_stalled(staying(), count, LET_BE_STALLED, now);
        if !busy || !waiting.is_empty() || stalled > 0 {
            return waiting.len() + stalled;
        }
        let mut newest: Vec<_> = staying().collect();
        newest.sort_unstable_by_key(|seat| std::cmp::Reverse(seat.number));
        newest.truncate(count);
        newest.iter().for_each(|seat| seat.ask(Leave::Now));
        newest.len()
    }
}

impl Seats {
    /// Ends what stands still beyond what a thread lets stand, longest first. The more there are, the less patience is had
    /// with each, since a hoard fills an origin within a second. Answers how many were asked to go.
    pub fn bound_stalled(&self, now: Instant) -> usize {
        let stalled = |seat: &&Rc<Seat>| seat.leave.get() < Leave::Now && seat.stalled.get().is_some();
        let count = self.places.iter().flatten().filter(stalled).count();
        let excess = count.saturating_sub(STALLED_MOST);
        if excess == 0 {
            return 0;
        }
        let share = STALLED_MOST as f64 / count as f64;
        let patience = LET_BE_STALLED.mul_f64(share * share);
        Self::clear_stalled(self.places.iter().flatten().filter(stalled), excess, patience, now)
    }

    /// Of connections whose clients have asked and do not read, those that have not for the longest time.
    fn clear_stalled<'a>(
        staying: impl Iterator<Item = &'a Rc<Seat>>,
        count: usize,
        patience: Duration,
        now: Instant,
    ) -> usize {
        let since = |seat: &&Rc<Seat>| seat.stalled.get().map(|(_, since)| since);
        let mut stalled: Vec<_> = staying
            .filter(|seat| since(seat).is_some_and(|since| now.saturating_duration_since(since) >= patience))
            .collect();
        stalled.sort_unstable_by_key(since);
        stalled.truncate(count);
        stalled.iter().for_each(|seat| seat.ask(Leave::Now));
        stalled.len()
    }
}

fn let_be(state: State) -> Duration {
    if matches!(state, State::Shaking | State::Fresh) { LET_BE_UNUSED } else { LET_BE }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A seat since so many seconds before `now`.
    fn seat(number: u64, address: u8, state: State, now: Instant, seconds: u64) -> Rc<Seat> {
        let since = now - Duration::from_secs(seconds);
        let seat = Seat::new(number, [127, 0, 0, address].into(), state == State::Shaking, since);
        seat.state.set(state);
        Rc::new(seat)
    }

    fn seated(seats: &[Rc<Seat>]) -> Seats {
        let mut all = Seats::default();
        for seat in seats {
            all.insert(seat.clone());
        }
        all
    }

    /// Looks at one place after the other.
    fn in_turn() -> impl FnMut(u32) -> u32 {
        let mut next = 0;
        move |bound| {
            next += 1;
            next % bound
        }
    }

    fn gone(seats: &[Rc<Seat>]) -> Vec<u64> {
        seats.iter().filter(|seat| seat.left().is_some()).map(|seat| seat.number).collect()
    }

    #[test]
    fn who_does_not_read_goes_before_who_is_busy() {
        let begun = Instant::now();
        let (between, end) = (begun + LET_BE_STALLED / 2, begun + LET_BE_STALLED);
        let seats: Vec<_> = (1..=20).map(|number| seat(number, 1, State::Busy, begun, 0)).collect();
        let all = seated(&seats);
        seats.iter().take(3).for_each(|seat| seat.stall(7, begun));
        seats[0].stall(8, between);
        seats[1].stall(7, between);
        seats[2].flow();
        assert_eq!(all.clear(true, end), 1, "one takes something now and then, one has everything");
        assert_eq!(gone(&seats), [2]);
        assert!(seats[1].is_cleared());
    }

    #[test]
    fn places_of_connections_that_are_gone_are_used_again() {
        let now = Instant::now();
        let [one, two] = std::array::from_fn(|_| Arc::new(Counting::default()));
        let place = |wakes: &Arc<Counting>| {
            let seat = seat(1, 1, State::Fresh, now, 0);
            seat.wake_with(&wakes.clone().into());
            seat
        };
        let mut seats = Seats::default();
        let first = seats.insert(place(&one));
        let second = seats.insert(place(&two));
        seats.wake();
        seats.remove(first);
        seats.remove(first);
        assert_eq!((seats.insert(place(&two)), seats.insert(place(&two))), (first, 2));
        seats.remove(second);
        seats.wake();
        assert_eq!([one.0.load(Ordering::Relaxed), two.0.load(Ordering::Relaxed)], [1, 3]);
    }

    #[test]
    fn who_never_asked_for_anything_makes_room_before_who_is_idle() {
        let now = Instant::now();
        let list = [
            seat(1, 1, State::Busy, now, 900),
            seat(2, 1, State::Idle, now, 50),
            seat(3, 1, State::Idle, now, 70),
            seat(4, 2, State::Fresh, now, 5),
            seat(5, 3, State::Fresh, now, 4),
            seat(6, 3, State::Shaking, now, 3),
            seat(7, 3, State::Fresh, now, 0),
        ];
        let seats = seated(&list);
        let open = |address: IpAddr| if address == IpAddr::from([127, 0, 0, 3]) { 9 } else { 1 };
        let mut order = Vec::new();
        while let Some(state) = seats.make_room(false, now, in_turn(), open) {
            let left = gone(&list);
            order.push((
                *left.iter().find(|left| !order.iter().any(|(seen, _)| seen == *left)).unwrap(),
                state,
            ));
        }
        use State::{Fresh, Idle, Shaking};
        assert_eq!(order, [(5, Fresh), (6, Shaking), (4, Fresh), (3, Idle), (2, Idle)]);
        assert_eq!(seats.make_room(true, now, in_turn(), open), None);
    }

    #[test]
    fn only_a_handshake_makes_room_for_a_handshake() {
        let now = Instant::now();
        let list = [seat(1, 1, State::Fresh, now, 9), seat(2, 1, State::Shaking, now, 2)];
        assert_eq!(seated(&list).make_room(true, now, in_turn(), |_| 1), Some(State::Shaking));
        assert_eq!(gone(&list), [2]);
        assert_eq!(Seats::default().make_room(false, now, in_turn(), |_| 1), None);
    }

    #[test]
    fn idle_ones_are_cleared_first_and_then_the_newest() {
        let now = Instant::now();
        let list: Vec<_> = (0..20)
            .map(|number| seat(number, 1, if number < 3 { State::Idle } else { State::Busy }, now, 5))
            .collect();
        let seats = seated(&list);
        assert_eq!((seats.clear(false, now), gone(&list)), (3, vec![0, 1, 2]));
        assert_eq!(seats.clear(false, now), 0, "busy ones stay while it is not critical");
        assert_eq!(seats.clear(true, now), CLEARED_LEAST);
        let cleared: Vec<_> = list.iter().filter(|seat| seat.is_cleared()).map(|seat| seat.number).collect();
        assert_eq!(cleared, (12..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_hoard_that_does_not_read_is_cut_down_to_what_may_stand() {
        let now = Instant::now();
        let most = STALLED_MOST as u64;
        let list: Vec<_> = (0..2 * most).map(|number| seat(number, 1, State::Busy, now, 9)).collect();
        let stall = |range: std::ops::Range<u64>, milliseconds: u64| {
            let since = now - Duration::from_millis(milliseconds);
            range.for_each(|number| list[number as usize].stall(1, since));
        };
        let seats = seated(&list);
        stall(0..most, 60_000);
        assert_eq!(seats.bound_stalled(now), 0, "so many may stand");
        stall(most..2 * most, 700);
        list[0].flow();
        assert_eq!(seats.bound_stalled(now), STALLED_MOST - 1);
        let cleared: Vec<_> = list.iter().filter(|seat| seat.is_cleared()).map(|seat| seat.number).collect();
        assert_eq!(cleared, (1..most).collect::<Vec<_>>(), "those that have stood longest");
        list[..most as usize].iter().for_each(|seat| seat.flow());
        stall(0..most, 100);
        assert_eq!(seats.bound_stalled(now), 0, "nobody has stood for long enough");
    }

    #[test]
    fn a_first_request_is_waited_for_as_a_first_request() {
        let now = Instant::now();
        let seat = seat(1, 1, State::Shaking, now, 5);
        seat.shaken();
        seat.idle(now);
        assert_eq!(seat.state.get(), State::Fresh);
        seat.busy();
        seat.idle(now);
        assert_eq!((seat.state.get(), seat.since.get()), (State::Idle, now));
    }
}
