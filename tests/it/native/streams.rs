//! Connections: drain, limits, back-pressure.
