//! A request body held to its site's limits: size, time between two pieces, and rate. Counts what it lets through.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::connection::Connection;
use crate::message::{Body, BodyError, BodyLength, BodySource, Fill, HeaderList};
use crate::pace::{Pace, PaceLimit};

/// Wraps a request body.
pub struct LimitedBody {
    body: Body,
    left: Option<u64>,
    pace: Pace,
    connection: Rc<Connection>,
    received: Rc<Cell<u64>>,
    failure: Rc<Cell<Option<BodyError>>>,
}

impl LimitedBody {
    /// At most `bytes`, no slower than `pace`, in which the requests of its connection share. `received` counts; `failure` tells why it stopped.
    pub fn new(
        body: Body,
        bytes: Option<u64>,
        pace: PaceLimit,
        connection: Rc<Connection>,
        received: Rc<Cell<u64>>,
        failure: Rc<Cell<Option<BodyError>>>,
    ) -> Self {
        Self { body, left: bytes, pace: Pace::new(pace), connection, received, failure }
    }

    fn count(&mut self, count: usize) {
        self.received.set(self.received.get() + count as u64);
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
    }

    fn fail(&self, error: BodyError) -> Poll<Result<Fill, BodyError>> {
        self.failure.set(Some(error));
        Poll::Ready(Err(error))
    }
}

impl BodySource for LimitedBody {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        match self.body.poll_fill(cx) {
            Poll::Ready(Ok(Fill::Data)) => {
                self.pace.pause();
                if self.left.is_some_and(|left| self.body.chunk().len() as u64 > left) {
                    return self.fail(BodyError::TooLarge);
                }
                Poll::Ready(Ok(Fill::Data))
            }
            Poll::Ready(Ok(Fill::End)) => Poll::Ready(Ok(Fill::End)),
            Poll::Ready(Err(error)) => self.fail(error),
            Poll::Pending => {
                // What the origin has not taken yet is not waited for, so its slowness is not the client's.
                ready!(self.pace.poll(cx, self.received.get(), self.connection.sharers.get()));
                self.fail(BodyError::TimedOut)
            }
        }
    }

    fn chunk(&self) -> &[u8] {
        self.body.chunk()
    }

    fn consume(&mut self, count: usize) {
        self.count(count);
        self.body.consume(count);
    }

    fn take(&mut self, limit: usize) -> Bytes {
        let piece = self.body.take(limit);
        self.count(piece.len());
        piece
    }

    fn trailers(&mut self) -> Option<HeaderList> {
        self.body.trailers()
    }

    fn length(&self) -> BodyLength {
        self.body.length()
    }
}
