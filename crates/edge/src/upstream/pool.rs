//! Idle origin connections of one edge thread, newest first, and the HTTP/2 connections that many requests share.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::h1::client::{OriginConnection, Recycle};
use crate::h2::client::SharedConnection;

/// Identifies origins that may share connections: same address, TLS settings and HTTP version, in any generation.
pub type PoolKey = u64;

/// The key of origins that share nothing.
pub const NO_POOL: PoolKey = PoolKey::MAX;

/// The pools of one edge thread.
#[derive(Default)]
pub struct Pools {
    idle: RefCell<HashMap<PoolKey, Vec<OriginConnection>>>,
    shared: RefCell<HashMap<PoolKey, Vec<Rc<SharedConnection>>>>,
}

impl Pools {
    /// The connection used last; it is the one least likely to have been closed by the origin.
    pub fn take(&self, key: PoolKey, keep_alive: Duration) -> Option<OriginConnection> {
        let mut idle = self.idle.borrow_mut();
        let stack = idle.get_mut(&key)?;
        let connection = stack.pop()?;
        if connection.idle_since.elapsed() < keep_alive {
            return Some(connection);
        }
        // Everything below is older still.
        stack.clear();
        None
    }

    /// Keeps a connection unless there are `max` already.
    fn put(&self, key: PoolKey, connection: OriginConnection, max: usize) {
        if key == NO_POOL {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let stack = idle.entry(key).or_default();
        if stack.len() < max {
            stack.push(connection);
        }
    }

    /// An HTTP/2 connection with room for one more stream.
    pub fn shared(&self, key: PoolKey) -> Option<Rc<SharedConnection>> {
        let mut shared = self.shared.borrow_mut();
        let connections = shared.get_mut(&key)?;
        connections.retain(|connection| !connection.is_closed());
        connections.iter().find(|connection| connection.has_room()).cloned()
    }

    /// Offers an HTTP/2 connection to later requests.
    pub fn share(&self, key: PoolKey, connection: Rc<SharedConnection>) {
        if key != NO_POOL {
            self.shared.borrow_mut().entry(key).or_default().push(connection);
        }
    }

    /// Closes what has been idle for longer than `limit`; called about once a second.
    pub fn sweep(&self, limit: Duration, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|_, stack| {
            stack.retain(|connection| now.duration_since(connection.idle_since) < limit);
            !stack.is_empty()
        });
        let mut shared = self.shared.borrow_mut();
        shared.retain(|_, connections| {
            connections.retain(|connection| !connection.is_closed() && !connection.is_idle_for(limit, now));
            !connections.is_empty()
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
