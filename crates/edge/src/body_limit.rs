//! A request body held to its site's limits: size, and time between two pieces. Counts what it lets through.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::io::Idle;
use crate::message::{Body, BodyError, BodyLength, BodySource, Fill, HeaderList};

/// Wraps a request body.
pub struct LimitedBody {
    body: Body,
    left: Option<u64>,
    limit: Duration,
    idle: Idle,
    received: Rc<Cell<u64>>,
    failure: Rc<Cell<Option<BodyError>>>,
}

impl LimitedBody {
    /// At most `bytes`, at most `limit` between two pieces. `received` counts; `failure` tells why it stopped.
    pub fn new(
        body: Body,
        bytes: Option<u64>,
        limit: Duration,
        received: Rc<Cell<u64>>,
        failure: Rc<Cell<Option<BodyError>>>,
    ) -> Self {
        Self { body, left: bytes, limit, idle: Idle::default(), received, failure }
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
                self.idle.progress();
                if self.left.is_some_and(|left| self.body.chunk().len() as u64 > left) {
                    return self.fail(BodyError::TooLarge);
                }
                Poll::Ready(Ok(Fill::Data))
            }
            Poll::Ready(Ok(Fill::End)) => Poll::Ready(Ok(Fill::End)),
            Poll::Ready(Err(error)) => self.fail(error),
            Poll::Pending if self.idle.poll(cx, self.limit).is_ready() => self.fail(BodyError::TimedOut),
            Poll::Pending => Poll::Pending,
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
