//! The lab: nodes in network namespaces with a real Kubernetes, and the tests that run in it.
