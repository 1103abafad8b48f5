//! `http_ratelimit`: what is counted, checked though nothing counts yet.

use expr::Phase;

use super::RuleBook;
use crate::compile::Judge;
use crate::desired::rules::Rule as Written;
use crate::diagnostic::quote;

/// What requests may be counted by as it is.
const CHARACTERISTICS: &[&str] = &[
    "cf.bot_management.ja3_hash",
    "cf.bot_management.ja4",
    "cf.colo.id",
    "cf.unique_visitor_id",
    "http.host",
    "http.request.uri.path",
    "ip.src",
    "ip.src.asnum",
    "ip.src.country",
];
/// What they may be counted by with a name in `["..."]` behind it.
const KEYED: &[&str] =
    &["http.request.body.form", "http.request.cookies", "http.request.headers", "http.request.uri.args"];

impl Judge<'_> {
    pub(super) fn rate_limit(&mut self, rule: &Written, place: &str, phase: Phase, book: &RuleBook) {
        let at = format!("{place}.ratelimit");
        match (&rule.ratelimit, phase == Phase::RateLimit) {
            (None, false) => {}
            (Some(_), false) => {
                let message = "nothing is counted in this phase";
                self.review.error(&at, "ratelimit-not-allowed", message, "use the phase \"http_ratelimit\"");
            }
            (None, true) => {
                let message = "this phase needs to know what to count";
                let hint = "add: ratelimit = { characteristics = [\"ip.src\"], period = 60, requests_per_period = 100 }";
                self.review.error(place, "missing-ratelimit", message, hint);
            }
            (Some(limit), true) => {
                for (index, text) in limit.characteristics.iter().enumerate() {
                    let keyed = |front: &&str| {
                        text.strip_prefix(*front)
                            .is_some_and(|rest| rest.starts_with("[\"") && rest.ends_with("\"]"))
                    };
                    if !CHARACTERISTICS.contains(&text.as_str()) && !KEYED.iter().any(keyed) {
                        let message = format!("requests cannot be counted by {}", quote(text));
                        let hint = format!(
                            "use one of: {}, or one of {} with a name in [\"..\"]",
                            CHARACTERISTICS.join(", "),
                            KEYED.join(", ")
                        );
                        let at = format!("{at}.characteristics[{index}]");
                        self.review.error(&at, "bad-characteristic", message, hint);
                    }
                }
                if let Some(expression) = &limit.counting_expression {
                    // Checked only: it is compiled where something counts.
                    let _checked = self.filter(expression, &format!("{at}.counting_expression"), phase, book);
                }
                let message = "nothing counts requests yet, so this rule has no effect";
                self.review.warning(&at, "no-rate-limit", message, "remove it, or leave it for later");
            }
        }
    }
}
