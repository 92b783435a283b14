//! The root of the cgroup2 hierarchy, which the programs that count and name connections attach to.

use std::{
    ffi::CStr,
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::PathBuf,
};

use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use super::KernelError;

/// Opens the root of the hierarchy, also where it is mounted nowhere that this process can see.
pub(super) fn root() -> Result<File, KernelError> {
    let path = "/proc/self/mountinfo";
    let mounts = fs::read_to_string(path).map_err(|error| KernelError::system(format!("read {path}"), error))?;
    if let Some(root) = mount_point(&mounts) {
        return File::open(&root).map_err(|error| KernelError::system(format!("open {}", root.display()), error));
    }
    // As under `ip netns exec`, which puts a new /sys over the one that it was mounted in.
    unmounted_root().map_err(|error| KernelError::Missing {
        what: format!("no cgroup2 file system is mounted, and none can be made for the gate alone ({error})"),
        remedy: "mount -t cgroup2 cgroup2 /sys/fs/cgroup".to_owned(),
    })
}

/// The mount point of a whole cgroup2 hierarchy in a mountinfo file (proc_pid_mountinfo(5)); of part of one, if there is no whole.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    let mut candidates: Vec<(bool, PathBuf)> = mounts
        .lines()
        .filter_map(|line| {
            let (fields, kind) = line.split_once(" - ")?;
            let mut fields = fields.split(' ').skip(3);
            let (root, mount_point) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup2 ").then(|| (root != "/", PathBuf::from(mount_point)))
        })
        .collect();
    candidates.sort();
    candidates.into_iter().next().map(|(_, path)| path)
}

/// The command of fsconfig(2) that makes the file system (`enum fsconfig_command` in the kernel's `mount.h`).
const FSCONFIG_CMD_CREATE: libc::c_long = 6;
/// Makes the descriptor one that no other program inherits.
const FSOPEN_CLOEXEC: libc::c_long = 1;
/// As [`FSOPEN_CLOEXEC`].
const FSMOUNT_CLOEXEC: libc::c_long = 1;

/// The root of a cgroup2 file system that is mounted nowhere and goes when it is closed. There is only one hierarchy: this is the
/// same one that others see.
fn unmounted_root() -> io::Result<File> {
    let kind: &CStr = c"cgroup2";
    // SAFETY: fsopen(2) reads the name, which ends in a zero, and makes a descriptor.
    let context = descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: this command of fsconfig(2) takes neither key nor value.
    let made =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, nothing, nothing, 0) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fsmount(2) takes numbers only and makes a descriptor.
    let mount = descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })?;
    // The descriptor of a mount only names a place; what the programs attach to is a directory.
    let root = openat(&mount, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(root.into())
}

/// Takes the descriptor that a system call answers with.
fn descriptor(answer: libc::c_long) -> io::Result<OwnedFd> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(answer).map_err(io::Error::other)?;
    // SAFETY: the kernel made it just now for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_where_it_is_mounted() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      40 30 0:36 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let nested = "31 30 0:27 /user.slice /mnt/part rw - cgroup2 cgroup2 rw\n\
                      40 30 0:36 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(nested), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(mount_point("30 25 0:26 / /sys rw - sysfs sysfs rw\n"), None);
    }
}
