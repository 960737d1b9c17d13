//! What may be found after a run, and what may not.

use std::{error::Error, fmt};

use crate::{
    codesearch::{Checked, Counts, Synced, Verified},
    life::{How, Life},
};

/// The guest's memory is not what it was promised.
#[derive(Debug)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Error for Violation {}

/// What is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    pub files: u64,
    pub counts: Counts,
}

impl Durable {
    /// Before the first run.
    pub const NOTHING: Self = Self {
        files: 0,
        counts: Counts {
            identifiers: 0,
            places: 0,
        },
    };
}

/// Bounds of what one run may have changed.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub files_all: u64,
    pub sync_every: u64,
}

/// Judges a run and what was found after it, where `before` was durable: what is durable now, or what is wrong.
///
/// # Errors
/// The violation.
pub fn judge(
    before: Durable,
    life: &Life,
    verified: &Verified,
    checked: &Checked,
    bounds: Bounds,
) -> Result<Durable, Violation> {
    let wrong = |what: String| Err(Violation(what));
    if let How::Failed(words) = &life.how {
        return wrong(format!("the guest failed by itself: {words}"));
    }
    if let Some(files) = life.resumed
        && files != before.files
    {
        return wrong(format!(
            "the guest resumed behind {files} files, {} were durable",
            before.files
        ));
    }
    let promised = life.reported.unwrap_or(Synced {
        files: before.files,
        counts: before.counts,
    });
    match verified {
        Verified::Sound => {}
        Verified::Missing if promised.files == 0 => {}
        Verified::Missing => return wrong(format!("the store is gone, with {} files", promised.files)),
        Verified::Wrong(words) => return wrong(format!("the store is not sound: {words}")),
    }
    let (files, counts) = match checked {
        Checked::Equal { files, counts } => (*files, *counts),
        Checked::Wrong(words) => return wrong(format!("the index is not equal to a recount: {words}")),
    };
    if files < promised.files {
        return wrong(format!(
            "{files} files are durable, {} had been reported as synced",
            promised.files
        ));
    }
    if files == promised.files && counts != promised.counts {
        return wrong(format!(
            "{files} files are durable as reported, but with {counts:?} instead of {:?}",
            promised.counts
        ));
    }
    // A line may be missing for a sync that the kill followed at once, and never for two.
    let files_max = bounds.files_all.min(promised.files + bounds.sync_every);
    if files > files_max {
        return wrong(format!(
            "{files} files are durable, more than one sync after the {} reported ones",
            promised.files
        ));
    }
    if files != promised.files && files != files_max {
        return wrong(format!("{files} files are durable, which is between two syncs"));
    }
    if life.how == How::Finished && files != bounds.files_all {
        return wrong(format!(
            "{files} files are durable after the end, not {}",
            bounds.files_all
        ));
    }
    Ok(Durable { files, counts })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::life::Traced;

    const BOUNDS: Bounds = Bounds {
        files_all: 100,
        sync_every: 8,
    };

    fn counts(files: u64) -> Counts {
        Counts {
            identifiers: 10 * files,
            places: 50 * files,
        }
    }

    fn durable(files: u64) -> Durable {
        Durable {
            files,
            counts: counts(files),
        }
    }

    fn killed(resumed: Option<u64>, reported: Option<u64>) -> Life {
        Life {
            how: How::Killed,
            resumed,
            reported: reported.map(|files| Synced {
                files,
                counts: counts(files),
            }),
            syncs: u64::from(reported.is_some()),
            traced: Traced::default(),
            bytes_written: None,
            start: None,
            syncing: Duration::ZERO,
        }
    }

    fn equal(files: u64) -> Checked {
        Checked::Equal {
            files,
            counts: counts(files),
        }
    }

    /// The verdict after 16 files were durable, the run resumed, and 40 were reported.
    fn found(verified: &Verified, checked: &Checked) -> Result<Durable, String> {
        judge(
            durable(16),
            &killed(Some(16), Some(40)),
            verified,
            checked,
            BOUNDS,
        )
        .map_err(|violation| violation.0)
    }

    #[test]
    fn the_last_reported_sync_or_the_one_after_it_is_right() {
        for files in [40, 48] {
            assert_eq!(found(&Verified::Sound, &equal(files)), Ok(durable(files)));
        }
    }

    #[test]
    fn a_lost_sync_is_a_violation() {
        let error = found(&Verified::Sound, &equal(32)).unwrap_err();
        assert!(
            error.contains("32 files are durable, 40 had been reported"),
            "{error}"
        );
    }

    #[test]
    fn what_no_sync_wrote_is_a_violation() {
        let error = found(&Verified::Sound, &equal(56)).unwrap_err();
        assert!(error.contains("more than one sync"), "{error}");
        let error = found(&Verified::Sound, &equal(41)).unwrap_err();
        assert!(error.contains("between two syncs"), "{error}");
    }

    #[test]
    fn damage_and_difference_are_violations() {
        let damage = Verified::Wrong("journal-0 at byte 4096".into());
        assert!(found(&damage, &equal(40)).unwrap_err().contains("byte 4096"));
        assert!(
            found(&Verified::Missing, &equal(40))
                .unwrap_err()
                .contains("gone")
        );
        let differs = Checked::Wrong("differs unsafe is missing".into());
        assert!(found(&Verified::Sound, &differs).unwrap_err().contains("unsafe"));
        let others = Checked::Equal {
            files: 40,
            counts: counts(39),
        };
        assert!(
            found(&Verified::Sound, &others)
                .unwrap_err()
                .contains("instead of")
        );
    }

    #[test]
    fn a_run_must_resume_where_the_one_before_was_durable() {
        let life = killed(Some(8), None);
        let error = judge(durable(16), &life, &Verified::Sound, &equal(16), BOUNDS).unwrap_err();
        assert!(error.0.contains("resumed behind 8 files"), "{error}");
    }

    #[test]
    fn nothing_is_promised_before_the_first_sync() {
        let life = killed(None, None);
        let verdict = judge(Durable::NOTHING, &life, &Verified::Missing, &equal(0), BOUNDS);
        assert_eq!(verdict.unwrap(), Durable::NOTHING);
    }
}
