//! Rules: a request walks Cloudflare's phases, each with the site's rules of it, and goes on changed, answered or as it came.

pub mod facts;
