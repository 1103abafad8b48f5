//! What every file must look like.

use super::lexer::{code_only, names_crate};
use super::table::{ARCHITECTURE_LINES, FILE_KIB, FILE_LINES, FOREIGN, LONG_FILES, MUST_EXIST};

/// Findings about a Rust file; `name` is relative to the workspace.
pub fn check_rust(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if !opens_with_a_sentence(text) {
        findings.push(format!("{name}:1: must open with one `//!` sentence that says what lives here"));
    }
    let lines = text.lines().count();
    let listed = LONG_FILES.iter().any(|(file, _)| *file == name);
    if lines > FILE_LINES && !listed {
        findings.push(format!(
            "{name}: {lines} lines, more than {FILE_LINES}; split it, or list it with a reason"
        ));
    }
    if lines <= FILE_LINES && listed {
        findings.push(format!("{name}: listed as long, but has only {lines} lines"));
    }
    if name.starts_with("crates/") {
        let code = code_only(text);
        for foreign in FOREIGN {
            let at_home = foreign
                .homes
                .iter()
                .any(|home| if home.ends_with('/') { name.starts_with(home) } else { name == *home });
            if !at_home && names_crate(&code, foreign.path) {
                findings.push(format!(
                    "{name}: names {}, which lives in {}",
                    foreign.path,
                    foreign.homes.join(", ")
                ));
            }
        }
    }
    findings
}

fn opens_with_a_sentence(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("//! ").is_some_and(|sentence| sentence.split_whitespace().count() >= 2)
}

/// Findings about any text file.
pub fn check_text(name: &str, text: &str, machine_paths: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    if name == "ARCHITECTURE.md" && text.lines().count() > ARCHITECTURE_LINES {
        findings.push(format!("{name}: {} lines, more than {ARCHITECTURE_LINES}", text.lines().count()));
    }
    if text.len() > FILE_KIB * 1024 {
        findings.push(format!("{name}: {} KiB, more than {FILE_KIB}", text.len() / 1024));
    }
    for (number, line) in text.lines().enumerate() {
        if let Some(path) = machine_paths.iter().find(|path| line.contains(path.as_str())) {
            findings.push(format!("{name}:{}: names {path}, a path of one machine", number + 1));
        }
    }
    findings
}

/// Findings about files that should be there.
pub fn check_present(names: &[String]) -> Vec<String> {
    let missing = MUST_EXIST.iter().filter(|wanted| !names.iter().any(|name| name == *wanted));
    missing.map(|wanted| format!("{wanted}: is missing")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One finding that contains `expected`, or none when it is empty.
    fn check(findings: &[String], expected: &str) {
        if expected.is_empty() {
            assert_eq!(findings, Vec::<String>::new());
        } else {
            assert!(findings.len() == 1 && findings[0].contains(expected), "{expected}: {findings:?}");
        }
    }

    #[test]
    fn rust_files() {
        let good = "//! Listens and accepts.\nuse crate::h2::serve;\n";
        check(&check_rust("crates/edge/src/listen.rs", good), "");
        check(&check_rust("crates/edge/src/listen.rs", "use std::fs;\n"), "must open with");
        check(&check_rust("crates/edge/src/listen.rs", "//! Stuff\n"), "must open with");
        check(&check_rust("crates/edge/src/listen.rs", &format!("{good}{}", "\n".repeat(600))), "602 lines");
        let foreign = "//! Uses a foreign type.\nuse h2::server;\n";
        check(&check_rust("crates/edge/src/pipeline.rs", foreign), "names h2");
        check(&check_rust("crates/edge/src/h2/server.rs", foreign), "");
        check(&check_rust("tests/e2e/tests/frames.rs", foreign), "");
        let resolver = "//! Uses another one.\nuse hickory_resolver::Resolver;\n";
        check(&check_rust("crates/edge/src/upstream/pool.rs", resolver), "names hickory_resolver");
        check(&check_rust("crates/edge/src/upstream/resolve.rs", resolver), "");
    }

    #[test]
    fn text_files() {
        let here = ["/build/folder/".to_owned()];
        check(&check_text("README.md", "Look into docs/.\n", &here), "");
        check(
            &check_text("README.md", "\nLook into /build/folder/docs.\n", &here),
            "README.md:2: names /build/folder/",
        );
        check(&check_text("ARCHITECTURE.md", &"line\n".repeat(301), &here), "301 lines");
        check(&check_text("ARCHITECTURE.md", &"line\n".repeat(300), &here), "");
        check(&check_text("docs/data.json", &"x".repeat(1024 * 1024 + 1), &here), "1024 KiB");
    }

    #[test]
    fn missing_files() {
        let all: Vec<String> = MUST_EXIST.iter().map(|name| (*name).to_owned()).collect();
        check(&check_present(&all), "");
        check(&check_present(&all[1..]), "README.md: is missing");
    }
}
