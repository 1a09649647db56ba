//! Derives for via. Private: use them through `via` or `via-backplane`.
