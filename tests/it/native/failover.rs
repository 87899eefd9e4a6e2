//! Members die and hang under load.
