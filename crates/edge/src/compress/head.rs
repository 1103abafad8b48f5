//! What a response's head says once its content is compressed: other bytes, so another representation.

use super::Coding;
use crate::message::HeaderList;

/// Fields that are wrong for other bytes than those they came with: digests of the content (RFC 9530 sections 2 and 3, and
/// their two predecessors), and that parts can be asked for, since parts of what is made here cannot.
const UNTRUE: [&str; 5] = ["accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"];

/// Says which coding the content has, and takes out what is no longer true. `vary` is called besides.
pub fn rewrite(headers: &mut HeaderList, coding: Coding) {
    headers.retain(|name, _| !is_one_of(name, &UNTRUE));
    headers.push("Content-Encoding", coding.name());
    // RFC 9110 section 8.8.3.3: a strong validator is of one coding only.
    let strong = headers.get(b"etag").filter(|tag| tag.starts_with(b"\"")).map(|tag| [b"W/", tag].concat());
    if let Some(weak) = strong {
        headers.remove(b"etag");
        headers.push("ETag", weak);
    }
}

/// Adds `Accept-Encoding` to `Vary` (RFC 9110 section 12.5.5), where it is not said already.
pub fn vary(headers: &mut HeaderList) {
    let says = |line: &[u8]| {
        let mut members = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        members.any(|member| member == b"*" || member.eq_ignore_ascii_case(b"accept-encoding"))
    };
    if headers.all(b"vary").any(says) {
        return;
    }
    let mut members: Vec<&[u8]> = headers.all(b"vary").filter(|line| !line.is_empty()).collect();
    members.push(b"Accept-Encoding");
    let merged = members.join(&b", "[..]);
    headers.remove(b"vary");
    headers.push("Vary", merged);
}

/// Trailer fields without what is untrue of compressed content.
pub fn trailers(mut fields: HeaderList) -> HeaderList {
    fields.retain(|name, _| !is_one_of(name, &UNTRUE) && !name.eq_ignore_ascii_case(b"etag"));
    fields
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|one| name.eq_ignore_ascii_case(one.as_bytes()))
}
