//! The schema TOML: see the branch.
