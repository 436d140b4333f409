//! Output of `flatc`, never edited: `just schema` makes it anew, and CI proves it fresh.

#[allow(warnings, clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks, unsafe_code)]
#[rustfmt::skip]
pub(crate) mod client;
#[allow(warnings, clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks, unsafe_code)]
#[rustfmt::skip]
pub(crate) mod peer;
