//! The generation of last resort: no site, no file, nothing that could fail; every request gets a 503.

use std::net::SocketAddr;

use api::roles::WatchSettings;
use base::address::PrefixSet;
use base::id::ContentHash;

use super::analytics::kept;
use crate::desired::{self, Desired};
use crate::generation::{AccessLog, AccessLogTarget, ClientIpDetail, HostTable, Listener, Snapshot};
use crate::lists::Lists;

/// Names the encoding that is hashed into the identity of compiled-in defaults.
const IDENTITY: &[u8] = b"rempart defaults 1";

/// Compiled-in defaults on these addresses, each with whether it has TLS: for when no generation can be used.
pub fn defaults(listeners: &[(SocketAddr, bool)]) -> Snapshot {
    let desired = Desired::default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(IDENTITY);
    for (address, tls) in listeners {
        // Both texts are of fixed alphabets without these separators.
        hasher.update(format!("\n{address} {tls}").as_bytes());
    }
    let listener = |(index, (address, tls)): (usize, &(SocketAddr, bool))| Listener {
        address: *address,
        tls: *tls,
        // Nobody is trusted, so nobody would be read a header from.
        proxy_protocol: false,
        place: format!("listen[{index}].address"),
    };
    Snapshot {
        id: ContentHash(*hasher.finalize().as_bytes()),
        listeners: listeners.iter().enumerate().map(listener).collect(),
        metrics: None,
        sites: Vec::new(),
        hosts: HostTable::default(),
        trusted_proxies: PrefixSet::default(),
        via: desired.via.as_str().into(),
        limits: (&desired.limits).into(),
        access_log: no_log(&desired.log.access),
        // Its requests are worth telling of like any others.
        analytics: kept(&desired.analytics),
        // A status page, and who is told, stay as they were: never are they needed more.
        watch: Some(WatchSettings { as_before: true, ..WatchSettings::default() }),
        lists: Lists::default(),
        feeds: Vec::new(),
        drain: (&desired.drain).into(),
        standby: desired.standby,
        bake: desired.bake.into(),
        acme: None,
        is_defaults: true,
    }
}

fn no_log(log: &desired::AccessLog) -> AccessLog {
    AccessLog {
        to: AccessLogTarget::Off,
        client_ip: ClientIpDetail::None,
        retention: log.retention.into(),
        rotate_bytes: log.rotate.get(),
    }
}
