//! E-mail: one message in plain text over SMTP (RFC 5321), never over an unprotected connection that leaves this machine.

use std::error::Error as _;

use api::roles::{SecretPlace, SmtpSecurity};
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::{Message, SENDING, SendError, reason, secret};

/// Where mail is handed in.
pub struct Server<'a> {
    /// Its name, which its certificate must have.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: SmtpSecurity,
    /// Who logs in, and where the password is.
    pub login: Option<&'a (String, SecretPlace)>,
}

/// Sends once, to all recipients.
pub async fn send(
    server: &Server<'_>,
    from: &str,
    to: &[String],
    message: &Message,
) -> Result<(), SendError> {
    let letter = letter(from, to, message)?;
    let transport = transport(server)?;
    match transport.send(letter).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let inner = error.source().map(|inner| format!(": {inner}")).unwrap_or_default();
            let text = error.to_string();
            let text = if text.contains(inner.trim_start_matches(": ")) { text } else { text + &inner };
            Err(SendError::NotTaken(reason(&text)))
        }
    }
}

fn transport(server: &Server<'_>) -> Result<AsyncSmtpTransport<Tokio1Executor>, SendError> {
    let parameters = || {
        TlsParameters::new(server.host.to_owned())
            .map_err(|error| SendError::Settings(reason(&format!("TLS cannot be set up: {error}"))))
    };
    let tls = match server.security {
        SmtpSecurity::Tls => Tls::Wrapper(parameters()?),
        SmtpSecurity::StartTls => Tls::Required(parameters()?),
        SmtpSecurity::None if is_loopback(server.host) => Tls::None,
        SmtpSecurity::None => {
            let text = "mail goes unprotected to a loopback address only";
            return Err(SendError::Settings(text.to_owned()));
        }
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.host)
        .port(server.port)
        .tls(tls)
        .timeout(Some(SENDING));
    if let Some((user, place)) = server.login {
        builder = builder.credentials(Credentials::new(user.clone(), secret::read(place)?));
    }
    Ok(builder.build())
}

fn is_loopback(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn letter(from: &str, to: &[String], message: &Message) -> Result<lettre::Message, SendError> {
    let mailbox =
        |text: &str| text.parse::<Mailbox>().map_err(|error| SendError::Settings(format!("{text}: {error}")));
    let sender = mailbox(from)?;
    let domain = sender.email.domain().to_owned();
    let mut builder: MessageBuilder = lettre::Message::builder()
        .from(sender)
        .subject(&message.subject)
        .message_id(Some(format!("<{}@{domain}>", message.id)))
        .header(AutoSubmitted)
        .header(ContentType::TEXT_PLAIN);
    if let Some(incident) = &message.incident {
        // Whatever is told of one incident is one conversation.
        let thread = format!("<{incident}@{domain}>");
        builder = builder.in_reply_to(thread.clone()).references(thread);
    }
    for address in to {
        builder = builder.to(mailbox(address)?);
    }
    builder
        .body(message.text.clone())
        .map_err(|error| SendError::Settings(format!("the mail cannot be written: {error}")))
}

/// Keeps robots from answering (RFC 3834 section 5).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}
