//! A WebSocket through Rempart that stays open: a message every half second, which must come back as it was.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::plan::{HOSTS, Kind};
use crate::traffic::{Class, PATIENCE, Record, Witness};
use crate::wire::Wire;

/// Between two messages.
const PAUSE: Duration = Duration::from_millis(500);

/// Talks until the witness says that it is over.
pub async fn talk(address: SocketAddr, witness: &Witness) {
    let mut socket: Option<WebSocketStream<Wire>> = None;
    let mut number = 0u64;
    // An open socket is in flight all the time: if it breaks, then while it was used after this.
    let mut heard = witness.clock.now();
    while !witness.is_over() {
        number += 1;
        let scheduled = witness.clock.now();
        let (kept, outcome) = say(socket.take(), address, number).await;
        socket = kept;
        let (class, detail) = match outcome {
            Ok(true) => (Class::Good, None),
            Ok(false) => (Class::WrongBody, None),
            Err(error) => (Class::of_error(&error), Some(error.to_string())),
        };
        let ended = witness.clock.now();
        witness.note(Record { kind: Kind::WebSocket, scheduled, sent: Some(heard), ended, class, detail });
        heard = ended;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sends one message and waits for it to come back; opens the socket when there is none.
async fn say(
    socket: Option<WebSocketStream<Wire>>,
    address: SocketAddr,
    number: u64,
) -> (Option<WebSocketStream<Wire>>, io::Result<bool>) {
    let exchanged = timeout(PATIENCE, async {
        let mut socket = match socket {
            Some(socket) => socket,
            None => {
                let wire = Wire::connect(address, None).await?;
                let url = format!("ws://{}/socket", HOSTS[1]);
                client_async(url, wire).await.map_err(broken)?.0
            }
        };
        let text = format!("message {number}");
        socket.send(Message::text(text.clone())).await.map_err(broken)?;
        let came = socket.next().await.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(broken)?;
        Ok((socket, came.into_text().is_ok_and(|came| came.as_str() == text)))
    });
    match exchanged.await {
        Ok(Ok((socket, same))) => (Some(socket), Ok(same)),
        Ok(Err(error)) => (None, Err(error)),
        Err(_) => (None, Err(io::ErrorKind::TimedOut.into())),
    }
}

fn broken(error: tokio_tungstenite::tungstenite::Error) -> io::Error {
    use tokio_tungstenite::tungstenite::Error;
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::UnexpectedEof.into(),
        Error::Protocol(_) => io::Error::new(io::ErrorKind::ConnectionReset, error.to_string()),
        other => io::Error::other(other.to_string()),
    }
}
