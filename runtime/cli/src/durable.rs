//! `--durable STORE[:NAME]`: the whole instance is kept in a store, between one run and the next.

use std::{path::PathBuf, process::ExitCode, str::FromStr, sync::Arc};

use anyhow::{Context, bail};
use vmsync::{DurableError, DurableInstance, DurableModule, Error, Grant, Host, ObjectName, Pager};
use vmsync_pager_file::{FileStore, Options};
use wasmtime::{Engine, Linker, Store, Val};
use wasmtime_wasi::{I32Exit, p1::WasiP1Ctx};

use crate::{
    output::{print_line, warn},
    run::{Run, exit_code, parameters, show},
    store_name::StoreName,
};

/// The name of an instance that was not given one.
const NAME: &str = "instance";

/// Where an instance is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableArgument {
    /// The folder of the store.
    store: PathBuf,
    /// What the names of its objects begin with.
    name: ObjectName,
}

impl FromStr for DurableArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (store, name) = StoreName::folder_with_object(text)?;
        if store.as_os_str().is_empty() {
            return Err("name a folder for the store: STORE or STORE:NAME".into());
        }
        let name = ObjectName::new(name.unwrap_or(NAME)).map_err(|error| error.to_string())?;
        Ok(Self { store, name })
    }
}

/// Calls one function of the instance and keeps what it changed.
pub fn run(
    run: &Run,
    place: &DurableArgument,
    host: &Host,
    engine: &Engine,
    wasm: &[u8],
) -> anyhow::Result<ExitCode> {
    let module = DurableModule::new(host, engine, wasm)
        .with_context(|| format!("cannot keep an instance of {}", run.module().display()))?;
    run.check(module.module())?;
    let Some(name) = run.invoke() else {
        bail!(
            "--durable keeps what the module is between two calls: choose the function to call with --invoke"
        );
    };
    // Its start function may trap or exit, as the called one may.
    let mut instance = match open(run, place, &module, engine) {
        Ok(instance) => instance,
        Err(error) => return ended(Err(error)),
    };
    let result =
        call(run, &mut instance, name).and_then(|lines| lines.iter().try_for_each(|line| print_line(line)));
    if run.wants_stats() {
        let stats = instance.stats();
        warn(&format!(
            "tracker {}, {} commits ({} failed), {} pages returned",
            instance.tracker(),
            stats.msyncs,
            stats.msyncs_failed,
            stats.pages_returned
        ));
    }
    ended(result)
}

/// What the process exits with.
fn ended(result: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    if let Some(exit) = result
        .as_ref()
        .err()
        .and_then(|error| error.downcast_ref::<I32Exit>())
    {
        warn("the guest exited in the midst of the call: it has not happened, and nothing of it is kept");
        let code = u8::try_from(exit.0).unwrap_or(1);
        return Ok(ExitCode::from(code.max(1)));
    }
    exit_code(result)
}

type Wasi = Option<WasiP1Ctx>;

fn open(
    run: &Run,
    place: &DurableArgument,
    module: &DurableModule,
    engine: &Engine,
) -> anyhow::Result<DurableInstance<Wasi>> {
    let store: Arc<dyn Pager> = FileStore::open(&place.store, &Options::default())
        .with_context(|| format!("cannot open the store {}", place.store.display()))?;
    let mut linker = Linker::new(engine);
    if run.wants_wasi() {
        wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |wasi: &mut Wasi| {
            wasi.as_mut().expect("made together with the linker")
        })?;
    }
    let settings = run.clone();
    let make_store = move |engine: &Engine| {
        let wasi = settings.wants_wasi().then(|| settings.wasi_context()).transpose();
        let wasi = wasi.map_err(|error| Error::Config(format!("{error:#}")))?;
        Ok(Store::new(engine, wasi))
    };
    let opened = DurableInstance::open(module, &linker, Grant::new(store, place.name.clone()), make_store);
    let of = || {
        format!(
            "cannot open the instance \"{}\" in {}",
            place.name,
            place.store.display()
        )
    };
    match opened {
        Ok(instance) => Ok(instance),
        Err(error @ Error::Durable(DurableError::OtherModule { .. })) => {
            Err(error).with_context(|| format!("{}; --durable STORE:NAME keeps several in one store", of()))
        }
        Err(error) => Err(wasmtime_error(error)).with_context(of),
    }
}

/// The results, shown.
fn call(run: &Run, instance: &mut DurableInstance<Wasi>, name: &str) -> anyhow::Result<Vec<String>> {
    let called = instance.step(|calls| {
        let function = calls.function(name)?;
        let parameters = parameters(run.arguments(), &function.ty(calls.store()))
            .map_err(|error| Error::Guest(format!("{error:#}")))?;
        let mut results = vec![Val::I32(0); function.ty(calls.store()).results().len()];
        function.call(calls.store(), &parameters, &mut results)?;
        Ok(results.iter().map(show).collect())
    });
    called.map_err(wasmtime_error)
}

/// The trap or exit inside, so that its exit code can be told.
fn wasmtime_error(error: Error) -> anyhow::Error {
    match error {
        Error::Wasmtime(error) => error.into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_a_name_of_its_own_or_the_usual_one() {
        let parse = |text: &str| {
            text.parse::<DurableArgument>()
                .map(|it| (it.store, it.name.to_string()))
        };
        assert_eq!(parse("folder"), Ok(("folder".into(), NAME.into())));
        assert_eq!(parse("a:b/folder"), Ok(("a:b/folder".into(), NAME.into())));
        assert_eq!(parse("folder:counter"), Ok(("folder".into(), "counter".into())));
        assert_eq!(parse("file:folder"), Ok(("folder".into(), NAME.into())));
        assert!(parse("").unwrap_err().contains("name a folder"));
        assert!(parse("s3://bucket/state").unwrap_err().contains("is no folder"));
        assert!(parse("folder:.x").unwrap_err().contains("begins with a dot"));
    }
}
