//! A durable set of small records: one JSON file each, fsync and rename, stamped with the boot id.
