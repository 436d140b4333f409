//! Client of Ringmain.
