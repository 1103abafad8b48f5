//! TLS end to end: real handshakes in process and over loopback, and what is refused when a generation is loaded.

mod authority;
mod certificates;
mod clients;
mod fixture;
mod handshake;
mod hello;
mod origin;
mod visitor;
