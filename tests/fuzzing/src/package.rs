//! `package`: a package, one whose maker signed nonsense, and contents of every kind; whatever is taken is what was signed,
//! fits its own manifest, and cannot be taken a second time.

use std::sync::LazyLock;

use api::seal::{Domain, Keyring, SigningKey};
use base::time::Timestamp;
use snapshot::kind::{self, Kind};
use snapshot::package::{self, Draft, MAX_BYTES, Package, is_whole, open, peek};

const NOW: Timestamp = Timestamp(1_790_000_000_000_000);

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_seed(&[7; 32]).unwrap());
static RING: LazyLock<Keyring> = LazyLock::new(|| Keyring::new([KEY.public().into()]).unwrap());

/// The first byte says which: `r` a package as it is, `s` a manifest, a line feed and compressed bytes, which are signed first,
/// a digit the content of the kind in that place.
pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((b'r', bytes)) => taken(bytes),
        Some((b's', pieces)) => taken(&signed(pieces)),
        Some((digit @ b'0'..=b'9', payload)) => {
            if let Some(kind) = kind::KINDS.get(usize::from(digit - b'0')) {
                content(*kind, payload);
            }
        }
        _ => {}
    }
}

/// Opens a package. One that is taken is whole, says the same to whoever peeks, and passes its check or is told why not.
fn taken(bytes: &[u8]) {
    let limit = 1 << 20;
    let package = match open(bytes, &RING, NOW, limit, true) {
        Ok(package) => package,
        Err(error) => {
            assert!(!error.code().is_empty() && !error.to_string().is_empty());
            return;
        }
    };
    assert!(is_whole(bytes), "taken, and not whole");
    assert_eq!(peek(bytes).as_ref(), Ok(&package.manifest));
    assert!(package.payload.len() as u64 == package.manifest.bytes && package.manifest.bytes <= limit);
    let shown = &package.manifest.source;
    assert!(!shown.chars().any(char::is_control), "{shown:?} would be shown in a terminal");
    let Some(kind) = kind::find(&package.manifest.kind) else { return };
    if let Err(findings) = kind::check(&package, None, kind.caps(), true, NOW) {
        assert!(!findings.is_empty() && findings.iter().all(|found| found.hint.is_some()), "{findings:?}");
    }
}

fn signed(pieces: &[u8]) -> Vec<u8> {
    let end = pieces.iter().position(|byte| *byte == b'\n').unwrap_or(pieces.len());
    let (manifest, packed) = (&pieces[..end], pieces.get(end + 1..).unwrap_or_default());
    let seal = KEY.sign(Domain::Package, manifest);
    let mut bytes = b"rempart pkg 01\r\n".to_vec();
    bytes.extend_from_slice(&u32::try_from(manifest.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(manifest);
    bytes.extend_from_slice(&seal.key.0);
    bytes.extend_from_slice(&seal.signature);
    bytes.extend_from_slice(&(packed.len() as u64).to_be_bytes());
    bytes.extend_from_slice(packed);
    bytes
}

/// Reads a content. One that is read can be packed, opened, checked and used, and then nothing but a newer one is taken.
fn content(kind: &dyn Kind, payload: &[u8]) {
    let read = match kind::read(kind, payload, kind.caps(), NOW) {
        Ok(read) => read,
        Err(findings) => {
            assert!(
                !findings.is_empty() && findings.iter().all(|found| found.hint.is_some()),
                "{findings:?}"
            );
            return;
        }
    };
    if let Err(found) = kind.exercise(&read) {
        panic!("read, and not usable: {found:?}");
    }
    let made = |generation| -> Package {
        let name = "fuzz".to_owned();
        let source = String::new();
        let draft = Draft { name, generation, created: NOW, expires: None, source, query_hash: None };
        let bytes = package::pack(draft, kind::describe(kind, &read), payload, &KEY).unwrap();
        open(&bytes, &RING, NOW, MAX_BYTES, true).unwrap()
    };
    let (first, second) = (made(1), made(2));
    let codes = |package: &Package, previous: Option<&Package>| -> Vec<String> {
        let checked = kind::check(package, previous, kind.caps(), false, NOW);
        checked.err().into_iter().flatten().map(|found| found.code).collect()
    };
    assert_eq!(codes(&first, None), [""; 0]);
    assert_eq!(codes(&second, Some(&first)), [""; 0]);
    assert_eq!(codes(&first, Some(&first)), ["not-newer"]);
}
