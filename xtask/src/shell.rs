//! Where the workspace is, and how other programs are started, read, stopped and complained about.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// How long a process may take to end after SIGTERM before it is killed.
const TERMINATE_WITHIN: Duration = Duration::from_secs(10);

/// How many lines of a failed program's output are shown; the log file has all of them.
const LINES_SHOWN: usize = 400;

/// The folders every command works with.
pub struct Workspace {
    /// Top of the clone.
    pub root: PathBuf,
    /// Build output shared by all stages, outside the clone unless `CARGO_TARGET_DIR` says otherwise.
    pub target: PathBuf,
    /// Test tools that are neither Rust nor Debian packages (npm, PyPI, Go), outside the clone.
    pub tools: PathBuf,
}

impl Workspace {
    /// Finds the clone from where cargo runs us, and the caches from the environment.
    pub fn locate() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| {
            anyhow!("start this as `cargo xtask ..`, cargo tells it where the workspace is")
        })?;
        let root = Path::new(&manifest).parent().context("xtask lies in the workspace")?.to_path_buf();
        let caches = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
            (Some(folder), _) if Path::new(&folder).is_absolute() => PathBuf::from(folder),
            (_, Some(home)) => Path::new(&home).join(".cache"),
            _ => bail!("neither XDG_CACHE_HOME nor HOME is set"),
        };
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) if !folder.is_empty() => root.join(folder),
            _ => caches.join("rempart-target"),
        };
        Ok(Self { root, target, tools: caches.join("rempart-tools") })
    }

    /// A program that runs at the top of the clone and sees the shared folders in its environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("REMPART_TOOLS", &self.tools)
            .env("REMPART_BIN", self.binary())
            .env_remove("CARGO_MANIFEST_DIR")
            .stdin(Stdio::null());
        command
    }

    /// `cargo` with these arguments.
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("cargo");
        command.args(arguments);
        command
    }

    /// The release binary of the product: the one `REMPART_BIN` names, or else the one cargo builds.
    pub fn binary(&self) -> PathBuf {
        self.chosen_binary().unwrap_or_else(|| self.target.join("release").join("rempart"))
    }

    /// What `REMPART_BIN` says, relative to the top of the clone.
    fn chosen_binary(&self) -> Option<PathBuf> {
        let chosen = std::env::var_os("REMPART_BIN").filter(|path| !path.is_empty())?;
        Some(self.root.join(chosen))
    }

    /// Builds the release binary, the one people run; where `REMPART_BIN` names one, that is taken as it is.
    pub fn build_release(&self) -> Result<PathBuf> {
        if let Some(binary) = self.chosen_binary() {
            if !binary.is_file() {
                bail!("REMPART_BIN: there is no file {}", binary.display());
            }
            println!("not building: REMPART_BIN is {}", binary.display());
            return Ok(binary);
        }
        println!("building the release binary");
        succeed(&mut self.cargo(&["build", "--release", "--locked", "--quiet", "--package", "app"]))?;
        let binary = self.binary();
        if !binary.is_file() {
            bail!("cargo built the package `app` but left no {}", binary.display());
        }
        Ok(binary)
    }

    /// The files of the working tree that git tracks or would track, relative to the root.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let listed = output(self.command("git").args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        let mut files: Vec<PathBuf> =
            listed.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
        files.retain(|file| self.root.join(file).is_file());
        files.sort();
        files.dedup();
        Ok(files)
    }
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs to the end with the terminal's output; an exit code other than 0 is an error.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs to the end and answers what it wrote to standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let result = command.output().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !result.status.success() {
        bail!(
            "`{}` ended with {}: {}",
            shown(command),
            result.status,
            String::from_utf8_lossy(&result.stderr).trim()
        );
    }
    String::from_utf8(result.stdout)
        .with_context(|| format!("`{}` wrote something that is not UTF-8", shown(command)))
}

/// Where a program lies, in PATH or in the folders of system programs that a user's PATH often lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Today's date, UTC, as `2026-11-22`.
pub fn today() -> Result<String> {
    Ok(output(Command::new("date").args(["-u", "+%F"]))?.trim().to_owned())
}

/// Runs to the end with the output in `log`; lines that `keep` likes are printed as they come.
///
/// A failure prints the end of the log. `limit` ends a run that hangs; it is only set when nobody sits at a terminal,
/// because it needs a process group of its own, which Ctrl-C would not reach.
pub fn logged(
    command: &mut Command,
    log: &Path,
    limit: Option<Duration>,
    keep: fn(&str) -> bool,
) -> Result<()> {
    use std::os::unix::process::CommandExt;
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    if limit.is_some() {
        command.process_group(0);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    let text = follow(&mut child, limit, keep)?;
    let mut before = fs::read_to_string(log).unwrap_or_default();
    before.push_str(&format!("$ {}\n{text}", shown(command)));
    fs::write(log, before)?;
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LINES_SHOWN);
    if skipped > 0 {
        println!("    .. {skipped} lines above are in {}", log.display());
    }
    for line in lines.iter().skip(skipped) {
        println!("    {line}");
    }
    bail!("`{}` ended with {status}", shown(command))
}

/// Collects both outputs of a child until they close, or stops its process group at the limit.
fn follow(child: &mut Child, limit: Option<Duration>, keep: fn(&str) -> bool) -> Result<String> {
    let (sender, lines) = mpsc::sync_channel::<String>(1024);
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
    ];
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let started = Instant::now();
    let mut text = String::new();
    loop {
        let waited = match limit {
            Some(limit) => lines.recv_timeout(limit.saturating_sub(started.elapsed())),
            None => lines.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
        };
        match waited {
            Ok(line) => {
                if keep(&line) {
                    println!("    {line}");
                }
                text.push_str(&line);
                text.push('\n');
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(text),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                text.push_str("stopped: the time limit of this stage is over\n");
                signal(&format!("-{}", child.id()), "KILL");
                return Ok(text);
            }
        }
    }
}

/// Sends a signal with the `kill` program; a process that is already gone is fine.
fn signal(target: &str, name: &str) {
    let sent = Command::new("kill").args(["-s", name, "--", target]).stderr(Stdio::null()).status();
    if let Err(error) = sent {
        eprintln!("cannot run `kill`: {error}");
    }
}

/// A program that runs beside us and is stopped when this value goes away.
pub struct Background {
    child: Child,
    name: String,
}

impl Background {
    /// Starts it.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {name}: `{}`", shown(command)))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its first line on standard output, which must have been piped; the rest is read and thrown away.
    pub fn first_line(&mut self, within: Duration) -> Result<String> {
        let stream = self.child.stdout.take().with_context(|| format!("{}: no piped output", self.name))?;
        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            let read = reader.read_line(&mut line).map(|_| line);
            if sender.send(read).is_ok() {
                // Keeps the pipe from filling up; the end of the program ends this too.
                let drained = std::io::copy(&mut reader, &mut std::io::sink());
                drop(drained);
            }
        });
        let line = receiver
            .recv_timeout(within)
            .map_err(|_| anyhow!("{} said nothing within {} s", self.name, within.as_secs()))??;
        if line.is_empty() {
            bail!("{} ended without saying that it is ready", self.name);
        }
        Ok(line)
    }

    /// Fails when the program has ended already.
    pub fn still_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended with {status}", self.name),
            None => Ok(()),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        signal(&self.child.id().to_string(), "TERM");
        let started = Instant::now();
        while started.elapsed() < TERMINATE_WITHIN {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                _ => return,
            }
        }
        eprintln!("{} did not end within {} s of SIGTERM, killing it", self.name, TERMINATE_WITHIN.as_secs());
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("cannot kill {}: {error}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a shell script; answers whether it succeeded, and its log.
    fn run(name: &str, script: &str, limit: Option<Duration>) -> (bool, String) {
        let log =
            std::env::temp_dir().join(format!("xtask-test-{}-{name}", std::process::id())).join("stage.log");
        let result = logged(Command::new("sh").args(["-c", script]), &log, limit, |_| false);
        let text = fs::read_to_string(&log).unwrap();
        fs::remove_dir_all(log.parent().unwrap()).unwrap();
        (result.is_ok(), text)
    }

    #[test]
    fn both_outputs_are_logged_and_the_exit_code_decides() {
        let (ok, text) = run("good", "echo out; echo err >&2", None);
        assert!(ok && text.contains("out\n") && text.contains("err\n"), "{text}");
        let (ok, text) = run("bad", "echo out; exit 3", None);
        assert!(!ok && text.contains("out\n"), "{text}");
    }

    #[test]
    fn a_run_that_hangs_is_stopped_with_its_children() {
        let (ok, text) = run("hangs", "echo begun; sleep 600 & wait", Some(Duration::from_millis(300)));
        assert!(!ok && text.contains("begun") && text.contains("stopped: the time limit"), "{text}");
    }

    #[test]
    fn the_first_line_of_a_background_program_is_read_and_its_end_noticed() {
        let mut program = Background::start(
            "it",
            Command::new("sh").args(["-c", "echo ready; exec sleep 600"]).stdout(Stdio::piped()),
        )
        .unwrap();
        assert_eq!(program.first_line(Duration::from_secs(30)).unwrap(), "ready\n");
        program.still_running().unwrap();
        let mut silent = Background::start("it", Command::new("true").stdout(Stdio::piped())).unwrap();
        assert!(silent.first_line(Duration::from_secs(30)).is_err());
    }
}
