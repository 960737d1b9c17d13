//! Cuts the power of a recorded life before every change, and opens what is left.
//!
//! ```text
//!   Life --replay--> Platter --each Choice--> Image --verify, open, read--> Finding --judge--> Broken or nothing
//! ```

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use vmsync_core::{PageSize, PagerError, PagerErrorKind};
use vmsync_pager_file::{FileStore, Options, inspect_on, verify_on};

use crate::{
    disk::{self, Deeds, Fault, Place, SimDisk},
    history::{Breach, Print, print},
    life::{Broken, Life},
    limits::{READ_FAILS_ONCE_IN, READ_ONLY_ONCE_IN, READS_OF_LOOK, SUBSETS_ALL_MAX, SUBSETS_SAMPLED, TEARS},
    platter::{Choice, Image, Platter, Tear, image_sum},
    random::Random,
    store::{contents, options},
};

/// What opening a disk shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// There never was a store.
    Nothing,
    /// Damage was told, by verifying or opening.
    Refused(String),
    /// It opens, and holds this.
    Holds(Print),
}

/// A life's findings so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Moments at which the power was cut.
    pub cuts: u64,
    /// Disks that were left by the cuts.
    pub survivors: u64,
    /// Different disks among them, each verified, opened and read.
    pub images: u64,
}

/// Where and how a life broke its promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The change before which the power was cut.
    pub index: usize,
    /// What survived.
    pub choice: Choice,
    /// What is wrong.
    pub broken: Broken,
}

/// How closely a disk is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is opened and read.
    Open,
    /// It is verified first.
    Verify,
    /// And opened for reading only as well, which has to show the same.
    VerifyAndReadOnly,
}

/// Verifies, opens and reads the disk `image`, as a new process would.
pub fn find(image: &Image, page_size: PageSize, how: Look) -> Result<Finding, Broken> {
    let look = || {
        let disk = SimDisk::new(image, 1 << 40);
        if inspect_on(&disk).is_err_and(|error| error.kind == PagerErrorKind::NotFound) {
            return Ok(Finding::Nothing);
        }
        match verify_on(&disk) {
            _ if how == Look::Open => {}
            Err(error) => return Ok(Finding::Refused(format!("verify fails: {error}"))),
            Ok(report) => {
                if let Some(problem) = report.problems.first() {
                    return Ok(Finding::Refused(format!("verify reports {problem}")));
                }
            }
        }
        let read_only = how == Look::VerifyAndReadOnly;
        let read_only_finding = read_only.then(|| opened(image, page_size, true)).flatten();
        let found = opened(image, page_size, false);
        match (found, read_only_finding) {
            (Some(found), Some(other)) if found != other => {
                let what = format!("opened for reading it is {other:?}, for writing {found:?}");
                Err((Breach::Mixed, what))
            }
            (found, _) => Ok(found.expect("only a reader has to come back later")),
        }
    };
    without_panic(look)
}

fn without_panic<T>(look: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| Err((Breach::Lost, "the store panics".into())))
}

/// What opening `image` shows; `None` where a reader is told to let a writer open first.
fn opened(image: &Image, page_size: PageSize, read_only: bool) -> Option<Finding> {
    let disk = SimDisk::new(image, 1 << 40);
    Some(match open(&disk, page_size, read_only) {
        Ok(found) => Finding::Holds(found),
        Err(error) if read_only && error.kind == PagerErrorKind::Denied => return None,
        Err(error) if error.kind == PagerErrorKind::NotFound => Finding::Nothing,
        Err(error) => Finding::Refused(format!("it does not open: {error}")),
    })
}

/// Opens and reads.
fn open(disk: &SimDisk, page_size: PageSize, read_only: bool) -> Result<Print, PagerError> {
    let options = Options {
        create: false,
        read_only,
        ..options(page_size)
    };
    let store = FileStore::open_on(Arc::new(disk.clone()), &options)?;
    let found = contents(&store, 0);
    // What it holds was read; its closing would only take a checkpoint.
    disk.freeze();
    drop(store);
    Ok(print(&found?))
}

/// A read fails while the disk `image`, which holds `state`, is verified, and while it is opened and read: verifying says so,
/// opening says so or shows the same, and the next opening shows the same.
fn look_while_a_read_fails(
    (image, page_size): (&Image, PageSize),
    state: &Print,
    random: &mut Random,
) -> Result<(), Broken> {
    let mut failing = || {
        let (disk, number) = (SimDisk::new(image, 1 << 40), random.below(READS_OF_LOOK) as u64);
        disk.inject(Fault {
            operations: number..number + 1,
            place: Place::Anywhere,
            deeds: Deeds::All,
            failure: disk::Failure::Read,
        });
        (disk, format!("while read {number} fails"))
    };
    without_panic(|| {
        let (disk, when) = failing();
        let report = verify_on(&disk);
        if disk.failed() > 0
            && !report
                .as_ref()
                .is_err_and(|error| error.kind == PagerErrorKind::Io)
        {
            return Err((Breach::Undetected, format!("{when}, verifying says {report:?}")));
        }
        let (disk, when) = failing();
        match open(&disk, page_size, false) {
            Err(error) if disk.failed() > 0 && error.kind == PagerErrorKind::Io => {}
            Ok(found) if found == *state => {}
            other => return Err((Breach::Mixed, format!("{when}, opening gives {other:?}"))),
        }
        disk.heal();
        disk.thaw();
        match open(&disk, page_size, false) {
            Ok(found) if found == *state => Ok(()),
            other => Err((Breach::Lost, format!("opened again it gives {other:?}"))),
        }
    })
}

/// What may survive of the pending changes of `platter`: everything where they are few, else samples.
pub fn choices(platter: &Platter, random: &mut Random) -> Vec<Choice> {
    let count = platter.pending();
    let whole = |kept: Vec<bool>| Choice { kept, torn: None };
    let mut choices: Vec<Choice> = Vec::new();
    if count <= SUBSETS_ALL_MAX {
        let subset = |mask: usize| (0..count).map(|bit| mask >> bit & 1 == 1).collect();
        choices.extend((0..1usize << count).map(|mask| whole(subset(mask))));
    } else {
        let some = random.below(count);
        choices.push(whole(vec![false; count]));
        choices.push(whole(vec![true; count]));
        choices.push(whole((0..count).map(|index| index < some).collect()));
        choices.push(whole((0..count).map(|index| index >= some).collect()));
        choices.push(whole((0..count).map(|index| index == some).collect()));
        choices.push(whole((0..count).map(|index| index != some).collect()));
        choices.push(whole((0..count).map(|index| index == count - 1).collect()));
        for sample in 0..SUBSETS_SAMPLED {
            let part = 2 + sample % 4;
            let rare = sample % 2 == 0;
            choices.push(whole((0..count).map(|_| random.once_in(part) == rare).collect()));
        }
    }
    let sectors = platter.sectors();
    let wide: Vec<usize> = (0..count).filter(|index| sectors[*index] > 1).collect();
    if wide.is_empty() {
        return choices;
    }
    for tear in 0..TEARS {
        // The last write is the one that the cut most likely interrupts.
        let torn = match tear % 2 {
            0 => wide[wide.len() - 1],
            _ => wide[random.below(wide.len())],
        };
        let at = 1 + random.below(sectors[torn] - 1);
        let how = [Tear::Head(at), Tear::Tail(at), Tear::Some(random.number())][random.below(3)];
        let others = random.below(3);
        let keep = |index| index == torn || others == 0 || (others == 1 && index < torn);
        let mut kept: Vec<bool> = (0..count).map(keep).collect();
        if others == 2 {
            kept.iter_mut()
                .enumerate()
                .for_each(|(index, kept)| *kept = index == torn || random.once_in(2));
        }
        choices.push(Choice {
            kept,
            torn: Some((torn, how)),
        });
    }
    choices
}

/// Cuts the power before every change of `life`, and after the last. `also` sees every moment.
///
/// # Errors
/// The first cut after which the store is not what it promised.
pub fn cut_everywhere(
    life: &Life,
    random: &mut Random,
    counts: &mut Counts,
    mut also: impl FnMut(usize, &Platter, &mut Random) -> Result<(), Broken>,
) -> Result<(), Box<Failure>> {
    let mut platter = Platter::new(&life.base);
    let mut seen: HashMap<u64, Finding> = HashMap::new();
    for index in 0..=life.trace.len() {
        counts.cuts += 1;
        for choice in choices(&platter, random) {
            if life.look_once_in > 1 && !random.once_in(life.look_once_in) {
                continue;
            }
            counts.survivors += 1;
            let image = platter.cut(&choice);
            let fail = |broken| {
                let choice = choice.clone();
                Box::new(Failure {
                    index,
                    choice,
                    broken,
                })
            };
            let sum = image_sum(&image);
            let finding = match seen.get(&sum) {
                Some(finding) => finding,
                None => {
                    counts.images += 1;
                    let how = match random.once_in(READ_ONLY_ONCE_IN) {
                        true => Look::VerifyAndReadOnly,
                        false => Look::Verify,
                    };
                    let finding = find(&image, life.page_size, how).map_err(fail)?;
                    // The disk decides, so that a look more changes nothing in what follows.
                    let mut random = Random::new(sum);
                    if let Finding::Holds(state) = &finding
                        && random.once_in(READ_FAILS_ONCE_IN)
                    {
                        look_while_a_read_fails((&image, life.page_size), state, &mut random)
                            .map_err(fail)?;
                    }
                    seen.entry(sum).or_insert(finding)
                }
            };
            judge(life, index, finding).map_err(fail)?;
        }
        also(index, &platter, random).map_err(|broken| {
            let choice = Choice {
                kept: vec![true; platter.pending()],
                torn: None,
            };
            Box::new(Failure {
                index,
                choice,
                broken,
            })
        })?;
        if let Some(change) = life.trace.get(index) {
            platter.apply(change);
        }
    }
    Ok(())
}

fn judge(life: &Life, index: usize, finding: &Finding) -> Result<(), Broken> {
    match finding {
        Finding::Nothing => life.history.judge(index, None),
        Finding::Holds(found) => life.history.judge(index, Some(found)),
        Finding::Refused(why) => Err((Breach::Lost, format!("the store is refused: {why}"))),
    }
}
