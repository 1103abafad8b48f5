//! rempart
fn main() {}
