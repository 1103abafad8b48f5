//! Whether visitors are served: probes from outside the edge, incidents, a status page, and who is told.
//!
//! It needs nothing of edge or supervisor: what it was told last lies in its own folder, and with that it starts and goes on.

pub mod incident;
pub mod journal;
pub mod notify;
pub mod page;
pub mod probe;
pub mod service;
pub mod view;
pub mod words;
