//! End-to-end tests: the built binary between real servers and real clients, one module per promise.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod broken_config;
mod browser;
mod budgets;
mod certificates;
mod certificates_acme;
mod changes;
mod differential;
mod drills;
mod encryption;
mod events;
mod feeds;
mod footprint;
mod h2_floods;
mod handover;
mod identity;
mod ipv6;
mod journey;
mod kills;
mod memory;
mod modules;
mod origin_limits;
mod origin_refusals;
mod packaging;
mod places;
mod proxy_protocol;
mod proxying;
mod refusals;
mod reload;
mod resilience;
mod rules;
mod shutdown;
mod slowness;
mod stage;
mod supervision;
mod taster;
mod translation;
mod upgrade;
mod watch;

/// Held by tests that load the machine, so that they do not measure or starve each other.
static HEAVY: Mutex<()> = Mutex::new(());

fn heavy() -> MutexGuard<'static, ()> {
    // A failed heavy test leaves nothing behind that the next one could stumble over.
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}
