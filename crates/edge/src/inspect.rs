//! The beginning of a request's body, read before it is sent on, for rules that look into bodies.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use snapshot::generation::INSPECTED_PER_THREAD;

use crate::message::{Body, BodyError, BodyLength, BodySource, Fill, HeaderList};
use crate::rules::facts::Inspected;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Room for the beginning of one body, given back when it is dropped.
struct Room(usize);

impl Room {
    fn take(bytes: usize) -> Option<Self> {
        let held = HELD.get() + bytes;
        // Bodies that come when it is used up are not looked into.
        (held <= INSPECTED_PER_THREAD).then(|| {
            HELD.set(held);
            Self(bytes)
        })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(self.0));
    }
}

/// Reads the beginning of a body, at most `limit` bytes, and puts it back in front of the rest. `None` when there is no room to
/// hold it: what it holds is not known then. A client that sends nothing is up to the limits of the body itself.
pub async fn beginning(body: &mut Body, limit: usize) -> Option<Inspected> {
    let length = body.length();
    let size = match length {
        BodyLength::Absent => Some(0),
        BodyLength::Exact(bytes) => Some(bytes),
        BodyLength::Unknown => None,
    };
    match body {
        Body::Empty => return Some(Inspected::new(Bytes::new(), false, Some(0))),
        Body::Full(bytes) => {
            let prefix = bytes.slice(..bytes.len().min(limit));
            return Some(Inspected::new(prefix.clone(), prefix.len() < bytes.len(), size));
        }
        Body::Stream(_) => {}
    }
    let wanted = size.map_or(limit, |size| usize::try_from(size).unwrap_or(limit).min(limit));
    let room = Room::take(wanted)?;
    let mut held = BytesMut::new();
    let mut end = false;
    let mut failed = None;
    while held.len() < limit {
        match poll_fn(|cx| body.poll_fill(cx)).await {
            Ok(Fill::Data) => {
                let piece = body.take(limit - held.len());
                held.extend_from_slice(&piece);
            }
            Ok(Fill::End) => {
                end = true;
                break;
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let prefix = held.freeze();
    let known = size.or(end.then_some(prefix.len() as u64));
    let truncated = !end && known.is_none_or(|size| size > prefix.len() as u64);
    let rest = std::mem::take(body);
    *body = Body::stream(Replay { front: prefix.clone(), rest, length, failed, _room: room });
    Some(Inspected::new(prefix, truncated, known))
}

/// A body whose beginning has been read already.
struct Replay {
    front: Bytes,
    rest: Body,
    length: BodyLength,
    /// Why reading its beginning ended; whoever reads on hears of it in its place.
    failed: Option<BodyError>,
    _room: Room,
}

impl BodySource for Replay {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        if !self.front.is_empty() {
            return Poll::Ready(Ok(Fill::Data));
        }
        if let Some(error) = self.failed {
            return Poll::Ready(Err(error));
        }
        let fill = ready!(self.rest.poll_fill(cx));
        Poll::Ready(fill)
    }

    fn chunk(&self) -> &[u8] {
        if self.front.is_empty() { self.rest.chunk() } else { &self.front }
    }

    fn consume(&mut self, count: usize) {
        if self.front.is_empty() {
            self.rest.consume(count);
        } else {
            drop(self.front.split_to(count.min(self.front.len())));
        }
    }

    fn take(&mut self, limit: usize) -> Bytes {
        if self.front.is_empty() {
            return self.rest.take(limit);
        }
        let count = limit.min(self.front.len());
        self.front.split_to(count)
    }

    fn trailers(&mut self) -> Option<HeaderList> {
        self.rest.trailers()
    }

    fn length(&self) -> BodyLength {
        self.length
    }

    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        self.rest.poll_progress(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its pieces one by one, a pause before each.
    struct Pieces(Vec<Result<&'static [u8], BodyError>>, bool);

    impl BodySource for Pieces {
        fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
            if !std::mem::replace(&mut self.1, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(match self.0.first() {
                None => Ok(Fill::End),
                Some(Ok(_)) => Ok(Fill::Data),
                Some(Err(error)) => Err(*error),
            })
        }

        fn chunk(&self) -> &[u8] {
            self.0.first().and_then(|piece| piece.ok()).unwrap_or_default()
        }

        fn consume(&mut self, count: usize) {
            let Some(Ok(piece)) = self.0.first_mut() else { return };
            *piece = &piece[count..];
            if piece.is_empty() {
                crate::ignore(self.0.remove(0));
                self.1 = false;
            }
        }

        fn length(&self) -> BodyLength {
            BodyLength::Unknown
        }
    }

    async fn read(mut body: Body) -> (Vec<u8>, Option<BodyError>) {
        let mut all = Vec::new();
        loop {
            match poll_fn(|cx| body.poll_fill(cx)).await {
                Ok(Fill::Data) => all.extend_from_slice(&body.take(3)),
                Ok(Fill::End) => return (all, None),
                Err(error) => return (all, Some(error)),
            }
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn what_was_looked_at_is_sent_on_whole() {
        run(async {
            for (limit, seen, truncated, size) in
                [(4, "abcd", true, None), (6, "abcdef", true, None), (100, "abcdefghi", false, Some(9))]
            {
                let mut body = Body::stream(Pieces(vec![Ok(b"abc"), Ok(b"def"), Ok(b"ghi")], false));
                let inspected = beginning(&mut body, limit).await.unwrap();
                assert_eq!(&inspected.prefix[..], seen.as_bytes(), "{limit}");
                assert_eq!((inspected.truncated, inspected.size), (truncated, size), "{limit}");
                assert_eq!(read(body).await, (b"abcdefghi".to_vec(), None));
            }
        });
    }

    #[test]
    fn a_body_that_breaks_off_breaks_off_behind_what_was_there() {
        run(async {
            let mut body = Body::stream(Pieces(vec![Ok(b"abc"), Err(BodyError::Cut)], false));
            let inspected = beginning(&mut body, 100).await.unwrap();
            assert!(inspected.truncated && inspected.size.is_none());
            assert_eq!(read(body).await, (b"abc".to_vec(), Some(BodyError::Cut)));
        });
    }

    #[test]
    fn without_room_nothing_is_read() {
        run(async {
            let rooms: Vec<Room> = (0..64).map(|_| Room::take(1 << 20).unwrap()).collect();
            let mut body = Body::stream(Pieces(vec![Ok(b"abc")], false));
            assert!(beginning(&mut body, 1).await.is_none());
            assert_eq!(read(body).await, (b"abc".to_vec(), None));
            drop(rooms);
            let mut body = Body::stream(Pieces(vec![Ok(b"abc")], false));
            assert!(beginning(&mut body, 1).await.is_some());
        });
    }
}
