//! The origin and the servers under test: configured from `benches/peers/`, pinned to their cores.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Name;
use super::cases::FILES;
use crate::ports;
use crate::shell::{Background, Workspace, find_program, output, succeed};

/// Core of the server under test.
const SERVER_CORE: &str = "0";
/// Core of everything else.
pub const LOAD_CORE: &str = "1";
/// How long Rempart may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Certificate, key and the origin's files.
pub fn prepare(workspace: &Workspace, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("files"))?;
    for (name, bytes) in FILES {
        fs::write(folder.join("files").join(name), vec![b'x'; *bytes])?;
    }
    self_signed(workspace, folder)?;
    let mut both = fs::read(folder.join("chain.pem"))?;
    both.extend(fs::read(folder.join("key.pem"))?);
    fs::write(folder.join("both.pem"), both)?;
    Ok(())
}

/// `chain.pem` and `key.pem` for localhost: P-256, valid for two days.
pub fn self_signed(workspace: &Workspace, folder: &Path) -> Result<()> {
    let mut openssl = workspace.command("openssl");
    openssl.current_dir(folder).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
    ]);
    openssl.args([
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
    ]);
    openssl.args(["-keyout", "key.pem", "-out", "chain.pem"]).stderr(Stdio::null());
    succeed(&mut openssl).context("cannot make a certificate")
}

/// A file of `benches/peers/` with its `{{names}}` filled.
pub fn fill(
    workspace: &Workspace,
    folder: &Path,
    template: &str,
    values: &[(&str, String)],
) -> Result<String> {
    let mut text = fs::read_to_string(workspace.root.join("benches/peers").join(template))?;
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    let file = folder.join(template);
    fs::write(&file, text)?;
    Ok(file.to_string_lossy().into_owned())
}

fn pinned(workspace: &Workspace, core: &str, program: &Path) -> Command {
    let mut command = workspace.command("taskset");
    command.args(["--cpu-list", core]).arg(program);
    command
}

fn program(name: &str) -> Result<std::path::PathBuf> {
    find_program(name).with_context(|| format!("{name} is not installed"))
}

/// nginx as the origin.
pub struct Origin {
    pub port: u16,
    _process: Background,
}

/// What the origin has counted since it started.
#[derive(Clone, Copy)]
pub struct Counted {
    pub connections: u64,
    pub requests: u64,
}

impl Origin {
    /// Starts it on a free port.
    pub fn start(workspace: &Workspace, folder: &Path) -> Result<Self> {
        let port = ports::free()?;
        let values = [
            ("folder", folder.to_string_lossy().into_owned()),
            ("origin_port", port.to_string()),
            ("kilobyte", "x".repeat(1024)),
        ];
        let config = fill(workspace, folder, "origin.conf", &values)?;
        let mut command = pinned(workspace, LOAD_CORE, &program("nginx")?);
        let mut process =
            Background::start("the origin", command.arg("-c").arg(config).arg("-p").arg(folder))?;
        ports::wait_for(&mut process, port)?;
        Ok(Self { port, _process: process })
    }

    /// nginx's `stub_status`; asking counts as a connection and a request.
    pub fn counted(&self) -> Result<Counted> {
        let page =
            output(Command::new("curl").args(["-sS", &format!("http://127.0.0.1:{}/status", self.port)]))?;
        parse_counted(&page).with_context(|| format!("stub_status said: {page}"))
    }
}

fn parse_counted(page: &str) -> Option<Counted> {
    let numbers: Vec<u64> =
        page.lines().nth(2)?.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [connections, _, requests] => Some(Counted { connections, requests }),
        _ => None,
    }
}

/// A running server under test.
pub struct Server {
    pub name: Name,
    pub plain_port: u16,
    pub tls_port: u16,
    process: Background,
}

impl Server {
    /// Starts one with its configuration of `benches/peers/`.
    pub fn start(workspace: &Workspace, name: Name, folder: &Path, origin: &Origin) -> Result<Self> {
        let (plain_port, tls_port) = (ports::free()?, ports::free()?);
        let values = [
            ("folder", folder.to_string_lossy().into_owned()),
            ("origin_port", origin.port.to_string()),
            ("plain_port", plain_port.to_string()),
            ("tls_port", tls_port.to_string()),
        ];
        let mut process = match name {
            Name::Nginx => {
                let config = fill(workspace, folder, "nginx.conf", &values)?;
                let mut command = pinned(workspace, SERVER_CORE, &program("nginx")?);
                Background::start("nginx", command.arg("-c").arg(config).arg("-p").arg(folder))?
            }
            Name::Haproxy => {
                let config = fill(workspace, folder, "haproxy.cfg", &values)?;
                let mut command = pinned(workspace, SERVER_CORE, &program("haproxy")?);
                let log = File::create(folder.join("haproxy.access.log"))?;
                Background::start("HAProxy", command.args(["-db", "-f"]).arg(config).stdout(log))?
            }
            Name::Rempart => {
                let config = fill(workspace, folder, "rempart.toml", &values)?;
                start_rempart(workspace, folder, &config)?
            }
        };
        for port in [plain_port, tls_port] {
            ports::wait_for(&mut process, port)?;
        }
        Ok(Self { name, plain_port, tls_port, process })
    }

    /// Its process id; `taskset` replaces itself by the program, so this is the server's own.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

fn start_rempart(workspace: &Workspace, folder: &Path, config: &str) -> Result<Background> {
    let mut command = pinned(workspace, SERVER_CORE, &workspace.binary());
    command.args(["--json", "run", "--config", config, "--state-dir"]).arg(folder.join("rempart.state"));
    command.arg("--admin").arg(folder.join("rempart.sock"));
    command.arg("--access-log").arg(folder.join("rempart.access.log"));
    command.stdout(Stdio::piped()).stderr(File::create(folder.join("rempart.log"))?);
    let mut process = Background::start("Rempart", &mut command)?;
    process.first_line(READY_WITHIN).context("see bench/rempart.log in the target folder")?;
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stub_status_is_read() {
        let page = "Active connections: 1 \nserver accepts handled requests\n 83 83 76766 \nReading: 0 Writing: 1 Waiting: 0 \n";
        let counted = parse_counted(page).unwrap();
        assert_eq!((counted.connections, counted.requests), (83, 76766));
        assert!(parse_counted("<html>").is_none());
    }
}
