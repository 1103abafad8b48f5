//! Clients that upload large bodies all the time, beside the visitors: at a pace, or as fast as they are answered.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::DrillError;
use crate::plan::HOSTS;

/// How long the other side may take for anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer read: the origins give back what they get.
const MAX_ANSWER: u64 = 8 << 20;

/// Uploading threads, until this is dropped.
#[derive(Debug)]
pub struct Uploads {
    end: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Uploads {
    /// So many clients send this body to the first site again and again, each with `pause` between an answer and its next request.
    pub fn start(
        address: SocketAddr,
        clients: usize,
        body: &[u8],
        pause: Duration,
    ) -> Result<Self, DrillError> {
        let head = format!(
            "POST /upload HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            HOSTS[0],
            body.len()
        );
        let message: Arc<[u8]> = [head.as_bytes(), body].concat().into();
        let mut uploads = Self {
            end: Arc::default(),
            served: Arc::default(),
            failed: Arc::default(),
            threads: Vec::with_capacity(clients),
        };
        for _ in 0..clients {
            let (end, message) = (uploads.end.clone(), message.clone());
            let (served, failed) = (uploads.served.clone(), uploads.failed.clone());
            let client = move || {
                while !end.load(Ordering::Relaxed) {
                    let fate = if upload(address, &message).is_ok_and(|status| status == 200) {
                        &served
                    } else {
                        &failed
                    };
                    fate.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(pause);
                }
            };
            let thread = std::thread::Builder::new().name("upload".to_owned()).spawn(client);
            uploads.threads.push(thread.map_err(DrillError::system("a client could not be started"))?);
        }
        Ok(uploads)
    }

    /// Uploads that were answered with 200, and those that were not.
    pub fn counted(&self) -> (u64, u64) {
        (self.served.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It ends within its patience.
            drop(thread.join());
        }
    }
}

fn upload(address: SocketAddr, message: &[u8]) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(message)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let status = answer
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok());
    status.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
