//! What settings of single requests ask for: hotlink protection, and browsers that say who they are.

use snapshot::generation::HostPattern;
use snapshot::rules::{Product, Settings};

use super::Block;
use crate::rules::facts::Facts;
use crate::rules::walk::Skipped;

/// Extensions of images, as hotlink protection knows them.
const IMAGES: [&str; 5] = ["gif", "ico", "jpeg", "jpg", "png"];

/// What the settings have against a request.
pub fn judge(settings: Settings, skipped: &Skipped<'_>, facts: &Facts<'_>) -> Option<Block> {
    let wanted = |setting: Option<bool>, product| setting == Some(true) && !skipped.product(product);
    if facts.view().golden {
        return None;
    }
    let headers = &facts.head().headers;
    let block = |reason| Some(Block { status: 403, reason, allow: None });
    if wanted(settings.browser_integrity, Product::BrowserIntegrity)
        && headers.get(b"user-agent").unwrap_or_default().trim_ascii().is_empty()
    {
        return block("no_user_agent");
    }
    if wanted(settings.hotlink_protection, Product::Hotlink) && is_image(facts.path()) && is_foreign(facts) {
        return block("hotlink");
    }
    None
}

fn is_image(path: &str) -> bool {
    let extension =
        path.rsplit('/').next().and_then(|segment| segment.rsplit_once('.')).map(|(_, after)| after);
    extension.is_some_and(|extension| IMAGES.iter().any(|image| image.eq_ignore_ascii_case(extension)))
}

/// Whether a page of another site refers to it. Without `Referer` nobody knows, and it is served.
fn is_foreign(facts: &Facts<'_>) -> bool {
    let referer = facts.head().headers.get(b"referer").and_then(|value| std::str::from_utf8(value).ok());
    let Some(rest) = referer.and_then(|referer| referer.split_once("://")).map(|(_, rest)| rest) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = authority.split_once(':').map_or(authority, |(host, _)| host).to_ascii_lowercase();
    let own = facts.surroundings().site.site.hosts.iter().any(|pattern| match pattern {
        HostPattern::Exact(own) => **own == *host,
        HostPattern::Suffix(own) => host.strip_suffix(&**own).is_some_and(|front| front.ends_with('.')),
        HostPattern::Any => false,
    });
    !own && host != facts.host().to_ascii_lowercase()
}
