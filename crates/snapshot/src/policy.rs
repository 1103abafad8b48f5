//! `[site.policy]` as it is written: what requests of a site may be like.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which methods and header fields requests may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Methods that are allowed, such as `"GET"`. Left out, every one is. Other requests are answered with 405.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub methods: Option<Vec<String>>,
    /// Header fields that requests must have; all of them. Other requests are answered with 403.
    #[schemars(length(max = 32))]
    pub require: Vec<HeaderRule>,
    /// Header fields that requests must not have; none of them. Other requests are answered with 403.
    #[schemars(length(max = 32))]
    pub forbid: Vec<HeaderRule>,
    /// What happens to a request that is not as it should be.
    pub action: PolicyAction,
}

/// A header field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderRule {
    /// Its name; upper and lower case are the same.
    #[schemars(example = "X-Api-Key")]
    pub name: String,
    /// The whole value of one of its lines. Left out, any value counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What happens to a request that is not as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyAction {
    /// It is answered with 405 or 403.
    #[default]
    Block,
    /// It goes on, and events and metrics show what was found.
    Log,
}
