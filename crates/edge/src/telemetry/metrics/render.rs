//! The Prometheus text format, version 0.0.4: every family in one place, in the order in which it is shown.

use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use api::process::Supervision;
use base::module::Module;

use super::labels::{
    ClientCut, ConnectionRefused, Flood, Handshake, INCOMPLETE, OriginConnection, OriginResult, PROTOCOLS,
    Retry, Wait, status_label,
};
use super::site::{BUCKET_LABELS, OriginCore, SiteCore, SiteTotals};
use super::{Metrics, Shard, connection_slot, lock, process};
use crate::modules::OUTCOMES;

/// Microseconds per second.
const MICROS: f64 = 1e6;

/// One site as it stands during this scrape, so that all families agree.
struct SiteView {
    name: Arc<str>,
    core: Arc<SiteCore>,
    totals: SiteTotals,
    origins: Vec<Arc<OriginCore>>,
}

pub(super) fn render(metrics: &Metrics) -> String {
    let sites: Vec<_> = metrics
        .all_sites()
        .into_iter()
        .map(|(name, core)| SiteView { name, totals: core.totals(), origins: core.origins(), core })
        .collect();
    let mut out = Exposition::default();
    requests(&mut out, &sites);
    durations(&mut out, &sites);
    origins(&mut out, &sites);
    waits(&mut out, &sites);
    connections(&mut out, metrics);
    pressure(&mut out, metrics);
    modules(&mut out, metrics);
    access_log(&mut out, metrics);
    events(&mut out, metrics);
    configuration(&mut out, metrics);
    build_and_process(&mut out, metrics);
    out.text
}

fn requests(out: &mut Exposition, sites: &[SiteView]) {
    out.family("rempart_requests_total", "counter", "Requests finished, by status sent to the client.");
    for site in sites {
        for (protocol, row) in PROTOCOLS.iter().zip(&site.totals.requests) {
            for (slot, &count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
                let status = status_label(slot);
                out.sample(
                    &[("site", &site.name), ("protocol", protocol.name()), ("status", &status)],
                    count,
                );
            }
        }
    }
    out.family("rempart_edge_failures_total", "counter", "Responses the edge made because something failed.");
    for site in sites {
        for (fault, reason, count) in site.core.failures() {
            out.sample(&[("site", &site.name), ("fault", fault.name()), ("reason", reason)], count);
        }
    }
    out.family(
        "rempart_requests_incomplete_total",
        "counter",
        "Requests whose response did not reach its end.",
    );
    for site in sites {
        for (slot, completion) in INCOMPLETE.iter().enumerate() {
            out.sample(
                &[("site", &site.name), ("completion", completion.name())],
                site.core.incomplete(slot),
            );
        }
    }
    out.family("rempart_bytes_in_total", "counter", "Bytes of request bodies received.");
    for site in sites {
        out.sample(&[("site", &site.name)], site.totals.bytes_in);
    }
    out.family("rempart_bytes_out_total", "counter", "Bytes of response bodies sent.");
    for site in sites {
        out.sample(&[("site", &site.name)], site.totals.bytes_out);
    }
}

fn durations(out: &mut Exposition, sites: &[SiteView]) {
    let help = "From the complete request head to the end of the response body; tunnels are left out.";
    out.family("rempart_request_duration_seconds", "histogram", help);
    for site in sites {
        let mut count = 0;
        for (bound, bucket) in BUCKET_LABELS.iter().chain(["+Inf"].iter()).zip(site.totals.durations) {
            count += bucket;
            out.suffixed("_bucket", &[("site", &site.name), ("le", bound)], count);
        }
        out.suffixed("_sum", &[("site", &site.name)], site.totals.duration_us as f64 / MICROS);
        out.suffixed("_count", &[("site", &site.name)], count);
    }
}

fn origins(out: &mut Exposition, sites: &[SiteView]) {
    let each = || sites.iter().flat_map(|site| site.origins.iter().map(move |origin| (&*site.name, origin)));
    out.family("rempart_origin_requests_total", "counter", "Attempts made at origins, by how they ended.");
    for (site, origin) in each() {
        for result in OriginResult::ALL {
            let labels = [("site", site), ("origin", origin.label()), ("result", result.name())];
            out.sample(&labels, origin.requests(*result));
        }
    }
    out.family("rempart_origin_connections_total", "counter", "Connections that attempts at origins used.");
    for (site, origin) in each() {
        for result in OriginConnection::ALL {
            let labels = [("site", site), ("origin", origin.label()), ("result", result.name())];
            out.sample(&labels, origin.connections(*result));
        }
    }
    out.family("rempart_retries_total", "counter", "Retries made, and those that the budget did not allow.");
    for site in sites {
        for retry in Retry::ALL {
            out.sample(&[("site", &site.name), ("result", retry.name())], site.core.retries(*retry));
        }
    }
}

fn waits(out: &mut Exposition, sites: &[SiteView]) {
    let help = "Requests that had to wait for a connection to an origin, by how that ended.";
    out.family("rempart_origin_waits_total", "counter", help);
    for site in sites {
        for wait in Wait::ALL {
            out.sample(&[("site", &site.name), ("result", wait.name())], site.core.waits(*wait));
        }
    }
    out.family("rempart_origin_waiting", "gauge", "Requests that wait for a connection to an origin now.");
    for site in sites {
        out.sample(&[("site", &site.name)], site.core.waiting());
    }
}

fn connections(out: &mut Exposition, metrics: &Metrics) {
    out.family("rempart_client_connections", "gauge", "Client connections open now.");
    out.sample(&[], metrics.open_connections());
    let shards = metrics.all_shards();
    let sum = |read: &dyn Fn(&Shard) -> u64| shards.iter().map(|shard| read(shard)).sum::<u64>();
    let help = "Client connections closed as soon as they were accepted, by what there was too much of.";
    out.family("rempart_connections_refused_total", "counter", help);
    for reason in ConnectionRefused::ALL {
        let count = sum(&|shard| shard.refused.get(reason.index()));
        out.sample(&[("reason", reason.name())], count);
    }
    let help = "Clients cut off because they were too slow, or asked to leave to make room.";
    out.family("rempart_clients_cut_total", "counter", help);
    for reason in ClientCut::ALL {
        out.sample(&[("reason", reason.name())], sum(&|shard| shard.cut.get(reason.index())));
    }
    let help = "Connections of trusted proxies closed because of a bad, missing or late PROXY header.";
    out.family("rempart_proxy_headers_refused_total", "counter", help);
    out.sample(&[], sum(&|shard| shard.introductions_failed.load(Relaxed)));
    out.family("rempart_connections_total", "counter", "Client connections whose protocol became known.");
    for protocol in PROTOCOLS {
        for (tls, name) in [(false, "false"), (true, "true")] {
            let count = sum(&|shard| shard.connections.get(connection_slot(protocol, tls)));
            out.sample(&[("protocol", protocol.name()), ("tls", name)], count);
        }
    }
    out.family("rempart_tls_handshakes_total", "counter", "TLS handshakes with clients, by how they ended.");
    for outcome in Handshake::ALL {
        out.sample(&[("result", outcome.name())], sum(&|shard| shard.handshakes.get(outcome.index())));
    }
    let help = "HTTP/2 connections closed because of a flood, by who sent it and what of.";
    out.family("rempart_http2_floods_total", "counter", help);
    for (side, name) in ["client", "origin"].into_iter().enumerate() {
        for flood in Flood::ALL {
            let count = |shard: &Shard| shard.floods.get(side).map_or(0, |floods| floods.get(flood.index()));
            out.sample(&[("peer", name), ("reason", flood.name())], sum(&count));
        }
    }
}

fn pressure(out: &mut Exposition, metrics: &Metrics) {
    let pressure = metrics.pressure();
    let both = [("memory", pressure.memory()), ("descriptors", pressure.descriptors())];
    let help = "How short the process is: 0 not at all, 1 no new connections, 2 no new requests.";
    out.family("rempart_pressure", "gauge", help);
    for (resource, (level, _)) in &both {
        out.sample(&[("resource", resource)], *level as u8);
    }
    out.family("rempart_resource_limit", "gauge", "Where shortness begins: bytes, or descriptors there are.");
    for (resource, (_, usage)) in &both {
        if let Some(limit) = usage.limit {
            out.sample(&[("resource", resource)], limit);
        }
    }
}

fn modules(out: &mut Exposition, metrics: &Metrics) {
    let shards = metrics.all_shards();
    out.family("rempart_module_outcomes_total", "counter", "What modules said of requests.");
    for module in Module::ALL {
        for (slot, (outcome, reason)) in OUTCOMES.iter().enumerate() {
            let each = shards.iter().filter_map(|shard| shard.modules.get(module.index()));
            let count: u64 = each.map(|counters| counters.get(slot)).fold(0, u64::wrapping_add);
            if count > 0 {
                out.sample(&[("module", module.name()), ("outcome", outcome), ("reason", reason)], count);
            }
        }
    }
    let Some(state) = metrics.modules.get() else { return };
    out.family(
        "rempart_module_breakers_open",
        "gauge",
        "Sites at which a module is passed over because it fails.",
    );
    for module in Module::ALL {
        let open = state.open_count(module);
        if open > 0 || Module::BUILT_IN.contains(&module) {
            out.sample(&[("module", module.name())], open);
        }
    }
    out.family(
        "rempart_module_switches",
        "gauge",
        "Switches by which a module is off, everywhere or at one site.",
    );
    let switches = state.switches();
    for module in Module::ALL {
        let count = switches.iter().filter(|switch| switch.module == module.name()).count();
        if count > 0 {
            out.sample(&[("module", module.name())], count);
        }
    }
}

fn access_log(out: &mut Exposition, metrics: &Metrics) {
    out.family("rempart_access_log_lines_total", "counter", "Access log lines written.");
    out.sample(&[], metrics.log.written());
    out.family("rempart_access_log_dropped_total", "counter", "Access log lines lost, by why.");
    for (reason, count) in metrics.log.dropped() {
        out.sample(&[("reason", reason)], count);
    }
}

fn events(out: &mut Exposition, metrics: &Metrics) {
    out.family("rempart_events_sent_total", "counter", "Requests that analytics was told of.");
    out.sample(&[], metrics.events.sent());
    out.family("rempart_events_dropped_total", "counter", "Requests that analytics was not told of, by why.");
    for (reason, count) in metrics.events.dropped() {
        out.sample(&[("reason", reason)], count);
    }
}

/// Told by the supervisor, so that they survive the processes they are about.
fn supervision(out: &mut Exposition, seen: &Supervision) {
    out.family(
        "rempart_edge_replaced_total",
        "counter",
        "Edge processes replaced, by what was wrong with them.",
    );
    out.sample(&[("reason", "ended")], seen.crashes);
    out.sample(&[("reason", "hung")], seen.hangs);
    out.family("rempart_upgrades_total", "counter", "Upgrades tried, by outcome.");
    out.sample(&[("outcome", "done")], seen.upgrades);
    out.sample(&[("outcome", "taken_back")], seen.upgrades_reverted);
    out.family("rempart_tastes_refused_total", "counter", "Generations that were tried and refused.");
    out.sample(&[], seen.tastes_refused);
    out.family("rempart_standby_ready", "gauge", "Whether a process waits to take over.");
    out.sample(&[], u8::from(seen.standby));
}

fn configuration(out: &mut Exposition, metrics: &Metrics) {
    let state = lock(&metrics.state);
    if let Some((number, id)) = state.generation {
        out.family("rempart_generation", "gauge", "The generation in force: its number and content hash.");
        out.sample(&[("number", &number.to_string()), ("id", &id.to_string())], 1);
    }
    if let Some((success, at)) = state.reload {
        let help = "Whether the configuration was taken when it was last read.";
        out.family("rempart_config_last_reload_success", "gauge", help);
        out.sample(&[], u8::from(success));
        let help = "When the configuration was last read, as Unix time.";
        out.family("rempart_config_last_reload_timestamp_seconds", "gauge", help);
        out.sample(&[], at.0 as f64 / MICROS);
    }
    if let Some(seen) = &state.supervision {
        supervision(out, seen);
    }
    out.family(
        "rempart_certificate_expiry_seconds",
        "gauge",
        "When the site's certificate ends, as Unix time.",
    );
    for (site, expiry) in &state.certificates {
        out.sample(&[("site", site)], expiry.seconds());
    }
}

fn build_and_process(out: &mut Exposition, metrics: &Metrics) {
    out.family("rempart_build_info", "gauge", "The version that runs.");
    out.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    out.family("process_start_time_seconds", "gauge", "When the process started, as Unix time.");
    out.sample(&[], metrics.started.0 as f64 / MICROS);
    if let Some(bytes) = process::resident_bytes() {
        out.family("process_resident_memory_bytes", "gauge", "Resident memory.");
        out.sample(&[], bytes);
    }
    if let Some(count) = process::open_descriptors() {
        out.family("process_open_fds", "gauge", "Open file descriptors.");
        out.sample(&[], count);
    }
    if let Some(count) = process::max_descriptors() {
        out.family("process_max_fds", "gauge", "Open file descriptors the process may have.");
        out.sample(&[], count);
    }
    if let Some(seconds) = process::cpu_seconds() {
        out.family("process_cpu_seconds_total", "counter", "User and system time used.");
        out.sample(&[], seconds);
    }
}

/// Text being written; samples belong to the family begun last.
#[derive(Default)]
struct Exposition {
    text: String,
    family: &'static str,
}

impl Exposition {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.suffixed("", labels, value);
    }

    fn suffixed(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        for (index, (name, text)) in labels.iter().enumerate() {
            self.put(format_args!("{}{name}=\"", if index == 0 { '{' } else { ',' }));
            self.escaped(text);
            self.text.push('"');
        }
        self.put(format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
    }

    fn escaped(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
    }

    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        self.text.write_fmt(arguments).unwrap_or_default();
    }
}
