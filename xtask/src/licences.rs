//! `cargo xtask licences`: deny.toml's allow-list, bans and registries, checked over `cargo metadata`.
//!
//! cargo-deny reads the same file and knows more; where it is installed it runs too. It takes minutes to compile, which
//! is why the part that must hold on every change is checked here.

use std::collections::HashSet;
use std::fs;

use anyhow::{Context, Result, bail};
use cargo_metadata::{CargoOpt, MetadataCommand};

use crate::shell::{Workspace, find_program, output, succeed};

/// What deny.toml says, as far as it is checked here.
struct Policy {
    allowed: Vec<String>,
    banned: Vec<String>,
}

/// Checks every package of the lock file, and asks cargo-deny where there is one.
pub fn run(workspace: &Workspace) -> Result<()> {
    let text = fs::read_to_string(workspace.root.join("deny.toml")).context("cannot read deny.toml")?;
    let policy = policy(&text)?;
    let metadata = MetadataCommand::new()
        .current_dir(&workspace.root)
        .features(CargoOpt::AllFeatures)
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .context("cannot read `cargo metadata`")?;
    let built = built(workspace)?;
    let mut findings = Vec::new();
    for package in &metadata.packages {
        if !built.contains(&format!("{} v{}", package.name, package.version)) {
            continue;
        }
        let licence = package.license.as_deref();
        let registry = package.source.as_ref().map(|source| source.is_crates_io());
        findings.extend(check(package.name.as_str(), licence, registry, &policy));
    }
    for finding in &findings {
        println!("    {finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings over {} packages", findings.len(), built.len());
    }
    println!("    {} packages: licences, bans and registries as deny.toml wants", built.len());
    if find_program("cargo-deny").is_some() {
        succeed(&mut workspace.cargo(&["deny", "--all-features", "check", "licenses", "bans", "sources"]))?;
    }
    Ok(())
}

/// Packages that are built on some platform, as `name v1.2.3`. `cargo metadata` alone also lists what only a switched-off
/// feature of a dependency would bring.
fn built(workspace: &Workspace) -> Result<HashSet<String>> {
    let mut tree = workspace.cargo(&["tree", "--locked", "--workspace", "--all-features", "--target", "all"]);
    let listed = output(tree.args(["--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"]))?;
    let built: HashSet<String> = listed
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .filter(|package| !package.is_empty())
        .collect();
    if built.is_empty() {
        bail!("`cargo tree` lists no packages");
    }
    Ok(built)
}

/// Findings about one package; `from_crates_io` is `None` for our own.
fn check(name: &str, licence: Option<&str>, from_crates_io: Option<bool>, policy: &Policy) -> Vec<String> {
    let mut findings = Vec::new();
    match licence {
        None => findings.push(format!("{name}: states no licence")),
        Some(licence) if !acceptable(licence, &policy.allowed) => {
            findings.push(format!("{name}: {licence} is not on deny.toml's list"));
        }
        Some(_) => {}
    }
    if policy.banned.iter().any(|banned| banned == name) {
        findings.push(format!("{name}: is banned by deny.toml"));
    }
    if from_crates_io == Some(false) {
        findings.push(format!("{name}: does not come from crates.io"));
    }
    findings
}

fn policy(text: &str) -> Result<Policy> {
    let table: toml::Table = text.parse().context("deny.toml")?;
    let list = |section: &str, key: &str| {
        table.get(section).and_then(|section| section.get(key)).and_then(|list| list.as_array()).cloned()
    };
    let allowed = list("licenses", "allow").context("deny.toml has no licenses.allow")?;
    let banned = list("bans", "deny").unwrap_or_default();
    let words = |list: Vec<toml::Value>| -> Vec<String> {
        list.iter()
            .filter_map(|entry| entry.as_str().or_else(|| entry.get("crate").and_then(|name| name.as_str())))
            .map(str::to_owned)
            .collect()
    };
    Ok(Policy { allowed: words(allowed), banned: words(banned) })
}

/// Whether an SPDX expression can be satisfied by the allowed licences. The old `A/B` means `A OR B`.
fn acceptable(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let fine = any_of(&words, &mut at, allowed);
    fine && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut fine = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        fine |= all_of(words, at, allowed);
    }
    fine
}

fn all_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut fine = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        fine &= one(words, at, allowed);
    }
    fine
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let fine = any_of(words, at, allowed);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return fine && closed;
    }
    let mut licence = word.to_owned();
    if let (Some(&"WITH"), Some(exception)) = (words.get(*at), words.get(*at + 1)) {
        licence = format!("{word} WITH {exception}");
        *at += 2;
    }
    allowed.contains(&licence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Policy {
        let text = "[licenses]\nallow = ['MIT', 'Apache-2.0', 'Apache-2.0 WITH LLVM-exception']\n\
                    [bans]\ndeny = ['openssl-sys', { crate = 'ring', reason = 'one library for cryptography' }]";
        policy(text).unwrap()
    }

    #[test]
    fn expressions() {
        let allowed = example().allowed;
        for fine in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "(GPL-3.0 OR MIT) AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(acceptable(fine, &allowed), "{fine}");
        }
        for refused in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "MIT AND (GPL-3.0 OR X)",
            "MIT WITH Something",
            "",
            "(MIT",
            "MIT MIT",
        ] {
            assert!(!acceptable(refused, &allowed), "{refused}");
        }
    }

    #[test]
    fn packages() {
        let policy = example();
        assert!(check("tokio", Some("MIT"), Some(true), &policy).is_empty());
        assert!(check("base", Some("Apache-2.0"), None, &policy).is_empty());
        assert_eq!(check("x", None, Some(true), &policy).len(), 1);
        assert_eq!(check("x", Some("GPL-3.0"), Some(true), &policy).len(), 1);
        assert_eq!(check("x", Some("MIT"), Some(false), &policy).len(), 1);
        assert_eq!(check("openssl-sys", Some("MIT"), Some(true), &policy).len(), 1);
        assert_eq!(check("ring", Some("MIT"), Some(true), &policy).len(), 1);
    }
}
