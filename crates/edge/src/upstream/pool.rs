//! Origin connections of one edge thread: idle ones, newest first, the HTTP/2 connections that many requests share, and the
//! room there is for more.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::room::Room;
use crate::h1::client::{OriginConnection, Recycle};
use crate::h2::client::{SharedConnection, StreamGuard};
use crate::proxy_protocol::Ends;

/// Identifies origins that may share connections: same address, TLS settings and HTTP version, in any generation.
pub type PoolKey = u64;

/// The key of origins that share nothing, and whose connections nobody counts.
pub const NO_POOL: PoolKey = PoolKey::MAX;

/// The pools of one edge thread.
#[derive(Default)]
pub struct Pools(RefCell<HashMap<PoolKey, OriginPool>>);

/// What a thread has of one origin.
#[derive(Default)]
struct OriginPool {
    idle: Vec<OriginConnection>,
    shared: Vec<Rc<SharedConnection>>,
    room: Rc<Room>,
}

impl Pools {
    /// The connection used last, of those whose PROXY header told these ends; it is the one least likely to have been closed
    /// by the origin.
    pub fn take(&self, key: PoolKey, keep_alive: Duration, ends: Option<&Ends>) -> Option<OriginConnection> {
        let mut origins = self.0.borrow_mut();
        let stack = &mut origins.get_mut(&key)?.idle;
        let connection = match ends {
            None => stack.pop()?,
            Some(_) => {
                let at = stack.iter().rposition(|connection| connection.introduced.as_deref() == ends)?;
                stack.remove(at)
            }
        };
        if connection.idle_since.elapsed() < keep_alive {
            return Some(connection);
        }
        // Everything below is older still.
        stack.retain(|other| other.idle_since > connection.idle_since);
        None
    }

    /// Gives a connection to a request that waits, or keeps it unless there are `max` already.
    fn put(&self, key: PoolKey, connection: OriginConnection, max: usize) {
        if key == NO_POOL {
            return;
        }
        let mut origins = self.0.borrow_mut();
        let pool = origins.entry(key).or_default();
        let offered = if pool.room.is_awaited() { pool.room.offer(connection) } else { Some(connection) };
        let Some(connection) = offered else { return };
        // One that told the origin of another visitor is of no use to anybody else: the oldest makes room.
        if pool.idle.len() >= max && connection.introduced.is_some() && !pool.idle.is_empty() {
            drop(pool.idle.remove(0));
        }
        if pool.idle.len() < max {
            pool.idle.push(connection);
        }
    }

    /// A stream on an HTTP/2 connection that has room for one more.
    pub fn shared(&self, key: PoolKey) -> Option<(Rc<SharedConnection>, StreamGuard)> {
        let mut origins = self.0.borrow_mut();
        let connections = &mut origins.get_mut(&key)?.shared;
        connections.retain(|connection| !connection.is_closed());
        connections.iter().find_map(|connection| Some((connection.clone(), connection.reserve()?)))
    }

    /// Offers an HTTP/2 connection to those who wait, and to later requests.
    pub fn share(&self, key: PoolKey, connection: Rc<SharedConnection>) {
        if key == NO_POOL {
            return;
        }
        let mut origins = self.0.borrow_mut();
        let pool = origins.entry(key).or_default();
        pool.room.offer_streams(&connection);
        pool.shared.push(connection);
    }

    /// The room at an origin; `None` for one that has no pool.
    pub fn room(&self, key: PoolKey) -> Option<Rc<Room>> {
        (key != NO_POOL).then(|| self.0.borrow_mut().entry(key).or_default().room.clone())
    }

    /// Closes a connection that nobody uses, so that there is room for one that fits; a shared one in a moment.
    pub fn make_room(&self, key: PoolKey) {
        let mut origins = self.0.borrow_mut();
        let Some(pool) = origins.get_mut(&key) else { return };
        if !pool.idle.is_empty() {
            drop(pool.idle.remove(0));
        } else if let Some(at) = pool.shared.iter().position(|connection| connection.is_unused()) {
            drop(pool.shared.remove(at));
        }
    }

    /// Closes what has been idle for longer than `limit`; called about once a second.
    pub fn sweep(&self, limit: Duration, now: Instant) {
        self.0.borrow_mut().retain(|_, pool| {
            pool.idle.retain(|connection| now.duration_since(connection.idle_since) < limit);
            pool.shared.retain(|connection| !connection.is_closed() && !connection.is_idle_for(limit, now));
            // Whoever has a connection, or waits for one, holds on to the room.
            !pool.idle.is_empty() || !pool.shared.is_empty() || Rc::strong_count(&pool.room) > 1
        });
    }
}

/// Brings one connection back into its pool.
pub struct Return {
    /// The pools; weak, because a response may outlive its thread's last request.
    pub pools: Weak<Pools>,
    /// Which pool.
    pub key: PoolKey,
    /// Most idle connections kept.
    pub max_idle: usize,
}

impl Recycle for Return {
    fn recycle(&self, connection: OriginConnection) {
        if let Some(pools) = self.pools.upgrade() {
            pools.put(self.key, connection, self.max_idle);
        }
    }
}
