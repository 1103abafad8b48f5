//! Origins: which one to ask, whether it may be asked, how to reach it.
