//! Every file in `cases/`: a configuration and what is said about it. `BLESS=1 cargo test -p snapshot --test compiler`
//! writes down what is said now; read the difference before committing it.
#![expect(clippy::disallowed_methods, reason = "the cases are files; the tests are not the crate")]

use std::path::Path;

use snapshot::diagnostic::render;
use snapshot::outline::outline;

use crate::support;

/// What is said about a case: its findings, or the outline of a generation without any.
fn said(case: &support::Case) -> String {
    let compiled = case.compile();
    let findings: Vec<_> = compiled.diagnostics.iter().map(|finding| render(finding, false)).collect();
    match (findings.as_slice(), &compiled.snapshot) {
        ([], Some(snapshot)) => outline(snapshot).join("\n") + "\n",
        (_, Some(_)) => findings.join("\n") + "\naccepted\n",
        (_, None) => findings.join("\n") + "\nrefused\n",
    }
}

fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let case = support::parse(&text);
    let said = said(&case);
    if said == case.expected {
        return Ok(());
    }
    if std::env::var_os("BLESS").is_some() {
        let front = text.len() - case.expected.len();
        std::fs::write(path, format!("{}{said}", &text[..front])).map_err(|error| error.to_string())?;
        return Ok(());
    }
    Err(format!("{}\n--- expected\n{}--- said\n{said}", path.display(), case.expected))
}

#[test]
fn every_case_is_answered_as_written() {
    // Where the folder is now: a program out of a cache may have been built elsewhere.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    let folder = Path::new(&here).join("tests/cases");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 50, "only {} cases were found", paths.len());
    let wrong: Vec<_> = paths.iter().filter_map(|path| check(path).err()).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), paths.len(), wrong.join("\n"));
}
