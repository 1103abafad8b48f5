//! TLS end to end: real handshakes in process and over loopback, and what is refused when a generation is loaded.

mod acme;
mod authority;
mod certificates;
mod challenges;
mod client_auth;
mod clients;
mod fixture;
mod handshake;
mod hello;
mod ocsp;
mod origin;
mod status;
mod tickets;
mod visitor;
