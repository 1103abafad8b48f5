//! Happy Eyeballs (RFC 8305): in which order addresses are tried, and the staggered attempts themselves.

use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use smallvec::SmallVec;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::resolve::ResolveError;

/// Addresses of one name that are ever tried; the rest of a longer answer is ignored.
pub const MAX_ADDRESSES: usize = 16;
/// Head start of an attempt before the next address is tried beside it (RFC 8305 section 5).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Why there is no connection to an origin. Nothing has been sent in any of these cases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The origin's name did not resolve.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// There was no address to connect to.
    #[error("no address to connect to")]
    NoAddresses,
    /// Somebody answered, and nobody listens on that port.
    #[error("connection refused")]
    Refused,
    /// No route, or a firewall that says so.
    #[error("host or network unreachable")]
    Unreachable,
    /// No answer in time.
    #[error("no connection in time")]
    TimedOut,
    /// Anything else the system says, such as no free file descriptor or port.
    #[error("connection failed: {0}")]
    Local(ErrorKind),
}

impl ConnectError {
    fn from_io(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Self::Refused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => {
                Self::Unreachable
            }
            ErrorKind::TimedOut => Self::TimedOut,
            kind => Self::Local(kind),
        }
    }

    /// Of several failed attempts the one that says most about the origin is told.
    fn telling(&self) -> u8 {
        match self {
            Self::NoAddresses | Self::Resolve(_) => 0,
            Self::Unreachable => 1,
            Self::Local(_) => 2,
            Self::TimedOut => 3,
            Self::Refused => 4,
        }
    }
}

/// Alternates the address families, IPv6 first, keeping the order within each (RFC 8305 section 4); at most
/// `MAX_ADDRESSES`, each once.
pub fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut v6 = addresses.iter().filter(|address| address.is_ipv6());
    let mut v4 = addresses.iter().filter(|address| address.is_ipv4());
    let mut ordered = Vec::with_capacity(addresses.len().min(MAX_ADDRESSES));
    loop {
        let pair = [v6.next(), v4.next()];
        if pair == [None, None] {
            return ordered;
        }
        for address in pair.into_iter().flatten() {
            if ordered.len() < MAX_ADDRESSES && !ordered.contains(address) {
                ordered.push(*address);
            }
        }
    }
}

/// Begins each family with another of its addresses, so that connections spread over them; families keep their places.
pub fn rotate(addresses: &mut [SocketAddr], by: usize) {
    for v6 in [true, false] {
        let mut members: SmallVec<[SocketAddr; 4]> =
            addresses.iter().copied().filter(|address| address.is_ipv6() == v6).collect();
        let by = by.checked_rem(members.len()).unwrap_or(0);
        members.rotate_left(by);
        let places = addresses.iter_mut().filter(|address| address.is_ipv6() == v6);
        places.zip(members).for_each(|(place, address)| *place = address);
    }
}

/// Connects to the first of the addresses that answers, with `TCP_NODELAY` set.
///
/// They are tried in the order given. A failed attempt starts the next at once, a slow one after `ATTEMPT_DELAY` and
/// stays in the race. `timeout` is for all of them together.
pub async fn connect(addresses: &[SocketAddr], timeout: Duration) -> Result<TcpStream, ConnectError> {
    let deadline = Instant::now() + timeout;
    let mut waiting = addresses.iter().take(MAX_ADDRESSES);
    let mut attempts = FuturesUnordered::new();
    let mut worst = ConnectError::NoAddresses;
    loop {
        let next = waiting.next();
        attempts.extend(next.map(|&address| TcpStream::connect(address)));
        if attempts.is_empty() {
            return Err(worst);
        }
        let patience = Instant::now() + ATTEMPT_DELAY;
        let last = waiting.len() == 0;
        tokio::select! {
            biased;
            Some(attempt) = attempts.next() => match attempt {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(|error| ConnectError::from_io(&error))?;
                    return Ok(stream);
                }
                Err(error) => {
                    let error = ConnectError::from_io(&error);
                    if error.telling() >= worst.telling() {
                        worst = error;
                    }
                }
            },
            () = sleep_until(deadline) => return Err(ConnectError::TimedOut),
            () = async { if last { pending().await } else { sleep_until(patience).await } } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_alternate() {
        for (given, expected) in [
            (&[][..], &[][..]),
            (&["10.0.0.1", "10.0.0.2"], &["10.0.0.1", "10.0.0.2"]),
            (&["10.0.0.1", "10.0.0.2", "::1", "::2", "::3"], &["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]),
            (&["10.0.0.1", "10.0.0.1", "::1"], &["::1", "10.0.0.1"]),
        ] {
            assert_eq!(interleave(&ips(given)), ips(expected), "{given:?}");
        }
        let many: Vec<IpAddr> = (0..100u32).map(|i| IpAddr::V4(i.into())).collect();
        assert_eq!(interleave(&many), many[..MAX_ADDRESSES]);
    }

    #[test]
    fn each_family_begins_with_another_address_and_keeps_its_places() {
        let parse =
            |list: &[&str]| -> Vec<SocketAddr> { list.iter().map(|text| text.parse().unwrap()).collect() };
        let (a, b, c) = ("[::1]:1", "[::2]:1", "[::3]:1");
        let (x, y) = ("10.0.0.1:1", "10.0.0.2:1");
        for (by, expected) in [
            (0, [a, x, b, y, c]),
            (1, [b, y, c, x, a]),
            (2, [c, x, a, y, b]),
            (5, [c, y, a, x, b]),
            (usize::MAX, [a, y, b, x, c]),
        ] {
            let mut addresses = parse(&[a, x, b, y, c]);
            rotate(&mut addresses, by);
            assert_eq!(addresses, parse(&expected), "by {by}");
        }
        rotate(&mut [], 1);
    }

    /// An address on which nobody listens: bound, never listening, so nobody else gets the port meanwhile.
    fn closed() -> (Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    /// A listener whose queue is full: the system drops further handshakes, as a dead host would.
    fn jammed() -> (Socket, Vec<Socket>, SocketAddr) {
        let (socket, address) = closed();
        socket.listen(0).unwrap();
        let clients = (0..4)
            .map(|_| {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                let error = client.connect(&address.into()).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::INPROGRESS.raw_os_error()));
                client
            })
            .collect();
        (socket, clients, address)
    }

    #[tokio::test]
    async fn the_first_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let (_closed, refused) = closed();
        let (_jammed, _clients, silent) = jammed();
        for addresses in
            [&[alive][..], &[refused, alive], &[silent, alive], &[silent, refused, refused, alive]]
        {
            let stream = connect(addresses, Duration::from_secs(30)).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), alive, "{addresses:?}");
            assert!(stream.nodelay().unwrap());
        }
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        let (_closed, refused) = closed();
        let (_jammed, _clients, silent) = jammed();
        let soon = Duration::from_millis(20);
        for (addresses, timeout, expected) in [
            (&[][..], soon, ConnectError::NoAddresses),
            (&[refused], Duration::from_secs(30), ConnectError::Refused),
            (&[silent], soon, ConnectError::TimedOut),
            (&[refused, silent], soon, ConnectError::TimedOut),
        ] {
            assert_eq!(connect(addresses, timeout).await.unwrap_err(), expected, "{addresses:?}");
        }
        let kind = |kind: ErrorKind| ConnectError::from_io(&io::Error::from(kind));
        assert_eq!(kind(ErrorKind::NetworkUnreachable), ConnectError::Unreachable);
        assert_eq!(kind(ErrorKind::HostUnreachable), ConnectError::Unreachable);
        assert_eq!(kind(ErrorKind::TimedOut), ConnectError::TimedOut);
        assert_eq!(kind(ErrorKind::PermissionDenied), ConnectError::Local(ErrorKind::PermissionDenied));
    }

    #[tokio::test]
    async fn addresses_beyond_the_limit_are_not_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_closed, refused) = closed();
        let mut addresses = vec![refused; MAX_ADDRESSES];
        addresses.push(listener.local_addr().unwrap());
        assert_eq!(connect(&addresses, Duration::from_secs(30)).await.unwrap_err(), ConnectError::Refused);
        addresses.swap(0, MAX_ADDRESSES);
        assert!(connect(&addresses, Duration::from_secs(30)).await.is_ok());
    }
}
