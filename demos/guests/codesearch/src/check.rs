//! The proof that the index is right: the same files counted again, into a map on the ordinary heap.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::process::ExitCode;

use vmsync_guest::Heap;

use crate::index::{Index, Place, check_list, read_list, read_source};
use crate::{Failure, tokens};

type Recount = BTreeMap<String, Vec<Place>>;

/// Recounts the files that are indexed and compares; prints the outcome.
pub fn check(heap: &Heap<Index>, list: &str) -> Result<ExitCode, Failure> {
    let paths = read_list(list)?;
    let done = check_list(heap, &paths)?;
    let recount = recount(&paths[..done])?;
    Ok(match heap.read(|index| difference(index, &recount)) {
        None => {
            let places: usize = recount.values().map(Vec::len).sum();
            println!("equal {done} {} {places}", recount.len());
            ExitCode::SUCCESS
        }
        Some(difference) => {
            println!("differs {difference}");
            ExitCode::FAILURE
        }
    })
}

fn recount(paths: &[String]) -> Result<Recount, Failure> {
    let mut recount = Recount::new();
    for (file, path) in paths.iter().enumerate() {
        let source = read_source(path)?;
        let counted: Result<(), Infallible> = tokens::identifiers(&source, |word, line| {
            let place = Place {
                file: file as u32,
                line,
            };
            match recount.get_mut(word) {
                None => drop(recount.insert(word.into(), vec![place])),
                Some(places) if places.last() == Some(&place) => {}
                Some(places) => places.push(place),
            }
            Ok(())
        });
        match counted {
            Ok(()) => {}
        }
    }
    Ok(recount)
}

/// The first difference, in words.
fn difference(index: &Index<'_>, recount: &Recount) -> Option<String> {
    let mut found = index.places.iter();
    for (word, expected) in recount {
        let Some((found_word, places)) = found.next() else {
            return Some(format!("{word} is missing, and all that follow it"));
        };
        if **found_word != **word {
            return Some(format!("{word} is expected, {found_word} is found"));
        }
        if places[..] != expected[..] {
            let (found, expected) = (places.len(), expected.len());
            return Some(format!(
                "{word} has {found} places, or others; expected {expected}"
            ));
        }
    }
    if let Some((word, _)) = found.next() {
        return Some(format!("{word} is found, but occurs nowhere"));
    }
    let places: usize = recount.values().map(Vec::len).sum();
    (index.place_count != places as u64)
        .then(|| format!("{} places are counted, not {places}", index.place_count))
}
