//! [`Table`]: samples by what was measured and of whom, in the order in which they were first added.

use indexmap::IndexMap;

use crate::samples::Samples;

/// What was measured, and its unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Measure {
    pub name: String,
    pub unit: &'static str,
}

/// The figures of the micro measurements.
#[derive(Default)]
pub struct Table(pub IndexMap<Measure, IndexMap<&'static str, Samples>>);

impl Table {
    pub fn add(&mut self, name: &str, unit: &'static str, who: &'static str, value: f64) {
        let measure = Measure {
            name: name.into(),
            unit,
        };
        self.0
            .entry(measure)
            .or_default()
            .entry(who)
            .or_default()
            .push(value);
    }

    fn samples(&self, name: &str, who: &str) -> Option<&Samples> {
        let (_, row) = self.0.iter().find(|(measure, _)| measure.name == name)?;
        row.get(who)
    }

    /// The median; `None` where it was not measured.
    pub fn median(&self, name: &str, who: &str) -> Option<f64> {
        self.samples(name, who).map(Samples::median)
    }

    /// The median of `who` over `other`, round by round; `None` where one of them was not measured.
    pub fn ratio(&self, name: &str, who: &str, other: &str) -> Option<f64> {
        let (who, other) = (self.samples(name, who)?, self.samples(name, other)?);
        Some(who.over(other).median())
    }
}
