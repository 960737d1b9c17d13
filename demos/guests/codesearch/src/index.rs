//! The index: its layout in the heap, how it grows, and what it answers.
//!
//! Invariant: at every sync, `places` holds exactly the identifiers of the files in `files`.

use std::io::Write;
use std::path::Path;

use vmsync_guest::{Alloc, Error, Heap, PMap, PString, PVec, persist};

use crate::{Failure, tokens};

persist! {
    /// A line of a file where an identifier occurs, once or more.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Place {
        /// Position in [`Index::files`].
        pub file: u32,
        /// Counted from 1.
        pub line: u32,
    }

    /// The root.
    pub struct Index<'h> {
        /// The files that are indexed, in order.
        pub files: PVec<'h, PString<'h>>,
        /// How many places there are in all.
        pub place_count: u64,
        /// Where each identifier occurs, ascending by file and line.
        pub places: PMap<'h, PString<'h>, PVec<'h, Place>>,
    }
}

/// The paths that `list` names.
pub fn read_list(list: &str) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(list).map_err(|error| format!("cannot read {list}: {error}"))?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(String::from)
        .collect())
}

/// The bytes of a file of the list.
pub fn read_source(path: &str) -> Result<Vec<u8>, Failure> {
    std::fs::read(Path::new(path)).map_err(|error| format!("cannot read {path}: {error}").into())
}

/// Fails unless the indexed files are the first of `paths`; how many they are.
pub fn check_list(heap: &Heap<Index>, paths: &[String]) -> Result<usize, Failure> {
    heap.read(|index| {
        for (number, done) in index.files.iter().enumerate() {
            if paths.get(number).map(String::as_str) != Some(done) {
                return Err(
                    format!("file {} of the list is not {done}, which was indexed", number + 1).into(),
                );
            }
        }
        Ok(index.files.len())
    })
}

/// Indexes the files of `list` that are not indexed yet, and syncs after every `sync_every`.
pub fn index(heap: &mut Heap<Index>, list: &str, sync_every: usize) -> Result<(), Failure> {
    let paths = read_list(list)?;
    let done = check_list(heap, &paths)?;
    println!("resumed {done} {}", paths.len());
    for batch in paths[done..].chunks(sync_every) {
        for path in batch {
            let source = read_source(path)?;
            heap.update(|index, alloc| add_file(index, alloc, path, &source))?;
        }
        heap.flush()?;
        report_sync(heap, paths.len())?;
    }
    println!("done {}", paths.len());
    Ok(())
}

fn report_sync(heap: &Heap<Index>, files_all: usize) -> Result<(), Failure> {
    let (done, identifiers, places) =
        heap.read(|index| (index.files.len(), index.places.len(), index.place_count));
    let live = heap.stats().live;
    let mut out = std::io::stdout().lock();
    writeln!(out, "synced {done} {files_all} {identifiers} {places} {live}")?;
    out.flush()?;
    Ok(())
}

fn add_file<'h>(index: &mut Index<'h>, alloc: Alloc<'h>, path: &str, source: &[u8]) -> Result<(), Error> {
    let file = index.files.len() as u32;
    index.files.push(PString::new_in(alloc, path)?)?;
    tokens::identifiers(source, |word, line| {
        let new = |alloc| Ok((PString::new_in(alloc, word)?, PVec::new_in(alloc)));
        let places = index.places.get_or_insert_with(word, new)?;
        let place = Place { file, line };
        if places.last() != Some(&place) {
            places.push(place)?;
            index.place_count += 1;
        }
        Ok(())
    })
}

/// Prints where `identifier` occurs.
pub fn query(heap: &Heap<Index>, identifier: &str, limit: usize) {
    heap.read(|index| {
        let places = index.places.get(identifier).map_or(&[][..], |places| &places[..]);
        for place in &places[..limit.min(places.len())] {
            println!("{}:{}", index.files[place.file as usize], place.line);
        }
        println!("places {}", places.len());
    });
}

/// Prints how large the index is.
pub fn stats(heap: &Heap<Index>) {
    heap.read(|index| {
        println!("files_done {}", index.files.len());
        println!("identifiers {}", index.places.len());
        println!("places {}", index.place_count);
    });
    let stats = heap.stats();
    println!("heap_live_bytes {}", stats.live);
    println!("heap_free_bytes {}", stats.free);
    println!("heap_untouched_bytes {}", stats.untouched);
}
