//! Modules that others have compiled and published: instrumented, they validate, and do what the plain ones do.
//!
//! `packages/package.json` names them; `cargo xtask test` installs them and sets `VMSYNC_PACKAGES` to their folder. SQLite
//! and QuickJS come from C through Emscripten, brotli and lz4 from Rust, esbuild from Go. Each does a task that stores much:
//! once plain, once with cards in a memory of their own, once with cards in the guest's memory where that has room. Results
//! and memory have to be the same, and what changed has to be marked; of esbuild, which runs under WASI with its clocks, results.

mod support;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use support::check;
use vmsync_instrument::{Cards, CardsLocation, Instrumented, MemoryChoice, Options, instrument};
use wasmtime::{
    Caller, Config, Engine, ExternType, FuncType, Instance, Linker, Memory, MemoryType, Module, OptLevel,
    Store, Val,
};
use wasmtime_wasi::{
    I32Exit, WasiCtxBuilder,
    p1::{self, WasiP1Ctx},
    p2::pipe::{MemoryInputPipe, MemoryOutputPipe},
};

/// Bytes of a card table in the guest's memory, and of a Wasm page.
const TABLE_BYTES: u64 = 1 << 20;
const PAGE_BYTES: u64 = 1 << 16;

/// Pages of an imported memory: 32 MiB, more than any of the tasks needs.
const IMPORTED_PAGES: u32 = 512;

/// How much larger a module may become. Go spills to stacks that are on its heap, which need
/// marks as everything else there does.
const SIZE_RATIO_MAX: f64 = 1.3;
const GO_SIZE_RATIO_MAX: f64 = 1.31;

type Task = fn(&mut Guest) -> Result<Vec<u8>>;

fn packages() -> Option<PathBuf> {
    let folder = std::env::var_os("VMSYNC_PACKAGES").map(PathBuf::from);
    if folder.is_none() {
        eprintln!(
            "SKIPPED: VMSYNC_PACKAGES is not set; `cargo xtask test` installs the packages and sets it"
        );
    }
    folder
}

fn read(module: &str) -> Result<Option<Vec<u8>>> {
    let Some(folder) = packages() else { return Ok(None) };
    let path = folder.join(module);
    let wasm = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(wasm))
}

/// An instance with hardly any host: what it imports answers with 0, or that there is no such system call, or object.
struct Guest {
    store: Store<()>,
    /// Its memory as it would be without the guest's stores.
    base: Vec<u8>,
    instance: Instance,
    memory: Memory,
    cards: Option<Memory>,
}

impl Guest {
    fn new(engine: &Engine, wasm: &[u8]) -> Result<Self> {
        let module = Module::new(engine, wasm)?;
        let mut store = Store::new(engine, ());
        let mut linker = Linker::new(engine);
        let mut memory = None;
        for import in module.imports() {
            let (space, name) = (import.module(), import.name());
            match import.ty() {
                ExternType::Func(ty) => {
                    let answer = match name {
                        "__wbindgen_is_undefined" => 1,
                        name => i32::from(name.starts_with("__syscall")) * -52,
                    };
                    linker.func_new(space, name, ty.clone(), move |_: Caller<'_, ()>, _, results| {
                        answer_with(&ty, answer, results)
                    })?;
                }
                ExternType::Memory(ty) => {
                    let ty =
                        MemoryType::new(IMPORTED_PAGES, ty.maximum().and_then(|max| max.try_into().ok()));
                    let made = Memory::new(&mut store, ty)?;
                    linker.define(&store, space, name, made)?;
                    memory = Some(made);
                }
                _ => anyhow::bail!("{space}.{name}: nothing of the kind is imported"),
            }
        }
        let instance = linker.instantiate(&mut store, &module)?;
        let memories = module.exports().filter(|export| export.ty().memory().is_some());
        let names: Vec<&str> = memories.map(|export| export.name()).collect();
        let [cards, exported] = [true, false].map(|cards| {
            let name = names
                .iter()
                .find(|name| (**name == vmsync_instrument::CARDS_EXPORT) == cards);
            name.and_then(|name| instance.get_memory(&mut store, name))
        });
        let memory = memory.or(exported).context("a memory")?;
        Ok(Self {
            base: memory.data(&store).to_vec(),
            memory,
            store,
            instance,
            cards,
        })
    }

    /// Calls an export; its result as a number, or 0.
    fn call(&mut self, name: &str, args: &[i32]) -> Result<i32> {
        let function = self.instance.get_func(&mut self.store, name);
        let function = function.with_context(|| format!("no export {name}"))?;
        let args: Vec<Val> = args.iter().copied().map(Val::I32).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        let called = function.call(&mut self.store, &args, &mut results);
        called.map_err(|error| anyhow::anyhow!("{name}: {error:#}"))?;
        Ok(results.first().map_or(0, Val::unwrap_i32))
    }

    fn write(&mut self, at: i32, bytes: &[u8]) -> Result<()> {
        self.base.resize(self.memory.data_size(&self.store), 0);
        self.base[at as u32 as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(self.memory.write(&mut self.store, at as u32 as usize, bytes)?)
    }

    fn read(&self, at: i32, len: i32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len as u32 as usize];
        self.memory.read(&self.store, at as u32 as usize, &mut bytes)?;
        Ok(bytes)
    }

    fn word(&self, at: i32) -> Result<i32> {
        let bytes = self.read(at, 4)?;
        Ok(i32::from_le_bytes(bytes.try_into().expect("4 bytes")))
    }

    /// The bytes from an address to the next 0.
    fn text(&self, at: i32) -> Result<Vec<u8>> {
        let memory = self.memory.data(&self.store).get(at as u32 as usize..);
        let text = memory.and_then(|memory| memory.split(|byte| *byte == 0).next());
        Ok(text.context("outside the memory")?.to_vec())
    }
}

fn answer_with(ty: &FuncType, answer: i32, results: &mut [Val]) -> wasmtime::Result<()> {
    for (ty, result) in ty.results().zip(results) {
        *result = Val::default_for_ty(&ty).expect("numbers are answered");
        if let Val::I32(number) = result {
            *number = answer;
        }
    }
    Ok(())
}

/// Runs the task plain and instrumented.
fn same(module: &str, answer: &str, task: Task) -> Result<()> {
    let Some(wasm) = read(module)? else { return Ok(()) };
    let engine = Engine::default();
    let mut plain = Guest::new(&engine, &wasm)?;
    let expected = task(&mut plain)?;
    let text = String::from_utf8_lossy(&expected);
    ensure!(text.starts_with(answer), "the plain module answers {text}");
    let own = Options {
        memory: MemoryChoice::Index(0),
        ..Options::default()
    };
    compare(&engine, instrument(&wasm, &own)?, &plain, &expected, task).context("cards of its own")?;
    // At the end of the memory's initial size, which these tasks do not reach.
    let initial = Module::new(&engine, &wasm)?;
    let memory = initial.imports().find_map(|import| import.ty().memory().cloned());
    let memory = memory.or_else(|| initial.exports().find_map(|export| export.ty().memory().cloned()));
    let initial = memory.context("a memory")?.minimum() * PAGE_BYTES;
    let offset = initial.saturating_sub(TABLE_BYTES);
    let free = plain.memory.data(&plain.store)[offset as usize..initial as usize].iter();
    if initial < 2 * TABLE_BYTES || free.copied().any(|byte| byte != 0) {
        println!("{module}: no room for cards in its memory");
        return Ok(());
    }
    let inline = Options {
        cards: Cards::Inline {
            offset: offset as u32,
        },
        ..own
    };
    compare(&engine, instrument(&wasm, &inline)?, &plain, &expected, task).context("cards in its memory")
}

fn compare(engine: &Engine, done: Instrumented, plain: &Guest, expected: &[u8], task: Task) -> Result<()> {
    let report = &done.report;
    let ratio = report.bytes_out as f64 / report.bytes_in as f64;
    println!(
        "{:.3} times {} bytes; {} stores, {} marks, {} loops",
        ratio, report.bytes_in, report.stores, report.marks, report.loops
    );
    ensure!(ratio <= SIZE_RATIO_MAX, "{ratio:.3} times as large");
    let mut marked = Guest::new(engine, &done.wasm)?;
    let found = task(&mut marked)?;
    ensure!(
        found == expected,
        "another result: {}",
        String::from_utf8_lossy(&found)
    );
    let mut now = marked.memory.data(&marked.store).to_vec();
    let table = marked.cards.unwrap_or(marked.memory).data(&marked.store);
    check(&marked.base, &now, table, &done.cards)?;
    if done.cards.export.is_none() {
        now[done.cards.offset as usize..][..done.cards.len as usize].fill(0);
    }
    ensure!(now == plain.memory.data(&plain.store), "memories differ");
    Ok(())
}

/// Text that compresses, and not too well.
fn sample() -> Vec<u8> {
    let line = |number: u32| {
        format!(
            "{number} {:x} the quick brown fox\n",
            number.wrapping_mul(2_654_435_761)
        )
    };
    (0..3000).flat_map(|number| line(number).into_bytes()).collect()
}

/// There and back through a module made by wasm-bindgen, whose functions take and return slices.
fn compressed(guest: &mut Guest, options: &[i32]) -> Result<Vec<u8>> {
    let through = |guest: &mut Guest, name: &str, input: &[u8], options: &[i32]| -> Result<Vec<u8>> {
        let answer = guest.call("__wbindgen_add_to_stack_pointer", &[-16])?;
        let at = guest.call("__wbindgen_malloc", &[input.len() as i32])?;
        guest.write(at, input)?;
        guest.call(name, &[&[answer, at, input.len() as i32], options].concat())?;
        let (at, len) = (guest.word(answer)?, guest.word(answer + 4)?);
        let output = guest.read(at, len)?;
        guest.call("__wbindgen_free", &[at, len])?;
        guest.call("__wbindgen_add_to_stack_pointer", &[16])?;
        Ok(output)
    };
    let input = sample();
    let small = through(guest, "compress", &input, options)?;
    ensure!(small.len() < input.len() / 2, "{} bytes are left", small.len());
    let back = through(guest, "decompress", &small, &[])?;
    ensure!(back == input, "decompressed to something else");
    Ok([b"compressed ", &small[..]].concat())
}

#[test]
fn lz4_from_rust() -> Result<()> {
    same("lz4-wasm-nodejs/lz4_wasm_nodejs_bg.wasm", "compressed", |guest| {
        compressed(guest, &[])
    })
}

#[test]
fn brotli_from_rust() -> Result<()> {
    // The imports say that no options are given.
    same("brotli-wasm/pkg.web/brotli_wasm_bg.wasm", "compressed", |guest| {
        compressed(guest, &[0])
    })
}

/// A table with an index, filled, changed, sorted and summed up.
const SQL: &str =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, size INTEGER); CREATE INDEX by_size ON t(size);
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
    INSERT INTO t SELECT i, printf('name %d of %x', i, i * 2654435761), i * 7919 % 10007 FROM n;
  UPDATE t SET name = upper(name) WHERE size % 3 = 0; DELETE FROM t WHERE size % 11 = 5; VACUUM;";
const QUERY: &str = "SELECT count(*) || ' rows, ' || sum(size) || ', ' || group_concat(name) FROM
    (SELECT name, size FROM t ORDER BY size, name)";

#[test]
fn sqlite_from_c() -> Result<()> {
    same(
        "@sqlite.org/sqlite-wasm/sqlite-wasm/jswasm/sqlite3.wasm",
        "36",
        |guest| {
            guest.call("__wasm_call_ctors", &[])?;
            let string = |guest: &mut Guest, text: &str| -> Result<i32> {
                let at = guest.call("sqlite3_malloc", &[text.len() as i32 + 1])?;
                guest.write(at, &[text.as_bytes(), &[0]].concat())?;
                Ok(at)
            };
            let [name, sql, query] = [":memory:", SQL, QUERY].map(|text| string(guest, text));
            let places = guest.call("sqlite3_malloc", &[8])?;
            // SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
            let opened = guest.call("sqlite3_open_v2", &[name?, places, 6, 0])?;
            ensure!(opened == 0, "sqlite3_open_v2 returns {opened}");
            let database = guest.word(places)?;
            let executed = guest.call("sqlite3_exec", &[database, sql?, 0, 0, 0])?;
            ensure!(executed == 0, "sqlite3_exec returns {executed}");
            guest.call("sqlite3_prepare_v2", &[database, query?, -1, places + 4, 0])?;
            let statement = guest.word(places + 4)?;
            // SQLITE_ROW
            ensure!(guest.call("sqlite3_step", &[statement])? == 100, "no row");
            let text = guest.call("sqlite3_column_text", &[statement, 0])?;
            let answer = guest.text(text)?;
            guest.call("sqlite3_finalize", &[statement])?;
            Ok(answer)
        },
    )
}

/// Closures, strings, regular expressions, a map, sorting and a garbage-collected graph.
const SCRIPT: &str = "const words = []; for (let i = 0; i < 4000; i++) words.push((i * 7919 % 10007).toString(36) + 'x');
  const counts = new Map(); for (const word of words) for (const c of word) counts.set(c, (counts.get(c) || 0) + 1);
  let list = null; for (let i = 0; i < 20000; i++) list = { next: i % 100 ? list : null, i };
  const fib = n => n < 2 ? n : fib(n - 1) + fib(n - 2);
  'done ' + JSON.stringify([words.sort().slice(0, 50), [...counts].sort(), fib(15), list.i,
    words.join(' ').replace(/(\\w)(\\w)/g, '$2$1').length])";

#[test]
fn quickjs_from_c() -> Result<()> {
    same(
        "@jitl/quickjs-wasmfile-release-sync/dist/emscripten-module.wasm",
        "done",
        |guest| {
            // Names are minified; the package's own JavaScript says which is which, for the version that is locked:
            // QTS_NewRuntime, QTS_NewContext, QTS_Eval, QTS_GetString, malloc.
            let [new_runtime, new_context, eval, get_string, malloc] = ["K", "N", "pa", "$", "v"];
            guest.call("u", &[])?;
            let runtime = guest.call(new_runtime, &[])?;
            let context = guest.call(new_context, &[runtime, 0])?;
            let script = [SCRIPT.as_bytes(), b"\0test.js\0"].concat();
            let at = guest.call(malloc, &[script.len() as i32])?;
            guest.write(at, &script)?;
            let len = SCRIPT.len() as i32;
            let value = guest.call(eval, &[context, at, len, at + len + 1, 0, 0])?;
            let text = guest.call(get_string, &[context, value])?;
            guest.text(text)
        },
    )
}

/// What is given to esbuild, and how its answer ends.
const SOURCE: &str =
    "enum Color { Red, Green }; export const twice = (x: number): number => x * 2 + Color.Green;";
const MINIFIED: &str = "export const twice=n=>n*2+1;\n";

/// 20 MB of functions with hundreds of locals and branch tables, compiled for WASI. (The package `esbuild-wasm` is for Go's
/// target `js`: it imports `gojs`, which is JavaScript that reads and writes Go's objects, so that it runs in no other host.)
#[test]
fn esbuild_from_go() -> Result<()> {
    let Some(wasm) = read("@esbuild/wasi-preview1/esbuild.wasm")? else {
        return Ok(());
    };
    let mut config = Config::new();
    // Compiling takes longer than the task.
    config.cranelift_opt_level(OptLevel::None);
    let engine = Engine::new(&config)?;
    let done = instrument(&wasm, &Options::default())?;
    println!("{:?}", done.report);
    let ratio = done.report.bytes_out as f64 / done.report.bytes_in as f64;
    ensure!(ratio <= GO_SIZE_RATIO_MAX, "{ratio:.3} times as large");
    let plain = minified(&engine, &wasm, None).context("plain")?;
    let text = String::from_utf8_lossy(&plain);
    ensure!(text.ends_with(MINIFIED), "the plain module answers {text}");
    let marked = minified(&engine, &done.wasm, Some(&done.cards)).context("instrumented")?;
    ensure!(
        marked == plain,
        "another result: {}",
        String::from_utf8_lossy(&marked)
    );
    Ok(())
}

/// Runs esbuild under WASI. What it and WASI changed in its memory has to be marked.
fn minified(engine: &Engine, wasm: &[u8], cards: Option<&CardsLocation>) -> Result<Vec<u8>> {
    let output = MemoryOutputPipe::new(1 << 20);
    let mut wasi = WasiCtxBuilder::new();
    wasi.args(&["esbuild", "--minify", "--loader=ts"]);
    wasi.stdin(MemoryInputPipe::new(SOURCE)).stdout(output.clone());
    let mut linker = Linker::new(engine);
    p1::add_to_linker_sync(&mut linker, |wasi: &mut WasiP1Ctx| wasi)?;
    let mut store = Store::new(engine, wasi.build_p1());
    let instance = linker.instantiate(&mut store, &Module::new(engine, wasm)?)?;
    let memory = instance.get_memory(&mut store, "memory").context("the memory")?;
    let base = memory.data(&store).to_vec();
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    let ended = start.call(&mut store, ()).expect_err("Go ends by an exit");
    ensure!(matches!(ended.downcast_ref(), Some(I32Exit(0))), "{ended:#}");
    if let Some(cards) = cards {
        let table = instance.get_memory(&mut store, vmsync_instrument::CARDS_EXPORT);
        let table = table.context("the cards")?.data(&store);
        check(&base, memory.data(&store), table, cards)?;
    }
    Ok(output.contents().to_vec())
}
