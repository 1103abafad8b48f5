//! Lists, as they are configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A list that rules use as `$name`. One that is long, or changes on its own, is a data file: `[[feeds]]` of kind `ip-list`,
/// `hostname-list`, `asn-list` or `redirect-list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Its name: lower-case letters, digits and `_`.
    #[schemars(example = &"office")]
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it holds.
    #[schemars(example = &"ip")]
    pub kind: ListKind,
    /// Its entries: addresses and networks; host names, some as `*.example.org`; or numbers of autonomous systems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000))]
    pub items: Vec<String>,
    /// Its entries, if it is one of redirects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000))]
    pub redirects: Vec<Redirect>,
}

/// What a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListKind {
    /// Addresses and networks, for `ip.src in $name`.
    Ip,
    /// Host names, for `http.host in $name`.
    Hostname,
    /// Numbers of autonomous systems, for `ip.src.asnum in $name`.
    Asn,
    /// Redirects, for the action `redirect` with `from_list`.
    Redirect,
}

/// A redirect of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// The URL it is for, without query; without a scheme, for both.
    #[schemars(example = &"example.org/old")]
    pub source_url: String,
    /// The URL visitors are sent to.
    #[schemars(example = &"https://example.org/new")]
    pub target_url: String,
    /// 301, 302, 307 or 308.
    #[serde(default = "moved")]
    #[schemars(range(min = 301, max = 308))]
    pub status_code: u16,
    /// Whether the query goes along.
    #[serde(default)]
    pub preserve_query_string: bool,
    /// Whether hosts below the host count too.
    #[serde(default)]
    pub include_subdomains: bool,
    /// Whether paths below the path count too.
    #[serde(default)]
    pub subpath_matching: bool,
    /// Whether, of such a path, what is below is put behind the target.
    #[serde(default = "yes")]
    pub preserve_path_suffix: bool,
}

fn moved() -> u16 {
    301
}

fn yes() -> bool {
    true
}

impl Redirect {
    /// As it is looked up; the error says why it cannot be one.
    pub fn bulk(&self) -> Result<crate::lists::BulkRedirect, String> {
        if ![301, 302, 307, 308].contains(&self.status_code) {
            return Err(format!(
                "{} is no status of a redirect: write 301, 302, 307 or 308",
                self.status_code
            ));
        }
        let target = &self.target_url;
        let visible = target.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !["https://", "http://"].iter().any(|front| target.starts_with(front)) {
            return Err(format!("{target:?} is no URL that begins with https:// or http://"));
        }
        Ok(crate::lists::BulkRedirect {
            target: target.as_str().into(),
            status: self.status_code,
            keep_query: self.preserve_query_string,
            subdomains: self.include_subdomains,
            subpaths: self.subpath_matching,
            keep_path: self.preserve_path_suffix,
        })
    }
}
