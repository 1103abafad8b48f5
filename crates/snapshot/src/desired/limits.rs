//! Limits of a site, as they are configured.

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
