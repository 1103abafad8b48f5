//! Accounts at authorities: made once, written down, and shared by all orders.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use api::certificates::AcmeAuthority;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, NewAccount, Problem};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::failure::{OrderError, with_nonces};
use crate::http::{ClientError, Https, is_type};
use crate::store::Store;

/// A failure is answered from memory for this long: the orders of one burst do not each wait for a dead authority.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(5);
/// Longest key of an external account binding read, in bytes of its file.
const MAX_KEY_BYTES: usize = 4_096;

/// What is written down for an account.
#[derive(Serialize, Deserialize)]
struct Stored {
    directory: String,
    contact: Vec<String>,
    credentials: AccountCredentials,
}

/// The account at one authority, once it has been needed.
#[derive(Default)]
struct Slot {
    /// Settings it was made with: others make it anew.
    made_for: Option<(AcmeAuthority, Vec<String>)>,
    account: Option<Account>,
    failure: Option<(Instant, Remembered)>,
}

/// What is remembered of a failure.
#[derive(Clone)]
struct Remembered {
    reason: String,
    limited: bool,
    wait: Option<Duration>,
}

/// All accounts, by directory URL.
#[derive(Default)]
pub(crate) struct Accounts {
    slots: RefCell<BTreeMap<String, Rc<Mutex<Slot>>>>,
}

impl Accounts {
    /// The account at an authority: the one in use, else the one written down, else a new one.
    pub(crate) async fn get(
        &self,
        store: &impl Store,
        authority: &AcmeAuthority,
        contact: &[String],
    ) -> Result<Account, OrderError> {
        let slot = Rc::clone(self.slots.borrow_mut().entry(authority.directory.clone()).or_default());
        let mut slot = slot.lock().await;
        let made_for = (authority.clone(), contact.to_vec());
        if slot.made_for.as_ref() != Some(&made_for) {
            *slot = Slot { made_for: Some(made_for), ..Slot::default() };
        }
        if let Some(account) = &slot.account {
            return Ok(account.clone());
        }
        if let Some((when, failure)) = &slot.failure
            && when.elapsed() < FAILURE_REMEMBERED
        {
            return Err(failure.again());
        }
        match open(store, authority, contact).await {
            Ok(account) => {
                slot.account = Some(account.clone());
                Ok(account)
            }
            Err(error) => {
                slot.failure = Remembered::of(&error).map(|failure| (Instant::now(), failure));
                Err(error)
            }
        }
    }

    /// Has the directory read again before the next order: an authority that failed may have moved.
    pub(crate) fn reopen(&self, directory: &str) {
        // Whoever opens it right now makes a new one anyway.
        if let Some(slot) = self.slots.borrow().get(directory)
            && let Ok(mut slot) = slot.try_lock()
        {
            slot.account = None;
        }
    }

    /// Makes a new account: the authority does not know the one written down any more.
    pub(crate) async fn renew(
        &self,
        store: &impl Store,
        authority: &AcmeAuthority,
        contact: &[String],
        unknown: &Account,
    ) -> Result<Account, OrderError> {
        let slot = Rc::clone(self.slots.borrow_mut().entry(authority.directory.clone()).or_default());
        let mut slot = slot.lock().await;
        if let Some(account) = slot.account.as_ref().filter(|account| account.id() != unknown.id()) {
            return Ok(account.clone());
        }
        let account = create(store, authority, contact).await?;
        slot.account = Some(account.clone());
        Ok(account)
    }
}

impl Remembered {
    /// `None` for what the authority did not do.
    fn of(error: &OrderError) -> Option<Self> {
        match error {
            OrderError::Authority { reason, wait } => {
                Some(Self { reason: reason.clone(), limited: false, wait: *wait })
            }
            OrderError::RateLimited { reason, wait, .. } => {
                Some(Self { reason: reason.clone(), limited: true, wait: *wait })
            }
            _ => None,
        }
    }

    fn again(&self) -> OrderError {
        let (reason, wait) = (self.reason.clone(), self.wait);
        if self.limited {
            OrderError::RateLimited { reason, wait, everywhere: true }
        } else {
            OrderError::Authority { reason, wait }
        }
    }
}

async fn open(
    store: &impl Store,
    authority: &AcmeAuthority,
    contact: &[String],
) -> Result<Account, OrderError> {
    let Some(bytes) = store.account(&authority.directory)? else {
        return create(store, authority, contact).await;
    };
    let stored: Stored = match serde_json::from_slice(&bytes) {
        Ok(stored) => stored,
        Err(error) => {
            tracing::warn!(directory = authority.directory, %error, "the account written down cannot be read; making a new one");
            return create(store, authority, contact).await;
        }
    };
    let copy =
        serde_json::to_vec(&stored.credentials).map_err(|error| OrderError::Setting(error.to_string()))?;
    let account = builder(authority)?.from_credentials(stored.credentials).await.map_err(of_account)?;
    if stored.contact != contact {
        update_contact(store, authority, contact, &account, &copy).await?;
    }
    Ok(account)
}

/// A contact that cannot be changed is no reason to stay without certificates.
async fn update_contact(
    store: &impl Store,
    authority: &AcmeAuthority,
    contact: &[String],
    account: &Account,
    credentials: &[u8],
) -> Result<(), OrderError> {
    let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
    match with_nonces(async || account.update_contacts(&contacts).await).await {
        Ok(()) => {
            let credentials = serde_json::from_slice(credentials)
                .map_err(|error: serde_json::Error| OrderError::Setting(error.to_string()))?;
            keep(store, authority, contact, credentials)
        }
        Err(Error::Api(problem)) if is_unknown_account(&problem) => Ok(()),
        Err(error) => {
            tracing::warn!(directory = authority.directory, %error, "the contact of the account could not be changed");
            Ok(())
        }
    }
}

async fn create(
    store: &impl Store,
    authority: &AcmeAuthority,
    contact: &[String],
) -> Result<Account, OrderError> {
    let binding = match (&authority.eab_kid, &authority.eab_key) {
        (Some(kid), Some(path)) => Some(ExternalAccountKey::new(kid.clone(), &binding_key(path)?)),
        (None, None) => None,
        _ => {
            let reason = "an external account binding needs both a key id and a file with its key";
            return Err(OrderError::Setting(reason.to_owned()));
        }
    };
    let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
    let wanted =
        NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
    // A client is made for each round, because the library uses it up; no account exists after a refused nonce.
    let made = with_nonces(async || {
        let builder = builder(authority).map_err(|error| Error::Other(Box::new(error)))?;
        builder.create(&wanted, authority.directory.clone(), binding.as_ref()).await
    });
    let (account, credentials) = made.await.map_err(of_account)?;
    keep(store, authority, contact, credentials)?;
    tracing::info!(directory = authority.directory, account = account.id(), "made an account");
    Ok(account)
}

fn builder(authority: &AcmeAuthority) -> Result<instant_acme::AccountBuilder, ClientError> {
    Ok(Account::builder_with_http(Box::new(Https::new(authority.roots.as_deref())?)))
}

/// A setting stays one on its way through the library.
fn of_account(error: Error) -> OrderError {
    match error {
        Error::Other(inner) => match inner.downcast::<ClientError>() {
            Ok(error) => (*error).into(),
            Err(inner) => OrderError::of_account(Error::Other(inner)),
        },
        error => OrderError::of_account(error),
    }
}

fn keep(
    store: &impl Store,
    authority: &AcmeAuthority,
    contact: &[String],
    credentials: AccountCredentials,
) -> Result<(), OrderError> {
    let stored = Stored { directory: authority.directory.clone(), contact: contact.to_vec(), credentials };
    let bytes = serde_json::to_vec_pretty(&stored).map_err(|error| OrderError::Setting(error.to_string()))?;
    Ok(store.put_account(&authority.directory, &bytes)?)
}

/// Whether a problem means that the authority does not know the account.
pub(crate) fn is_unknown_account(problem: &Problem) -> bool {
    is_type(problem, "accountDoesNotExist")
}

/// The key of an external account binding: base64url, with or without padding.
fn binding_key(path: &Path) -> Result<Vec<u8>, OrderError> {
    let failed = |reason: String| OrderError::Setting(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    if text.len() > MAX_KEY_BYTES {
        return Err(failed("longer than a key can be".to_owned()));
    }
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&URL_SAFE, config)
        .decode(text.trim())
        .map_err(|_| failed("the key of an external account binding is written in base64url".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_key_is_base64url_with_or_without_padding() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for (text, expected) in
            [("_-8", Some(vec![0xff, 0xef])), ("_-8=\n", Some(vec![0xff, 0xef])), ("/+8=", None), ("?", None)]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(binding_key(&path).ok(), expected, "{text}");
        }
    }
}
