//! What the test of the package gets from `cargo xtask dist`.

/// The variable that names the package.
pub const PACKAGE: &str = "FAILOVER_PACKAGE";

/// The variable that names the machine to install it on: an archive of a minimal Debian.
pub const MACHINE: &str = "FAILOVER_PACKAGE_MACHINE";

/// The packages that machine has beside the essential ones.
pub const MACHINE_HAS: [&str; 5] = [
    "systemd",
    // Makes systemd the machine's init.
    "systemd-sysv",
    // What `apt` would install with ours.
    "nftables",
    "ca-certificates",
    // Looks for processes.
    "procps",
];
