//! The commands of an edge thread: which listeners it accepts on, which rest, and how everything ends.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Command, Done, LAST_WORDS, Worker};
use crate::accept::{self, Stop};
use crate::connection::{Ending, ListenerState};
use crate::pace;
use snapshot::generation::Drain;

/// Silence after which TCP asks whether the client is there, and how often: a NAT forgets silent connections after minutes.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// One listener of this thread.
struct Listener {
    state: Rc<ListenerState>,
    /// One for each of its sockets that this thread accepts on; none while it is paused.
    loops: Vec<AcceptLoop>,
}

struct AcceptLoop {
    stop: oneshot::Sender<Stop>,
    task: JoinHandle<()>,
}

/// Does what it is told until the thread is to end, and what there is to do before that.
/// Answers with what tells that the thread has ended.
pub(super) async fn obey(worker: Rc<Worker>, mut commands: mpsc::Receiver<Command>) -> Option<Done> {
    let mut listeners: HashMap<u64, Listener> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen { id, configured, socket, tls, rehearsal } => {
                let fresh = || Listener::new(configured, rehearsal, &worker);
                let listener = listeners.entry(id).or_insert_with(fresh);
                listener.state.tls.set(tls);
                listener.accept(socket, &worker);
            }
            Command::SetTls { id, tls } => {
                listeners.get(&id).into_iter().for_each(|listener| listener.state.tls.set(tls));
            }
            Command::Pause { id, done } => {
                if let Some(listener) = listeners.get_mut(&id) {
                    // What waits in the backlog is for the successor, which has the same socket.
                    listener.stop(false, &done);
                }
            }
            Command::Unlisten { id, done } => {
                if let Some(mut listener) = listeners.remove(&id) {
                    let limits = worker.generation().snapshot.drain;
                    listener.state.removed.set(Some(Ending::of_listener(&limits, Instant::now())));
                    listener.stop(true, &done);
                    worker.seats.borrow().wake();
                }
            }
            Command::Drain { limits, done } => {
                // Whoever gives another command is told at once, not after the drain.
                commands.close();
                drain(&worker, listeners.into_values(), &limits).await;
                return Some(done);
            }
        }
    }
    None
}

/// Ends every connection of the thread within the limits.
async fn drain(worker: &Rc<Worker>, listeners: impl Iterator<Item = Listener>, limits: &Drain) {
    let now = Instant::now();
    worker.ending.set(Some(Ending::of_process(limits, now)));
    worker.seats.borrow().wake();
    for mut listener in listeners {
        for AcceptLoop { stop, task } in listener.loops.drain(..) {
            // The loop can only be gone when its socket is closed already.
            crate::ignore(stop.send(Stop { last_call: true, done: None }).map_err(drop));
            // Its last call decides whether there is a connection to wait for.
            crate::ignore(task.await);
        }
    }
    let longest = limits.idle.max(limits.requests).max(limits.tunnels).saturating_add(LAST_WORDS);
    let left = worker.empty_until(far_enough(now, longest)).await;
    if left > 0 {
        tracing::warn!(connections = left, "connections did not end in time and are closed");
        (0..left).for_each(|_| worker.count_cut());
    }
}

/// Sets what accepted connections take over from their listener, which saves them a system call each (tcp(7)): no delay of
/// small segments, and a question now and then whether a silent client is still there.
fn inherit(socket: &std::net::TcpListener) {
    let socket = socket2::SockRef::from(socket);
    let probes = socket2::TcpKeepalive::new().with_time(KEEP_ALIVE_IDLE).with_interval(KEEP_ALIVE_INTERVAL);
    // Connections work without, only less well.
    if let Err(error) = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&probes)) {
        tracing::warn!(%error, "a listening socket does not take its settings");
    }
}

/// A moment that far away; the furthest the clock can say when that is beyond it.
fn far_enough(now: Instant, wait: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now.checked_add(wait).unwrap_or(now + YEAR)
}

impl Listener {
    fn new(configured: SocketAddr, rehearsal: Option<SocketAddr>, worker: &Worker) -> Self {
        let state = ListenerState {
            configured,
            bound: Cell::new(None),
            tls: Cell::new(false),
            rehearsal,
            removed: Cell::new(None),
            process: worker.ending.clone(),
            pressure: worker.shared.metrics.pressure().clone(),
        };
        Self { state: Rc::new(state), loops: Vec::new() }
    }

    fn accept(&mut self, socket: std::net::TcpListener, worker: &Rc<Worker>) {
        inherit(&socket);
        let bound = socket.local_addr().ok().filter(|address| !address.ip().is_unspecified());
        self.state.bound.set(bound);
        pace::limit_unsent(&socket);
        match tokio::net::TcpListener::from_std(socket) {
            Ok(listener) => {
                let (stop, stopped) = oneshot::channel();
                let accepting = accept::run(listener, self.state.clone(), worker.clone(), stopped);
                self.loops.push(AcceptLoop { stop, task: tokio::task::spawn_local(accepting) });
            }
            Err(error) => {
                tracing::error!(configured = %self.state.configured, %error, "a listener could not be taken over");
            }
        }
    }

    /// Ends the accept loops; `done` is dropped when their sockets are closed.
    fn stop(&mut self, last_call: bool, done: &Done) {
        for AcceptLoop { stop, .. } in self.loops.drain(..) {
            // The loop can only be gone when its socket is closed already.
            crate::ignore(stop.send(Stop { last_call, done: Some(done.clone()) }).map_err(drop));
        }
    }
}
