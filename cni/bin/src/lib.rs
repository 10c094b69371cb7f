//! The exec'd CNI plugin and its wire contract with cni-node.
