//! Origins: which one to ask, whether it may be asked, how to reach it.

pub mod balance;
pub mod budget;
pub mod connect;
pub mod health;
pub mod resolve;
