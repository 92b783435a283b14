//! The commands of bpf(2) that aya has no call for.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::Pod;

use serde::{Deserialize, Serialize};

use super::KernelError;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The attributes of `BPF_OBJ_GET`.
#[repr(C)]
struct ObjectGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The attributes of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct ObjectInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, for links to interfaces.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    interface: u32,
    // The kernel fills whole words of eight bytes.
    attach_type: u32,
}

/// The attributes of the commands for one entry.
#[repr(C)]
struct Element {
    map_fd: u32,
    reserved: u32,
    key: u64,
    /// Of the value, or of the next key.
    value: u64,
    flags: u64,
}

/// The attributes of `BPF_LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    program_fd: u32,
    flags: u32,
    former_program_fd: u32,
}

/// The attributes of `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// The attributes of the batch commands.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Writes an entry for each key, the values in the same order; returns how many were written: fewer where one can't be, none where
/// the kernel has no such command for this kind of map.
pub(super) fn update_batch<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> usize {
    debug_assert_eq!(keys.len(), values.len(), "a value for each key");
    batch(BPF_MAP_UPDATE_BATCH, map, keys, values.get(..keys.len()).map_or(0, |values| values.as_ptr() as u64))
}

/// Removes the entries of these keys; returns how many were removed: fewer where one is not there, none where the kernel has no
/// such command for this kind of map.
pub(super) fn delete_batch<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> usize {
    batch(BPF_MAP_DELETE_BATCH, map, keys, 0)
}

/// The values of a per-processor map under `key`, one for each processor that there may be.
///
/// aya has the same, but reads the number of processors from a file each time.
pub(super) fn lookup_each<K: Pod, V: Pod + Default>(
    map: BorrowedFd<'_>,
    key: &K,
    processors: Processors,
) -> io::Result<Vec<V>> {
    let mut values = vec![V::default(); processors.0];
    element(BPF_MAP_LOOKUP_ELEM, map, key, values.as_mut_ptr() as u64, 0)?;
    Ok(values)
}

/// Writes zeroes under `key` of a per-processor map, unless there is an entry.
pub(super) fn insert_zeroes<K: Pod, V: Pod + Default>(
    map: BorrowedFd<'_>,
    key: &K,
    processors: Processors,
) -> io::Result<()> {
    const BPF_NOEXIST: u64 = 1;
    let zeroes = vec![V::default(); processors.0];
    element(BPF_MAP_UPDATE_ELEM, map, key, zeroes.as_ptr() as u64, BPF_NOEXIST)
}

fn element<K: Pod>(command: libc::c_long, map: BorrowedFd<'_>, key: &K, value: u64, flags: u64) -> io::Result<()> {
    let map_fd = u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?;
    let mut attributes = Element { map_fd, reserved: 0, key: std::ptr::from_ref(key) as u64, value, flags };
    bpf(command, &mut attributes).map(drop)
}

/// How many processors there may be: as many values the kernel reads and writes of a per-processor map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processors(usize);

impl Processors {
    /// As the kernel says, in a file.
    ///
    /// # Errors
    ///
    /// The file can't be read.
    pub fn count() -> Result<Self, KernelError> {
        let count = aya::util::nr_cpus();
        count.map(Self).map_err(|(path, error)| KernelError::system(format!("read {path}"), error))
    }
}

fn batch<K: Pod>(command: libc::c_long, map: BorrowedFd<'_>, keys: &[K], values: u64) -> usize {
    let (Ok(count), Ok(map_fd)) = (u32::try_from(keys.len()), u32::try_from(map.as_raw_fd())) else { return 0 };
    let mut attributes =
        Batch { in_batch: 0, out_batch: 0, keys: keys.as_ptr() as u64, values, count, map_fd, elem_flags: 0, flags: 0 };
    match bpf(command, &mut attributes) {
        Ok(_) => keys.len(),
        // An error that comes before the first entry leaves the count as it was.
        Err(_) if attributes.count >= count => 0,
        Err(_) => attributes.count as usize,
    }
}

/// The index of the interface that the XDP or TCX link that is pinned at `path` is attached to; 0 if that interface is gone.
pub(super) fn link_interface(path: &Path) -> io::Result<u32> {
    let link = open_pinned(path)?;
    let mut info = LinkInfo::default();
    let bpf_fd = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
    let mut get = ObjectInfo { bpf_fd, info_len: size_of::<LinkInfo>() as u32, info: (&raw mut info) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut get)?;
    Ok(info.interface)
}

/// Detaches the link that is pinned at `path`, whoever made it; when this returns, its program runs no more.
pub(super) fn detach(path: &Path) -> io::Result<()> {
    let link = open_pinned(path)?;
    let link_fd = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
    match bpf(BPF_LINK_DETACH, &mut LinkDetach { link_fd }) {
        // The interface that it was attached to is gone already.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Puts `program` in the place of the one that the link pinned at `path` runs: no packet meets neither or both.
pub(super) fn update_link(path: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let link = open_pinned(path)?;
    let number = |fd: RawFd| u32::try_from(fd).map_err(io::Error::other);
    let mut update = LinkUpdate {
        link_fd: number(link.as_raw_fd())?,
        program_fd: number(program.as_raw_fd())?,
        flags: 0,
        former_program_fd: 0,
    };
    bpf(BPF_LINK_UPDATE, &mut update).map(drop)
}

/// The program that the link pinned at `path` runs, by the number that the kernel knows it by.
pub(super) fn link_program(path: &Path) -> io::Result<u32> {
    let link = open_pinned(path)?;
    let mut info = LinkInfo::default();
    let bpf_fd = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
    let mut get = ObjectInfo { bpf_fd, info_len: size_of::<LinkInfo>() as u32, info: (&raw mut info) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut get)?;
    Ok(info.program)
}

/// The first value of the array that is pinned at `path`, whatever its layout.
pub(super) fn first_value(path: &Path) -> io::Result<Vec<u8>> {
    let (map, _, value_size) = open_map(path)?;
    let key = 0u32;
    let mut value = vec![0; value_size];
    let mut get = Element {
        map_fd: map_fd(&map)?,
        reserved: 0,
        key: (&raw const key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    bpf(BPF_MAP_LOOKUP_ELEM, &mut get)?;
    Ok(value)
}

/// Copies the entries of the hash that is pinned at `path` to `to`. Values are cut or filled up with zeroes to `value_size` bytes, and
/// handed to `adjust`. Keys of another size than `key_size` mean something else: nothing is copied then.
pub(super) fn copy_entries(
    path: &Path,
    to: &impl AsFd,
    key_size: u32,
    value_size: u32,
    adjust: impl Fn(&mut [u8]),
) -> io::Result<()> {
    let (from, old_key_size, old_value_size) = open_map(path)?;
    if old_key_size != key_size as usize {
        return Ok(());
    }
    let (from_fd, to_fd) = (map_fd(&from)?, map_fd(&to.as_fd())?);
    each_entry(from_fd, old_key_size, old_value_size, |key, value| {
        value.resize(value_size as usize, 0);
        adjust(value);
        let mut put =
            Element { map_fd: to_fd, reserved: 0, key: key.as_ptr() as u64, value: value.as_ptr() as u64, flags: 0 };
        bpf(BPF_MAP_UPDATE_ELEM, &mut put).map(drop)
    })
}

/// The sockets in a hash of sockets whose values are cookies.
pub(super) fn sockets<K: Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, u64)>> {
    let mut found = Vec::new();
    each_entry(map_fd(&map)?, size_of::<K>(), size_of::<u64>(), |key, cookie| {
        if let Some(cookie) = cookie.first_chunk() {
            // SAFETY: as many bytes as the key's type has, which takes any bytes.
            found.push((unsafe { key.as_ptr().cast::<K>().read_unaligned() }, u64::from_ne_bytes(*cookie)));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Hands over the key and the value of each entry of a hash.
fn each_entry(
    map_fd: u32,
    key_size: usize,
    value_size: usize,
    mut each: impl FnMut(&[u8], &mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let mut key: Option<Vec<u8>> = None;
    loop {
        let mut next = vec![0; key_size];
        let before = key.as_ref().map_or(0, |key| key.as_ptr() as u64);
        let mut step = Element { map_fd, reserved: 0, key: before, value: next.as_mut_ptr() as u64, flags: 0 };
        match bpf(BPF_MAP_GET_NEXT_KEY, &mut step) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map(drop)?,
        }
        let mut value = vec![0; value_size];
        let mut get =
            Element { map_fd, reserved: 0, key: next.as_ptr() as u64, value: value.as_mut_ptr() as u64, flags: 0 };
        // An entry that went in between is one less.
        if bpf(BPF_MAP_LOOKUP_ELEM, &mut get).is_ok() {
            each(&next, &mut value)?;
        }
        key = Some(next);
    }
}

/// A pinned map that is not one for each processor, and the sizes of its keys and values in bytes.
fn open_map(path: &Path) -> io::Result<(OwnedFd, usize, usize)> {
    let info = aya::maps::MapInfo::from_pin(path).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    Ok((open_pinned(path)?, info.key_size() as usize, info.value_size() as usize))
}

fn map_fd(map: &impl AsFd) -> io::Result<u32> {
    u32::try_from(map.as_fd().as_raw_fd()).map_err(io::Error::other)
}

/// Fills `bytes` with random ones, as good as keys want them.
pub(super) fn random(bytes: &mut [u8]) -> io::Result<()> {
    // SAFETY: getrandom(2) writes at most as many bytes as there are.
    let read = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // Up to 256 bytes come whole or not at all.
    if usize::try_from(read).is_ok_and(|read| read == bytes.len()) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let pathname = CString::new(path.as_os_str().as_bytes())?;
    let mut get = ObjectGet { pathname: pathname.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &mut get)?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a descriptor that the kernel made just now for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the command reads and writes the attributes, which are as long as stated, and reads what they point to, which the
    // caller keeps: a path, room for as much as is asked for, or as many keys and values as they count.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
