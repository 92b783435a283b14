//! The maps of an installation, by name: all that is needed to fill and to read its tables.

use std::{
    collections::BTreeMap,
    fmt,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError},
};

use super::{KernelError, syscall::Processors};

/// Descriptors of maps, by name. Whoever holds them may read and write the maps, whatever his privileges.
pub struct Maps {
    maps: BTreeMap<String, OwnedFd>,
    processors: Processors,
}

impl Maps {
    /// The maps of these names in a loaded object.
    pub(super) fn of(ebpf: &Ebpf, names: &[&'static str]) -> Result<Self, KernelError> {
        let mut maps = Self::new(Processors::count()?);
        for &name in names {
            let descriptor = ebpf.map(name).and_then(data).ok_or_else(|| missing(name))?.fd().as_fd();
            let copy = descriptor
                .try_clone_to_owned()
                .map_err(|error| KernelError::system(format!("copy the descriptor of {name}"), error))?;
            maps.insert(name.to_owned(), copy);
        }
        Ok(maps)
    }

    /// None yet, on a host with so many processors.
    #[must_use]
    pub fn new(processors: Processors) -> Self {
        Self { maps: BTreeMap::new(), processors }
    }

    /// How many values a per-processor map has under each key.
    #[must_use]
    pub fn processors(&self) -> Processors {
        self.processors
    }

    /// Adds the map `name`.
    pub fn insert(&mut self, name: String, descriptor: OwnedFd) {
        self.maps.insert(name, descriptor);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.maps.iter().map(|(name, descriptor)| (name.as_str(), descriptor.as_fd()))
    }

    /// The map `name`, as the type of map that it is.
    pub(super) fn take<T: TryFrom<Map, Error = MapError>>(&mut self, name: &'static str) -> Result<T, KernelError> {
        let data = self.take_data(name)?;
        Map::from_map_data(data).and_then(T::try_from).map_err(KernelError::map(name))
    }

    /// The map `name`, whatever its type.
    pub(super) fn take_data(&mut self, name: &'static str) -> Result<MapData, KernelError> {
        let descriptor = self.maps.remove(name).ok_or_else(|| missing(name))?;
        MapData::from_fd(descriptor).map_err(KernelError::map(name))
    }
}

impl fmt::Debug for Maps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.maps.keys()).finish()
    }
}

fn missing(name: &str) -> KernelError {
    KernelError::Plan(format!("there is no map {name}"))
}

/// What is behind a map of any of the types that the object has.
pub(super) fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::SockHash(data)
        | Map::SockMap(data) => Some(data),
        _ => None,
    }
}
