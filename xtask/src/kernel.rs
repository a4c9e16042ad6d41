//! The packet tests on another kernel: Debian's stable one, in QEMU.
//!
//! Verifiers differ from kernel to kernel in what they accept and in how much work a program
//! makes them. The machine is emulated (no KVM), has nothing but busybox and the test binary,
//! and is gone after some seconds.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use failover_tests::{PRIVILEGED, command};

use crate::cargo::{cargo, target_dir};
use crate::setup::{self, Need};

/// Debian's package that depends on the current kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";
/// What the emulated machine prints before the exit status of the tests.
const STATUS: &str = "packet tests ended with status ";
/// Replies that the flip test asks for: emulation is slow.
const FLIP_REPLIES: &str = "20000";
/// Queries that the differential test asks.
const DIFFERENTIAL_QUERIES: &str = "5000";
/// Memory of the machine, in MiB.
const MEMORY: &str = "3072";

/// Runs the packet tests on the other kernel.
pub(crate) fn test() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the second kernel is one for x86-64 only");
    }
    setup::ensure(&[Need::Build, Need::Kernel])?;
    let directory = target_dir().join("kernel");
    fs::create_dir_all(&directory)?;
    let kernel = kernel(&directory)?;
    let initramfs = initramfs(&directory, &test_binary()?)?;
    run(&kernel, &initramfs)
}

/// The kernel's image, downloaded and unpacked once for each version.
fn kernel(directory: &Path) -> Result<PathBuf> {
    let depends = command::output(command::command("apt-cache").args(["depends", KERNEL]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .with_context(|| format!("the package {KERNEL} is not known; run `apt-get update`"))?;
    let unpacked = directory.join(package);
    if !unpacked.exists() {
        println!("second kernel: apt-get download {package}");
        setup::unpack(package, directory)?;
    }
    fs::read_dir(unpacked.join("boot"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
        })
        .with_context(|| format!("no kernel in the package {package}"))
}

/// The binary of the packet tests.
fn test_binary() -> Result<PathBuf> {
    let mut build = cargo();
    build.args([
        "test",
        "--no-run",
        "--package",
        "failover-tests",
        "--test",
        "program",
    ]);
    let messages = command::output(build.arg("--message-format=json-render-diagnostics"))?;
    messages
        .lines()
        .filter(|line| line.contains(r#""name":"program""#))
        .find_map(|line| {
            let (_, rest) = line.split_once(r#""executable":""#)?;
            Some(PathBuf::from(rest.split_once('"')?.0))
        })
        .context("cargo built no packet tests")
}

/// A file system of busybox, the tests, and the libraries these need.
fn initramfs(directory: &Path, tests: &Path) -> Result<PathBuf> {
    let root = directory.join("root");
    let _ = fs::remove_dir_all(&root);
    for name in ["bin", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    let busybox = command::find("busybox").context("busybox is not installed")?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    fs::copy(tests, root.join("bin/tests"))?;
    let libraries = command::output(command::command("ldd").arg(tests))?;
    for library in libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let copy = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().context("a library has a directory")?)?;
        fs::copy(library, copy)?;
    }
    let init = root.join("init");
    fs::write(
        &init,
        format!(
            "#!/bin/busybox sh\n\
             for fs in proc:proc sysfs:sys devtmpfs:dev; do /bin/busybox mount -t ${{fs%:*}} none /${{fs#*:}}; done\n\
             export {PRIVILEGED}=1 FAILOVER_FLIP_REPLIES={FLIP_REPLIES} \
             FAILOVER_DIFFERENTIAL_QUERIES={DIFFERENTIAL_QUERIES}\n\
             /bin/busybox uname -sr\n\
             /bin/tests --test-threads 2 2>&1\n\
             echo \"{STATUS}$?\"\n\
             /bin/busybox poweroff -f\n"
        ),
    )?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;

    let files = command::output(command::command("find").arg(".").current_dir(&root))?;
    let archive = directory.join("initramfs");
    let mut cpio = command::command("cpio")
        .args(["--quiet", "-o", "-H", "newc"])
        .current_dir(&root)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&archive)?)
        .spawn()
        .context("cannot run cpio")?;
    cpio.stdin
        .take()
        .context("cpio has an input")?
        .write_all(files.as_bytes())?;
    if !cpio.wait()?.success() {
        bail!("cpio failed");
    }
    Ok(archive)
}

/// Boots the machine; it runs the tests and switches itself off.
fn run(kernel: &Path, initramfs: &Path) -> Result<()> {
    let mut qemu = command::command("qemu-system-x86_64");
    qemu.args([
        "-nodefaults",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-no-reboot",
    ])
    .args(["-cpu", "max", "-smp", "2", "-m", MEMORY])
    .arg("-kernel")
    .arg(kernel)
    .arg("-initrd")
    .arg(initramfs)
    .args(["-append", "console=ttyS0 quiet loglevel=3 panic=-1"]);
    let output = command::output(&mut qemu)?;
    println!("second kernel: {}", output.trim());
    let status = output
        .lines()
        .find_map(|line| line.trim().split_once(STATUS))
        .with_context(|| format!("{} did not boot", kernel.display()))?
        .1;
    if status != "0" {
        bail!("the packet tests failed on {}", kernel.display());
    }
    Ok(())
}
