//! The keeper process: gets and renews certificates, on the supervisor's orders, and writes them into the state folder.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use acme::{Command, FileStore, Keeper, PublishError, Publisher, Reason};
use api::certificates::Challenge;
use api::process::{Order, Task, Word};
use tokio::sync::{mpsc, oneshot};

use crate::EXIT_OK;
use crate::builder::now;
use crate::channel::Channel;
use crate::role;

/// Orders waiting for the keeper.
const COMMANDS: usize = 64;

/// Runs until the supervisor has nothing more to say.
pub fn run(state: &Path, stream: UnixStream) -> anyhow::Result<u8> {
    let (channel, seed) = role::begin(stream)?;
    let channel = Arc::new(channel);
    let store = FileStore::open(state)?;
    let edge = Edge { channel: channel.clone(), serial: AtomicU64::new(0), waiting: Arc::default() };
    let (commands, received) = mpsc::channel(COMMANDS);
    let waiting = edge.waiting.clone();
    std::thread::Builder::new().name("orders".to_owned()).spawn(move || {
        obey(&channel, &commands, &waiting);
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut keeper = Keeper::new(store, edge, Arc::new(now), seed);
    tokio::task::LocalSet::new().block_on(&runtime, keeper.run(received));
    Ok(EXIT_OK)
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<()>>>>;

/// The edge, behind the supervisor.
struct Edge {
    channel: Arc<Channel>,
    serial: AtomicU64,
    /// Sets that are not confirmed yet; the keeper sends one at a time.
    waiting: Waiting,
}

impl Publisher for Edge {
    async fn publish(&self, challenges: Vec<Challenge>) -> Result<(), PublishError> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let (confirm, confirmed) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // What was given up waiting for is never confirmed.
            waiting.clear();
            waiting.insert(serial, confirm);
        }
        self.channel.send(&Word::Challenges { serial, challenges }, &[]).map_err(|_| PublishError::Gone)?;
        confirmed.await.map_err(|_| PublishError::Gone)
    }
}

/// Reads orders; ends, and the keeper with it, when there are no more.
fn obey(channel: &Arc<Channel>, commands: &mpsc::Sender<Command>, waiting: &Waiting) {
    loop {
        let order = match channel.receive::<Order>() {
            Ok(Some((order, _))) => order,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "an order could not be read");
                return;
            }
        };
        let command = match order.task {
            Task::Published { serial } => {
                let confirm = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&serial);
                // The order that waited for it may have been given up.
                crate::ignore(confirm.map(|confirm| confirm.send(())));
                continue;
            }
            Task::Wanted { names } => Command::Wanted(names),
            Task::Keep { settings } => {
                answer(channel, order.id, Ok(()));
                Command::Settings(settings)
            }
            Task::Certificate { revoke, names } => {
                let (tell, told) = oneshot::channel();
                answer_later(channel.clone(), order.id, told);
                if revoke {
                    Command::Revoke { names, reason: Reason::Superseded, answer: tell }
                } else {
                    Command::Renew { names, answer: tell }
                }
            }
            _ => {
                answer(channel, order.id, Err("the keeper of certificates does nothing of that".to_owned()));
                continue;
            }
        };
        if commands.blocking_send(command).is_err() {
            return;
        }
    }
}

fn answer(channel: &Channel, id: u64, outcome: Result<(), String>) {
    role::answer(channel, id, "certificates", outcome);
}

/// An authority takes its time; other orders do not wait for it.
fn answer_later(channel: Arc<Channel>, id: u64, told: oneshot::Receiver<Result<(), String>>) {
    let wait = move || {
        let outcome = told.blocking_recv().unwrap_or_else(|_| Err("it was given up".to_owned()));
        answer(&channel, id, outcome);
    };
    if let Err(error) = std::thread::Builder::new().name("answer".to_owned()).spawn(wait) {
        tracing::warn!(%error, "an answer will not be given");
    }
}
