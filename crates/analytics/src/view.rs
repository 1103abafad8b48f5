//! Request events from their wire form to the form that people and scripts see.

use api::analytics::{RequestView, VerdictView};
use base::event::wire::Record;

/// The same, with text of its own.
pub fn of_record(record: &Record<'_>) -> RequestView {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let verdict = |noted: &base::event::wire::NotedRecord<'_>| VerdictView {
        module: noted.module.to_owned(),
        outcome: noted.outcome.to_owned(),
        reason: noted.reason.to_owned(),
    };
    RequestView {
        id: record.id.to_owned(),
        at: record.at,
        network: record.network.to_string(),
        protocol: record.protocol.name().to_owned(),
        tls: text(record.tls_version.map(base::event::TlsVersion::name)),
        ja4: text(record.ja4),
        introduction: text(record.introduction),
        method: record.method.to_owned(),
        host: record.host.to_owned(),
        target: record.target.to_owned(),
        site: text(record.site),
        generation: record.generation,
        verdicts: record.verdicts.iter().map(verdict).collect(),
        status: record.status,
        fault: text(record.fault.map(base::event::Fault::name)),
        reason: text(record.reason),
        origin: text(record.origin),
        origin_protocol: text(record.origin_protocol.map(base::event::Protocol::name)),
        attempts: record.attempts,
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        origin_wait_us: record.origin_wait_us,
        duration_us: record.duration_us,
        completion: record.completion.name().to_owned(),
        user_agent: text(record.user_agent),
        referer: text(record.referer),
        weight: record.weight,
    }
}
