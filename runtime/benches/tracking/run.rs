//! Kernels under every way of tracking, in turns.
//!
//! Each round runs every subject once right after its last run (*steady*: all pages are dirty already), then once after
//! a SYNC to a pager in memory (*after a sync*: every first store to a page counts anew), and begins with another
//! subject. A ratio compares with the stock run of the same round; medians of these are reported.

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    guest::{Compiled, Guest, How, Subject},
    kernels::{Program, programs},
    samples::{Samples, geomean},
};

/// What a kernel cost under one way of tracking.
pub struct Cost {
    pub how: How,
    /// Of stock: seconds of a run. Of others: times the stock run, without and with a SYNC before.
    pub steady: Samples,
    pub after_sync: Samples,
    /// The SYNC itself, in seconds.
    pub sync: Samples,
}

/// The costs of a kernel.
pub struct KernelRow {
    pub name: String,
    pub costs: Vec<Cost>,
}

/// How much larger a program becomes.
pub struct SizeRow {
    pub program: &'static str,
    pub how: How,
    pub ratio: f64,
}

/// Everything that came out of the kernels.
#[derive(Default)]
pub struct Runs {
    pub kernels: Vec<KernelRow>,
    pub sizes: Vec<SizeRow>,
}

impl Runs {
    fn ratios<'a>(&'a self, how: How, of: impl Fn(&Cost) -> &Samples + 'a) -> impl Iterator<Item = f64> + 'a {
        let costs = self.kernels.iter().flat_map(|row| &row.costs);
        costs
            .filter(move |cost| cost.how == how)
            .map(move |cost| of(cost).median())
    }

    /// The geometric mean of all kernels' steady ratios.
    pub fn steady_geomean(&self, how: How) -> f64 {
        geomean(self.ratios(how, |cost| &cost.steady))
    }

    /// The largest steady ratio.
    pub fn steady_worst(&self, how: How) -> f64 {
        self.ratios(how, |cost| &cost.steady).fold(0.0, f64::max)
    }

    /// The geometric mean of how much larger the programs become.
    pub fn size_geomean(&self, how: How) -> f64 {
        geomean(
            self.sizes
                .iter()
                .filter(|size| size.how == how)
                .map(|size| size.ratio),
        )
    }
}

/// Runs the kernels whose name contains `only`, under stock and each of `tracked`.
pub fn measure(tracked: &[How], rounds: usize, only: &str) -> Result<Runs> {
    let subjects = Subject::new(&[&[How::Stock], tracked].concat())?;
    let programs = programs()?;
    let mut runs = Runs::default();
    let all = programs
        .iter()
        .flat_map(Program::names)
        .filter(|name| name.contains(only));
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")?;
    let progress = ProgressBar::new(all.count() as u64).with_style(style);
    for program in &programs {
        let compiled = subjects
            .iter()
            .map(|subject| subject.compile(&program.wasm).with_context(|| subject.how.name()))
            .collect::<Result<Vec<_>>>()?;
        for (subject, compiled) in subjects.iter().zip(&compiled) {
            runs.sizes.push(SizeRow {
                program: program.name,
                how: subject.how,
                ratio: compiled.code_bytes as f64 / program.wasm.len() as f64,
            });
        }
        for (kernel, name) in program.kernels.iter().zip(program.names()) {
            if name.contains(only) {
                progress.set_message(name.clone());
                let costs =
                    measure_kernel(kernel, &subjects, &compiled, rounds).with_context(|| name.clone())?;
                runs.kernels.push(KernelRow { name, costs });
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    Ok(runs)
}

fn measure_kernel(
    kernel: &str,
    subjects: &[Subject],
    compiled: &[Compiled],
    rounds: usize,
) -> Result<Vec<Cost>> {
    let mut costs: Vec<_> = subjects.iter().map(|subject| Cost::new(subject.how)).collect();
    let mut guests: Vec<Guest> = subjects
        .iter()
        .zip(compiled)
        .map(|(subject, compiled)| {
            subject
                .guest(compiled, kernel)
                .with_context(|| subject.how.name())
        })
        .collect::<Result<_>>()?;
    for round in 0..rounds {
        // [steady, after a sync] of each.
        let mut seconds = vec![[0.0; 2]; guests.len()];
        let mut checksums = vec![[0; 2]; guests.len()];
        for turn in 0..guests.len() {
            let index = (turn + round) % guests.len();
            let guest = &mut guests[index];
            (seconds[index][0], checksums[index][0]) = guest.run()?;
            if subjects[index].how != How::Stock {
                costs[index].sync.push(guest.sync()?);
            }
            (seconds[index][1], checksums[index][1]) = guest.run()?;
        }
        for ((cost, of), checksum) in costs.iter_mut().zip(&seconds).zip(&checksums) {
            ensure!(
                *checksum == checksums[0],
                "returns something else under {}",
                cost.how.name()
            );
            let stock = match cost.how {
                How::Stock => [1.0; 2],
                _ => seconds[0],
            };
            cost.steady.push(of[0] / stock[0]);
            cost.after_sync.push(of[1] / stock[1]);
        }
    }
    Ok(costs)
}

impl Cost {
    fn new(how: How) -> Self {
        Self {
            how,
            steady: Samples::default(),
            after_sync: Samples::default(),
            sync: Samples::default(),
        }
    }
}
