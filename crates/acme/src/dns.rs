//! TXT records for DNS-01 (RFC 8555 section 8.4): the interface, and a program of the operator that publishes them.

use std::future::Future;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// The program has done its work within this time; slow zones take minutes until all their servers know.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of what the program said that are kept for the error: the last ones.
const TAIL_BYTES: usize = 1_000;

/// Why a record is not there, or still there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// There is no program.
    #[error("no program for DNS-01 is configured")]
    NoProgram,
    /// The program cannot be run.
    #[error("{program} cannot be run: {reason}")]
    Start {
        /// Its path.
        program: String,
        /// Why.
        reason: String,
    },
    /// The program takes too long.
    #[error("{program} {action} did not end within {} s", PROGRAM_TIMEOUT.as_secs())]
    Timeout {
        /// Its path.
        program: String,
        /// `present` or `cleanup`.
        action: &'static str,
    },
    /// The program says that it failed.
    #[error("{program} {action} ended with {status}: {tail}")]
    Failed {
        /// Its path.
        program: String,
        /// `present` or `cleanup`.
        action: &'static str,
        /// Exit code or signal.
        status: String,
        /// The end of what it said.
        tail: String,
    },
}

/// Publishes TXT records. One name can have several values at a time (`example.org` and `*.example.org` share theirs): adding
/// one must leave the others.
pub trait DnsPublisher {
    /// Adds a value to the TXT record of a name such as `_acme-challenge.example.org`; resolves when the zone's servers have it.
    fn present(&self, record: &str, value: &str) -> impl Future<Output = Result<(), DnsError>>;
    /// Takes the value away; also one that was never there.
    fn cleanup(&self, record: &str, value: &str) -> impl Future<Output = Result<(), DnsError>>;
}

/// A program: `present NAME VALUE` or `cleanup NAME VALUE` is appended to its arguments, exit code 0 means done.
#[derive(Clone, Debug)]
pub struct DnsProgram {
    command: Vec<String>,
    timeout: Duration,
}

impl DnsProgram {
    /// The program and its first arguments.
    pub fn new(command: Vec<String>) -> Self {
        Self { command, timeout: PROGRAM_TIMEOUT }
    }

    async fn run(&self, action: &'static str, record: &str, value: &str) -> Result<(), DnsError> {
        let (program, arguments) = self.command.split_first().ok_or(DnsError::NoProgram)?;
        let start =
            |error: std::io::Error| DnsError::Start { program: program.clone(), reason: error.to_string() };
        let mut child = Command::new(program)
            .args(arguments)
            .args([action, record, value])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let all = async { tokio::join!(child.wait(), tail_of(out), tail_of(err)) };
        let Ok((status, out, err)) = tokio::time::timeout(self.timeout, all).await else {
            return Err(DnsError::Timeout { program: program.clone(), action });
        };
        let status = status.map_err(start)?;
        if status.success() {
            return Ok(());
        }
        let said = if err.trim().is_empty() { out } else { err };
        let tail = if said.trim().is_empty() { "it said nothing".to_owned() } else { said.trim().to_owned() };
        Err(DnsError::Failed { program: program.clone(), action, status: status.to_string(), tail })
    }
}

impl DnsPublisher for DnsProgram {
    async fn present(&self, record: &str, value: &str) -> Result<(), DnsError> {
        self.run("present", record, value).await
    }

    async fn cleanup(&self, record: &str, value: &str) -> Result<(), DnsError> {
        self.run("cleanup", record, value).await
    }
}

/// Reads to the end and keeps the last bytes, so that a program that says much is never stopped by a full pipe.
async fn tail_of(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else {
        return String::new();
    };
    let mut tail = Vec::new();
    let mut piece = [0; 4_096];
    while let Ok(count @ 1..) = pipe.read(&mut piece).await {
        tail.extend_from_slice(piece.get(..count).unwrap_or_default());
        let surplus = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..surplus);
    }
    String::from_utf8_lossy(&tail).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> DnsProgram {
        DnsProgram::new(["sh", "-c", script, "program"].map(str::to_owned).to_vec())
    }

    #[tokio::test]
    async fn the_program_gets_action_name_and_value() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let program = shell(&format!("echo \"$@\" >> {}", log.display()));
        program.present("_acme-challenge.example.org", "-value; rm").await.unwrap();
        program.cleanup("_acme-challenge.example.org", "-value; rm").await.unwrap();
        let expected = "present _acme-challenge.example.org -value; rm\ncleanup _acme-challenge.example.org -value; rm\n";
        assert_eq!(std::fs::read_to_string(log).unwrap(), expected);
    }

    #[tokio::test]
    async fn failures_say_what_the_program_said_last() {
        let long = shell("i=0; while [ $i -lt 9000 ]; do echo line $i >&2; i=$((i+1)); done; exit 3");
        let Err(DnsError::Failed { status, tail, .. }) = long.present("a", "b").await else {
            panic!("no failure");
        };
        assert!(
            status.contains('3') && tail.ends_with("line 8999") && tail.len() <= TAIL_BYTES,
            "{status} {tail}"
        );
        let missing = DnsProgram::new(vec!["/no/such/program".into()]);
        assert!(matches!(missing.present("a", "b").await, Err(DnsError::Start { .. })));
        assert_eq!(DnsProgram::new(Vec::new()).present("a", "b").await, Err(DnsError::NoProgram));
        let endless = DnsProgram { timeout: Duration::from_millis(50), ..shell("exec sleep 1000") };
        assert!(matches!(endless.cleanup("a", "b").await, Err(DnsError::Timeout { action: "cleanup", .. })));
    }
}
