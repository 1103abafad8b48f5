//! JSON text written by hand: strings escaped (RFC 8259 section 7), numbers, and nothing else.

/// Appends a quoted JSON string.
///
/// Besides what JSON demands, DEL and the C1 controls (U+0080 to U+009F) are escaped: they move a terminal's cursor when
/// a person looks at the log, and visitors choose these bytes.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    while let Some(plain) = bytes.get(start..).filter(|rest| !rest.is_empty()).map(plain_prefix) {
        let stop = start + plain;
        out.extend_from_slice(bytes.get(start..stop).unwrap_or_default());
        start = match (bytes.get(stop), bytes.get(stop + 1)) {
            (None, _) => break,
            // U+0080 to U+009F are the bytes C2 80 to C2 9F; other characters that begin with C2 are plain.
            (Some(0xc2), Some(&second)) if second < 0xa0 => {
                unicode_escape(out, second);
                stop + 2
            }
            (Some(0xc2), Some(&second)) => {
                out.extend_from_slice(&[0xc2, second]);
                stop + 2
            }
            (Some(&byte), _) => {
                escape(out, byte);
                stop + 1
            }
        };
    }
    out.push(b'"');
}

/// Appends a number.
pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// How many bytes from the start can be copied as they are. Eight at a time while that goes well.
fn plain_prefix(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let whole = words.iter().take_while(|&&word| all_plain(u64::from_le_bytes(word))).count();
    // The rest is shorter than a word; the last eight bytes hold it, and looking twice at some costs nothing.
    if whole == words.len()
        && let Some(&last) = bytes.last_chunk::<8>()
        && (rest.is_empty() || all_plain(u64::from_le_bytes(last)))
    {
        return bytes.len();
    }
    let unsure = bytes.get(whole * 8..).unwrap_or_default();
    whole * 8 + unsure.iter().take_while(|&&byte| is_plain(byte)).count()
}

fn is_plain(byte: u8) -> bool {
    !matches!(byte, 0..0x20 | b'"' | b'\\' | 0x7f | 0xc2)
}

/// Whether all eight bytes are plain ASCII; may say no to a word that is plain, never yes to one that is not.
fn all_plain(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let has_zero = |value: u64| value.wrapping_sub(ONES) & !value;
    let control = word.wrapping_sub(ONES * 0x20);
    let special = has_zero(word ^ (ONES * u64::from(b'"')))
        | has_zero(word ^ (ONES * u64::from(b'\\')))
        | has_zero(word ^ (ONES * 0x7f));
    (word | control | special) & HIGH == 0
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => unicode_escape(out, byte),
    }
}

fn unicode_escape(out: &mut Vec<u8>, byte: u8) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for text in [
            "",
            "plain",
            "quote \" backslash \\ slash /",
            "\0\u{1}\u{8}\t\n\u{b}\u{c}\r\u{1b}[31m\u{1f}\u{7f}",
            "\u{80}\u{85}\u{9f}\u{a0}\u{bf}\u{c0}",
            "\u{e9}\u{2028}\u{feff}\u{fffd}\u{1f512}",
            "\"",
            "\\\\\\\\\\\\\\\\",
            "12345678\"12345678\\1234567\u{e9}",
        ] {
            let json = written(text);
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text, "{json}");
            assert!(!json.chars().any(char::is_control), "{json:?}");
        }
    }

    #[test]
    fn every_character_survives_at_every_offset_of_a_word() {
        let characters =
            (0..0x300).chain([0x2028, 0xfeff, 0xffff, 0x1f512, 0x10_ffff]).filter_map(char::from_u32);
        for character in characters {
            for offset in 0..9 {
                let text = format!("{}{character}{}", "a".repeat(offset), "z".repeat(9));
                assert_eq!(serde_json::from_str::<String>(&written(&text)).unwrap(), text);
            }
        }
    }

    #[test]
    fn random_bytes_made_text_read_back_the_same() {
        let mut random = base::random::Random::seeded(3);
        for _ in 0..5_000 {
            let bytes: Vec<u8> = (0..random.below(64)).map(|_| random.next_u64() as u8).collect();
            let text = super::super::super::bounded_text(&bytes, 256);
            assert_eq!(*serde_json::from_str::<String>(&written(&text)).unwrap(), *text);
        }
    }
}
