//! FOR REPLACEMENT ON MERGE: the certificates of visitors are not read on this branch, so no connection showed one.

use snapshot::generation::ClientAuth;

use super::TlsFacts;

impl TlsFacts {
    /// Whether the visitor showed a certificate of one of these authorities.
    pub fn satisfies(&self, _client: &ClientAuth) -> bool {
        false
    }
}
