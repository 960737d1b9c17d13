//! What the model says of each step, and whether the store says the same.
//!
//! ```text
//!   worked and durable   --> promised: nothing before it may be missing after a cut
//!   worked, and queued   --> compared: it is supplied, and not in the catalog
//!   failed               --> failed:   what is supplied is as before, with what is queued or without
//! ```

use super::{Broken, World, lost, mixed};
use crate::{
    history::{Contents, Object, Print, Step, print},
    store::contents,
};

impl World {
    pub(super) fn step(&mut self, start: usize, promised: bool, state: Print, what: impl Into<String>) {
        self.history.steps.push(Step {
            start,
            end: self.disk.position(),
            promised,
            state: Some(state),
            what: what.into(),
        });
    }

    /// The state after a change of the catalog, or of nothing but durability, that worked: all before is durable.
    pub(super) fn promised(&mut self, start: usize, what: &str) -> Result<(), Broken> {
        let found = self.read()?;
        self.learn(&found, what)?;
        self.firm = self.supplied.clone();
        let state = print(&self.supplied);
        self.step(start, true, state, what);
        Ok(())
    }

    /// Everything is durable, and `found`: what is not known of the catalog is so now.
    fn learn(&mut self, found: &Contents, what: &str) -> Result<(), Broken> {
        self.compare_bytes(found, what)?;
        for (name, object) in &mut self.supplied {
            let (said, firm) = (found[name].entry, self.firm.get(name).map(|firm| firm.entry));
            let rises = firm.is_none_or(|firm| said.version >= firm.version);
            if !object.entry.allows(&said) || !rises {
                let known = object.entry;
                return Err(mixed(format!(
                    "after {what} the catalog says {said:?} of {name}, not {known:?}"
                )));
            }
            object.entry = said;
        }
        Ok(())
    }

    /// All that was queued is written. Where nothing was, nothing new is promised: a call that failed since the last
    /// promise may still have arrived.
    pub(super) fn written(&mut self, start: usize, what: &str) -> Result<(), Broken> {
        match start == self.disk.position() && same_bytes(&self.firm, &self.supplied) {
            true => self.compare(what),
            false => self.promised(start, what),
        }
    }

    /// What is read includes what is queued, what the catalog says does not.
    pub(super) fn compare(&mut self, what: &str) -> Result<(), Broken> {
        let found = self.read()?;
        self.compare_bytes(&found, what)?;
        self.compare_catalog(&found, what)
    }

    fn compare_bytes(&self, found: &Contents, what: &str) -> Result<(), Broken> {
        match same_bytes(found, &self.supplied) {
            true => Ok(()),
            false => Err(mixed(format!("after {what} the store supplies something else"))),
        }
    }

    fn compare_catalog(&self, found: &Contents, what: &str) -> Result<(), Broken> {
        let allows = |(name, object): (&String, &Object)| {
            let firm = self.firm.get(name);
            firm.is_some_and(|firm| firm.entry.allows(&object.entry))
        };
        match found.iter().find(|entry| !allows(*entry)) {
            None => Ok(()),
            Some((name, object)) => Err(mixed(format!(
                "after {what} the catalog says {:?} of {name}, not {:?}",
                object.entry,
                self.firm.get(name).map(|firm| firm.entry)
            ))),
        }
    }

    pub(super) fn read(&mut self) -> Result<Contents, Broken> {
        loop {
            let (failed, first) = (self.disk.failed(), self.numbers + 1);
            self.numbers += self.shape.names.len() as u64;
            match contents(&self.store(), first) {
                Ok(found) => return Ok(found),
                // The disk's reads work again after a few.
                Err(error) => self.read_refused(failed, &error, "reading")?,
            }
        }
    }

    /// Something failed that would have given `would`. What is supplied is as before, with what is queued or without.
    pub(super) fn failed(&mut self, start: usize, would: &Contents, what: &str) -> Result<(), Broken> {
        let what = format!("{what}, which failed");
        self.step(start, false, print(would), what.clone());
        let found = self.read()?;
        let late: usize = self
            .tasks
            .iter()
            .flat_map(|task| task.open.values())
            .map(|open| open.ear.take_late())
            .sum();
        self.compare_catalog(&found, &what)?;
        if same_bytes(&found, &self.supplied) {
            if same_bytes(&self.firm, &self.supplied) {
                // What was queued may be gone.
                for (name, object) in &mut self.supplied {
                    object.entry.forget_unless(&self.firm[name].entry);
                }
            }
        } else {
            if !same_bytes(&found, &self.firm) {
                return Err(mixed(format!("after {what}, the store supplies something else")));
            }
            if late == 0 && self.tasks.iter().any(|task| !task.open.is_empty()) {
                // The objects of the queued calls may be closed, and then nobody is there to be told.
                let open: Vec<_> = self.tasks.iter().flat_map(|task| task.open.keys()).collect();
                let bytes = |contents: &Contents, name: &String| {
                    contents.get(name).map(|object| object.bytes.clone())
                };
                let gone = |name: &&&String| bytes(&self.firm, name) != bytes(&self.supplied, name);
                if let Some(name) = open.iter().find(gone) {
                    return Err(lost(format!(
                        "after {what}, queued pages of {name} are gone untold"
                    )));
                }
            }
            self.supplied = self.firm.clone();
            for open in self.tasks.iter_mut().flat_map(|task| task.open.values_mut()) {
                open.resident.values_mut().for_each(|page| page.dirty = true);
            }
        }
        let state = print(&self.supplied);
        self.step(start, false, state, what);
        Ok(())
    }
}

/// Whether both hold the same bytes, whatever the catalog says.
pub(super) fn same_bytes(one: &Contents, other: &Contents) -> bool {
    let same =
        |(name, object): (&String, &Object)| other.get(name).is_some_and(|found| object.bytes == found.bytes);
    one.len() == other.len() && one.iter().all(same)
}
