//! Builds the XDP program.
use aya_build::{Package, Toolchain, build_ebpf};
fn main() -> anyhow::Result<()> {
    // SAFETY: single-threaded.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf,failover_xdp") };
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../failover-ebpf");
    println!("cargo:rerun-if-changed={}/../failover-common", env!("CARGO_MANIFEST_DIR"));
    build_ebpf([Package { name: "failover-ebpf", root_dir: dir, ..Package::default() }], Toolchain::Custom("failover-bpf"))
}
