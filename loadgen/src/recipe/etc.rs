//! ETC, the general-purpose pool of Facebook's memcached: B. Atikoglu et al., "Workload analysis of a large-scale key-value
//! store", SIGMETRICS 2012. Sizes are the paper's fits ([`crate::sizes`]); thirty GETs come for each SET (section 3).
//!
//! The paper gives no exponent for the popularity of keys. Zipf's 0.99 is this program's own choice, as is that values
//! live for ever: their lifetimes were not published.

use super::{Recipe, built_in};

/// What is typed after `--preset`.
pub(super) const NAME: &str = "etc";

/// GET : SET = 30 : 1.
const MIX: &str = "read=96.774,write=3.226";

/// The preset.
pub(super) fn recipe() -> Recipe {
    Recipe {
        name: Some(NAME.to_owned()),
        key_size: Some(built_in("etc-key")),
        value_size: built_in("etc-value"),
        mix: built_in(MIX),
        preload: true,
        ..Recipe::default()
    }
}

/// The name, and what it stands for.
pub(super) fn list() -> String {
    "Facebook's general-purpose memcached pool (Atikoglu et al., SIGMETRICS 2012); Zipf 0.99 is not the paper's\n\
     etc           keys by a generalized extreme value distribution, values by a generalized Pareto; 30 reads to a write\n"
        .to_owned()
}
