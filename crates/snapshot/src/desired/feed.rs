//! Data files, as they are configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Period};

/// A data file that is kept up to date while Rempart runs, as signed packages (`rempart feed pack` makes them). Each new one is
/// checked, tried in a process of its own, and watched; when anything is wrong with it, the last good one stays in force.
/// Write one `[[feeds]]` for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// Its name, which its packages bear too: lower-case letters, digits and hyphens.
    #[schemars(example = "bot-features")]
    pub name: String,
    /// What it holds: `"table"`, `"kill-switches"`, `"certificates"`, or a list that rules use under the name of the feed, hyphens
    /// written as `_`: `"ip-list"`, `"hostname-list"`, `"asn-list"`, `"redirect-list"`; or `"geoip"`, a database in MaxMind's format.
    #[serde(default = "table")]
    pub kind: String,
    /// Where packages come from: a file that is replaced; a folder (with `/` at its end), of whose files `*.package` the one with
    /// the highest generation counts; or a URL, `https` or on a loopback address `http`.
    #[schemars(example = "feeds/bot-features.package")]
    pub source: String,
    /// Time between two looks at the source.
    #[serde(default = "minute")]
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1d"))]
    pub every: Period,
    /// Public keys whose signatures count, 64 hexadecimal digits each (`rempart feed keygen` makes a pair); at least one. More than
    /// one are good at a time, so that they can be changed.
    #[schemars(extend("examples" = [["8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"]]))]
    #[schemars(length(min = 1, max = 32))]
    pub keys: Vec<String>,
    /// Largest number of entries. Left out, what the kind allows: 100,000 for a table. A package with more is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_entries: Option<u64>,
    /// Largest size, unpacked. Left out, what the kind allows: 32 MiB for a table. A larger package is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-minimum" = "1KiB", "x-maximum" = "256MiB"))]
    pub max_bytes: Option<ByteSize>,
}

fn table() -> String {
    "table".to_owned()
}

fn minute() -> Period {
    Period::seconds(60)
}
