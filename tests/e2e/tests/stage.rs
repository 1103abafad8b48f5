//! What the tests of the process model share: the site they watch, its configuration, and how much of it all is done.

use std::net::SocketAddr;

use harness::companions::Host;
use harness::config::Config;
use harness::load::{Load, Pace, Target};
use harness::ports;
use harness::rempart::Rempart;

/// The host everything is asked of.
pub const HOST: &str = "steady.test";
/// Connections that are busy have longer than any test takes; idle ones are closed while the test runs.
/// All of the load comes from one address, so that has no budget.
pub const PATIENT: &str = "[drain]\nidle = \"5s\"\nrequests = \"10m\"\ntunnels = \"10m\"\n[limits]\n\
connections_per_address = 1_000_000\nconnection_rate_per_address = 1_000_000\nhandshakes_per_address = 1_000_000";

/// `few`, or `many` with `REMPART_LONG=1`: the numbers of issue 3, for a machine with an hour to spare.
pub fn times(few: usize, many: usize) -> usize {
    if std::env::var_os("REMPART_LONG").is_some_and(|value| value == "1") { many } else { few }
}

/// What the bars of issue 3 are measured under.
pub const FULL: Pace = Pace::Open { per_second: 1000 };
/// For tests in which the load is the witness and not the trial.
pub const LIGHT: Pace = Pace::Open { per_second: 100 };

/// A plain and a TLS address that stay the same over restarts.
#[derive(Clone, Copy, Debug)]
pub struct Addresses(pub [SocketAddr; 2]);

impl Addresses {
    /// Free ones.
    pub fn free() -> Self {
        Self(std::array::from_fn(|_| SocketAddr::from(([127, 0, 0, 1], ports::free()))))
    }

    /// Adds them as listeners.
    pub fn listeners(self, config: Config) -> Config {
        config.listen(&self.0[0].to_string(), false).listen(&self.0[1].to_string(), true)
    }
}

/// The site with patient drains, on these addresses.
pub fn config_on(addresses: Addresses, host: &Host) -> Config {
    addresses.listeners(Config::new().raw(PATIENT)).site("steady", &[HOST]).origin(host.url())
}

/// The site with patient drains, on addresses the system chooses.
pub fn config(host: &Host) -> Config {
    Config::new().raw(PATIENT).listeners().site("steady", &[HOST]).origin(host.url())
}

/// Load on the site, once it has found its feet.
pub fn load(rempart: &Rempart, pace: Pace) -> Load {
    let load = Load::start(&Target::of(rempart, HOST), pace);
    load.wait_for(100);
    load
}
