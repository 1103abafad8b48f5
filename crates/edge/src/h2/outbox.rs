//! What the streams of one connection may have on its way to a client together, however wide its windows are.
//!
//! Flow control bounds each stream by what the client grants. A client that grants everything and reads nothing would have a
//! full send buffer held for every stream it may open; this bounds their sum, and lets them take turns.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// Bytes of DATA handed to `h2` after which streams wait until the transport has taken everything.
const ROOM: usize = 1024 * 1024;

/// Counts what has been handed to `h2` since it was last known to hold nothing.
#[derive(Debug, Default)]
pub struct Outbox {
    queued: Cell<usize>,
    /// Grows by one whenever everything has been taken.
    round: Cell<u64>,
    /// Streams that wait, in the order they came; one entry for each.
    waiting: RefCell<Vec<Waker>>,
}

/// A stream's place among those that wait: in which round, and where.
#[derive(Debug, Default)]
pub struct Place(Option<(u64, usize)>);

impl Outbox {
    /// Ready when a stream may hand over more.
    pub fn poll_room(&self, cx: &Context<'_>, place: &mut Place) -> Poll<()> {
        if self.queued.get() < ROOM {
            return Poll::Ready(());
        }
        let (round, mut waiting) = (self.round.get(), self.waiting.borrow_mut());
        let index = place.0.filter(|(of, _)| *of == round).map(|(_, index)| index);
        if let Some(held) = index.and_then(|index| waiting.get_mut(index)) {
            held.clone_from(cx.waker());
        } else {
            place.0 = Some((round, waiting.len()));
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Bytes were handed over.
    pub fn queue(&self, count: usize) {
        self.queued.set(self.queued.get() + count);
    }

    /// The transport has taken everything: whoever waited goes on, first come, first served. True when somebody did.
    pub fn emptied(&self) -> bool {
        self.queued.set(0);
        if self.waiting.borrow().is_empty() {
            return false;
        }
        self.round.set(self.round.get() + 1);
        self.waiting.take().into_iter().for_each(Waker::wake);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_wait_once_each_until_everything_is_taken() {
        let (outbox, mut place) = (Outbox::default(), Place::default());
        let cx = Context::from_waker(Waker::noop());
        outbox.queue(ROOM - 1);
        assert!(outbox.poll_room(&cx, &mut place).is_ready());
        assert!(!outbox.emptied());
        outbox.queue(ROOM);
        for _ in 0..3 {
            assert!(outbox.poll_room(&cx, &mut place).is_pending());
        }
        assert_eq!(outbox.waiting.borrow().len(), 1);
        assert!(outbox.emptied());
        assert!(outbox.poll_room(&cx, &mut place).is_ready());
        outbox.queue(ROOM);
        assert!(outbox.poll_room(&cx, &mut place).is_pending());
        assert_eq!(outbox.waiting.borrow().len(), 1);
    }
}
