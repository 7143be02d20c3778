//! Who is expelled, and how it comes back.
