//! What is wrong with an expression: where, why, and what was perhaps meant.

use std::fmt;

/// A part of the source: byte offsets, the end not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    pub(crate) fn to(self, last: Span) -> Span {
        Span { start: self.start, end: last.end.max(self.end) }
    }
}

/// An expression that cannot be used. `Display` prints the line, a caret under the place, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ExpressionError {
    source_text: String,
    line_text: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// Length of the place in characters, at least 1.
    pub length: usize,
    /// Why it is refused, in the wording of Cloudflare's API where that is known.
    pub reason: String,
    /// What to write instead, where there is a guess.
    pub suggestion: Option<String>,
}

/// A fault before its place is turned into lines and columns.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub span: Span,
    pub reason: String,
    pub suggestion: Option<String>,
}

impl Fault {
    pub fn new(span: Span, reason: impl Into<String>) -> Self {
        Self { span, reason: reason.into(), suggestion: None }
    }

    pub fn hint(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    pub fn locate(self, source: &str) -> ExpressionError {
        let start = floor(source, self.span.start);
        let end = floor(source, self.span.end.max(start));
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);
        ExpressionError {
            source_text: source.to_owned(),
            line_text: source[line_start..line_end].trim_end_matches('\r').to_owned(),
            line: source[..start].matches('\n').count() + 1,
            column: source[line_start..start].chars().count() + 1,
            length: source[start..end.min(line_end).max(start)].chars().count().max(1),
            reason: self.reason,
            suggestion: self.suggestion,
        }
    }
}

fn floor(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl ExpressionError {
    /// The message as the rulesets API words it.
    pub fn api_message(&self) -> String {
        format!(
            "'{}' is not a valid value for expression because could not parse filter expression: {self}",
            self.source_text
        )
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "Filter parsing error ({}:{}):", self.line, self.column)?;
        writeln!(out, "{}", self.line_text)?;
        write!(out, "{}{} {}", " ".repeat(self.column - 1), "^".repeat(self.length), self.reason)?;
        match &self.suggestion {
            Some(suggestion) => write!(out, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

/// The candidate nearest to a misspelt name, if one is near enough to be meant.
pub(crate) fn nearest<'n>(name: &str, candidates: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let near = 1 + name.len() / 6;
    candidates
        .map(|candidate| (distance(name.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(distance, _)| *distance <= near)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two names, a swap of neighbours counting as one (optimal string alignment).
fn distance(left: &[u8], right: &[u8]) -> usize {
    if left.len().abs_diff(right.len()) > 8 {
        return usize::MAX;
    }
    let width = right.len() + 1;
    let mut rows = vec![0; (left.len() + 1) * width];
    for at in 0..rows.len() {
        let (row, column) = (at / width, at % width);
        rows[at] = if row == 0 || column == 0 {
            row + column
        } else {
            let same = usize::from(left[row - 1] != right[column - 1]);
            let mut least = (rows[at - width] + 1).min(rows[at - 1] + 1).min(rows[at - width - 1] + same);
            if row > 1
                && column > 1
                && left[row - 1] == right[column - 2]
                && left[row - 2] == right[column - 1]
            {
                least = least.min(rows[at - 2 * width - 2] + 1);
            }
            least
        };
    }
    rows[rows.len() - 1]
}
