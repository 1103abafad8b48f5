//! Marks as bytes: records one after the other, each with its length and a checksum, so that what a crash cut off is seen.
//!
//! A purge is written and synced before it is put in force and acknowledged; what was acknowledged is therefore never forgotten. Stamps
//! go on from the last record.

use super::{Mark, Marks, Slot, Stamp};

/// Bytes of one record: version, three hashes, length of a prefix, two stamps, checksum.
pub const RECORD: usize = 1 + 16 * 3 + 4 + 8 * 2 + 16;
/// Version of a record.
const VERSION: u8 = 1;
/// Bytes of a record that the checksum is of.
const CHECKED: usize = RECORD - 16;

impl Marks {
    /// A mark as one record.
    pub fn record(&self, mark: &Mark) -> [u8; RECORD] {
        let (host, length) = mark.length.unwrap_or((Slot(0), u32::MAX));
        let mut bytes = Vec::with_capacity(RECORD);
        bytes.push(VERSION);
        for slot in [mark.slot, mark.wider, host] {
            bytes.extend(slot.0.to_le_bytes());
        }
        bytes.extend(length.to_le_bytes());
        bytes.extend(mark.hard.0.to_le_bytes());
        bytes.extend(mark.soft.0.to_le_bytes());
        bytes.extend(self.slot(b'j', &[&bytes]).0.to_le_bytes());
        let mut record = [0; RECORD];
        record.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
        record
    }

    /// Puts all records in force up to the first that is cut off or damaged; how many bytes were good. What stands behind was never
    /// acknowledged, or the file is damaged: whoever finds a rest longer than one record purges everything.
    pub fn replay(&self, bytes: &[u8]) -> usize {
        let mut good = 0;
        for record in bytes.chunks_exact(RECORD) {
            let Some(mark) = self.read_record(record) else { break };
            self.put(&[mark]);
            good += RECORD;
        }
        good
    }

    fn read_record(&self, record: &[u8]) -> Option<Mark> {
        let (content, checksum) = record.split_at_checked(CHECKED)?;
        if u128::from_le_bytes(checksum.try_into().ok()?) != self.slot(b'j', &[content]).0 {
            return None;
        }
        let (version, rest) = content.split_first()?;
        let number = |at: usize| Some(u128::from_le_bytes(rest.get(at..at + 16)?.try_into().ok()?));
        let stamp = |at: usize| Some(Stamp(u64::from_le_bytes(rest.get(at..at + 8)?.try_into().ok()?)));
        let length = u32::from_le_bytes(rest.get(48..52)?.try_into().ok()?);
        (*version == VERSION).then_some(Mark {
            slot: Slot(number(0)?),
            wider: Slot(number(16)?),
            length: (length != u32::MAX).then_some((Slot(number(32)?), length)),
            hard: stamp(52)?,
            soft: stamp(60)?,
        })
    }
}
