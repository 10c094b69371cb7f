//! Outboard's Kubernetes API: custom resources, names and the facts that ride on OVN rows.
