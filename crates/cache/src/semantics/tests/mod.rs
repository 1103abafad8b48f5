//! Stories told to a small cache made of these rules alone, random histories, and heads as bytes.

mod bytes;
mod histories;
mod stories;
mod story;
