//! A WASI program run twice: under vmsync with its folder `data` in a store, and by stock Wasmtime with a preopened
//! folder `data`. It is the same module: without a host's grant the POSIX library leaves every path to WASI.

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use vmsync::{Grant, Host, KernReturn, Marks, ObjectName, Vm, abi, add_to_linker, prepare};
use vmsync_pager_file::{FileStore, Options};
use wasmtime::{Config, Engine, ExternType, Linker, Module, Store, Val};
use wasmtime_wasi::{
    FsPerms, I32Exit, WasiCtxBuilder,
    p1::{self, WasiP1Ctx},
    p2::pipe::MemoryOutputPipe,
};

/// The most that a program may print.
const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// What a run gave.
pub struct Run {
    /// Standard output.
    pub output: String,
    /// From the start of the program to its end: neither compiling nor instantiating.
    pub seconds: f64,
}

/// A program under vmsync.
pub struct Ours {
    host: Host,
    engine: Engine,
    module: Module,
    marks: Option<Marks>,
    store: Arc<FileStore>,
}

/// The same under stock Wasmtime.
pub struct Stock {
    engine: Engine,
    module: Module,
    folder: std::path::PathBuf,
}

struct State {
    vm: Vm,
    wasi: WasiP1Ctx,
}

/// Runs `_start` and takes what it printed.
fn finish<T: 'static>(
    store: &mut Store<T>,
    linker: &Linker<T>,
    module: &Module,
    output: &MemoryOutputPipe,
) -> Result<Run> {
    let instance = linker.instantiate(&mut *store, module)?;
    let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
    let begin = Instant::now();
    let result = start.call(&mut *store, ());
    let seconds = begin.elapsed().as_secs_f64();
    let output = String::from_utf8_lossy(&output.contents()).into_owned();
    match result {
        Err(error) if !matches!(error.downcast_ref(), Some(I32Exit(0))) => {
            Err(anyhow::Error::from(error)).context(output)
        }
        _ => Ok(Run { output, seconds }),
    }
}

fn builder(arguments: &[&str], output: &MemoryOutputPipe) -> WasiCtxBuilder {
    let mut builder = WasiCtxBuilder::new();
    builder.arg("guest").args(arguments);
    builder.stdout(output.clone()).stderr(output.clone());
    builder
}

impl Ours {
    pub fn new(wasm: &Path, folder: &Path) -> Result<Self> {
        let host = Host::default();
        let engine = Engine::new(host.configure(&mut Config::new()))?;
        let wasm = read(wasm)?;
        let prepared = prepare(&host, &wasm)?;
        let module = Module::new(&engine, &prepared.wasm)?;
        let store = FileStore::open(folder, &Options::default())?;
        Ok(Self {
            host,
            engine,
            module,
            marks: prepared.marks,
            store,
        })
    }

    pub fn run(&self, arguments: &[&str]) -> Result<Run> {
        let output = MemoryOutputPipe::new(OUTPUT_BYTES_MAX);
        let pager = self.store.clone();
        let vm = Vm::builder(&self.host).marks(self.marks).grant_with(move |name| {
            let object = ObjectName::new(name.strip_prefix("data_2F")?).ok()?;
            Some(Grant::new(pager.clone(), object))
        });
        let state = State {
            vm: vm.build()?,
            wasi: builder(arguments, &output).build_p1(),
        };
        let mut linker = Linker::new(&self.engine);
        add_to_linker(&mut linker, |state: &mut State| &mut state.vm)?;
        p1::add_to_linker_sync(&mut linker, |state: &mut State| &mut state.wasi)?;
        let mut store = Store::new(&self.engine, state);
        finish(&mut store, &linker, &self.module, &output)
            .with_context(|| format!("the pager's last error: {:?}", store.data().vm.last_error()))
    }
}

impl Stock {
    pub fn new(wasm: &Path, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let engine = Engine::new(&Config::new())?;
        let module = Module::new(&engine, read(wasm)?)?;
        Ok(Self {
            engine,
            module,
            folder: folder.into(),
        })
    }

    pub fn run(&self, arguments: &[&str]) -> Result<Run> {
        let output = MemoryOutputPipe::new(OUTPUT_BYTES_MAX);
        let mut builder = builder(arguments, &output);
        builder.preopened_dir(&self.folder, "data", FsPerms::ReadWrite)?;
        let mut linker = Linker::new(&self.engine);
        p1::add_to_linker_sync(&mut linker, |wasi: &mut WasiP1Ctx| wasi)?;
        // A host without memory objects: every call says so.
        for import in self
            .module
            .imports()
            .filter(|import| import.module() == abi::MODULE)
        {
            let ExternType::Func(ty) = import.ty() else {
                continue;
            };
            linker.func_new(abi::MODULE, import.name(), ty, |_, _, results| {
                results.fill(Val::I32(KernReturn::NotSupported.code()));
                Ok(())
            })?;
        }
        let mut store = Store::new(&self.engine, builder.build_p1());
        finish(&mut store, &linker, &self.module, &output)
    }
}

fn read(wasm: &Path) -> Result<Vec<u8>> {
    std::fs::read(wasm).with_context(|| format!("cannot read {}", wasm.display()))
}
