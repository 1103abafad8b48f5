//! Who is told of incidents, and when: what each channel has been told, what it is still owed, when it is tried again.
//!
//! Nothing is queued: what is owed follows from the incidents and from what has been told, so it cannot grow.

mod ledger;

pub use ledger::{Ledger, Notice, Stage, Told};
