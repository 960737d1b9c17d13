//! What is emitted, form by form: each `golden/NAME.wat` is instrumented and compared with `golden/NAME.out.wat`.
//!
//! The first line of a file names its options: `;; analyses: none|all|stack|coalesce|hoist`, then `inline=ADDRESS`,
//! `suspect=BYTES`, `memory=INDEX`. `BLESS=1` writes the results instead of comparing them.

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use vmsync_instrument::{Analyses, Cards, MemoryChoice, Options, instrument};

fn options(line: &str) -> Result<Options> {
    let mut options = Options {
        analyses: Analyses::NONE,
        ..Options::default()
    };
    let words = line
        .strip_prefix(";; analyses: ")
        .context("the first line names the options")?;
    for word in words.split_whitespace() {
        match word.split_once('=') {
            Some(("inline", at)) => options.cards = Cards::Inline { offset: at.parse()? },
            Some(("suspect", bytes)) => options.suspect_bytes = bytes.parse()?,
            Some(("memory", index)) => options.memory = MemoryChoice::Index(index.parse()?),
            None => {
                options.analyses = match word {
                    "none" => Analyses::NONE,
                    "all" => Analyses::ALL,
                    "stack" => Analyses {
                        shadow_stack: true,
                        ..Analyses::NONE
                    },
                    "coalesce" => Analyses {
                        coalesce: true,
                        ..Analyses::NONE
                    },
                    "hoist" => Analyses {
                        hoist: true,
                        ..Analyses::NONE
                    },
                    "scatter" => Analyses {
                        scatter: true,
                        ..Analyses::NONE
                    },
                    _ => bail!("no analysis {word}"),
                }
            }
            Some((key, _)) => bail!("no option {key}"),
        }
    }
    Ok(options)
}

fn golden(path: &Path) -> Result<bool> {
    let text = std::fs::read_to_string(path)?;
    let options = options(text.lines().next().unwrap_or_default())?;
    let done = instrument(&wat::parse_str(&text)?, &options)?;
    let found = wasmprinter::print_bytes(&done.wasm)?;
    let expected = path.with_extension("out.wat");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&expected, found)?;
        return Ok(true);
    }
    let same = std::fs::read_to_string(&expected).context("no expectation: run with BLESS=1")? == found;
    if !same {
        println!(
            "{} differs; BLESS=1 writes what is emitted now:\n{found}",
            path.display()
        );
    }
    Ok(same)
}

#[test]
fn the_emitted_code_is_the_expected_one() -> Result<()> {
    let mut files = 0;
    let mut different = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.ends_with(".out.wat") || !name.ends_with(".wat") {
            continue;
        }
        files += 1;
        if !golden(&path).with_context(|| name.clone())? {
            different.push(name);
        }
    }
    ensure!(different.is_empty(), "different: {}", different.join(", "));
    ensure!(files >= 10, "the files are there");
    Ok(())
}
