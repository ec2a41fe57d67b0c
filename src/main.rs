//! The `homing` command: homing with no rules but its own.

use std::process::ExitCode;

use homing::server::Homing;

/// Chosen by measurement: throughput and memory per idle connection both count.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    small_pages();
    homing::main(Homing::builder().after_load(give_back))
}

/// The allocator asks for huge pages, which count as a whole when a byte of them is used. Buffers of 64 KiB for clients
/// that send a byte now and then would take four times the memory, and nothing is faster for it.
fn small_pages() {
    // A kernel that does not know huge pages does not need to be told.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// A load takes several times the memory of the configuration that comes of it. The allocator would keep the rest for a
/// thread that never needs it again.
fn give_back() {
    // SAFETY: it is about memory that nobody has.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
