//! `rempart feed`: makes keys and packages, shows them, and looks after the feeds of a running Rempart.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use api::admin::{Answer, Request};
use api::diagnostic::{Diagnostic, Severity};
use api::seal::{KEY_BYTES, Keyring, SigningKey, hexadecimal};
use base::time::Timestamp;
use clap::{Args, Subcommand, ValueHint};
use feed::clickhouse;
use serde_json::json;
use snapshot::kind::{self, Kind};
use snapshot::package::{self, Caps, Draft, MAX_BYTES, Package};
use snapshot::units::{ByteSize, Period};

use crate::builder::now;
use crate::cli::Place;
use crate::report::Terminal;
use crate::{EXIT_OK, EXIT_REFUSED};

/// Largest key file, in bytes.
const MAX_KEY_FILE: u64 = 1024;

/// Arguments of `feed`.
#[derive(Args, Debug)]
pub struct FeedArguments {
    /// What to do; without a command the feeds are listed.
    #[command(subcommand)]
    command: Option<FeedCommand>,
    /// Where the running Rempart is found.
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum FeedCommand {
    /// Show every feed: what is in force, what was refused and why.
    List,
    /// Look at the source of a feed now.
    Take {
        /// The feed.
        name: String,
        /// Take what is there even if it differs more than it may. `rempart confirm NAME` has to follow.
        #[arg(long)]
        force: bool,
    },
    /// Let a feed that went back and forth, and was frozen, go on.
    Thaw {
        /// The feed.
        name: String,
    },
    /// Make a pair of keys: the private one into a file, the public one on standard output.
    Keygen {
        /// File for the private key; it must not exist.
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Check a data file as every Rempart will, and make a signed package of it.
    Pack(Box<PackArguments>),
    /// Ask a ClickHouse, check its answer as every Rempart will, and make a signed package of it.
    Generate(Box<GenerateArguments>),
    /// Show what a package says of itself, and whether that can be trusted.
    Show {
        /// The package.
        #[arg(value_name = "PACKAGE", value_hint = ValueHint::FilePath)]
        package: PathBuf,
        /// Public key of its maker; repeat it for several.
        #[arg(long = "trust", value_name = "KEY")]
        trust: Vec<String>,
    },
}

#[derive(Args, Debug)]
struct PackArguments {
    /// The data file, or - for standard input.
    #[arg(value_name = "INPUT", value_hint = ValueHint::FilePath)]
    input: PathBuf,
    /// What the data file holds.
    #[arg(long, default_value = "table")]
    kind: String,
    /// File with the query it was made with; its hash goes into the package.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    query: Option<PathBuf>,
    /// Columns of a table whose file has no first line that names them, such as "name:text weight:number".
    #[arg(long, value_name = "COLUMNS")]
    columns: Option<String>,
    /// What it was made from, for people.
    #[arg(long, value_name = "TEXT", default_value = "")]
    source: String,
    /// How it is made.
    #[command(flatten)]
    making: Making,
}

#[derive(Args, Debug)]
struct GenerateArguments {
    /// Address of the HTTP interface: https, or http to a loopback address.
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    clickhouse: String,
    /// File with the query, without a FORMAT; its hash goes into the package.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    query: PathBuf,
    /// Who asks [default: the server's default user].
    #[arg(long, value_name = "NAME", env = "CLICKHOUSE_USER")]
    user: Option<String>,
    /// File with the password; none is an empty one.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "user")]
    password_file: Option<PathBuf>,
    /// How it is made.
    #[command(flatten)]
    making: Making,
}

/// What every package is made with.
#[derive(Args, Debug)]
struct Making {
    /// The package to write; replaced in one step, and only when everything is right.
    #[arg(long, short, value_name = "PACKAGE", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    /// Name of the feed.
    #[arg(long)]
    name: String,
    /// File with the private key.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    key: PathBuf,
    /// The package before this one: the new one is compared with it [default: the one at --output, if there is one].
    #[arg(long, value_name = "PACKAGE", value_hint = ValueHint::FilePath)]
    previous: Option<PathBuf>,
    /// Public key of whoever made the package before, if it was another.
    #[arg(long, value_name = "KEY")]
    trust: Vec<String>,
    /// Number of the package [default: one more than the one before; 1 for the first].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    generation: Option<u64>,
    /// Time after which it must not be put in force any more, such as 7d.
    #[arg(long, value_name = "TIME", value_parser = |text: &str| Period::parse(text).map_err(|error| error.to_string()))]
    expires: Option<Period>,
    /// Columns that a table must have, these and no others, such as "name:text weight:number".
    #[arg(long, value_name = "COLUMNS")]
    expect_columns: Option<String>,
    /// Largest number of entries, as the feed is configured.
    #[arg(long, value_name = "NUMBER")]
    max_entries: Option<u64>,
    /// Largest size, as the feed is configured.
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| ByteSize::parse(text).map_err(|error| error.to_string()))]
    max_bytes: Option<ByteSize>,
    /// Make it even if it differs from the one before more than it may. Whoever takes it has to force it too.
    #[arg(long)]
    force: bool,
}

/// Does what was asked.
pub fn run(arguments: FeedArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let place = &arguments.place;
    match arguments.command {
        None | Some(FeedCommand::List) => list(place, terminal),
        Some(FeedCommand::Take { name, force }) => {
            order(place, Request::Feed { name, thaw: false, force }, terminal)
        }
        Some(FeedCommand::Thaw { name }) => {
            order(place, Request::Feed { name, thaw: true, force: false }, terminal)
        }
        Some(FeedCommand::Keygen { file }) => keygen(&file, terminal),
        Some(FeedCommand::Pack(arguments)) => pack(&arguments, terminal),
        Some(FeedCommand::Generate(arguments)) => generate(&arguments, terminal),
        Some(FeedCommand::Show { package, trust }) => show(&package, &trust, terminal),
    }
}

fn list(place: &Place, terminal: &Terminal) -> anyhow::Result<u8> {
    match crate::ask(place, &Request::Feeds) {
        Err(error) => return Ok(crate::unreached(terminal, &error)),
        Ok(Answer::Feeds { feeds }) if terminal.json => terminal.print_json(&feeds),
        Ok(Answer::Feeds { feeds }) => terminal.feeds(&feeds),
        Ok(Answer::Refused { message }) => bail!(message),
        Ok(other) => bail!("unexpected answer {other:?}"),
    }
    Ok(EXIT_OK)
}

fn order(place: &Place, request: Request, terminal: &Terminal) -> anyhow::Result<u8> {
    match crate::ask(place, &request) {
        Err(error) => return Ok(crate::unreached(terminal, &error)),
        Ok(Answer::Done) if terminal.json => terminal.print_json(&json!({ "begun": true })),
        Ok(Answer::Done) => terminal.print("begun; `rempart feed` shows what comes of it"),
        Ok(Answer::Refused { message }) => bail!(message),
        Ok(other) => bail!("unexpected answer {other:?}"),
    }
    Ok(EXIT_OK)
}

fn keygen(file: &Path, terminal: &Terminal) -> anyhow::Result<u8> {
    new_key(file)?;
    let public = private_key(file)?.public();
    if terminal.json {
        terminal
            .print_json(&json!({ "public": public, "id": public.id().to_string(), "private_file": file }));
    } else {
        terminal.print(&public.to_string());
    }
    Ok(EXIT_OK)
}

/// Makes a private key in a file of its own, which must not exist.
pub fn new_key(file: &Path) -> anyhow::Result<()> {
    let mut seed = [0; KEY_BYTES];
    getrandom::fill(&mut seed).context("this machine has no randomness")?;
    let mut out = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("cannot make {}", file.display()))?;
    writeln!(out, "{}", hexadecimal(&seed))?;
    out.sync_all()?;
    Ok(())
}

/// All of a file, or of standard input.
pub fn read(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > limit {
        bail!("{} has more than {limit} bytes", path.display());
    }
    Ok(bytes)
}

fn private_key(path: &Path) -> anyhow::Result<SigningKey> {
    let text = String::from_utf8(read(path, MAX_KEY_FILE)?).ok();
    let parsed = text.and_then(|text| SigningKey::parse(&text).ok());
    // Never repeats what it has read.
    parsed
        .with_context(|| format!("{} holds no private key; `rempart feed keygen` makes one", path.display()))
}

/// What a package is made of.
struct Made {
    kind: &'static dyn Kind,
    payload: Vec<u8>,
    source: String,
    query: Option<Vec<u8>>,
}

fn pack(arguments: &PackArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let Some(kind) = kind::find(&arguments.kind) else { bail!("{} is no kind of artefact", arguments.kind) };
    let payload = payload(arguments)?;
    let query = arguments.query.as_deref().map(|path| read(path, MAX_BYTES)).transpose()?;
    let of = Made { kind, payload, source: arguments.source.clone(), query };
    make_and_put(&arguments.making, &of, terminal)
}

fn generate(arguments: &GenerateArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let kind = kind::find("table").context("this version knows no tables")?;
    let query = read(&arguments.query, MAX_BYTES)?;
    let sql = std::str::from_utf8(&query).context("the query is not UTF-8")?;
    let password = arguments.password_file.as_deref().map(|path| read(path, MAX_KEY_FILE)).transpose()?;
    let password = String::from_utf8(password.unwrap_or_default()).context("the password is not UTF-8")?;
    let login = arguments.user.as_deref().map(|user| (user, password.trim_end_matches('\n')));
    // As text in the form of the answer, which is no shorter than the table.
    let limit = arguments.making.caps(kind).bytes.saturating_mul(2);
    let asked = clickhouse::Query { url: &arguments.clickhouse, sql, login, limit };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let table = runtime.block_on(clickhouse::ask(&asked))?;
    // What stands behind the question mark may be for nobody else.
    let place = arguments.clickhouse.split('?').next().unwrap_or_default();
    let file = arguments.query.file_name().unwrap_or_default();
    let source = format!("{} at {place}", Path::new(file).display());
    let of = Made { kind, payload: table.into_bytes(), source, query: Some(query) };
    make_and_put(&arguments.making, &of, terminal)
}

/// A package somebody installs at once: made, checked, put where a feed of this machine reads it.
pub struct Installation {
    /// Its kind.
    pub kind: &'static str,
    /// The data.
    pub payload: Vec<u8>,
    /// What it was made from, for people.
    pub source: String,
    /// Name of the feed.
    pub name: String,
    /// File with the private key.
    pub key: PathBuf,
    /// The package to write.
    pub output: PathBuf,
    /// Whether it may differ from the one before as much as it likes.
    pub force: bool,
}

/// Makes and writes it; answers the exit code.
pub fn install(installation: Installation, terminal: &Terminal) -> anyhow::Result<u8> {
    let Installation { kind, payload, source, name, key, output, force } = installation;
    let kind = kind::find(kind).with_context(|| format!("this version knows no {kind}"))?;
    let making = Making {
        output,
        name,
        key,
        previous: None,
        trust: Vec::new(),
        generation: None,
        expires: None,
        expect_columns: None,
        max_entries: None,
        max_bytes: None,
        force,
    };
    make_and_put(&making, &Made { kind, payload, source, query: None }, terminal)
}

/// The public key that belongs to the private one in a file.
pub fn public_key(path: &Path) -> anyhow::Result<String> {
    Ok(private_key(path)?.public().to_string())
}

fn make_and_put(arguments: &Making, of: &Made, terminal: &Terminal) -> anyhow::Result<u8> {
    let key = private_key(&arguments.key)?;
    let now = now();
    let previous = previous(arguments, of.kind, &key, now)?;
    let (bytes, package) = match make(arguments, of, &key, previous.as_ref(), now)? {
        Ok(made) => made,
        Err(findings) => {
            if terminal.json {
                terminal.print_json(&json!({ "ok": false, "diagnostics": findings }));
            } else {
                terminal.refused("no package was made", &findings);
            }
            return Ok(EXIT_REFUSED);
        }
    };
    put(&arguments.output, &bytes)?;
    let manifest = &package.manifest;
    if terminal.json {
        terminal.print_json(&json!({ "ok": true, "manifest": manifest }));
    } else {
        terminal.print(&format!(
            "{}: generation {} of {}, {} entries, {}",
            arguments.output.display(),
            manifest.generation,
            manifest.name,
            manifest.entries,
            ByteSize::bytes(manifest.bytes)
        ));
    }
    Ok(EXIT_OK)
}

/// The package before, verified; none when there is none at the output and none was named.
fn previous(
    arguments: &Making,
    kind: &dyn Kind,
    key: &SigningKey,
    now: Timestamp,
) -> anyhow::Result<Option<Package>> {
    let path = match &arguments.previous {
        Some(path) => path,
        None if arguments.output.exists() => &arguments.output,
        None => return Ok(None),
    };
    let own = key.public().to_string();
    let keys = Keyring::parse(arguments.trust.iter().map(String::as_str).chain([own.as_str()]))?;
    let bytes = read(path, MAX_BYTES)?;
    let package = package::open(&bytes, &keys, now, MAX_BYTES, false);
    let package = package.with_context(|| format!("{}, with which it is compared", path.display()))?;
    if package.manifest.name != arguments.name || package.manifest.kind != kind.name() {
        bail!(
            "{} is of another feed: {} of kind {}",
            path.display(),
            package.manifest.name,
            package.manifest.kind
        );
    }
    Ok(Some(package))
}

fn payload(arguments: &PackArguments) -> anyhow::Result<Vec<u8>> {
    let payload = read(&arguments.input, MAX_BYTES)?;
    Ok(match &arguments.columns {
        Some(columns) => [format!("#columns {columns}\n").as_bytes(), &payload].concat(),
        None => payload,
    })
}

/// A package, and what it was read to be.
type Packed = (Vec<u8>, Package);

impl Making {
    fn caps(&self, kind: &dyn Kind) -> Caps {
        let of_kind = kind.caps();
        Caps {
            bytes: self.max_bytes.map_or(of_kind.bytes, ByteSize::get),
            entries: self.max_entries.unwrap_or(of_kind.entries),
            memory: of_kind.memory,
        }
    }

    /// A query that was changed, or a view behind it, shows in the columns first.
    fn expected(&self, payload: &[u8]) -> Result<(), Vec<Diagnostic>> {
        let Some(expected) = &self.expect_columns else { return Ok(()) };
        let first = payload.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let first = String::from_utf8_lossy(first);
        let columns = first.strip_prefix("#columns").unwrap_or_default();
        if columns.split_whitespace().eq(expected.split_whitespace()) {
            return Ok(());
        }
        Err(vec![Diagnostic {
            severity: Severity::Error,
            code: "other-columns".to_owned(),
            message: format!("its columns are {:?}, and {expected:?} are expected", columns.trim()),
            location: None,
            hint: Some("see what has changed where it comes from, or what --expect-columns says".to_owned()),
        }])
    }
}

/// Reads, packs, then opens and checks what was packed, as whoever takes it will.
fn make(
    arguments: &Making,
    of: &Made,
    key: &SigningKey,
    previous: Option<&Package>,
    now: Timestamp,
) -> anyhow::Result<Result<Packed, Vec<Diagnostic>>> {
    let Made { kind, payload, source, query } = of;
    let caps = arguments.caps(*kind);
    let read = arguments.expected(payload).and_then(|()| kind::read(*kind, payload, caps, now));
    let content = match read {
        Ok(content) => content,
        Err(findings) => return Ok(Err(findings)),
    };
    let draft = Draft {
        name: arguments.name.clone(),
        generation: arguments
            .generation
            .unwrap_or_else(|| previous.map_or(1, |previous| previous.manifest.generation.saturating_add(1))),
        created: now,
        expires: arguments.expires.map(|period| now.plus(period.into())),
        source: source.clone(),
        query_hash: query.as_ref().map(|query| blake3::hash(query).to_string()),
    };
    let bytes = package::pack(draft, kind::describe(*kind, &content), payload, key)?;
    let package = package::open(&bytes, &Keyring::new([key.public().into()])?, now, caps.bytes, true)?;
    let checked = kind::check(&package, previous, caps, arguments.force, now);
    let exercised = checked.and_then(|checked| kind.exercise(&checked.content));
    Ok(exercised.map(|()| (bytes, package)))
}

/// Writes a package in one step, so that nobody fetches half of one.
fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        // It is signed and no secret, and another user may be the one who fetches it.
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        fs::File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn show(path: &Path, trust: &[String], terminal: &Terminal) -> anyhow::Result<u8> {
    let bytes = read(path, MAX_BYTES)?;
    let manifest = package::peek(&bytes).with_context(|| path.display().to_string())?;
    let verified = if trust.is_empty() {
        Err("not verified: name its maker's public key with --trust".to_owned())
    } else {
        let keys = Keyring::parse(trust.iter().map(String::as_str))?;
        package::open(&bytes, &keys, now(), MAX_BYTES, true).map_err(|error| error.to_string())
    };
    if terminal.json {
        let (ok, reason) = (verified.is_ok(), verified.as_ref().err());
        terminal.print_json(&json!({ "manifest": manifest, "verified": ok, "reason": reason }));
    } else {
        terminal.package(&manifest, verified.as_ref().map(|package| package.key).map_err(String::as_str));
    }
    Ok(if verified.is_ok() || trust.is_empty() { EXIT_OK } else { EXIT_REFUSED })
}

#[cfg(test)]
mod tests;
