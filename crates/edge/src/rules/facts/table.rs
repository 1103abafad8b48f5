//! Which function answers for which field. A field that is not here is Unknown: nobody computes it yet.

use std::sync::LazyLock;

use base::event::Protocol;
use expr::{Array, Fetched, FieldId, Map, Value, fields};
use snapshot::geo::PlaceText;

use super::client::known;
use super::multipart::{Multipart, Said};
use super::{Facts, text};
use crate::forwarded::Scheme;

/// Reads one field.
pub type Read = for<'f, 'r> fn(&'f Facts<'r>) -> Fetched<'f>;

static TABLE: LazyLock<Vec<Option<Read>>> =
    LazyLock::new(|| fields::all().map(|(_, field)| named(field.name)).collect());

/// The function of a field; `None` for those of responses, and those nobody computes.
pub fn of(field: FieldId) -> Option<Read> {
    TABLE.get(field.index()).copied().flatten()
}

fn bool(value: bool) -> Fetched<'static> {
    Fetched::Value(Value::Bool(value))
}

fn int(value: impl Into<i64>) -> Fetched<'static> {
    Fetched::Value(Value::Int(value.into()))
}

fn strings(list: &Vec<Vec<u8>>) -> Fetched<'_> {
    Fetched::Value(Value::Array(Array::Kept(list)))
}

fn grouped(pairs: &Vec<(Vec<u8>, Vec<u8>)>) -> Fetched<'_> {
    Fetched::Value(Value::Map(Map::Grouped(pairs)))
}

/// What each part of a form in parts says of one thing.
fn said<'f>(facts: &'f Facts<'_>, read: fn(&Multipart) -> &Said) -> Fetched<'f> {
    facts
        .body_multipart()
        .map_or(Fetched::Unknown, |parts| Fetched::Value(Value::Array(Array::Kept(read(parts)))))
}

fn named(name: &str) -> Option<Read> {
    request(name)
        .or_else(|| received(name))
        .or_else(|| connection(name))
        .or_else(|| tls(name))
        .or_else(|| place(name))
        .or_else(|| body(name))
}

fn request(name: &str) -> Option<Read> {
    Some(match name {
        "http.cookie" => |facts| facts.joined(b"cookie", b"; ", &facts.fields().cookie),
        "http.host" => |facts| text(facts.host().as_bytes()),
        "http.referer" => |facts| facts.line(b"referer"),
        "http.user_agent" => |facts| facts.line(b"user-agent"),
        "http.x_forwarded_for" => {
            |facts| facts.joined(b"x-forwarded-for", b", ", &facts.fields().forwarded_for)
        }
        "http.request.full_uri" => |facts| text(facts.full_uri().as_bytes()),
        "http.request.method" => |facts| text(facts.head.method.as_str().as_bytes()),
        "http.request.version" => |facts| {
            text(match facts.head.protocol {
                Protocol::Http10 => b"HTTP/1.0",
                Protocol::Http11 => b"HTTP/1.1",
                Protocol::Http2 => b"HTTP/2",
            })
        },
        "http.request.uri" => |facts| text(facts.target().as_bytes()),
        "http.request.uri.path" => |facts| text(facts.path().as_bytes()),
        "http.request.uri.path.extension" => |facts| facts.extension(facts.url(), facts.target()),
        "http.request.uri.query" => |facts| text(facts.query().as_bytes()),
        "http.request.uri.args" => |facts| grouped(&facts.args(facts.url(), facts.target()).pairs),
        "http.request.uri.args.names" => |facts| strings(&facts.args(facts.url(), facts.target()).names),
        "http.request.uri.args.values" => |facts| strings(&facts.args(facts.url(), facts.target()).values),
        "http.request.headers" => |facts| grouped(&facts.headers().pairs),
        "http.request.headers.names" => |facts| strings(&facts.headers().names),
        "http.request.headers.values" => |facts| strings(&facts.headers().values),
        // A head with more fields than are kept is refused before any rule sees it.
        "http.request.headers.truncated" => |_| bool(false),
        "http.request.cookies" => |facts| grouped(facts.cookies()),
        "http.request.accepted_languages" => |facts| strings(facts.languages()),
        "http.request.timestamp.sec" => {
            |facts| i64::try_from(facts.surroundings.at.seconds()).map_or(Fetched::Unknown, int)
        }
        "http.request.timestamp.msec" => {
            |facts| i64::try_from(facts.surroundings.at.0 / 1000 % 1000).map_or(Fetched::Unknown, int)
        }
        _ => return None,
    })
}

fn received(name: &str) -> Option<Read> {
    Some(match name {
        "raw.http.request.full_uri" => |facts| {
            let full = || facts.full(facts.target_received());
            text(facts.url_received().full.get_or_init(full).as_bytes())
        },
        "raw.http.request.uri" => |facts| text(facts.target_received().as_bytes()),
        "raw.http.request.uri.path" => |facts| text(super::split(facts.target_received()).0.as_bytes()),
        "raw.http.request.uri.path.extension" => {
            |facts| facts.extension(facts.url_received(), facts.target_received())
        }
        "raw.http.request.uri.query" => |facts| text(super::split(facts.target_received()).1.as_bytes()),
        "raw.http.request.uri.args" => {
            |facts| grouped(&facts.args(facts.url_received(), facts.target_received()).pairs)
        }
        "raw.http.request.uri.args.names" => {
            |facts| strings(&facts.args(facts.url_received(), facts.target_received()).names)
        }
        "raw.http.request.uri.args.values" => {
            |facts| strings(&facts.args(facts.url_received(), facts.target_received()).values)
        }
        _ => return None,
    })
}

fn connection(name: &str) -> Option<Read> {
    Some(match name {
        "ip.src" => |facts| Fetched::Value(Value::Ip(facts.address())),
        "ssl" => |facts| bool(facts.surroundings.scheme == Scheme::Https),
        "tcp.dstport" | "cf.edge.server_port" => |facts| int(facts.surroundings.link.local().port()),
        "cf.edge.server_ip" => {
            |facts| Fetched::Value(Value::Ip(base::address::canonical(facts.surroundings.link.local().ip())))
        }
        "cf.edge.client_tcp" => |_| bool(true),
        "cf.timings.client_tcp_rtt_msec" => |facts| {
            let time = facts.surroundings.link.path().round_trip;
            time.and_then(|time| i64::try_from(time.as_millis()).ok()).map_or(Fetched::Unknown, int)
        },
        "cf.edge.l4.delivery_rate" => |facts| {
            let rate = facts.surroundings.link.path().delivery_rate;
            rate.and_then(|rate| i64::try_from(rate).ok()).map_or(Fetched::Unknown, int)
        },
        // There is no QUIC, and no score any more.
        "cf.timings.client_quic_rtt_msec" | "cf.threat_score" => |_| int(0),
        "cf.ray_id" => |facts| facts.ray(),
        "cf.random_seed" => |facts| facts.seed(),
        "cf.zone.name" => |facts| text(facts.surroundings.site.site.name.as_bytes()),
        // No scripts of others make requests here, and nothing is noted about host names.
        "cf.worker.upstream_zone" | "cf.hostname.metadata" => |_| text(b""),
        _ => return None,
    })
}

fn tls(name: &str) -> Option<Read> {
    let name = name.strip_prefix("cf.")?;
    Some(match name {
        "tls_version" => |facts| facts.tls_version(),
        "tls_cipher" => |facts| facts.tls_cipher(),
        "tls_ciphers_sha1" => |facts| facts.hello_text(|hashes| &hashes.ciphers_sha1),
        "tls_client_extensions_sha1" => |facts| facts.hello_text(|hashes| &hashes.extensions_sha1),
        "tls_client_extensions_sha1_le" => |facts| facts.hello_text(|hashes| &hashes.extensions_sha1_le),
        "tls_client_hello_length" => |facts| facts.hello_length(),
        "tls_client_random" => |facts| facts.hello_random(),
        "bot_management.ja3_hash" => |facts| facts.hello_text(|hashes| &hashes.ja3),
        "bot_management.ja4" => |facts| facts.ja4(),
        // A handshake with a certificate that is not good fails, so what is presented is verified. There is no list of revoked ones.
        "tls_client_auth.cert_presented" | "tls_client_auth.cert_verified" => {
            |facts| bool(facts.certificate().is_some())
        }
        "tls_client_auth.cert_revoked" => {
            |facts| if facts.certificate().is_some() { Fetched::Unknown } else { bool(false) }
        }
        "tls_client_auth.cert_serial" => |facts| facts.certificate_text(|found| &found.serial),
        "tls_client_auth.cert_issuer_serial" => {
            |facts| facts.certificate_text(|found| found.issuer_serial.as_deref().unwrap_or_default())
        }
        "tls_client_auth.cert_fingerprint_sha1" => |facts| facts.certificate_text(|found| &found.sha1),
        "tls_client_auth.cert_fingerprint_sha256" => |facts| facts.certificate_text(|found| &found.sha256),
        "tls_client_auth.cert_issuer_dn" | "tls_client_auth.cert_issuer_dn_rfc2253" => {
            |facts| facts.certificate_text(|found| &found.issuer.rfc2253)
        }
        "tls_client_auth.cert_issuer_dn_legacy" => {
            |facts| facts.certificate_text(|found| &found.issuer.slashes)
        }
        "tls_client_auth.cert_subject_dn" | "tls_client_auth.cert_subject_dn_rfc2253" => {
            |facts| facts.certificate_text(|found| &found.subject.rfc2253)
        }
        "tls_client_auth.cert_subject_dn_legacy" => {
            |facts| facts.certificate_text(|found| &found.subject.slashes)
        }
        "tls_client_auth.cert_not_before" => |facts| facts.not_before(),
        "tls_client_auth.cert_not_after" => |facts| facts.not_after(),
        "tls_client_auth.cert_rfc9440" => {
            |facts| facts.certificate_text(|found| found.encoded.as_deref().unwrap_or_default())
        }
        "tls_client_auth.cert_chain_rfc9440" => {
            |facts| facts.certificate_text(|found| found.encoded_chain.as_deref().unwrap_or_default())
        }
        "tls_client_auth.cert_rfc9440_too_large" => {
            |facts| bool(facts.certificate().is_some_and(|found| found.encoded.is_none()))
        }
        "tls_client_auth.cert_chain_rfc9440_too_large" => {
            |facts| bool(facts.certificate().is_some_and(|found| found.encoded_chain.is_none()))
        }
        "tls_client_auth.cert_ski" => {
            |facts| facts.certificate_text(|found| found.key_identifier.as_deref().unwrap_or_default())
        }
        "tls_client_auth.cert_issuer_ski" => {
            |facts| facts.certificate_text(|found| found.issuer_key_identifier.as_deref().unwrap_or_default())
        }
        _ => return None,
    })
}

fn place(name: &str) -> Option<Read> {
    let name = name.strip_prefix("ip.src.")?;
    Some(match name {
        "country" => |facts| known(facts.lists.country(facts.address())),
        "continent" => |facts| facts.place(PlaceText::Continent),
        "asnum" => |facts| facts.lists.system(facts.address()).map_or(Fetched::Unknown, int),
        "city" => |facts| facts.place(PlaceText::City),
        "region" => |facts| facts.place(PlaceText::Region),
        "region_code" | "subdivision_1_iso_code" => |facts| facts.place(PlaceText::RegionCode),
        "subdivision_2_iso_code" => |facts| facts.place(PlaceText::SecondRegionCode),
        "postal_code" => |facts| facts.place(PlaceText::PostalCode),
        "metro_code" => |facts| facts.metro(),
        "lat" => |facts| facts.latitude(),
        "lon" => |facts| facts.longitude(),
        "timezone.name" => |facts| facts.place(PlaceText::TimeZone),
        "is_in_european_union" => {
            |facts| facts.lists.in_european_union(facts.address()).map_or(Fetched::Unknown, bool)
        }
        _ => return None,
    })
}

fn body(name: &str) -> Option<Read> {
    let name = name.strip_prefix("http.request.body.")?;
    Some(match name {
        "raw" => |facts| facts.body_raw(),
        "truncated" => |facts| facts.body_truncated(),
        "size" => |facts| facts.body_size(),
        "mime" => |facts| facts.body_mime(),
        "form" => |facts| facts.body_form().map_or(Fetched::Unknown, |form| grouped(&form.pairs)),
        "form.names" => |facts| facts.body_form().map_or(Fetched::Unknown, |form| strings(&form.names)),
        "form.values" => |facts| facts.body_form().map_or(Fetched::Unknown, |form| strings(&form.values)),
        "multipart" => |facts| {
            let Some(parts) = facts.body_multipart() else { return Fetched::Unknown };
            Fetched::Value(Value::Map(Map::Grouped(&parts.pairs)))
        },
        "multipart.values" => |facts| {
            let Some(parts) = facts.body_multipart() else { return Fetched::Unknown };
            Fetched::Value(Value::Array(Array::Kept(&parts.values)))
        },
        "multipart.names" => |facts| said(facts, |parts| &parts.names),
        "multipart.filenames" => |facts| said(facts, |parts| &parts.filenames),
        "multipart.content_types" => |facts| said(facts, |parts| &parts.content_types),
        "multipart.content_dispositions" => |facts| said(facts, |parts| &parts.content_dispositions),
        "multipart.content_transfer_encodings" => {
            |facts| said(facts, |parts| &parts.content_transfer_encodings)
        }
        _ => return None,
    })
}
