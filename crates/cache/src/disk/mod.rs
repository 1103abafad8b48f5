//! The disk tier: a log of segments, checksummed, never in the way of an event loop.
