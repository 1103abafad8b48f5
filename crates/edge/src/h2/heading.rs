//! Notices a field block that has begun and not ended: HEADERS and its CONTINUATIONs (RFC 9113 section 6.10), of which `h2`
//! tells nothing until the last has come.

/// Bytes before the payload of a frame (RFC 9113 section 4.1).
const FRAME_HEADER: usize = 9;
/// Bytes of the client's preface before its first frame (RFC 9113 section 3.4).
const CLIENT_PREFACE: u32 = 24;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// Follows the frames of a client from the first byte of the connection.
#[derive(Debug)]
pub struct Heading {
    head: [u8; FRAME_HEADER],
    have: u8,
    /// Bytes to come that are not looked at.
    skip: u32,
    /// A field block is not whole until `skip` bytes more have come.
    arriving: bool,
    /// Nor then: a CONTINUATION has to follow.
    continues: bool,
}

impl Default for Heading {
    fn default() -> Self {
        let head = [0; FRAME_HEADER];
        Self { head, have: 0, skip: CLIENT_PREFACE, arriving: false, continues: false }
    }
}

impl Heading {
    /// Bytes that came, in order and without gaps.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = FRAME_HEADER - usize::from(self.have);
            let target = self.head.iter_mut().skip(self.have.into());
            let taken = target.zip(bytes).map(|(place, byte)| *place = *byte).count();
            self.have += taken as u8;
            bytes = bytes.get(taken..).unwrap_or_default();
            if taken == wanted {
                let [l0, l1, l2, kind, flags, ..] = self.head;
                (self.have, self.skip) = (0, u32::from_be_bytes([0, l0, l1, l2]));
                self.arriving = matches!(kind, HEADERS | CONTINUATION);
                self.continues = self.arriving && flags & END_HEADERS == 0;
            }
        }
    }

    /// Whether a field block has begun and is not whole.
    pub fn is_open(&self) -> bool {
        self.continues || (self.arriving && self.skip > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        [&[0, 0, payload as u8, kind, flags, 0, 0, 0, 1], &vec![7; payload][..]].concat()
    }

    #[test]
    fn a_block_is_open_from_its_beginning_to_its_last_byte() {
        const DATA: u8 = 0;
        const SETTINGS: u8 = 4;
        let frames = [
            (frame(SETTINGS, 0, 6), false),
            (frame(HEADERS, END_HEADERS, 20), false),
            (frame(DATA, 1, 30), false),
            (frame(HEADERS, 1, 5), true),
            (frame(CONTINUATION, 0, 0), true),
            (frame(CONTINUATION, END_HEADERS, 9), false),
            (frame(HEADERS, END_HEADERS, 0), false),
        ];
        for size in [1, 2, 8, 9, 10, 1_000] {
            let mut heading = Heading::default();
            heading.read(&[b'x'; CLIENT_PREFACE as usize]);
            for (bytes, open) in &frames {
                for piece in bytes.chunks(size) {
                    heading.read(piece);
                }
                assert_eq!(heading.is_open(), *open, "{bytes:?} in pieces of {size}");
            }
        }
        let mut heading = Heading::default();
        heading.read(&[b'x'; CLIENT_PREFACE as usize]);
        let whole = frame(HEADERS, END_HEADERS, 20);
        heading.read(&whole[..28]);
        assert!(heading.is_open(), "one byte is missing");
        heading.read(&whole[28..]);
        assert!(!heading.is_open());
    }
}
