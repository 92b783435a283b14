//! The machine's kernel, and all the files that it has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{DONE, KERNEL, TEST_PROGRAM};
use crate::{
    process::{find, output, run, say},
    workspace,
};

/// The first program that the machine runs.
const INIT: &str = include_str!("init.sh");
/// A mail server, the gate before it, and a client.
const STORY: &str = include_str!("story.sh");

/// What tests and story need of the kernel that is not built in.
pub(crate) const MODULES: [&str; 6] = ["veth", "tun", "sch_ingress", "cls_bpf", "cls_u32", "sch_tbf"];
/// Programs that busybox has not, or not with the options that the tests use.
const PROGRAMS: [&str; 5] = ["ip", "tc", "bpftool", "nsenter", "setpriv"];

/// What a machine needs besides that has a disk, and asks for its sockets without a program that loads modules, in the order in which they need each other.
pub(crate) const DISK_MODULES: [&str; 13] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "crc16",
    "crc32c_generic",
    "mbcache",
    "jbd2",
    "ext4",
    "inet_diag",
    "tcp_diag",
];

/// A kernel that is unpacked.
pub(crate) struct Kernel {
    pub(crate) file: PathBuf,
    pub(crate) version: String,
    modules: PathBuf,
}

impl Kernel {
    /// The file of a module.
    pub(crate) fn module(&self, name: &str) -> Result<PathBuf> {
        let found = output(Command::new("find").arg(&self.modules).args(["-name", &format!("{name}.ko")]))?;
        let found = found.lines().next().with_context(|| format!("the kernel has no module {name}"))?;
        Ok(PathBuf::from(found))
    }
}

/// The package of the kernel: the latest of its line that apt knows.
pub(super) fn package() -> Result<String> {
    if find("apt-cache").is_none() {
        bail!("the kernel comes from Debian, and there is no apt-cache");
    }
    let known = output(Command::new("apt-cache").args(["pkgnames", KERNEL]))?;
    let number = |name: &str| name.strip_prefix(KERNEL)?.strip_suffix("-amd64")?.parse::<u32>().ok();
    let latest = known.lines().filter_map(number).max();
    latest.map(|number| format!("{KERNEL}{number}-amd64")).with_context(|| format!("apt knows no package {KERNEL}*"))
}

/// Fetches and unpacks the kernel, unless that was done before. Nothing of it is installed.
pub(crate) fn kernel(folder: &Path) -> Result<Kernel> {
    let package = package()?;
    let version = package.trim_start_matches("linux-image-").to_owned();
    let place = folder.join(&version);
    let kernel = Kernel {
        file: place.join(format!("boot/vmlinuz-{version}")),
        modules: place.join("lib/modules").join(&version),
        version,
    };
    if kernel.file.is_file() && MODULES.iter().chain(&DISK_MODULES).all(|module| kernel.module(module).is_ok()) {
        return Ok(kernel);
    }
    say(&format!("fetching {package}, to be unpacked in {}", folder.display()));
    let fresh = folder.join("fresh");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).context("can't remove what an earlier try left")?;
    }
    fs::create_dir_all(&fresh).context("can't make a folder for the kernel")?;
    run(Command::new("apt-get").args(["-q", "download", &package]).current_dir(&fresh))?;
    let fetched = fs::read_dir(&fresh).context("can't list what was fetched")?.flatten().next();
    let fetched = fetched.context("nothing was fetched")?.path();
    unpack(&fetched, &fresh)?;
    fs::remove_file(&fetched).context("can't remove the package")?;
    if place.exists() {
        fs::remove_dir_all(&place).context("can't remove what lacks a part")?;
    }
    fs::rename(&fresh, &place).context("can't put the kernel in its place")?;
    Ok(kernel)
}

/// The kernel and the modules that are needed, out of a package.
fn unpack(package: &Path, into: &Path) -> Result<()> {
    let mut reader = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("dpkg-deb")?;
    let archive = reader.stdout.take().context("dpkg-deb has no output")?;
    let mut tar = Command::new("tar");
    // The folder holds for the patterns behind it only.
    tar.args(["-x", "-C"]).arg(into).args(["--wildcards", "./boot/vmlinuz-*"]);
    let modules = MODULES.iter().chain(&DISK_MODULES).map(|module| format!("*/{module}.ko"));
    run(tar.args(modules).stdin(archive))?;
    if !reader.wait().context("lost dpkg-deb")?.success() {
        bail!("{} can't be read", package.display());
    }
    Ok(())
}

/// Makes the archive that the kernel unpacks into its memory: busybox, the tests, the gate, what they need, and what to do.
pub(super) fn build(folder: &Path, kernel: &Kernel, tests: &Path, names: &[String]) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).context("can't remove the machine's former files")?;
    }
    for part in ["bin", "dev", "proc", "sys", "run", "tmp", "etc", "modules", "work"] {
        fs::create_dir_all(root.join(part)).context("can't make the machine's folders")?;
    }
    copy(Path::new("/bin/busybox"), &root.join("bin/busybox"))?;
    for program in PROGRAMS {
        let file = find(program).with_context(|| format!("{program} is missing"))?;
        copy(&file, &root.join("bin").join(program))?;
        libraries(&file, &root)?;
    }
    for (file, name) in [(tests, TEST_PROGRAM), (&workspace::gate(), "mxscreen")] {
        let place = root.join("work").join(name);
        run(Command::new("objcopy").arg("--strip-debug").arg(file).arg(&place))?;
        libraries(file, &root)?;
    }
    for module in MODULES {
        copy(&kernel.module(module)?, &root.join("modules").join(format!("{module}.ko")))?;
    }
    // The tests leave what the verifier said in cargo's own folder.
    let kept = workspace::target().join("tmp");
    let write = |name: &str, text: &str| {
        fs::write(root.join("work").join(name), text).with_context(|| format!("can't write {name}"))
    };
    write("tests", &names.join("\n"))?;
    write("kept", &kept.display().to_string())?;
    write("done", DONE)?;
    write("story.sh", STORY)?;
    let init = root.join("init");
    fs::write(&init, INIT).context("can't write the first program")?;
    run(Command::new("chmod").arg("755").arg(&init))?;
    pack(&root, &folder.join("image.cpio"))
}

/// Makes a kernel's first file system of what is in a folder.
pub(crate) fn pack(root: &Path, image: &Path) -> Result<PathBuf> {
    let pack = "cd \"$0\" && find . | busybox cpio -o -H newc > \"$1\"";
    output(Command::new("sh").args(["-c", pack]).arg(root).arg(image))?;
    Ok(image.to_owned())
}

/// Copies the shared libraries that a program needs to where it looks for them.
fn libraries(program: &Path, root: &Path) -> Result<()> {
    let listed = output(Command::new("ldd").arg(program))?;
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
        let place = root.join(library.strip_prefix("/").unwrap_or(library));
        if !place.exists() {
            copy(library, &place)?;
        }
    }
    Ok(())
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().context("a file stands in a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("can't make {}", parent.display()))?;
    fs::copy(from, to).map(drop).with_context(|| format!("can't copy {}", from.display()))
}
