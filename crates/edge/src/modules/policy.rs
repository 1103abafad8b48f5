//! The module `request-policy`: methods and header fields, as the site wants them.

use base::module::{OverBudget, Verdict};
use snapshot::generation::{HeaderRule, Policy};

use super::view::Meter;
use crate::message::{HeaderList, RequestHead};

/// What is noted, and named on error pages, of a method that is not allowed.
pub const METHOD: &str = "method_not_allowed";
/// The same of header fields.
const REQUIRED: &str = "header_required";
const FORBIDDEN: &str = "header_forbidden";

/// What the policy says of a request; its method is looked at first.
pub fn judge(policy: &Policy, head: &RequestHead, meter: &mut Meter) -> Result<Verdict, OverBudget> {
    let found = violation(policy, head, meter)?;
    Ok(match found {
        None => Verdict::Pass,
        Some(reason) if policy.log_only => Verdict::Log { reason },
        // RFC 9110 section 15.5.6: with `Allow`, which the narrator adds.
        Some(METHOD) => Verdict::Block { status: 405, reason: METHOD },
        Some(reason) => Verdict::Block { status: 403, reason },
    })
}

fn violation(
    policy: &Policy,
    head: &RequestHead,
    meter: &mut Meter,
) -> Result<Option<&'static str>, OverBudget> {
    if let Some(methods) = &policy.methods {
        meter.spend(methods.len())?;
        if !methods.iter().any(|method| **method == *head.method.as_str()) {
            return Ok(Some(METHOD));
        }
    }
    for rule in &policy.require {
        meter.spend(head.headers.len())?;
        if !has(&head.headers, rule) {
            return Ok(Some(REQUIRED));
        }
    }
    for rule in &policy.forbid {
        meter.spend(head.headers.len())?;
        if has(&head.headers, rule) {
            return Ok(Some(FORBIDDEN));
        }
    }
    Ok(None)
}

fn has(headers: &HeaderList, rule: &HeaderRule) -> bool {
    let mut lines = headers.all(rule.name.as_bytes());
    match &rule.value {
        None => lines.next().is_some(),
        Some(value) => lines.any(|line| line == value.as_bytes()),
    }
}

/// The value of `Allow` under this policy.
pub fn allow(policy: &Policy) -> String {
    policy.methods.as_ref().map(|methods| methods.join(", ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use base::event::Protocol;

    use super::*;

    fn rule(name: &str, value: Option<&str>) -> HeaderRule {
        HeaderRule { name: name.into(), value: value.map(Into::into) }
    }

    fn head(method: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut headers = HeaderList::default();
        fields.iter().for_each(|(name, value)| headers.push(name, value));
        RequestHead {
            method: method.parse().unwrap(),
            authority: "example.org".to_owned(),
            target: "/".to_owned(),
            protocol: Protocol::Http11,
            headers,
            upgrade: None,
            expects_continue: false,
            accepts_trailers: false,
        }
    }

    #[test]
    fn requests_are_judged_as_written() {
        let policy = Policy {
            methods: Some(vec!["GET".into(), "POST".into()]),
            require: vec![rule("x-key", Some("a")), rule("accept", None)],
            forbid: vec![rule("x-debug", None), rule("x-mode", Some("slow"))],
            log_only: false,
        };
        let good = [("X-Key", "a"), ("Accept", "*/*")];
        let also = |more: &[(&'static str, &'static str)]| [&good[..], more].concat();
        let forbidden = Verdict::Block { status: 403, reason: FORBIDDEN };
        let required = Verdict::Block { status: 403, reason: REQUIRED };
        for (method, fields, expected) in [
            ("GET", good.to_vec(), Verdict::Pass),
            ("DELETE", good.to_vec(), Verdict::Block { status: 405, reason: METHOD }),
            ("DELETE", vec![], Verdict::Block { status: 405, reason: METHOD }),
            ("get", good.to_vec(), Verdict::Block { status: 405, reason: METHOD }),
            ("GET", vec![("x-key", "a")], required),
            ("GET", vec![("x-key", "ab"), ("accept", "")], required),
            ("GET", vec![("x-key", "b"), ("x-key", "a"), ("accept", "")], Verdict::Pass),
            ("GET", also(&[("x-debug", "")]), forbidden),
            ("GET", also(&[("x-mode", "fast")]), Verdict::Pass),
            ("POST", also(&[("x-mode", "fast"), ("X-MODE", "slow")]), forbidden),
        ] {
            let head = head(method, &fields);
            let judged = judge(&policy, &head, &mut Meter::new(Instant::now()));
            assert_eq!(judged, Ok(expected), "{method} {fields:?}");
            let logged =
                judge(&Policy { log_only: true, ..policy.clone() }, &head, &mut Meter::new(Instant::now()));
            let expected = match expected {
                Verdict::Block { reason, .. } => Verdict::Log { reason },
                other => other,
            };
            assert_eq!(logged, Ok(expected), "{method} {fields:?}");
        }
        assert_eq!(allow(&policy), "GET, POST");
    }
}
