//! A package: everything a generation was made from, in one file that can be read again without the files it came from.
//!
//! It lies in memory (a memfd) and travels between processes as a descriptor, so that no replacement of a process
//! depends on a disk; the state folder keeps copies.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;

use rustix::fs::MemfdFlags;
use snapshot::kind::site_config;
pub use snapshot::kind::site_config::Sources;

/// Largest package, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// First bytes of a package; the digit is the version of the format.
const MAGIC: &[u8; 16] = b"rempart gen 01\r\n";
/// Bytes of a BLAKE3 hash.
const HASH: usize = 32;

/// Makes a package in memory.
pub fn make(number: u64, sources: &Sources) -> io::Result<File> {
    let body = site_config::encode(number, sources)?;
    let mut file = File::from(rustix::fs::memfd_create("rempart-generation", MemfdFlags::CLOEXEC)?);
    file.write_all(MAGIC)?;
    file.write_all(blake3::hash(&body).as_bytes())?;
    file.write_all(&body)?;
    Ok(file)
}

/// Reads a package, wherever its file offset stands; anything altered or cut off is an error.
pub fn read(file: &File) -> io::Result<(u64, Sources)> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let length = file.metadata()?.len();
    if length > MAX_BYTES {
        return Err(damaged("larger than any package"));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("not a stored generation of this version"))?;
    let (hash, body) = rest.split_at_checked(HASH).ok_or_else(|| damaged("cut off"))?;
    if blake3::hash(body).as_bytes() != hash {
        return Err(damaged("the content does not match its hash"));
    }
    site_config::decode(body).ok_or_else(|| damaged("cut off"))
}

/// A package of any kind as it lies in a file, wherever that file's offset stands.
pub fn bytes(file: &File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if length > snapshot::package::MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than any package"));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// A package in memory, to be handed to other processes.
pub fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("rempart-package", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

/// Copies a package to another file, from its first byte on.
pub fn copy(from: &File, to: &mut File) -> io::Result<()> {
    let (mut at, mut buffer) = (0, [0; 16 * 1024]);
    loop {
        let count = from.read_at(&mut buffer, at)?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { return Ok(()) };
        to.write_all(piece)?;
        at += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snapshot::source::SourceTree;

    use super::*;

    fn sources(text: &str) -> Sources {
        let mut tree = SourceTree::default();
        tree.insert("key.pem", Ok(Arc::from(&b"secret"[..])));
        Sources { file: "rempart.toml".into(), text: Arc::from(text.as_bytes()), tree }
    }

    #[test]
    fn what_went_in_comes_out_again() {
        let package = make(7, &sources("[[site]]")).unwrap();
        for _ in 0..2 {
            let (number, read) = read(&package).unwrap();
            assert_eq!((number, &*read.text), (7, &b"[[site]]"[..]));
            assert_eq!(&*read.tree.get("key.pem").unwrap(), b"secret");
        }
        let mut copied = tempfile::tempfile().unwrap();
        copy(&package, &mut copied).unwrap();
        assert_eq!(read(&copied).unwrap().0, 7);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let package = make(1, &sources("[[site]]")).unwrap();
        let mut good = vec![0; usize::try_from(package.metadata().unwrap().len()).unwrap()];
        package.read_exact_at(&mut good, 0).unwrap();
        let reread = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            read(&file)
        };
        assert!(reread(&good).is_ok());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(reread(&bad).is_err(), "byte {at}");
            assert!(reread(&good[..at]).is_err(), "cut at {at}");
        }
    }
}
