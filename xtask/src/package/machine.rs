//! The machine that the package is tried on: Debian 12 with its own kernel and systemd as its first program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    oldest::{
        self, DONE,
        image::{self, Kernel},
    },
    process::{self, say},
    setup::{self, debian},
    workspace,
};

/// The kernel's first program: finds the disk and begins what is on it.
const INIT: &str = include_str!("init.sh");
/// What happens there, in a new machine each.
const STORIES: [(&str, &str); 2] =
    [("first-hour", include_str!("first_hour.sh")), ("package", include_str!("story.sh"))];
/// What the stories are made of, what begins them and comes after them, and what the first one reads.
const FILES: [(&str, &str); 6] = [
    ("steps.sh", include_str!("steps.sh")),
    ("story.service", include_str!("story.service")),
    ("end.sh", include_str!("end.sh")),
    ("done", DONE),
    ("main.cf", include_str!("main.cf")),
    ("first-hour.md", include_str!("../../../docs/first-hour.md")),
];

/// The disk, of which most is empty.
const DISK: &str = "1G";

/// Plays all stories of the package, and of the next one, which takes over; returns whether all went as it should.
pub(super) fn play(package: &Path, next: &Path) -> Result<bool> {
    setup::ensure(&[setup::Part::Sandbox, setup::Part::Emulation, setup::Part::Machine])?;
    let folder = workspace::target().join("machine");
    let kernel = image::kernel(&workspace::target().join("oldest"))?;
    let first = first_files(&folder, &kernel)?;
    let mut passed = true;
    for (name, story) in STORIES {
        let disk = disk(&folder, package, next, story)?;
        say(&format!("booting Debian 12 with Linux {}: {name}", kernel.version));
        let transcript = folder.join(format!("{name}.transcript"));
        let drive = format!("file={},format=raw,if=virtio,cache=unsafe", disk.display());
        passed &= oldest::boot(&kernel, &first, &transcript, &["-drive", &drive])?;
        fs::remove_file(&disk).context("can't remove the machine's disk")?;
    }
    Ok(passed)
}

/// What the kernel has before its disk: busybox and the modules, named so that they are loaded in their order.
fn first_files(folder: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let root = folder.join("first");
    if root.exists() {
        fs::remove_dir_all(&root).context("can't remove the machine's former files")?;
    }
    for part in ["bin", "dev", "proc", "modules", "disk"] {
        fs::create_dir_all(root.join(part)).context("can't make the machine's folders")?;
    }
    image::copy(Path::new("/bin/busybox"), &root.join("bin/busybox"))?;
    for (number, module) in image::DISK_MODULES.iter().chain(&image::MODULES).enumerate() {
        image::copy(&kernel.module(module)?, &root.join("modules").join(format!("{number:02}-{module}.ko")))?;
    }
    let init = root.join("init");
    fs::write(&init, INIT).context("can't write the first program")?;
    process::run(Command::new("chmod").arg("755").arg(&init))?;
    image::pack(&root, &folder.join("first.cpio"))
}

/// Debian as it was installed, with a story and what it needs.
fn disk(folder: &Path, package: &Path, next: &Path, text: &str) -> Result<PathBuf> {
    let story = folder.join("story");
    fs::create_dir_all(&story).context("can't make the story's folder")?;
    let put = |from: &Path, name: &str| image::copy(from, &story.join(name));
    put(package, "mxscreen.deb")?;
    put(next, "next.deb")?;
    put(Path::new("/bin/busybox"), "busybox")?;
    for (name, text) in FILES.into_iter().chain([("story.sh", text)]) {
        fs::write(story.join(name), text).with_context(|| format!("can't write {name}"))?;
    }
    let key = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"];
    let mut openssl = Command::new("openssl");
    openssl.args(key).args(["-subj", "/CN=mx.example.test", "-keyout", "key.pem", "-out", "certificate.pem"]);
    process::output(openssl.current_dir(&story))?;
    let root = debian::root();
    let sh = "rm -rf \"$0/story\" && cp -r \"$1\" \"$0/story\" && cp \"$1/story.service\" \"$0/etc/systemd/system/\" \
              && mkdir -p \"$0/etc/systemd/system/multi-user.target.wants\" \
              && ln -sf ../story.service \"$0/etc/systemd/system/multi-user.target.wants/\"";
    process::run(process::as_root("sh")?.args(["-c", sh]).arg(&root).arg(&story))?;
    let disk = folder.join("disk.img");
    if disk.exists() {
        fs::remove_file(&disk).context("can't remove the machine's former disk")?;
    }
    // The files are root's.
    let mut make = process::as_root("mke2fs")?;
    process::output(make.args(["-q", "-t", "ext4", "-O", "^metadata_csum", "-d"]).arg(&root).arg(&disk).arg(DISK))?;
    if !process::is_root() {
        process::run(process::as_root("chmod")?.arg("666").arg(&disk))?;
    }
    Ok(disk)
}
