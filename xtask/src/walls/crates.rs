//! Which package uses which, against the table.

use super::table::{PURE_MUST_NOT_USE, WALLS};

/// A package as cargo sees it.
pub struct Member {
    pub name: String,
    /// Relative to the workspace, with `/`.
    pub folder: String,
    pub uses: Vec<Use>,
}

/// One of its dependencies.
pub struct Use {
    pub name: String,
    /// Another package of this workspace.
    pub inside: bool,
    pub tests_only: bool,
}

/// Findings over all packages.
pub fn check(members: &[Member]) -> Vec<String> {
    members.iter().flat_map(check_member).collect()
}

fn check_member(member: &Member) -> Vec<String> {
    let Some(wall) = WALLS.iter().find(|wall| wall.name == member.name) else {
        return vec![format!("package {}: not in the table of crates", member.name)];
    };
    let mut findings = Vec::new();
    let folder = format!("{}/{}", wall.under, wall.name);
    if member.folder != folder.trim_start_matches('/') {
        findings.push(format!("package {}: lies in {}, not in {folder}", member.name, member.folder));
    }
    for dependency in &member.uses {
        if dependency.inside && !wall.may_use.contains(&dependency.name.as_str()) {
            findings.push(format!(
                "package {}: uses {}, may use only: {}",
                member.name,
                dependency.name,
                wall.may_use.join(" ")
            ));
        }
        let impure = PURE_MUST_NOT_USE.contains(&dependency.name.as_str());
        if wall.pure && impure && !dependency.tests_only {
            findings.push(format!("package {}: is pure and must not use {}", member.name, dependency.name));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, folder: &str, uses: &[(&str, bool, bool)]) -> Member {
        let uses = uses.iter().map(|(name, inside, tests_only)| Use {
            name: (*name).to_owned(),
            inside: *inside,
            tests_only: *tests_only,
        });
        Member { name: name.to_owned(), folder: folder.to_owned(), uses: uses.collect() }
    }

    #[test]
    fn what_the_table_allows_is_fine() {
        let fine = [
            member("base", "crates/base", &[("serde", false, false), ("tempfile", false, true)]),
            member("edge", "crates/edge", &[("base", true, false), ("tokio", false, false)]),
            member("xtask", "xtask", &[("clap", false, false)]),
        ];
        assert_eq!(check(&fine), Vec::<String>::new());
    }

    #[test]
    fn each_broken_wall_is_found() {
        let cases = [
            (member("edge", "crates/edge", &[("dns", true, false)]), "uses dns"),
            (member("edge", "crates/edge", &[("app", true, true)]), "uses app"),
            (member("base", "crates/base", &[("tokio", false, false)]), "must not use tokio"),
            (member("base", "crates/foundation", &[]), "lies in crates/foundation"),
            (member("misc", "crates/misc", &[]), "not in the table"),
        ];
        for (case, expected) in cases {
            let findings = check(&[case]);
            assert!(findings.len() == 1 && findings[0].contains(expected), "{expected}: {findings:?}");
        }
    }

    #[test]
    fn the_table_has_no_cycle() {
        for (position, wall) in WALLS.iter().enumerate() {
            for used in wall.may_use {
                let found = WALLS.iter().position(|other| other.name == *used);
                assert!(found.is_some_and(|found| found < position), "{} before {used}", wall.name);
            }
        }
    }
}
