//! Kubernetes objects to OVN northbound rows; the only northbound writer.
