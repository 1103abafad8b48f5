//! What tests outside the binary share: starting and stopping it, origins that record every byte, clients that
//! check every byte, foreign servers, certificates and paced traffic. Everything stays on loopback addresses.

pub mod certificates;
pub mod client;
pub mod companions;
pub mod config;
pub mod curl;
pub mod frames;
pub mod http2;
pub mod load;
pub mod memory;
pub mod origin;
pub mod pebble;
pub mod places;
pub mod ports;
pub mod process;
pub mod rempart;
pub mod servers;
pub mod tools;
pub mod traffic;
pub mod websocket;
pub mod wire;

use std::time::Duration;

/// How long anything is waited for before a test fails. A guard against hanging, never a measurement.
pub const PATIENCE: Duration = Duration::from_secs(30);
