//! [`run`]: everything that one seed stands for: some lives on one disk, each cut everywhere and damaged, and with recoveries
//! behind it that are cut as well.

use twox_hash::XxHash3_64;

use crate::{
    canary::Canary,
    cuts::{Counts, Failure, Finding, Look, choices, cut_everywhere, find},
    damage::{Damage, Seen, damage},
    history::{Breach, Print, Step},
    life::{Broken, Life},
    limits::{DAMAGE_ONCE_IN, LIVES, RECOVERIES},
    platter::{Change, Choice, Image, Platter},
    random::Random,
    shape::Shape,
};

/// What came of a seed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was cut and opened.
    pub counts: Counts,
    /// What was damaged.
    pub seen: Seen,
    /// Operations that failed on demand.
    pub faults: u64,
    /// A checksum of everything that was done and found.
    pub trace_sum: u64,
    /// What went wrong, and where.
    pub violation: Option<(Breach, String)>,
}

/// Runs `seed`, on a store with a bug where one is given. Lives after the first violation are not lived.
pub fn run(seed: u64, canary: Option<Canary>) -> Outcome {
    let mut outcome = Outcome::default();
    let (shape, mut random) = (Shape::of(seed), Random::new(seed));
    let (mut base, mut state, mut past) = (Image::new(), None, Vec::new());
    for number in 0..LIVES {
        let faulty = match canary {
            None => random.once_in(2),
            Some(canary) => canary.needs_faults(),
        };
        let life = match Life::record(&shape, &base, state.take(), random.number(), faulty, canary) {
            Ok(life) => life,
            Err((breach, why)) => {
                outcome.violation = Some((breach, format!("life {number}, {why}")));
                break;
            }
        };
        match outcome.examine(&shape, life, canary, &mut past, &mut random) {
            Ok((left, found)) => (base, state) = (left, found),
            Err((breach, why)) => {
                outcome.violation = Some((breach, format!("life {number}, {why}")));
                break;
            }
        }
    }
    let verdict = format!("{:?} {:?} {:?}", outcome.counts, outcome.seen, outcome.violation);
    outcome.trace_sum = XxHash3_64::oneshot_with_seed(outcome.trace_sum, verdict.as_bytes());
    outcome
}

impl Outcome {
    /// Cuts `life` everywhere; a disk that it left, for the next life, and what that holds.
    fn examine(
        &mut self,
        shape: &Shape,
        mut life: Life,
        canary: Option<Canary>,
        past: &mut Vec<Print>,
        random: &mut Random,
    ) -> Result<(Image, Option<Print>), Broken> {
        self.faults += life.faults;
        if let Some(canary) = canary {
            canary.spoil(&mut life);
        }
        for change in &life.trace {
            self.trace_sum = change_sum(change, self.trace_sum);
        }
        // The next life begins in the middle of this one as often as at its end.
        let next = random.below(life.trace.len() * 2).min(life.trace.len());
        let mut left = None;
        let (counts, seen, earlier) = (&mut self.counts, &mut self.seen, &*past);
        let cut = cut_everywhere(&life, random, counts, |index, platter, random| {
            if index == next {
                let choices = choices(platter, random);
                left = Some(platter.cut(&choices[random.below(choices.len())]));
            }
            let untold = canary.and_then(Canary::untold);
            // Damage is the same whatever the size.
            let damages = (canary.is_none() || untold.is_some()) && life.look_once_in == 1;
            match damages && life.faults == 0 && random.once_in(DAMAGE_ONCE_IN) {
                true => damage_at(&life, (index, platter), earlier, random, (seen, untold)),
                false => Ok(()),
            }
        });
        cut.map_err(|failure| (failure.broken.0, told(&life, &failure)))?;
        past.extend(life.history.steps.into_iter().filter_map(|step| step.state));
        let left = left.expect("every index was met");
        match find(&left, life.page_size, Look::Verify)? {
            Finding::Holds(found) => {
                self.cut_recoveries(shape, (&left, &found), canary, random)?;
                Ok((left, Some(found)))
            }
            _ => Ok((left, None)),
        }
    }

    /// Cuts the recovery of `image`, which holds `state`, everywhere; and the recovery of what one of those cuts leaves; and so on.
    fn cut_recoveries(
        &mut self,
        shape: &Shape,
        (image, state): (&Image, &Print),
        canary: Option<Canary>,
        random: &mut Random,
    ) -> Result<(), Broken> {
        let mut image = image.clone();
        for number in 0..RECOVERIES {
            let mut life = Life::recovery(shape, &image, state, random.number())?;
            if let Some(canary) = canary {
                canary.spoil(&mut life);
            }
            let next = random.below(life.trace.len() + 1);
            let cut = cut_everywhere(&life, random, &mut self.counts, |index, platter, random| {
                if index == next {
                    let choices = choices(platter, random);
                    image = platter.cut(&choices[random.below(choices.len())]);
                }
                Ok(())
            });
            cut.map_err(|failure| {
                (
                    failure.broken.0,
                    format!("recovery {number}, {}", told(&life, &failure)),
                )
            })?;
        }
        Ok(())
    }
}

/// Damages the disk as a killed process leaves it before change `index`.
fn damage_at(
    life: &Life,
    (index, platter): (usize, &Platter),
    past: &[Print],
    random: &mut Random,
    (seen, untold): (&mut Seen, Option<Damage>),
) -> Result<(), Broken> {
    let kept = vec![true; platter.pending()];
    let image = platter.cut(&Choice { kept, torn: None });
    let Finding::Holds(state) = find(&image, life.page_size, Look::Verify)? else {
        return Ok(());
    };
    let steps = &life.history.steps;
    let at = steps
        .iter()
        .rposition(|step| step.allows(Some(&state)) && step.start <= index);
    let before: Vec<&Step> = steps[..at.unwrap_or(0)]
        .iter()
        .rev()
        .skip_while(|step| step.allows(Some(&state)))
        .collect();
    let states = before.iter().filter_map(|step| step.state.as_ref());
    let earlier: Vec<&Print> = states.chain(past).collect();
    damage((&image, life.page_size), (&state, &earlier), random, seen, untold)
}

/// A failure in words, with the steps around it.
fn told(life: &Life, failure: &Failure) -> String {
    let kept: String = failure
        .choice
        .kept
        .iter()
        .map(|kept| if *kept { '1' } else { '0' })
        .collect();
    let torn = match failure.choice.torn {
        Some((index, tear)) => format!(", {index} torn: {tear:?}"),
        None => String::new(),
    };
    let steps = &life.history.steps;
    let around = steps
        .iter()
        .enumerate()
        .filter(|(_, step)| step.start <= failure.index + 40 && step.end + 40 >= failure.index);
    let lines: Vec<_> = around
        .map(|(number, step)| {
            let sign = if step.promised { "durable" } else { "" };
            format!(
                "    step {number}: {}..{} {} {sign}",
                step.start, step.end, step.what
            )
        })
        .collect();
    format!(
        "power cut before change {} of {}, pending changes kept: [{kept}]{torn}: {}\n{}",
        failure.index,
        life.trace.len(),
        failure.broken.1,
        lines.join("\n")
    )
}

fn change_sum(change: &Change, sum: u64) -> u64 {
    match change {
        Change::Write(file, offset, bytes) => {
            XxHash3_64::oneshot_with_seed(sum ^ file.rotate_left(32) ^ *offset as u64, bytes)
        }
        other => XxHash3_64::oneshot_with_seed(sum, format!("{other:?}").as_bytes()),
    }
}
