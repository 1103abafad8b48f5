//! A package: one artefact with all that must be known to trust it, in one file.
//!
//! Sixteen bytes that name the format, the manifest (canonical JSON, its length in front), the key and the Ed25519 signature of
//! the manifest, and the content, compressed with Zstandard (RFC 8878), its length in front. Numbers have four or eight bytes, most
//! significant first. The manifest holds the hashes of the content, compressed and not, so one signature covers every byte, and
//! nothing is decompressed that was not signed. There is one encoding of everything; any other is refused.

use std::io::Read as _;
use std::sync::Arc;

use api::seal::{Domain, KeyId, Keyring, SIGNATURE_BYTES, Seal, SealError, SigningKey};
use base::time::Timestamp;
use serde::{Deserialize, Serialize};

/// First bytes of a package; the number is the version of the format.
const MAGIC: &[u8; 16] = b"rempart pkg 01\r\n";
/// Largest manifest, in bytes.
const MAX_MANIFEST: usize = 16 << 10;
/// Largest package, and largest content, in bytes, whatever the kind.
pub const MAX_BYTES: u64 = 256 << 20;
/// Longest kind, name, source and hash of a query, in bytes.
const MAX_NAME: usize = 64;
const MAX_SOURCE: usize = 1024;
/// How hard is compressed: packages are made once and read often.
const LEVEL: i32 = 9;

/// What is said of an artefact, and signed. Fields are in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Bytes of the content.
    pub bytes: u64,
    /// Versions of the schema's reader that can read it: from, to, both included.
    pub consumers: (u32, u32),
    /// BLAKE3 of the content, in hexadecimal digits.
    pub content: String,
    /// When it was made.
    pub created: Timestamp,
    /// Entries of the content.
    pub entries: u64,
    /// When it must not be put in force any more.
    pub expires: Option<Timestamp>,
    /// Its number; grows with every change.
    pub generation: u64,
    /// BLAKE3 over the sorted keys of all entries, each with its length in front, in hexadecimal digits.
    pub keys_digest: String,
    /// The kind of artefact (`kind`).
    pub kind: String,
    /// Memory it takes in an edge, in bytes, as its maker reckons.
    pub memory: u64,
    /// Name of the feed: lower-case letters, digits and `-`.
    pub name: String,
    /// BLAKE3 of the compressed content, in hexadecimal digits.
    pub packed: String,
    /// Bytes of the compressed content.
    pub packed_bytes: u64,
    /// BLAKE3 of the query it was made with, in hexadecimal digits.
    pub query_hash: Option<String>,
    /// Version of the schema of the content.
    pub schema: u32,
    /// What it was made from, for people.
    pub source: String,
}

/// What its maker says of an artefact; everything else is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Name of the feed.
    pub name: String,
    /// Its number.
    pub generation: u64,
    /// When it is made.
    pub created: Timestamp,
    /// When it must not be put in force any more.
    pub expires: Option<Timestamp>,
    /// What it was made from, for people.
    pub source: String,
    /// Hash of the query it was made with.
    pub query_hash: Option<String>,
}

/// What a kind knows of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The kind.
    pub kind: &'static str,
    /// Version of its schema.
    pub schema: u32,
    /// Readers that can read it.
    pub consumers: (u32, u32),
    /// Entries.
    pub entries: u64,
    /// Over all keys.
    pub keys_digest: String,
    /// Memory it takes.
    pub memory: u64,
}

/// A package that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// What is said of it.
    pub manifest: Manifest,
    /// Whose signature it bears.
    pub key: KeyId,
    /// The content.
    pub payload: Arc<[u8]>,
}

/// What a package must fit into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Bytes of the content.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Memory in an edge, in bytes.
    pub memory: u64,
}

/// Why a package cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// A name with other characters, or none, or too many.
    #[error("{0:?} is no name for a feed: it takes 1 to {MAX_NAME} lower-case letters, digits and hyphens")]
    BadName(String),
    /// Too long to be kept, or something a terminal would act upon.
    #[error("what it was made from is described in more than {MAX_SOURCE} bytes, or with control characters")]
    BadSource,
    /// Not a hash.
    #[error("{0:?} is not the hash of a query: that is 64 lower-case hexadecimal digits")]
    BadQueryHash(String),
    /// More than any package holds.
    #[error("{0} bytes are more than any package holds")]
    TooLarge(u64),
    /// The library has refused.
    #[error("it could not be compressed")]
    NotCompressed,
}

/// Why a package is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// Not even the beginning fits.
    #[error("it is not a package of this version; make one with `rempart feed pack`")]
    NotAPackage,
    /// Cut off, longer than it says, or not encoded as packages are.
    #[error("it is damaged ({0}); fetch or make it again")]
    Damaged(&'static str),
    /// Not signed by somebody trusted.
    #[error("{0}")]
    Seal(#[from] SealError),
    /// Its time is over.
    #[error("it expired at {} (seconds since 1970); have a newer one made", .0.seconds())]
    Expired(Timestamp),
    /// Larger than what it is for allows.
    #[error(
        "its content has {found} bytes, and {limit} are allowed; it is refused whole, nothing is cut off"
    )]
    TooLarge {
        /// What it has.
        found: u64,
        /// What it may have.
        limit: u64,
    },
}

impl PackageError {
    /// The stable name of it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAPackage => "not-a-package",
            Self::Damaged(_) => "damaged",
            Self::Seal(SealError::UnknownKey(_)) => "unknown-key",
            Self::Seal(SealError::KeyOutOfTime(_)) => "key-out-of-time",
            Self::Seal(SealError::Forged) => "forged",
            Self::Expired(_) => "expired",
            Self::TooLarge { .. } => "too-large",
        }
    }
}

/// Whether a feed may be called that.
pub fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_source(text: &str) -> bool {
    text.len() <= MAX_SOURCE && !text.chars().any(char::is_control)
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Makes a package of a content whose kind has described it.
pub fn pack(
    draft: Draft,
    described: Described,
    payload: &[u8],
    key: &SigningKey,
) -> Result<Vec<u8>, PackError> {
    if !is_name(&draft.name) {
        return Err(PackError::BadName(draft.name));
    }
    if !is_source(&draft.source) {
        return Err(PackError::BadSource);
    }
    if let Some(hash) = draft.query_hash.as_ref().filter(|hash| !is_hash(hash)) {
        return Err(PackError::BadQueryHash(hash.clone()));
    }
    if payload.len() as u64 > MAX_BYTES {
        return Err(PackError::TooLarge(payload.len() as u64));
    }
    let packed = zstd::bulk::compress(payload, LEVEL).map_err(|_| PackError::NotCompressed)?;
    let manifest = Manifest {
        bytes: payload.len() as u64,
        consumers: described.consumers,
        content: blake3::hash(payload).to_string(),
        created: draft.created,
        entries: described.entries,
        expires: draft.expires,
        generation: draft.generation,
        keys_digest: described.keys_digest,
        kind: described.kind.to_owned(),
        memory: described.memory,
        name: draft.name,
        packed: blake3::hash(&packed).to_string(),
        packed_bytes: packed.len() as u64,
        query_hash: draft.query_hash,
        schema: described.schema,
        source: draft.source,
    };
    let manifest = serde_json::to_vec(&manifest).map_err(|_| PackError::NotCompressed)?;
    let seal = key.sign(Domain::Package, &manifest);
    let length = u32::try_from(manifest.len()).map_err(|_| PackError::BadSource)?;
    let mut out = Vec::with_capacity(MAGIC.len() + 12 + manifest.len() + 8 + SIGNATURE_BYTES + packed.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&manifest);
    out.extend_from_slice(&seal.key.0);
    out.extend_from_slice(&seal.signature);
    out.extend_from_slice(&(packed.len() as u64).to_be_bytes());
    out.extend_from_slice(&packed);
    Ok(out)
}

/// The parts of a package as they lie in its bytes.
struct Parts<'a> {
    manifest: Manifest,
    signed: &'a [u8],
    seal: Seal,
    packed: &'a [u8],
}

/// The manifest as it is signed, and what follows it.
fn start(bytes: &[u8]) -> Result<(&[u8], &[u8]), PackageError> {
    let damaged = PackageError::Damaged;
    let rest = bytes.strip_prefix(MAGIC).ok_or(PackageError::NotAPackage)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(damaged("cut off"))?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > MAX_MANIFEST {
        return Err(damaged("the manifest is too long"));
    }
    rest.split_at_checked(length).ok_or(damaged("cut off"))
}

fn read_manifest(signed: &[u8]) -> Result<Manifest, PackageError> {
    serde_json::from_slice(signed).map_err(|_| PackageError::Damaged("the manifest"))
}

fn split(bytes: &[u8]) -> Result<Parts<'_>, PackageError> {
    let damaged = PackageError::Damaged;
    let (signed, rest) = start(bytes)?;
    let (key, rest) = rest.split_first_chunk::<8>().ok_or(damaged("cut off"))?;
    let (signature, rest) = rest.split_first_chunk::<SIGNATURE_BYTES>().ok_or(damaged("cut off"))?;
    let (length, packed) = rest.split_first_chunk::<8>().ok_or(damaged("cut off"))?;
    if u64::from_be_bytes(*length) != packed.len() as u64 {
        return Err(damaged("its length is not what it says"));
    }
    let manifest = read_manifest(signed)?;
    let seal = Seal { key: KeyId(*key), signature: *signature };
    Ok(Parts { manifest, signed, seal, packed })
}

/// Bytes from the beginning of a package that are enough for `peek_start`.
pub const START_BYTES: usize = MAGIC.len() + 4 + MAX_MANIFEST;

/// What a package says of itself, by its first bytes: at least `START_BYTES`, or all of them. Nothing of it has been verified.
pub fn peek_start(bytes: &[u8]) -> Result<Manifest, PackageError> {
    start(bytes).and_then(|(signed, _)| read_manifest(signed))
}

/// What a package says of itself. Nothing of it has been verified: for lists, not for decisions.
pub fn peek(bytes: &[u8]) -> Result<Manifest, PackageError> {
    split(bytes).map(|parts| parts.manifest)
}

/// Whether nothing of it was cut off or altered since it was made. Who made it is another question.
pub fn is_whole(bytes: &[u8]) -> bool {
    split(bytes).is_ok_and(|Parts { manifest, packed, .. }| {
        manifest.packed_bytes == packed.len() as u64 && blake3::hash(packed).to_string() == manifest.packed
    })
}

/// Reads a package and verifies everything that can be without knowing its kind. What has expired is an error only where it is
/// `fresh`: one that was in force stays usable.
pub fn open(
    bytes: &[u8],
    keys: &Keyring,
    now: Timestamp,
    limit: u64,
    fresh: bool,
) -> Result<Package, PackageError> {
    let damaged = PackageError::Damaged;
    let Parts { manifest, signed, seal, packed } = split(bytes)?;
    keys.verify(Domain::Package, signed, &seal, now)?;
    // Signed, so only a maker with a defect gets beyond here with something wrong.
    if serde_json::to_vec(&manifest).ok().as_deref() != Some(signed) {
        return Err(damaged("the manifest is not in canonical form"));
    }
    let hashes = [&manifest.content, &manifest.keys_digest, &manifest.packed];
    if !is_name(&manifest.name) || !is_name(&manifest.kind) || !is_source(&manifest.source) {
        return Err(damaged("a name in the manifest"));
    }
    if !hashes.into_iter().chain(&manifest.query_hash).all(|hash| is_hash(hash)) {
        return Err(damaged("a hash in the manifest"));
    }
    let limit = limit.min(MAX_BYTES);
    if manifest.bytes > limit {
        return Err(PackageError::TooLarge { found: manifest.bytes, limit });
    }
    if let Some(expires) = manifest.expires.filter(|expires| fresh && *expires <= now) {
        return Err(PackageError::Expired(expires));
    }
    if manifest.packed_bytes != packed.len() as u64 || blake3::hash(packed).to_string() != manifest.packed {
        return Err(damaged("the content does not match its hash"));
    }
    let payload = unpack(packed, manifest.bytes)?;
    if blake3::hash(&payload).to_string() != manifest.content {
        return Err(damaged("the unpacked content does not match its hash"));
    }
    Ok(Package { manifest, key: seal.key, payload: payload.into() })
}

/// One frame with nothing behind it, and never more than was announced, however much comes out.
fn unpack(packed: &[u8], bytes: u64) -> Result<Vec<u8>, PackageError> {
    let damaged = PackageError::Damaged("the content cannot be unpacked");
    let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(|_| damaged.clone())?;
    let mut decoder = decoder.single_frame();
    let mut payload = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    (&mut decoder).take(bytes + 1).read_to_end(&mut payload).map_err(|_| damaged.clone())?;
    if payload.len() as u64 == bytes && decoder.finish().is_empty() { Ok(payload) } else { Err(damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    fn ring(key: &SigningKey) -> Keyring {
        Keyring::new([key.public().into()]).unwrap()
    }

    fn draft() -> Draft {
        Draft {
            name: "features".to_owned(),
            generation: 7,
            created: NOW,
            expires: Some(Timestamp(2_000_000)),
            source: "a test".to_owned(),
            query_hash: None,
        }
    }

    fn described() -> Described {
        let keys_digest = blake3::hash(b"").to_string();
        Described { kind: "table", schema: 1, consumers: (1, 1), entries: 3, keys_digest, memory: 9 }
    }

    fn made(payload: &[u8]) -> Vec<u8> {
        pack(draft(), described(), payload, &key(1)).unwrap()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let payload = b"line after line after line".repeat(50);
        let bytes = made(&payload);
        let package = open(&bytes, &ring(&key(1)), NOW, MAX_BYTES, true).unwrap();
        assert_eq!((&*package.payload, package.key), (&payload[..], key(1).public().id()));
        let Manifest { name, generation, entries, bytes: length, .. } = package.manifest.clone();
        assert_eq!((name.as_str(), generation, entries, length), ("features", 7, 3, 1300));
        assert_eq!(peek(&bytes).unwrap(), package.manifest);
        assert_eq!(made(&payload), bytes, "the same content is the same package");
    }

    #[test]
    fn any_other_byte_and_any_other_length_is_refused() {
        let good = made(b"name\tweight\n");
        let ring = ring(&key(1));
        let refused = |bytes: &[u8]| open(bytes, &ring, NOW, MAX_BYTES, true).is_err();
        assert!(!refused(&good));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(refused(&bad), "byte {at}, bit {bit}");
            }
            assert!(refused(&good[..at]), "cut at {at}");
        }
        assert!(refused(&[&good[..], &[0]].concat()));
    }

    #[test]
    fn what_cannot_be_trusted_or_is_too_much_says_why() {
        let good = made(&[b'x'; 100]);
        let ring = ring(&key(1));
        let code = |bytes: &[u8], ring: &Keyring, now: u64, limit: u64| {
            open(bytes, ring, Timestamp(now), limit, true).map_err(|error| error.code()).err()
        };
        assert_eq!(code(&good, &ring, 1_999_999, 100), None);
        assert_eq!(code(&good, &ring, 2_000_000, 100), Some("expired"));
        assert!(open(&good, &ring, Timestamp(2_000_000), 100, false).is_ok(), "it was in force before");
        assert_eq!(code(&good, &ring, 1, 99), Some("too-large"));
        assert_eq!(code(&good, &Keyring::default(), 1, 100), Some("unknown-key"));
        assert_eq!(code(b"PK", &ring, 1, 100), Some("not-a-package"));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 50 << 20], 19).unwrap();
        assert_eq!(unpack(&bomb, 1000), Err(PackageError::Damaged("the content cannot be unpacked")));
        assert!(unpack(&bomb, 50 << 20).is_ok());
        let small = zstd::bulk::compress(b"x", LEVEL).unwrap();
        let empty = zstd::bulk::compress(b"", LEVEL).unwrap();
        assert_eq!(unpack(&small, 1), Ok(b"x".to_vec()));
        assert_eq!(unpack(&empty, 0), Ok(Vec::new()));
        for (more, bytes) in [(&b"junk"[..], 1), (&empty, 1), (&small, 1), (&small, 2)] {
            assert!(unpack(&[&small, more].concat(), bytes).is_err(), "a second frame, or junk");
        }
    }

    #[test]
    fn what_is_told_to_people_cannot_move_their_terminal() {
        let with = |source: &str, query_hash: Option<&str>| {
            let draft =
                Draft { source: source.to_owned(), query_hash: query_hash.map(str::to_owned), ..draft() };
            pack(draft, described(), b"", &key(1)).err()
        };
        assert_eq!(with("node 3, über alles", Some(&"0a".repeat(32))), None);
        assert_eq!(with("\u{1b}[2J", None), Some(PackError::BadSource));
        assert_eq!(with(&"x".repeat(MAX_SOURCE + 1), None), Some(PackError::BadSource));
        for bad in ["", "0A", &"0A".repeat(32), &"\u{1b}".repeat(64)] {
            assert_eq!(with("", Some(bad)), Some(PackError::BadQueryHash(bad.to_owned())));
        }
    }

    #[test]
    fn a_signature_does_not_excuse_another_form() {
        let good = made(b"x");
        let length = MAGIC.len() + 4;
        let manifest = |change: &dyn Fn(String) -> String| {
            let parts = split(&good).unwrap();
            let text = change(String::from_utf8(parts.signed.to_vec()).unwrap());
            let seal = key(1).sign(Domain::Package, text.as_bytes());
            let mut bytes = good[..length - 4].to_vec();
            bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
            bytes.extend_from_slice(&seal.key.0);
            bytes.extend_from_slice(&seal.signature);
            bytes.extend_from_slice(&good[length + parts.signed.len() + 8 + SIGNATURE_BYTES..]);
            open(&bytes, &ring(&key(1)), NOW, MAX_BYTES, true).map_err(|error| error.code()).err()
        };
        assert_eq!(manifest(&|text| text), None);
        for (from, to) in [
            ("\"bytes\":1", "\"bytes\": 1"),
            ("\"bytes\":1", "\"bytes\":1.0"),
            ("\"bytes\":1", "\"bytes\":1,\"bytes\":1"),
            ("\"query_hash\":null,", ""),
            ("\"query_hash\":null", "\"query_hash\":\"x\""),
            ("a test", "\\u0061 test"),
            ("a test", "a\\u001btest"),
            ("features", "../tures"),
            ("\"schema\"", "\"more\":1,\"schema\""),
        ] {
            assert_eq!(manifest(&|text| text.replacen(from, to, 1)), Some("damaged"), "{from} as {to}");
        }
    }

    #[test]
    fn names_are_plain() {
        for (name, good) in
            [("a", true), ("bot-features-2", true), ("", false), ("A", false), ("../x", false)]
        {
            assert_eq!(is_name(name), good, "{name:?}");
        }
        assert!(!is_name(&"x".repeat(MAX_NAME + 1)));
    }
}
