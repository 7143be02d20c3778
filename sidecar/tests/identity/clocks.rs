//! Clocks that are far ahead, or step back.
