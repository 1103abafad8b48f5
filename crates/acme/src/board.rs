//! What authorities may look for now, and the edge that shows it to them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use api::certificates::Challenge;
use tokio::sync::Mutex;

/// The edge has what is published within this time.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a challenge is not where an authority would look for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Whoever should show it refused, in its own words.
    #[error("the edge does not show the challenge: {0}")]
    Refused(String),
    /// Nobody is there to show it.
    #[error("no edge is there to show the challenge")]
    Gone,
    /// No confirmation in time.
    #[error("the edge did not confirm the challenge within {} s", PUBLISH_TIMEOUT.as_secs())]
    Timeout,
}

/// Shows challenges to authorities: the edge, behind the supervisor.
pub trait Publisher {
    /// Shows these and no others, and resolves when every edge thread does. The set is complete: what is missing is withdrawn.
    fn publish(&self, challenges: Vec<Challenge>) -> impl Future<Output = Result<(), PublishError>>;
}

/// The set of what is shown, shared by all orders under way.
pub(crate) struct Board<P> {
    publisher: P,
    /// By order; one order has one challenge per authorization.
    shown: RefCell<BTreeMap<u64, Vec<Challenge>>>,
    /// Counts changes of `shown`.
    changes: Cell<u64>,
    /// Changes the edge is known to have; the lock also keeps sets from overtaking each other.
    confirmed: Mutex<u64>,
}

impl<P: Publisher> Board<P> {
    pub(crate) fn new(publisher: P) -> Self {
        Self { publisher, shown: RefCell::default(), changes: Cell::new(0), confirmed: Mutex::new(0) }
    }

    /// Shows the challenges of an order beside those of others; resolves when the edge has them.
    pub(crate) async fn show(&self, order: u64, challenges: Vec<Challenge>) -> Result<(), PublishError> {
        self.shown.borrow_mut().insert(order, challenges);
        self.changed().await
    }

    /// Withdraws them.
    pub(crate) async fn withdraw(&self, order: u64) -> Result<(), PublishError> {
        if self.shown.borrow_mut().remove(&order).is_none() {
            return Ok(());
        }
        self.changed().await
    }

    /// Withdraws what a keeper before this one may have left shown; what this one shows stays.
    pub(crate) async fn begin(&self) -> Result<(), PublishError> {
        self.changed().await
    }

    async fn changed(&self) -> Result<(), PublishError> {
        let mine = self.changes.get() + 1;
        self.changes.set(mine);
        let mut confirmed = self.confirmed.lock().await;
        // Whoever had the lock before may have published this change too.
        if *confirmed >= mine {
            return Ok(());
        }
        let published = self.changes.get();
        let all: Vec<Challenge> = self.shown.borrow().values().flatten().cloned().collect();
        match tokio::time::timeout(PUBLISH_TIMEOUT, self.publisher.publish(all)).await {
            Ok(Ok(())) => {
                *confirmed = published;
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(PublishError::Timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers every set it was given; refuses while told to.
    #[derive(Default)]
    struct Remembers {
        sets: RefCell<Vec<Vec<Challenge>>>,
        refuse: Cell<bool>,
    }

    impl Publisher for &Remembers {
        async fn publish(&self, challenges: Vec<Challenge>) -> Result<(), PublishError> {
            tokio::task::yield_now().await;
            self.sets.borrow_mut().push(challenges);
            if self.refuse.get() { Err(PublishError::Gone) } else { Ok(()) }
        }
    }

    fn challenge(token: &str) -> Challenge {
        Challenge::Http01 { token: token.into(), content: "content".into() }
    }

    #[tokio::test]
    async fn orders_share_one_set_and_changes_made_together_travel_together() {
        let remembers = Remembers::default();
        let board = Board::new(&remembers);
        let (a, b, c) = tokio::join!(
            board.show(1, vec![challenge("a")]),
            board.show(2, vec![challenge("b")]),
            board.show(3, vec![challenge("c")]),
        );
        assert_eq!((a, b, c), (Ok(()), Ok(()), Ok(())));
        let (all, count) = (remembers.sets.borrow().last().cloned().unwrap(), remembers.sets.borrow().len());
        assert_eq!(all, [challenge("a"), challenge("b"), challenge("c")]);
        assert_eq!(count, 2, "the second set holds what the third order added");
        board.withdraw(2).await.unwrap();
        board.withdraw(2).await.unwrap();
        assert_eq!(remembers.sets.borrow().last().unwrap(), &[challenge("a"), challenge("c")]);
        assert_eq!(remembers.sets.borrow().len(), 3);
    }

    #[tokio::test]
    async fn a_set_that_was_refused_is_not_taken_for_shown() {
        let remembers = Remembers::default();
        let board = Board::new(&remembers);
        remembers.refuse.set(true);
        assert_eq!(board.show(1, vec![challenge("a")]).await, Err(PublishError::Gone));
        remembers.refuse.set(false);
        board.show(2, vec![challenge("b")]).await.unwrap();
        assert_eq!(remembers.sets.borrow().last().unwrap(), &[challenge("a"), challenge("b")]);
    }
}
