//! What may be kept and reused: RFC 9111 and its family.
