//! Large bodies between two plain sockets: through a pipe, inside the kernel, without ever being copied into this process.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes still to come from which a pipe is worth its two system calls more.
pub const WORTHWHILE: u64 = 64 * 1024;
/// Bytes asked for in one go, and the size a pipe is given where the system allows it (fcntl(2), `F_SETPIPE_SZ`).
pub const PIPE_BYTES: usize = 256 * 1024;
/// Empty pipes kept for reuse per thread.
const POOLED: usize = 16;
/// Pipes in use per thread; each is two descriptors. Beyond that, bodies are copied.
const MOST: usize = 256;

thread_local! {
    static POOL: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
    static IN_USE: Cell<usize> = const { Cell::new(0) };
}

/// A pipe with what is on its way in it. Dropped with something left in it, it is closed, and that is lost.
#[derive(Debug)]
pub struct Pipe {
    /// Reading and writing end; taken only when dropped.
    ends: Option<(OwnedFd, OwnedFd)>,
    filled: usize,
}

impl Pipe {
    /// A pipe; `None` when there are no descriptors left for one, or enough are in use.
    pub fn take() -> Option<Self> {
        if IN_USE.get() >= MOST {
            return None;
        }
        let ends = match POOL.with_borrow_mut(Vec::pop) {
            Some(ends) => ends,
            None => {
                let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
                // Without it every trip carries less.
                crate::ignore(fcntl_setpipe_size(&ends.1, PIPE_BYTES));
                ends
            }
        };
        IN_USE.set(IN_USE.get() + 1);
        Some(Self { ends: Some(ends), filled: 0 })
    }

    /// Bytes in it.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Takes what has come for a socket, at most `limit` bytes, into an empty pipe; 0 is the end of the stream.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        let Some((_, end)) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(from.poll_read_ready(cx))?;
            let moved = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, end, None, limit.min(PIPE_BYTES), FLAGS)?)
            });
            match moved {
                Ok(count) => {
                    self.filled += count;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Hands what is in it to a socket; answers how much of it was taken.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        let Some((end, _)) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || Ok(splice(end, None, to, None, self.filled, FLAGS)?)) {
                Ok(count) => {
                    self.filled = self.filled.saturating_sub(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

impl Drop for Pipe {
    fn drop(&mut self) {
        IN_USE.set(IN_USE.get().saturating_sub(1));
        let Some(ends) = self.ends.take().filter(|_| self.filled == 0) else { return };
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED {
                pool.push(ends);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_arrive_whole_and_in_order() {
        let ((mut sender, source), (sink, mut receiver)) = (pair().await, pair().await);
        let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let sending = tokio::spawn(async move { sender.write_all(&sent).await.unwrap() });
        let receiving = tokio::spawn(async move {
            let mut received = Vec::new();
            receiver.read_to_end(&mut received).await.unwrap();
            received
        });
        let mut pipe = Pipe::take().unwrap();
        while poll_fn(|cx| pipe.poll_fill(cx, &source, usize::MAX)).await.unwrap() > 0 {
            while pipe.filled() > 0 {
                assert!(poll_fn(|cx| pipe.poll_drain(cx, &sink)).await.unwrap() > 0);
            }
        }
        drop(sink);
        sending.await.unwrap();
        assert!(receiving.await.unwrap() == expected);
    }

    #[tokio::test]
    async fn a_pipe_with_something_left_in_it_is_not_used_again() {
        let (mut sender, source) = pair().await;
        sender.write_all(b"secret").await.unwrap();
        let mut pipe = Pipe::take().unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_fill(cx, &source, 3)).await.unwrap(), 3);
        drop(pipe);
        assert_eq!(POOL.with_borrow(Vec::len), 0);
        drop(Pipe::take().unwrap());
        assert_eq!(POOL.with_borrow(Vec::len), 1);
    }

    #[test]
    fn pipes_are_bounded() {
        let held: Vec<_> = (0..MOST).map(|_| Pipe::take()).collect();
        // The system may have fewer descriptors than that; never are there more.
        assert!(Pipe::take().is_none());
        drop(held);
        assert!(Pipe::take().is_some() && POOL.with_borrow(Vec::len) <= POOLED);
    }
}
