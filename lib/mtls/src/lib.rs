//! How is a certificate used, and read again when it was renewed?
