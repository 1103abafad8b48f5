//! How an HTTP/2 client introduces itself: SETTINGS, WINDOW_UPDATE, PRIORITY and the order of its pseudo-header fields.
//!
//! Read beside `h2`, which does not show them, from the client's first bytes up to its first HEADERS frame. Anything
//! unexpected ends the reading with what is known so far; judging the frames is `h2`'s work, not this reader's.

/// Bytes listened in on at most; a browser needs about 500.
const MAX_BYTES: usize = 16 * 1024;
/// Frames read at most.
const MAX_FRAMES: usize = 64;
/// Settings in a fingerprint at most; there are nine that mean something.
const MAX_SETTINGS: usize = 16;
const CONNECTION_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;

/// One PRIORITY (RFC 9113 section 5.3.2, deprecated but still telling).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    /// Stream it is about.
    pub stream: u32,
    /// Stream it depends on.
    pub depends_on: u32,
    /// Whether exclusively.
    pub exclusive: bool,
    /// Weight as sent, 0..=255, meaning 1..=256.
    pub weight: u8,
}

/// The introduction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientPreface {
    /// SETTINGS in the order sent: identifier and value (RFC 9113 section 6.5.1).
    pub settings: Vec<(u16, u32)>,
    /// Increment of the first connection-level WINDOW_UPDATE.
    pub window_update: Option<u32>,
    /// PRIORITY frames before the first HEADERS, and the one inside it.
    pub priorities: Vec<Priority>,
    /// First letters of the pseudo-header fields of the first request in order: `masp` for
    /// `:method :authority :scheme :path`.
    pub pseudo_order: String,
}

impl ClientPreface {
    /// As one line: SETTINGS, WINDOW_UPDATE, number of PRIORITY frames, order of the pseudo-header fields, such as
    /// `1:65536;4:131072|12517377|0|m,p,a,s`. Settings beyond `MAX_SETTINGS` are left out.
    pub fn fingerprint(&self) -> String {
        let settings: Vec<_> =
            self.settings.iter().take(MAX_SETTINGS).map(|(id, value)| format!("{id}:{value}")).collect();
        let order: Vec<_> = self.pseudo_order.chars().map(String::from).collect();
        let update = self.window_update.unwrap_or_default();
        format!("{}|{update}|{}|{}", settings.join(";"), self.priorities.len(), order.join(","))
    }
}

/// Reads the introduction from the bytes as they come.
#[derive(Default)]
pub struct PrefaceReader {
    bytes: Vec<u8>,
    finished: bool,
}

impl PrefaceReader {
    /// More bytes from the client.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.finished {
            return;
        }
        let room = MAX_BYTES - self.bytes.len();
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.finished = self.bytes.len() >= MAX_BYTES || parse(&self.bytes).1;
    }

    /// The introduction, once the first HEADERS frame has been seen or the limit is reached.
    pub fn take_finished(&mut self) -> Option<ClientPreface> {
        self.finished.then(|| parse(&std::mem::take(&mut self.bytes)).0)
    }
}

/// Reads as far as the bytes go; true when no more are wanted.
fn parse(bytes: &[u8]) -> (ClientPreface, bool) {
    let mut preface = ClientPreface::default();
    let Some(mut rest) = bytes.strip_prefix(CONNECTION_PREFACE) else {
        return (preface, bytes.len() >= CONNECTION_PREFACE.len());
    };
    for _ in 0..MAX_FRAMES {
        let Some((header, after)) = rest.split_at_checked(FRAME_HEADER) else { return (preface, false) };
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *header else { return (preface, true) };
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        let Some((payload, after)) = after.split_at_checked(length) else { return (preface, false) };
        rest = after;
        match kind {
            0x4 if flags & 1 == 0 => preface.settings.extend(payload.chunks_exact(6).filter_map(setting)),
            0x8 if stream == 0 && preface.window_update.is_none() => {
                preface.window_update = be_u32(payload).map(|increment| increment & 0x7fff_ffff);
            }
            0x2 => preface.priorities.extend(priority(stream, payload)),
            0x1 => {
                read_headers(&mut preface, stream, flags, payload);
                return (preface, true);
            }
            _ => {}
        }
    }
    (preface, true)
}

fn setting(entry: &[u8]) -> Option<(u16, u32)> {
    let (identifier, value) = entry.split_at_checked(2)?;
    Some((u16::from_be_bytes(identifier.try_into().ok()?), be_u32(value)?))
}

fn be_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn priority(stream: u32, payload: &[u8]) -> Option<Priority> {
    let dependency = be_u32(payload)?;
    let weight = *payload.get(4)?;
    Some(Priority { stream, depends_on: dependency & 0x7fff_ffff, exclusive: dependency >> 31 == 1, weight })
}

/// HEADERS: optional padding and priority, then the field block (RFC 9113 section 6.2).
fn read_headers(preface: &mut ClientPreface, stream: u32, flags: u8, mut payload: &[u8]) {
    const PADDED: u8 = 0x8;
    const PRIORITY: u8 = 0x20;
    if flags & PADDED != 0 {
        let Some((&padding, rest)) = payload.split_first() else { return };
        payload = rest.get(..rest.len().saturating_sub(padding.into())).unwrap_or_default();
    }
    if flags & PRIORITY != 0 {
        preface.priorities.extend(priority(stream, payload));
        payload = payload.get(5..).unwrap_or_default();
    }
    preface.pseudo_order = pseudo_order(payload).unwrap_or_default();
}

/// Walks a field block (HPACK, RFC 7541) and notes the pseudo-header fields at its front. Only their static-table
/// indices matter, so strings are skipped by length and Huffman codes are never decoded.
fn pseudo_order(mut block: &[u8]) -> Option<String> {
    let mut order = String::new();
    while let Some(&first) = block.first() {
        let index = match first {
            // Indexed field.
            0x80.. => integer(&mut block, 7)?,
            // Dynamic table size update.
            0x20..0x40 => {
                integer(&mut block, 5)?;
                continue;
            }
            // Literal with incremental indexing, or without, or never indexed.
            _ => {
                let index = integer(&mut block, if first & 0x40 != 0 { 6 } else { 4 })?;
                if index == 0 {
                    skip_string(&mut block)?;
                }
                skip_string(&mut block)?;
                index
            }
        };
        order.push(match index {
            1 => 'a',
            2 | 3 => 'm',
            4 | 5 => 'p',
            6 | 7 => 's',
            _ => break,
        });
    }
    Some(order)
}

/// An integer with an n-bit prefix (RFC 7541 section 5.1).
fn integer(block: &mut &[u8], prefix: u32) -> Option<u64> {
    let mask = (1u64 << prefix) - 1;
    let (&first, mut rest) = block.split_first()?;
    let mut value = u64::from(first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            value = value.checked_add(u64::from(byte & 0x7f) << shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 28 {
                return None;
            }
        }
    }
    *block = rest;
    Some(value)
}

fn skip_string(block: &mut &[u8]) -> Option<()> {
    let length = usize::try_from(integer(block, 7)?).ok()?;
    *block = block.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u32;
        [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn hello() -> Vec<u8> {
        let mut bytes = CONNECTION_PREFACE.to_vec();
        bytes.extend(frame(4, 0, 0, &[0, 1, 0, 1, 0, 0, 0, 4, 0, 0x60, 0, 0]));
        bytes.extend(frame(8, 0, 0, &15_663_105u32.to_be_bytes()));
        bytes.extend(frame(2, 0, 3, &[0, 0, 0, 0, 200]));
        // :method GET, :authority (literal, new), :scheme https, :path /, then an ordinary field.
        let block =
            [&[0x82, 0x41, 0x03][..], b"a.b", &[0x87, 0x84, 0x40, 0x01], b"x", &[0x01], b"y"].concat();
        bytes.extend(frame(1, 0x25, 1, &[&[0x80, 0, 0, 0, 255][..], &block].concat()));
        bytes
    }

    #[test]
    fn reads_a_browser_like_introduction_in_any_pieces() {
        let bytes = hello();
        for step in [1, 3, 50, bytes.len()] {
            let mut reader = PrefaceReader::default();
            bytes.chunks(step).for_each(|piece| reader.push(piece));
            let preface = reader.take_finished().expect("finished at the HEADERS frame");
            assert_eq!(preface.settings, [(1, 65536), (4, 6_291_456)]);
            assert_eq!(preface.window_update, Some(15_663_105));
            assert_eq!(preface.pseudo_order, "masp");
            assert_eq!(preface.priorities.len(), 2);
            assert!(preface.priorities[1].exclusive);
        }
    }

    #[test]
    fn junk_ends_the_reading() {
        let bytes = hello();
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0xff;
            let mut reader = PrefaceReader::default();
            reader.push(&broken);
            reader.push(&[0xff; MAX_BYTES]);
            assert!(reader.take_finished().is_some(), "byte {at}");
        }
    }
}
