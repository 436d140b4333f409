//! The wire protocol of Ringmain.
