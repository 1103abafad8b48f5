//! A diagnostic: what is wrong, where, and the way out. Made by `snapshot` and `app`, shown by the CLI.

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; the generation can be used.
    Warning,
    /// The generation is refused.
    Error,
}

/// A place in a source file, 1-based, columns counted in characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The file as the operator named it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// The text of that line, without line end; cut at 200 characters around the column.
    pub text: String,
    /// How many characters to underline, from `column`.
    pub width: u32,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable name for scripts, such as `unknown-key` or `certificate-expired`.
    pub code: String,
    /// What is wrong, one sentence, no full stop needed.
    pub message: String,
    /// Where, when it has a place.
    pub location: Option<Location>,
    /// The way out: what to write or do instead.
    pub hint: Option<String>,
}
