//! curl as a client: one call, everything it saw.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::rempart::Rempart;
use crate::tools;

/// A server as a client addresses it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// Host it is asked for.
    pub host: String,
    /// The authority behind its certificate; `None` speaks without TLS.
    pub authority: Option<PathBuf>,
}

/// What a call of curl saw.
#[derive(Clone, Debug)]
pub struct Curled {
    /// Exit code; 0 is success.
    pub exit: i32,
    /// Status of the last response, 0 without one.
    pub status: u16,
    /// HTTP version of it: `1.1` or `2`.
    pub version: String,
    /// All heads as received, interim ones included.
    pub heads: String,
    /// Body of the last response.
    pub body: Vec<u8>,
    /// Bytes of that body, also when it was not kept.
    pub downloaded: u64,
    /// What curl complained about.
    pub complaint: String,
}

impl Curled {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The last value of a field over all heads.
    pub fn field(&self, name: &str) -> Option<String> {
        let mut found = None;
        for line in self.heads.lines() {
            if let Some((key, value)) = line.split_once(':')
                && key.eq_ignore_ascii_case(name)
            {
                found = Some(value.trim().to_owned());
            }
        }
        found
    }
}

impl Target {
    /// A server without TLS.
    pub fn plain(address: SocketAddr, host: &str) -> Self {
        Self { address, host: host.into(), authority: None }
    }

    /// The TLS listener of a Rempart.
    pub fn tls(rempart: &Rempart, host: &str) -> Self {
        Self { address: rempart.tls(), host: host.into(), authority: Some(rempart.authority_path()) }
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}{path}", self.host, self.address.port())
    }

    /// Asks for a path; further arguments come before the address.
    pub fn curl(&self, path: &str, arguments: &[&str]) -> Curled {
        let folder = tempfile::tempdir().unwrap();
        let (body, heads) = (folder.path().join("body"), folder.path().join("heads"));
        let mut command = Command::new(tools::program("curl"));
        command.args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", "120"]);
        command.args(["--path-as-is", "--write-out", "%{json}", "--output"]).arg(&body);
        command.arg("--dump-header").arg(&heads);
        command.args(["--resolve", &format!("{}:{}:{}", self.host, self.address.port(), self.address.ip())]);
        if let Some(authority) = &self.authority {
            command.arg("--cacert").arg(authority);
        }
        let output = command.args(arguments).arg(self.url(path)).output().unwrap();
        let facts: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        Curled {
            exit: output.status.code().unwrap_or(-1),
            status: facts["http_code"].as_u64().unwrap_or(0) as u16,
            version: facts["http_version"].as_str().unwrap_or_default().to_owned(),
            heads: String::from_utf8_lossy(&fs::read(heads).unwrap_or_default()).into_owned(),
            body: fs::read(body).unwrap_or_default(),
            downloaded: facts["size_download"].as_u64().unwrap_or(0),
            complaint: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
