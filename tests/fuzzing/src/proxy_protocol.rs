//! `proxy_protocol`: a PROXY header in any pieces, whole, and read a second time by somebody else; and written again.

use edge::proxy_protocol::{MAX_HEADER, Progress, Said, read, write_v1, write_v2};

use crate::cut;
use crate::second_reading::proxy::{Header, header};

/// Two bytes of seed for the cuts, then what a proxy sends.
pub fn run(data: &[u8]) {
    let Some((seed, input)) = cut::seed(data) else { return };
    let whole = read(input);
    let mut at = 0;
    for piece in cut::pieces(seed, input) {
        at += piece.len();
        match read(&input[..at]) {
            Ok(Progress::Incomplete) => assert!(at <= MAX_HEADER, "waits for more than a header can have"),
            verdict => {
                // Why it is refused may be seen better with more bytes; that it is may not change.
                assert!(
                    verdict == whole || verdict.is_err() && whole.is_err(),
                    "{verdict:?}, then {whole:?}"
                );
                break;
            }
        }
    }
    let second = header(input);
    match (whole, &second) {
        (Ok(Progress::Incomplete), Header::Incomplete) => {}
        (Err(_), Header::Refused) => {}
        (Ok(Progress::Complete { said, length }), Header::Whole(ends, their_length)) => {
            let told = match said {
                Said::Nothing => None,
                Said::Proxied(ends) => Some((ends.source, ends.destination)),
            };
            assert_eq!((told, length), (*ends, *their_length), "{}", input.escape_ascii());
            assert!(length <= MAX_HEADER && length <= input.len());
            written_again(said);
        }
        _ => panic!("{whole:?}, and a second time {second:?}: {}", input.escape_ascii()),
    }
}

/// What was read, written in either version, reads the same.
fn written_again(said: Said) {
    let Said::Proxied(ends) = said else { return };
    for write in [write_v1, write_v2] {
        let mut bytes = Vec::new();
        write(&ends, &mut bytes);
        let again = read(&bytes);
        assert_eq!(again, Ok(Progress::Complete { said, length: bytes.len() }), "{}", bytes.escape_ascii());
        assert_eq!(header(&bytes), Header::Whole(Some((ends.source, ends.destination)), bytes.len()));
    }
}
