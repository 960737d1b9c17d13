//! [`DurableInstance`]: an instance whose state is what its last successful call left, whatever happens to the process.
//!
//! Invariant: `live` is what is committed, except while a call runs.

use std::collections::HashMap;

use wasmtime::{
    Engine, Func, Global, Instance, InstancePre, Linker, Ref, Store, Table, Val, WasmParams, WasmResults,
};

use super::{
    DurableError, DurableModule,
    snapshot::{Snapshot, damaged},
    space::Space,
};
use crate::{
    Error, Grant, Stats, limits::DURABLE_STATE_BYTES_MAX, memory::GuestMemory, prepare::CARDS_EXPORT,
};
use vmsync_instrument::expose::{BEGIN, EXPORT_PREFIX, MEMORY, RESUME};

/// What a WASI reactor wants to be called first.
const INITIALIZE: &str = "_initialize";

/// A whole instance that survives the process.
///
/// `T` is the data of its store: what host functions use. The store, with its data, limits and fuel, is made anew for
/// every process and after every call that failed, and is not kept.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use vmsync::{Grant, ObjectName, Sandbox};
/// use vmsync_pager_memory::MemoryPager;
///
/// let pager = Arc::new(MemoryPager::default()); // a `FileStore`, as a rule
/// let sandbox = Sandbox::builder().build()?;
/// let counter = r#"(module (global $n (mut i32) (i32.const 0)) (func (export "count") (result i32)
///   (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))"#;
/// for expected in 1..=3 {
///     let grant = Grant::new(pager.clone(), ObjectName::new("counter")?);
///     let mut instance = sandbox.durable(counter.as_bytes(), grant)?;
///     assert_eq!(instance.call::<(), i32>("count", ())?, expected); // durable when it returns
/// }
/// # Ok(())
/// # }
/// ```
pub struct DurableInstance<T: 'static> {
    module: DurableModule,
    pre: InstancePre<T>,
    grant: Grant,
    make_store: MakeStore<T>,
    live: Option<Live<T>>,
    /// Of instances that are gone.
    stats: Stats,
    is_new: bool,
}

/// Makes the store of an instance.
type MakeStore<T> = Box<dyn FnMut(&Engine) -> Result<Store<T>, Error> + Send>;

/// An instance in this process.
struct Live<T: 'static> {
    // Dropped in this order: the tracker lets go of the memory before the store unmaps it.
    space: Space,
    store: Store<T>,
    instance: Instance,
    parts: Parts,
    identity: u128,
}

/// The instance's state outside its memory.
struct Parts {
    globals: Vec<Global>,
    tables: Vec<Table>,
    /// Functions by number: their index in the module + 1.
    functions: HashMap<u32, Func>,
    /// The other way round, by the address that names a function in its store.
    numbers: HashMap<usize, u32>,
}

/// What can be done within one step: any number of calls, which become durable together.
pub struct Calls<'a, T: 'static> {
    store: &'a mut Store<T>,
    instance: &'a Instance,
}

impl<T: 'static> DurableInstance<T> {
    /// Opens the instance that is kept under the name of `grant`, or begins one there: then data segments, the start
    /// function and a reactor's `_initialize` run, once in its life. Its objects are `NAME.memory.N` and `NAME.state.N`.
    ///
    /// `linker` has what the module imports; `make_store` makes the store, as `|engine| Ok(Store::new(engine, data))`.
    ///
    /// # Errors
    /// [`DurableError`], in [`Error::Durable`]; a trap of the guest's beginning.
    pub fn open(
        module: &DurableModule,
        linker: &Linker<T>,
        grant: Grant,
        make_store: impl FnMut(&Engine) -> Result<Store<T>, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let mut instance = Self {
            module: module.clone(),
            pre: linker.instantiate_pre(&module.module)?,
            grant,
            make_store: Box::new(make_store),
            live: None,
            stats: Stats::default(),
            is_new: false,
        };
        let (live, is_new) = instance.restore()?;
        (instance.live, instance.is_new) = (Some(live), is_new);
        Ok(instance)
    }

    /// Whether [`DurableInstance::open`] began it.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Calls the exported function `name` and makes what it changed durable.
    ///
    /// # Errors
    /// There is no such function of this type, it trapped, or its changes could not be made durable. The instance is as
    /// before the call then, see [`DurableError::Storage`] for the one exception.
    pub fn call<P: WasmParams, R: WasmResults>(&mut self, name: &str, parameters: P) -> Result<R, Error> {
        self.step(|calls| calls.call(name, parameters))
    }

    /// Any number of calls as one step: durable together if `work` succeeds, else as if none of them had been made.
    ///
    /// # Errors
    /// That of `work`, or as for [`DurableInstance::call`].
    pub fn step<R>(&mut self, work: impl FnOnce(&mut Calls<'_, T>) -> Result<R, Error>) -> Result<R, Error> {
        let mut live = match self.live.take() {
            Some(live) => live,
            None => self.restore()?.0,
        };
        let result = live.step(work);
        if result.is_ok() {
            self.live = Some(live);
        } else {
            self.stats += live.space.stats();
        }
        result
    }

    /// The bytes of linear memory.
    ///
    /// # Errors
    /// After a call that failed, those of [`DurableInstance::open`].
    pub fn memory(&mut self) -> Result<&[u8], Error> {
        if self.live.is_none() {
            self.live = Some(self.restore()?.0);
        }
        let live = self.live.as_mut().expect("restored above");
        let memory = live.instance.get_memory(&mut live.store, MEMORY);
        Ok(memory.expect("every exposed module has one").data(&live.store))
    }

    /// Commits and the pages handed to the pager for them.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        if let Some(live) = &self.live {
            stats += live.space.stats();
        }
        stats
    }

    /// The rung that stores are tracked with.
    pub fn tracker(&self) -> vmsync_core::tracker::TrackerKind {
        self.live
            .as_ref()
            .map_or(self.module.tracker, |live| live.space.tracker())
    }

    /// An instance with what is committed, or a new one.
    fn restore(&mut self) -> Result<(Live<T>, bool), Error> {
        let mut store = (self.make_store)(self.module.module.engine())?;
        let instance = self.pre.instantiate(&mut store)?;
        let space = self.space(&mut store, &instance)?;
        let parts = Parts::find(&self.module, &mut store, &instance)?;
        let mut live = Live {
            space,
            store,
            instance,
            parts,
            identity: self.module.identity,
        };
        let is_new = !live.restore()?;
        if is_new {
            live.begin()?;
        }
        Ok((live, is_new))
    }

    fn space(&self, store: &mut Store<T>, instance: &Instance) -> Result<Space, Error> {
        let host = &self.module.host;
        let memory = instance
            .get_memory(&mut *store, MEMORY)
            .expect("every exposed module has one");
        let find = |base: *const u8| {
            host.reservations().find(base).ok_or_else(|| {
                Error::Config(
                    "the guest's memory was not made by this vmsync host: pass the engine's Config to Host::configure, \
                     and use the on-demand allocator"
                        .into(),
                )
            })
        };
        let reservation = find(memory.data_ptr(&*store))?;
        let cards = instance.get_memory(&mut *store, CARDS_EXPORT);
        let cards = cards.map(|cards| find(cards.data_ptr(&*store))).transpose()?;
        let memory = GuestMemory::new(reservation, self.module.tracker, host.options().page_size, cards)?;
        let sizes = (self.module.memory.bytes, self.module.memory.bytes_max);
        Ok(Space::open(host, &self.grant, memory, sizes)?)
    }
}

impl<T: 'static> Live<T> {
    /// Puts back what is committed; `false` where there is nothing.
    fn restore(&mut self) -> Result<bool, Error> {
        let Some(bytes) = Snapshot::length(self.space.state(1)?, self.identity)? else {
            return Ok(false);
        };
        let snapshot = Snapshot::decode(self.space.state(bytes)?)?;
        let memory = self.memory();
        let have = memory.data_size(&self.store) as u64;
        let missing = snapshot
            .memory_bytes
            .checked_sub(have)
            .filter(|bytes| bytes.is_multiple_of(1 << 16));
        let pages =
            missing.ok_or_else(|| damaged("the memory's size is not one that the module can have"))? >> 16;
        if pages > 0 {
            let grown = memory.grow(&mut self.store, pages);
            grown.map_err(|_| damaged("the memory's size is above what the module allows"))?;
        }
        self.space.restore(snapshot.memory_bytes)?;
        self.parts.restore(&mut self.store, &snapshot)?;
        self.run(RESUME)?;
        Ok(true)
    }

    /// Begins the instance's life and commits what it begins with.
    fn begin(&mut self) -> Result<(), Error> {
        self.run(BEGIN)?;
        if self.instance.get_func(&mut self.store, INITIALIZE).is_some() {
            self.run(INITIALIZE)?;
        }
        self.commit()
    }

    fn run(&mut self, name: &str) -> Result<(), Error> {
        let function = self.instance.get_typed_func::<(), ()>(&mut self.store, name)?;
        Ok(function.call(&mut self.store, ())?)
    }

    fn step<R>(&mut self, work: impl FnOnce(&mut Calls<'_, T>) -> Result<R, Error>) -> Result<R, Error> {
        let mut calls = Calls {
            store: &mut self.store,
            instance: &self.instance,
        };
        let result = work(&mut calls)?;
        self.commit()?;
        Ok(result)
    }

    fn commit(&mut self) -> Result<(), Error> {
        let memory_bytes = self.memory().data_size(&self.store) as u64;
        self.space.adopt(memory_bytes)?;
        let snapshot = self.parts.snapshot(&mut self.store, memory_bytes)?;
        self.space.set_state(&snapshot.encode(self.identity))?;
        Ok(self.space.commit()?)
    }

    fn memory(&mut self) -> wasmtime::Memory {
        let memory = self.instance.get_memory(&mut self.store, MEMORY);
        memory.expect("every exposed module has one")
    }
}

impl Parts {
    fn find<T>(module: &DurableModule, store: &mut Store<T>, instance: &Instance) -> Result<Self, Error> {
        let missing = "an exposed part is exported";
        let global = |name: &String, store: &mut Store<T>| instance.get_global(store, name).expect(missing);
        let table = |name: &String, store: &mut Store<T>| instance.get_table(store, name).expect(missing);
        let mut parts = Self {
            globals: module.globals.iter().map(|name| global(name, store)).collect(),
            tables: module.tables.iter().map(|name| table(name, store)).collect(),
            functions: HashMap::new(),
            numbers: HashMap::new(),
        };
        for (index, name) in &module.functions {
            let function = instance.get_func(&mut *store, name).expect(missing);
            parts.functions.insert(index + 1, function);
            // A host function that is imported twice has two numbers: either of them leads to it.
            parts
                .numbers
                .entry(function.to_raw(&mut *store).addr())
                .or_insert(index + 1);
        }
        Ok(parts)
    }

    fn snapshot<T>(&self, store: &mut Store<T>, memory_bytes: u64) -> Result<Snapshot, DurableError> {
        let mut snapshot = Snapshot {
            memory_bytes,
            ..Snapshot::default()
        };
        for (number, global) in self.globals.iter().enumerate() {
            snapshot.globals.push(match global.get(&mut *store) {
                Val::I32(value) => value.cast_unsigned().into(),
                Val::I64(value) => value.cast_unsigned().into(),
                Val::F32(bits) => bits.into(),
                Val::F64(bits) => bits.into(),
                Val::V128(bits) => bits.as_u128(),
                Val::FuncRef(function) => self
                    .number(store, function, || format!("saved global {number}"))?
                    .into(),
                other => unreachable!("a global of {other:?} was refused"),
            });
        }
        for (number, table) in self.tables.iter().enumerate() {
            let bytes = table.size(&*store).saturating_mul(4);
            if bytes > DURABLE_STATE_BYTES_MAX {
                let bytes_max = DURABLE_STATE_BYTES_MAX;
                return Err(DurableError::StateTooLarge { bytes, bytes_max });
            }
            let mut elements = Vec::new();
            for index in 0..table.size(&*store) {
                let element = table.get(&mut *store, index).expect("within the table");
                let place = || format!("element {index} of saved table {number}");
                elements.push(self.number(store, element.as_func().flatten().copied(), place)?);
            }
            snapshot.tables.push(elements);
        }
        Ok(snapshot)
    }

    fn number<T>(
        &self,
        store: &mut Store<T>,
        function: Option<Func>,
        place: impl FnOnce() -> String,
    ) -> Result<u32, DurableError> {
        let Some(function) = function else { return Ok(0) };
        let number = self.numbers.get(&function.to_raw(store).addr()).copied();
        number.ok_or_else(|| DurableError::ForeignFunction { place: place() })
    }

    fn restore<T>(&self, store: &mut Store<T>, snapshot: &Snapshot) -> Result<(), DurableError> {
        if (self.globals.len(), self.tables.len()) != (snapshot.globals.len(), snapshot.tables.len()) {
            return Err(damaged(
                "it has another number of globals or tables than the module",
            ));
        }
        for (global, bits) in self.globals.iter().zip(&snapshot.globals) {
            let value = match global.ty(&*store).content() {
                wasmtime::ValType::I32 => Val::I32(*bits as i32),
                wasmtime::ValType::I64 => Val::I64(*bits as i64),
                wasmtime::ValType::F32 => Val::F32(*bits as u32),
                wasmtime::ValType::F64 => Val::F64(*bits as u64),
                wasmtime::ValType::V128 => Val::V128((*bits).into()),
                wasmtime::ValType::Ref(_) => Val::FuncRef(self.function(*bits as u32)?),
            };
            let set = global.set(&mut *store, value);
            set.map_err(|_| damaged("a global has a value of another type"))?;
        }
        for (table, elements) in self.tables.iter().zip(&snapshot.tables) {
            let wrong = |_| damaged("a table has a size or an element that the module does not allow");
            let missing = (elements.len() as u64).checked_sub(table.size(&*store));
            let missing = missing.ok_or_else(|| damaged("a table is smaller than the module makes it"))?;
            if missing > 0 {
                // An element that fits the table's type, which may not allow null.
                let last = self.function(*elements.last().expect("there are missing ones"))?;
                table.grow(&mut *store, missing, Ref::Func(last)).map_err(wrong)?;
            }
            for (index, element) in (0..).zip(elements) {
                let function = Ref::Func(self.function(*element)?);
                table.set(&mut *store, index, function).map_err(wrong)?;
            }
        }
        Ok(())
    }

    fn function(&self, number: u32) -> Result<Option<Func>, DurableError> {
        if number == 0 {
            return Ok(None);
        }
        let function = self.functions.get(&number).copied();
        function
            .map(Some)
            .ok_or_else(|| damaged("it names a function that the module does not have"))
    }
}

impl<T: 'static> Calls<'_, T> {
    /// Calls the exported function `name`.
    ///
    /// # Errors
    /// There is no such function of this type, or it trapped.
    pub fn call<P: WasmParams, R: WasmResults>(&mut self, name: &str, parameters: P) -> Result<R, Error> {
        let function = self.instance.get_typed_func::<P, R>(&mut *self.store, name)?;
        Ok(function.call(&mut *self.store, parameters)?)
    }

    /// The exported function `name`, to be called with the store of [`Calls::store`].
    ///
    /// # Errors
    /// There is none; the message says which there are.
    pub fn function(&mut self, name: &str) -> Result<Func, Error> {
        if let Some(function) = self.instance.get_func(&mut *self.store, name) {
            return Ok(function);
        }
        let names: Vec<String> = self
            .instance
            .exports(&mut *self.store)
            .filter(|export| {
                !export.name().starts_with(EXPORT_PREFIX) && export.clone().into_func().is_some()
            })
            .map(|export| export.name().to_string())
            .collect();
        Err(Error::Guest(format!(
            "the module exports no function \"{name}\" (it exports: {})",
            names.join(", ")
        )))
    }

    /// The store. What the host itself stores to the guest's memory is kept only where the tracker is not `barrier`.
    pub fn store(&mut self) -> &mut Store<T> {
        self.store
    }
}
