//! What every object held after each step of a life, and what a power cut may leave of it.
//!
//! Invariants:
//! - a state is of all objects together; comparing object by object would not see a mix;
//! - the states that are allowed after a cut are those from the last step that promised durability before it, up to
//!   the last that had begun.

use std::collections::BTreeMap;

use twox_hash::XxHash3_64;

/// Every object's bytes.
pub type Contents = BTreeMap<String, Vec<u8>>;

/// Every object's size and checksum.
pub type Print = BTreeMap<String, (usize, u64)>;

/// Reduces `contents` to what is compared.
pub fn print(contents: &Contents) -> Print {
    let entry =
        |(name, bytes): (&String, &Vec<u8>)| (name.clone(), (bytes.len(), XxHash3_64::oneshot(bytes)));
    contents.iter().map(entry).collect()
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
        if allowed.iter().any(|step| step.state.as_ref() == found) {
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
        if let Some(step) = self
            .steps
            .iter()
            .rposition(|step| step.state.as_ref() == Some(found))
        {
            let what = &self.steps[step].what;
            return Err((
                Breach::Lost,
                format!("found the state of step {step} \"{what}\"; {expected}"),
            ));
        }
        let of = |(name, print): (&String, &(usize, u64))| {
            let has = |step: &Step| step.state.as_ref().and_then(|state| state.get(name)) == Some(print);
            match self.steps.iter().rposition(has) {
                Some(step) => format!("{name} of step {step}"),
                None => format!("{name} of no step"),
            }
        };
        let parts: Vec<_> = found.iter().map(of).collect();
        Err((Breach::Mixed, format!("found {}; {expected}", parts.join(", "))))
    }
}
