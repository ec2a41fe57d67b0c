//! The `homing` command: homing with no rules but its own.

use std::process::ExitCode;

use homing::server::Homing;

/// Chosen by measurement: throughput and memory per idle connection both count.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    homing::main(Homing::builder().after_load(give_back))
}

/// A load takes several times the memory of the configuration that comes of it. The allocator would keep the rest for a
/// thread that never needs it again.
fn give_back() {
    // SAFETY: it is about memory that nobody has.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
