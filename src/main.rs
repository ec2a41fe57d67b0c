//! The `homing` command: homing with no rules but its own.

use std::process::ExitCode;

use homing::server::Homing;

/// Chosen by measurement: throughput and memory per idle connection both count.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    homing::main(Homing::builder())
}
