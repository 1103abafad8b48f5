//! What rules see of a request: every field of the language, worked out when it is asked for, and once.

use base::id::RequestId;
use base::time::Timestamp;
use expr::{Context, Fetched, FieldId, List};

use crate::connection::Connection;
use crate::forwarded::{Client, Scheme};
use crate::generation::{Generation, SiteRuntime};
use crate::lists::Lists;
use crate::message::{HeaderList, RequestHead, ResponseHead};
use crate::worker::Worker;

/// Where a request came from and to.
#[derive(Clone, Copy)]
pub struct Surroundings<'r> {
    /// The connection it came on.
    pub connection: &'r Connection,
    /// The thread that serves it.
    pub worker: &'r Worker,
    /// Who asks.
    pub client: &'r Client,
    /// How the visitor came.
    pub scheme: Scheme,
    /// The site asked.
    pub site: &'r SiteRuntime,
    /// The generation it is served by.
    pub generation: &'r Generation,
    /// When its head was complete.
    pub at: Timestamp,
    /// Its id.
    pub id: Option<RequestId>,
}

/// A request as rules see it, and as rules have changed it so far.
pub struct Facts<'r> {
    head: RequestHead,
    surroundings: Surroundings<'r>,
    lists: Lists<'r>,
}

impl<'r> Facts<'r> {
    /// A request that no rule has changed yet.
    pub fn new(head: RequestHead, surroundings: Surroundings<'r>) -> Self {
        let lists = Lists::new(surroundings.generation);
        Self { head, surroundings, lists }
    }

    /// The head as it is now.
    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    /// Where it came from and to.
    pub fn surroundings(&self) -> &Surroundings<'r> {
        &self.surroundings
    }

    /// Gives it another path and query, in origin form; `raw.` fields keep the original.
    pub fn rewrite(&mut self, target: String) {
        self.head.target = target;
    }

    /// The header fields, to be changed.
    pub fn headers_mut(&mut self) -> &mut HeaderList {
        &mut self.head.headers
    }
}

impl Context for Facts<'_> {
    fn field(&self, _field: FieldId) -> Fetched<'_> {
        Fetched::Unknown
    }

    fn list(&self, name: &str) -> Option<&dyn List> {
        self.lists.find(name)
    }
}

/// A request with its response, for the phases after the origin.
pub struct Answered<'f, 'r> {
    /// The request.
    pub facts: &'f Facts<'r>,
    /// The response as it is now.
    pub head: &'f ResponseHead,
    /// Its fields as they came; where nothing has changed them, those of `head`.
    pub raw: &'f HeaderList,
}

impl Context for Answered<'_, '_> {
    fn field(&self, field: FieldId) -> Fetched<'_> {
        self.facts.field(field)
    }

    fn list(&self, name: &str) -> Option<&dyn List> {
        self.facts.list(name)
    }
}
