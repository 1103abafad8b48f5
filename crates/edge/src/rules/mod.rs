//! Rules: a request walks Cloudflare's phases, each with the site's rules of it, and goes on changed, answered or as it came.
//!
//! `facts` is what rules see, `walk` finds those that match in one phase, `act` carries them out, and `modules` drives the
//! phases in their order, each under the contract of a module: a rule that fails is passed over and never fails a request.

pub mod act;
pub mod facts;
pub mod imagine;
pub mod respond;
pub mod walk;
