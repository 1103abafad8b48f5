//! The path a message took: `Via` (RFC 9110 section 7.6.3) and `CDN-Loop` (RFC 8586), by which loops are found.

use super::append_lines;
use super::grammar::Scanner;
use base::event::Protocol;

/// Why a request is not let through on account of its `CDN-Loop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoopError {
    /// This installation has handled the request before: forwarding would never end (508).
    #[error("the request has passed through this installation {count} times already")]
    Loop {
        /// How often our token is in the list, at least once.
        count: usize,
    },
    /// The field cannot be read, so a loop could hide in it (400).
    #[error("the CDN-Loop field is malformed")]
    Malformed,
}

/// Refuses a request that already carries `own` (a token, compared without case) in `CDN-Loop`.
///
/// The field is read whoever sent it: RFC 8586 section 2 wants it untouched by customers, and a visitor who
/// forges our token only refuses himself.
pub fn check_loop<'a>(
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    own: &str,
) -> Result<(), LoopError> {
    let mut count = 0;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case(b"cdn-loop") {
            count += count_own(value, own.as_bytes()).ok_or(LoopError::Malformed)?;
        }
    }
    if count == 0 { Ok(()) } else { Err(LoopError::Loop { count }) }
}

/// Writes the outgoing `CDN-Loop`: what came in, and our token behind it (RFC 8586 section 2).
pub fn write_cdn_loop<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>, own: &str, out: &mut Vec<u8>) {
    append_lines(headers, b"cdn-loop", out);
    out.extend_from_slice(own.as_bytes());
}

/// Writes the outgoing `Via` of a request or a response: what came in, then the protocol this message was received
/// with and our pseudonym (a token).
pub fn write_via<'a>(
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    received: Protocol,
    own: &str,
    out: &mut Vec<u8>,
) {
    append_lines(headers, b"via", out);
    out.extend_from_slice(match received {
        Protocol::Http10 => b"1.0 ",
        Protocol::Http11 => b"1.1 ",
        Protocol::Http2 => b"2 ",
    });
    out.extend_from_slice(own.as_bytes());
}

/// How many members of one `CDN-Loop` line are `own`; `None` when the line is malformed.
fn count_own(value: &[u8], own: &[u8]) -> Option<usize> {
    let mut scanner = Scanner::new(value);
    let mut count = 0;
    loop {
        scanner.skip_whitespace();
        if scanner.eat(b',') {
            continue;
        }
        if scanner.at_end() {
            return Some(count);
        }
        // cdn-id: a host with or without port, or a pseudonym; all are visible bytes without list punctuation.
        let id = scanner.take_while(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b'"'));
        if id.is_empty() {
            return None;
        }
        count += usize::from(id.eq_ignore_ascii_case(own));
        scanner.skip_whitespace();
        while scanner.eat(b';') {
            scanner.skip_whitespace();
            scanner.token()?;
            scanner.eat(b'=').then(|| scanner.value()).flatten()?;
            scanner.skip_whitespace();
        }
        if !scanner.eat(b',') && !scanner.at_end() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::pairs;
    use super::*;

    #[test]
    fn loops_are_found() {
        let cases: &[(&[&str], Result<(), LoopError>)] = &[
            (&[], Ok(())),
            (&["CDN-Loop: "], Ok(())),
            (&["CDN-Loop: foo123.foocdn.example, barcdn.example; trace=\"abcdef\""], Ok(())),
            (&["CDN-Loop: AnotherCDN; abc=123; def=\"456\""], Ok(())),
            (&["CDN-Loop: [2001:db8::1]:443, cloudflare; loops=1; subreqs=1"], Ok(())),
            (&["CDN-Loop: rempart-a1"], Err(LoopError::Loop { count: 1 })),
            (&["cdn-loop: x, REMPART-A1;v=1 , y", "Cdn-Loop: rempart-a1"], Err(LoopError::Loop { count: 2 })),
            // Ours only where an id stands: not as part of another, as a parameter or inside a quoted string.
            (&["CDN-Loop: rempart-a12, xrempart-a1, a;rempart-a1=1, b;c=\"x, rempart-a1\""], Ok(())),
            (&["CDN-Loop: a;c=\"\\\", rempart-a1\", rempart-a1"], Err(LoopError::Loop { count: 1 })),
            (&["CDN-Loop: a;b"], Err(LoopError::Malformed)),
            (&["CDN-Loop: a;b=\"rempart-a1"], Err(LoopError::Malformed)),
            (&["CDN-Loop: a b"], Err(LoopError::Malformed)),
            (&["CDN-Loop: ;a=b"], Err(LoopError::Malformed)),
            (&["CDN-Loop: \"a\""], Err(LoopError::Malformed)),
            (&["Via: rempart-a1"], Ok(())),
        ];
        for (lines, expected) in cases {
            assert_eq!(check_loop(pairs(lines), "rempart-a1"), *expected, "{lines:?}");
        }
    }

    #[test]
    fn the_next_hop_sees_the_whole_path() {
        for (lines, protocol, cdn_loop, via) in [
            (&[][..], Protocol::Http2, "me", "2 me"),
            (
                &["Via: 1.0 fred, 1.1 p.example.net", "CDN-Loop: a;b=c"],
                Protocol::Http11,
                "a;b=c, me",
                "1.0 fred, 1.1 p.example.net, 1.1 me",
            ),
            (
                &["via: 1.1 a", "CDN-Loop:  ", "VIA: 2 b", "cdn-loop: x"],
                Protocol::Http10,
                "x, me",
                "1.1 a, 2 b, 1.0 me",
            ),
        ] {
            let (mut loops, mut path) = (Vec::new(), Vec::new());
            write_cdn_loop(pairs(lines), "me", &mut loops);
            write_via(pairs(lines), protocol, "me", &mut path);
            assert_eq!(
                (loops.as_slice(), path.as_slice()),
                (cdn_loop.as_bytes(), via.as_bytes()),
                "{lines:?}"
            );
            assert_eq!(
                check_loop([(b"CDN-Loop".as_slice(), loops.as_slice())].into_iter(), "me"),
                Err(LoopError::Loop { count: 1 })
            );
        }
    }
}
