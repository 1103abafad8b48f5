//! What people are told during a drill: the status page, and two inboxes that are no part of Rempart, a webhook and a mail server.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{free_addresses, wait_for};
use crate::stage::shown;
use crate::{DrillError, Stage};

/// How soon people know.
pub const KNOWN: Duration = Duration::from_secs(60);
/// A second message about the same would have come within this.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// How long the other side of an inbox may take for anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest message, and messages kept.
const MAX_MESSAGE: u64 = 1 << 20;
const MAX_KEPT: usize = 1000;
/// First word of a message about something that has begun.
const BEGUN: &str = "Problem: ";

/// The status page of a drill, and who is told.
#[derive(Debug)]
pub struct Comms {
    page: SocketAddr,
    hook: Inbox,
    mail: Inbox,
}

/// What people must know, and from when on it could be known.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Words that its name must have.
    pub words: &'a [&'a str],
    /// Components of the page that must be green all the same.
    pub works: &'a [&'a str],
    /// When it was done, as a time of the drill.
    pub since: Duration,
}

impl Known<'_> {
    fn left(&self, stage: &Stage) -> Duration {
        KNOWN.saturating_sub(stage.clock.now().saturating_sub(self.since))
    }
}

impl Comms {
    /// Inboxes that listen.
    pub fn start() -> Result<Self, DrillError> {
        let [page] = free_addresses()?;
        Ok(Self { page, hook: Inbox::open(webhook)?, mail: Inbox::open(mail)? })
    }

    /// What stands of it in a configuration. Sites are asked often: a drill is short.
    pub fn config(&self) -> String {
        let Self { page, hook, mail } = self;
        let (host, port) = (mail.address.ip(), mail.address.port());
        format!(
            "\n[watch]\nlisten = \"{page}\"\nprobe = {{ every = \"2s\", path = \"/page/1\" }}\n\n\
             [[watch.notify]]\nname = \"hook\"\nwebhook = \"http://{}/\"\n\n\
             [[watch.notify]]\nname = \"mail\"\nsmtp = {{ host = \"{host}\", port = {port}, security = \"none\", \
             from = \"rempart@drill.test\", to = [\"people@drill.test\"] }}\n",
            hook.address
        )
    }

    /// The page as monitors read it; `None` when there is none.
    pub fn summary(&self) -> Option<Value> {
        let mut stream = TcpStream::connect_timeout(&self.page, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let request =
            format!("GET /api/v2/summary.json HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.page);
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.take(MAX_MESSAGE).read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8(answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Claims that the page names something that is going on, and that what else is named works.
    pub fn on_page(&self, stage: &mut Stage, key: &'static str, known: &Known<'_>) {
        let mut seen = None;
        wait_for(known.left(stage), || {
            seen = self.summary().filter(|summary| title(summary, known.words).is_some());
            seen.is_some()
        });
        let took = stage.clock.now().saturating_sub(known.since);
        let works = seen.as_ref().is_some_and(|summary| work(summary, known.works));
        let title = seen.as_ref().and_then(|summary| title(summary, known.words));
        let others = format!("{} {}", known.works.join(", "), if works { "green" } else { "not green" });
        let named = title.map_or_else(|| "not named".to_owned(), |title| format!("{title:?}"));
        let measured = format!("{named}, {others}, after {}", shown(took));
        let limit = format!("<= {}, {} green", shown(KNOWN), known.works.join(", "));
        let right = title.is_some() && works && took <= KNOWN;
        stage.expect(key, "The status page names it and its cause, and what works", &limit, measured, right);
    }

    /// Claims that both inboxes have been told of it, once.
    pub fn told(&self, stage: &mut Stage, key: &'static str, known: &Known<'_>) {
        let both = || [&self.hook, &self.mail].map(|inbox| inbox.about(known.words));
        wait_for(known.left(stage), || both().iter().all(|count| *count > 0));
        let took = stage.clock.now().saturating_sub(known.since);
        stage.pass(AFTERWARDS);
        let [hook, mail] = both();
        let measured = format!("{hook} by webhook, {mail} by mail, after {}", shown(took));
        let limit = format!("1 and 1, <= {}", shown(KNOWN));
        let right = (hook, mail) == (1, 1) && took <= KNOWN;
        stage.expect(key, "People are told of it, once, in two ways", &limit, measured, right);
    }
}

/// The name of the incident that goes on and has all these words.
fn title<'a>(summary: &'a Value, words: &[&str]) -> Option<&'a str> {
    let incidents = summary.get("incidents")?.as_array()?;
    let mut names = incidents.iter().filter_map(|incident| incident.get("name")?.as_str());
    names.find(|name| words.iter().all(|word| name.contains(word)))
}

/// Whether these components are there and work.
fn work(summary: &Value, wanted: &[&str]) -> bool {
    let text = |component: &Value, field| component.get(field).and_then(Value::as_str).map(str::to_owned);
    let components = summary.get("components").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    wanted.iter().all(|wanted| {
        let found = components.iter().find(|component| text(component, "id").as_deref() == Some(wanted));
        found.and_then(|component| text(component, "status")).as_deref() == Some("operational")
    })
}

/// Messages that came; its thread ends with it.
#[derive(Debug)]
struct Inbox {
    address: SocketAddr,
    messages: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

impl Inbox {
    fn open(take: fn(TcpStream) -> io::Result<String>) -> Result<Self, DrillError> {
        let failed = || DrillError::system("an inbox could not be opened");
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed())?;
        let address = listener.local_addr().map_err(failed())?;
        let (messages, over) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (kept, ends) = (messages.clone(), over.clone());
        let work = move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                // Who hangs up has told nothing.
                let Ok(message) = take(stream) else { continue };
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() < MAX_KEPT {
                    kept.push(message);
                }
            }
        };
        std::thread::Builder::new().name("inbox".to_owned()).spawn(work).map_err(failed())?;
        Ok(Self { address, messages, over })
    }

    /// Messages about the beginning of something with all these words.
    fn about(&self, words: &[&str]) -> usize {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let is_about =
            |message: &&String| message.contains(BEGUN) && words.iter().all(|word| message.contains(word));
        messages.iter().filter(is_about).count()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // The thread sees it with its next visitor.
        drop(TcpStream::connect_timeout(&self.address, PATIENCE));
    }
}

/// One POST, answered.
fn webhook(stream: TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.take(MAX_MESSAGE));
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; usize::try_from(MAX_MESSAGE).unwrap_or(0).min(length)];
    reader.read_exact(&mut body)?;
    let stream = reader.get_mut().get_mut();
    stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")?;
    String::from_utf8(body).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// One mail (RFC 5321), its header unfolded.
fn mail(stream: TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answers = stream.try_clone()?;
    let mut lines = BufReader::new(stream.take(MAX_MESSAGE)).lines();
    let mut message = String::new();
    answers.write_all(b"220 drill.test\r\n")?;
    while let Some(line) = lines.next() {
        let line = line?;
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer: &[u8] = match verb.as_str() {
            "DATA" => {
                answers.write_all(b"354 go on\r\n")?;
                for line in lines.by_ref() {
                    let line = line?;
                    if line == "." {
                        break;
                    }
                    message += &line;
                    message.push('\n');
                }
                b"250 taken\r\n"
            }
            "QUIT" => {
                answers.write_all(b"221 bye\r\n")?;
                break;
            }
            _ => b"250 ok\r\n",
        };
        answers.write_all(answer)?;
    }
    if message.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(message.replace("\n ", " "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_named_works_only_when_it_is_there_and_green() {
        let page = |delivery: &str| {
            json!({ "components": [
                { "id": "delivery", "status": delivery },
                { "id": "feeds", "status": "degraded_performance" },
            ], "incidents": [{ "name": "features: frozen at generation 3" }] })
        };
        let good = page("operational");
        assert!(work(&good, &["delivery"]) && work(&good, &[]));
        assert!(!work(&good, &["delivery", "feeds"]) && !work(&good, &["site-shop"]));
        assert!(!work(&page("major_outage"), &["delivery"]) && !work(&json!({}), &["delivery"]));
        let frozen = title(&good, &["features", "frozen"]).map(str::to_owned);
        assert_eq!(frozen.as_deref(), Some("features: frozen at generation 3"));
        assert_eq!(title(&good, &["features", "refused"]), None);
    }

    #[test]
    fn both_inboxes_take_what_is_sent_to_them() {
        let comms = Comms::start().unwrap();
        let send = |address: SocketAddr, text: &str| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let body = "{\"name\":\"Problem: it broke\"}";
        let post = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert!(send(comms.hook.address, &post).starts_with("HTTP/1.1 204"));
        let letter = "EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: Problem: it\r\n broke\r\n.\r\nQUIT\r\n";
        assert!(send(comms.mail.address, letter).ends_with("221 bye\r\n"));
        let told = || [&comms.hook, &comms.mail].map(|inbox| inbox.about(&["it broke"]));
        wait_for(PATIENCE, || told() == [1, 1]);
        assert_eq!(told(), [1, 1]);
        assert_eq!(comms.hook.about(&["it mended"]), 0);
    }
}
