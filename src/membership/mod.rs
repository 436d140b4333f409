//! Who is in the cluster.

/// Who is in the cluster, as one node sees it: shared by its shards, never changed.
#[derive(Debug)]
pub struct View {}
