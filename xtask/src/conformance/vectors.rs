//! The foreign vectors as bytes: Http11Probe's payloads, and the messages in llhttp's Markdown files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use serde_json::Value;

/// Bytes to send, and what they are called.
#[derive(Clone, Debug)]
pub struct Vector {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The host every vector is for that needs one.
const HOST: &str = "localhost";

/// The payloads of `http11/cases.json`.
pub fn probe(suites: &Path) -> Result<Vec<Vector>> {
    let cases: Vec<Value> = serde_json::from_str(&fs::read_to_string(suites.join("http11/cases.json"))?)?;
    let mut vectors = Vec::new();
    for case in &cases {
        let name = case["id"].as_str().context("a case without an id")?.to_owned();
        let payload = case["payload_b64"].as_str().with_context(|| format!("{name} has no payload"))?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(payload)?;
        vectors.push(Vector { name, bytes: replaced(&bytes, b"@@HOST@@", HOST.as_bytes()) });
    }
    some(vectors, "http11/cases.json")
}

/// llhttp's requests. Its parser does not ask for a Host, which a server must: a vector without one is tried as it is,
/// where it has to be refused, and with one.
pub fn llhttp_requests(suites: &Path) -> Result<Vec<Vector>> {
    let mut vectors = Vec::new();
    for vector in llhttp(suites, "request")? {
        let with_host = add_host(&vector.bytes);
        if let Some(bytes) = with_host {
            vectors.push(Vector { name: format!("{} + Host", vector.name), bytes });
        }
        vectors.push(vector);
    }
    Ok(vectors)
}

/// llhttp's responses.
pub fn llhttp_responses(suites: &Path) -> Result<Vec<Vector>> {
    llhttp(suites, "response")
}

/// Every message of a folder of llhttp's vectors: a heading, then a block marked `http`.
fn llhttp(suites: &Path, side: &str) -> Result<Vec<Vector>> {
    let folder = suites.join("http11/llhttp").join(side);
    let listed = fs::read_dir(&folder).with_context(|| format!("no vectors in {}", folder.display()))?;
    let mut files = listed.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    let mut vectors = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (mut heading, mut block): (String, Option<String>) = (String::new(), None);
        for line in text.lines() {
            match &mut block {
                None if line.starts_with('#') => line.trim_start_matches('#').trim().clone_into(&mut heading),
                None if line.trim_end() == "```http" => block = Some(String::new()),
                None => {}
                Some(text) if line.trim_end() == "```" => {
                    vectors.push(Vector { name: format!("{side}/{stem}: {heading}"), bytes: unescape(text) });
                    block = None;
                }
                Some(text) => {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    some(vectors, &folder.to_string_lossy())
}

/// A block as bytes, the way llhttp's own runner reads it: the last line end is the block's, a backslash before a line end
/// joins lines, a line ends in CR LF, and `\r`, `\n`, `\t`, `\f` and `\x7f` are characters.
fn unescape(block: &str) -> Vec<u8> {
    let block = block.strip_suffix('\n').unwrap_or(block).replace("\\\n", "").replace('\n', "\r\n");
    let block = block.replace("\\r", "\r").replace("\\n", "\n").replace("\\t", "\t").replace("\\f", "\x0c");
    let mut bytes = Vec::new();
    let mut pieces = block.split("\\x");
    bytes.extend(pieces.next().unwrap_or_default().bytes());
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_hexdigit).count();
        let (number, after) = piece.split_at_checked(digits).unwrap_or_default();
        match u32::from_str_radix(number, 16).ok().and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(format!("\\x{number}").bytes()),
        }
        bytes.extend(after.bytes());
    }
    bytes
}

/// The vector with a Host after each request line; `None` when it has one already.
fn add_host(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.to_ascii_lowercase().windows(5).any(|window| window == b"host:") {
        return None;
    }
    let mut with_host = Vec::new();
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        with_host.extend_from_slice(line);
        let ends = line.strip_suffix(b"\r\n").or_else(|| line.strip_suffix(b"\n"));
        let version = ends.and_then(|line| line.split(|&byte| byte == b' ').next_back());
        if version.is_some_and(|version| version.starts_with(b"HTTP/")) {
            with_host.extend_from_slice(format!("Host: {HOST}\r\n").as_bytes());
        }
    }
    Some(with_host)
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut result = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(old.len()).position(|window| window == old) {
        result.extend_from_slice(rest.get(..at).unwrap_or_default());
        result.extend_from_slice(new);
        rest = rest.get(at + old.len()..).unwrap_or_default();
    }
    result.extend_from_slice(rest);
    result
}

/// No vectors would mean a test that tests nothing.
fn some(vectors: Vec<Vector>, place: &str) -> Result<Vec<Vector>> {
    if vectors.is_empty() {
        bail!("no vectors in {place}");
    }
    Ok(vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_bytes() {
        assert_eq!(unescape("GET / HTTP/1.1\nA: b\\\n c\\td\n\n\n"), b"GET / HTTP/1.1\r\nA: b c\td\r\n\r\n");
        assert_eq!(unescape("a\\xff b\\r\\n\n"), b"a\xff b\r\n");
    }

    #[test]
    fn a_host_is_added_after_request_lines() {
        let two = add_host(b"GET / HTTP/1.1\r\n\r\nPUT /b HTTP/1.0\r\nA: b\r\n\r\n").unwrap();
        let text = String::from_utf8(two).unwrap();
        assert_eq!(text.matches("HTTP/1.1\r\nHost: localhost\r\n").count(), 1);
        assert_eq!(text.matches("HTTP/1.0\r\nHost: localhost\r\n").count(), 1);
        assert!(add_host(b"GET / HTTP/1.1\r\nhOst: a\r\n\r\n").is_none());
    }
}
