//! Causality.
