//! Why an order, a revocation or an account failed, and whose fault that is.

use std::time::Duration;

use instant_acme::{Error, Problem};

use crate::board::PublishError;
use crate::certificate::CertificateError;
use crate::dns::DnsError;
use crate::http::{ClientError, Refusal, is_type};
use crate::plan::Fault;
use crate::store::StoreError;

/// Why an attempt failed. Its text is for people: it stands in `rempart certs`.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The authority cannot be reached or does not work.
    #[error("the authority does not work: {reason}")]
    Authority {
        /// Why.
        reason: String,
        /// Its Retry-After.
        wait: Option<Duration>,
    },
    /// The authority has had too many requests.
    #[error("the authority has a limit of requests that is reached: {reason}")]
    RateLimited {
        /// Its words.
        reason: String,
        /// Its Retry-After.
        wait: Option<Duration>,
        /// Whether it said so before any name was mentioned.
        everywhere: bool,
    },
    /// The authority will not sign for this name.
    #[error("{0}")]
    Refused(String),
    /// A setting is unusable.
    #[error("{0}")]
    Setting(String),
    /// What the authority sent is not what was asked for.
    #[error("the certificate that came cannot be used: {0}")]
    Certificate(#[from] CertificateError),
    /// The edge does not show the challenge.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The TXT record is not there.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// What was obtained cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A step took too long.
    #[error("{0} took too long")]
    Timeout(&'static str),
    /// A key or request cannot be made.
    #[error("a key or request cannot be made: {0}")]
    Crypto(#[from] rcgen::Error),
}

impl OrderError {
    /// Who has to wait.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Authority { wait, .. } => Fault::Authority { wait: *wait },
            Self::RateLimited { wait, everywhere, .. } => {
                Fault::RateLimited { wait: *wait, everywhere: *everywhere }
            }
            Self::Certificate(_) => Fault::Authority { wait: None },
            Self::Refused(_) | Self::Timeout(_) => Fault::Name,
            Self::Setting(_) | Self::Publish(_) | Self::Dns(_) | Self::Store(_) | Self::Crypto(_) => {
                Fault::Local
            }
        }
    }

    /// A failure before any name was mentioned: reaching the directory, making the account.
    pub(crate) fn of_account(error: Error) -> Self {
        match Self::of(error) {
            Self::RateLimited { reason, wait, .. } => Self::RateLimited { reason, wait, everywhere: true },
            Self::Refused(reason) => Self::Authority { reason: format!("no account: {reason}"), wait: None },
            other => other,
        }
    }

    /// A failure while ordering.
    pub(crate) fn of(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::of_problem(&problem),
            Error::Timeout(_) => Self::Timeout("the authority's check"),
            Error::Other(inner) => match inner.downcast::<Refusal>() {
                Ok(refusal) if refusal.rate_limited => {
                    let wait = refusal.retry_after;
                    Self::RateLimited { reason: refusal.to_string(), wait, everywhere: false }
                }
                Ok(refusal) => Self::Authority { reason: refusal.to_string(), wait: refusal.retry_after },
                Err(inner) => Self::Authority { reason: inner.to_string(), wait: None },
            },
            other => Self::Authority { reason: other.to_string(), wait: None },
        }
    }

    pub(crate) fn of_problem(problem: &Problem) -> Self {
        let mut reason = problem.detail.clone().unwrap_or_else(|| "no reason given".to_owned());
        if let Some(kind) = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next()) {
            reason = format!("{reason} ({kind})");
        }
        // What an account or a protocol error is about, not a name (RFC 8555 section 6.7).
        const OF_THE_AUTHORITY: [&str; 9] = [
            "accountDoesNotExist",
            "badNonce",
            "badPublicKey",
            "badSignatureAlgorithm",
            "externalAccountRequired",
            "invalidContact",
            "serverInternal",
            "unsupportedContact",
            "userActionRequired",
        ];
        if is_type(problem, "rateLimited") {
            Self::RateLimited { reason, wait: None, everywhere: false }
        } else if OF_THE_AUTHORITY.iter().any(|kind| is_type(problem, kind)) {
            Self::Authority { reason, wait: None }
        } else {
            Self::Refused(reason)
        }
    }
}

impl From<ClientError> for OrderError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Roots { .. } | ClientError::NoSystemRoots(_) | ClientError::Tls(_) => {
                Self::Setting(error.to_string())
            }
            ClientError::Timeout | ClientError::Body | ClientError::Connection(_) => {
                Self::Authority { reason: error.to_string(), wait: None }
            }
        }
    }
}

/// Rounds of three requests each, for an authority that refuses nonces at random.
const NONCE_ROUNDS: usize = 5;

/// Repeats a step that was refused for its nonce: it has not been carried out (RFC 8555 section 6.5).
pub(crate) async fn with_nonces<T>(mut step: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 1..NONCE_ROUNDS {
        match step().await {
            Err(Error::Api(problem)) if is_type(&problem, "badNonce") => {}
            done => return done,
        }
    }
    step().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_somebodys_fault() {
        let check = |kind: &str, account: Fault, order: Fault| {
            let problem = || {
                let text = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"no"}}"#);
                Error::Api(serde_json::from_str(&text).unwrap())
            };
            assert_eq!(OrderError::of_account(problem()).fault(), account, "{kind}");
            assert_eq!(OrderError::of(problem()).fault(), order, "{kind}");
        };
        let authority = || Fault::Authority { wait: None };
        check("unauthorized", authority(), Fault::Name);
        check("rejectedIdentifier", authority(), Fault::Name);
        check("caa", authority(), Fault::Name);
        check("serverInternal", authority(), authority());
        check("accountDoesNotExist", authority(), authority());
        check("externalAccountRequired", authority(), authority());
        let limited = |everywhere| Fault::RateLimited { wait: None, everywhere };
        check("rateLimited", limited(true), limited(false));
        let refusal = |rate_limited| {
            let status = http::StatusCode::SERVICE_UNAVAILABLE;
            let wait = Some(Duration::from_secs(7));
            Error::Other(Box::new(Refusal { status, retry_after: wait, detail: None, rate_limited }))
        };
        let wait = Some(Duration::from_secs(7));
        assert_eq!(OrderError::of(refusal(false)).fault(), Fault::Authority { wait });
        assert_eq!(OrderError::of(refusal(true)).fault(), Fault::RateLimited { wait, everywhere: false });
    }
}
