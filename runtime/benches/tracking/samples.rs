//! Medians, and what is made of them.

/// Samples of one figure.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The value below which `part` of the samples lie.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * part).round() as usize]
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The ratios to samples that were taken in turns with these.
    pub fn over(&self, other: &Self) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(this, other)| this / other)
                .collect(),
        )
    }
}

/// The geometric mean of ratios.
pub fn geomean(ratios: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = ratios
        .into_iter()
        .fold((0.0, 0.0), |(sum, count), ratio| (sum + ratio.ln(), count + 1.0));
    (sum / f64::max(count, 1.0)).exp()
}
