//! An RFC 7047 (OVSDB) client: transactions, monitors with resume, clusters, TLS.
