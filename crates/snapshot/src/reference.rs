//! The reference page of `rempart.toml`, made from its types.

use serde_json::Value;

use crate::shape::{Key, Shape, Word, root, root_description};

/// A complete small configuration at the top of the page; a test compiles it.
const EXAMPLE: &str = "[[listen]]
address = \":80\"

[[site]]
hosts = [\"example.org\", \"www.example.org\"]

[[site.origin]]
url = \"http://127.0.0.1:3000\"
";

/// `docs/reference/configuration.md`, complete.
pub fn reference_markdown() -> String {
    let mut page = Page(String::new());
    page.0.push_str("# Configuration\n\n");
    page.0.push_str(
        "<!-- Generated from the types of the configuration by `cargo xtask docs`; do not edit. -->\n\n",
    );
    page.paragraph(&root_description());
    page.0.push_str(&format!("```toml\n{EXAMPLE}```\n\n"));
    page.paragraph(
        "Durations are whole numbers with a unit: `250ms`, `10s`, `5m`, `1h`, `14d`. Sizes are numbers of bytes, or \
         strings with a unit: `32KiB`, `64MiB`, `1GiB` (powers of 1024) and `500kB`, `1MB`, `1GB` (powers of 1000). \
         A key that is not listed here is an error. `rempart check` says what is wrong with a configuration, and what \
         would change if it were taken.",
    );
    page.table("", "", root().keys().unwrap_or_default());
    page.0.truncate(page.0.trim_end().len());
    page.0.push('\n');
    page.0
}

struct Page(String);

impl Page {
    fn paragraph(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push_str("\n\n");
    }

    /// A section for one table, then one for each table in it.
    fn table(&mut self, path: &str, description: &str, keys: &[Key]) {
        let own: Vec<_> = keys.iter().filter(|key| key.shape.keys().is_none()).collect();
        if path.is_empty() {
            self.0.push_str("## Top level\n\n");
        } else if !own.is_empty() {
            self.0.push_str(&format!("## `{path}`\n\n"));
            self.paragraph(description);
        }
        if !own.is_empty() {
            self.0.push_str("| key | value | default | |\n|---|---|---|---|\n");
            own.into_iter().for_each(|key| self.row(key));
            self.0.push('\n');
        }
        let bare = path.trim_matches(['[', ']']);
        for key in keys {
            let Some(inner) = key.shape.keys() else {
                continue;
            };
            let name = if bare.is_empty() { key.name.clone() } else { format!("{bare}.{}", key.name) };
            let heading = match key.shape {
                Shape::List { .. } => format!("[[{name}]]"),
                Shape::Map { .. } => format!("[{name}.NAME]"),
                _ => format!("[{name}]"),
            };
            if let Some(other) = same_as(&name) {
                self.0.push_str(&format!("## `{heading}`\n\n"));
                self.paragraph(&format!("{} As `[[{other}]]`.", key.description));
                continue;
            }
            self.table(&heading, &key.description, inner);
        }
    }

    fn row(&mut self, key: &Key) {
        let default = match (&key.default, key.required) {
            (Some(value), _) => format!("`{value}`"),
            (None, true) => "required".to_owned(),
            (None, false) => String::new(),
        };
        let mut text = key.description.clone();
        if let Shape::Words { words, table } = &key.shape {
            let words: Vec<_> =
                words.iter().map(|word: &Word| (format!("`\"{}\"`", word.name), &word.description)).collect();
            let tables = table.iter().flatten().map(|key| {
                let example = key.example.as_ref().map(Value::to_string).unwrap_or_default();
                (format!("`{{ {} = {example} }}`", key.name), &key.description)
            });
            for (name, description) in words.into_iter().chain(tables) {
                text.push_str(&format!("<br>{name}: {description}"));
            }
        }
        let value = kind(&key.shape).replace('|', "\\|");
        let text = text.replace('|', "\\|");
        self.0.push_str(&format!("| `{}` | {value} | {default} | {text} |\n", key.name));
    }
}

/// The table whose keys another one has too.
fn same_as(name: &str) -> Option<&'static str> {
    matches!(name, "rulesets.rules" | "site.rules").then_some("rules")
}

/// What may be written, with its bounds.
fn kind(shape: &Shape) -> String {
    let range = |what: &str, minimum: Option<String>, maximum: Option<String>| match (minimum, maximum) {
        (Some(minimum), Some(maximum)) => format!("{what}, {minimum} to {maximum}"),
        (None, Some(maximum)) => format!("{what}, up to {maximum}"),
        _ => what.to_owned(),
    };
    match shape {
        Shape::Table(_) => "table".to_owned(),
        Shape::Map { maximum, .. } => format!("table of lists of strings, up to {maximum}"),
        Shape::List { maximum, .. } => format!("list of strings, up to {maximum}"),
        Shape::Words { .. } => "one of".to_owned(),
        Shape::Text => "string".to_owned(),
        Shape::Boolean => "`true` or `false`".to_owned(),
        Shape::Integer { minimum, maximum } => format!("number, {minimum} to {maximum}"),
        Shape::Period { minimum, maximum } => {
            range("duration", minimum.map(|it| it.to_string()), maximum.map(|it| it.to_string()))
        }
        Shape::Size { minimum, maximum, none } => {
            let what = if *none { "size or `\"none\"`" } else { "size" };
            range(what, minimum.map(|it| it.to_string()), maximum.map(|it| it.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use base::time::Timestamp;

    use super::*;
    use crate::source::SourceTree;
    use crate::{Input, Mode, compile};

    #[test]
    fn the_example_of_the_page_is_a_good_configuration() {
        let tree = SourceTree::default();
        let input = Input { file: "rempart.toml", text: EXAMPLE.as_bytes(), tree: &tree };
        let compiled = compile(input, Timestamp::default(), Mode::Fresh);
        assert!(compiled.snapshot.is_some() && compiled.diagnostics.is_empty(), "{:?}", compiled.diagnostics);
    }

    #[test]
    fn every_table_has_a_section() {
        let page = reference_markdown();
        for heading in ["## `[[site]]`", "## `[site.origin.timeouts]`", "## `[log.access]`", "## `[limits]`"]
        {
            assert!(page.contains(heading), "{heading} is missing from\n{page}");
        }
        assert!(page.contains("| `threads` | number, 1 to 1024 |  | Threads"), "{page}");
    }
}
