//! How do a host and its DPU speak?
