//! What every object held after each step of a life, and what a power cut may leave of it.
//!
//! Invariants:
//! - a state is of all objects together; comparing object by object would not see a mix;
//! - the states that are allowed after a cut are those from the last step that promised durability before it, up to
//!   the last that had begun.

use std::collections::BTreeMap;

use twox_hash::XxHash3_64;

/// Every object.
pub type Contents = BTreeMap<String, Object>;

/// What an object holds, and what the catalog says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The rest.
    pub entry: Entry,
}

/// What the catalog says of an object beside its size; of a step that nobody asked the store about, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Where it was last mapped.
    pub address: Option<Option<u64>>,
    /// The call that changed it last.
    pub version: Option<u64>,
}

impl Entry {
    /// Whether what the store says may be this.
    pub fn allows(&self, said: &Self) -> bool {
        (self.address.is_none() || self.address == said.address)
            && (self.version.is_none() || self.version == said.version)
    }

    /// Forgets what `other` says differently.
    pub fn forget_unless(&mut self, other: &Self) {
        if self.address != other.address {
            self.address = None;
        }
        if self.version != other.version {
            self.version = None;
        }
    }
}

/// Every object, its bytes reduced to their size and checksum.
pub type Print = BTreeMap<String, (usize, u64, Entry)>;

/// Reduces `contents` to what is compared.
pub fn print(contents: &Contents) -> Print {
    let entry = |(name, object): (&String, &Object)| {
        let bytes = &object.bytes;
        (
            name.clone(),
            (bytes.len(), XxHash3_64::oneshot(bytes), object.entry),
        )
    };
    contents.iter().map(entry).collect()
}

/// Whether what was `found` may be `state`.
pub fn allows(state: &Print, found: &Print) -> bool {
    let allows = |(name, (size, sum, entry)): (&String, &(usize, u64, Entry))| {
        let found = found.get(name);
        found.is_some_and(|found| (*size, *sum) == (found.0, found.1) && entry.allows(&found.2))
    };
    state.len() == found.len() && state.iter().all(allows)
}

/// What a task, or the store, did.
#[derive(Clone, Debug)]
pub struct Step {
    /// The changes of the disk before it.
    pub start: usize,
    /// And behind it.
    pub end: usize,
    /// Whether its end promised that it and all before it are durable.
    pub promised: bool,
    /// What the objects hold if it is done; `None`: there is no store.
    pub state: Option<Print>,
    /// For messages.
    pub what: String,
}

impl Step {
    /// Whether what was `found` may be its state.
    pub fn allows(&self, found: Option<&Print>) -> bool {
        match (&self.state, found) {
            (Some(state), Some(found)) => allows(state, found),
            (state, found) => state.is_none() && found.is_none(),
        }
    }
}

/// How what was found breaks the promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// It is of no single step: a mix.
    Mixed,
    /// It is older than what was promised, or gone, or not readable.
    Lost,
    /// Damage that neither opening nor verifying saw.
    Undetected,
}

/// The steps of a life, in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// They.
    pub steps: Vec<Step>,
}

impl History {
    /// One that begins with `state`, which is durable; `None`: there is no store.
    pub fn from(state: Option<Print>) -> Self {
        let step = Step {
            start: 0,
            end: 0,
            promised: true,
            state,
            what: "what was there before".into(),
        };
        Self { steps: vec![step] }
    }

    /// The steps whose states a cut before change `index` may leave.
    pub fn allowed(&self, index: usize) -> &[Step] {
        let promised = |step: &Step| step.promised && step.end <= index;
        let first = self.steps.iter().rposition(promised).unwrap_or(0);
        let begun = |step: &Step| step.start < index || step.end <= index;
        let last = self.steps.iter().rposition(begun).unwrap_or(0);
        &self.steps[first..=last.max(first)]
    }

    /// Says what is wrong with `found` after a cut before change `index`.
    pub fn judge(&self, index: usize, found: Option<&Print>) -> Result<(), (Breach, String)> {
        let allowed = self.allowed(index);
        if allowed.iter().any(|step| step.allows(found)) {
            return Ok(());
        }
        let expected = format!(
            "allowed were {} states from \"{}\" to \"{}\"",
            allowed.len(),
            allowed[0].what,
            allowed[allowed.len() - 1].what
        );
        let Some(found) = found else {
            return Err((Breach::Lost, format!("there is no store; {expected}")));
        };
        if let Some(step) = self.steps.iter().rposition(|step| step.allows(Some(found))) {
            let what = &self.steps[step].what;
            return Err((
                Breach::Lost,
                format!("found the state of step {step} \"{what}\"; {expected}"),
            ));
        }
        let of = |(name, print): (&String, &(usize, u64, Entry))| {
            let of_step = |step: &Step| step.state.as_ref().and_then(|state| state.get(name).copied());
            let has_bytes = |step: &Step| of_step(step).is_some_and(|of| (of.0, of.1) == (print.0, print.1));
            let has = |step: &Step| has_bytes(step) && of_step(step).is_some_and(|of| of.2.allows(&print.2));
            match (
                self.steps.iter().rposition(has),
                self.steps.iter().rposition(has_bytes),
            ) {
                (Some(step), _) => format!("{name} of step {step}"),
                (None, Some(step)) => format!("the bytes of {name} of step {step} with {:?}", print.2),
                (None, None) => format!("{name} of no step"),
            }
        };
        let parts: Vec<_> = found.iter().map(of).collect();
        Err((Breach::Mixed, format!("found {}; {expected}", parts.join(", "))))
    }
}
