//! The golden corpus: requests of which is known whether they have to be served or refused, asked again and again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::error::DrillError;
use crate::exchange::{Answer, exchange};
use crate::plan::HOSTS;
use crate::traffic::Witness;
use crate::wire::Wire;

/// The corpus; its first lines say how it is written.
const CORPUS: &str = include_str!("golden.toml");
/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a golden request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// A person's, or a program's that means well: to be served.
    Human,
    /// An attack: to be refused before an origin sees it.
    Attack,
}

/// One golden request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// What it is, for a person.
    pub name: String,
    /// Which of the two.
    pub sort: Sort,
    /// The bytes that are sent; `{host}` stands for the site's.
    pub request: String,
}

/// Golden requests.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corpus {
    /// In order.
    #[serde(default)]
    pub request: Vec<Golden>,
}

impl Corpus {
    /// The corpus that comes with the drills.
    pub fn own() -> Result<Self, DrillError> {
        toml::from_str(CORPUS).map_err(|error| DrillError::Unexpected(format!("the golden corpus: {error}")))
    }
}

/// What became of a golden request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// An origin answered it.
    Served,
    /// Rempart answered with 4xx or 501.
    Refused,
    /// Rempart failed: a 5xx of its own, or no answer in time.
    Failed,
    /// The connection ended without an answer. A person was not served; an attack was refused.
    HungUp,
}

/// One golden request as it was told.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Its place in the corpus.
    pub index: usize,
    /// What it is.
    pub sort: Sort,
    /// When it was sent.
    pub sent: Duration,
    /// When its fate was known.
    pub ended: Duration,
    /// What that was.
    pub fate: Fate,
}

impl Told {
    /// Whether it is as it has to be.
    pub fn is_right(&self) -> bool {
        match self.sort {
            Sort::Human => self.fate == Fate::Served,
            Sort::Attack => matches!(self.fate, Fate::Refused | Fate::HungUp),
        }
    }
}

/// Asks the whole corpus, round after round, until the witness says that it is over.
pub async fn ask_on(address: SocketAddr, corpus: Arc<Corpus>, witness: Witness) {
    while !witness.is_over() {
        for (index, golden) in corpus.request.iter().enumerate() {
            let sent = witness.clock.now();
            let fate = fate(&ask(address, golden).await);
            witness.note_golden(Told { index, sort: golden.sort, sent, ended: witness.clock.now(), fate });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(address: SocketAddr, golden: &Golden) -> io::Result<Answer> {
    let request = golden.request.replace("{host}", HOSTS[0]);
    let asked = timeout(PATIENCE, async {
        let mut wire = Wire::connect(address, None).await?;
        exchange(&mut wire, request.as_bytes()).await
    });
    asked.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn fate(answer: &io::Result<Answer>) -> Fate {
    match answer {
        Ok(answer) if answer.is_of_origin() => Fate::Served,
        // "I do not know that coding or method" is a refusal (RFC 9110 section 15.6.2); every other 5xx is a failure.
        Ok(answer) if answer.status >= 500 && answer.status != 501 => Fate::Failed,
        Ok(_) => Fate::Refused,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Fate::Failed,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Fate::Failed,
        Err(_) => Fate::HungUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::HIDDEN;

    #[test]
    fn the_corpus_has_people_and_attacks_each_with_a_name_of_its_own() {
        let corpus = Corpus::own().unwrap();
        let of = |sort| corpus.request.iter().filter(|golden| golden.sort == sort).count();
        assert!(of(Sort::Human) >= 8 && of(Sort::Attack) >= 8);
        let names: std::collections::HashSet<_> = corpus.request.iter().map(|golden| &golden.name).collect();
        assert_eq!(names.len(), corpus.request.len());
        for golden in &corpus.request {
            assert!(golden.request.contains("\r\n\r\n") || golden.sort == Sort::Attack, "{}", golden.name);
            assert!(golden.sort == Sort::Attack || !golden.request.contains(HIDDEN), "{}", golden.name);
        }
    }

    #[test]
    fn an_attack_that_is_hung_up_on_is_refused_and_a_person_is_not_served() {
        let told = |sort, fate| {
            Told { index: 0, sort, sent: Duration::ZERO, ended: Duration::ZERO, fate }.is_right()
        };
        assert!(told(Sort::Attack, Fate::HungUp) && !told(Sort::Human, Fate::HungUp));
        assert!(told(Sort::Attack, Fate::Refused) && !told(Sort::Human, Fate::Refused));
        assert!(!told(Sort::Attack, Fate::Served) && told(Sort::Human, Fate::Served));
        assert!(!told(Sort::Attack, Fate::Failed) && !told(Sort::Human, Fate::Failed));
    }
}
