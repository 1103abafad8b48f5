//! Why a drill could not be played to its end.

use std::io;

/// Something a drill depends on did not work; not a verdict about what was put to the test.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The system refused something.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        error: io::Error,
    },
    /// Something that was waited for did not come.
    #[error("{what} did not come within {seconds} s{said}")]
    Late {
        /// What.
        what: String,
        /// How long it was waited for.
        seconds: u64,
        /// The end of the program's log, or nothing.
        said: String,
    },
    /// An answer that makes no sense here.
    #[error("{0}")]
    Unexpected(String),
}

impl DrillError {
    /// Says what was tried when the system refused it.
    pub fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::System { what, error }
    }
}
