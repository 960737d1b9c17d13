//! [`Sandbox`]: the simple case. One engine, one set of grants, guests that import nothing but `vmsync1`.
//!
//! So nothing stores to their memory but what this crate knows of, and guests are instrumented unless another tracker is asked
//! for: a sync then does not look at memory that did not change (only at its marks, 256 KiB for 1 GiB), and a first store costs
//! no fault.
//!
//! Who needs other imports or limits builds the store with Wasmtime's own types and
//! [`crate::add_to_linker`]; this file is an example of how.

use std::any::Any;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use vmsync_core::{ByteRange, PagerError, abi::VmSync, tracker::TrackerKind};
use wasmtime::{Config, Engine, Instance, Linker, Memory, Module, Store, TypedFunc, WasmParams, WasmResults};

use crate::{
    DurableInstance, DurableModule, Error, Grant, Host, HostOptions, Stats, Vm, add_to_linker,
    add_to_linker_async, add_to_linker_memory64, add_to_linker_memory64_async, prepare,
};

/// Runs guests that keep their state in memory objects.
pub struct Sandbox {
    host: Host,
    engine: Engine,
    grants: IndexMap<String, Grant>,
}

/// Collects what a [`Sandbox`] needs.
#[derive(Default)]
pub struct SandboxBuilder {
    options: HostOptions,
    grants: IndexMap<String, Grant>,
}

impl SandboxBuilder {
    /// Lets guests open what `grant` says under `name`.
    #[must_use]
    pub fn grant(mut self, name: impl Into<String>, grant: Grant) -> Self {
        self.grants.insert(name.into(), grant);
        self
    }

    /// The rung to track stores with; otherwise [`TrackerKind::Barrier`]. [`crate::best`] leaves modules as they are, for guests
    /// that store much and seldom sync.
    #[must_use]
    pub fn tracker(mut self, kind: TrackerKind) -> Self {
        self.options.tracker = Some(kind);
        self
    }

    /// How long a call waits for a pager before it answers `ABORTED`.
    #[must_use]
    pub fn pager_time_out(mut self, time_out: std::time::Duration) -> Self {
        self.options.pager_time_out = time_out;
        self
    }

    /// The sandbox.
    ///
    /// # Errors
    /// When Wasmtime cannot make an engine here.
    pub fn build(mut self) -> Result<Sandbox, Error> {
        self.options.tracker.get_or_insert(TrackerKind::Barrier);
        let host = Host::new(self.options);
        let mut config = Config::new();
        let engine = Engine::new(host.configure(&mut config))?;
        Ok(Sandbox {
            host,
            engine,
            grants: self.grants,
        })
    }
}

impl Sandbox {
    /// Begins a sandbox.
    pub fn builder() -> SandboxBuilder {
        SandboxBuilder::default()
    }

    /// Its host, for what guests share.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Compiles `wasm` (binary or text) and makes an instance of it.
    ///
    /// # Errors
    /// What is wrong with the module, in words.
    pub fn instantiate(&self, wasm: &[u8]) -> Result<Guest, Error> {
        let (module, mut store, is_64) = self.compile(wasm)?;
        let mut linker = Linker::new(&self.engine);
        if is_64 {
            add_to_linker_memory64(&mut linker, |vm: &mut Vm| vm)?;
        } else {
            add_to_linker(&mut linker, |vm: &mut Vm| vm)?;
        }
        let instance = linker.instantiate(&mut store, &module)?;
        Guest::new(store, instance)
    }

    /// The same for a guest that a task calls with [`Guest::call_async`]: its thread goes on with other tasks while the guest's
    /// syncs are under way. See [`add_to_linker_async`].
    ///
    /// # Errors
    /// What is wrong with the module, in words.
    pub async fn instantiate_async(&self, wasm: &[u8]) -> Result<Guest, Error> {
        let (module, mut store, is_64) = self.compile(wasm)?;
        let mut linker = Linker::new(&self.engine);
        if is_64 {
            add_to_linker_memory64_async(&mut linker, |vm: &mut Vm| vm)?;
        } else {
            add_to_linker_async(&mut linker, |vm: &mut Vm| vm)?;
        }
        let instance = linker.instantiate_async(&mut store, &module).await?;
        Guest::new(store, instance)
    }

    /// The module, a store for it, and whether its memory is a 64-bit one.
    fn compile(&self, wasm: &[u8]) -> Result<(Module, Store<Vm>, bool), Error> {
        let prepared = prepare(&self.host, wasm)?;
        let module = Module::new(&self.engine, &prepared.wasm)?;
        let memory_type = module
            .get_export("memory")
            .and_then(|export| export.memory().cloned());
        let Some(memory_type) = memory_type else {
            return Err(Error::Guest(
                "the module exports no memory named \"memory\": export it".into(),
            ));
        };
        let mut builder = Vm::builder(&self.host).marks(prepared.marks);
        for (name, grant) in &self.grants {
            builder = builder.grant(name.clone(), grant.clone());
        }
        let store = Store::new(&self.engine, builder.build()?);
        Ok((module, store, memory_type.is_64()))
    }

    /// Opens the whole instance of `wasm` that is kept as the objects `NAME.memory.N` and `NAME.state.N` of `grant`, or
    /// begins one. The module is unmodified: it imports nothing, and its memory, globals and tables are what its last
    /// successful call left. See [`DurableInstance`].
    ///
    /// # Errors
    /// What of the module cannot be kept; what is wrong with what is stored.
    pub fn durable(&self, wasm: &[u8], grant: Grant) -> Result<DurableInstance<()>, Error> {
        let module = DurableModule::new(&self.host, &self.engine, wasm)?;
        DurableInstance::open(&module, &Linker::new(&self.engine), grant, |engine| {
            Ok(Store::new(engine, ()))
        })
    }
}

/// An instance in a [`Sandbox`].
pub struct Guest {
    store: Store<Vm>,
    instance: Instance,
    memory: Memory,
    /// Exported functions that were called before, each a [`TypedFunc`]: looking at a function's type takes a lock of the engine.
    functions: IndexMap<String, Box<dyn Any + Send + Sync>, FxBuildHasher>,
}

impl Guest {
    fn new(mut store: Store<Vm>, instance: Instance) -> Result<Self, Error> {
        let memory = instance.get_memory(&mut store, "memory").ok_or_else(|| {
            Error::Guest("the module's memory is shared: compile it without threads".into())
        })?;
        Ok(Self {
            store,
            instance,
            memory,
            functions: IndexMap::default(),
        })
    }

    /// Calls the exported function `name`.
    ///
    /// # Errors
    /// When there is no such function of this type, or it traps.
    pub fn call<P, R>(&mut self, name: &str, parameters: P) -> Result<R, Error>
    where
        P: WasmParams + 'static,
        R: WasmResults + 'static,
    {
        let (function, store) = self.function::<P, R>(name)?;
        Ok(function.call(store, parameters)?)
    }

    /// The same for a guest of [`Sandbox::instantiate_async`]. A call whose future is dropped ends where the guest is: what it
    /// stored so far stays in its memory, and is committed by a later sync.
    ///
    /// # Errors
    /// When there is no such function of this type, or it traps.
    pub async fn call_async<P, R>(&mut self, name: &str, parameters: P) -> Result<R, Error>
    where
        P: WasmParams + Sync + 'static,
        R: WasmResults + Sync + 'static,
    {
        let (function, store) = self.function::<P, R>(name)?;
        Ok(function.call_async(store, parameters).await?)
    }

    /// The exported function `name`, and the store to call it in.
    fn function<P, R>(&mut self, name: &str) -> Result<(&TypedFunc<P, R>, &mut Store<Vm>), Error>
    where
        P: WasmParams + 'static,
        R: WasmResults + 'static,
    {
        let known = self.functions.get_full(name);
        let index = match known.filter(|(_, _, known)| known.is::<TypedFunc<P, R>>()) {
            Some((index, ..)) => index,
            // One of another type is looked up, for an error with its name.
            None => {
                let found = self.instance.get_typed_func::<P, R>(&mut self.store, name)?;
                self.functions.insert_full(name.to_owned(), Box::new(found)).0
            }
        };
        let function = self.functions[index].downcast_ref();
        Ok((function.expect("it has this type"), &mut self.store))
    }

    /// `vm_msync` of the host's own, between two calls of the guest. `range` is in bytes of linear memory.
    ///
    /// # Errors
    /// What the guest would see.
    pub fn msync(&mut self, range: ByteRange, flags: VmSync) -> Result<(), Error> {
        Vm::msync(&mut self.store, &self.instance, |vm| vm, range, flags)
    }

    /// The same for a task, whose thread goes on with others meanwhile.
    ///
    /// # Errors
    /// What the guest would see.
    pub async fn msync_async(&mut self, range: ByteRange, flags: VmSync) -> Result<(), Error> {
        Vm::msync_async(&mut self.store, &self.instance, |vm| vm, range, flags).await
    }

    /// What the guest's calls have done so far.
    pub fn stats(&self) -> Stats {
        self.store.data().stats()
    }

    /// The words of the pager for the last call that failed.
    pub fn last_error(&self) -> Option<&PagerError> {
        self.store.data().last_error()
    }

    /// The guest's virtual memory.
    pub fn vm(&self) -> &Vm {
        self.store.data()
    }

    /// The bytes of the guest's linear memory.
    pub fn memory(&self) -> &[u8] {
        self.memory.data(&self.store)
    }

    /// The store, for Wasmtime's own calls.
    pub fn store(&mut self) -> &mut Store<Vm> {
        &mut self.store
    }
}
