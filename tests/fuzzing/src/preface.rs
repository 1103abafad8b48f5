//! `http2_preface`: how an HTTP/2 client introduces itself, whatever the pieces.

use edge::h2::preface::{ClientPreface, PrefaceReader};

use crate::cut;

/// Two bytes of seed for the cuts, then what a client sends behind the connection preface.
pub fn run(data: &[u8]) {
    let Some((seed, frames)) = cut::seed(data) else { return };
    // Junk instead of the preface is found at once; one input in 256 tries that.
    let input = match seed >> 8 {
        0xff => frames.to_vec(),
        _ => [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frames].concat(),
    };
    let whole = read(&[&input]);
    let in_pieces = read(&cut::pieces(seed, &input));
    assert_eq!(in_pieces, whole, "in pieces, and whole: {}", input.escape_ascii());
    if let Some(preface) = whole {
        let most = input.len();
        assert!(preface.settings.len() * 6 <= most && preface.priorities.len() * 5 <= most);
        assert!(preface.pseudo_order.len() <= most);
        assert!(preface.pseudo_order.bytes().all(|letter| b"amps".contains(&letter)));
        assert!(preface.priorities.iter().all(|it| it.stream >> 31 == 0 && it.depends_on >> 31 == 0));
        assert!(preface.window_update.is_none_or(|increment| increment >> 31 == 0));
    }
}

fn read(pieces: &[&[u8]]) -> Option<ClientPreface> {
    let mut reader = PrefaceReader::default();
    pieces.iter().for_each(|piece| reader.push(piece));
    reader.take_finished()
}
