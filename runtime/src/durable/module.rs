//! [`DurableModule`]: a module that is compiled so that its instances can be kept.

use vmsync_core::tracker::TrackerKind;
use vmsync_instrument::{
    Analyses, MemoryChoice, Options,
    expose::{Exposed, ExposedMemory, expose},
    instrument,
};
use wasmtime::{Engine, Module};

use super::DurableError;
use crate::{Error, Host};

/// A compiled module whose whole state can be reached.
#[derive(Clone)]
pub struct DurableModule {
    pub(super) host: Host,
    pub(super) module: Module,
    pub(super) identity: u128,
    pub(super) memory: ExposedMemory,
    /// Names of the exports that hold state.
    pub(super) globals: Vec<String>,
    pub(super) tables: Vec<String>,
    /// Functions by their index in the module.
    pub(super) functions: Vec<(u32, String)>,
    pub(super) tracker: TrackerKind,
}

impl DurableModule {
    /// Compiles `wasm` (binary or text), which needs to import and export nothing for this, with `engine`, whose
    /// configuration went through [`Host::configure`].
    ///
    /// # Errors
    /// [`DurableError::Module`]: the module has state that cannot be kept, and which; what Wasmtime says of it.
    pub fn new(host: &Host, engine: &Engine, wasm: &[u8]) -> Result<Self, Error> {
        let wasm = wat::parse_bytes(wasm)
            .map_err(|error| Error::Guest(format!("not a WebAssembly module: {error}")))?;
        let exposed = expose(&wasm).map_err(DurableError::from)?;
        let tracker = tracker(host, &exposed);
        let wasm = if tracker == TrackerKind::Barrier {
            with_barrier(host, &exposed.wasm)?
        } else {
            exposed.wasm
        };
        let names = |list: Vec<vmsync_instrument::expose::Exported>| {
            list.into_iter().map(|item| item.export).collect()
        };
        Ok(Self {
            host: host.clone(),
            module: Module::new(engine, &wasm)?,
            identity: exposed.identity,
            memory: exposed.memory,
            globals: names(exposed.globals),
            tables: names(exposed.tables),
            functions: exposed
                .functions
                .into_iter()
                .map(|item| (item.index, item.export))
                .collect(),
            tracker,
        })
    }

    /// Compares equal for modules whose instances can be restored from each other's state: a hash of the module without
    /// its names and debug information.
    pub fn identity(&self) -> u128 {
        self.identity
    }

    /// The module as Wasmtime sees it. Exports that begin with `vmsync1:` are not the guest's.
    pub fn module(&self) -> &Module {
        &self.module
    }
}

/// Barriers see the stores of guest code and of WASI: where the guest calls other functions of the host, which may store to any
/// place of its memory, pages are compared instead.
fn tracker(host: &Host, exposed: &Exposed) -> TrackerKind {
    match host.tracker() {
        TrackerKind::Barrier if exposed.calls_host => TrackerKind::Compare,
        other => other,
    }
}

fn with_barrier(host: &Host, wasm: &[u8]) -> Result<Vec<u8>, Error> {
    let options = Options {
        memory: MemoryChoice::Index(0),
        page_size_shift: host.options().page_size.shift(),
        // The shadow stack is a part of the memory that is kept.
        analyses: Analyses {
            shadow_stack: false,
            ..Analyses::ALL
        },
        ..Options::default()
    };
    let done = instrument(wasm, &options).map_err(DurableError::from)?;
    Ok(done.wasm)
}
