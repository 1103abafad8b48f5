//! Second readings of RFC 9112 and of the PROXY protocol, slow and obvious; the parsers have to agree with them.

pub mod body;
pub mod head;
pub mod message;
pub mod proxy;
pub mod response;

/// Where a section of lines (a head, or trailers) ends in some input.
#[derive(Debug, PartialEq, Eq)]
pub enum Section {
    /// Its empty line has not come.
    Incomplete,
    /// A line does not end in CR LF, or the section is too long: no need to wait for its end.
    Bad,
    /// So many bytes, with the empty line.
    Ends(usize),
}

/// Looks for the empty line, line by line.
pub fn section(input: &[u8], longest: usize) -> Section {
    let mut at = 0;
    loop {
        let Some(length) = input[at..].iter().position(|&byte| byte == b'\n') else {
            return if input.len() > longest { Section::Bad } else { Section::Incomplete };
        };
        let line = &input[at..at + length];
        at += length + 1;
        match line {
            b"\r" if at > longest => return Section::Bad,
            b"\r" => return Section::Ends(at),
            line if line.ends_with(b"\r") => {}
            _ => return Section::Bad,
        }
    }
}
