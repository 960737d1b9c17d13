//! What was measured, as a table, JSON and a plot.

use serde_json::{Map, Value, json};

use crate::{
    measure::{COMMITTERS, IN_A_ROW, Report, Row, Values},
    plot,
    workload::Workload,
};

/// Places in the lists of a [`Report`].
const MSYNC: usize = 1;
const LMDB: usize = 2;
const REDB: usize = 3;
const SQLITE: usize = 4;

/// What is told of many commits in a row.
const PARTS: [(&str, f64); 4] = [
    ("median", 0.5),
    ("99 %", 0.99),
    ("99.9 %", 0.999),
    ("slowest", 1.0),
];

impl Report {
    fn row(&self, workload: Workload) -> &Row {
        self.rows
            .iter()
            .find(|row| row.workload == workload)
            .expect("every workload is measured")
    }

    /// How many times faster our sync is than `msync(2)`; the stores are in neither.
    fn speedup_msync(&self, workload: Workload) -> f64 {
        let row = self.row(workload);
        row.commit[MSYNC].median() / row.commit[0].median()
    }

    /// How many times faster we are than a database, stores and statements included, on the worst workload for us.
    fn speedup_min(&self, who: usize) -> f64 {
        let rows = self
            .rows
            .iter()
            .map(|row| row.whole[who].median() / row.whole[0].median());
        let rate = self.rates[0].0.median() / self.rates[who].0.median();
        rows.fold(rate, f64::min)
    }

    fn summary(&self) -> Value {
        let one = self.row(Workload::One);
        json!({
            "sync1_vs_floor": one.commit[0].median() / one.floor.median(),
            "sync1_speedup_msync": self.speedup_msync(Workload::One),
            "sync1_whole_speedup_msync": self.speedup_msync(Workload::Random(1)),
            "sync100_speedup_msync": self.speedup_msync(Workload::Random(100)),
            "sync1000_speedup_msync": self.speedup_msync(Workload::Random(1000)),
            "speedup_lmdb_min": self.speedup_min(LMDB),
            "speedup_redb_min": self.speedup_min(REDB),
            "speedup_sqlite_min": self.speedup_min(SQLITE),
            "committers64_speedup": self.rates[0].0.median() / self.rates[0].1.median(),
            "journal_bytes_8b_store": self.row(Workload::Counter).journal_bytes,
            "open_10gib_ms": self.open[0].median() * 1e3,
        })
    }

    fn peers(&self, value: impl Fn(usize) -> f64) -> Map<String, Value> {
        let value = |index: usize| (self.names[index].to_owned(), json!(value(index)));
        (1..self.names.len()).map(value).collect()
    }

    /// One JSON object.
    pub fn json(&self) -> Value {
        let spread = |values: &Values| json!({ "ours": [values.quantile(0.1), values.quantile(0.9)] });
        let mut rows: Vec<Value> = Vec::new();
        for row in &self.rows {
            let mut peers = self.peers(|index| row.commit[index].median());
            peers.insert("write + fdatasync (floor)".into(), json!(row.floor.median()));
            rows.push(json!({
                "case": row.workload.to_string(),
                "measure": "commit, median",
                "unit": "s",
                "ours": row.commit[0].median(),
                "ours_with_stores": row.whole[0].median(),
                "peers": peers,
                "first_of_a_turn": {
                    "ours": row.first[0].median(),
                    "peers": self.peers(|index| row.first[index].median()),
                },
                "spread": spread(&row.commit[0]),
                "journal_bytes": row.journal_bytes,
            }));
        }
        rows.push(json!({
            "case": format!("{COMMITTERS} committers of 8 bytes"),
            "measure": "commits, median", "unit": "1/s",
            "ours": self.rates[0].0.median(),
            "peers": self.peers(|index| self.rates[index].0.median()),
            "ours_a_thread_each": self.rate_of_threads.median(),
            "spread": spread(&self.rates[0].0),
        }));
        rows.push(json!({
            "case": "one committer of 8 bytes",
            "measure": "commits, median", "unit": "1/s",
            "ours": self.rates[0].1.median(),
            "peers": self.peers(|index| self.rates[index].1.median()),
            "spread": spread(&self.rates[0].1),
        }));
        for (part, quantile) in PARTS {
            rows.push(json!({
                "case": format!("1 whole page, {IN_A_ROW} in a row"),
                "measure": format!("with stores, {part}"), "unit": "s",
                "ours": self.in_a_row[0].quantile(quantile),
                "peers": self.peers(|index| self.in_a_row[index].quantile(quantile)),
            }));
        }
        rows.push(json!({
            "case": "open and read the first page (10 GiB) or record",
            "measure": "median", "unit": "s",
            "ours": self.open[0].median(),
            "peers": self.peers(|index| self.open[index].median()),
            "spread": spread(&self.open[0]),
        }));
        rows.push(json!({
            "case": "bytes written for each byte changed, 8 bytes in a random page a commit",
            "measure": "mean, checkpoints included; of the whole device", "unit": "B/B",
            "ours": self.amplification[0],
            "peers": self.peers(|index| self.amplification[index].unwrap_or(f64::NAN)),
        }));
        let machine = format!(
            "{} {}, {} processors, best tracker of unmodified modules {}",
            std::env::consts::OS,
            std::env::consts::ARCH,
            std::thread::available_parallelism().map_or(0, usize::from),
            vmsync::best()
        );
        json!({ "bench": "commit", "machine": machine, "rows": rows, "summary": self.summary() })
    }

    /// For people.
    pub fn print_table(&self) {
        let line = |case: &str, cells: Vec<String>| {
            print!("{case:<32}");
            cells.iter().for_each(|cell| print!(" {cell:>18}"));
            println!();
        };
        let names = self.names.iter().map(|name| (*name).to_owned());
        line(
            "commit, median",
            names.chain(["floor".into(), "journal".into()]).collect(),
        );
        for row in &self.rows {
            let mut cells: Vec<String> = row.commit.iter().map(milliseconds).collect();
            cells.push(milliseconds(&row.floor));
            cells.push(format!("{} B", row.journal_bytes));
            line(&row.workload.to_string(), cells);
            let stores = (row.whole[0].median() - row.commit[0].median()) * 1e3;
            line("  and our stores before it", vec![format!("{stores:.3} ms")]);
        }
        let per_second = |values: &Values| format!("{:.0} /s", values.median());
        let rates = self.rates.iter();
        line(
            &format!("{COMMITTERS} committers"),
            rates.clone().map(|rate| per_second(&rate.0)).collect(),
        );
        line("  ours, a thread each", vec![per_second(&self.rate_of_threads)]);
        line("one committer", rates.map(|rate| per_second(&rate.1)).collect());
        for (part, quantile) in PARTS {
            let cells = self.in_a_row.iter().map(|values| values.quantile(quantile) * 1e3);
            line(
                &format!("{IN_A_ROW} whole pages: {part}"),
                cells.map(|value| format!("{value:.3} ms")).collect(),
            );
        }
        line(
            "open, first page or record",
            self.open.iter().map(milliseconds).collect(),
        );
        let bytes = self
            .amplification
            .iter()
            .map(|value| value.map_or("?".into(), |value| format!("{value:.0} B/B")));
        line("written for each byte changed", bytes.collect());
        if let Value::Object(summary) = self.summary() {
            summary
                .iter()
                .for_each(|(id, value)| println!("{id}: {value:.4}"));
        }
    }

    /// The commits as bars.
    pub fn draw(&self) -> String {
        let groups: Vec<_> = self
            .rows
            .iter()
            .map(|row| plot::Group {
                label: label(row.workload),
                values: row
                    .commit
                    .iter()
                    .chain([&row.floor])
                    .map(|values| values.median() * 1e3)
                    .collect(),
            })
            .collect();
        let series: Vec<&str> = self.names.iter().copied().chain(["write + fdatasync"]).collect();
        plot::bars(
            "Median time of a commit, by pages changed",
            "ms",
            &series,
            &groups,
        )
    }
}

fn milliseconds(values: &Values) -> String {
    format!("{:.3} ms", values.median() * 1e3)
}

fn label(workload: Workload) -> String {
    match workload {
        Workload::Counter => "counter".into(),
        Workload::One => "1 (its page)".into(),
        Workload::Random(1) => "1 (1 GiB)".into(),
        Workload::Random(pages) => pages.to_string(),
        Workload::Packed(words) => format!("{words} packed"),
        Workload::Sequential => "256 in a row".into(),
        Workload::Whole => "1 whole".into(),
    }
}
