//! The way to a visitor, as the kernel has measured it on its connection (tcp(7), `TCP_INFO`).

use std::os::fd::AsRawFd as _;
use std::time::Duration;

use tokio::net::TcpStream;

/// Bytes of the kernel's `struct tcp_info` that are asked for: as far as `tcpi_delivery_rate` (Linux 4.9). The layout is part of its
/// interface and only ever grows.
const LENGTH: usize = 168;
/// Offset of `tcpi_rtt`: microseconds, 32 bits.
const ROUND_TRIP: usize = 68;
/// Offset of `tcpi_delivery_rate`: bytes a second, 64 bits.
const DELIVERY_RATE: usize = 160;

/// What was measured; `None` is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Smoothed time of a round trip.
    pub round_trip: Option<Duration>,
    /// Bytes a second that arrived lately.
    pub delivery_rate: Option<u64>,
}

impl Path {
    /// Asks the kernel.
    #[expect(unsafe_code, reason = "named exception: nobody offers TCP_INFO otherwise, and rules ask for it")]
    pub fn of(socket: &TcpStream) -> Self {
        let mut info = [0_u8; LENGTH];
        let mut length = LENGTH as libc::socklen_t;
        // SAFETY: the descriptor is open as long as `socket` is borrowed. The kernel writes at most `length` bytes, which is the
        // length of `info`, both live through the call, and any bytes are a valid `info`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let written = if result == 0 { info.get(..length as usize).unwrap_or_default() } else { &[] };
        Self::read(written)
    }

    fn read(info: &[u8]) -> Self {
        let micros = info
            .get(ROUND_TRIP..ROUND_TRIP + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_ne_bytes);
        let rate =
            info.get(DELIVERY_RATE..LENGTH).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
        // Zero is what has not been measured yet.
        Self {
            round_trip: micros
                .filter(|micros| *micros > 0)
                .map(|micros| Duration::from_micros(micros.into())),
            delivery_rate: rate.filter(|rate| *rate > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_kernel_has_measured_a_connection_that_was_used() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut byte = [0];
        for _ in 0..4 {
            server.write_all(b"x").await.unwrap();
            client.read_exact(&mut byte).await.unwrap();
            client.write_all(b"y").await.unwrap();
            server.read_exact(&mut byte).await.unwrap();
        }
        let path = Path::of(&server);
        assert!(path.round_trip.is_some_and(|time| time < Duration::from_secs(5)), "{path:?}");
        assert!(path.delivery_rate.is_some(), "{path:?}");
    }

    #[test]
    fn what_an_older_kernel_does_not_say_is_not_there() {
        let mut info = [0; LENGTH];
        info[ROUND_TRIP..ROUND_TRIP + 4].copy_from_slice(&1_500_u32.to_ne_bytes());
        info[DELIVERY_RATE..].copy_from_slice(&9_000_u64.to_ne_bytes());
        let round_trip = Some(Duration::from_micros(1_500));
        assert_eq!(Path::read(&info), Path { round_trip, delivery_rate: Some(9_000) });
        assert_eq!(Path::read(&info[..104]), Path { round_trip, delivery_rate: None });
        assert_eq!(Path::read(&[0; LENGTH]), Path::default());
        assert_eq!(Path::read(&[]), Path::default());
    }
}
