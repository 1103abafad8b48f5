//! `cargo xtask walls`: the architecture as data, checked against what cargo and the files say.

mod crates;
mod files;
mod lexer;
mod table;

use std::fs;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::shell::Workspace;
use crates::{Member, Use};

/// Runs every check and lists all findings before failing.
pub fn run(workspace: &Workspace) -> Result<()> {
    let mut findings = crates::check(&members(workspace)?);
    let listed = workspace.files()?;
    for file in &listed {
        let name = file.to_string_lossy().replace('\\', "/");
        // A binary file has neither lines nor paths to complain about.
        let Ok(text) = fs::read_to_string(workspace.root.join(file)) else { continue };
        findings.extend(files::check_text(&name, &text, &machine_paths(workspace)));
        if name.ends_with(".rs") {
            findings.extend(files::check_rust(&name, &text));
        }
    }
    let names: Vec<String> = listed.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    findings.extend(files::check_present(&names));
    for finding in &findings {
        println!("    {finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} findings; the rules and their reasons are in xtask/src/walls/table.rs"),
    }
}

/// The packages of this workspace and what they use, from cargo.
fn members(workspace: &Workspace) -> Result<Vec<Member>> {
    let metadata = MetadataCommand::new()
        .current_dir(&workspace.root)
        .no_deps()
        .exec()
        .context("cannot read `cargo metadata`")?;
    let packages = metadata.workspace_packages();
    let inside = |name: &str| packages.iter().any(|package| package.name.as_str() == name);
    let mut members = Vec::new();
    for package in &packages {
        let folder = package
            .manifest_path
            .parent()
            .and_then(|folder| folder.strip_prefix(&metadata.workspace_root).ok())
            .with_context(|| format!("{} lies outside the workspace", package.name))?;
        let uses = package.dependencies.iter().map(|dependency| Use {
            name: dependency.name.clone(),
            inside: inside(&dependency.name) && dependency.path.is_some(),
            tests_only: dependency.kind == DependencyKind::Development,
        });
        members.push(Member {
            name: package.name.to_string(),
            folder: folder.as_str().to_owned(),
            uses: uses.collect(),
        });
    }
    Ok(members)
}

/// Path prefixes that only make sense on the machine this runs on.
fn machine_paths(workspace: &Workspace) -> Vec<String> {
    let shared = ["/", "/home", "/srv", "/opt", "/usr", "/var", "/tmp", "/etc", "/mnt", "/media"];
    let home = std::env::var("HOME").unwrap_or_default();
    let mut paths = Vec::new();
    for folder in [Some(workspace.root.as_path()), workspace.root.parent(), Some(std::path::Path::new(&home))]
    {
        let Some(folder) = folder.and_then(|folder| folder.to_str()) else { continue };
        if folder.starts_with('/') && !shared.contains(&folder) {
            paths.push(format!("{folder}/"));
        }
    }
    paths
}
