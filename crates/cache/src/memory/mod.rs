//! The memory tier: sharded, scan-resistant, bounded in bytes.
