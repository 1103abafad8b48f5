//! Who is told of incidents, when, and how: what each channel has been told, what it is still owed, and the ways to send.
//!
//! Nothing is queued: what is owed follows from the incidents and from what has been told, so it cannot grow.

mod ledger;
mod mail;
mod message;
mod secret;
mod webhook;

pub use ledger::{Ledger, Notice, Stage, Told};
pub use message::{Message, Sender};
pub use secret::SecretError;

use std::time::Duration;

use api::roles::{NotifyChannel, NotifyWay};

/// Sending a message takes no longer, however the other side behaves.
pub const SENDING: Duration = Duration::from_secs(30);
/// Longest reason kept, in bytes: servers say what they like.
const MAX_REASON: usize = 300;

/// Why a message was not sent. Says nothing secret: no URL, no password.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// What it takes to log in or to sign is not there.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The channel's settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// The other side could not be reached, or did not take it.
    #[error("{0}")]
    NotTaken(String),
    /// The other side did not answer.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

/// Sends a message, once, within `SENDING`.
pub async fn send(channel: &NotifyChannel, message: &Message) -> Result<(), SendError> {
    send_within(SENDING, channel, message).await
}

async fn send_within(limit: Duration, channel: &NotifyChannel, message: &Message) -> Result<(), SendError> {
    let sending = async {
        match &channel.way {
            NotifyWay::Webhook { url, secret } => webhook::send(url, secret.as_ref(), message).await,
            NotifyWay::Smtp { host, port, security, login, from, to } => {
                let server = mail::Server { host, port: *port, security: *security, login: login.as_ref() };
                mail::send(&server, from, to, message).await
            }
        }
    };
    tokio::time::timeout(limit, sending).await.unwrap_or(Err(SendError::Late(limit)))
}

/// What the other side said, without control characters and not too long.
fn reason(text: &str) -> String {
    let mut clean: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    let end = (0..=MAX_REASON.min(clean.len())).rev().find(|at| clean.is_char_boundary(*at)).unwrap_or(0);
    clean.truncate(end);
    clean.trim().to_owned()
}

#[cfg(test)]
mod tests;
