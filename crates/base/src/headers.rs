//! Header fields, in order, in one buffer.

use bytes::Bytes;

/// Header fields in the order and spelling they came in. One buffer holds all names and values.
///
/// Values are bytes, already trimmed of optional white space (RFC 9110 section 5.5); names are tokens.
#[derive(Clone, Default)]
pub struct HeaderList {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where one field lies in `HeaderList::bytes`; the value follows the name directly.
#[derive(Clone, Copy)]
struct Entry {
    at: u32,
    name: u32,
    value: u32,
}

impl HeaderList {
    /// Room for `fields` fields of `bytes` bytes in all, so that a head is stored with two allocations.
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), entries: Vec::with_capacity(fields) }
    }

    /// Appends a field.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref(), value.as_ref());
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.entries.push(Entry { at, name: name.len() as u32, value: value.len() as u32 });
    }

    fn field(&self, entry: &Entry) -> (&[u8], &[u8]) {
        let (at, name, value) = (entry.at as usize, entry.name as usize, entry.value as usize);
        let field = self.bytes.get(at..at + name + value).unwrap_or_default();
        field.split_at_checked(name).unwrap_or_default()
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.entries.iter().map(|entry| self.field(entry))
    }

    /// All fields, in order, their values as pieces of one shared buffer: one copy for all of them.
    pub fn shared(&self) -> impl Iterator<Item = (&[u8], Bytes)> {
        let bytes = Bytes::copy_from_slice(&self.bytes);
        self.entries.iter().map(move |entry| {
            let (name, value) = self.field(entry);
            let at = entry.at as usize + name.len();
            (name, bytes.slice(at..at + value.len()))
        })
    }

    /// All values of a field, in order; names compare without case.
    pub fn all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.entries
            .iter()
            .filter(move |entry| entry.name as usize == name.len())
            .map(|entry| self.field(entry))
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The first value of a field.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Whether the field occurs.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.get(name).is_some()
    }

    /// Keeps the fields the predicate wants.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let bytes = &self.bytes;
        self.entries.retain(|entry| {
            let (at, name, value) = (entry.at as usize, entry.name as usize, entry.value as usize);
            let field = bytes.get(at..at + name + value).unwrap_or_default();
            let (name, value) = field.split_at_checked(name).unwrap_or_default();
            keep(name, value)
        });
    }

    /// Removes every occurrence of a field.
    pub fn remove(&mut self, name: &[u8]) {
        self.retain(|field, _| !field.eq_ignore_ascii_case(name));
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any field.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl std::fmt::Debug for HeaderList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        f.debug_list().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_order_and_spelling_and_are_found_without_case() {
        let mut headers = HeaderList::default();
        headers.push("Accept", "a");
        headers.push("X-B", "1");
        headers.push("aCCept", "");
        assert_eq!(headers.all(b"accept").collect::<Vec<_>>(), [&b"a"[..], b""]);
        headers.remove(b"x-b");
        let names: Vec<_> = headers.iter().map(|(name, _)| name.to_vec()).collect();
        assert_eq!(names, [b"Accept".to_vec(), b"aCCept".to_vec()]);
        assert!(!headers.contains(b"X-B"));
    }
}
