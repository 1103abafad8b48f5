//! The servers that are attacked, the origin behind them, and what a server says about itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::ports;
use crate::shell::{Background, Workspace, find_program, output, succeed};

/// How long Rempart may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Lines of the body of golden traffic, eight bytes each and no two the same.
const GOLDEN_LINES: usize = 1024;

/// Who is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Rempart,
    Nginx,
    Control,
}

impl Target {
    pub fn shown(self) -> &'static str {
        match self {
            Self::Rempart => "Rempart",
            Self::Nginx => "nginx",
            Self::Control => "control",
        }
    }
}

/// Where files are, and which binary is Rempart.
pub struct Place<'a> {
    pub workspace: &'a Workspace,
    pub folder: PathBuf,
    pub binary: PathBuf,
}

impl Place<'_> {
    /// An empty folder with the origin's files and a certificate.
    pub fn prepare(&self) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        fs::create_dir_all(self.folder.join("files"))?;
        fs::write(self.folder.join("files/1m"), vec![b'x'; 1 << 20])?;
        let golden: String = (0..GOLDEN_LINES).map(|line| format!("{line:07}\n")).collect();
        fs::write(self.golden_file(), golden)?;
        // Not an authority, so that a client which trusts it takes it for a server's own (RFC 5280 section 4.2.1.9).
        let mut openssl = self.workspace.command("openssl");
        openssl
            .current_dir(&self.folder)
            .args("req -x509 -newkey ec -nodes -days 2 -subj /CN=localhost".split(' '));
        openssl.args("-pkeyopt ec_paramgen_curve:prime256v1 -addext subjectAltName=DNS:localhost".split(' '));
        openssl.args("-addext basicConstraints=critical,CA:FALSE -keyout key.pem -out chain.pem".split(' '));
        succeed(openssl.stderr(Stdio::null())).context("cannot make a certificate")
    }

    /// The body of `/golden`.
    pub fn golden_file(&self) -> PathBuf {
        self.folder.join("files/golden")
    }

    /// A file of `xtask/attacks/`.
    pub fn attacks(&self, name: &str) -> PathBuf {
        self.workspace.root.join("xtask/attacks").join(name)
    }

    /// A configuration of `xtask/attacks/peers/` with its `{{names}}` filled.
    fn fill(&self, template: &str, values: &[(&str, String)]) -> Result<PathBuf> {
        let mut text = fs::read_to_string(self.attacks("peers").join(template))?;
        for (name, value) in values {
            text = text.replace(&format!("{{{{{name}}}}}"), value);
        }
        let file = self.folder.join(template);
        fs::write(&file, text)?;
        Ok(file)
    }

    fn nginx(&self, name: &str, config: &Path) -> Result<Background> {
        let program = find_program("nginx").context("nginx is not installed")?;
        Background::start(
            name,
            self.workspace.command(program).arg("-c").arg(config).arg("-p").arg(&self.folder),
        )
    }
}

/// nginx as the origin.
pub struct Origin {
    port: u16,
    process: Background,
}

impl Origin {
    pub fn start(place: &Place) -> Result<Self> {
        let port = ports::free()?;
        let folder = place.folder.to_string_lossy().into_owned();
        let config = place.fill("origin.conf", &[("folder", folder), ("origin_port", port.to_string())])?;
        let mut process = place.nginx("the origin", &config)?;
        ports::wait_for(&mut process, port)?;
        Ok(Self { port, process })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// A running server that is attacked.
pub struct Server {
    pub target: Target,
    pub plain_port: u16,
    /// `None`: it speaks plain HTTP only.
    pub tls_port: Option<u16>,
    metrics_port: u16,
    admin: PathBuf,
    binary: PathBuf,
    process: Background,
}

impl Server {
    /// Starts one with its configuration of `xtask/attacks/peers/`.
    pub fn start(place: &Place, target: Target, origin: &Origin) -> Result<Self> {
        let (plain_port, tls_port, metrics_port) = (ports::free()?, ports::free()?, ports::free()?);
        let values = [
            ("folder", place.folder.to_string_lossy().into_owned()),
            ("origin_port", origin.port.to_string()),
            ("plain_port", plain_port.to_string()),
            ("tls_port", tls_port.to_string()),
            ("metrics_port", metrics_port.to_string()),
        ];
        let mut process = match target {
            Target::Rempart => start_rempart(place, &values)?,
            Target::Nginx => place.nginx("nginx", &place.fill("nginx.conf", &values)?)?,
            Target::Control => start_control(place, plain_port)?,
        };
        let tls_port = (target != Target::Control).then_some(tls_port);
        for port in [Some(plain_port), tls_port].into_iter().flatten() {
            ports::wait_for(&mut process, port)?;
        }
        let admin = place.folder.join("rempart.sock");
        Ok(Self { target, plain_port, tls_port, metrics_port, admin, binary: place.binary.clone(), process })
    }

    /// The process that started all others of it.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Counters of `/metrics`; empty for the others.
    pub fn counters(&self) -> Result<BTreeMap<String, f64>> {
        if self.target != Target::Rempart {
            return Ok(BTreeMap::new());
        }
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics_port);
        let mut curl = std::process::Command::new("curl");
        Ok(counters(&output(curl.args(["-sS", "--max-time", "10", &url]))?))
    }

    /// What changes when a serving process is replaced: Rempart's own word about crashes, hangs and the edge's id, or
    /// which processes there are.
    pub fn identity(&self) -> Result<String> {
        if self.target != Target::Rempart {
            let children = format!("/proc/{0}/task/{0}/children", self.id());
            return fs::read_to_string(children).context("the server is gone");
        }
        let mut status = std::process::Command::new(&self.binary);
        let said = output(status.args(["status", "--json", "--admin"]).arg(&self.admin))?;
        edge_identity(&serde_json::from_str(&said)?).context("`rempart status` names no edge")
    }
}

fn start_rempart(place: &Place, values: &[(&str, String)]) -> Result<Background> {
    let config = place.fill("rempart.toml", values)?;
    let mut command = place.workspace.command(&place.binary);
    command.args(["--json", "run", "--config"]).arg(config);
    command.arg("--state-dir").arg(place.folder.join("rempart.state"));
    command.arg("--admin").arg(place.folder.join("rempart.sock"));
    let log = place.folder.join("rempart.log");
    command.stdout(Stdio::piped()).stderr(File::create(&log)?);
    let mut process = Background::start("Rempart", &mut command)?;
    process.first_line(READY_WITHIN).with_context(|| {
        format!("Rempart does not start: {}", fs::read_to_string(&log).unwrap_or_default().trim())
    })?;
    Ok(process)
}

fn start_control(place: &Place, port: u16) -> Result<Background> {
    let mut python = place.workspace.command("python3");
    python.arg(place.attacks("peers/control.py")).arg(port.to_string()).arg(place.golden_file());
    Background::start("the control", python.stderr(Stdio::null()))
}

/// Samples of the text format whose names end in `_total`: name with labels, and value.
fn counters(page: &str) -> BTreeMap<String, f64> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let pairs = samples.filter_map(|line| line.rsplit_once(' '));
    pairs
        .filter(|(name, _)| name.split('{').next().is_some_and(|bare| bare.ends_with("_total")))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

/// The ids of the edges, and how often one crashed or hung.
fn edge_identity(status: &Value) -> Option<String> {
    let processes = status["processes"].as_array()?;
    let edges: Vec<String> = processes
        .iter()
        .filter(|process| process["role"] == "edge")
        .map(|process| process["pid"].to_string())
        .collect();
    let (crashes, hangs) =
        (status["supervision"]["crashes"].as_u64()?, status["supervision"]["hangs"].as_u64()?);
    (!edges.is_empty()).then(|| format!("edge {}, {crashes} crashes, {hangs} hangs", edges.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counters_are_read() {
        let page = "# TYPE a_total counter\na_total{x=\"y z\"} 3\nb_total 4.5\nprocess_open_fds 36\n";
        let expected = BTreeMap::from([("a_total{x=\"y z\"}".to_owned(), 3.0), ("b_total".to_owned(), 4.5)]);
        assert_eq!(counters(page), expected);
    }

    #[test]
    fn a_replaced_edge_is_seen_and_a_missing_one_is_no_edge() {
        let status = |pid: u32, crashes: u32| {
            serde_json::json!({
                "processes": [{ "role": "supervisor", "pid": 1 }, { "role": "edge", "pid": pid }],
                "supervision": { "crashes": crashes, "hangs": 0 },
            })
        };
        let before = edge_identity(&status(7, 0)).unwrap();
        assert_eq!(before, edge_identity(&status(7, 0)).unwrap());
        assert_ne!(before, edge_identity(&status(8, 0)).unwrap());
        assert_ne!(before, edge_identity(&status(7, 1)).unwrap());
        assert_eq!(edge_identity(&serde_json::json!({ "processes": [] })), None);
    }
}
