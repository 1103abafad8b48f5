//! A PROXY header taken from a connection: exactly its bytes, because what follows is somebody else's.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{HeaderError, MAX_HEADER, Progress, Said, read};

/// Bytes looked at in one go; hardly any header is longer.
const LOOK: usize = 512;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The connection ended before its first byte.
    #[error("closed without a word")]
    Silent,
    /// It ended within the header.
    #[error("closed within the header")]
    Cut,
    /// What came is no header.
    #[error(transparent)]
    Malformed(#[from] HeaderError),
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Waits for a whole header and takes it. Has no time limit of its own.
pub(crate) async fn receive(stream: &mut TcpStream) -> Result<Said, ReceiveError> {
    let mut header = Vec::with_capacity(LOOK);
    let mut look = [0; LOOK];
    // Every round but the last takes at least one byte, and `read` refuses what is longer than a header can be.
    while header.len() <= MAX_HEADER {
        let seen = match stream.peek(&mut look).await? {
            0 if header.is_empty() => return Err(ReceiveError::Silent),
            0 => return Err(ReceiveError::Cut),
            seen => seen,
        };
        let before = header.len();
        header.extend_from_slice(look.get(..seen).unwrap_or_default());
        let (own, said) = match read(&header)? {
            Progress::Incomplete => (seen, None),
            Progress::Complete { said, length } => (length.saturating_sub(before), Some(said)),
        };
        stream.read_exact(look.get_mut(..own).unwrap_or_default()).await?;
        if let Some(said) = said {
            return Ok(said);
        }
    }
    Err(HeaderError::Length.into())
}
