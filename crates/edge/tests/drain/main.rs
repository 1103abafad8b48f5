//! Endings with live threads: what a drain, a pause and a removed listener do to connections of every kind.

#[cfg(test)]
mod client;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod world;
