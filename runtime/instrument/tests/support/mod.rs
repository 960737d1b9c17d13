//! Runs a plain and an instrumented module side by side and checks the marks against what memory shows.
//!
//! Invariants:
//! - the checker knows nothing of the instrumenter but its contract: marked pages, suspect heads, and equal behaviour.
#![allow(dead_code)]

pub mod programs;

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use vmsync_instrument::{CardsLocation, Instrumented, Options, instrument};
use wasmtime::{Config, Engine, Extern, Instance, Linker, Memory, Module, Store, Val, ValType};

/// Fuel of one call: enough for every test, and an end for every generated program.
const FUEL: u64 = 1_000_000;
/// How much more of it marks may take, by far.
const MARKS_TIMES: u64 = 16;

/// An engine with everything that the instrumenter accepts and Wasmtime has.
pub fn engine() -> Engine {
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
        .wasm_relaxed_simd(true)
        .relaxed_simd_deterministic(true)
        .cranelift_nan_canonicalization(true)
        .wasm_backtrace_max_frames(None)
        .consume_fuel(true);
    Engine::new(&config).expect("the engine's configuration is valid")
}

/// What a host call sees.
#[derive(Default)]
pub struct Host {
    /// Called from inside the guest: collect now.
    pub collected: Vec<String>,
    /// The memory's content at the last collection.
    pub base: Vec<u8>,
    pub cards: Option<CardsLocation>,
    /// Every card that was marked at a collection.
    pub marked: BTreeSet<u64>,
}

/// One instance and its memories.
pub struct Side {
    pub store: Store<Host>,
    pub instance: Instance,
    pub memory: Memory,
    cards: Option<(Memory, CardsLocation)>,
    /// Fuel that the next calls get, and whether it was too little for the last.
    pub fuel: u64,
    pub ran_out: bool,
}

impl Side {
    pub fn new(engine: &Engine, wasm: &[u8], memory: &str, cards: Option<&CardsLocation>) -> Result<Self> {
        Self::linked(engine, wasm, memory, cards, |_| Ok(()))
    }

    /// One that imports more.
    pub fn linked(
        engine: &Engine,
        wasm: &[u8],
        memory: &str,
        cards: Option<&CardsLocation>,
        link: impl FnOnce(&mut Linker<Host>) -> Result<()>,
    ) -> Result<Self> {
        let module = Module::new(engine, wasm)?;
        let mut store = Store::new(
            engine,
            Host {
                cards: cards.cloned(),
                ..Host::default()
            },
        );
        store.set_fuel(FUEL)?;
        let mut linker = Linker::new(engine);
        let name = memory.to_string();
        linker.func_wrap(
            "host",
            "collect",
            move |mut caller: wasmtime::Caller<'_, Host>| {
                let memory = caller.get_export(&name).and_then(Extern::into_memory);
                let Some(cards) = caller.data().cards.clone() else {
                    return;
                };
                let table = caller
                    .get_export(cards.export.unwrap_or(&name))
                    .and_then(Extern::into_memory);
                let (Some(memory), Some(table)) = (memory, table) else {
                    return;
                };
                let marked = marked(table.data(&caller), &cards);
                caller.data_mut().marked.extend(marked);
                let now = memory.data(&caller).to_vec();
                let base = std::mem::take(&mut caller.data_mut().base);
                if let Err(error) = check(&base, &now, table.data(&caller), &cards) {
                    caller.data_mut().collected.push(error.to_string());
                }
                clear(table.data_mut(&mut caller), &cards);
                caller.data_mut().base = now;
            },
        )?;
        let name = memory.to_string();
        linker.func_wrap(
            "wasi_snapshot_preview1",
            "random_get",
            move |mut caller: wasmtime::Caller<'_, Host>, at: i32, len: i32| -> wasmtime::Result<i32> {
                let memory = caller.get_export(&name).and_then(Extern::into_memory);
                let bytes: Vec<u8> = (1..=255).cycle().take(len as u32 as usize).collect();
                memory
                    .expect("a memory")
                    .write(&mut caller, at as u32 as usize, &bytes)?;
                Ok(0)
            },
        )?;
        link(&mut linker)?;
        let instance = linker.instantiate(&mut store, &module)?;
        let memory = instance
            .get_memory(&mut store, memory)
            .context("the memory is exported")?;
        let cards = match cards {
            None => None,
            Some(location) => {
                let table = match location.export {
                    Some(name) => instance
                        .get_memory(&mut store, name)
                        .context("the cards are exported")?,
                    None => memory,
                };
                Some((table, location.clone()))
            }
        };
        let mut side = Self {
            store,
            instance,
            memory,
            cards,
            fuel: FUEL,
            ran_out: false,
        };
        side.rebase();
        Ok(side)
    }

    /// Forgets what was written so far.
    pub fn rebase(&mut self) {
        if let Some((table, location)) = &self.cards {
            clear(table.data_mut(&mut self.store), location);
        }
        self.store.data_mut().base = self.memory.data(&self.store).to_vec();
    }

    /// Calls an export: its results, or the trap it ended with. `None`: it ran out of fuel or stack, of which the two
    /// modules use different amounts: that says nothing.
    pub fn call(&mut self, name: &str, args: &[Val]) -> Result<Option<Result<Vec<Val>, String>>> {
        let function = self
            .instance
            .get_func(&mut self.store, name)
            .context("no such export")?;
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        self.store.set_fuel(self.fuel)?;
        let called = function.call(&mut self.store, args, &mut results);
        let trap = called.as_ref().err().and_then(|error| error.downcast_ref());
        self.ran_out = matches!(trap, Some(wasmtime::Trap::OutOfFuel));
        Ok(match called {
            Ok(()) => Some(Ok(results)),
            Err(error) => match error.downcast_ref::<wasmtime::Trap>() {
                Some(wasmtime::Trap::OutOfFuel | wasmtime::Trap::StackOverflow) => None,
                Some(trap) => Some(Err(trap.to_string())),
                None => Some(Err("an exception or a host error".to_string())),
            },
        })
    }

    /// Checks that every change since the last collection has its mark, and collects.
    pub fn collect(&mut self) -> Result<()> {
        let errors = std::mem::take(&mut self.store.data_mut().collected);
        ensure!(errors.is_empty(), "in a host call: {}", errors.join("; "));
        let Some((table, location)) = &self.cards else {
            bail!("a plain module has no cards")
        };
        check(
            &self.store.data().base,
            self.memory.data(&self.store),
            table.data(&self.store),
            location,
        )?;
        let marked = marked(table.data(&self.store), location);
        self.store.data_mut().marked.extend(marked);
        self.rebase();
        Ok(())
    }

    /// Calls an export again and again, each time with a little more fuel, and checks the marks each time. The last parameter of
    /// the export is another number in each call.
    pub fn collect_wherever_fuel_ends(&mut self, name: &str, args: &[Val]) -> Result<()> {
        let mut number = 0;
        let mut call = |side: &mut Self, fuel| -> Result<bool> {
            side.fuel = fuel;
            number += 1;
            let ended = side.call(name, &[args, &[Val::I32(number)]].concat())?;
            side.collect().with_context(|| format!("with fuel for {fuel}"))?;
            ensure!(ended.is_some() || side.ran_out, "it ended otherwise");
            Ok(ended.is_some())
        };
        ensure!(call(self, FUEL)?, "that should have been enough");
        let whole = self.used()?;
        // Where much is needed, what is needed for the stores themselves is in the middle.
        for fuel in (0..whole).filter(|fuel| *fuel < 400 || whole - fuel < 400) {
            call(self, fuel)?;
        }
        Ok(())
    }

    /// How much fuel the last call took.
    fn used(&self) -> Result<u64> {
        Ok(self.fuel - self.store.get_fuel()?)
    }

    /// Numbers of the marked cards.
    pub fn marked(&self) -> Vec<u64> {
        let Some((table, location)) = &self.cards else {
            return Vec::new();
        };
        marked(table.data(&self.store), location)
    }
}

fn marked(memory: &[u8], location: &CardsLocation) -> Vec<u64> {
    const CHUNK: usize = 1 << 12;
    let mut marked = Vec::new();
    for (number, cards) in table_of(memory, location).chunks(CHUNK).enumerate() {
        // Comparing is fast without optimisation too.
        if cards != &[0; CHUNK][..cards.len()] {
            let first = (number * CHUNK) as u64;
            let set = (first..).zip(cards).filter(|&(_, &card)| card != 0);
            marked.extend(set.map(|(page, _)| page));
        }
    }
    marked
}

fn table_of<'a>(memory: &'a [u8], location: &CardsLocation) -> &'a [u8] {
    &memory[location.offset as usize..][..location.len as usize]
}

fn clear(memory: &mut [u8], location: &CardsLocation) {
    memory[location.offset as usize..][..location.len as usize].fill(0);
}

/// Every page that differs is marked, or differs only in the head of a page after a marked one.
pub fn check(base: &[u8], now: &[u8], table: &[u8], location: &CardsLocation) -> Result<()> {
    let cards = table_of(table, location);
    let page = 1usize << location.page_size_shift;
    for (number, new) in now.chunks(page).enumerate() {
        let begin = number * page;
        let old = base
            .get(begin..)
            .map_or(&[][..], |rest| &rest[..rest.len().min(new.len())]);
        let same = old == &new[..old.len()] && new[old.len()..].iter().all(|&byte| byte == 0);
        if same || cards[number] != 0 {
            continue;
        }
        if location.export.is_none() && overlaps(begin, new.len(), location) {
            continue;
        }
        let last = (0..new.len())
            .rev()
            .find(|&at| new[at] != old.get(at).copied().unwrap_or(0))
            .unwrap_or(0);
        let suspect = number > 0 && cards[number - 1] != 0 && last < location.suspect_bytes as usize;
        ensure!(
            suspect,
            "page {number} changed at {:#x} without a mark",
            begin + last
        );
    }
    Ok(())
}

/// Inline cards are not tracked themselves.
fn overlaps(begin: usize, len: usize, location: &CardsLocation) -> bool {
    begin < (location.offset + location.len) as usize && location.offset < (begin + len) as u64
}

/// A plain module and the instrumented one.
pub struct Pair {
    pub plain: Side,
    pub marked: Side,
    pub done: Instrumented,
}

impl Pair {
    pub fn new(engine: &Engine, wasm: &[u8], options: &Options, memory: &str) -> Result<Self> {
        let done = instrument(wasm, options)?;
        Self::of(engine, wasm, done, memory)
    }

    pub fn of(engine: &Engine, wasm: &[u8], done: Instrumented, memory: &str) -> Result<Self> {
        let plain = Side::new(engine, wasm, memory, None)?;
        let marked = Side::new(engine, &done.wasm, memory, Some(&done.cards))?;
        Ok(Self { plain, marked, done })
    }

    /// Calls both, and checks results, traps, memory and marks. `false`: one ran out of fuel or stack; marks are checked then, too.
    pub fn call(&mut self, name: &str, args: &[Val]) -> Result<bool> {
        let (plain, marked) = (self.plain.call(name, args)?, self.marked.call(name, args)?);
        let (Some(plain), Some(marked)) = (&plain, &marked) else {
            // Ahead of a loop that ends in a trap there may be marks for all of the address space.
            ensure!(
                !self.marked.ran_out
                    || !matches!(plain, Some(Ok(_)))
                    || self.plain.used()? > FUEL / MARKS_TIMES,
                "only the instrumented module runs on and on"
            );
            self.marked.collect()?;
            return Ok(false);
        };
        match (plain, marked) {
            (Ok(a), Ok(b)) => ensure!(
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
                "results differ: {a:?} and {b:?}"
            ),
            (Err(a), Err(b)) => ensure!(a == b, "traps differ: {a} and {b}"),
            _ => bail!("one ends well and one does not: {plain:?} and {marked:?}"),
        }
        self.same_memory()?;
        self.marked.collect()?;
        Ok(true)
    }

    fn same_memory(&self) -> Result<()> {
        let plain = self.plain.memory.data(&self.plain.store);
        let marked = self.marked.memory.data(&self.marked.store);
        if self.done.cards.export.is_some() {
            ensure!(plain == marked, "memories differ");
        } else {
            let (begin, end) = (
                self.done.cards.offset as usize,
                (self.done.cards.offset + self.done.cards.len) as usize,
            );
            ensure!(plain.len() == marked.len(), "memories differ in size");
            ensure!(
                plain[..begin] == marked[..begin] && plain[end..] == marked[end..],
                "memories differ"
            );
        }
        Ok(())
    }
}

/// Equal bits; references are equal if both are null or neither is.
pub fn same(a: &Val, b: &Val) -> bool {
    match (a, b) {
        (Val::I32(a), Val::I32(b)) => a == b,
        (Val::I64(a), Val::I64(b)) => a == b,
        (Val::F32(a), Val::F32(b)) => a == b,
        (Val::F64(a), Val::F64(b)) => a == b,
        (Val::V128(a), Val::V128(b)) => a.as_u128() == b.as_u128(),
        (a, b) => is_null(a) == is_null(b),
    }
}

fn is_null(value: &Val) -> bool {
    match value {
        Val::FuncRef(value) => value.is_none(),
        Val::ExternRef(value) => value.is_none(),
        Val::AnyRef(value) => value.is_none(),
        Val::ExnRef(value) => value.is_none(),
        _ => false,
    }
}

/// A default for each type of parameter.
pub fn zero(ty: &ValType) -> Option<Val> {
    Val::default_for_ty(ty)
}

/// A small generator of pseudo-random numbers: a seed is all its state.
pub struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// The seed of a random test: `SEED` or the given one. Printed, so that a failure can be repeated.
pub fn seed(test: &str, default: u64) -> u64 {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default);
    println!("{test}: SEED={seed}");
    seed
}

/// How often a random test runs: an environment variable, or the given number.
pub fn count(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
