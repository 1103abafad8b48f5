//! `action_parameters`: what each action takes, all in one table, for an action takes hardly any that another has.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ActionName, BrowserTtl, CacheKey, EdgeTtl, RulesOfRulesets, ServeStale};

/// How an action is carried out. Which of these an action takes, the guide on rules says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ActionParameters {
    /// `block`: the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<BlockResponse>,
    /// `skip`: the rest of this phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Current>,
    /// `skip`: phases that come later.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub phases: Vec<String>,
    /// `skip`: products: `"waf"`, `"rateLimit"`, `"bic"`, `"hot"`, `"securityLevel"`, `"uaBlock"`, `"zoneLockdown"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub products: Vec<String>,
    /// `skip`: the rest of this ruleset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ruleset: Option<Current>,
    /// `skip`: rulesets, by their ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub rulesets: Vec<String>,
    /// `skip`: single rules of rulesets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = serde_json::json!({
        "type": "array", "items": { "type": "string" }, "maxItems": 1000 })))]
    pub rules: RulesOfRulesets,
    /// `execute`: the ruleset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `execute`: what is different from how the ruleset is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Overrides>,
    /// `redirect`: a target by value or expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_value: Option<FromValue>,
    /// `redirect`: a target from a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_list: Option<FromList>,
    /// `rewrite`: path and query; in the phase `http_request_transform`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<UriChange>,
    /// `rewrite`: header fields, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub headers: BTreeMap<String, HeaderChange>,
    /// `route`: the `Host` the origin is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_header: Option<String>,
    /// `route`: where the origin is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<RouteOrigin>,
    /// `route`: the server name of the TLS handshake with the origin, which its certificate must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<RouteSni>,
    /// `set_config`: whether images are served to pages of other sites.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotlink_protection: Option<bool>,
    /// `set_config`: whether requests without a `User-Agent` are turned away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bic: Option<bool>,
    /// `set_config`: from which threat score on visitors are challenged. The score is always 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_level: Option<SecurityLevel>,
    /// `set_cache_settings`: whether the response may be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<bool>,
    /// `set_cache_settings`: how long it is kept here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_ttl: Option<EdgeTtl>,
    /// `set_cache_settings`: how long browsers keep it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub browser_ttl: Option<BrowserTtl>,
    /// `set_cache_settings`: what tells two responses apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_key: Option<CacheKey>,
    /// `set_cache_settings`: whether old responses are served while new ones are fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serve_stale: Option<ServeStale>,
    /// `set_cache_settings`: whether strong entity tags are kept as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respect_strong_etags: Option<bool>,
    /// `set_cache_settings`: whether error pages of the origin are passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_error_page_passthru: Option<bool>,
    /// `compress_response`: algorithms, the most wanted first: `none`, `auto`, `default`, `gzip`, `brotli`, `zstd`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub algorithms: Vec<AlgorithmName>,
    /// `serve_error`: the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// `serve_error`: its media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<ErrorContentType>,
    /// `serve_error`: its status. Left out, that of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 999))]
    pub status_code: Option<u16>,
    /// `log_custom_field`: header fields of the request, as they came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub request_fields: Vec<FieldName>,
    /// `log_custom_field`: the same, as they went to the origin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub transformed_request_fields: Vec<FieldName>,
    /// `log_custom_field`: header fields of the response, as the visitor got them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub response_fields: Vec<ResponseFieldName>,
    /// `log_custom_field`: the same, as the origin sent them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub raw_response_fields: Vec<ResponseFieldName>,
    /// `log_custom_field`: cookies of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub cookie_fields: Vec<FieldName>,
}

/// The answer of a rule that blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlockResponse {
    /// Its status, 400 to 499.
    #[schemars(range(min = 400, max = 499), example = 403)]
    pub status_code: u16,
    /// Its body.
    #[schemars(example = "No.")]
    pub content: String,
    /// Its media type.
    #[schemars(example = "text/plain")]
    pub content_type: String,
}

/// The one at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Current {
    /// The one at hand.
    Current,
}

/// What is different from how a ruleset is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// Whether its rules are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What its rules do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionName>,
    /// The same, for rules of a category; before what is said of all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub categories: Vec<CategoryOverride>,
    /// The same, for single rules; before what is said of categories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub rules: Vec<RuleOverride>,
}

/// What is different for rules of a category.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CategoryOverride {
    /// The category.
    #[schemars(example = &"wordpress")]
    pub category: String,
    /// Whether its rules are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What its rules do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionName>,
}

/// What is different for a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleOverride {
    /// The rule.
    #[schemars(example = "no-xmlrpc")]
    pub id: String,
    /// Whether it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionName>,
}

/// A value, or an expression that makes one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ValueOrExpression {
    /// The value itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// An expression that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
}

/// Where a visitor is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromValue {
    /// The URL.
    #[serde(default)]
    pub target_url: ValueOrExpression,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "moved")]
    #[schemars(range(min = 301, max = 308))]
    pub status_code: u16,
    /// Whether the query of the request is put behind the URL.
    #[serde(default)]
    pub preserve_query_string: bool,
}

fn moved() -> u16 {
    301
}

/// A redirect from a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromList {
    /// The list, without `$`.
    #[schemars(example = &"moved_pages")]
    pub name: String,
    /// An expression for the URL that is looked up.
    #[serde(default = "full_uri")]
    pub key: String,
}

fn full_uri() -> String {
    "http.request.full_uri".to_owned()
}

/// Another path or query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UriChange {
    /// The path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<ValueOrExpression>,
    /// The query, without `?`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<ValueOrExpression>,
}

/// What becomes of a header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderChange {
    /// What is done.
    #[schemars(example = &"set")]
    pub operation: HeaderOperation,
    /// The value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// An expression that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
}

/// What is done with a header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeaderOperation {
    /// One more line, beside those there are.
    Add,
    /// One line in place of those there are.
    Set,
    /// Taken away.
    Remove,
}

/// Where the origin is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteOrigin {
    /// Its name or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,
}

/// The server name of the TLS handshake with the origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSni {
    /// The name.
    #[schemars(example = "app.internal")]
    pub value: String,
}

/// From which threat score on visitors are challenged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecurityLevel {
    /// Never.
    Off,
    /// The worst only.
    EssentiallyOff,
    /// From a high score on.
    Low,
    /// From a middling score on.
    Medium,
    /// Any score above 0.
    High,
    /// Everybody is challenged.
    UnderAttack,
}

/// A way to compress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlgorithmName {
    /// Its name.
    #[schemars(example = &"gzip")]
    pub name: AlgorithmWord,
}

/// The name of a way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlgorithmWord {
    /// None at all.
    None,
    /// Whichever suits the visitor best.
    Auto,
    /// As without a rule.
    Default,
    /// `gzip` (RFC 1952).
    Gzip,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
}

/// The media type of an answer in place of an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ErrorContentType {
    /// HTML.
    #[default]
    #[serde(rename = "text/html")]
    Html,
    /// JSON.
    #[serde(rename = "application/json")]
    Json,
    /// Text.
    #[serde(rename = "text/plain")]
    Text,
    /// XML.
    #[serde(rename = "text/xml")]
    Xml,
}

/// A header field or cookie that is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldName {
    /// Its name.
    #[schemars(example = "x-session")]
    pub name: String,
}

/// A header field of the response that is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseFieldName {
    /// Its name.
    #[schemars(example = "x-cache")]
    pub name: String,
    /// Whether all its lines are logged, and not only the first.
    #[serde(default)]
    pub preserve_duplicates: bool,
}
