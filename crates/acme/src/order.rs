//! One order from account to stored certificate (RFC 8555 section 7.4), and revocation (section 7.6).

use std::time::Duration;

use api::certificates::{AcmeAuthority, AcmeChallenge, Challenge};
use base::time::Timestamp;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, RenewalInfo, RetryPolicy, RevocationReason, RevocationRequest,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::account::{Accounts, is_unknown_account};
use crate::board::{Board, Publisher};
use crate::certificate::{CertificateError, Facts, inspect};
use crate::dns::{DnsProgram, DnsPublisher};
use crate::failure::{OrderError, with_nonces};
use crate::history::{Window, rfc3339};
use crate::http::is_type;
use crate::name::Name;
use crate::plan::WindowAnswer;
use crate::store::Store;

/// One order takes no longer, slow DNS programs included.
const ORDER_TIMEOUT: Duration = Duration::from_secs(600);
/// The authority has checked a challenge within this time.
const CHECK_TIMEOUT: Duration = Duration::from_secs(120);
/// The authority has signed within this time.
const SIGN_TIMEOUT: Duration = Duration::from_secs(120);
/// First wait between two questions about the state of an order, and by how much the next ones are longer.
const POLL: (Duration, f32) = (Duration::from_millis(200), 1.5);
/// A revocation or question takes no longer.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(120);
/// Authorizations of an order: one, because it is for one name; more is not ours.
const MAX_AUTHORIZATIONS: usize = 4;

/// What every order needs; shared by those under way.
pub(crate) struct Desk<S, P> {
    pub(crate) store: S,
    pub(crate) board: Board<P>,
    pub(crate) accounts: Accounts,
}

/// One order.
pub(crate) struct Job {
    /// Tells orders apart.
    pub(crate) number: u64,
    pub(crate) name: Name,
    pub(crate) authority: AcmeAuthority,
    pub(crate) contact: Vec<String>,
    pub(crate) challenge: AcmeChallenge,
    /// Identifier of the certificate it replaces (RFC 9773 section 5).
    pub(crate) replaces: Option<String>,
}

/// What is shown for one authorization, and taken away again.
#[derive(Default)]
struct Shown {
    challenges: Vec<Challenge>,
    /// TXT records: name and value.
    records: Vec<(String, String)>,
}

impl<S: Store, P: Publisher> Desk<S, P> {
    /// Gets a certificate and stores it. What was shown for it is withdrawn, however it ends.
    pub(crate) async fn obtain(&self, job: &Job, now: impl Fn() -> Timestamp) -> Result<Facts, OrderError> {
        let mut shown = Shown::default();
        let pem = match tokio::time::timeout(ORDER_TIMEOUT, self.order(job, &mut shown)).await {
            Ok(pem) => pem,
            Err(_) => Err(OrderError::Timeout("the order")),
        };
        self.withdraw(job, &shown).await;
        if let Err(OrderError::Authority { .. }) = &pem {
            self.accounts.reopen(&job.authority.directory);
        }
        let pem = pem?;
        let facts = inspect(pem.as_bytes(), &job.name)?;
        if facts.not_after <= now() {
            return Err(CertificateError::Expired(rfc3339(facts.not_after)).into());
        }
        self.store.put(&job.name, &pem)?;
        Ok(facts)
    }

    async fn order(&self, job: &Job, shown: &mut Shown) -> Result<String, OrderError> {
        let kind = challenge_type(job)?;
        let mut account = self.accounts.get(&self.store, &job.authority, &job.contact).await?;
        let mut order = match place(&account, job).await {
            Err(Error::Api(problem)) if is_unknown_account(&problem) => {
                account = self.accounts.renew(&self.store, &job.authority, &job.contact, &account).await?;
                place(&account, job).await
            }
            placed => placed,
        }
        .map_err(OrderError::of)?;
        if order.state().status == OrderStatus::Pending {
            self.show(job, &kind, &mut order, shown).await?;
            ready(&kind, &mut order).await?;
            check(&mut order).await?;
        }
        sign(job, &mut order).await
    }

    /// Shows what the authority will look for, and waits until everybody would see it.
    async fn show(
        &self,
        job: &Job,
        kind: &ChallengeType,
        order: &mut Order,
        shown: &mut Shown,
    ) -> Result<(), OrderError> {
        if order.state().authorizations.len() > MAX_AUTHORIZATIONS {
            return Err(OrderError::Refused(
                "the authority wants more proofs than there are names".to_owned(),
            ));
        }
        let mut records = Vec::new();
        for index in 0..order.state().authorizations.len() {
            let showing = with_nonces(async || prepare(job, kind, order, index).await).await;
            match showing.map_err(OrderError::of)? {
                Preparation::AlreadyValid => {}
                Preparation::Ended(reason) => return Err(OrderError::Refused(reason)),
                Preparation::Show { key_authorization, token, digest, dns_value } => match job.challenge {
                    AcmeChallenge::Http01 => {
                        shown.challenges.push(Challenge::Http01 { token, content: key_authorization });
                    }
                    AcmeChallenge::TlsAlpn01 => shown.challenges.push(alpn(&job.name, &digest)?),
                    AcmeChallenge::Dns01 { .. } => {
                        records.push((format!("_acme-challenge.{}", job.name.base()), dns_value));
                    }
                },
            }
        }
        if let AcmeChallenge::Dns01 { command } = &job.challenge {
            let dns = DnsProgram::new(command.clone());
            for (record, value) in records {
                // Noted first: what was begun is cleaned up too.
                shown.records.push((record.clone(), value.clone()));
                dns.present(&record, &value).await?;
            }
        }
        if !shown.challenges.is_empty() {
            self.board.show(job.number, shown.challenges.clone()).await?;
        }
        Ok(())
    }

    /// Withdraws what was shown; a failure here is told, but the order has its own end.
    async fn withdraw(&self, job: &Job, shown: &Shown) {
        if let Err(error) = self.board.withdraw(job.number).await {
            tracing::warn!(name = %job.name, %error, "a challenge could not be withdrawn; the next one replaces it");
        }
        if let AcmeChallenge::Dns01 { command } = &job.challenge {
            let dns = DnsProgram::new(command.clone());
            for (record, value) in &shown.records {
                if let Err(error) = dns.cleanup(record, value).await {
                    tracing::warn!(name = %job.name, record, %error, "a TXT record could not be cleaned up");
                }
            }
        }
    }

    /// Revokes the certificate in force with the key of the account that ordered it; answers when that certificate ends.
    pub(crate) async fn revoke(
        &self,
        name: &Name,
        authority: &AcmeAuthority,
        contact: &[String],
        reason: Reason,
    ) -> Result<Timestamp, OrderError> {
        let pem = self
            .store
            .current(name)?
            .ok_or_else(|| OrderError::Refused("it has no certificate".to_owned()))?;
        let facts = inspect(&pem, name)?;
        let whole = async {
            let account = self.accounts.get(&self.store, authority, contact).await?;
            let request = RevocationRequest { certificate: &facts.leaf, reason: Some(reason.into()) };
            match with_nonces(async || account.revoke(&request).await).await {
                Err(Error::Api(problem)) if is_type(&problem, "alreadyRevoked") => Ok(()),
                done => done.map_err(OrderError::of),
            }
        };
        tokio::time::timeout(QUESTION_TIMEOUT, whole)
            .await
            .map_err(|_| OrderError::Timeout("the revocation"))??;
        Ok(facts.not_after)
    }

    /// Asks when a certificate should be renewed.
    pub(crate) async fn window(
        &self,
        authority: &AcmeAuthority,
        contact: &[String],
        id: &str,
    ) -> WindowAnswer {
        let Some((key, serial)) = id.split_once('.') else {
            return WindowAnswer::Failed;
        };
        let id = CertificateIdentifier {
            authority_key_identifier: key.to_owned().into(),
            serial: serial.to_owned().into(),
        };
        let whole = async {
            let account = self.accounts.get(&self.store, authority, contact).await?;
            match account.renewal_info(&id).await {
                Ok((info, ask_again)) => Ok(window_of(&info)
                    .map_or(WindowAnswer::Failed, |window| WindowAnswer::Suggested { window, ask_again })),
                Err(Error::Unsupported(_)) => Ok(WindowAnswer::Unsupported),
                Err(error) => Err(OrderError::of_account(error)),
            }
        };
        let answer = tokio::time::timeout(QUESTION_TIMEOUT, whole).await;
        answer.unwrap_or(Err(OrderError::Timeout("the question for renewal information"))).unwrap_or_else(
            |error| {
                tracing::debug!(directory = authority.directory, %error, "no renewal information");
                WindowAnswer::Failed
            },
        )
    }
}

/// Why a certificate is revoked (RFC 5280 section 5.3.1): those a subscriber may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// None given.
    Unspecified,
    /// Somebody else may have the key.
    KeyCompromise,
    /// Another certificate takes its place.
    Superseded,
    /// The name is not ours any more, or not used.
    CessationOfOperation,
}

impl From<Reason> for RevocationReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unspecified => Self::Unspecified,
            Reason::KeyCompromise => Self::KeyCompromise,
            Reason::Superseded => Self::Superseded,
            Reason::CessationOfOperation => Self::CessationOfOperation,
        }
    }
}

fn challenge_type(job: &Job) -> Result<ChallengeType, OrderError> {
    let kind = match job.challenge {
        AcmeChallenge::Http01 => ChallengeType::Http01,
        AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        AcmeChallenge::Dns01 { .. } => ChallengeType::Dns01,
    };
    if job.name.is_wildcard() && kind != ChallengeType::Dns01 {
        return Err(OrderError::Setting(format!("{} can only be had with DNS-01", job.name)));
    }
    Ok(kind)
}

/// Places the order; once more without `replaces` when it is refused with it, because a certificate is worth more than a discount
/// on limits.
async fn place(account: &Account, job: &Job) -> Result<Order, Error> {
    let identifiers = [Identifier::Dns(job.name.as_str().to_owned())];
    let plain = NewOrder::new(&identifiers);
    if let Some((key, serial)) = job.replaces.as_deref().and_then(|id| id.split_once('.')) {
        let replaced = CertificateIdentifier { authority_key_identifier: key.into(), serial: serial.into() };
        let wanted = NewOrder::new(&identifiers).replaces(replaced);
        match with_nonces(async || account.new_order(&wanted).await).await {
            Ok(order) => return Ok(order),
            Err(error @ Error::Unsupported(_)) => {
                tracing::debug!(name = %job.name, %error, "ordering without it")
            }
            Err(Error::Api(problem)) if is_unknown_account(&problem) => return Err(Error::Api(problem)),
            Err(Error::Other(inner)) if inner.is::<crate::http::Refusal>() => {
                return Err(Error::Other(inner));
            }
            Err(Error::Other(inner)) if inner.is::<crate::http::ClientError>() => {
                return Err(Error::Other(inner));
            }
            Err(error) => {
                tracing::info!(name = %job.name, %error, "not accepted as a renewal; ordering anew")
            }
        }
    }
    with_nonces(async || account.new_order(&plain).await).await
}

/// What has to be done for one authorization.
enum Preparation {
    AlreadyValid,
    Ended(String),
    Show { key_authorization: String, token: String, digest: Vec<u8>, dns_value: String },
}

async fn prepare(
    job: &Job,
    kind: &ChallengeType,
    order: &mut Order,
    index: usize,
) -> Result<Preparation, Error> {
    let mut authorizations = order.authorizations();
    for _ in 0..index {
        if let Some(skipped) = authorizations.next().await {
            skipped?;
        }
    }
    let Some(authorization) = authorizations.next().await else {
        return Ok(Preparation::AlreadyValid);
    };
    let mut authorization = authorization?;
    match authorization.status {
        AuthorizationStatus::Valid => return Ok(Preparation::AlreadyValid),
        AuthorizationStatus::Pending => {}
        other => {
            return Ok(Preparation::Ended(format!("the authority's proof for {} is {other:?}", job.name)));
        }
    }
    let Some(challenge) = authorization.challenge(kind.clone()) else {
        let reason = format!("the authority does not offer the configured challenge for {}", job.name);
        return Ok(Preparation::Ended(reason));
    };
    let answer = challenge.key_authorization();
    Ok(Preparation::Show {
        key_authorization: answer.as_str().to_owned(),
        token: challenge.token.clone(),
        digest: answer.digest().as_ref().to_vec(),
        dns_value: answer.dns_value(),
    })
}

/// The certificate of a handshake with `acme-tls/1` (RFC 8737 section 3).
fn alpn(name: &Name, digest: &[u8]) -> Result<Challenge, OrderError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut parameters = CertificateParams::new([name.base().to_owned()])?;
    parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = parameters.self_signed(&key)?;
    Ok(Challenge::TlsAlpn01 {
        name: name.base().to_owned(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// Tells the authority to look.
async fn ready(kind: &ChallengeType, order: &mut Order) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(OrderError::of)?;
        if authorization.status == AuthorizationStatus::Pending
            && let Some(mut challenge) = authorization.challenge(kind.clone())
        {
            with_nonces(async || challenge.set_ready().await).await.map_err(OrderError::of)?;
        }
    }
    Ok(())
}

/// Waits until the authority has looked.
async fn check(order: &mut Order) -> Result<(), OrderError> {
    let policy = RetryPolicy::new().initial_delay(POLL.0).backoff(POLL.1).timeout(CHECK_TIMEOUT);
    let status = with_nonces(async || order.poll_ready(&policy).await).await;
    match status {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) => Err(why_not(order).await),
        Err(Error::Api(problem)) => match why_not(order).await {
            // The challenge's own problem says more than the order's.
            OrderError::Refused(reason) if reason != NO_REASON => Err(OrderError::Refused(reason)),
            _ => Err(OrderError::of_problem(&problem)),
        },
        Err(error) => Err(OrderError::of(error)),
    }
}

const NO_REASON: &str = "the authority found no proof and did not say why";

/// What the authority found where it looked.
async fn why_not(order: &mut Order) -> OrderError {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let refreshed = with_nonces(async || {
            let state = authorization.refresh().await?;
            Ok(state.challenges.iter().find_map(|challenge| challenge.error.clone()))
        });
        if let Ok(Some(problem)) = refreshed.await {
            return OrderError::of_problem(&problem);
        }
    }
    OrderError::Refused(NO_REASON.to_owned())
}

/// Has a fresh key certified; answers chain and key as one PEM text.
async fn sign(job: &Job, order: &mut Order) -> Result<String, OrderError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut parameters = CertificateParams::new([job.name.as_str().to_owned()])?;
    parameters.distinguished_name = DistinguishedName::new();
    let request = parameters.serialize_request(&key)?;
    if order.state().status == OrderStatus::Ready {
        with_nonces(async || order.finalize_csr(request.der()).await).await.map_err(OrderError::of)?;
    }
    let policy = RetryPolicy::new().initial_delay(POLL.0).backoff(POLL.1).timeout(SIGN_TIMEOUT);
    let chain = match with_nonces(async || order.certificate().await).await.map_err(OrderError::of)? {
        Some(chain) => chain,
        None => with_nonces(async || order.poll_certificate(&policy).await).await.map_err(OrderError::of)?,
    };
    Ok(format!("{}\n{}", chain.trim_end(), key.serialize_pem().trim_start()))
}

fn window_of(info: &RenewalInfo) -> Option<Window> {
    let time = |seconds: i64| {
        u64::try_from(seconds).ok().map(|seconds| Timestamp(seconds.saturating_mul(1_000_000)))
    };
    Some(Window {
        start: time(info.suggested_window.start.unix_timestamp())?,
        end: time(info.suggested_window.end.unix_timestamp())?,
    })
}
