//! Frames between supervisor and children: JSON with descriptors beside it (SCM_RIGHTS), over a unix stream socket.
//!
//! A frame is two numbers of four bytes, most significant first (bytes of the message, descriptors with it), one byte for each
//! batch of descriptors, which carries them, and the message.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::process::{MAX_FRAME_BYTES, MAX_FRAME_DESCRIPTORS};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Descriptors in one control message; the kernel allows 253 (`SCM_MAX_FD`).
const BATCH: usize = 128;
/// How long a peer may take to accept the next piece of a frame before it counts as gone.
const WRITE: Duration = Duration::from_secs(2);
/// Room for the control message of one batch.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(BATCH));

/// One end of the connection between supervisor and child.
pub struct Channel {
    stream: UnixStream,
    writing: Mutex<()>,
}

impl Channel {
    /// Takes a connected stream socket.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(WRITE))?;
        Ok(Self { stream, writing: Mutex::new(()) })
    }

    /// A connected pair: this side's end, and a descriptor to be the other's.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self::new(ours)?, theirs.into()))
    }

    /// Sends one message. An error means that the connection can no longer be used.
    pub fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        if body.len() > MAX_FRAME_BYTES || descriptors.len() > MAX_FRAME_DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too large for a frame"));
        }
        let numbers = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes();
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut head = [0; 8];
        head[..4].copy_from_slice(&numbers(body.len()));
        head[4..].copy_from_slice(&numbers(descriptors.len()));
        (&self.stream).write_all(&head)?;
        for batch in descriptors.chunks(BATCH) {
            let mut space = [MaybeUninit::uninit(); CONTROL];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(batch)) {
                return Err(io::Error::other("too many descriptors for one control message"));
            }
            sendmsg(&self.stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        }
        (&self.stream).write_all(&body)
    }

    /// Waits for the next message. `None`: the other side has closed.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut head = [0; 8];
        if !self.read_or_end(&mut head)? {
            return Ok(None);
        }
        let [a, b, c, d, e, f, g, h] = head;
        let bytes = u32::from_be_bytes([a, b, c, d]) as usize;
        let count = u32::from_be_bytes([e, f, g, h]) as usize;
        if bytes > MAX_FRAME_BYTES || count > MAX_FRAME_DESCRIPTORS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame is larger than any that is sent",
            ));
        }
        let mut descriptors = Vec::with_capacity(count);
        while descriptors.len() < count {
            let before = descriptors.len();
            self.receive_batch(&mut descriptors)?;
            if descriptors.len() == before {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors were lost on the way"));
            }
        }
        let mut body = vec![0; bytes];
        (&self.stream).read_exact(&mut body)?;
        Ok(Some((serde_json::from_slice(&body)?, descriptors)))
    }

    fn receive_batch(&self, descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = loop {
            let mut target = [IoSliceMut::new(&mut byte)];
            match recvmsg(&self.stream, &mut target, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(given) = message {
                descriptors.extend(given);
            }
        }
        Ok(())
    }

    /// Fills the buffer; false when the stream ends before its first byte.
    fn read_or_end(&self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match (&self.stream).read(rest) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Who is killed with unread words in its socket resets the connection; that is an end like any other.
                Err(error) if filled == 0 && error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Ends the connection in both directions, so that whoever waits on it learns of the end.
    pub fn close(&self) {
        if let Err(error) = self.stream.shutdown(std::net::Shutdown::Both) {
            tracing::debug!(%error, "a channel was closed already");
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn pair() -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        (ours, Channel::new(theirs.into()).unwrap())
    }

    #[test]
    fn messages_arrive_in_order_with_their_descriptors() {
        let (ours, theirs) = pair();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        ours.send(&"none", &[]).unwrap();
        ours.send(&"two", &[tcp.as_fd(), udp.as_fd()]).unwrap();
        let (text, descriptors) = theirs.receive::<String>().unwrap().unwrap();
        assert_eq!((text.as_str(), descriptors.len()), ("none", 0));
        let (text, mut descriptors) = theirs.receive::<String>().unwrap().unwrap();
        assert_eq!((text.as_str(), descriptors.len()), ("two", 2));
        let travelled = UdpSocket::from(descriptors.pop().unwrap());
        assert_eq!(travelled.local_addr().unwrap(), address);
        drop(ours);
        assert!(theirs.receive::<String>().unwrap().is_none());
    }

    #[test]
    fn hundreds_of_descriptors_travel_with_one_large_message() {
        let (ours, theirs) = pair();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = "x".repeat(3 << 20);
        let sender = std::thread::spawn({
            let text = text.clone();
            move || ours.send(&text, &vec![tcp.as_fd(); 2 * BATCH + 7]).unwrap()
        });
        let (received, descriptors) = theirs.receive::<String>().unwrap().unwrap();
        assert_eq!((received.len(), descriptors.len()), (text.len(), 2 * BATCH + 7));
        sender.join().unwrap();
    }

    #[test]
    fn a_cut_frame_is_an_error_and_not_an_end() {
        let (ours, theirs) = pair();
        (&ours.stream).write_all(&[0, 0, 0, 9, 0, 0, 0, 0, b'"']).unwrap();
        drop(ours);
        assert!(theirs.receive::<String>().is_err());
    }
}
