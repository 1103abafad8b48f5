//! Just enough of RFC 6455 to hold a conversation: opening handshake, masked text frames out, frames in.

use std::io::{self, Read, Write};

use crate::client::Client;
use crate::wire::Wire;

/// The key of RFC 6455 section 1.3, whose answer is printed there too.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The `Sec-WebSocket-Accept` that belongs to `KEY`.
pub const ACCEPT: &str = "s3pPLBMiTxaQ9kYGzzhZRbK+xOo=";
/// Mask of every frame sent; the protocol wants one, not a secret one.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Opens a WebSocket on a fresh HTTP/1.1 connection.
pub fn open(client: &mut Client, host: &str, path: &str) -> io::Result<()> {
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    ))?;
    let (_, head) = client.head()?;
    let accepted = head.status()? == 101
        && head.text("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
        && head.text("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade"))
        && head.text("sec-websocket-accept").as_deref() == Some(ACCEPT);
    if accepted { Ok(()) } else { Err(io::Error::other(format!("not a WebSocket: {head:?}"))) }
}

/// Sends a text message of at most 125 bytes.
pub fn send_text<S: Read + Write>(wire: &mut Wire<S>, text: &str) -> io::Result<()> {
    wire.send(&frame(0x1, text.as_bytes()))
}

/// Sends a close frame with status 1000.
pub fn send_close<S: Read + Write>(wire: &mut Wire<S>) -> io::Result<()> {
    wire.send(&frame(0x8, &1000u16.to_be_bytes()))
}

/// One masked frame; the payload is at most 125 bytes long.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= 125, "a short frame holds 125 bytes");
    let mut bytes = vec![0x80 | opcode, 0x80 | payload.len() as u8];
    bytes.extend(MASK);
    bytes.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ MASK[i % 4]));
    bytes
}

/// Reads one unmasked frame: opcode and payload.
pub fn receive<S: Read + Write>(wire: &mut Wire<S>) -> io::Result<(u8, Vec<u8>)> {
    let head = take(wire, 2)?;
    let length = match head[1] {
        126 => u64::from(u16::from_be_bytes([take(wire, 1)?[0], take(wire, 1)?[0]])),
        127 => u64::from_be_bytes(take(wire, 8)?.try_into().unwrap_or_default()),
        masked @ 128.. => return Err(io::Error::other(format!("a server frame is masked: {masked}"))),
        short => u64::from(short),
    };
    Ok((head[0] & 0x0f, take(wire, length)?))
}

fn take<S: Read + Write>(wire: &mut Wire<S>, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    wire.exactly(count, &mut |piece| bytes.extend_from_slice(piece))?;
    Ok(bytes)
}
