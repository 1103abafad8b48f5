//! What an answer says about how the cache dealt with it: `Cache-Status` (RFC 9211), and Cloudflare's word for it.

use super::keep::Why;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered by a fresh response.
    Hit,
    /// By a stale one, because the origin failed or the visitor does not mind.
    Stale,
    /// By a stale one, fetched anew meanwhile.
    Updating,
    /// By a stored one that the origin has confirmed.
    Revalidated,
    /// By the origin: the stored one was stale.
    Expired,
    /// By the origin: nothing was stored.
    Miss,
    /// By the origin: nothing was stored for a request like this one (`Vary`).
    VaryMiss,
    /// By the origin: only a part was stored.
    Partial,
    /// By the origin, because of the request or a rule.
    Bypass,
    /// By the origin, and never to be kept.
    Dynamic,
}

/// The fields, as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Value of `Cache-Status`.
    pub cache_status: String,
    /// Value of `cf-cache-status`.
    pub cloudflare: &'static str,
}

/// What is said beside the outcome.
#[derive(Clone, Copy, Debug, Default)]
pub struct Details {
    /// Seconds of freshness left, negative when stale.
    pub ttl: Option<i64>,
    /// Whether the answer was kept.
    pub stored: bool,
    /// Whether it was fetched for another request too.
    pub collapsed: bool,
    /// The origin's status, where it was asked and that is not the answer's.
    pub status: Option<u16>,
    /// Why it was not kept.
    pub why: Option<Why>,
}

/// Says it, under the name of this cache: a token.
pub fn told(name: &str, outcome: Outcome, details: &Details) -> Told {
    let mut text = name.to_owned();
    let (parameter, cloudflare) = match outcome {
        Outcome::Hit => ("hit", "HIT"),
        Outcome::Stale => ("hit", "STALE"),
        Outcome::Updating => ("hit", "UPDATING"),
        // RFC 9211 section 2.2: forwarded because it was stale, whatever came back.
        Outcome::Revalidated => ("fwd=stale", "REVALIDATED"),
        Outcome::Expired => ("fwd=stale", "EXPIRED"),
        Outcome::Miss => ("fwd=uri-miss", "MISS"),
        Outcome::VaryMiss => ("fwd=vary-miss", "MISS"),
        Outcome::Partial => ("fwd=partial", "MISS"),
        Outcome::Bypass => ("fwd=bypass", "BYPASS"),
        Outcome::Dynamic => ("fwd=miss", "DYNAMIC"),
    };
    text += &format!("; {parameter}");
    if let Some(status) = details.status {
        text += &format!("; fwd-status={status}");
    }
    if details.stored {
        text += "; stored";
    }
    if details.collapsed {
        text += "; collapsed";
    }
    if let Some(ttl) = details.ttl {
        text += &format!("; ttl={ttl}");
    }
    if let Some(why) = details.why {
        text += &format!("; detail={}", why.name());
    }
    Told { cache_status: text, cloudflare }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_a_structured_one_with_known_parameters() {
        let outcomes = [
            Outcome::Hit,
            Outcome::Stale,
            Outcome::Updating,
            Outcome::Revalidated,
            Outcome::Expired,
            Outcome::Miss,
            Outcome::VaryMiss,
            Outcome::Partial,
            Outcome::Bypass,
            Outcome::Dynamic,
        ];
        for outcome in outcomes {
            let details = Details {
                ttl: Some(-3),
                stored: true,
                collapsed: true,
                status: Some(304),
                why: Some(Why::NoStore),
            };
            let text = told("rempart", outcome, &details).cache_status;
            let list: sfv::List = sfv::Parser::new(&text).parse().unwrap();
            let [sfv::ListEntry::Item(item)] = &list[..] else { panic!("{text}") };
            let names: Vec<&str> = item.params.keys().map(|key| key.as_str()).collect();
            let first = if text.contains("; hit") { "hit" } else { "fwd" };
            assert_eq!(names, [first, "fwd-status", "stored", "collapsed", "ttl", "detail"], "{text}");
        }
        assert_eq!(told("a", Outcome::Hit, &Details::default()).cache_status, "a; hit");
    }
}
