//! Orders about artefacts beside the configuration.

use std::fs::File;
use std::os::fd::OwnedFd;

use api::process::Reply;
use api::roles::FeedSettings;
use edge::artefacts::Manner;

use super::{EdgeProcess, refused};
use crate::builder::now;
use crate::package;

impl EdgeProcess {
    /// Loads a package, which is the descriptor, and puts what it holds in force.
    pub(super) fn load_artefact(
        &self,
        feed: &FeedSettings,
        again: bool,
        forced: bool,
        descriptors: Vec<OwnedFd>,
    ) -> Reply {
        let Some(package) = descriptors.into_iter().next().map(File::from) else {
            return refused("no-package", "an order came without its package".to_owned());
        };
        let bytes = match package::bytes(&package) {
            Ok(bytes) => bytes,
            Err(error) => return refused("no-package", error.to_string()),
        };
        let manner = match (again, forced) {
            (true, _) => Manner::Again,
            (false, true) => Manner::Forced,
            (false, false) => Manner::Next,
        };
        match self.builder.loader.artefacts().load(feed, &bytes, manner, now()) {
            Ok(()) => {
                self.renew_switches();
                Reply::Done
            }
            Err(diagnostics) => Reply::Refused { diagnostics },
        }
    }
}
