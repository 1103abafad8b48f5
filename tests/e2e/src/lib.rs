//! Nothing lives here: the tests are in `tests/`, what they share is the package `harness`.
