//! The edge: listeners, TLS, HTTP/1 and HTTP/2, the request pipeline and the way to the origins.
//!
//! `Edge` owns the edge threads. A generation comes in through `generation::Loader`, is put in force by an `Arc` swap,
//! and every request keeps the one it began with.

mod accept;
pub mod artefacts;
pub mod bans;
mod body_limit;
pub mod compress;
pub mod connection;
pub mod deferred;
mod edge;
pub mod failure;
#[cfg(feature = "faults")]
pub mod fault;
pub mod forwarded;
mod gate;
pub mod generation;
pub mod h1;
pub mod h2;
pub mod hop;
mod inspect;
pub mod io;
pub mod lists;
pub mod message;
pub mod modules;
pub mod normalise;
mod pace;
pub mod pages;
pub mod path;
pub mod pipeline;
pub mod pressure;
pub mod probe;
pub mod proxy_protocol;
pub mod rehearsal;
pub mod rules;
pub mod seats;
pub mod sources;
mod splice;
pub mod telemetry;
pub mod tls;
pub mod trace;
pub mod trail;
pub mod upstream;
mod visitor;
pub mod worker;

pub use edge::{BoundListener, Edge, EdgeOptions, ListenerSet};

/// Lets a result go on purpose; a comment at the call says why.
pub(crate) fn ignore<T>(_: T) {}
