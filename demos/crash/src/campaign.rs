//! [`Campaign`]: runs, kills and checks until there were enough kills and the index is finished.
//!
//! ```text
//!   round: a fresh store   --> life --> verdict --> life --> verdict ... finished
//!   finished before the last kill: another round
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use crate::{
    args::Args,
    codesearch::{Checked, Codesearch, Verified, size_mib},
    input::Input,
    life::{How, Life, live},
    moment::{Moment, Pace, draw},
    random::Random,
    report::{Kill, Report},
    verdict::{Bounds, Durable, judge},
};

/// Places of a query's answer that are shown.
const PLACES_SHOWN: usize = 3;

const MIB: u64 = 1 << 20;

/// The folder with the list of files and the stores.
pub struct Workplace {
    path: PathBuf,
    temporary: Option<TempDir>,
}

impl Workplace {
    /// The folder `path`, which must be empty, or a temporary one that goes when this goes.
    pub fn new(path: Option<&Path>) -> Result<Self> {
        let temporary = match path {
            Some(_) => None,
            None => Some(
                tempfile::Builder::new()
                    .prefix("vmsync-crash-")
                    .tempdir()
                    .context("cannot make a temporary folder: give one with --store")?,
            ),
        };
        let path = match (path, &temporary) {
            (Some(path), _) => path.to_path_buf(),
            (None, Some(temporary)) => temporary.path().to_path_buf(),
            (None, None) => unreachable!("one of them is there"),
        };
        let cannot = || format!("cannot use the folder {}", path.display());
        fs::create_dir_all(&path).with_context(cannot)?;
        ensure!(
            fs::read_dir(&path).with_context(cannot)?.next().is_none(),
            "the folder {} is not empty: give another with --store, or remove what is in it",
            path.display()
        );
        let path = fs::canonicalize(&path).with_context(cannot)?;
        ensure!(
            path.to_str()
                .is_some_and(|text| !text.contains("::") && text.trim() == text),
            "the path {} has a \"::\", a space at an end or bytes that are no text: give another with --store",
            path.display()
        );
        Ok(Self { path, temporary })
    }

    /// Leaves the folder behind; its path.
    pub fn keep(self) -> PathBuf {
        if let Some(temporary) = self.temporary {
            let _ = temporary.keep();
        }
        self.path
    }
}

/// All that is running, killed and counted.
pub struct Campaign<'a> {
    args: &'a Args,
    workplace: &'a Workplace,
    guest: Codesearch,
    bounds: Bounds,
    random: Random,
    pace: Pace,
    bar: ProgressBar,
    report: Report,
}

impl<'a> Campaign<'a> {
    pub fn new(args: &'a Args, workplace: &'a Workplace) -> Result<Self> {
        let bytes_max = match args.input_mib {
            0 => u64::MAX,
            mib => mib.saturating_mul(MIB),
        };
        let input = if args.inputs.is_empty() {
            Input::of_dependencies(bytes_max)?
        } else {
            Input::of_folders(&args.inputs, bytes_max)?
        };
        let list = workplace.path.join("files.txt");
        fs::write(&list, input.files.join("\n") + "\n")
            .with_context(|| format!("cannot write {}", list.display()))?;
        let mut folders = input.folders.clone();
        folders.push(workplace.path.clone());
        let bounds = Bounds {
            files_all: input.files.len() as u64,
            sync_every: args.sync_every,
        };
        let seed = args.seed()?;
        let bar = ProgressBar::new(bounds.files_all).with_style(
            ProgressStyle::with_template("{prefix} [{wide_bar}] {pos}/{len} files, {elapsed}")
                .expect("a constant")
                .progress_chars("=> "),
        );
        eprintln!(
            "vmsync-crash: {} files, {:.1} MiB; {} kills; repeat with --seed {seed}",
            bounds.files_all,
            input.bytes as f64 / MIB as f64,
            args.kills
        );
        Ok(Self {
            args,
            workplace,
            guest: Codesearch {
                vmsync: args.vmsync.clone(),
                guest: args.guest.clone(),
                tracker: args.tracker.clone(),
                folders,
                list,
                sync_every: args.sync_every,
                size_mib: args.size.unwrap_or_else(|| size_mib(input.bytes)),
            },
            bounds,
            random: Random::new(seed),
            pace: Pace::default(),
            bar,
            report: Report::new(seed, &input),
        })
    }

    /// Runs until there were enough kills and the index is finished.
    ///
    /// # Errors
    /// A [`crate::verdict::Violation`], an [`crate::interrupt::Interrupted`], and what could not be tried.
    pub fn run(mut self) -> Result<Report> {
        self.guest.rehearse(&self.workplace.path.join("rehearsal"))?;
        let begun = Instant::now();
        let mut store = self.round()?;
        while self.kills_left() > 0 {
            // What only proves the same again takes disk space.
            fs::remove_dir_all(&store).with_context(|| format!("cannot remove {}", store.display()))?;
            store = self.round()?;
        }
        self.report.time = begun.elapsed();
        self.bar.finish_and_clear();
        for identifier in &self.args.queries {
            let answer = self.guest.query(&store, identifier, PLACES_SHOWN)?;
            self.report.answers.push(answer);
        }
        self.report.bytes_state = self.guest.live_bytes(&store)?;
        self.report.bytes_store = bytes_on_disk(&store)?;
        Ok(self.report)
    }

    fn kills_left(&self) -> u64 {
        self.args.kills.saturating_sub(self.report.kills.len() as u64)
    }

    /// Makes an index from the first file to the last; its store.
    fn round(&mut self) -> Result<PathBuf> {
        self.report.rounds += 1;
        let store = self.workplace.path.join(format!("store-{}", self.report.rounds));
        let mut durable = Durable::NOTHING;
        loop {
            let moment = self.moment(durable);
            self.show(durable);
            let bar = self.bar.clone();
            let life = live(&mut self.guest.index(&store), moment, |synced| {
                bar.set_position(synced.files)
            })?;
            self.count(&life);
            let before = durable;
            durable = self.examine(&store, before, &life, moment)?;
            match life.how {
                How::Finished => return Ok(store),
                How::Refused(words) => {
                    bail!("the guest cannot go on, and what it made durable is right: {words}")
                }
                How::Killed | How::Failed(_) => {}
            }
            let kill = Kill {
                moment,
                round: self.report.rounds,
                resumed: life.resumed,
                reported: life.reported.map_or(before.files, |synced| synced.files),
                durable: durable.files,
            };
            let number = self.report.kills.len() + 1;
            self.bar.suspend(|| eprintln!("kill {number:>3}: {kill}"));
            self.report.kills.push(kill);
        }
    }

    fn moment(&mut self, durable: Durable) -> Moment {
        let kills_left = self.kills_left();
        if kills_left == 0 {
            return Moment::Never;
        }
        let syncs_left = (self.bounds.files_all - durable.files).div_ceil(self.bounds.sync_every);
        draw(&mut self.random, self.pace, syncs_left, kills_left)
    }

    fn show(&self, durable: Durable) {
        let kills = self.report.kills.len();
        self.bar.set_prefix(format!("{kills}/{} kills", self.args.kills));
        self.bar.set_position(durable.files);
    }

    /// Everything that is checked after a run. The store is verified before anything opens it.
    fn examine(&self, store: &Path, before: Durable, life: &Life, moment: Moment) -> Result<Durable> {
        let verified = self.guest.verify(store)?;
        let checked = match &verified {
            // Nothing may open, and thereby change, what is damaged: it is evidence.
            Verified::Wrong(_) => Checked::Wrong("not tried".into()),
            Verified::Sound | Verified::Missing => self.guest.check(store)?,
        };
        judge(before, life, &verified, &checked, self.bounds).with_context(|| {
            format!(
                "round {}, kill {} of seed {}, at {moment}",
                self.report.rounds,
                self.report.kills.len() + 1,
                self.report.seed
            )
        })
    }

    fn count(&mut self, life: &Life) {
        self.report.count(life);
        if let Some(start) = life.start {
            self.pace.start = (self.pace.start + start) / 2;
        }
        if let Ok(syncs @ 1..) = u32::try_from(life.syncs) {
            self.pace.gap = (self.pace.gap + life.syncing / syncs).max(Duration::from_micros(2)) / 2;
        }
    }
}

/// What the files in `folder` occupy: those of a store have holes.
fn bytes_on_disk(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    /// stat(2) counts in blocks of this size on every file system.
    const BLOCK_BYTES: u64 = 512;
    let cannot = || format!("cannot read {}", folder.display());
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(cannot)? {
        bytes += entry
            .and_then(|entry| entry.metadata())
            .with_context(cannot)?
            .blocks()
            * BLOCK_BYTES;
    }
    Ok(bytes)
}
