//! From sources to a generation that can run: compile, then the edge's own load function. `check` goes exactly this far.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use api::diagnostic::{Diagnostic, Severity};
use base::time::Timestamp;
use edge::generation::{Generation, Loader};
use edge::telemetry::metrics::Metrics;
use edge::tls::certificates::Expired;
use edge::tls::{Certificates, DevelopmentAuthority, LoadError};
use snapshot::generation::Snapshot;
use snapshot::{Compiled, Input, Mode};

use crate::package::Sources;

/// From sources to a generation that can run: compile, then the edge's own load function.
pub struct Builder {
    /// Makes snapshots runnable; holds what outlives generations.
    pub loader: Loader,
    authority_folder: Option<PathBuf>,
    authority: Mutex<Option<Arc<DevelopmentAuthority>>>,
}

/// A generation with what was found on the way.
pub struct Built {
    /// Ready to run.
    pub generation: Generation,
    /// Warnings.
    pub warnings: Vec<Diagnostic>,
    /// What was compiled.
    pub compiled: Arc<Snapshot>,
    /// Where everything is written, for findings made later.
    pub places: snapshot::Places,
}

impl Builder {
    /// `authority_folder`: where the development authority lies or is to be made; `None` makes one in memory.
    pub fn new(metrics: Arc<Metrics>, authority_folder: Option<PathBuf>) -> anyhow::Result<Self> {
        Ok(Self { loader: Loader::new(metrics)?, authority_folder, authority: Mutex::default() })
    }

    /// Compiles and loads. The error holds every finding.
    pub fn build(&self, sources: &Sources, number: u64, mode: Mode) -> Result<Built, Vec<Diagnostic>> {
        let input = Input { file: &sources.file, text: &sources.text, tree: &sources.tree };
        let Compiled { snapshot, diagnostics, places } = snapshot::compile(input, now(), mode);
        let Some(compiled) = snapshot.map(Arc::new) else { return Err(diagnostics) };
        let expired = if mode == Mode::Stored { Expired::Serve } else { Expired::Refuse };
        self.make_runnable(compiled, number, expired, diagnostics, places)
    }

    /// Loads a generation that has no sources: the compiled-in defaults.
    pub fn load(&self, compiled: Arc<Snapshot>, number: u64) -> Result<Built, Vec<Diagnostic>> {
        self.make_runnable(compiled, number, Expired::Serve, Vec::new(), snapshot::Places::default())
    }

    fn make_runnable(
        &self,
        compiled: Arc<Snapshot>,
        number: u64,
        expired: Expired,
        mut diagnostics: Vec<Diagnostic>,
        places: snapshot::Places,
    ) -> Result<Built, Vec<Diagnostic>> {
        let development =
            match Certificates::needs_development(&compiled).then(|| self.authority()).transpose() {
                Ok(development) => development,
                Err(error) => {
                    diagnostics.push(*error);
                    return Err(diagnostics);
                }
            };
        match self.loader.load(compiled.clone(), number, development.as_ref(), now(), expired) {
            Ok(generation) => {
                let found = generation.certificates.warnings().iter();
                diagnostics.extend(found.map(|warning| diagnose(warning, Severity::Warning, &places)));
                deduplicate(&mut diagnostics);
                Ok(Built { generation, warnings: diagnostics, compiled, places })
            }
            Err(errors) => {
                diagnostics.extend(errors.iter().map(|error| diagnose(error, Severity::Error, &places)));
                deduplicate(&mut diagnostics);
                Err(diagnostics)
            }
        }
    }

    /// The development authority, opened or made when it is first needed.
    fn authority(&self) -> Result<Arc<DevelopmentAuthority>, Box<Diagnostic>> {
        let mut authority = self.authority.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(authority) = &*authority {
            return Ok(authority.clone());
        }
        let made = match &self.authority_folder {
            Some(folder) => DevelopmentAuthority::open_or_create(folder, now()),
            None => DevelopmentAuthority::generate(now()).and_then(|pem| {
                DevelopmentAuthority::from_pem(pem.certificate.as_bytes(), pem.key.as_bytes())
            }),
        };
        let made = made.map_err(|error| {
            Box::new(Diagnostic {
                severity: Severity::Error,
                code: "development-authority".to_owned(),
                message: format!("the development certificate authority cannot be used: {error}"),
                location: None,
                hint: Some(
                    "give the site certificate files, or delete the folder `ca` in the state folder"
                        .to_owned(),
                ),
            })
        })?;
        let name = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
        Ok(authority.insert(Arc::new(made.with_machine_name(name))).clone())
    }
}

/// Compile and load look at certificates both; what they both found is said once.
fn deduplicate(diagnostics: &mut Vec<Diagnostic>) {
    let mut seen = HashSet::new();
    diagnostics.retain(|diagnostic| {
        let place = diagnostic.location.as_ref().map(|place| (place.line, place.column));
        seen.insert((diagnostic.code.clone(), place))
    });
}

/// A finding of the edge as a diagnostic with its place.
pub fn diagnose(error: &LoadError, severity: Severity, places: &snapshot::Places) -> Diagnostic {
    Diagnostic {
        severity,
        code: error.code.to_owned(),
        message: error.message.clone(),
        location: Some(places.locate(&error.place)),
        hint: Some(error.hint.clone()),
    }
}

/// Nothing could be loaded at all.
pub fn cannot_start(error: &anyhow::Error) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: "cannot-start".to_owned(),
        message: format!("{error:#}"),
        location: None,
        hint: Some("allow this user more threads (`ulimit -u`), and see the program's log".to_owned()),
    }
}

/// The wall clock.
pub fn now() -> Timestamp {
    Timestamp::from_unix(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// A timestamp as RFC 3339, to the second.
pub fn rfc3339(at: Timestamp) -> String {
    let at = i64::try_from(at.seconds()).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    at.map(|at| at.to_string()).unwrap_or_default()
}
