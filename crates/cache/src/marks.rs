//! What was purged, and when: generation marks that every look-up compares an object with.
