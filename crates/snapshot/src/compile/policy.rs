//! Compiles `[site.policy]`.

use super::Judge;
use crate::diagnostic::quote;
use crate::generation::{HeaderRule, Policy};
use crate::policy::{self, PolicyAction};

/// Fields that belong to a connection or to framing, which rules never see (RFC 9110 section 7.6.1).
const UNSEEN: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Judge<'_> {
    pub(super) fn policy(&mut self, policy: Option<&policy::Policy>, site: &str) -> Option<Policy> {
        let policy = policy?;
        let place = format!("{site}.policy");
        if policy.methods.is_none() && policy.require.is_empty() && policy.forbid.is_empty() {
            self.review.warning(
                &place,
                "empty-policy",
                "this policy asks nothing of requests",
                "add methods, require or forbid, or remove [site.policy]",
            );
        }
        let methods = policy.methods.as_ref().map(|methods| self.methods(methods, &place));
        let require = self.header_rules(&policy.require, &format!("{place}.require"));
        let forbid = self.header_rules(&policy.forbid, &format!("{place}.forbid"));
        for (index, rule) in forbid.iter().enumerate() {
            // What must be there may not be there: every request would be turned away.
            let covers = |other: &&HeaderRule| {
                other.name == rule.name && (rule.value.is_none() || rule.value == other.value)
            };
            if let Some(other) = require.iter().find(covers) {
                let message =
                    format!("{} is required and forbidden, so no request could pass", quote(&other.name));
                let hint = "remove it from require or from forbid";
                self.review.error(&format!("{place}.forbid[{index}]"), "contradiction", message, hint);
            }
        }
        Some(Policy { methods, require, forbid, log_only: policy.action == PolicyAction::Log })
    }

    fn methods(&mut self, methods: &[String], policy: &str) -> Vec<Box<str>> {
        let place = format!("{policy}.methods");
        if methods.is_empty() {
            let hint = "name some: methods = [\"GET\", \"HEAD\"], or remove this line to allow every method";
            self.review.error(&place, "no-method", "no method is allowed, so no request could pass", hint);
        }
        for (index, method) in methods.iter().enumerate() {
            let place = format!("{place}[{index}]");
            if !is_token(method) {
                let message = format!("{} cannot be a method", quote(method));
                self.review.error(&place, "bad-method", message, "write it as requests have it: \"GET\"");
            } else if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
                // RFC 9110 section 9.1: methods are told apart by upper and lower case, and all that are in use are upper case.
                let message = format!(
                    "{} is another method than {}",
                    quote(method),
                    quote(&method.to_ascii_uppercase())
                );
                let hint = format!("write {}", quote(&method.to_ascii_uppercase()));
                self.review.error(&place, "bad-method", message, hint);
            } else if methods.iter().take(index).any(|other| other == method) {
                let message = format!("{} is allowed already", quote(method));
                self.review.error(&place, "duplicate-method", message, "remove it");
            }
        }
        methods.iter().map(|method| method.as_str().into()).collect()
    }

    fn header_rules(&mut self, rules: &[policy::HeaderRule], place: &str) -> Vec<HeaderRule> {
        let mut out: Vec<HeaderRule> = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            let place = format!("{place}[{index}]");
            let name = rule.name.to_ascii_lowercase();
            if !is_token(&name) {
                let message = format!("{} cannot be the name of a header field", quote(&rule.name));
                let hint = "use letters, digits and hyphens: name = \"x-api-key\"";
                self.review.error(&format!("{place}.name"), "bad-header-name", message, hint);
            } else if UNSEEN.contains(&name.as_str()) {
                let message =
                    format!("{} belongs to the connection and not to the request", quote(&rule.name));
                let hint = "remove this rule: hosts stand in `hosts`, sizes in [site.limits], and the rest is never passed on";
                self.review.error(&format!("{place}.name"), "unseen-header", message, hint);
            }
            if let Some(value) = rule.value.as_deref().filter(|value| !is_value(value)) {
                let message = format!("{} cannot be the value of a header field", quote(value));
                let hint =
                    "use visible ASCII without space at its ends, or leave value out: any one counts then";
                self.review.error(&format!("{place}.value"), "bad-header-value", message, hint);
            }
            out.push(HeaderRule { name: name.into(), value: rule.value.as_deref().map(Into::into) });
        }
        out
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.len() <= 64 && text.bytes().all(is_part)
}

/// RFC 9110 section 5.5, without what nobody uses.
fn is_value(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}
