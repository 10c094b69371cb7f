//! What every long-running Outboard program does: logging, signals, metrics and health.
