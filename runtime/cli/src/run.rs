//! `vmsync run`: a guest in a process of its own.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use vmsync::{Host, HostOptions, Marks, PagerError, PagerErrorKind, Stats, TrackerKind, Vm};
use vmsync_pager_file::FileStore;
use wasmtime::{Config, Engine, FuncType, Instance, Linker, Module, Store, Trap, Val, ValType};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder, p1::WasiP1Ctx};

use crate::{
    durable::{self, DurableArgument},
    files::FilesArgument,
    map::MapArgument,
    output::{print_line, warn},
    stores::Stores,
};

/// The exit code of a guest that trapped: 128 + SIGABRT, as a shell shows an abort.
const EXIT_TRAP: u8 = 134;

/// Run a module whose memory objects live in stores, or, with --durable, one that lives in a store as a whole.
///
/// Exits with 0, with the guest's own code where it called exit, with 134 where it trapped, with 1 where something else
/// failed, and with 2 for wrong usage.
#[derive(Args, Clone)]
pub struct Run {
    /// The module, binary or text.
    module: PathBuf,
    /// Call this exported function with ARGUMENTS as its numbers, and print its results. Otherwise the module's `_start`.
    #[arg(long, value_name = "FUNCTION")]
    invoke: Option<String>,
    /// Let the guest open OBJECT of STORE under NAME (repeatable; OBJECT is NAME if not given). STORE is a folder, FOLDER or
    /// file:FOLDER, or a URL: s3://BUCKET/PREFIX (or gs://, az://), postgres://USER@HOST/DATABASE, with credentials from the
    /// environment.
    #[arg(long = "map", value_name = "NAME=STORE[:OBJECT]")]
    maps: Vec<MapArgument>,
    /// Keep the whole instance in the folder STORE: memory, globals and tables of an unmodified module are what the last
    /// successful call left. Needs --invoke. NAME tells several instances in one store apart.
    #[arg(long, value_name = "STORE[:NAME]", conflicts_with_all = ["maps", "files", "read_only", "trace_syncs"])]
    durable: Option<DurableArgument>,
    /// With --wasi: let a program of the POSIX library see the objects of the store in the folder STORE as files below
    /// GUEST, by default STORE (repeatable).
    #[arg(long, value_name = "STORE[::GUEST]", requires = "wasi")]
    files: Vec<FilesArgument>,
    /// Open every store for reading only.
    #[arg(long)]
    read_only: bool,
    /// How stores are recorded: uffd-async, uffd-sync, mprotect, barrier, compare [default: the best that works].
    #[arg(long, value_parser = tracker)]
    tracker: Option<TrackerKind>,
    /// Give the guest WASI preview 1: arguments, clocks, standard streams, and the folders of --dir.
    #[arg(long)]
    wasi: bool,
    /// With --wasi: a folder that the guest may use, as GUEST if given (repeatable).
    #[arg(long = "dir", value_name = "FOLDER[::GUEST]", requires = "wasi")]
    dirs: Vec<String>,
    /// Print what the guest's calls did when it ends, on standard error.
    #[arg(long)]
    stats: bool,
    /// Print the counts so far after every vm_msync, one JSON object a line, on standard error.
    #[arg(long)]
    trace_syncs: bool,
    /// Arguments of the guest or of the invoked function.
    #[arg(last = true)]
    arguments: Vec<String>,
}

struct State {
    vm: Vm,
    wasi: Option<WasiP1Ctx>,
}

fn tracker(name: &str) -> Result<TrackerKind, String> {
    TrackerKind::from_name(name).ok_or_else(|| {
        let names: Vec<_> = TrackerKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("no such tracker: choose one of {}", names.join(", "))
    })
}

impl Run {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let bytes = std::fs::read(&self.module)
            .with_context(|| format!("cannot read the module {}", self.module.display()))?;
        let mut options = HostOptions::default();
        options.tracker = self.tracker;
        let host = Host::new(options);
        let engine = Engine::new(host.configure(&mut Config::new()))?;
        if let Some(place) = &self.durable {
            return durable::run(self, place, &host, &engine, &bytes);
        }
        let prepared = vmsync::prepare(&host, &bytes)
            .with_context(|| format!("cannot run {}", self.module.display()))?;
        let module = Module::new(&engine, &prepared.wasm)
            .map_err(anyhow::Error::from)
            .with_context(|| format!("cannot compile {}", self.module.display()))?;
        self.check(&module)?;
        let linker = self.linker(&engine, &module)?;
        let state = State {
            vm: self.vm(&host, prepared.marks)?,
            wasi: self.wasi.then(|| self.wasi_context()).transpose()?,
        };
        let mut store = Store::new(&engine, state);
        let instance = linker
            .instantiate(&mut store, &module)
            .map_err(anyhow::Error::from)
            .context("cannot instantiate the module");
        // Its start function may trap or exit, as the called one may.
        let result = instance.and_then(|instance| self.call(&mut store, &instance));
        if self.stats {
            self.print_stats(&store);
        }
        // A guest sees a number, and may make nothing of it. That something is not there is an answer, and programs of files
        // look for some.
        let looked = |error: &PagerError| {
            error.kind == PagerErrorKind::NotFound && (result.is_ok() || !self.files.is_empty())
        };
        if let Some(error) = store.data().vm.last_error().filter(|error| !looked(error)) {
            warn(&format!("the last error of a pager: {error}"));
        }
        exit_code(result)
    }

    /// The module's path.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The function to call.
    pub fn invoke(&self) -> Option<&str> {
        self.invoke.as_deref()
    }

    /// The guest's or the function's arguments.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Whether `--wasi` was given.
    pub fn wants_wasi(&self) -> bool {
        self.wasi
    }

    /// Whether `--stats` was given.
    pub fn wants_stats(&self) -> bool {
        self.stats
    }

    /// The guest's virtual memory, with what it is granted.
    fn vm(&self, host: &Host, marks: Option<Marks>) -> anyhow::Result<Vm> {
        let mut stores = Stores::new(self.read_only);
        let mut vm = Vm::builder(host).marks(marks);
        for map in &self.maps {
            vm = vm.grant(map.name.clone(), map.grant(&mut stores)?);
        }
        let files = self.files.iter().map(|files| files.grants(&mut stores));
        let files = files.collect::<anyhow::Result<Vec<_>>>()?;
        vm = vm.grant_with(move |name| files.iter().find_map(|grant| grant(name)));
        if self.trace_syncs {
            let (tracker, stores) = (host.tracker(), stores.into_file_stores());
            vm = vm.on_msync(move |stats| trace_sync(tracker, stats, &stores));
        }
        Ok(vm.build()?)
    }

    /// Says in words what would otherwise be a link error.
    pub fn check(&self, module: &Module) -> anyhow::Result<()> {
        let wants_wasi = module
            .imports()
            .any(|import| import.module() == "wasi_snapshot_preview1");
        if wants_wasi && !self.wasi {
            bail!("the module imports WASI: run it with --wasi");
        }
        let wants_vmsync = module
            .imports()
            .any(|import| import.module() == vmsync::abi::MODULE);
        let exports_memory = module
            .get_export("memory")
            .is_some_and(|export| export.memory().is_some());
        if wants_vmsync && !exports_memory {
            bail!(
                "the module exports no memory named \"memory\": export it, a memory that it imports cannot be tracked"
            );
        }
        Ok(())
    }

    fn linker(&self, engine: &Engine, module: &Module) -> anyhow::Result<Linker<State>> {
        let mut linker = Linker::new(engine);
        let memory = module.get_export("memory");
        let is_64 = memory
            .as_ref()
            .and_then(|export| export.memory())
            .is_some_and(|memory| memory.is_64());
        if is_64 {
            vmsync::add_to_linker_memory64(&mut linker, |state: &mut State| &mut state.vm)?;
        } else {
            vmsync::add_to_linker(&mut linker, |state: &mut State| &mut state.vm)?;
        }
        if self.wasi {
            wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |state: &mut State| {
                state.wasi.as_mut().expect("made together with the linker")
            })?;
        }
        Ok(linker)
    }

    /// What `--wasi` gives the guest.
    pub fn wasi_context(&self) -> anyhow::Result<WasiP1Ctx> {
        let mut builder = WasiCtxBuilder::new();
        builder.inherit_stdio();
        builder.arg(self.module.display().to_string());
        builder.args(&self.arguments);
        for dir in &self.dirs {
            let (folder, guest) = dir.split_once("::").unwrap_or((dir, dir));
            builder
                .preopened_dir(folder, guest, FsPerms::ReadWrite)
                .map_err(anyhow::Error::from)
                .with_context(|| format!("cannot open the folder {folder} for the guest"))?;
        }
        Ok(builder.build_p1())
    }

    fn call(&self, store: &mut Store<State>, instance: &Instance) -> anyhow::Result<()> {
        let name = self.invoke.as_deref().unwrap_or("_start");
        let Some(function) = instance.get_func(&mut *store, name) else {
            let functions: Vec<String> = instance
                .exports(&mut *store)
                .filter(|export| export.clone().into_func().is_some())
                .map(|export| export.name().to_string())
                .collect();
            bail!(
                "the module exports no function \"{name}\": choose one with --invoke (it exports: {})",
                functions.join(", ")
            );
        };
        let parameters = if self.invoke.is_some() {
            parameters(&self.arguments, &function.ty(&*store))?
        } else {
            Vec::new()
        };
        let mut results = vec![Val::I32(0); function.ty(&*store).results().len()];
        function.call(&mut *store, &parameters, &mut results)?;
        for result in results {
            print_line(&show(&result))?;
        }
        Ok(())
    }

    fn print_stats(&self, store: &Store<State>) {
        let vm = &store.data().vm;
        let stats = vm.stats();
        let tracker = vm.tracker().map_or("none", TrackerKind::name);
        warn(&format!(
            "tracker {tracker}, {} calls of vm_msync ({} failed), {} pages returned, {} dropped",
            stats.msyncs, stats.msyncs_failed, stats.pages_returned, stats.pages_flushed
        ));
    }
}

/// One line for programs; `print_stats` has the words. A reader that has gone away is not an error.
fn trace_sync(tracker: TrackerKind, stats: &Stats, stores: &[Arc<FileStore>]) {
    let stores: Vec<_> = stores.iter().map(|store| store.stats()).collect();
    let sum = |count: fn(&vmsync_pager_file::Stats) -> u64| stores.iter().map(count).sum::<u64>();
    let line = json!({
        "tracker": tracker.name(), "msyncs": stats.msyncs, "msyncs_failed": stats.msyncs_failed,
        "pages_returned": stats.pages_returned, "pages_changed": sum(|store| store.pages_changed),
        "bytes_journaled": sum(|store| store.bytes_journaled), "checkpoints": sum(|store| store.checkpoints),
    });
    let _ = writeln!(io::stderr(), "{line}");
}

/// The values that `arguments` are for a function of type `ty`.
pub fn parameters(arguments: &[String], ty: &FuncType) -> anyhow::Result<Vec<Val>> {
    let types: Vec<ValType> = ty.params().collect();
    if types.len() != arguments.len() {
        bail!(
            "the function takes {} arguments, {} are given after --",
            types.len(),
            arguments.len()
        );
    }
    types
        .iter()
        .zip(arguments)
        .map(|(ty, text)| parse(ty, text))
        .collect()
}

fn parse(ty: &ValType, text: &str) -> anyhow::Result<Val> {
    let wrong = || format!("\"{text}\" is not a value of type {ty}");
    Ok(match ty {
        ValType::I32 => {
            let value = text
                .parse::<i64>()
                .ok()
                .filter(|value| *value >= i64::from(i32::MIN) && *value <= i64::from(u32::MAX));
            // Both signed and unsigned notation name the same 32 bits.
            Val::I32(value.with_context(wrong)? as i32)
        }
        ValType::I64 => Val::I64(
            text.parse::<i64>()
                .or_else(|_| text.parse::<u64>().map(u64::cast_signed))
                .with_context(wrong)?,
        ),
        ValType::F32 => Val::F32(text.parse::<f32>().with_context(wrong)?.to_bits()),
        ValType::F64 => Val::F64(text.parse::<f64>().with_context(wrong)?.to_bits()),
        other => bail!("arguments of type {other} cannot be given on the command line"),
    })
}

/// A result in words.
pub fn show(value: &Val) -> String {
    match value {
        Val::I32(value) => value.to_string(),
        Val::I64(value) => value.to_string(),
        Val::F32(bits) => f32::from_bits(*bits).to_string(),
        Val::F64(bits) => f64::from_bits(*bits).to_string(),
        other => format!("{other:?}"),
    }
}

/// What the process exits with.
pub fn exit_code(result: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let Err(error) = result else {
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Ok(ExitCode::from(u8::try_from(exit.0).unwrap_or(1)));
    }
    if error.downcast_ref::<Trap>().is_some() {
        warn(&format!("the guest trapped: {error:#}"));
        return Ok(ExitCode::from(EXIT_TRAP));
    }
    Err(error)
}
