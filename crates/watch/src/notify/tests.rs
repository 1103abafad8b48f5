//! Messages sent to local servers: what arrives, and what is said when it does not.

use std::net::SocketAddr;
use std::path::PathBuf;

use api::roles::{NotifyChannel, NotifyWay, SecretPlace, SmtpSecurity};
use api::seal::{authentication_code, hexadecimal};
use base::happening::{Component, Happening, Severity, What};
use base::time::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::incident::Incidents;

fn sender<'a>() -> Sender<'a> {
    Sender { title: "Example", page: Some("http://127.0.0.1:9180/"), channel: "pager" }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

/// A feed that is refused after its data was changed by somebody.
fn refused() -> Incidents {
    let mut incidents = Incidents::default();
    let tell = |seconds, what, severity, cause: &str, message: &str| {
        let happening =
            Happening::new(at(seconds), what, severity, Component::Feeds, cause, message.to_owned());
        happening.about("bot-management").with_generation(7).done_by("feeder")
    };
    incidents.happened(&tell(
        100,
        What::ArtefactActivated,
        Severity::Info,
        "new",
        "generation 6 is in force",
    ));
    let message = "generation 7 holds 60 of 120 keys twice\r\nBcc: someone";
    incidents.happened(&tell(200, What::ArtefactRefused, Severity::Warning, "duplicate-keys", message));
    incidents
}

fn message(incidents: &Incidents) -> Message {
    let mut ledger = Ledger::new("pager", &[], at(0), 1);
    let notice = ledger.due(incidents, at(210)).unwrap();
    Message::of(&notice, sender(), at(210))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

fn webhook(url: String, secret: Option<SecretPlace>) -> NotifyChannel {
    NotifyChannel { name: "pager".to_owned(), way: NotifyWay::Webhook { url, secret } }
}

/// Reads one request and answers it: its head in lower case, and its body.
async fn exchange(stream: TcpStream, answer: &str) -> (String, Vec<u8>) {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line == "\r\n" {
            break;
        }
        let line = line.to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
    (head, body)
}

#[test]
fn a_webhook_names_feed_cause_and_the_change_before_and_is_signed() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "open sesame\n").unwrap();
    let (sent, (head, body)) = run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?token=hidden", listener.local_addr().unwrap());
        let channel = webhook(url, Some(SecretPlace::File(secret)));
        let message = message(&refused());
        let serve = async { exchange(listener.accept().await.unwrap().0, "204 No Content").await };
        tokio::join!(send(&channel, &message), serve)
    });
    sent.unwrap();
    assert!(head.starts_with("post /hook?token=hidden http/1.1"), "{head}");
    let text = String::from_utf8(body).unwrap();
    let code = hexadecimal(&authentication_code(b"open sesame", format!("210.{text}").as_bytes()));
    assert!(head.contains(&format!("rempart-signature: t=210,v1={code}")), "{head}");
    let json: Value = serde_json::from_str(&text).unwrap();
    let name = "[Example] Problem: bot-management: new data (generation 7) refused, duplicate-keys";
    assert_eq!(json["name"], name);
    assert_eq!(json["alert_event"], "ALERT_STATE_EVENT_START");
    let incident = &json["data"]["incidents"][0];
    assert_eq!(incident["component"], "feeds");
    assert_eq!(incident["changes_before"][0]["text"], "generation 6 is in force");
    assert_eq!(json["alert_correlation_id"], incident["id"]);
    assert_eq!(json["data"]["page"], format!("http://127.0.0.1:9180/#{}", incident["id"].as_str().unwrap()));
}

#[test]
fn what_is_not_taken_is_an_error_that_tells_no_secret() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{address}/hidden");
        let message = message(&refused());
        for (answer, expected) in [
            ("503 Service Unavailable", "it answered 503 Service Unavailable"),
            ("302 Found\r\nlocation: /x", "it answered 302 Found; redirects are not followed"),
        ] {
            let serve = async { exchange(listener.accept().await.unwrap().0, answer).await };
            let channel = webhook(url.clone(), None);
            let (sent, _) = tokio::join!(send(&channel, &message), serve);
            assert_eq!(sent.unwrap_err().to_string(), expected);
        }
        drop(listener);
        let error = send(&webhook(url.clone(), None), &message).await.unwrap_err().to_string();
        assert!(error.contains("refused") && !error.contains("hidden"), "{error}");
        for (url, expected) in [
            ("http://hooks.example/hidden", "the webhook takes a URL with https"),
            ("http://localhost/hidden", "the webhook takes a URL with https"),
            ("gopher", "the webhook takes a URL with https"),
        ] {
            let error = send(&webhook(url.to_owned(), None), &message).await.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let missing = Some(SecretPlace::File(PathBuf::from("/does/not/exist")));
        let error = send(&webhook(url, missing), &message).await.unwrap_err().to_string();
        assert!(error.starts_with("the secret in /does/not/exist cannot be read"), "{error}");
    });
}

fn mail(server: SocketAddr, security: SmtpSecurity, login: Option<SecretPlace>) -> NotifyChannel {
    let way = NotifyWay::Smtp {
        host: server.ip().to_string(),
        port: server.port(),
        security,
        login: login.map(|place| ("user".to_owned(), place)),
        from: "Rempart <rempart@example.org>".to_owned(),
        to: vec!["one@example.net".to_owned(), "two@example.net".to_owned()],
    };
    NotifyChannel { name: "pager".to_owned(), way }
}

/// A mail server that offers these extensions and refuses a line that begins with `refuse`. Returns all it was sent.
async fn mail_server(stream: TcpStream, extensions: &[&str], refuse: &str) -> String {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
    let (mut heard, mut data) = (String::new(), false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return heard;
        }
        heard += &line;
        let answer = match line.trim_end() {
            "." if data => {
                data = false;
                "250 taken".to_owned()
            }
            _ if data => continue,
            line if !refuse.is_empty() && line.starts_with(refuse) => "550 not\u{7} here".to_owned(),
            line if line.starts_with("EHLO") => {
                let mut lines: Vec<_> = extensions.iter().map(|it| format!("250-{it}\r\n")).collect();
                lines.insert(0, "250-mail.example\r\n".to_owned());
                lines.concat() + "250 8BITMIME"
            }
            line if line.starts_with("AUTH") => "235 come in".to_owned(),
            "DATA" => {
                data = true;
                "354 go on".to_owned()
            }
            "QUIT" => "221 bye".to_owned(),
            _ => "250 fine".to_owned(),
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
    }
}

fn deliver(
    security: SmtpSecurity,
    login: Option<SecretPlace>,
    extensions: &[&str],
    refuse: &str,
) -> (Result<(), SendError>, String) {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channel = mail(listener.local_addr().unwrap(), security, login);
        let message = message(&refused());
        let serve = async { mail_server(listener.accept().await.unwrap().0, extensions, refuse).await };
        tokio::join!(send(&channel, &message), serve)
    })
}

#[test]
fn a_mail_reaches_every_recipient_and_cannot_be_given_other_headers() {
    let (sent, heard) = deliver(SmtpSecurity::None, None, &[], "");
    sent.unwrap();
    for line in [
        "RCPT TO:<one@example.net>",
        "RCPT TO:<two@example.net>",
        "Auto-Submitted: auto-generated",
        "Problem: bot-management: new data (generation 7) refused, duplicate-keys",
        "  Changed in the 30 minutes before it:",
        "    1970-01-01T00:01:40.000Z generation 6 is in force (feeder)",
    ] {
        assert!(heard.contains(line), "{line}\n{heard}");
    }
    assert!(heard.contains("Subject: [Example] Problem: bot-management:"), "{heard}");
    assert!(!heard.contains("\nBcc:"), "{heard}");
    assert!(heard.contains("References: <"), "{heard}");
}

#[test]
fn a_password_is_given_to_a_server_that_asks_and_to_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "secret").unwrap();
    let place = Some(SecretPlace::File(file));
    // "\0user\0secret" in base64.
    let (sent, heard) = deliver(SmtpSecurity::None, place.clone(), &["AUTH PLAIN"], "");
    sent.unwrap();
    assert!(heard.contains("AUTH PLAIN AHVzZXIAc2VjcmV0"), "{heard}");
    // Without STARTTLS, neither the password nor the message goes out.
    let (sent, heard) = deliver(SmtpSecurity::StartTls, place, &["AUTH PLAIN"], "");
    let error = sent.unwrap_err().to_string();
    assert!(error.contains("STARTTLS"), "{error}");
    assert!(!heard.contains("AUTH") && !heard.contains("MAIL"), "{heard}");
}

#[test]
fn what_a_mail_server_says_is_told_without_what_could_harm_a_terminal() {
    let (sent, _) = deliver(SmtpSecurity::None, None, &[], "RCPT TO:<two");
    let error = sent.unwrap_err().to_string();
    assert!(error.contains("550") || error.contains("not  here"), "{error}");
    assert!(!error.contains('\u{7}'), "{error}");
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let message = message(&refused());
        let webhook = webhook(format!("http://{address}/"), None);
        for channel in [webhook, mail(address, SmtpSecurity::None, None)] {
            let error = send_within(Duration::from_millis(50), &channel, &message).await.unwrap_err();
            assert!(matches!(error, SendError::Late(_)), "{error}");
        }
    });
}

#[test]
fn many_incidents_are_one_message_and_the_same_attempt_has_the_same_name() {
    let mut incidents = Incidents::default();
    for number in 0..60 {
        let happening = Happening::new(
            at(1),
            What::ArtefactRefused,
            Severity::Warning,
            Component::Feeds,
            "c",
            "m".to_owned(),
        );
        incidents.happened(&happening.about(format!("feed-{number}")));
    }
    let message = message(&incidents);
    assert_eq!(message.subject, "[Example] 50 incidents, 50 of them last, and 10 more");
    let again = super::tests::message(&incidents);
    assert_eq!(message.id, again.id);
    assert_eq!(message.json["data"]["incidents"].as_array().unwrap().len(), 50);
    let test = Message::test(sender(), at(1));
    assert_eq!((test.json["alert_type"].as_str(), test.incident), (Some("rempart_test"), None));
}
