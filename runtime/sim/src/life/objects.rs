//! What tasks do to objects: open, grow, map, close and remove them.

use std::{collections::BTreeMap, sync::Arc};

use vmsync_core::{
    PagerErrorKind,
    abi::VmProt,
    pager::{InitRequest, ObjectId, ObjectName, Pager},
};

use super::{Broken, World, lost, mixed};
use crate::{
    history::{Entry, Object},
    limits::ADDRESSES,
    task::{Ear, Open},
};

impl World {
    fn is_open(&self, name: &str) -> bool {
        self.tasks.iter().any(|task| task.open.contains_key(name))
    }

    pub(super) fn remove(&mut self) -> Result<(), Broken> {
        let name = &self.shape.names[self.random.below(self.shape.names.len())].clone();
        let (start, failed) = (self.disk.position(), self.disk.failed());
        let outcome = self.store().remove_object(&object_name(name));
        let what = format!("remove {name}");
        let mut would = self.supplied.clone();
        would.remove(name);
        match outcome {
            Ok(()) if self.is_open(name) => Err(lost(format!("{what}: it was open"))),
            Ok(()) => {
                if !self.supplied.contains_key(name) {
                    return Err(mixed(format!("{what}: there was none")));
                }
                self.supplied = would;
                self.promised(start, &what)
            }
            Err(error) if error.kind == PagerErrorKind::Busy && self.is_open(name) => Ok(()),
            Err(error) if error.kind == PagerErrorKind::NotFound && !self.supplied.contains_key(name) => {
                Ok(())
            }
            Err(error) => self
                .refused(failed, &error, &what)
                .and_then(|()| self.failed(start, &would, &what)),
        }
    }

    /// Opens an object that no task has open: makes it, grows it or takes it as it is.
    pub(super) fn open(&mut self, task: usize) -> Result<(), Broken> {
        let names = self.shape.names.iter();
        let free: Vec<_> = names.filter(|name| !self.is_open(name)).cloned().collect();
        if free.is_empty() || self.tasks[task].open.len() >= 2 {
            return self.close(task);
        }
        let name = &free[self.random.below(free.len())];
        let page_bytes = self.shape.page();
        let before = self
            .supplied
            .get(name)
            .map_or(0, |object| object.bytes.len() / page_bytes);
        let (first, most) = self.shape.pages(name);
        let pages = match before {
            0 => first.start + self.random.below(first.len()),
            _ => (before + self.random.below(2)).min(most),
        };
        let (object, ear) = (ObjectId(self.number()), Arc::new(Ear::default()));
        let request = InitRequest {
            page_size: self.shape.page_size,
            size_min: (pages * page_bytes) as u64,
            create: true,
            write: true,
        };
        let mut would = self.supplied.clone();
        let grown = would.entry(name.clone()).or_insert_with(|| Object {
            entry: Entry {
                address: Some(None),
                version: Some(0),
            },
            ..Object::default()
        });
        grown.bytes.resize(pages * page_bytes, 0);
        let (start, failed) = (self.disk.position(), self.disk.failed());
        let what = format!("open {name} with {pages} pages instead of {before}");
        match self
            .store()
            .init(object, &object_name(name), request, ear.clone())
        {
            Ok(_) => {
                let resident = BTreeMap::new();
                let open = Open {
                    object,
                    ear,
                    address: None,
                    resident,
                };
                self.tasks[task].open.insert(name.clone(), open);
                if would == self.supplied {
                    return Ok(());
                }
                self.supplied = would;
                self.promised(start, &what)
            }
            Err(error) => self
                .refused(failed, &error, &what)
                .and_then(|()| self.failed(start, &would, &what)),
        }
    }

    /// Lets an object grow that `task` has open, perhaps with pages of it on their way.
    pub(super) fn grow(&mut self, task: usize) -> Result<(), Broken> {
        let Some((name, object)) = self.some_open(task) else {
            return Ok(());
        };
        let page_bytes = self.shape.page();
        let before = self.supplied[&name].bytes.len() / page_bytes;
        if before >= self.shape.pages(&name).1 {
            return Ok(());
        }
        let size = (before + 1) * page_bytes;
        let mut would = self.supplied.clone();
        would
            .get_mut(&name)
            .expect("open objects stay")
            .bytes
            .resize(size, 0);
        let (start, failed) = (self.disk.position(), self.disk.failed());
        let what = format!("grow {name} from {before} pages");
        match self.store().grow(object, size as u64) {
            Ok(attributes) if attributes.size != size as u64 => {
                Err(lost(format!("{what}: it has {} bytes", attributes.size)))
            }
            Ok(_) => {
                self.supplied = would;
                self.promised(start, &what)
            }
            Err(error) => self
                .refused(failed, &error, &what)
                .and_then(|()| self.failed(start, &would, &what)),
        }
    }

    /// Maps an object that `task` has open, mostly where it was before.
    pub(super) fn map(&mut self, task: usize) -> Result<(), Broken> {
        let address = (1 + self.random.below(ADDRESSES) as u64) << 20;
        if let Some((name, object)) = self.some_open(task) {
            self.store().map(object, address, VmProt::READ | VmProt::WRITE);
            let open = self.tasks[task].open.get_mut(&name).expect("one of its names");
            open.address = Some(address);
        }
        Ok(())
    }

    fn some_open(&mut self, task: usize) -> Option<(String, ObjectId)> {
        let open = &self.tasks[task].open;
        let number = self.random.below(open.len().max(1));
        let (name, open) = open.iter().nth(number)?;
        Some((name.clone(), open.object))
    }

    pub(super) fn close(&mut self, task: usize) -> Result<(), Broken> {
        if let Some((_, open)) = self.tasks[task].open.pop_first() {
            self.store().terminate(open.object);
            let heard = open.ear.take();
            if !heard.completed.is_empty() {
                return Err(mixed("a completion that nobody asked for"));
            }
        }
        Ok(())
    }
}

fn object_name(name: &str) -> ObjectName {
    ObjectName::new(name).expect("the names are valid")
}
