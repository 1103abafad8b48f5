//! The shape of `rempart.toml`, read off the JSON schema of its types: what the checker, the schema and the reference
//! page all go by.

use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::desired::Desired;
use crate::desired::rules::RulesFile;
use crate::units::{ByteSize, Period};

/// What may stand at one place of the configuration.
#[derive(Debug)]
pub(crate) enum Shape {
    /// A table with known keys.
    Table(Vec<Key>),
    /// A table with keys of the operator's choice.
    Map { values: Box<Shape>, maximum: usize },
    /// A list, or an array of tables when the items are tables.
    List { items: Box<Shape>, maximum: usize },
    /// One of a few words, or possibly a table instead.
    Words { words: Vec<Word>, table: Option<Vec<Key>> },
    /// Any text.
    Text,
    /// A duration within bounds.
    Period { minimum: Option<Period>, maximum: Option<Period> },
    /// A size within bounds; `none` says whether the word `none` is allowed too.
    Size { minimum: Option<ByteSize>, maximum: Option<ByteSize>, none: bool },
    /// A whole number within bounds.
    Integer { minimum: i64, maximum: i64 },
    /// `true` or `false`.
    Boolean,
}

/// One key of a table.
#[derive(Debug)]
pub(crate) struct Key {
    /// As written in the file.
    pub name: String,
    /// What may stand behind it.
    pub shape: Shape,
    /// The doc comment.
    pub description: String,
    /// Its default, if it has one that can be written down.
    pub default: Option<Value>,
    /// A value to show in hints, for keys without a default.
    pub example: Option<Value>,
    /// Whether the table is useless without it.
    pub required: bool,
}

/// One word of a choice.
#[derive(Debug)]
pub(crate) struct Word {
    /// As written in the file.
    pub name: String,
    /// The doc comment.
    pub description: String,
}

impl Shape {
    /// What an operator would call this, for "expected .., found ..".
    pub fn noun(&self) -> String {
        match self {
            Self::Table(_) | Self::Map { .. } => "a table".to_owned(),
            Self::List { items, .. } => match **items {
                Self::Table(_) => "an array of tables".to_owned(),
                _ => "a list of strings".to_owned(),
            },
            Self::Words { words, table } => {
                let mut list: Vec<_> = words.iter().map(|word| format!("\"{}\"", word.name)).collect();
                list.extend(table.iter().flatten().map(|key| format!("{{ {} = \"..\" }}", key.name)));
                alternatives(&list)
            }
            Self::Text => "a string".to_owned(),
            Self::Period { .. } => "a duration such as \"10s\"".to_owned(),
            Self::Size { none: false, .. } => "a size such as \"32KiB\"".to_owned(),
            Self::Size { none: true, .. } => "a size such as \"32KiB\", or \"none\"".to_owned(),
            Self::Integer { .. } => "a whole number".to_owned(),
            Self::Boolean => "true or false".to_owned(),
        }
    }

    /// The keys of a table, or of the tables in a list.
    pub fn keys(&self) -> Option<&[Key]> {
        match self {
            Self::Table(keys) => Some(keys),
            Self::List { items, .. } => items.keys(),
            Self::Map { values, .. } => values.keys(),
            _ => None,
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(crate) fn alternatives(list: &[String]) -> String {
    match list {
        [] => String::new(),
        [only] => only.clone(),
        [front @ .., last] => format!("{} or {last}", front.join(", ")),
    }
}

/// The JSON schema of `rempart.toml`, for editors; pretty-printed, with a line end.
pub fn json_schema() -> String {
    let mut schema = SCHEMA.clone();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "rempart.toml".into());
    }
    // Serialising a `Value` cannot fail; an empty file would be noticed by the check that docs are up to date.
    serde_json::to_string_pretty(&schema).map(|text| text + "\n").unwrap_or_default()
}

/// The keys at the top of `rempart.toml`.
pub(crate) fn root() -> &'static Shape {
    &ROOT
}

/// The keys at the top of a file of rules.
pub(crate) fn rules_root() -> &'static Shape {
    &RULES
}

/// The description at the top of `rempart.toml`.
pub(crate) fn root_description() -> String {
    description(&SCHEMA)
}

static SCHEMA: LazyLock<Value> = LazyLock::new(schema_of::<Desired>);

static ROOT: LazyLock<Shape> = LazyLock::new(|| shape(&SCHEMA).unwrap_or(Shape::Table(Vec::new())));

static RULES: LazyLock<Shape> =
    LazyLock::new(|| shape(&schema_of::<RulesFile>()).unwrap_or(Shape::Table(Vec::new())));

fn schema_of<T: JsonSchema>() -> Value {
    let generator =
        SchemaSettings::default().with(|settings| settings.inline_subschemas = true).into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    schema
}

/// Makes the schema fit TOML, which has no null, and joins the lines of doc comments.
fn tidy(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(object) => {
            without_null(object);
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            object.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

/// Turns "this or null", which is how an `Option` comes out, into "this".
fn without_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(variants)) = object.get_mut("anyOf") {
        variants.retain(|variant| variant.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = variants.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                // The description of the field is closer to the point than that of its type.
                object.entry(key).or_insert(value);
            }
        }
    }
}

/// Reads a shape off a schema; `None` when the schema says something this file does not know.
fn shape(schema: &Value) -> Option<Shape> {
    if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
        return words(variants);
    }
    match (schema.get("x-kind").and_then(Value::as_str), schema.get("type").and_then(Value::as_str)) {
        (Some("duration"), _) => Some(Shape::Period {
            minimum: bound(schema, "x-minimum").and_then(|text| Period::parse(text).ok()),
            maximum: bound(schema, "x-maximum").and_then(|text| Period::parse(text).ok()),
        }),
        (Some(kind @ ("size" | "size or none")), _) => Some(Shape::Size {
            minimum: bound(schema, "x-minimum").and_then(|text| ByteSize::parse(text).ok()),
            maximum: bound(schema, "x-maximum").and_then(|text| ByteSize::parse(text).ok()),
            none: kind == "size or none",
        }),
        (None, Some("object")) if schema.get("properties").is_none() => Some(Shape::Map {
            values: Box::new(shape(schema.get("additionalProperties")?)?),
            maximum: usize::try_from(schema.get("maxProperties")?.as_u64()?).ok()?,
        }),
        (None, Some("object")) => table(schema).map(Shape::Table),
        (None, Some("array")) => Some(Shape::List {
            items: Box::new(shape(schema.get("items")?)?),
            maximum: usize::try_from(schema.get("maxItems")?.as_u64()?).ok()?,
        }),
        (None, Some("string")) => Some(Shape::Text),
        (None, Some("boolean")) => Some(Shape::Boolean),
        (None, Some("integer")) => Some(Shape::Integer {
            minimum: schema.get("minimum")?.as_i64()?,
            maximum: schema.get("maximum")?.as_i64()?,
        }),
        _ => None,
    }
}

fn bound<'a>(schema: &'a Value, name: &str) -> Option<&'a str> {
    schema.get(name)?.as_str()
}

fn description(schema: &Value) -> String {
    schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn table(schema: &Value) -> Option<Vec<Key>> {
    let required: Vec<_> = schema.get("required").and_then(Value::as_array).into_iter().flatten().collect();
    let properties = schema.get("properties")?.as_object()?;
    properties.iter().map(|(name, schema)| key(name, schema, &required)).collect()
}

fn key(name: &str, schema: &Value, required: &[&Value]) -> Option<Key> {
    let example = schema.get("examples").and_then(Value::as_array).and_then(|list| list.first());
    Some(Key {
        name: name.to_owned(),
        shape: shape(schema)?,
        description: description(schema),
        default: schema.get("default").cloned(),
        example: example.cloned(),
        required: required.iter().any(|required| *required == name),
    })
}

fn words(variants: &[Value]) -> Option<Shape> {
    let mut words = Vec::new();
    let mut alternative = None;
    for variant in variants {
        if let Some(name) = variant.get("const").and_then(Value::as_str) {
            words.push(Word { name: name.to_owned(), description: description(variant) });
        } else {
            alternative = Some(table(variant)?);
        }
    }
    Some(Shape::Words { words, table: alternative })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_types_has_a_shape_and_a_description() {
        fn walk(keys: &[Key], count: &mut usize) {
            for key in keys {
                *count += 1;
                assert!(!key.description.is_empty(), "{} has no doc comment", key.name);
                assert!(
                    !key.required || key.example.is_some(),
                    "{} is required and has no example",
                    key.name
                );
                if let Some(keys) = key.shape.keys() {
                    walk(keys, count);
                }
            }
        }
        assert!(shape(&SCHEMA).is_some(), "the schema says something that shape() does not know");
        let mut count = 0;
        walk(root().keys().unwrap_or_default(), &mut count);
        assert!(count > 50, "only {count} keys were found");
    }

    #[test]
    fn the_schema_has_no_null_in_it() {
        assert!(!json_schema().contains("null"), "TOML has no null");
    }
}
