//! Limits of a site and how it spells paths, as they are configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, OptionalSize, Period};

/// Limits that hold for this site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SiteLimits {
    /// Size of a request's body, or `"none"` for no limit.
    #[schemars(extend("x-maximum" = "1024TiB"))]
    pub body_bytes: OptionalSize,
    /// Time between two pieces of a request's body, and to be behind with `body_rate`.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1d"))]
    pub body: Period,
    /// Bytes per second a request's body has to bring on average, while the origin takes them; or `"none"`. Does not hold
    /// for WebSockets and gRPC calls. The streams of an HTTP/2 connection share it.
    #[schemars(extend("x-minimum" = "1B", "x-maximum" = "1GiB"))]
    pub body_rate: OptionalSize,
    /// Time a WebSocket, or another upgraded connection, may be silent.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "30d"))]
    pub tunnel: Period,
    /// How much of a request's body rules look into, held in memory while they do. Of bodies that are longer they see the
    /// beginning. Only where a rule asks for a body.
    #[schemars(extend("x-minimum" = "1KiB", "x-maximum" = "1MiB"))]
    pub inspect_body: ByteSize,
}

impl Default for SiteLimits {
    fn default() -> Self {
        Self {
            body_bytes: OptionalSize(None),
            body: Period::seconds(60),
            body_rate: OptionalSize(Some(ByteSize::bytes(512))),
            tunnel: Period::seconds(600),
            inspect_body: ByteSize::bytes(128 << 10),
        }
    }
}

/// How paths are spelled before rules see them, so that nobody slips past a rule by writing `/x/../admin` or `/%61dmin`.
/// `raw.` fields keep what came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Normalize {
    /// How they are spelled.
    #[serde(rename = "type")]
    pub way: NormalizeType,
    /// Who sees them so.
    pub scope: NormalizeScope,
}

impl Default for Normalize {
    fn default() -> Self {
        Self { way: NormalizeType::Cloudflare, scope: NormalizeScope::Incoming }
    }
}

/// How paths are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NormalizeType {
    /// By RFC 3986, backslashes as slashes and several slashes as one.
    Cloudflare,
    /// By RFC 3986: percent-encoding in its one form, without `.` and `..`.
    Rfc3986,
}

/// Who sees paths in their one spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NormalizeScope {
    /// Rules; the origin gets them as they came.
    Incoming,
    /// Rules and the origin.
    Both,
    /// Nobody.
    None,
}
