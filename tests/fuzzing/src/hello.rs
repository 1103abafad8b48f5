//! `client_hello`: the collected ClientHello, whatever the pieces, and beside what rustls makes of the same bytes.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use edge::tls::client_hello::{MAX_CLIENT_HELLO, Progress};
use edge::tls::{ClientHello, HelloParser, HelloTee};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, ReadBuf};

use crate::cut;

/// Two bytes of seed for the cuts, then what a client sends.
pub fn run(data: &[u8]) {
    let Some((seed, input)) = cut::seed(data) else { return };
    let pieces = cut::pieces(seed, input);
    let whole = collect(&[input]);
    assert_eq!(collect(&pieces), whole, "in pieces, and whole");
    if let Some(hello) = &whole.1 {
        examine(hello, input);
    }
    through_tee(seed, input, &pieces, &whole);
    beside_rustls(input, &whole);
}

fn collect(pieces: &[&[u8]]) -> (Progress, Option<ClientHello>) {
    let mut parser = HelloParser::default();
    let mut progress = Progress::More;
    for piece in pieces {
        progress = parser.push(piece);
    }
    (progress, parser.finish())
}

/// Looks at all there is to see in a hello.
fn examine(hello: &ClientHello, input: &[u8]) {
    assert!(hello.raw.len() <= MAX_CLIENT_HELLO.min(input.len()));
    let Some(view) = hello.view() else { return };
    assert!(!hello.truncated, "what is cut off is not well formed");
    let facts = view.facts();
    let inside = |count: usize| assert!(count <= input.len(), "more than was sent");
    inside(facts.cipher_suites.len() * 2);
    inside(facts.extensions.len() * 4);
    inside(facts.signature_algorithms.len() * 2);
    inside(view.extensions().map(|(_, content)| content.len() + 4).sum());
    inside(view.alpn().map(|name| name.len() + 1).sum());
    inside(view.key_shares().count() * 4);
    inside(view.groups().iter().count() * 2);
    inside(view.supported_versions().iter().count() * 2);
    assert!(view.server_name().is_none_or(|name| !name.is_empty() && name.is_ascii()));
}

/// What rustls takes, this takes too, and reads the same names from it.
fn beside_rustls(input: &[u8], ours: &(Progress, Option<ClientHello>)) {
    let mut acceptor = Acceptor::default();
    let mut rest = input;
    let accepted = loop {
        match acceptor.read_tls(&mut rest) {
            Ok(0) | Err(_) => return,
            Ok(_) => match acceptor.accept() {
                Ok(Some(accepted)) => break accepted,
                Ok(None) => {}
                Err(_) => return,
            },
        }
    };
    let shown = input.escape_ascii();
    let hello = accepted.client_hello();
    let seen = ours.1.as_ref().unwrap_or_else(|| panic!("rustls read a hello, we {:?}: {shown}", ours.0));
    let view = seen.view().unwrap_or_else(|| panic!("rustls read a hello that is not well formed: {shown}"));
    if let Some(name) = hello.server_name() {
        // We keep it as sent; rustls takes the dot off that some clients put behind it.
        let seen = view.server_name().unwrap_or_else(|| panic!("we miss the name {name}: {shown}"));
        let same = seen.strip_suffix('.').unwrap_or(seen).eq_ignore_ascii_case(name);
        assert!(same, "rustls read {name}, we {seen}: {shown}");
    }
    let theirs: Vec<&[u8]> = hello.alpn().into_iter().flatten().collect();
    assert_eq!(view.alpn().collect::<Vec<_>>(), theirs, "{shown}");
    let suites: Vec<u16> = hello.cipher_suites().iter().map(|&suite| suite.into()).collect();
    assert_eq!(view.cipher_suites.iter().collect::<Vec<_>>(), suites, "{shown}");
}

/// A connection that is read from in pieces.
struct Wire<'a>(std::slice::Iter<'a, &'a [u8]>, &'a [u8]);

impl AsyncRead for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.1.is_empty() {
            self.1 = self.0.next().copied().unwrap_or_default();
        }
        let (now, later) = self.1.split_at(self.1.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.1 = later;
        Poll::Ready(Ok(()))
    }
}

/// Nothing is lost on its way through the tee, unless it is plain HTTP, which is then held in full.
fn through_tee(seed: u16, input: &[u8], pieces: &[&[u8]], whole: &(Progress, Option<ClientHello>)) {
    let mut tee = HelloTee::new(tokio::io::join(Wire(pieces.iter(), &[]), tokio::io::sink()));
    let mut cx = Context::from_waker(Waker::noop());
    let mut came = Vec::new();
    let mut room = vec![0; 1 + usize::from(seed % 61)];
    loop {
        let mut buffer = ReadBuf::new(&mut room);
        match Pin::new(&mut tee).poll_read(&mut cx, &mut buffer) {
            Poll::Pending => panic!("the wire always has an answer"),
            Poll::Ready(Err(_)) => {
                let held = tee.plain_http().expect("nothing else fails");
                assert!(
                    came.is_empty()
                        && input.starts_with(held)
                        && held.first().is_some_and(u8::is_ascii_uppercase)
                );
                return;
            }
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => break,
            Poll::Ready(Ok(())) => came.extend_from_slice(buffer.filled()),
        }
    }
    assert_eq!(came, input, "bytes were lost or made up");
    assert_eq!(tee.hello(), whole.1.as_ref());
    assert_eq!(tee.is_untouched(), input.is_empty());
}
