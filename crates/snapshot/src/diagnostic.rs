//! Collecting findings and showing them: source text to lines and columns, and the picture with the caret.

use std::fmt::Write as _;
use std::ops::Range;

use api::diagnostic::{Diagnostic, Location, Severity};

/// Findings reported for one configuration; further ones are only counted.
pub const MAXIMUM_FINDINGS: usize = 100;
/// Characters of a source line that go into a location.
const LINE_CHARACTERS: usize = 200;
/// Column (from 0) up to which a line is shown from its beginning; further right, the window moves along.
const STILL_FROM_START: usize = 150;
/// Characters shown in front of the column once the window has moved.
const CHARACTERS_BEFORE: usize = 100;
/// Characters of an operator's value quoted in a message.
const QUOTED_CHARACTERS: usize = 60;

/// A source file and the means to turn byte offsets into lines.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    file: String,
    text: String,
    line_starts: Vec<usize>,
}

impl Source {
    pub fn new(file: &str, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            line_starts: std::iter::once(0).chain(ends).collect(),
        }
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line (from 1) of a byte offset.
    pub fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// Where a span of bytes is; a span over several lines is underlined to the end of its first.
    pub fn location(&self, span: &Range<usize>) -> Location {
        let mut offset = span.start.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.line(offset);
        let start = line.checked_sub(1).and_then(|index| self.line_starts.get(index)).copied().unwrap_or(0);
        let end = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        let text = self.text.get(start..end).unwrap_or_default().trim_end_matches(['\n', '\r']);
        let column = self.text.get(start..offset).map_or(0, |front| front.chars().count());
        let rest = self.text.get(offset..start + text.len()).unwrap_or_default();
        let length = span.end.saturating_sub(offset);
        let width =
            rest.char_indices().take_while(|(at, _)| *at < length).take(LINE_CHARACTERS).count().max(1);
        Location {
            file: self.file.clone(),
            line: to_u32(line),
            column: to_u32(column + 1),
            text: text.chars().skip(window_start(column)).take(LINE_CHARACTERS).collect(),
            width: to_u32(width),
        }
    }
}

/// Characters cut off the front of a line so that a column (from 0) is in view.
fn window_start(column: usize) -> usize {
    if column < STILL_FROM_START { 0 } else { column - CHARACTERS_BEFORE }
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// An operator's text in quotes, shortened, and without anything a terminal would act upon.
pub(crate) fn quote(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED_CHARACTERS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("\"{}\"", printable(&short))
}

/// Replaces control characters and the ones that change the direction of writing.
fn printable(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if harmful(c) => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

/// A diagnostic about a file as a whole.
pub(crate) fn about_file(
    severity: Severity,
    code: &str,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Diagnostic {
    Diagnostic {
        severity,
        code: code.to_owned(),
        message: message.into(),
        location: None,
        hint: Some(hint.into()),
    }
}

/// Sorts by place, drops what was said twice, and cuts to `MAXIMUM_FINDINGS`; `uncollected` more were never kept.
pub(crate) fn finish(mut diagnostics: Vec<Diagnostic>, uncollected: usize) -> Vec<Diagnostic> {
    let place = |diagnostic: &Diagnostic| {
        diagnostic.location.as_ref().map(|location| (location.line, location.column))
    };
    diagnostics.sort_by_key(place);
    diagnostics.dedup();
    if diagnostics.len() > MAXIMUM_FINDINGS {
        let rest = diagnostics.split_off(MAXIMUM_FINDINGS);
        let severity = rest.iter().map(|diagnostic| diagnostic.severity).max().unwrap_or(Severity::Warning);
        diagnostics.push(about_file(
            severity,
            "more-findings",
            format!("there are {} further findings", rest.len() + uncollected),
            "correct the ones above first",
        ));
    }
    diagnostics
}

/// One finding as text of several lines, with the source line and a caret; `colour` adds ANSI colours.
pub fn render(diagnostic: &Diagnostic, colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let (word, tone) = match diagnostic.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
    };
    let head = paint(tone, &format!("{word}[{}]", diagnostic.code));
    let mut out = format!("{head}{}\n", paint("1", &format!(": {}", printable(&diagnostic.message))));
    let mut margin = String::from(" ");
    if let Some(location) = &diagnostic.location {
        let number = location.line.to_string();
        margin = " ".repeat(number.len());
        let column = location.column.saturating_sub(1) as usize;
        let before = column - window_start(column);
        let shown = location.text.chars().count().saturating_sub(before).max(1);
        let carets = "^".repeat((location.width as usize).clamp(1, shown));
        let bar = paint("1;34", "|");
        let lines = [
            format!(
                "{margin}{} {}:{}:{}",
                paint("1;34", "-->"),
                printable(&location.file),
                location.line,
                location.column
            ),
            format!("{margin} {bar}"),
            format!("{} {bar} {}", paint("1;34", &number), printable(&location.text)).trim_end().to_owned(),
            format!("{margin} {bar} {}{}", " ".repeat(before), paint(tone, &carets)),
        ];
        for line in lines {
            out.push_str(&line);
            out.push('\n');
        }
    }
    if let Some(hint) = &diagnostic.hint {
        // Writing to a `String` cannot fail.
        let _written = writeln!(
            out,
            "{margin} {} {}",
            paint("1;34", "="),
            paint("1;36", "hint:") + " " + &printable(hint)
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_become_lines_and_columns_counted_in_characters() {
        let source = Source::new("a.toml", "eins\nzwölf = 'ä'\r\nend");
        let location = source.location(&(5..11));
        assert_eq!((location.line, location.column, location.width), (2, 1, 5));
        assert_eq!(location.text, "zwölf = 'ä'");
        let value = source.location(&(14..18));
        assert_eq!((value.line, value.column, value.width), (2, 9, 3));
        let end = source.location(&(20..400));
        assert_eq!((end.line, end.column, end.width), (3, 1, 3));
        let beyond = source.location(&(900..901));
        assert_eq!((beyond.line, beyond.column, beyond.width), (3, 4, 1));
    }

    #[test]
    fn the_caret_stays_under_its_column_in_a_very_long_line() {
        let text = format!("{}X{}", "a".repeat(5_000), "b".repeat(5_000));
        let location = Source::new("a", &text).location(&(5_000..5_001));
        assert_eq!((location.column, location.text.len()), (5_001, LINE_CHARACTERS));
        let shown = render(
            &Diagnostic {
                severity: Severity::Error,
                code: "x".into(),
                message: "m".into(),
                location: Some(location),
                hint: None,
            },
            false,
        );
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[3].find('X'), lines[4].find('^'), "{shown}");
    }

    #[test]
    fn nothing_a_terminal_would_act_upon_gets_through() {
        let source = Source::new("a\x1b[2J", "key = \x1b[31m\u{202e}");
        let diagnostic = Diagnostic {
            severity: Severity::Warning,
            code: "x".into(),
            message: format!("{} is bad", quote("\x1b]0;title\x07")),
            location: Some(source.location(&(6..9))),
            hint: Some("\x1b[0m".into()),
        };
        assert!(
            !render(&diagnostic, false).contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}')
        );
    }
}
