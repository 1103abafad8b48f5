//! What one look at a configuration finds out: where everything is written, and everything that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use api::diagnostic::{Diagnostic, Location, Severity};

use crate::diagnostic::{MAXIMUM_FINDINGS, Source, finish};

/// Findings collected before sorting; a file with more is beyond help, and memory stays bounded.
const MAXIMUM_COLLECTED: usize = 2 * MAXIMUM_FINDINGS;

/// Pointers such as `site[0].tls.certificate`, and where they are written in the file.
#[derive(Clone, Debug)]
pub struct Places {
    /// The configuration, then the files of rules it refers to.
    sources: Vec<Source>,
    /// The one that is being read.
    current: usize,
    spans: BTreeMap<String, (usize, Range<usize>)>,
}

impl Default for Places {
    /// Of a configuration without text: everything is at its beginning.
    fn default() -> Self {
        Self::new(Source::new("", ""))
    }
}

impl Places {
    pub(crate) fn new(source: Source) -> Self {
        Self { sources: vec![source], current: 0, spans: BTreeMap::new() }
    }

    /// What is found from now on is in another file.
    pub(crate) fn begin_file(&mut self, source: Source) {
        self.current = self.sources.len();
        self.sources.push(source);
    }

    /// What is found from now on is in the configuration again.
    pub(crate) fn end_file(&mut self) {
        self.current = 0;
    }

    pub(crate) fn insert(&mut self, place: &str, span: Range<usize>) {
        self.spans.insert(place.to_owned(), (self.current, span));
    }

    fn located(&self, source: usize, span: &Range<usize>) -> Location {
        match self.sources.get(source) {
            Some(source) => source.location(span),
            None => Source::new("", "").location(span),
        }
    }

    pub(crate) fn contains(&self, place: &str) -> bool {
        self.spans.contains_key(place)
    }

    /// Where a pointer is written; what is not written (a default) is found at the table it would stand in.
    pub fn locate(&self, place: &str) -> Location {
        let mut place = place;
        loop {
            if let Some((source, span)) = self.spans.get(place) {
                return self.located(*source, span);
            }
            match parent(place) {
                Some(parent) => place = parent,
                None => return self.located(0, &(0..0)),
            }
        }
    }

    /// A part of the text that is written at a place, by its line and column there (from 1) and its length in characters.
    /// Where the text has escapes, so that the two differ, the whole of it.
    fn locate_within(&self, place: &str, line: usize, column: usize, length: usize) -> Location {
        let part = || {
            let (source, span) = self.spans.get(place)?;
            let written = self.sources.get(*source)?.text().get(span.clone())?;
            let quotes =
                ["\'\'\'", "\"\"\"", "\'", "\""].into_iter().find(|quotes| written.starts_with(quotes))?;
            if quotes.starts_with('"') && written.contains('\\') {
                return None;
            }
            let mut from = quotes.len();
            // A line end right behind three quotes does not count.
            if quotes.len() == 3 && written.get(from..)?.starts_with('\n') {
                from += 1;
            }
            for _ in 1..line {
                from += written.get(from..)?.find('\n')? + 1;
            }
            let rest = written.get(from..)?;
            let bytes =
                |characters: usize| rest.char_indices().nth(characters).map_or(rest.len(), |(at, _)| at);
            let (start, end) = (bytes(column.saturating_sub(1)), bytes(column.saturating_sub(1) + length));
            let front = span.start + from;
            Some(self.located(*source, &(front + start..front + end)))
        };
        part().unwrap_or_else(|| self.locate(place))
    }

    /// The place and, for messages about two places, the line of it.
    pub(crate) fn line(&self, place: &str) -> u32 {
        self.locate(place).line
    }

    pub(crate) fn location(&self, span: &Range<usize>) -> Location {
        self.located(self.current, span)
    }
}

/// `site[0].tls` of `site[0].tls.key`, `site` of `site[0]`.
fn parent(place: &str) -> Option<&str> {
    place.rfind(['.', '[']).and_then(|at| place.get(..at))
}

/// Places and findings together, while a configuration is looked at.
#[derive(Debug)]
pub(crate) struct Review {
    pub places: Places,
    findings: Vec<Diagnostic>,
    uncounted: usize,
    /// Places already complained about: nothing below them is believed or judged again.
    flagged: BTreeSet<String>,
    has_errors: bool,
}

impl Review {
    pub fn new(source: Source) -> Self {
        Self {
            places: Places::new(source),
            findings: Vec::new(),
            uncounted: 0,
            flagged: BTreeSet::new(),
            has_errors: false,
        }
    }

    /// True once anything was found for which the generation must be refused.
    pub fn has_errors(&self) -> bool {
        self.has_errors
    }

    /// Something wrong at a place, unless that place was already complained about.
    pub fn error(&mut self, place: &str, code: &str, message: impl Into<String>, hint: impl Into<String>) {
        if !self.is_flagged(place) {
            self.push(Severity::Error, code, message.into(), hint.into(), |places| places.locate(place));
        }
    }

    /// Something worth knowing at a place, unless that place was already complained about.
    pub fn warning(&mut self, place: &str, code: &str, message: impl Into<String>, hint: impl Into<String>) {
        if !self.is_flagged(place) {
            self.push(Severity::Warning, code, message.into(), hint.into(), |places| places.locate(place));
        }
    }

    /// Something wrong inside an expression that is written at a place.
    pub fn error_within(&mut self, place: &str, code: &str, error: &expr::ExpressionError) {
        if !self.is_flagged(place) {
            let hint = error.suggestion.clone().unwrap_or_default();
            self.push(Severity::Error, code, error.reason.clone(), hint, |places| {
                places.locate_within(place, error.line, error.column, error.length)
            });
        }
    }

    /// Something wrong at bytes that have no pointer, such as an unknown key.
    pub fn error_at(
        &mut self,
        span: &Range<usize>,
        code: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(Severity::Error, code, message.into(), hint.into(), |places| places.location(span));
    }

    /// Makes later findings at this place, or below it, be swallowed.
    pub fn flag(&mut self, place: &str) {
        self.flagged.insert(place.to_owned());
    }

    /// Whether this place or one above it was flagged.
    pub fn is_flagged(&self, place: &str) -> bool {
        let mut place = Some(place);
        while let Some(here) = place {
            if self.flagged.contains(here) {
                return true;
            }
            place = parent(here);
        }
        false
    }

    /// Places and findings, sorted and bounded.
    pub fn into_parts(self) -> (Places, Vec<Diagnostic>) {
        (self.places, finish(self.findings, self.uncounted))
    }

    fn push(
        &mut self,
        severity: Severity,
        code: &str,
        message: String,
        hint: String,
        // Asked for only when it is kept: counting columns in one endless line is slow.
        location: impl Fn(&Places) -> Location,
    ) {
        self.has_errors |= severity == Severity::Error;
        if self.findings.len() >= MAXIMUM_COLLECTED {
            self.uncounted += 1;
            return;
        }
        self.findings.push(Diagnostic {
            severity,
            code: code.to_owned(),
            message,
            location: Some(location(&self.places)),
            hint: Some(hint).filter(|hint| !hint.is_empty()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_written_is_found_at_its_table() {
        let mut places = Places::new(Source::new("a.toml", "\n[[site]]\nhosts = []\n"));
        places.insert("site", 1..9);
        places.insert("site[0]", 1..9);
        places.insert("site[0].hosts", 18..20);
        for (place, line) in
            [("site[0].hosts", 3), ("site[0].hosts[3]", 3), ("site[0].origin[0].tls", 2), ("via", 1)]
        {
            assert_eq!(places.locate(place).line, line, "{place}");
        }
    }

    #[test]
    fn a_flag_silences_everything_below() {
        let mut review = Review::new(Source::new("a.toml", ""));
        review.flag("site[0].origin");
        review.error("site[0].origin[1].url", "x", "m", "h");
        assert!(!review.has_errors());
        review.error("site[0].origins", "x", "m", "h");
        assert!(review.has_errors());
    }
}
