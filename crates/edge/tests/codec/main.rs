//! The HTTP codecs against case files, and the HTTP/1.1 one against a second reading of its RFC.

#[cfg(test)]
mod cases;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod messages;
#[cfg(test)]
#[path = "../../../../tests/fuzzing/src/second_reading/head.rs"]
mod second_reading;
