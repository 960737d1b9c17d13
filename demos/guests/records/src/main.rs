//! Records in a file that is mapped by somebody else's crate, `memvec`, which knows only memmap2.
//!
//! `vmsync run --wasi --files STORE::data records.wasm -- add 7`, and `list`.

use std::error::Error;

use memvec::{MemVec, VecFile};

/// Below the folder of `--files`.
const FILE: &str = "data/records.bin";

/// What a record is: a number, and how many there were before it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Record {
    number: u64,
    before: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = VecFile::open_or_create(FILE, |_| Ok(()))?;
    // SAFETY: the file is this program's, and holds records of this layout or nothing.
    let mut records =
        unsafe { MemVec::<Record, _>::try_from_memory(file) }.map_err(|_| "no file of records")?;
    match arguments.first().map(String::as_str) {
        Some("add") => {
            for number in &arguments[1..] {
                let before = records.len() as u64;
                let number = number.parse()?;
                records.push(Record { number, before });
            }
            println!("{}", records.len());
        }
        Some("list") => records
            .iter()
            .for_each(|record| println!("{} {}", record.before, record.number)),
        // What is not durable when a program dies has never been.
        Some("crash") => {
            records.iter_mut().for_each(|record| record.number = 0);
            std::process::abort();
        }
        _ => return Err("say `add NUMBER...`, `list` or `crash`".into()),
    }
    // memvec leaves the writing to the system; this makes it durable, all of it or none.
    std::fs::File::open(FILE)?.sync_all()?;
    Ok(())
}
