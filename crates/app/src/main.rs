//! rempart

mod demo;

fn main() {}
