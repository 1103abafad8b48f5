//! A table: rows of text and numbers, each with a key of its own. The feed of whatever a module looks up.
//!
//! Lines of UTF-8 that end with a line feed, columns between tabs. The first line is `#columns name:text weight:number`, its
//! columns between spaces; the first column is the key. A bot-feature file is one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use api::diagnostic::{Diagnostic, Location, Severity};
use base::time::Timestamp;

use super::{Class, Content, Kind, OnFailure, Spread, Value, error};
use crate::package::Caps;

/// Columns of a table.
const MAX_COLUMNS: usize = 64;
/// Bytes of one line.
const MAX_LINE: usize = 4096;
/// Findings told of one table.
const MAX_FINDINGS: usize = 10;
/// Memory of a row beside its cells and its key, in bytes.
const ROW: usize = 160;
/// First word of the first line.
const HEAD: &str = "#columns";

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Any text without tabs and line ends.
    Text,
    /// A finite decimal number.
    Number,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub holds: ColumnType,
}

/// A table. Its text cells lie in one text, so that a row costs little more than its line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    columns: Vec<Column>,
    /// Number columns, one after the other, in the order of rows.
    numbers: Vec<f64>,
    /// Text columns likewise, all in one.
    texts: String,
    /// Where each of them ends in it.
    ends: Vec<u32>,
    rows: HashMap<Box<str>, u32, std::hash::BuildHasherDefault<std::hash::DefaultHasher>>,
}

impl Table {
    /// Its columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has none; a table that was checked has some.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The number in a row, by key and name of the column. `None` when there is no such row or column of numbers: not zero.
    pub fn number(&self, key: &str, column: &str) -> Option<f64> {
        let (position, width) = self.position(column, ColumnType::Number)?;
        self.numbers.get(*self.rows.get(key)? as usize * width + position).copied()
    }

    /// The text in a row, likewise.
    pub fn text(&self, key: &str, column: &str) -> Option<&str> {
        let (position, width) = self.position(column, ColumnType::Text)?;
        let cell = *self.rows.get(key)? as usize * width + position;
        let start = cell.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.texts.get(start as usize..*self.ends.get(cell)? as usize)
    }

    /// The keys of all rows, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(|key| &**key)
    }

    /// Memory it takes with the set of its keys, in bytes, rounded up: a row costs its place in the map, which may be half
    /// empty, its key three times, in the map, the set and the text, and what an allocation costs.
    fn memory(&self, text: usize) -> u64 {
        let keys: usize = self.rows.keys().map(|key| key.len()).sum();
        let cells = self.numbers.len() * 8 + self.ends.len() * 4;
        (text + 2 * keys + 2 * cells + self.rows.len() * ROW) as u64
    }

    /// How the numbers of each column are distributed.
    fn spreads(&self) -> Vec<Spread> {
        let columns: Vec<_> =
            self.columns.iter().filter(|column| column.holds == ColumnType::Number).collect();
        let of = |(position, column): (usize, &&Column)| {
            let numbers = || self.numbers.iter().skip(position).step_by(columns.len());
            Spread {
                name: column.name.clone(),
                count: numbers().count(),
                varies: numbers().any(|number| Some(number) != numbers().next()),
                largest: numbers().fold(0.0, |largest: f64, number| largest.max(number.abs())),
            }
        };
        columns.iter().enumerate().map(of).collect()
    }

    /// Where a column lies among those of its type, and how many of those there are.
    fn position(&self, column: &str, holds: ColumnType) -> Option<(usize, usize)> {
        let of_type = || self.columns.iter().filter(|column| column.holds == holds);
        Some((of_type().position(|found| found.name == column)?, of_type().count()))
    }
}

/// The kind.
pub struct TableKind;

impl Kind for TableKind {
    fn name(&self) -> &'static str {
        "table"
    }

    fn schema(&self) -> u32 {
        1
    }

    fn consumers(&self) -> (u32, u32) {
        (1, 1)
    }

    fn caps(&self) -> Caps {
        Caps { bytes: 32 << 20, entries: 100_000, memory: 128 << 20 }
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Unknown
    }

    fn read(&self, payload: &[u8], _now: Timestamp) -> Result<Content, Vec<Diagnostic>> {
        let text = std::str::from_utf8(payload).map_err(|found| {
            let line = payload.get(..found.valid_up_to()).unwrap_or_default();
            let line = 1 + line.iter().filter(|byte| **byte == b'\n').count();
            vec![at(line, "", "not-utf-8", "it is not UTF-8".to_owned(), "write it as UTF-8")]
        })?;
        let mut reading = Reading::default();
        let mut table = reading.table(text);
        table.texts.shrink_to_fit();
        if reading.findings.is_empty() {
            let keys: BTreeSet<String> = table.keys().map(str::to_owned).collect();
            let columns = table.columns.iter().map(|column| column.name.clone()).collect();
            let (memory, spreads) = (table.memory(text.len()), table.spreads());
            let classes = vec![
                Class { name: "rows", keys, needed: true },
                Class { name: "columns", keys: columns, needed: true },
            ];
            Ok(Content { classes, spreads, memory, value: Value::Table(table) })
        } else {
            Err(reading.findings)
        }
    }

    fn exercise(&self, content: &Content) -> Result<(), Vec<Diagnostic>> {
        let Value::Table(table) = &content.value else {
            return Err(vec![error("confused", "it is no table".to_owned(), "have the package made again")]);
        };
        for key in table.keys() {
            for column in table.columns() {
                let found = match column.holds {
                    ColumnType::Number => table.number(key, &column.name).is_some(),
                    ColumnType::Text => table.text(key, &column.name).is_some(),
                };
                if !found {
                    let message = format!("row {key:?} has no {}", column.name);
                    return Err(vec![error("incomplete", message, "have the package made again")]);
                }
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Reading {
    findings: Vec<Diagnostic>,
}

impl Reading {
    fn table(&mut self, text: &str) -> Table {
        let mut table = Table::default();
        if !text.is_empty() && !text.ends_with('\n') {
            let last = text.lines().count();
            self.find(last, "", "truncated", "the last line has no end: it was cut off".to_owned());
        }
        let mut lines = (1..).zip(text.split_terminator('\n'));
        match lines.next().and_then(|(_, line)| line.strip_prefix(HEAD)) {
            Some(columns) => table.columns = self.columns(columns),
            None => {
                let message = format!("the first line does not say `{HEAD} name:type ..`");
                self.find(1, text.lines().next().unwrap_or_default(), "no-columns", message);
            }
        }
        // Without its columns nothing else can be judged.
        if !self.findings.is_empty() {
            return table;
        }
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        for (number, line) in lines {
            if line.len() > MAX_LINE {
                self.find(number, "", "line-too-long", format!("the line has more than {MAX_LINE} bytes"));
            } else {
                self.row(&mut table, &mut first, number, line);
            }
            if self.findings.len() >= MAX_FINDINGS {
                break;
            }
        }
        table
    }

    fn columns(&mut self, text: &str) -> Vec<Column> {
        let mut columns: Vec<Column> = Vec::new();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let (name, holds) = match word.split_once(':') {
                Some((name, "text")) => (name, ColumnType::Text),
                Some((name, "number")) => (name, ColumnType::Number),
                _ => {
                    self.find(
                        1,
                        text,
                        "bad-column",
                        format!("{word:?} is not a name, a colon and text or number"),
                    );
                    continue;
                }
            };
            if name.is_empty() || columns.iter().any(|column| column.name == name) {
                self.find(
                    1,
                    text,
                    "bad-column",
                    format!("there is no name, or another column has it: {word:?}"),
                );
            }
            columns.push(Column { name: name.to_owned(), holds });
        }
        if columns.first().is_none_or(|column| column.holds != ColumnType::Text)
            || columns.len() > MAX_COLUMNS
        {
            let message =
                format!("a table has 1 to {MAX_COLUMNS} columns, and the first one, its key, is text");
            self.find(1, text, "bad-column", message);
        }
        columns
    }

    fn row<'a>(
        &mut self,
        table: &mut Table,
        first: &mut BTreeMap<&'a str, usize>,
        number: usize,
        line: &'a str,
    ) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [key, ..] = cells.as_slice() else { return };
        if cells.len() != table.columns.len() || key.is_empty() {
            let message =
                format!("{} cells where {} columns are, or an empty key", cells.len(), table.columns.len());
            return self.find(number, line, "bad-row", message);
        }
        if let Some(before) = first.insert(key, number) {
            let message = format!("the key {key:?} stands in line {before} already");
            return self.find(number, line, "duplicate-keys", message);
        }
        for (column, cell) in table.columns.iter().zip(&cells) {
            match column.holds {
                ColumnType::Text => {
                    table.texts.push_str(cell);
                    table.ends.push(u32::try_from(table.texts.len()).unwrap_or(u32::MAX));
                }
                ColumnType::Number => match cell.parse::<f64>() {
                    Ok(value) if value.is_finite() => table.numbers.push(value),
                    _ => {
                        let message = format!("{cell:?} in column {} is not a finite number", column.name);
                        return self.find(number, line, "not-finite", message);
                    }
                },
            }
        }
        let next = u32::try_from(table.rows.len()).unwrap_or(u32::MAX);
        table.rows.insert((*key).into(), next);
    }

    fn find(&mut self, line: usize, text: &str, code: &str, message: String) {
        self.findings.push(at(line, text, code, message, "see how its maker came to write this"));
    }
}

fn at(line: usize, text: &str, code: &str, message: String, hint: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: code.to_owned(),
        message,
        location: Some(Location {
            file: "table".to_owned(),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: 1,
            text: text.chars().take(200).collect(),
            width: 1,
        }),
        hint: Some(hint.to_owned()),
    }
}
