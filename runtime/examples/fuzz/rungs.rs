//! One module under every rung, all of its memory mapped, and what each rung says of it.
//!
//! A second instance beside the guest's imports its memory and makes the guest's calls of `vmsync1`: so the guest itself is
//! any module with a memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use vmsync::instrument::{MemoryChoice, Options, Report, instrument};
use vmsync::{ByteRange, Grant, Host, HostOptions, Marks, ObjectName, TrackerKind, Vm};
use vmsync_pager_conformance::{Event, ScriptedPager, random::Random};
use vmsync_pager_memory::MemoryPager;
use wasmtime::{Config, Engine, Extern, Instance, Linker, Memory, Module, Store, Trap, Val};

use crate::generate;

/// Calls of each function.
const CALLS: usize = 3;
/// Fuel of a call: an end for every program.
const FUEL: u64 = 300_000;
/// The trackers' page, and the granularity of the cards.
const PAGE_BYTES: u64 = 4096;
/// The export that holds the cards of an instrumented module.
const CARDS: &str = vmsync::instrument::CARDS_EXPORT;

/// What was done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Modules that were run, and calls that were compared.
    pub modules: u64,
    /// Calls that were compared under all rungs.
    pub calls: u64,
    /// Stores in the modules that were run.
    pub stores: u64,
    /// Marks that the instrumenter placed behind single stores.
    pub marks: u64,
    /// Stores that it marked ahead of their loops.
    pub hoisted: u64,
    /// Pages that the exact rungs returned.
    pub pages_exact: u64,
    /// Pages that `barrier` returned.
    pub pages_barrier: u64,
    /// Pages that had changed.
    pub pages_changed: u64,
    /// Differences.
    pub findings: u64,
}

struct Rung {
    kind: TrackerKind,
    host: Host,
    engine: Engine,
}

/// Every rung that works here.
pub struct Rungs(Vec<Rung>);

/// What one call left behind.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// Results as bits, or the trap.
    ended: Result<Vec<String>, String>,
    memory: Vec<u8>,
}

impl Rungs {
    /// Probes the rungs and makes an engine for each.
    pub fn new() -> Self {
        let works = vmsync::probe().into_iter().filter(|rung| rung.available.is_ok());
        Self(works.map(|rung| Rung::new(rung.kind)).collect())
    }

    /// Their names.
    pub fn names(&self) -> String {
        let names: Vec<String> = self.0.iter().map(|rung| rung.kind.to_string()).collect();
        names.join(", ")
    }

    /// Runs the module of one seed.
    ///
    /// # Errors
    /// What differs.
    pub fn run(&self, seed: u64, counts: &mut Counts) -> Result<()> {
        let mut random = Random::new(seed);
        let Some(wasm) = generate::module(&mut random) else {
            return Ok(());
        };
        let options = Options {
            memory: MemoryChoice::Index(0),
            ..Options::default()
        };
        let wasm = wat::parse_bytes(&wasm)?;
        let marked = instrument(&wasm, &options)?;
        let mut runs = Vec::new();
        for rung in &self.0 {
            let (module, marks): (&[u8], _) = match rung.kind {
                TrackerKind::Barrier => (&marked.wasm, Some(Marks::of(&rung.host, &marked)?)),
                _ => (&wasm, None),
            };
            match rung.start(module, marks).with_context(|| rung.kind.to_string())? {
                Some(run) => runs.push(run),
                // A memory without pages.
                None => return Ok(()),
            }
        }
        counts.modules += 1;
        counts.note(&marked.report);
        for name in runs[0].functions.clone() {
            for _ in 0..CALLS {
                let ty = runs[0].function(&name)?.ty(&runs[0].store);
                let Some(arguments) = generate::arguments(&ty, &mut random) else {
                    break;
                };
                let context = || format!("calling {name} with {arguments:?}");
                if !compare(&mut runs, &name, &arguments, counts).with_context(context)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// One call under every rung. `false`: one ran out of fuel or stack, of which instrumented code needs more.
fn compare(runs: &mut [Run], name: &str, arguments: &[Val], counts: &mut Counts) -> Result<bool> {
    let mut outcomes = Vec::new();
    for run in runs.iter_mut() {
        match run.call(name, arguments)? {
            Some(outcome) => outcomes.push(outcome),
            None => return Ok(false),
        }
    }
    let first = runs[0].kind;
    for (run, outcome) in runs.iter().zip(&outcomes).skip(1) {
        let [a, b] = [&outcomes[0].ended, &outcome.ended];
        ensure!(a == b, "{first} ends with {a:?}, {} with {b:?}", run.kind);
        ensure!(
            outcomes[0].memory == outcome.memory,
            "{first} and {} leave different memories",
            run.kind
        );
    }
    let mut exact: Option<BTreeSet<u64>> = None;
    let (mut changed, mut barrier) = (None, None);
    for run in runs.iter_mut() {
        let pages = run.sync()?;
        match run.kind {
            TrackerKind::Compare => changed = Some(pages),
            TrackerKind::Barrier => barrier = Some(pages),
            kind => match &exact {
                None => exact = Some(pages),
                Some(exact) => ensure!(*exact == pages, "{first} returns {exact:?}, {kind} {pages:?}"),
            },
        }
    }
    let changed = changed.context("`compare` works everywhere")?;
    for (name, pages) in [("the exact rungs", &exact), ("barrier", &barrier)] {
        let Some(pages) = pages else { continue };
        let missing: Vec<_> = changed.difference(pages).collect();
        ensure!(
            missing.is_empty(),
            "{missing:?} changed, and {name} did not return them"
        );
    }
    counts.calls += 1;
    counts.pages_changed += changed.len() as u64;
    counts.pages_exact += exact.map_or(0, |pages| pages.len() as u64);
    counts.pages_barrier += barrier.map_or(0, |pages| pages.len() as u64);
    Ok(true)
}

impl Counts {
    fn note(&mut self, report: &Report) {
        self.stores += report.stores;
        self.marks += report.marks;
        self.hoisted += report.hoisted;
    }
}

/// A guest whose memory is mapped from page 0 to its end.
struct Run {
    kind: TrackerKind,
    store: Store<Vm>,
    guest: Instance,
    mapper: Instance,
    memory: Memory,
    pager: Arc<ScriptedPager>,
    /// Bytes that are mapped.
    mapped: u64,
    functions: Vec<String>,
}

impl Rung {
    fn new(kind: TrackerKind) -> Self {
        let mut options = HostOptions::default();
        options.tracker = Some(kind);
        let host = Host::new(options);
        let mut config = Config::new();
        config
            .wasm_multi_memory(true)
            .cranelift_nan_canonicalization(true)
            .consume_fuel(true);
        let engine = Engine::new(host.configure(&mut config)).expect("an engine can be made");
        Self { kind, host, engine }
    }

    /// An instance with all of its memory mapped and clean. `None`: its memory has no pages.
    fn start(&self, wasm: &[u8], marks: Option<Marks>) -> Result<Option<Run>> {
        let pager = Arc::new(ScriptedPager::new(Arc::new(MemoryPager::default())));
        let grant = Grant::new(pager.clone(), ObjectName::new("m")?);
        let vm = Vm::builder(&self.host).grant("m", grant).marks(marks).build()?;
        let mut store = Store::new(&self.engine, vm);
        let module = Module::new(&self.engine, wasm)?;
        store.set_fuel(FUEL)?;
        let mut linker = Linker::new(&self.engine);
        vmsync::add_to_linker(&mut linker, |vm: &mut Vm| vm)?;
        linker.func_wrap("host", "collect", || ())?;
        let Ok(guest) = linker.instantiate(&mut store, &module) else {
            // A data segment outside the memory.
            return Ok(None);
        };
        let exports = || {
            module
                .exports()
                .map(|export| (export.name().to_string(), export.ty()))
        };
        let is_memory = |(name, ty): &(String, wasmtime::ExternType)| ty.memory().is_some() && name != CARDS;
        let (memory, _) = exports().find(is_memory).context("the memory is exported")?;
        let memory = guest.get_memory(&mut store, &memory).context("it is a memory")?;
        let mapped = memory.data_size(&store) as u64;
        if mapped == 0 {
            return Ok(None);
        }
        let cards = guest.get_memory(&mut store, CARDS);
        linker.define(&store, "guest", "memory", memory)?;
        if let Some(cards) = cards {
            linker.define(&store, "guest", "cards", Extern::Memory(cards))?;
        }
        let mapper = mapper(mapped, cards.is_some());
        let mapper = linker.instantiate(&mut store, &Module::new(&self.engine, mapper)?)?;
        let functions = exports()
            .filter(|(_, ty)| ty.func().is_some())
            .map(|(name, _)| name);
        let mut run = Run {
            kind: self.kind,
            functions: functions.collect(),
            store,
            guest,
            mapper,
            memory,
            pager,
            mapped,
        };
        run.map()?;
        Ok(Some(run))
    }
}

impl Run {
    /// Maps the memory, gives it the content that it had, and commits that.
    fn map(&mut self) -> Result<()> {
        let content = self.memory.data(&self.store).to_vec();
        self.mapper_call("map")?;
        self.memory.write(&mut self.store, 0, &content)?;
        self.store.data_mut().note_store(ByteRange::new(0, self.mapped));
        self.sync()?;
        Ok(())
    }

    fn mapper_call(&mut self, name: &str) -> Result<()> {
        self.store.set_fuel(FUEL)?;
        let function = self.mapper.get_typed_func::<(), i32>(&mut self.store, name)?;
        let result = function.call(&mut self.store, ())?;
        ensure!(result == 0, "{}: {name} returns {result}", self.kind);
        Ok(())
    }

    fn function(&mut self, name: &str) -> Result<wasmtime::Func> {
        let function = self.guest.get_func(&mut self.store, name);
        function.context("the export is a function")
    }

    /// `None`: fuel or stack was used up.
    fn call(&mut self, name: &str, arguments: &[Val]) -> Result<Option<Outcome>> {
        let function = self.function(name)?;
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        self.store.set_fuel(FUEL)?;
        let ended = match function.call(&mut self.store, arguments, &mut results) {
            Ok(()) => Ok(results.iter().map(bits).collect()),
            Err(error) => match error.downcast_ref::<Trap>() {
                Some(Trap::StackOverflow | Trap::OutOfFuel) => return Ok(None),
                Some(trap) => Err(trap.to_string()),
                None => Err(error.to_string()),
            },
        };
        let memory = self.memory.data(&self.store).to_vec();
        Ok(Some(Outcome { ended, memory }))
    }

    /// Commits everything: the pages that were returned.
    fn sync(&mut self) -> Result<BTreeSet<u64>> {
        self.pager.take_log();
        self.mapper_call("sync")?;
        let mut pages = BTreeSet::new();
        for event in self.pager.take_log() {
            if let Event::DataReturn { range, .. } = event {
                pages.extend(range.start / PAGE_BYTES..range.end / PAGE_BYTES);
            }
        }
        Ok(pages)
    }
}

/// Numbers as bits; references only as being null or not.
fn bits(value: &Val) -> String {
    match value {
        Val::I32(value) => value.to_string(),
        Val::I64(value) => value.to_string(),
        Val::F32(bits) => bits.to_string(),
        Val::F64(bits) => bits.to_string(),
        Val::V128(value) => value.as_u128().to_string(),
        Val::FuncRef(value) => value.is_some().to_string(),
        Val::ExternRef(value) => value.is_some().to_string(),
        _ => String::new(),
    }
}

/// The module that maps another's memory, of so many bytes.
fn mapper(bytes: u64, cards: bool) -> String {
    let cards = if cards {
        format!("(import \"guest\" \"cards\" (memory $cards 1)) (export \"{CARDS}\" (memory $cards))")
    } else {
        String::new()
    };
    format!(
        "(module
          (import \"vmsync1\" \"memory_object_open\" (func $open (param i32 i32 i64 i32 i32) (result i32)))
          (import \"vmsync1\" \"vm_map\"
            (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
          (import \"vmsync1\" \"vm_msync\" (func $msync (param i32 i32 i32 i32) (result i32)))
          (import \"guest\" \"memory\" (memory $memory 1)) {cards}
          (export \"memory\" (memory $memory))
          (func (export \"map\") (result i32)
            (i32.store8 (i32.const 0) (i32.const 0x6d))
            (if (call $open (i32.const 0) (i32.const 1) (i64.const {bytes}) (i32.const 7) (i32.const 16))
              (then (return (i32.const -1))))
            (i32.store (i32.const 20) (i32.const 0))
            (call $map (i32.const 1) (i32.const 20) (i32.const {bytes}) (i32.const 0) (i32.const 0)
              (i32.load (i32.const 16)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1)))
          (func (export \"sync\") (result i32)
            (call $msync (i32.const 1) (i32.const 0) (i32.const {bytes}) (i32.const 2))))"
    )
}
