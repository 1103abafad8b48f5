//! What a taster does with a generation: deferred work, golden requests, and probes from outside, against a real edge.

#[cfg(test)]
mod deferred;
#[cfg(test)]
#[cfg(feature = "faults")]
mod faults;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod stage;
