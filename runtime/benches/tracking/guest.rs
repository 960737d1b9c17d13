//! A kernel's instance: under stock Wasmtime, or under the facade with a region over all of its memory.
//!
//! Kernels import nothing, so an *adapter* does what a guest's own SDK would do: a module that takes the kernel's memory
//! for its own and maps an object over it. What the memory held is put back into the region.
//!
//! Invariants: a tracked kernel's region covers all that it stores to, but the shadow stack where the stores are
//! instrumented; it returns what the stock one returns.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use vmsync::{
    ByteRange, Grant, Host, HostOptions, Marks, ObjectName, TrackerKind, Vm, VmSync, add_to_linker,
    instrument::{Analyses, Options, instrument},
    prepare,
};
use vmsync_pager_memory::MemoryPager;
use wasmtime::{Config, Engine, Instance, Linker, Memory, Module, Store, TypedFunc};

const WASM_PAGE: u64 = 65536;

/// Maps object `k` over the range it is told. The host puts back what it stores to address 0 and behind.
const ADAPTER: &str = r#"(module
  (import "kernel" "memory" (memory 0))
  (import "vmsync1" "memory_object_open" (func $open (param i32 i32 i64 i32 i32) (result i32)))
  (import "vmsync1" "vm_map" (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
  (export "memory" (memory 0))
  (func (export "map") (param $address i32) (param $size i32) (result i32) (local $result i32)
    (i32.store8 (i32.const 0) (i32.const 107))
    (local.set $result
      (call $open (i32.const 0) (i32.const 1) (i64.extend_i32_u (local.get $size)) (i32.const 7) (i32.const 16)))
    (i32.store (i32.const 20) (local.get $address))
    (i32.or (local.get $result)
      (call $map (i32.const 1) (i32.const 20) (local.get $size) (i32.const 0) (i32.const 0)
        (i32.load (i32.const 16)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1)))))"#;

/// How the stores of a guest are tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Not at all: Wasmtime as it comes.
    Stock,
    /// By a rung, as the facade prepares a guest for it.
    Rung(TrackerKind),
    /// By the barrier without analyses, which marks both ends of each store: what a sound one takes at least.
    NaiveBarrier,
}

impl How {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Rung(kind) => kind.name(),
            Self::NaiveBarrier => "naive barrier",
        }
    }
}

/// An engine that runs guests tracked in one way.
pub struct Subject {
    pub how: How,
    host: Option<Host>,
    engine: Engine,
}

impl Subject {
    /// One of each of `all`, hosts before engines as [`Host`] asks.
    pub fn new(all: &[How]) -> Result<Vec<Self>> {
        let hosts: Vec<_> = all.iter().map(|how| (*how, host(*how))).collect();
        let subject = |(how, host): (How, Option<Host>)| {
            let mut config = Config::new();
            if let Some(host) = &host {
                host.configure(&mut config);
            }
            Ok(Self {
                how,
                host,
                engine: Engine::new(&config)?,
            })
        };
        hosts.into_iter().map(subject).collect()
    }

    /// Compiles `wasm` for this way of tracking.
    pub fn compile(&self, wasm: &[u8]) -> Result<Compiled> {
        let (wasm, marks) = match (self.how, &self.host) {
            (How::NaiveBarrier, _) => {
                let options = Options {
                    analyses: Analyses::NONE,
                    suspect_bytes: 0,
                    ..Options::default()
                };
                let done = instrument(wasm, &options)?;
                let host = self.host.as_ref().context("a barrier has a host")?;
                let marks = Marks::of(host, &done)?;
                (done.wasm, Some(marks))
            }
            (How::Rung(_), Some(host)) => {
                let prepared = prepare(host, wasm)?;
                (prepared.wasm.into_owned(), prepared.marks)
            }
            _ => (wasm.to_vec(), None),
        };
        Ok(Compiled {
            module: Module::new(&self.engine, &wasm)?,
            code_bytes: wasm.len(),
            marks,
        })
    }

    /// An instance of `compiled` to run `kernel` in, warmed up by a run.
    pub fn guest(&self, compiled: &Compiled, kernel: &str) -> Result<Guest> {
        let vm = match &self.host {
            None => None,
            Some(host) => {
                let grant = Grant::new(Arc::new(MemoryPager::default()), ObjectName::new("k")?);
                let builder = Vm::builder(host).marks(compiled.marks);
                Some(builder.grant("k", grant).build()?)
            }
        };
        let mut store = Store::new(&self.engine, vm);
        let instance = Instance::new(&mut store, &compiled.module, &[])?;
        let kernel = instance.get_typed_func::<(), u64>(&mut store, kernel)?;
        let memory = instance
            .get_memory(&mut store, "memory")
            .context("a kernel exports its memory")?;
        let mut guest = Guest {
            store,
            instance,
            kernel,
            memory,
            region: ByteRange::new(0, 0),
        };
        // It takes what memory it needs before a region covers all of it.
        guest.run()?;
        if self.host.is_some() {
            let stack_end = compiled.marks.map_or(0, Marks::stack_end);
            guest.map(&self.engine, stack_end)?;
        }
        Ok(guest)
    }
}

fn host(how: How) -> Option<Host> {
    let tracker = match how {
        How::Stock => return None,
        How::Rung(kind) => kind,
        How::NaiveBarrier => TrackerKind::Barrier,
    };
    let mut options = HostOptions::default();
    options.tracker = Some(tracker);
    Some(Host::new(options))
}

/// A program, compiled for a subject.
pub struct Compiled {
    module: Module,
    /// The size of the module that was compiled, in bytes.
    pub code_bytes: usize,
    marks: Option<Marks>,
}

/// An instance.
pub struct Guest {
    store: Store<Option<Vm>>,
    instance: Instance,
    kernel: TypedFunc<(), u64>,
    memory: Memory,
    region: ByteRange,
}

fn vm(data: &mut Option<Vm>) -> &mut Vm {
    data.as_mut().expect("only tracked guests ask for their Vm")
}

impl Guest {
    /// Runs the kernel: seconds, and the checksum.
    pub fn run(&mut self) -> Result<(f64, u64)> {
        let start = Instant::now();
        let checksum = self.kernel.call(&mut self.store, ())?;
        Ok((start.elapsed().as_secs_f64(), checksum))
    }

    /// `vm_msync` with SYNCHRONOUS of the whole region; seconds.
    pub fn sync(&mut self) -> Result<f64> {
        let start = Instant::now();
        Vm::msync(
            &mut self.store,
            &self.instance,
            vm,
            self.region,
            VmSync::SYNCHRONOUS,
        )?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Lays a region over the memory from `start` on, and makes what was there durable.
    fn map(&mut self, engine: &Engine, start: u64) -> Result<()> {
        let held = self.memory.data(&self.store).to_vec();
        let start = start.next_multiple_of(WASM_PAGE);
        self.region = ByteRange::new(start, held.len() as u64);
        ensure!(
            !self.region.is_empty() && self.region.end < 1 << 32,
            "no room for a region behind the stack"
        );
        // The first call attaches the Vm: through the kernel, whose marks an adapter would not show.
        let nothing = ByteRange::new(start, start);
        Vm::msync(&mut self.store, &self.instance, vm, nothing, VmSync::SYNCHRONOUS)?;
        let mut linker = Linker::new(engine);
        add_to_linker(&mut linker, vm)?;
        linker.define(&self.store, "kernel", "memory", self.memory)?;
        let adapter = linker.instantiate(&mut self.store, &Module::new(engine, ADAPTER)?)?;
        let map = adapter.get_typed_func::<(u32, u32), i32>(&mut self.store, "map")?;
        let result = map.call(&mut self.store, (start as u32, self.region.len() as u32))?;
        if result != 0 {
            bail!(
                "the region was refused: {result}, {:?}",
                vm(self.store.data_mut()).last_error()
            );
        }
        self.memory.write(&mut self.store, 0, &held)?;
        vm(self.store.data_mut()).note_store(self.region);
        self.sync().map(|_| ())
    }
}
