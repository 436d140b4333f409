//! Preference lists.
