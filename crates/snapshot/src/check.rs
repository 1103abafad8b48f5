//! Text to `Desired`: syntax, unknown keys, wrong types and values out of bounds, all of them found in one go.

use std::fmt::Display;

use serde_json::{Map, Value, json};

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::desired::Desired;
use crate::desired::rules::RulesFile;
use crate::diagnostic::{Source, quote};
use crate::review::Review;
use crate::shape::{Key, Shape, alternatives, root, rules_root};
use crate::source::CONFIG_BYTES;
use crate::units::{ByteSize, PERIOD_FORMS, Period, SIZE_FORMS, UnitError};

/// How alike two keys must be (Jaro-Winkler, 0 to 1) for one to be suggested instead of the other.
const LIKENESS: f64 = 0.82;
/// A configuration to start from, for hints.
pub(crate) const SMALLEST: &str = "the smallest configuration is: [[listen]] address = \":8080\", [[site]] hosts = [\"*\"], \
     [[site.origin]] url = \"http://127.0.0.1:3000\"";

/// Reads a configuration. `None` when its structure could not be made out at all; the review always says why.
pub(crate) fn read(file: &str, bytes: &[u8]) -> (Review, Option<Desired>) {
    let head = bytes.get(..CONFIG_BYTES).unwrap_or(bytes);
    let mut review = Review::new(Source::new(file, &String::from_utf8_lossy(head)));
    let Some(text) = text(bytes, &mut review) else {
        return (review, None);
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let message = error.message().replace('\n', " ");
        review.error_at(&error.span().unwrap_or(0..0), "syntax", &message, syntax_hint(&message));
    }
    if !errors.is_empty() {
        return (review, None);
    }
    if document.get_ref().is_empty() {
        let what = if text.trim().is_empty() { "is empty" } else { "holds nothing but comments" };
        review.error_at(&(0..0), "empty", format!("the configuration {what}"), SMALLEST);
        return (review, None);
    }
    let Shape::Table(keys) = root() else {
        return (review, None);
    };
    let value = Checker { review: &mut review }.table(keys, document.get_ref(), "");
    match serde_json::from_value(value) {
        Ok(desired) => (review, Some(desired)),
        Err(error) => {
            // What the checker lets through, the types accept; if that is ever untrue, refusing is right.
            review.error_at(
                &(0..0),
                "internal",
                format!("cannot be understood: {error}"),
                "please report this",
            );
            (review, None)
        }
    }
}

/// Reads a file of rules that a configuration refers to; its places begin with `place`. `None` when it could not be made out,
/// which was said.
pub(crate) fn read_rules(review: &mut Review, file: &str, bytes: &[u8], place: &str) -> Option<RulesFile> {
    let head = bytes.get(..CONFIG_BYTES).unwrap_or(bytes);
    review.places.begin_file(Source::new(file, &String::from_utf8_lossy(head)));
    let found = read_table(review, bytes, place);
    review.places.end_file();
    found
}

fn read_table(review: &mut Review, bytes: &[u8], place: &str) -> Option<RulesFile> {
    let text = text(bytes, review)?;
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let message = error.message().replace('\n', " ");
        review.error_at(&error.span().unwrap_or(0..0), "syntax", &message, syntax_hint(&message));
    }
    let Shape::Table(keys) = rules_root() else { return None };
    if !errors.is_empty() {
        return None;
    }
    let value = Checker { review }.table(keys, document.get_ref(), place);
    match serde_json::from_value(value) {
        Ok(found) => Some(found),
        Err(error) => {
            let message = format!("cannot be understood: {error}");
            review.error_at(&(0..0), "internal", message, "please report this");
            None
        }
    }
}

/// The bytes as text, unless they are something else.
fn text<'a>(bytes: &'a [u8], review: &mut Review) -> Option<&'a str> {
    let mut refuse = |at: usize, code: &str, message: String, hint: &str| {
        review.error_at(&(at..at + 1), code, message, hint);
        None
    };
    if bytes.len() > CONFIG_BYTES {
        return refuse(
            0,
            "too-large",
            format!("the configuration is larger than {}", ByteSize::bytes(CONFIG_BYTES as u64)),
            "check that this is the right file",
        );
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return refuse(0, "not-utf-8", "the file is in UTF-16".to_owned(), "save it as UTF-8");
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return refuse(
            lossy_offset(bytes, at),
            "not-text",
            format!("byte {at} is NUL; this is no text file"),
            "check that this is the right file, and restore it if it is damaged",
        );
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let at = error.valid_up_to();
            refuse(
                lossy_offset(bytes, at),
                "not-utf-8",
                format!("byte {at} is not valid UTF-8"),
                "save the file as UTF-8; if it is no text, check that this is the right file",
            )
        }
    }
}

/// Where a byte is in the lossy text that locations are counted in.
fn lossy_offset(bytes: &[u8], at: usize) -> usize {
    bytes.get(..at).map_or(0, |front| String::from_utf8_lossy(front).len())
}

fn syntax_hint(message: &str) -> &'static str {
    let hints = [
        (
            "duplicate key",
            "write every key, and every [table], once; several of a kind are written [[table]]",
        ),
        ("must be quoted", "put the value in quotes: key = \"value\""),
        ("invalid basic string", "close the quotes on the same line"),
        ("invalid literal string", "close the quotes on the same line"),
        (
            "unclosed array table",
            "a table of which there are several is written [[table]], on a line of its own",
        ),
        ("unclosed array", "a list ends in `]`: key = [\"a\", \"b\"]"),
        ("unclosed inline table", "an inline table ends in `}`: key = { a = 1 }"),
        ("unclosed table", "the name of a table stands in brackets on a line of its own: [table]"),
        ("missing comma", "put a comma between two values"),
        ("key with no value", "a line is `key = value`, `[table]` or `# comment`"),
        ("missing value", "a line is `key = value`, `[table]` or `# comment`"),
        ("recursion", "nothing in this file needs more than five levels"),
    ];
    let known = hints.iter().find(|(part, _)| message.contains(part));
    known.map_or("the file is written in TOML: see https://toml.io", |(_, hint)| hint)
}

/// Walks document and shape side by side. What is wrong is reported and left out, so that the rest can be judged.
struct Checker<'r> {
    review: &'r mut Review,
}

impl Checker<'_> {
    fn table(&mut self, keys: &[Key], table: &DeTable<'_>, place: &str) -> Value {
        let mut out = Map::new();
        for (name, value) in table {
            let Some(key) = keys.iter().find(|key| key.name == name.get_ref().as_ref()) else {
                self.unknown_key(keys, name, place);
                continue;
            };
            let place = join(place, &key.name);
            if let Some(value) = self.value(&key.shape, value, &place) {
                out.insert(key.name.clone(), value);
            }
        }
        for key in keys.iter().filter(|key| key.required) {
            if out.contains_key(&key.name) {
                continue;
            }
            let own = join(place, &key.name);
            if !table.contains_key(key.name.as_str()) {
                let example = key.example.as_ref().map(as_toml).unwrap_or_default();
                let message = format!("`{}` is missing here", key.name);
                self.review.error(&own, "missing-key", message, format!("add `{} = {example}`", key.name));
                self.review.flag(&own);
            }
            out.insert(key.name.clone(), placeholder(&key.shape));
        }
        Value::Object(out)
    }

    fn unknown_key(&mut self, keys: &[Key], name: &Spanned<std::borrow::Cow<'_, str>>, place: &str) {
        let written = name.get_ref().as_ref();
        let similar = keys
            .iter()
            .map(|key| (strsim::jaro_winkler(&key.name, &written.to_ascii_lowercase()), key))
            .filter(|(likeness, _)| *likeness >= LIKENESS)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, key)| key);
        let hint = if let Some(key) = similar {
            // The key that was meant is not missing as well.
            self.review.flag(&join(place, &key.name));
            format!("did you mean `{}`?", key.name)
        } else {
            let mut elsewhere = Vec::new();
            tables_with(root().keys().unwrap_or_default(), written, "", &mut elsewhere);
            if elsewhere.is_empty() {
                let known: Vec<_> = keys.iter().map(|key| format!("`{}`", key.name)).collect();
                format!("known here: {}", known.join(", "))
            } else {
                format!("`{written}` belongs in {}", alternatives(&elsewhere))
            }
        };
        let message = match table_name(place) {
            table if table.is_empty() => format!("unknown key {}", quote(written)),
            table => format!("unknown key {} in `{table}`", quote(written)),
        };
        self.review.error_at(&name.span(), "unknown-key", message, hint);
    }

    /// The value in JSON, or nothing if it was wrong.
    fn value(&mut self, shape: &Shape, value: &Spanned<DeValue<'_>>, place: &str) -> Option<Value> {
        self.review.places.insert(place, value.span());
        match (shape, value.get_ref()) {
            (Shape::Table(keys), DeValue::Table(table))
            | (Shape::Words { table: Some(keys), .. }, DeValue::Table(table)) => {
                Some(self.table(keys, table, place))
            }
            (Shape::Map { values, maximum }, DeValue::Table(table)) => {
                self.map(values, *maximum, table, place)
            }
            (Shape::List { items, maximum }, DeValue::Array(values)) => {
                if values.len() > *maximum {
                    let message = format!("{} entries are too many", values.len());
                    self.refuse(place, "too-many", message, format!("at most {maximum} are accepted"));
                    return None;
                }
                let checked = values.iter().enumerate().map(|(index, value)| {
                    let place = format!("{place}[{index}]");
                    self.value(items, value, &place).unwrap_or_else(|| placeholder(items))
                });
                Some(Value::Array(checked.collect()))
            }
            (Shape::Words { words, .. }, DeValue::String(text)) => {
                if words.iter().any(|word| word.name == text.as_ref()) {
                    return Some(json!(text));
                }
                let likeness = |name: &str| strsim::jaro_winkler(name, &text.to_ascii_lowercase());
                let similar = words
                    .iter()
                    .filter(|word| likeness(&word.name) >= LIKENESS)
                    .max_by(|a, b| likeness(&a.name).total_cmp(&likeness(&b.name)));
                let hint = match similar {
                    Some(word) => format!("did you mean \"{}\"?", word.name),
                    None => format!("write {}", shape.noun()),
                };
                self.refuse(place, "unknown-word", format!("{} is not known here", quote(text)), hint)
            }
            (Shape::Text, DeValue::String(text)) => Some(json!(text)),
            (Shape::Boolean, DeValue::Boolean(value)) => Some(json!(value)),
            (Shape::Period { minimum, maximum }, DeValue::String(text)) => match Period::parse(text) {
                Ok(period) => self.bounded(period, *minimum, *maximum, place),
                Err(error) => self.unit("duration", text, error, PERIOD_FORMS, place),
            },
            (Shape::Size { none: true, .. }, DeValue::String(text)) if text == "none" => Some(json!("none")),
            (Shape::Size { minimum, maximum, .. }, DeValue::String(text)) => match ByteSize::parse(text) {
                Ok(size) => self.bounded(size, *minimum, *maximum, place),
                Err(error) => self.unit("size", text, error, SIZE_FORMS, place),
            },
            (Shape::Size { minimum, maximum, .. }, DeValue::Integer(number)) => {
                match integer(number).and_then(|bytes| u64::try_from(bytes).ok()) {
                    Some(bytes) => self.bounded(ByteSize::bytes(bytes), *minimum, *maximum, place),
                    None => self.unit("size", &number.to_string(), UnitError::NoNumber, SIZE_FORMS, place),
                }
            }
            (Shape::Integer { minimum, maximum }, DeValue::Integer(number)) => match integer(number) {
                Some(number) if (*minimum..=*maximum).contains(&number) => Some(json!(number)),
                _ => {
                    self.out_of_bounds(&number.to_string(), &minimum.to_string(), &maximum.to_string(), place)
                }
            },
            (_, found) => self.wrong_type(shape, found, place),
        }
    }

    /// A table with keys of the operator's choice.
    fn map(&mut self, values: &Shape, maximum: usize, table: &DeTable<'_>, place: &str) -> Option<Value> {
        if table.len() > maximum {
            let message = format!("{} entries are too many", table.len());
            return self.refuse(place, "too-many", message, format!("at most {maximum} are accepted"));
        }
        let mut out = Map::new();
        for (name, value) in table {
            let name = name.get_ref().as_ref();
            if let Some(value) = self.value(values, value, &join(place, name)) {
                out.insert(name.to_owned(), value);
            }
        }
        Some(Value::Object(out))
    }

    /// Reports, and answers that there is no value; nothing further is said about the place.
    fn refuse(&mut self, place: &str, code: &str, message: String, hint: String) -> Option<Value> {
        self.review.error(place, code, message, hint);
        self.review.flag(place);
        None
    }

    fn bounded<T>(&mut self, value: T, minimum: Option<T>, maximum: Option<T>, place: &str) -> Option<Value>
    where
        T: Copy + PartialOrd + Display,
    {
        let low = minimum.is_some_and(|minimum| value < minimum);
        let high = maximum.is_some_and(|maximum| value > maximum);
        if !low && !high {
            return Some(json!(value.to_string()));
        }
        let show = |bound: Option<T>| bound.map_or_else(|| "0".to_owned(), |bound| bound.to_string());
        self.out_of_bounds(&value.to_string(), &show(minimum), &show(maximum), place)
    }

    fn out_of_bounds(&mut self, value: &str, minimum: &str, maximum: &str, place: &str) -> Option<Value> {
        let message = format!("{value} is out of bounds");
        self.refuse(place, "out-of-bounds", message, format!("write a value from {minimum} to {maximum}"))
    }

    fn unit(&mut self, what: &str, text: &str, error: UnitError, forms: &str, place: &str) -> Option<Value> {
        let message = format!("{} is not a {what}: it {error}", quote(text));
        self.refuse(place, &format!("bad-{what}"), message, format!("write {forms}"))
    }

    fn wrong_type(&mut self, shape: &Shape, found: &DeValue<'_>, place: &str) -> Option<Value> {
        let (article, kind) = match found {
            DeValue::Array(_) | DeValue::Integer(_) => ("an", found.type_str()),
            _ => ("a", found.type_str()),
        };
        let name = table_name(place);
        let hint = match (shape, found) {
            (Shape::List { items, .. }, DeValue::Table(_)) if matches!(**items, Shape::Table(_)) => {
                format!("write `[[{name}]]` with two brackets: there can be several")
            }
            (Shape::Table(_), DeValue::Array(_)) if !place.ends_with(']') => {
                format!("write `[{name}]` with one bracket: there is only one")
            }
            (Shape::List { .. }, DeValue::String(text)) => format!("put it in brackets: [{}]", quote(text)),
            (Shape::Boolean, _) => "write true or false, without quotes".to_owned(),
            (Shape::Integer { .. }, DeValue::String(_)) => "write it without quotes".to_owned(),
            (Shape::Table(_), _) if place.ends_with(']') => format!("write `[[{name}]]`, and its keys below"),
            (Shape::Table(_), _) => format!("write `[{name}]`, and its keys below"),
            (Shape::Text, DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)) => {
                "put it in quotes".to_owned()
            }
            (Shape::Words { .. }, _) => format!("write {}", shape.noun()),
            (Shape::Period { .. }, _) => format!("write {PERIOD_FORMS}"),
            (Shape::Size { .. }, _) => format!("write {SIZE_FORMS}"),
            _ => format!("write {} here", shape.noun()),
        };
        let message = format!("expected {}, found {article} {kind}", shape.noun());
        self.refuse(place, "wrong-type", message, hint)
    }
}

/// An example as it would be written in the file.
fn as_toml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(as_toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}

/// The name of a table as it stands in brackets: `site.origin` for `site[0].origin[1]`.
fn table_name(place: &str) -> String {
    let parts = place.split('.').map(|part| part.split('[').next().unwrap_or_default());
    parts.collect::<Vec<_>>().join(".")
}

/// Every table that has a key of this name.
fn tables_with(keys: &[Key], name: &str, table: &str, found: &mut Vec<String>) {
    for key in keys {
        if key.name == name && !table.is_empty() {
            found.push(format!("`{table}`"));
        }
        if let Some(inner) = key.shape.keys() {
            tables_with(inner, name, &join(table, &key.name), found);
        }
    }
}

/// Stands in for a value that was refused, so that those after it keep their index.
fn placeholder(shape: &Shape) -> Value {
    match shape {
        Shape::Table(keys) => {
            let required = keys.iter().filter(|key| key.required);
            Value::Object(required.map(|key| (key.name.clone(), placeholder(&key.shape))).collect())
        }
        Shape::List { .. } => json!([]),
        Shape::Map { .. } => json!({}),
        Shape::Integer { minimum, .. } => json!(minimum),
        Shape::Boolean => json!(false),
        Shape::Words { words, .. } => json!(words.first().map(|word| word.name.as_str()).unwrap_or_default()),
        _ => json!(""),
    }
}
