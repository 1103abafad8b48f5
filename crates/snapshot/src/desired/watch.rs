//! Whether visitors are served, and who is told, as it is configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Period;

/// Whether visitors are served, and who is told when they are not. A process of its own asks the sites from outside, keeps the
/// incidents that `rempart incidents` lists, serves a status page and sends notifications; it goes on when everything else is
/// gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    /// Whether it runs at all.
    pub enabled: bool,
    /// Where the status page is served over plain HTTP, such as `"127.0.0.1:9180"`, or `"off"`. Whoever can reach it can read
    /// it.
    #[schemars(example = "127.0.0.1:9180")]
    pub listen: String,
    /// Where people find the status page, for links in notifications. Left out, `http://` and `listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "https://status.example.org/")]
    pub url: Option<String>,
    /// Title of the status page; notifications begin with it.
    pub title: String,
    /// How sites are asked.
    pub probe: Probe,
    /// Who is told of incidents. Write one `[[watch.notify]]` for each way; with two of different kinds, one may fail.
    #[schemars(length(max = 16))]
    pub notify: Vec<Notify>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: "off".to_owned(),
            url: None,
            title: "Rempart".to_owned(),
            probe: Probe::default(),
            notify: Vec::new(),
        }
    }
}

/// How sites (the first 1,000) are asked: each at every listener, over HTTP/1.1, by the name of its first host. Three failures in a row are an
/// incident, two answers in a row its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// Whether they are asked.
    pub enabled: bool,
    /// Time between two visits to a site.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1h"))]
    pub every: Period,
    /// What is asked for. `/.rempart/trace` is answered by Rempart itself; any other path, such as `/`, also shows whether the
    /// site's origins answer.
    #[schemars(example = "/")]
    pub path: String,
}

impl Default for Probe {
    fn default() -> Self {
        Self { enabled: true, every: Period::seconds(30), path: "/.rempart/trace".to_owned() }
    }
}

/// Somebody who is told, by a webhook or by mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// What the status page and logs call it; each has a name of its own.
    #[schemars(example = &"pager")]
    pub name: String,
    /// A URL that takes JSON, `https` or on a loopback address `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "https://hooks.example/incidents")]
    pub webhook: Option<String>,
    /// The key with which webhooks are signed (HMAC-SHA256). Left out, they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// A mail server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<Smtp>,
}

/// A mail server, who writes and who reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// Name of the server, which its certificate must have.
    #[schemars(example = "mail.example.org")]
    pub host: String,
    /// Its port. Left out, 587, with `security = "tls"` 465, with `"none"` 25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,
    /// How the connection is protected.
    #[serde(default)]
    pub security: SmtpSecurity,
    /// Who logs in. Left out, nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The sender.
    #[schemars(example = "Rempart <rempart@example.org>")]
    pub from: String,
    /// The recipients; at least one.
    #[schemars(extend("examples" = [["ops@example.org"]]))]
    #[schemars(length(min = 1, max = 32))]
    pub to: Vec<String>,
}

/// How the connection to a mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SmtpSecurity {
    /// TLS after STARTTLS; a server that does not offer it gets no mail.
    #[default]
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// None; for a server on a loopback address only.
    None,
}

/// Where a secret lies, so that it stands in no configuration: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Secret {
    /// A file that holds it and nothing else, relative to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "secrets/webhook")]
    pub file: Option<String>,
    /// An environment variable of the process that Rempart was started as.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"REMPART_WEBHOOK_SECRET")]
    pub env: Option<String>,
}
