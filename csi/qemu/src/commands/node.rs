//! Block nodes (QAPI: block-core.json).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::export::Address;
use super::inventory::{NodeInfo, NodeStats};
use super::{Done, command, none};
use crate::Command;

/// `blockdev-add`: makes a node and those that it contains. The image file is opened and locked.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct BlockdevAdd(
    /// The node, which must have a name.
    pub Node,
);

impl Command for BlockdevAdd {
    const NAME: &'static str = "blockdev-add";
    type Reply = Done;
}

command! {
    /// Closes a node. Refused while anything uses it.
    BlockdevDel = "blockdev-del" -> Done {
        /// The node.
        node_name: String,
    }

    /// Changes nodes to the given options, all or none. Options that are left out go back to their defaults.
    BlockdevReopen = "blockdev-reopen" -> Done {
        /// The nodes with all of their options.
        options: Vec<Node>,
    }

    /// Changes the size of a node that is in use; bytes. It shrinks, too, without a question.
    BlockResize = "block_resize" -> Done {
        /// The node.
        #[serde(rename = "node-name")]
        node_name: String,
        /// The new size in bytes.
        size: u64,
    }

    /// All nodes.
    QueryNamedBlockNodes = "query-named-block-nodes" -> Vec<NodeInfo> {
        /// True leaves out the chain below each image, which QEMU would repeat in each.
        #[serde(skip_serializing_if = "none")]
        flat: Option<bool>,
    }

    /// The disks of a virtual machine (of qemu-storage-daemon: nothing).
    QueryBlock = "query-block" -> Vec<serde_json::Value> {}

    /// What was read and written.
    QueryBlockstats = "query-blockstats" -> Vec<NodeStats> {
        /// True counts by node.
        #[serde(skip_serializing_if = "none")]
        query_nodes: Option<bool>,
    }
}

/// A node and its options (`BlockdevOptions`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Node {
    /// Its name, at most 31 bytes; one without is named by QEMU.
    #[serde(default, skip_serializing_if = "none")]
    pub node_name: Option<String>,
    /// What it is.
    #[serde(flatten)]
    pub driver: Driver,
    /// Whether discards are passed down.
    #[serde(default, skip_serializing_if = "none")]
    pub discard: Option<Discard>,
    /// What becomes of writes of zeroes.
    #[serde(default, skip_serializing_if = "none")]
    pub detect_zeroes: Option<DetectZeroes>,
    /// Whether the host's page cache is passed by.
    #[serde(default, skip_serializing_if = "none")]
    pub cache: Option<Cache>,
    /// True refuses writes.
    #[serde(default, skip_serializing_if = "none")]
    pub read_only: Option<bool>,
    /// True lets the node be read-only until something wants to write.
    #[serde(default, skip_serializing_if = "none")]
    pub auto_read_only: Option<bool>,
}

/// Drivers of nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "driver",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Driver {
    /// A file.
    File {
        /// Its path.
        filename: PathBuf,
        /// How it is read and written.
        #[serde(default, skip_serializing_if = "none")]
        aio: Option<Aio>,
    },
    /// A block device of the host.
    HostDevice {
        /// Its path.
        filename: PathBuf,
        /// How it is read and written.
        #[serde(default, skip_serializing_if = "none")]
        aio: Option<Aio>,
    },
    /// A qcow2 image.
    Qcow2 {
        /// Where it is stored.
        file: Child,
        /// What is below it; `None` opens what its header names.
        #[serde(default, skip_serializing_if = "none", deserialize_with = "given")]
        backing: Option<Option<Child>>,
        /// True marks the image dirty while it is open instead of writing reference counts at once.
        #[serde(default, skip_serializing_if = "none")]
        lazy_refcounts: Option<bool>,
    },
    /// A part of another node, or all of it.
    Raw {
        /// The other node.
        file: Child,
        /// First byte.
        #[serde(default, skip_serializing_if = "none")]
        offset: Option<u64>,
        /// Bytes.
        #[serde(default, skip_serializing_if = "none")]
        size: Option<u64>,
    },
    /// A filter that holds its group's limits.
    Throttle {
        /// The `throttle-group` object.
        throttle_group: String,
        /// What is limited.
        file: Child,
    },
    /// An export of an NBD server.
    Nbd {
        /// The server.
        server: Address,
        /// The export's name.
        #[serde(default, skip_serializing_if = "none")]
        export: Option<String>,
        /// A `tls-creds-x509` object of endpoint `client`.
        #[serde(default, skip_serializing_if = "none")]
        tls_creds: Option<String>,
        /// The name that the server's certificate must carry, if it is not the server's host.
        #[serde(default, skip_serializing_if = "none")]
        tls_hostname: Option<String>,
        /// Seconds for which requests wait for a lost server before they fail.
        #[serde(default, skip_serializing_if = "none")]
        reconnect_delay: Option<u32>,
        /// Seconds for which opening tries again.
        #[serde(default, skip_serializing_if = "none")]
        open_timeout: Option<u32>,
    },
    /// Nothing: reads are undefined, writes are lost.
    NullCo {
        /// Bytes.
        size: u64,
    },
}

/// Tells `"backing": null` from none.
fn given<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// A node below another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Child {
    /// One that exists, by name.
    Named(String),
    /// One that is made with its parent.
    New(Box<Node>),
}

impl From<&str> for Child {
    fn from(name: &str) -> Self {
        Child::Named(name.to_owned())
    }
}

impl From<Node> for Child {
    fn from(node: Node) -> Self {
        Child::New(Box::new(node))
    }
}

/// How a file is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aio {
    /// A pool of threads; works everywhere.
    Threads,
    /// Linux AIO; needs [`Cache::direct`].
    Native,
    /// io_uring, where the kernel allows it.
    #[serde(rename = "io_uring")]
    IoUring,
}

/// Whether discards are passed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discard {
    /// They end here.
    Ignore,
    /// They are.
    Unmap,
}

/// What becomes of writes of zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DetectZeroes {
    /// They are writes.
    Off,
    /// They use the driver's efficient form.
    On,
    /// They free the space; needs [`Discard::Unmap`].
    Unmap,
}

/// The host's page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cache {
    /// True passes it by (`O_DIRECT`).
    pub direct: bool,
    /// True ignores flushes: data is lost when the host dies.
    #[serde(default)]
    pub no_flush: bool,
}

impl Node {
    /// A node of a driver, all else being QEMU's default.
    #[must_use]
    pub fn new(name: impl Into<String>, driver: Driver) -> Self {
        Node {
            node_name: Some(name.into()),
            driver,
            discard: None,
            detect_zeroes: None,
            cache: None,
            read_only: None,
            auto_read_only: None,
        }
    }

    /// A file.
    #[must_use]
    pub fn file(name: impl Into<String>, filename: impl Into<PathBuf>) -> Self {
        let filename = filename.into();
        let aio = None;
        Node::new(name, Driver::File { filename, aio })
    }

    /// A qcow2 image over whatever its header names.
    #[must_use]
    pub fn qcow2(name: impl Into<String>, file: impl Into<Child>) -> Self {
        let driver = Driver::Qcow2 {
            file: file.into(),
            backing: None,
            lazy_refcounts: None,
        };
        Node::new(name, driver)
    }

    /// A throttle filter.
    #[must_use]
    pub fn throttle(name: impl Into<String>, group: &str, file: impl Into<Child>) -> Self {
        let driver = Driver::Throttle {
            throttle_group: group.to_owned(),
            file: file.into(),
        };
        Node::new(name, driver)
    }

    /// The same with the backing node given instead of the one that the image's header names; `None` for none, as
    /// [`BlockdevSnapshot`](super::BlockdevSnapshot) wants its overlay. Only for qcow2.
    #[must_use]
    pub fn over(mut self, below: Option<Child>) -> Self {
        if let Driver::Qcow2 { backing, .. } = &mut self.driver {
            *backing = Some(below);
        }
        self
    }

    /// The same, passing the host's page cache by.
    #[must_use]
    pub fn direct(mut self) -> Self {
        self.cache = Some(Cache {
            direct: true,
            no_flush: false,
        });
        self
    }

    /// The same, read and written in this way. Only for files and host devices.
    #[must_use]
    pub fn aio(mut self, how: Aio) -> Self {
        if let Driver::File { aio, .. } | Driver::HostDevice { aio, .. } = &mut self.driver {
            *aio = Some(how);
        }
        self
    }

    /// The same, passing discards down, and with writes of zeroes freeing space.
    #[must_use]
    pub fn thin(mut self) -> Self {
        self.discard = Some(Discard::Unmap);
        self.detect_zeroes = Some(DetectZeroes::Unmap);
        self
    }

    /// The same, read-only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = Some(true);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_are_written_as_qemu_reads_them_and_read_back() {
        let file = Node::file("f", "/a/b").direct().aio(Aio::IoUring);
        let server = Address::Unix {
            path: "/n.sock".into(),
        };
        let nbd = Driver::Nbd {
            server,
            export: Some("e".into()),
            tls_creds: None,
            tls_hostname: None,
            reconnect_delay: Some(30),
            open_timeout: None,
        };
        let cases = [
            (
                Node::qcow2("q", file).thin(),
                json!({"node-name":"q","driver":"qcow2","discard":"unmap","detect-zeroes":"unmap","file":{
                    "node-name":"f","driver":"file","filename":"/a/b","aio":"io_uring",
                    "cache":{"direct":true,"no-flush":false}}}),
            ),
            (
                Node::qcow2("o", "f").over(None),
                json!({"node-name":"o","driver":"qcow2","file":"f","backing":null}),
            ),
            (
                Node::throttle("t", "g", "q"),
                json!({"node-name":"t","driver":"throttle","throttle-group":"g","file":"q"}),
            ),
            (
                Node::new("n", nbd),
                json!({"node-name":"n","driver":"nbd","server":{"type":"unix","path":"/n.sock"},"export":"e",
                    "reconnect-delay":30}),
            ),
        ];
        for (node, expected) in cases {
            assert_eq!(serde_json::to_value(&node).unwrap(), expected);
            assert_eq!(serde_json::from_value::<Node>(expected).unwrap(), node);
        }
    }
}
