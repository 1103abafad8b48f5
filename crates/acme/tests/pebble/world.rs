//! What surrounds a keeper in these tests: DNS, an edge that shows challenges, a watched store, a clock that can be moved.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use acme::{
    Clock, Command, FileStore, History, Keeper, Name, Pace, PublishError, Publisher, Store, StoreError,
    certificate_path,
};
use api::certificates::{AcmeAuthority, AcmeChallenge, AcmeSettings, Challenge};
use base::time::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Notify, mpsc};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::authority::{Pebble, Tls, Validation, Wishes, request_path};

/// Names below this one have no address.
const NOWHERE: &str = "nowhere.test";
/// Questions for names below this one are not answered.
const SILENT: &str = "silent.test";
/// A test that waits longer for an event has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything but the keeper.
pub struct World {
    pub folder: TempDir,
    pub tls: Tls,
    pub looks: Validation,
    pub edge: Rc<Edge>,
    /// TXT records as lines of name and value, written by the DNS program.
    pub records: PathBuf,
    /// Microseconds the keeper's clock is ahead.
    ahead: Arc<AtomicU64>,
    changed: Rc<Notify>,
    /// The last failure of each name of which one has been written down.
    pub failed: Rc<RefCell<BTreeMap<String, String>>>,
}

impl World {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let records = folder.path().join("records");
        std::fs::write(&records, "").unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let looks = Validation {
            http: serve_http(Arc::clone(&shown)).await,
            tls: serve_tls(Arc::clone(&shown)).await,
            dns: serve_dns(records.clone()).await,
        };
        let changed = Rc::new(Notify::new());
        let edge = Rc::new(Edge {
            shown,
            sets: Mutex::default(),
            refuses: Mutex::default(),
            changed: Rc::clone(&changed),
        });
        let tls = Tls::new(folder.path());
        Self { tls, looks, edge, records, folder, ahead: Arc::default(), changed, failed: Rc::default() }
    }

    pub fn pebble(&self, wishes: &Wishes) -> Pebble {
        Pebble::start(self.folder.path(), &self.tls, self.looks, wishes)
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A keeper with the delays of an impatient world.
    pub fn keeper(&self) -> Keeper<Watched, Handle> {
        let pace = Pace {
            first_retry: Duration::from_millis(300),
            longest_retry: Duration::from_secs(2),
            longest_hold: Duration::from_secs(1),
            failures_per_period: 1_000,
            slice: Duration::from_millis(50),
            ..Pace::default()
        };
        let ahead = Arc::clone(&self.ahead);
        let clock: Clock = Arc::new(move || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            Timestamp::from_unix(since).plus(Duration::from_micros(ahead.load(Ordering::Relaxed)))
        });
        let store = Watched {
            files: FileStore::open(&self.state()).unwrap(),
            changed: Rc::clone(&self.changed),
            failed: Rc::clone(&self.failed),
        };
        Keeper::with_pace(store, Handle(Rc::clone(&self.edge)), clock, 1, pace)
    }

    pub fn move_clock(&self, ahead: Duration) {
        let ahead = u64::try_from(ahead.as_micros()).unwrap();
        self.ahead.fetch_add(ahead, Ordering::Relaxed);
    }

    /// Runs a keeper beside a story, and drops it when the story ends.
    pub async fn with_keeper<T>(&self, story: impl AsyncFnOnce(mpsc::Sender<Command>) -> T) -> T {
        let (sender, receiver) = mpsc::channel(16);
        let mut keeper = self.keeper();
        tokio::select! {
            () = keeper.run(receiver) => panic!("the keeper ended"),
            told = story(sender) => told,
        }
    }

    /// Waits until something holds; looked at whenever the store or the set of challenges changes.
    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                self.changed.notified().await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let names = std::fs::read_dir(self.state().join("certificates")).unwrap();
            for name in names.flatten() {
                let history = std::fs::read_to_string(name.path().join("history.json")).unwrap_or_default();
                eprintln!("{}: {history}", name.path().display());
            }
            panic!("waited in vain until {what}");
        }
    }

    /// The PEM text in force for a name.
    pub fn current(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(certificate_path(&self.state(), name).unwrap()).ok()
    }

    pub fn history(&self, name: &str) -> History {
        let path = certificate_path(&self.state(), name).unwrap().with_file_name("history.json");
        std::fs::read(path).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap()).unwrap_or_default()
    }

    pub fn settings(&self, authorities: &[AcmeAuthority], names: &[&str]) -> AcmeSettings {
        AcmeSettings {
            contact: vec!["mailto:ops@example.test".into()],
            authorities: authorities.to_vec(),
            challenge: AcmeChallenge::Http01,
            names: names.iter().map(ToString::to_string).collect(),
            on_demand: Vec::new(),
        }
    }
}

/// A store that says when something is written; another implementation of the trait beside the files.
pub struct Watched {
    files: FileStore,
    changed: Rc<Notify>,
    failed: Rc<RefCell<BTreeMap<String, String>>>,
}

impl Store for Watched {
    fn current(&self, name: &Name) -> Result<Option<Vec<u8>>, StoreError> {
        self.files.current(name)
    }

    fn put(&self, name: &Name, pem: &str) -> Result<(), StoreError> {
        self.files.put(name, pem)?;
        self.changed.notify_one();
        Ok(())
    }

    fn history(&self, name: &Name) -> Result<Option<History>, StoreError> {
        self.files.history(name)
    }

    fn put_history(&self, name: &Name, history: &History) -> Result<(), StoreError> {
        self.files.put_history(name, history)?;
        if let Some(problem) = &history.problem {
            self.failed.borrow_mut().insert(name.to_string(), problem.clone());
        }
        self.changed.notify_one();
        Ok(())
    }

    fn forget(&self, name: &Name) -> Result<(), StoreError> {
        self.files.forget(name)?;
        self.changed.notify_one();
        Ok(())
    }

    fn names(&self) -> Result<Vec<Name>, StoreError> {
        self.files.names()
    }

    fn account(&self, directory: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.files.account(directory)
    }

    fn put_account(&self, directory: &str, account: &[u8]) -> Result<(), StoreError> {
        self.files.put_account(directory, account)
    }
}

/// Shows challenges on the ports pebble looks at.
pub struct Edge {
    shown: Arc<Mutex<Vec<Challenge>>>,
    /// Sizes of the sets published so far.
    pub sets: Mutex<Vec<usize>>,
    /// Refuses sets with something in it.
    pub refuses: Mutex<bool>,
    changed: Rc<Notify>,
}

impl Edge {
    pub fn shows(&self) -> Vec<Challenge> {
        self.shown.lock().unwrap().clone()
    }

    /// Whether at least one challenge was shown and none is any more.
    pub fn has_withdrawn(&self) -> bool {
        self.shows().is_empty() && self.sets.lock().unwrap().iter().any(|&size| size > 0)
    }
}

/// The keeper's hand on the edge.
pub struct Handle(Rc<Edge>);

impl Publisher for Handle {
    async fn publish(&self, challenges: Vec<Challenge>) -> Result<(), PublishError> {
        let edge = &self.0;
        if *edge.refuses.lock().unwrap() && !challenges.is_empty() {
            return Err(PublishError::Refused("its threads are on strike".to_owned()));
        }
        edge.sets.lock().unwrap().push(challenges.len());
        *edge.shown.lock().unwrap() = challenges;
        edge.changed.notify_one();
        Ok(())
    }
}

async fn serve_http(shown: Arc<Mutex<Vec<Challenge>>>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let shown = Arc::clone(&shown);
            tokio::spawn(async move {
                let Some(path) = request_path(&mut stream).await else {
                    return;
                };
                let wanted = path.strip_prefix("/.well-known/acme-challenge/").unwrap_or_default();
                let content = shown.lock().unwrap().iter().find_map(|challenge| match challenge {
                    Challenge::Http01 { token, content } if token == wanted => Some(content.clone()),
                    _ => None,
                });
                let (status, body) = content.map_or((404, String::new()), |content| (200, content));
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                drop(stream.write_all(answer.as_bytes()).await);
            });
        }
    });
    port
}

async fn serve_tls(shown: Arc<Mutex<Vec<Challenge>>>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shown = Arc::clone(&shown);
            tokio::spawn(async move {
                let Ok(start) = LazyConfigAcceptor::new(Acceptor::default(), stream).await else {
                    return;
                };
                let hello = start.client_hello();
                let offers = hello.alpn().is_some_and(|mut offered| offered.any(|one| one == b"acme-tls/1"));
                let asked = hello.server_name().unwrap_or_default().to_owned();
                let found = shown.lock().unwrap().iter().find_map(|challenge| match challenge {
                    Challenge::TlsAlpn01 { name, certificate, key } if offers && *name == asked => {
                        Some((certificate.clone(), key.clone()))
                    }
                    _ => None,
                });
                let Some((certificate, key)) = found else {
                    return;
                };
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                // `with_single_cert` refuses what it does not know, such as the critical extension of RFC 8737.
                let key = any_supported_type(&key).unwrap();
                let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, key));
                let config = ServerConfig::builder().with_no_client_auth();
                let mut config = config.with_cert_resolver(Arc::new(resolver));
                config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
                drop(start.into_stream(Arc::new(config)).await);
            });
        }
    });
    port
}

/// Every name is at 127.0.0.1, but those of `NOWHERE` and `SILENT`; TXT records come from a file.
async fn serve_dns(records: PathBuf) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 1_500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            if let Some(answer) = dns_answer(&packet[..length], &records) {
                drop(socket.send_to(&answer, peer).await);
            }
        }
    });
    address
}

/// An answer to a query with one question (RFC 1035 section 4.1).
fn dns_answer(query: &[u8], records: &Path) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut position = 12;
    while let Some(&length) = query.get(position).filter(|&&length| length > 0) {
        let end = position + 1 + usize::from(length);
        name.push(String::from_utf8_lossy(query.get(position + 1..end)?).to_lowercase());
        position = end;
    }
    let question = query.get(12..position + 5)?;
    let kind = u16::from_be_bytes([*query.get(position + 1)?, *query.get(position + 2)?]);
    let name = name.join(".");
    if name.ends_with(SILENT) {
        return None;
    }
    let exists = !name.ends_with(NOWHERE);
    let data: Vec<Vec<u8>> = match kind {
        1 if exists => vec![vec![127, 0, 0, 1]],
        16 => std::fs::read_to_string(records)
            .ok()?
            .lines()
            .filter_map(|line| line.split_once(' ').filter(|(record, _)| *record == name))
            .map(|(_, value)| [&[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat())
            .collect(),
        _ => Vec::new(),
    };
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([
        0x81,
        if exists { 0x80 } else { 0x83 },
        0,
        1,
        0,
        u8::try_from(data.len()).ok()?,
        0,
        0,
        0,
        0,
    ]);
    answer.extend(question);
    for value in data {
        // The question's name, its type, class IN, lives for no time.
        answer.extend([0xc0, 0x0c]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0]);
        answer.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
        answer.extend(value);
    }
    Some(answer)
}
