//! homing from outside: the real program, real sockets, servers and clients that remember and misbehave.

mod clone_faults;
mod clones;
mod listen;
mod pools;
mod routing;
mod site_faults;
mod sites;
mod support;
