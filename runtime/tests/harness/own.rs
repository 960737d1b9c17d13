//! [`Own`]: a host application's own store with WASI beside `vmsync1`, for what a [`vmsync::Sandbox`] does not offer.

use vmsync::{Error, Host, Vm, VmBuilder, prepare};
use wasmtime::{Config, Engine, Instance, Linker, Memory, Module, Store, WasmParams, WasmResults};
use wasmtime_wasi::{WasiCtxBuilder, p1::WasiP1Ctx};

/// The data of the store.
pub struct State {
    /// What vmsync needs.
    pub vm: Vm,
    wasi: WasiP1Ctx,
}

/// An instance in a store of its own.
pub struct Own {
    /// The store.
    pub store: Store<State>,
    /// Makes more instances in it.
    pub linker: Linker<State>,
    /// The compiled guest.
    pub module: Module,
    /// The first instance.
    pub instance: Instance,
    /// What it exports as `memory`.
    pub memory: Memory,
}

impl Own {
    /// An instance of `wasm`, which has a 32-bit memory, with what `vm` grants.
    pub fn new(host: &Host, vm: VmBuilder, wasm: &[u8]) -> Result<Self, Error> {
        let mut config = Config::new();
        let engine = Engine::new(host.configure(&mut config))?;
        let prepared = prepare(host, wasm)?;
        let module = Module::new(&engine, &prepared.wasm)?;
        let vm = vm.marks(prepared.marks).build()?;
        let mut linker = Linker::new(&engine);
        vmsync::add_to_linker(&mut linker, |state: &mut State| &mut state.vm)?;
        wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |state: &mut State| &mut state.wasi)?;
        let wasi = WasiCtxBuilder::new().build_p1();
        let mut store = Store::new(&engine, State { vm, wasi });
        let instance = linker.instantiate(&mut store, &module)?;
        let memory = instance.get_memory(&mut store, "memory");
        Ok(Self {
            memory: memory.expect("the test's guest exports its memory"),
            store,
            linker,
            module,
            instance,
        })
    }

    /// Calls an export of `instance`.
    pub fn call<A: WasmParams, R: WasmResults>(
        &mut self,
        instance: Instance,
        name: &str,
        arguments: A,
    ) -> wasmtime::Result<R> {
        instance
            .get_typed_func::<A, R>(&mut self.store, name)?
            .call(&mut self.store, arguments)
    }

    /// Calls an export of the first instance.
    #[track_caller]
    pub fn run<A: WasmParams, R: WasmResults>(&mut self, name: &str, arguments: A) -> R {
        self.call(self.instance, name, arguments)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"))
    }
}
