//! A body that comes out compressed: one output buffer, nothing held back when the source has nothing at hand.

use std::task::{Context, Poll};

use super::coder::{Coder, CoderError, Done, Step};
use super::{Place, head};
use crate::message::{Body, BodyError, BodyLength, BodySource, Fill, HeaderList};

/// Bytes of output made at once.
const OUTPUT: usize = 16 << 10;

/// Bytes of input between two turns of the thread's other connections: less than a millisecond with every coding.
const INPUT_IN_ONE_GO: usize = 64 << 10;

/// Wraps a body.
pub struct Compressed {
    source: Body,
    coder: Coder,
    state: State,
    output: Box<[u8]>,
    /// What of `output` is made and not consumed.
    start: usize,
    end: usize,
    /// Input taken since other connections had their turn.
    taken: usize,
    /// Whether the coder holds input that was not flushed.
    holds: bool,
    _place: Place,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    Flushing,
    Finishing,
    Ended,
    Failed(BodyError),
}

impl Compressed {
    /// Compresses `source` with `coder`, in the memory of `place`.
    pub fn new(source: Body, coder: Coder, place: Place) -> Self {
        Self {
            source,
            coder,
            state: State::Reading,
            output: vec![0; OUTPUT].into_boxed_slice(),
            start: 0,
            end: 0,
            taken: 0,
            holds: false,
            _place: place,
        }
    }

    /// Hands the source's bytes to the coder. Pending when the source is, or when others should have their turn.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.taken >= INPUT_IN_ONE_GO {
            self.taken = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.source.poll_fill(cx) {
            Poll::Ready(Ok(Fill::Data)) => {
                let chunk = self.source.chunk();
                let piece = chunk.get(..INPUT_IN_ONE_GO - self.taken).unwrap_or(chunk);
                let done = self.coder.step(piece, &mut self.output, Step::Write);
                if let Some((read, _)) = self.made(done) {
                    self.source.consume(read);
                    self.taken += read;
                    self.holds = true;
                }
            }
            Poll::Ready(Ok(Fill::End)) => self.state = State::Finishing,
            Poll::Ready(Err(error)) => self.state = State::Failed(error),
            Poll::Pending if self.holds => {
                self.holds = false;
                self.state = State::Flushing;
            }
            Poll::Pending => {
                self.taken = 0;
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Lets the coder hand out what it holds, until all of it is out; then `next`.
    fn drain(&mut self, step: Step, next: State) {
        let done = self.coder.step(&[], &mut self.output, step);
        if let Some((_, true)) = self.made(done) {
            self.state = next;
        }
    }

    /// Takes what a step made. A coder that refuses ends the body as cut: half of one must not look whole.
    fn made(&mut self, done: Result<Done, CoderError>) -> Option<(usize, bool)> {
        match done {
            Ok(done) => {
                (self.start, self.end) = (0, done.written);
                Some((done.read, done.whole))
            }
            Err(error) => {
                tracing::error!(%error, "a response could not be compressed to its end");
                self.state = State::Failed(BodyError::Cut);
                None
            }
        }
    }
}

impl BodySource for Compressed {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        // Ends: each turn takes input, of which there is a limit, or moves the state on, or makes output.
        while self.start == self.end {
            match self.state {
                State::Reading => std::task::ready!(self.read(cx)),
                State::Flushing => self.drain(Step::Flush, State::Reading),
                State::Finishing => self.drain(Step::Finish, State::Ended),
                State::Ended => return Poll::Ready(Ok(Fill::End)),
                State::Failed(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(Fill::Data))
    }

    fn chunk(&self) -> &[u8] {
        self.output.get(self.start..self.end).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }

    fn trailers(&mut self) -> Option<HeaderList> {
        self.source.trailers().map(head::trailers)
    }

    fn length(&self) -> BodyLength {
        BodyLength::Unknown
    }

    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        self.source.poll_progress(cx);
    }
}
