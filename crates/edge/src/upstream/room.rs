//! How many connections one edge thread may have to an origin, and who waits until there is room for another.
//!
//! What becomes free is handed to the first that waits, not left for whoever comes first: nobody is overtaken, and nobody is
//! forgotten. What has been handed to somebody who has left meanwhile goes on to the next when it is dropped.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::failure::Failure;
use crate::h1::client::OriginConnection;
use crate::h2::client::{SharedConnection, StreamGuard};

/// Requests that wait for one HTTP/2 connection to be opened; as many streams nearly every server allows (RFC 9113 section
/// 6.5.2 asks for no fewer).
const STREAMS_EXPECTED: usize = 100;

/// An origin's connections on one edge thread.
#[derive(Default)]
pub struct Room {
    /// Connections allowed, by the generation asked last.
    most: Cell<usize>,
    open: Cell<usize>,
    waiting: RefCell<VecDeque<Waiter>>,
    /// The HTTP/2 connection begun last, while it is being opened.
    opening: RefCell<Option<Rc<Opening>>>,
    /// Whether the origin chose HTTP/2 when it was last asked; `None` while nobody knows.
    multiplexes: Cell<Option<bool>>,
}

struct Waiter {
    grant: oneshot::Sender<Grant>,
    /// Whether a stream of a shared connection will do.
    streams: bool,
}

/// What a request has waited for.
pub enum Grant {
    /// Another request is done with this connection. It may not fit, but its permit does.
    Connection(OriginConnection),
    /// A stream on a connection that others use, too; only for those who can use one.
    Stream(Rc<SharedConnection>, StreamGuard),
    /// A connection may be opened.
    Permit(Permit),
}

/// Why a request has waited in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many as may wait do.
    Full,
    /// Its time was over.
    Late,
}

/// One open connection, counted until this is dropped.
pub struct Permit(Rc<Room>);

impl Drop for Permit {
    fn drop(&mut self) {
        let room = &self.0;
        room.open.set(room.open.get().saturating_sub(1));
        room.settle();
    }
}

impl Permit {
    /// Where it counts.
    pub fn room(&self) -> &Rc<Room> {
        &self.0
    }
}

impl Room {
    /// Counts one more connection in, of `most`; `None` when there is no room.
    pub fn enter(self: &Rc<Self>, most: usize) -> Option<Permit> {
        self.most.set(most);
        // A reload may have made room for some who wait.
        self.settle();
        self.admit()
    }

    fn admit(self: &Rc<Self>) -> Option<Permit> {
        (self.open.get() < self.most.get()).then(|| {
            self.open.set(self.open.get() + 1);
            Permit(self.clone())
        })
    }

    /// Gives room there is to those who wait.
    fn settle(self: &Rc<Self>) {
        while self.open.get() < self.most.get() {
            let Some(waiter) = self.next(|_| true) else { return };
            if let Some(permit) = self.admit() {
                // One that has left has dropped it by now, which counts it out again.
                crate::ignore(waiter.send(Grant::Permit(permit)).map_err(drop));
            }
        }
    }

    /// Whether anybody waits, or did a moment ago.
    pub fn is_awaited(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Takes the first out of the queue that is still there and suits.
    fn next(&self, suits: impl Fn(&Waiter) -> bool) -> Option<oneshot::Sender<Grant>> {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(at) = waiting.iter().position(&suits) {
            let waiter = waiting.remove(at)?;
            if !waiter.grant.is_closed() {
                return Some(waiter.grant);
            }
        }
        None
    }

    /// Gives a connection to the first that waits; answers with it when nobody does.
    pub fn offer(&self, connection: OriginConnection) -> Option<OriginConnection> {
        let Some(waiter) = self.next(|_| true) else { return Some(connection) };
        match waiter.send(Grant::Connection(connection)) {
            Err(Grant::Connection(connection)) => Some(connection),
            _ => None,
        }
    }

    /// Gives streams of a connection, as far as it has room, to those who wait and can use one.
    pub fn offer_streams(&self, shared: &Rc<SharedConnection>) {
        while self.waiting.borrow().iter().any(|waiter| waiter.streams) {
            let Some(stream) = shared.reserve() else { return };
            let Some(waiter) = self.next(|waiter| waiter.streams) else { return };
            crate::ignore(waiter.send(Grant::Stream(shared.clone(), stream)).map_err(drop));
        }
    }

    /// Waits in the queue, which takes `queue` requests at most, for so long. `streams` tells whether a stream will do.
    pub async fn wait(&self, streams: bool, queue: usize, limit: Duration) -> Result<Grant, Refused> {
        let (grant, granted) = oneshot::channel();
        {
            let mut waiting = self.waiting.borrow_mut();
            if waiting.len() >= queue {
                // Who has left may still stand there.
                waiting.retain(|waiter| !waiter.grant.is_closed());
            }
            if waiting.len() >= queue {
                return Err(Refused::Full);
            }
            waiting.push_back(Waiter { grant, streams });
        }
        match timeout(limit, granted).await {
            Ok(Ok(grant)) => Ok(grant),
            Ok(Err(_)) | Err(_) => Err(Refused::Late),
        }
    }

    /// The connection being opened that one more request can wait for: none where the origin is known not to share any.
    pub fn opening(&self) -> Option<Rc<Opening>> {
        let opening = self.opening.borrow().clone()?;
        (self.multiplexes.get() != Some(false) && opening.waiting.get() < STREAMS_EXPECTED).then_some(opening)
    }

    /// A connection is being opened that may become a shared one; over when the guard is dropped, at the latest when it is known
    /// how many streams it may have.
    pub fn begin_opening(self: &Rc<Self>) -> OpeningGuard {
        let opening = Rc::new(Opening::default());
        self.opening.replace(Some(opening.clone()));
        OpeningGuard { room: self.clone(), opening }
    }
}

/// A connection being opened that others wait for.
#[derive(Default)]
pub struct Opening {
    done: Notify,
    failed: Cell<Option<Failure>>,
    waiting: Cell<usize>,
}

impl Opening {
    /// Waits until it is open, or abandoned by the request it was for; fails like it, or at `deadline`.
    pub async fn wait(&self, deadline: Instant) -> Result<(), Failure> {
        let done = self.done.notified();
        self.waiting.set(self.waiting.get() + 1);
        timeout_at(deadline, done).await.map_err(|_| Failure::OriginConnectTimeout)?;
        self.failed.get().map_or(Ok(()), Err)
    }
}

/// Tells those who wait when it is dropped.
pub struct OpeningGuard {
    room: Rc<Room>,
    opening: Rc<Opening>,
}

impl OpeningGuard {
    /// Notes whether the origin chose HTTP/2.
    pub fn learn(&self, multiplexes: bool) {
        self.room.multiplexes.set(Some(multiplexes));
    }

    /// It has failed, for everybody who waits.
    pub fn fail(&self, failure: Failure) {
        self.opening.failed.set(Some(failure));
    }
}

impl Drop for OpeningGuard {
    fn drop(&mut self) {
        let mut latest = self.room.opening.borrow_mut();
        if latest.as_ref().is_some_and(|latest| Rc::ptr_eq(latest, &self.opening)) {
            *latest = None;
        }
        drop(latest);
        self.opening.done.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
