//! What watch is asked over the socket in its folder, and what it answers: one line of JSON each.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::incident::Incident;
use crate::notify::SENDING;

/// Longest question, in bytes.
pub const MAX_QUESTION: usize = 4096;
/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;
/// An answer takes no longer: a test waits for every channel.
const ANSWER: Duration = Duration::from_secs(SENDING.as_secs() + 5);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Question {
    /// Which incidents there are.
    Incidents {
        /// Those that are over as well.
        all: bool,
    },
    /// Send a message that shows that it arrives through every channel.
    Test,
    /// Make room for another watch: let go of everything, and end.
    Leave,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Incidents, oldest first.
    Incidents {
        /// Whether a supervisor tells what happens.
        supervised: bool,
        /// Address of the status page, if it is served.
        page: Option<String>,
        /// All that were asked for.
        incidents: Vec<Incident>,
    },
    /// What came of a test.
    Tested {
        /// Of each channel.
        channels: Vec<Tested>,
    },
    /// It ends.
    Leaving,
}

/// What came of a test of one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    /// Its name.
    pub channel: String,
    /// Why the message was not sent; `None`: it was.
    pub error: Option<String>,
}

/// Asks, and waits for the answer.
pub fn ask(socket: &Path, question: Question) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let mut line = serde_json::to_vec(&question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}
