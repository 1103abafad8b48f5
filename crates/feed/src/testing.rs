//! Packages for tests.

use api::seal::SigningKey;
use base::time::Timestamp;
use snapshot::kind;
use snapshot::package::{Draft, pack};

/// When tests take place.
pub const NOW: Timestamp = Timestamp(1_000_000_000_000);

/// The key all of them trust.
pub fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).unwrap()
}

/// A table of these keys, packed as its maker would, but unchecked.
pub fn table(generation: u64, keys: impl IntoIterator<Item = u64>) -> Vec<u8> {
    packed(generation, &rows(keys), None, &key())
}

/// The text of a table of these keys.
pub fn rows(keys: impl IntoIterator<Item = u64>) -> String {
    keys.into_iter().fold("#columns name:text weight:number\n".to_owned(), |text, key| format!("{text}row{key}\t0.5\n"))
}

/// Any content, with what its kind says of it, or with nothing said when its kind cannot read it.
pub fn packed(generation: u64, text: &str, expires: Option<Timestamp>, key: &SigningKey) -> Vec<u8> {
    let kind = kind::find("table").unwrap();
    let described = kind.read(text.as_bytes(), NOW).map(|content| kind::describe(kind, &content));
    let described = described.unwrap_or_else(|_| snapshot::package::Described {
        kind: "table",
        schema: kind.schema(),
        consumers: kind.consumers(),
        entries: 0,
        keys_digest: String::new(),
        memory: 0,
    });
    let draft = Draft {
        name: "features".to_owned(),
        generation,
        created: NOW,
        expires,
        source: "a test".to_owned(),
        query_hash: None,
    };
    pack(draft, described, text.as_bytes(), key).unwrap()
}
