//! Keeper of certificates: gets them from authorities by ACME (RFC 8555), renews them in time, and keeps them in the state folder.
//!
//! [`Keeper::run`] is the narrator: settings and commands come in, what the planner finds due is ordered, what comes back is
//! stored and remembered. An authority may do what it likes; the certificate at hand stays until a better one is stored.

mod account;
mod board;
mod certificate;
mod dns;
mod failure;
mod history;
mod http;
mod keeper;
mod name;
mod order;
mod pace;
mod plan;
mod status;
mod store;

pub use board::{PublishError, Publisher};
pub use certificate::{CertificateError, Facts};
pub use dns::{DnsError, DnsProgram, DnsPublisher};
pub use history::{History, Issued, Pause, Window};
pub use keeper::{Clock, Command, Keeper};
pub use name::{BadName, Name};
pub use order::Reason;
pub use pace::Pace;
pub use status::{KeptStatus, read_status};
pub use store::{FileStore, Store, StoreError, certificate_path, certificates_folder};
