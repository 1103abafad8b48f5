//! Towards the origins: choose one, get a connection, send, and try again only where that is safe.

pub mod balance;
pub mod budget;
pub mod connect;
pub mod deliver;
pub mod health;
pub mod pool;
pub mod resolve;
pub mod room;
pub mod transport;
