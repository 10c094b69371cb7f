//! JSON-RPC 1.0 and 2.0 peer over any byte stream.
