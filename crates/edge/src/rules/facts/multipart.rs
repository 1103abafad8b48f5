//! Parts of a form with files (RFC 7578), for rules. Strict, for origins differ in what they make of a body that breaks the rules:
//! what it holds is not known then.

use bytes::Bytes;
use expr::{Array, Items, Value};
use memchr::memmem::Finder;

/// Parts that are read; what a body with more of them holds is not known.
const PARTS_MOST: usize = 256;
/// Header fields of one part.
const FIELDS_MOST: usize = 16;
/// Bytes of one part's header fields.
const HEAD_MOST: usize = 8 * 1024;
/// Longest boundary (RFC 2046 section 5.1.1).
const BOUNDARY_MOST: usize = 70;

/// The parts that came whole. Lists have one element for each, which is empty where a part does not say.
#[derive(Debug, Default)]
pub struct Multipart {
    /// Names with contents; parts without a name are not here.
    pub pairs: Vec<(Bytes, Bytes)>,
    /// Their contents.
    pub values: Vec<Bytes>,
    /// Their names.
    pub names: Said,
    /// Names of files, quotes undone.
    pub filenames: Said,
    /// `Content-Type` as it came.
    pub content_types: Said,
    /// `Content-Disposition` likewise.
    pub content_dispositions: Said,
    /// `Content-Transfer-Encoding` likewise.
    pub content_transfer_encodings: Said,
}

/// What each part says of one thing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said(pub Vec<Vec<Bytes>>);

impl Items for Said {
    fn at(&self, position: usize) -> Option<Value<'_>> {
        self.0.get(position).map(|said| Value::Array(Array::Kept(said)))
    }
}

impl Multipart {
    /// Reads a body, or its beginning. `None` when it is none, or has more than is read.
    pub fn read(body: &Bytes, content_type: &[u8], truncated: bool) -> Option<Self> {
        let boundary = parameter(content_type, b"boundary")?;
        if boundary.is_empty() || boundary.len() > BOUNDARY_MOST || boundary.ends_with(b" ") {
            return None;
        }
        let delimiter = [b"\r\n--", &*boundary].concat();
        let finder = Finder::new(&delimiter);
        // The first delimiter may be the first thing of all; what stands before it means nothing (RFC 2046 section 5.1.1).
        let mut at = match body.starts_with(&delimiter[2..]) {
            true => delimiter.len() - 2,
            false => match finder.find(body) {
                Some(found) => found + delimiter.len(),
                None => return truncated.then(Self::default),
            },
        };
        let mut found = Self::default();
        for _ in 0..PARTS_MOST {
            let line = &body[at..];
            if line.starts_with(b"--") || (truncated && line == b"-") {
                return Some(found);
            }
            let padding = line.iter().take_while(|byte| b" \t".contains(byte)).count();
            let rest = &line[padding..];
            if !rest.starts_with(b"\r\n") {
                return (truncated && b"\r\n".starts_with(&rest[..rest.len().min(2)])).then_some(found);
            }
            // A part without header fields begins with the empty line, whose first half ends the delimiter.
            let start = at + padding;
            let Some(length) = finder.find(&body[start + 2..]).map(|length| length + 2) else {
                return truncated.then_some(found);
            };
            found.part(body, start + 2, start + length)?;
            at = start + length + delimiter.len();
        }
        None
    }

    /// Reads one part, header fields and content.
    fn part(&mut self, body: &Bytes, start: usize, end: usize) -> Option<()> {
        let part = &body[start..end];
        let (head, content) = match part.strip_prefix(b"\r\n") {
            Some(_) => (&part[..0], start + 2),
            None => {
                let length = memchr::memmem::find(part, b"\r\n\r\n")?;
                (&part[..length], start + length + 4)
            }
        };
        let fields = fields(head)?;
        let one = |name: &[u8]| -> Option<Vec<Bytes>> {
            let mut found = fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
            let first = found.next().map(|(_, value)| body.slice_ref(value));
            // Origins would choose between two.
            found.next().is_none().then(|| first.into_iter().collect())
        };
        let dispositions = one(b"content-disposition")?;
        let disposition = dispositions.first().cloned().unwrap_or_default();
        let name = parameter(&disposition, b"name").map(Bytes::from);
        let filename = parameter(&disposition, b"filename").map(Bytes::from);
        let content = body.slice(content..end);
        self.pairs.extend(name.clone().map(|name| (name, content.clone())));
        self.values.push(content);
        self.names.0.push(name.into_iter().collect());
        self.filenames.0.push(filename.into_iter().collect());
        self.content_dispositions.0.push(dispositions);
        self.content_types.0.push(one(b"content-type")?);
        self.content_transfer_encodings.0.push(one(b"content-transfer-encoding")?);
        Some(())
    }
}

/// Header fields of a part; `None` for what is none, and for lines that are continued.
fn fields(head: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    if head.len() > HEAD_MOST {
        return None;
    }
    let mut found = Vec::new();
    let mut rest = head;
    while !rest.is_empty() {
        let length = memchr::memmem::find(rest, b"\r\n").unwrap_or(rest.len());
        let line = &rest[..length];
        rest = rest.get(length + 2..).unwrap_or_default();
        let (name, value) = line.split_at(memchr::memchr(b':', line)?);
        let odd = |byte: &u8| b"\r\n\0".contains(byte);
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) || value.iter().any(odd) {
            return None;
        }
        found.push((name, value.get(1..).unwrap_or_default().trim_ascii()));
        if found.len() > FIELDS_MOST {
            return None;
        }
    }
    Some(found)
}

/// A parameter of a header field (`form-data; name="a"`), quotes undone; `None` when it is not there, or twice.
pub fn parameter(field: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut rest = &field[memchr::memchr(b';', field)?..];
    let mut found = None;
    while let Some(after) = rest.strip_prefix(b";") {
        let after = after.trim_ascii_start();
        let end = after.iter().position(|byte| b"=;".contains(byte)).unwrap_or(after.len());
        let (this, value) = after.split_at(end);
        let Some(value) = value.strip_prefix(b"=") else {
            rest = value;
            continue;
        };
        let (value, length) = value_of(value)?;
        rest = after[end + 1 + length..].trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b";") {
            return None;
        }
        if this.trim_ascii().eq_ignore_ascii_case(name) && found.replace(value).is_some() {
            return None;
        }
    }
    found
}

/// The value of a parameter and how much of the text it takes. Browsers send backslashes of Windows paths as they are: only
/// quotes and backslashes are escaped by one.
fn value_of(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let length = memchr::memchr(b';', text).unwrap_or(text.len());
        return Some((text[..length].trim_ascii().to_vec(), length));
    };
    let mut value = Vec::new();
    let mut at = 0;
    loop {
        match (quoted.get(at)?, quoted.get(at + 1)) {
            (b'"', _) => return Some((value, at + 2)),
            (b'\\', Some(escaped @ (b'"' | b'\\'))) => {
                value.push(*escaped);
                at += 2;
            }
            (byte, _) => {
                value.push(*byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base::random::Random;

    use super::*;

    const KIND: &[u8] = b"multipart/form-data; boundary=\"x y\"";

    fn read(body: &str, truncated: bool) -> Option<Multipart> {
        Multipart::read(&Bytes::copy_from_slice(body.as_bytes()), KIND, truncated)
    }

    fn shown(found: &Multipart) -> String {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let pairs = found.pairs.iter().map(|(name, value)| format!("{}={}", text(name), text(value)));
        pairs.collect::<Vec<_>>().join("&")
    }

    const WHOLE: &str = "before\r\n--x y \r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x y\r\n\
                         content-disposition: form-data; name=b; filename=\"C:\\\\up\\\"x.txt\"\r\n\
                         Content-Type: text/plain\r\nContent-Transfer-Encoding: binary\r\n\r\n2\r\n\r\n--x\r\n\
                         --x y\r\n\r\nbare\r\n--x y--\r\nafter";

    #[test]
    fn parts_are_told_apart() {
        let found = read(WHOLE, false).unwrap();
        assert_eq!(shown(&found), "a=1&b=2\r\n\r\n--x");
        assert_eq!(found.values.len(), 3);
        let said = |of: &Said| -> Vec<String> {
            of.0.iter().map(|said| String::from_utf8(said.concat()).unwrap()).collect()
        };
        assert_eq!(said(&found.names), ["a", "b", ""]);
        assert_eq!(said(&found.filenames), ["", "C:\\up\"x.txt", ""]);
        assert_eq!(said(&found.content_types), ["", "text/plain", ""]);
        assert_eq!(said(&found.content_transfer_encodings), ["", "binary", ""]);
        assert_eq!(said(&found.content_dispositions)[0], "form-data; name=\"a\"");
        assert_eq!(&found.values[2][..], b"bare");
    }

    #[test]
    fn a_beginning_has_the_parts_that_came_whole() {
        let whole = shown(&read(WHOLE, false).unwrap());
        let mut most = 0;
        for end in 0..WHOLE.len() {
            let found = read(&WHOLE[..end], true).unwrap_or_else(|| panic!("cut off at {end}"));
            assert!(whole.starts_with(&shown(&found)), "cut off at {end}");
            assert!(found.values.len() >= most, "cut off at {end}");
            most = found.values.len();
        }
        assert_eq!(most, 3);
        assert!(read(&WHOLE[..WHOLE.len() - 10], false).is_none(), "not truncated, and not ended");
    }

    #[test]
    fn what_breaks_the_rules_is_not_known() {
        let part = |head: &str| format!("--x y\r\n{head}\r\n\r\n1\r\n--x y--");
        let name = "Content-Disposition: form-data; name=a";
        assert_eq!(shown(&read(&part(name), false).unwrap()), "a=1");
        for head in [
            format!("{name}\r\n{name}"),
            format!("{name}\r\n folded"),
            format!("{name}\nX: 1"),
            "no colon".to_owned(),
            format!("X: {}", "y".repeat(HEAD_MOST)),
            "X: 1\r\n".repeat(FIELDS_MOST) + name,
        ] {
            assert!(read(&part(&head), false).is_none(), "{head:.60}");
        }
        assert!(read(&format!("{}--x y--", "--x y\r\n\r\n1\r\n".repeat(PARTS_MOST + 1)), false).is_none());
        assert!(read(&format!("{}--x y--", "--x y\r\n\r\n1\r\n".repeat(PARTS_MOST - 1)), false).is_some());
        assert!(read("--x yz\r\n\r\n1\r\n--x y--", false).is_none(), "a longer boundary is another one");
        for kind in
            [&b"multipart/form-data"[..], b"multipart/form-data; boundary=", b"a/b; boundary=a; boundary=b"]
        {
            assert!(Multipart::read(&Bytes::from_static(b"--x--"), kind, false).is_none());
        }
    }

    #[test]
    fn parameters_are_read_as_they_are_sent() {
        for (field, expected) in [
            ("form-data; name=\"a\"", Some("a")),
            ("form-data; NAME = a ;x=y", Some("a")),
            ("form-data; filename=\"x; name=z\"; name=b", Some("b")),
            ("form-data; name=\"a", None),
            ("form-data; name=\"a\"b", None),
            ("form-data; flag; name=c;", Some("c")),
            ("form-data; name=a; Name=b", None),
            ("form-data", None),
        ] {
            let found = parameter(field.as_bytes(), b"name");
            let found = found.map(|found| String::from_utf8(found).unwrap());
            assert_eq!(found.as_deref(), expected, "{field}");
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        let mut random = Random::seeded(7);
        let pieces = [
            "\r\n--x y\r\n",
            "\r\n\r\n",
            "--x y",
            "\r\n",
            "--",
            "a: b",
            "Content-Disposition: form-data; name=\"",
            "\"",
            ";",
            "1",
        ];
        let mut parts = 0;
        for _ in 0..20_000 {
            let count = random.below(24);
            let body: String =
                (0..count).map(|_| pieces[random.below(pieces.len() as u32) as usize]).collect();
            for truncated in [false, true] {
                parts += read(&body, truncated).map_or(0, |found| found.values.len());
            }
        }
        assert!(parts > 100, "{parts}");
    }
}
