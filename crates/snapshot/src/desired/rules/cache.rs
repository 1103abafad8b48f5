//! What `set_cache_settings` takes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a response is kept here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EdgeTtl {
    /// Who says how long.
    #[schemars(example = &"override_origin")]
    pub mode: EdgeTtlMode,
    /// Seconds; with `override_origin`, or where the origin says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub default: Option<u32>,
    /// Seconds by status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub status_code_ttl: Vec<StatusTtl>,
}

/// Who says how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EdgeTtlMode {
    /// The origin, else what is usual.
    RespectOrigin,
    /// The origin, else it is not kept.
    BypassByDefault,
    /// The rule.
    OverrideOrigin,
}

/// Seconds for responses of a status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusTtl {
    /// One status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 999))]
    pub status_code: Option<u16>,
    /// A range of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code_range: Option<StatusRange>,
    /// Seconds; 0 is asked anew every time, -1 is not kept.
    #[schemars(range(min = -1, max = 31_536_000), example = 60)]
    pub value: i32,
}

/// A range of statuses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StatusRange {
    /// The first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 999))]
    pub from: Option<u16>,
    /// The last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 999))]
    pub to: Option<u16>,
}

/// How long browsers keep a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrowserTtl {
    /// Who says how long.
    #[schemars(example = &"respect_origin")]
    pub mode: BrowserTtlMode,
    /// Seconds; with `override_origin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub default: Option<u32>,
}

/// Who says how long browsers keep a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrowserTtlMode {
    /// The origin.
    RespectOrigin,
    /// The origin, else they do not.
    BypassByDefault,
    /// The rule.
    OverrideOrigin,
    /// They do not.
    Bypass,
}

/// What tells two responses apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheKey {
    /// By kind of device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_by_device_type: Option<bool>,
    /// Whether what is named like a file but is none is not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_deception_armor: Option<bool>,
    /// Whether the order of query arguments does not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_query_strings_order: Option<bool>,
    /// By parts of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_key: Option<CustomKey>,
}

/// Parts of a request that tell responses apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CustomKey {
    /// By cookies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<KeyCookie>,
    /// By header fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<KeyHeader>,
    /// By host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<KeyHost>,
    /// By query arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_string: Option<KeyQuery>,
    /// By what is known of the visitor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<KeyUser>,
}

/// Cookies that tell responses apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeyCookie {
    /// By their values.
    #[schemars(length(max = 64))]
    pub include: Vec<String>,
    /// By whether they are there.
    #[schemars(length(max = 64))]
    pub check_presence: Vec<String>,
}

/// Header fields that tell responses apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeyHeader {
    /// By their values.
    #[schemars(length(max = 64))]
    pub include: Vec<String>,
    /// By whether they are there.
    #[schemars(length(max = 64))]
    pub check_presence: Vec<String>,
    /// Whether the `Origin` field does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_origin: Option<bool>,
}

/// Which host counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeyHost {
    /// The one the origin is asked for, in place of the visitor's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<bool>,
}

/// Query arguments that tell responses apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeyQuery {
    /// These only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<KeyQueryPart>,
    /// All but these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<KeyQueryPart>,
}

/// Some query arguments, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeyQueryPart {
    /// All of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// Those of these names.
    #[schemars(length(max = 64))]
    pub list: Vec<String>,
}

/// What is known of a visitor and tells responses apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeyUser {
    /// The kind of device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_type: Option<bool>,
    /// The country.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub geo: Option<bool>,
    /// The first accepted language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lang: Option<bool>,
}

/// Whether old responses are served while new ones are fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServeStale {
    /// `true`: they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_stale_while_updating: Option<bool>,
}

/// What `set_cache_settings` says, all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheSettings {
    /// Whether the response may be kept.
    pub cache: Option<bool>,
    /// How long it is kept here.
    pub edge_ttl: Option<EdgeTtl>,
    /// How long browsers keep it.
    pub browser_ttl: Option<BrowserTtl>,
    /// What tells two responses apart.
    pub cache_key: Option<CacheKey>,
    /// Whether old responses are served while new ones are fetched.
    pub serve_stale: Option<ServeStale>,
    /// Whether strong entity tags are kept as they are.
    pub respect_strong_etags: Option<bool>,
    /// Whether error pages of the origin are passed on.
    pub origin_error_page_passthru: Option<bool>,
}
