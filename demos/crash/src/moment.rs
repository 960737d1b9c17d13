//! When to kill.
//!
//! A fifth of the kills falls into the start: compiling, opening the store, replaying its journal. The others are
//! spread over what is left of the index, half of them by time and half behind a counted number of syncs, so that
//! with the kills that are left about all of it is passed.

use std::{fmt, time::Duration};

use crate::random::Random;

/// When a run is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long after its start, perhaps before it says anything.
    Start(Duration),
    /// So long after its first line.
    Work(Duration),
    /// So long after so many syncs of this run.
    Syncs { syncs: u64, delay: Duration },
    /// Not at all.
    Never,
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(time) => write!(formatter, "start + {:.1} ms", milliseconds(*time)),
            Self::Work(time) => write!(formatter, "resumption + {:.2} ms", milliseconds(*time)),
            Self::Syncs { syncs, delay } => {
                write!(formatter, "{syncs} syncs + {:.2} ms", milliseconds(*delay))
            }
            Self::Never => formatter.write_str("never"),
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What runs have taken so far, which tells where the moments are.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From the start to the first line.
    pub start: Duration,
    /// From one sync to the next.
    pub gap: Duration,
}

impl Default for Pace {
    /// Guesses for the first run.
    fn default() -> Self {
        Self {
            start: Duration::from_millis(500),
            gap: Duration::from_millis(20),
        }
    }
}

/// Draws the next moment, with `syncs_left` to the end of the index and `kills_left` kills including this one.
pub fn draw(random: &mut Random, pace: Pace, syncs_left: u64, kills_left: u64) -> Moment {
    if syncs_left == 0 {
        return Moment::Never;
    }
    // Twice the share, because half of it is what is drawn on average.
    let span = (2 * syncs_left / (kills_left + 1)).max(1);
    let span_time = pace.gap.saturating_mul(u32::try_from(span).unwrap_or(u32::MAX));
    // One sync is left over, so that the kill comes before the end.
    let syncs = (1 + random.below(span)).min(syncs_left - 1);
    match random.below(10) {
        0..=1 => Moment::Start(random.duration(pace.start + pace.start / 4)),
        6.. if syncs > 0 => Moment::Syncs {
            syncs,
            delay: random.duration(pace.gap * 2),
        },
        _ => Moment::Work(random.duration(span_time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_moments() {
        let draw_all = |seed| {
            let mut random = Random::new(seed);
            let moments = (1..=50).map(|kills| draw(&mut random, Pace::default(), 1000, kills));
            moments.collect::<Vec<_>>()
        };
        assert_eq!(draw_all(7), draw_all(7));
        assert_ne!(draw_all(7), draw_all(8));
        let by_syncs = |moment: &&Moment| matches!(moment, Moment::Syncs { .. });
        assert!((10..40).contains(&draw_all(7).iter().filter(by_syncs).count()));
    }

    #[test]
    fn the_last_sync_is_left_over() {
        let mut random = Random::new(1);
        for _ in 0..1000 {
            if let Moment::Syncs { syncs, .. } = draw(&mut random, Pace::default(), 3, 1) {
                assert!(syncs <= 2);
            }
        }
    }
}
