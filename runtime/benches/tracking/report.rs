//! The figures as a table, as JSON and as a plot.
//!
//! An id of the summary is the worst of the cases that a long-lived guest meets: of the orders in which pages are stored
//! to *again* after a collect, of the densities of dirty pages, of the states of memory that nobody stores to.

use serde_json::{Map, Value, json};
use vmsync::TrackerKind;

use crate::{
    faults::{AGAIN, KERNEL, TWO_FAULTS},
    guest::How,
    plot,
    run::{Cost, KernelRow, Runs},
    scans::{DENSITIES, IDLE},
    table::Table,
};

const UFFD: TrackerKind = TrackerKind::UffdAsync;
const BARRIER: How = How::Rung(TrackerKind::Barrier);
/// What is not ours.
const PEERS: [&str; 4] = [KERNEL, TWO_FAULTS, "naive barrier", "xxh3-128"];

/// Everything that was measured.
pub struct Report {
    pub runs: Runs,
    pub memory: Table,
    pub rounds: usize,
}

impl Report {
    /// Of the ids of the summary, those that could be measured here.
    fn summary(&self) -> Vec<(&'static str, f64)> {
        let worst = |names: &[(usize, &str)]| {
            let medians = names
                .iter()
                .filter_map(|(_, name)| self.memory.median(name, UFFD.name()));
            medians.reduce(f64::max)
        };
        let again = |who: &str, other: &str, worst: fn(f64, f64) -> f64| {
            let ratios = AGAIN
                .iter()
                .filter_map(|name| self.memory.ratio(name, who, other));
            ratios.reduce(worst)
        };
        let figures = [
            (
                "uffd_steady_geomean",
                Some(self.runs.steady_geomean(How::Rung(UFFD))),
            ),
            ("first_write_vs_minor_fault", again(UFFD.name(), KERNEL, f64::max)),
            (
                "first_write_speedup_mprotect",
                again(TrackerKind::Mprotect.name(), UFFD.name(), f64::min),
            ),
            ("collect_ns_per_dirty", worst(&DENSITIES)),
            ("idle_ms_per_gib", worst(&IDLE)),
            ("barrier_geomean", Some(self.runs.steady_geomean(BARRIER))),
            ("barrier_worst", Some(self.runs.steady_worst(BARRIER))),
            ("barrier_code_size", Some(self.runs.size_geomean(BARRIER))),
            (
                "naive_barrier_geomean",
                Some(self.runs.steady_geomean(How::NaiveBarrier)),
            ),
        ];
        figures
            .into_iter()
            .filter_map(|(id, value)| Some((id, value?)))
            .collect()
    }

    /// The whole as one object.
    pub fn json(&self) -> Value {
        let kernels = self.runs.kernels.iter().flat_map(kernel_rows);
        let sizes = self.runs.sizes.iter().map(|size| {
            json!({
                "case": size.program, "measure": format!("size of the module under {}", size.how.name()),
                "unit": "x", "ours": size.ratio,
            })
        });
        let memory = self.memory.0.iter().map(|(measure, row)| {
            let figures = row.iter().map(|(who, samples)| (*who, samples.median()));
            row_of("memory", &measure.name, measure.unit, figures)
        });
        let machine = format!(
            "{} {}, {} processors",
            std::env::consts::OS,
            std::env::consts::ARCH,
            std::thread::available_parallelism().map_or(0, usize::from)
        );
        let summary: Map<_, _> = self
            .summary()
            .into_iter()
            .map(|(id, value)| (id.into(), json!(value)))
            .collect();
        json!({
            "bench": "tracking", "machine": machine, "rounds": self.rounds,
            "rows": kernels.chain(sizes).chain(memory).collect::<Vec<_>>(), "summary": summary,
        })
    }

    /// Tables for people.
    pub fn print(&self) {
        let costs = &self.runs.kernels[0].costs;
        println!(
            "runs relative to stock Wasmtime, medians of {} rounds",
            self.rounds
        );
        self.print_runs("steady: every page was dirty before", |cost| &cost.steady);
        self.print_runs("the first run after a SYNC", |cost| &cost.after_sync);
        self.print_syncs();
        print!("\nsize of the module, geometric mean:");
        for cost in &costs[1..] {
            print!("  {} {:.2}", cost.how.name(), self.runs.size_geomean(cost.how));
        }
        println!("\n");
        for (measure, row) in &self.memory.0 {
            println!("{}, {}", measure.name, measure.unit);
            for (who, samples) in row {
                let (low, high) = (samples.quantile(0.1), samples.quantile(0.9));
                println!("    {who:<22}{:>12.2}    {low:.2} to {high:.2}", samples.median());
            }
        }
        println!();
        for (id, value) in self.summary() {
            println!("{id:<30}{value:>8.3}");
        }
    }

    fn print_runs(&self, what: &str, of: impl Fn(&Cost) -> &crate::samples::Samples) {
        print!("\n{what}\n{:<22}{:>10}", "", "stock");
        let tracked = &self.runs.kernels[0].costs[1..];
        tracked.iter().for_each(|cost| print!("{:>15}", cost.how.name()));
        println!();
        for row in &self.runs.kernels {
            print!("{:<22}{:>7.2} ms", row.name, of(&row.costs[0]).median() * 1e3);
            row.costs[1..]
                .iter()
                .for_each(|cost| print!("{:>15.3}", of(cost).median()));
            println!();
        }
        print!("{:<32}", "geometric mean");
        for cost in tracked {
            let of = self
                .runs
                .kernels
                .iter()
                .flat_map(|row| &row.costs)
                .filter(|other| other.how == cost.how)
                .map(&of);
            print!(
                "{:>15.3}",
                crate::samples::geomean(of.map(|samples| samples.median()))
            );
        }
        println!();
    }

    fn print_syncs(&self) {
        print!("\nthe SYNC before that run, to a pager in memory, ms\n{:<32}", "");
        let tracked = &self.runs.kernels[0].costs[1..];
        tracked.iter().for_each(|cost| print!("{:>15}", cost.how.name()));
        println!();
        for row in &self.runs.kernels {
            print!("{:<32}", row.name);
            row.costs[1..]
                .iter()
                .for_each(|cost| print!("{:>15.3}", cost.sync.median() * 1e3));
            println!();
        }
    }

    /// What a first store costs.
    pub fn draw(&self) -> String {
        let series = [KERNEL, UFFD.name(), TrackerKind::Mprotect.name(), TWO_FAULTS];
        let cases = self.memory.0.keys().filter_map(|measure| {
            let values: Option<Vec<_>> = series
                .iter()
                .map(|who| self.memory.median(&measure.name, who))
                .collect();
            Some(plot::Group {
                label: measure.name.strip_prefix("first store, ")?.to_string(),
                values: values?,
            })
        });
        plot::bars(
            "The first store to a page",
            "ns",
            &series,
            &cases.collect::<Vec<_>>(),
        )
    }
}

/// The rows of a kernel: steady, after a SYNC, and the SYNC itself.
fn kernel_rows(row: &KernelRow) -> [Value; 3] {
    let figures = |of: fn(&Cost) -> f64| row.costs[1..].iter().map(move |cost| (cost.how.name(), of(cost)));
    let steady = figures(|cost| cost.steady.median());
    let after = figures(|cost| cost.after_sync.median());
    let sync = figures(|cost| cost.sync.median());
    [
        row_of(
            &row.name,
            "run, every page dirty before, relative to stock Wasmtime",
            "x",
            steady,
        ),
        row_of(
            &row.name,
            "run right after a SYNC, relative to stock Wasmtime",
            "x",
            after,
        ),
        row_of(&row.name, "SYNC of the region to a pager in memory", "s", sync),
    ]
}

fn row_of(
    case: &str,
    measure: &str,
    unit: &str,
    figures: impl Iterator<Item = (&'static str, f64)>,
) -> Value {
    let (peers, ours): (Vec<_>, Vec<_>) = figures.partition(|(who, _)| PEERS.contains(who));
    let object = |figures: Vec<(&str, f64)>| -> Map<String, Value> {
        figures
            .into_iter()
            .map(|(who, value)| (who.into(), json!(value)))
            .collect()
    };
    json!({ "case": case, "measure": measure, "unit": unit, "ours": object(ours), "peers": object(peers) })
}
