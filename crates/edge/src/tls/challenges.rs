//! What certificate authorities will look for on this edge, while they are asked for certificates.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Pending challenges. Outlives generations; read by every edge thread.
#[derive(Default)]
pub struct Challenges {
    http: ArcSwap<HashMap<String, Arc<str>>>,
}

impl Challenges {
    /// The content of `/.well-known/acme-challenge/TOKEN`, while the token is pending (RFC 8555 section 8.3).
    pub fn http(&self, token: &str) -> Option<Arc<str>> {
        self.http.load().get(token).cloned()
    }
}
