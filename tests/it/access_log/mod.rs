//! The access log: what a line says of a request, whose requests have one, and the file that it is written to.

mod ends;
mod fields;
mod files;
mod headers;
mod ids;
