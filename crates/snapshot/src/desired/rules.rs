//! Rules as they are written: Cloudflare's names and shapes, so that what worked there is carried over as it is.

mod cache;
mod parameters;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::cache::*;
pub use self::parameters::*;

/// A rule: where an expression holds, something is done. Rules of a phase are looked at in the order written, those for all
/// sites first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name in logs, metrics and `rempart rules`, and what a kill switch names: letters, digits, `.`, `_` and `-`. Left
    /// out, one is made of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The phase it belongs to.
    #[schemars(example = &"http_request_firewall_custom")]
    pub phase: RulePhase,
    /// Which requests it is about, in the rules language.
    #[schemars(example = "http.request.uri.path eq \"/admin\"")]
    pub expression: String,
    /// What is done.
    #[schemars(example = &"block")]
    pub action: ActionName,
    /// How it is done.
    #[serde(default)]
    pub action_parameters: ActionParameters,
    /// `false` keeps the rule without using it.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether the action is carried out, or only noted as what would have been done.
    #[serde(default)]
    pub mode: RuleMode,
    /// What follows when nobody can say whether the expression holds, because a value it needs is not known.
    #[serde(default)]
    pub on_unknown: OnUnknown,
    /// Whether matches are noted in events.
    #[serde(default)]
    pub logging: Logging,
    /// What `overrides` of a rule that executes this one's ruleset may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub categories: Vec<String>,
    /// What is counted; in the phase `http_ratelimit` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratelimit: Option<RateLimit>,
}

fn yes() -> bool {
    true
}

/// Rules in a file of their own: a list of `[[rules]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RulesFile {
    /// The rules.
    #[schemars(length(max = 20_000))]
    pub rules: Vec<Rule>,
}

/// A ruleset that other rules execute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ruleset {
    /// Its name in `action_parameters.id` of the rules that execute it: letters, digits, `.`, `_` and `-`.
    #[schemars(example = "admin-area")]
    pub id: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its rules, all of one phase.
    #[serde(default)]
    #[schemars(length(max = 20_000))]
    pub rules: Vec<Rule>,
}

/// A place in a request's life where rules are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RulePhase {
    /// Redirects made up by expressions.
    HttpRequestDynamicRedirect,
    /// Another path or query for the origin.
    HttpRequestTransform,
    /// Settings for single requests.
    HttpConfigSettings,
    /// Which origin is asked, and under what name.
    HttpRequestOrigin,
    /// The operator's own firewall.
    HttpRequestFirewallCustom,
    /// Limits on how often.
    HttpRatelimit,
    /// Managed rulesets.
    HttpRequestFirewallManaged,
    /// Redirects from a list.
    HttpRequestRedirect,
    /// Header fields of the request.
    HttpRequestLateTransform,
    /// What is kept of responses, and how long.
    HttpRequestCacheSettings,
    /// Answers in place of errors.
    HttpCustomErrors,
    /// Header fields of the response.
    HttpResponseHeadersTransform,
    /// How responses are compressed.
    HttpResponseCompression,
    /// Fields of requests and responses that are logged.
    HttpLogCustomFields,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionName {
    /// Answers with 403, or with `response`.
    Block,
    /// Asks the visitor to show that it is human. Answers with 403 until there is a challenge.
    Challenge,
    /// The same, without interaction.
    JsChallenge,
    /// The same, as needed.
    ManagedChallenge,
    /// Notes the request.
    Log,
    /// Leaves out rules, rulesets, phases or products.
    Skip,
    /// Goes through a ruleset.
    Execute,
    /// Sends the visitor elsewhere.
    Redirect,
    /// Changes path, query or header fields.
    Rewrite,
    /// Chooses host, port and names for the origin.
    Route,
    /// Changes settings.
    SetConfig,
    /// Says what is kept of the response.
    SetCacheSettings,
    /// Chooses how the response is compressed.
    CompressResponse,
    /// Answers in place of an error.
    ServeError,
    /// Logs fields.
    LogCustomField,
}

/// Whether an action is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleMode {
    /// It is.
    #[default]
    Enforce,
    /// It is noted only: `rempart rules report` shows what would have been done.
    Log,
}

/// What follows when it cannot be told whether an expression holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnUnknown {
    /// Nothing, as if it did not hold.
    #[default]
    Skip,
    /// The action, as if it held.
    Fire,
}

/// Whether matches are noted in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// Whether they are.
    pub enabled: bool,
}

impl Default for Logging {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// What a rule of the phase `http_ratelimit` counts, and how many are too many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// What requests are counted by, such as `"ip.src"`.
    #[schemars(extend("examples" = [["ip.src"]]))]
    #[schemars(length(min = 1, max = 8))]
    pub characteristics: Vec<String>,
    /// Seconds that are looked back.
    #[schemars(range(min = 1, max = 86_400), example = 60)]
    pub period: u32,
    /// Requests in this time from which on the action is taken.
    #[schemars(range(min = 1, max = 1_000_000_000), example = 100)]
    pub requests_per_period: u32,
    /// Seconds for which it is taken then.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    pub mitigation_timeout: u32,
    /// Which requests count. Left out, those the rule is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counting_expression: Option<String>,
    /// Whether only requests count that reach the origin.
    #[serde(default)]
    pub requests_to_origin: bool,
}

/// Names of rulesets, each with ids of rules in it.
pub type RulesOfRulesets = BTreeMap<String, Vec<String>>;
