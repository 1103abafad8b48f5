//! `docs/reference/`: pages the binary writes about itself, so that they cannot drift from the code.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell::{Workspace, output};

/// Page, and the arguments that make the binary print it.
const PAGES: &[(&str, &[&str])] = &[
    ("docs/reference/command-line.md", &["reference", "cli"]),
    ("docs/reference/configuration.md", &["reference", "config"]),
    ("docs/reference/rempart.schema.json", &["reference", "schema"]),
    ("docs/reference/rules-language.md", &["reference", "rules"]),
    ("docs/reference/rules-language.json", &["reference", "language"]),
];

/// How to run it.
#[derive(Args)]
pub struct Options {
    /// Compare instead of writing
    #[arg(long)]
    check: bool,
}

/// Builds the binary and writes (or compares) every page.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    workspace.build_release()?;
    if options.check {
        return check(workspace);
    }
    for (page, text) in pages(workspace)? {
        let path = workspace.root.join(page);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text)?;
        println!("wrote {page}");
    }
    Ok(())
}

/// Compares the pages with what the release binary, built before, prints.
pub fn check(workspace: &Workspace) -> Result<()> {
    let mut stale = Vec::new();
    for (page, text) in pages(workspace)? {
        if !is_current(&workspace.root.join(page), &text) {
            stale.push(page);
        }
    }
    if !stale.is_empty() {
        bail!("not what the binary says: {}; run `cargo xtask docs` and commit the result", stale.join(", "));
    }
    Ok(())
}

fn is_current(page: &Path, text: &str) -> bool {
    fs::read_to_string(page).is_ok_and(|written| written == text)
}

fn pages(workspace: &Workspace) -> Result<Vec<(&'static str, String)>> {
    let mut pages = Vec::new();
    for (page, arguments) in PAGES {
        let mut text = output(workspace.command(workspace.binary()).args(*arguments))
            .with_context(|| format!("cannot generate {page}"))?;
        if text.trim().is_empty() {
            bail!("`rempart {}` printed nothing", arguments.join(" "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        pages.push((*page, text));
    }
    Ok(pages)
}
