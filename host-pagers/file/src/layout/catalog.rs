//! [`Catalog`]: the names of the store and what is known about each object; and its encoding as a snapshot.
//!
//! ```text
//!   snapshot: next id u64, object count u32, objects of
//!             { id u64, size u64, version u64, address u64 (all ones: none), flags u8 (0), name length u8, name }
//! ```
//!
//! Invariants:
//! - names and ids are each used once; an id is not used again after its object is removed;
//! - the catalog changes only by [`Catalog::apply`] and [`Catalog::touch`], in the order of the journal, so that
//!   replay arrives at the same one.

use std::collections::BTreeMap;

use vmsync_core::pager::ObjectName;

use crate::{
    layout::{
        Cursor,
        entry::{CatalogChange, decode_name},
    },
    limits::{NUMBER_MAX, OBJECT_BYTES_MAX, OBJECTS_MAX},
};

/// An address that stands for none.
const ADDRESS_NONE: u64 = u64::MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CatalogEntry {
    pub(crate) name: ObjectName,
    pub(crate) size: u64,
    pub(crate) version: u64,
    pub(crate) address: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Catalog {
    next: u64,
    objects: BTreeMap<u64, CatalogEntry>,
    names: BTreeMap<ObjectName, u64>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            next: 1,
            objects: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }
}

impl Catalog {
    /// An id that no object had; each call gives another.
    pub(crate) fn take_id(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn get(&self, object: u64) -> Option<&CatalogEntry> {
        self.objects.get(&object)
    }

    pub(crate) fn find(&self, name: &ObjectName) -> Option<(u64, &CatalogEntry)> {
        let id = *self.names.get(name)?;
        Some((id, self.objects.get(&id).expect("names and objects agree")))
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (u64, &CatalogEntry)> {
        self.objects.iter().map(|(id, entry)| (*id, entry))
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Does a journaled change. `None` where it contradicts the catalog, which only damage can cause.
    pub(crate) fn apply(&mut self, change: &CatalogChange) -> Option<()> {
        match change {
            CatalogChange::Address { object, address } => {
                self.objects.get_mut(object)?.address = Some(*address);
            }
            CatalogChange::Grow { object, size } => {
                let entry = self.objects.get_mut(object)?;
                entry.size = entry.size.max(*size);
                return (entry.size <= OBJECT_BYTES_MAX).then_some(());
            }
            CatalogChange::Remove { object } => {
                let entry = self.objects.remove(object)?;
                self.names.remove(&entry.name);
            }
            CatalogChange::Create { object, size, name } => {
                self.next = self.next.max(object.saturating_add(1));
                let entry = CatalogEntry {
                    name: name.clone(),
                    size: *size,
                    version: 0,
                    address: None,
                };
                return self.insert(*object, entry);
            }
        }
        Some(())
    }

    /// The call `sequence` changed pages of `object`. `None` as above: versions only rise.
    pub(crate) fn touch(&mut self, object: u64, sequence: u64) -> Option<()> {
        let entry = self.objects.get_mut(&object)?;
        entry.version = (sequence >= entry.version).then_some(sequence)?;
        Some(())
    }

    fn insert(&mut self, id: u64, entry: CatalogEntry) -> Option<()> {
        let used = self.objects.contains_key(&id) || self.names.contains_key(&entry.name);
        let large = id >= NUMBER_MAX || entry.size > OBJECT_BYTES_MAX || self.len() >= OBJECTS_MAX;
        if used || large {
            return None;
        }
        self.names.insert(entry.name.clone(), id);
        self.objects.insert(id, entry);
        assert!(self.names.len() == self.objects.len());
        Some(())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.objects.len() <= OBJECTS_MAX);
        let mut bytes = Vec::with_capacity(12 + 64 * self.objects.len());
        bytes.extend_from_slice(&self.next.to_le_bytes());
        let count = u32::try_from(self.objects.len()).expect("objects are limited");
        bytes.extend_from_slice(&count.to_le_bytes());
        for (id, entry) in &self.objects {
            for number in [
                *id,
                entry.size,
                entry.version,
                entry.address.unwrap_or(ADDRESS_NONE),
            ] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.push(0);
            bytes.push(u8::try_from(entry.name.as_str().len()).expect("names are checked"));
            bytes.extend_from_slice(entry.name.as_str().as_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let mut catalog = Self {
            next: cursor.u64()?,
            ..Self::default()
        };
        for _ in 0..cursor.u32()? {
            let (id, size, version) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
            let address = Some(cursor.u64()?).filter(|address| *address != ADDRESS_NONE);
            let flags = cursor.u8()?;
            let name = decode_name(&mut cursor)?;
            if flags != 0 || id >= catalog.next {
                return None;
            }
            catalog.insert(
                id,
                CatalogEntry {
                    name,
                    size,
                    version,
                    address,
                },
            )?;
        }
        (cursor.0.is_empty() && catalog.next <= NUMBER_MAX).then_some(catalog)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_comes_back_as_it_was() {
        let mut catalog = Catalog::default();
        for (index, name) in ["one", "two", "three"].into_iter().enumerate() {
            let (object, size) = (catalog.take_id(), 4096 * index as u64);
            let name = ObjectName::new(name).unwrap();
            catalog
                .apply(&CatalogChange::Create { object, size, name })
                .unwrap();
        }
        catalog.touch(2, 40).unwrap();
        catalog
            .apply(&CatalogChange::Address {
                object: 2,
                address: 0x10_0000,
            })
            .unwrap();
        catalog.apply(&CatalogChange::Remove { object: 3 }).unwrap();
        assert_eq!(Catalog::decode(&catalog.encode()), Some(catalog.clone()));
        assert_eq!(catalog.take_id(), 4, "ids are not used again");
        assert_eq!(catalog.apply(&CatalogChange::Remove { object: 3 }), None);
        let again = CatalogChange::Create {
            object: 9,
            size: 0,
            name: ObjectName::new("one").unwrap(),
        };
        assert_eq!(catalog.apply(&again), None, "names are used once");
        for object in [NUMBER_MAX, u64::MAX] {
            let name = ObjectName::new("beyond").unwrap();
            let beyond = CatalogChange::Create {
                object,
                size: 0,
                name,
            };
            assert_eq!(catalog.clone().apply(&beyond), None, "ids are counted");
        }
        assert_eq!(catalog.touch(2, 39), None, "versions only rise");
        let bytes = catalog.encode();
        assert!((0..bytes.len()).all(|length| Catalog::decode(&bytes[..length]).is_none()));
    }
}
