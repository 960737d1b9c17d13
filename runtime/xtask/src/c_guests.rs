//! Builds the guest programs that are written in C: the examples, the tests of the POSIX library, and other people's
//! programs (LMDB and SQLite on that library, QuickJS), whose sources `sources.rs` finds.
//!
//! A step runs when its command, or a file that it reads, is not that of the last time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::UNIX_EPOCH,
};

use anyhow::{Context, Result};

use crate::{
    guests::copy_if_changed,
    sources::{Sources, debian_source},
    wasm_toolchain::{CToolchain, run},
};

/// What our own C is held to.
const STRICT: &[&str] = &["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"];

/// What others' is: they have their own rules.
const FOREIGN: &[&str] = &[
    "-O2",
    "-w",
    "-Wno-error=implicit-function-declaration",
    "-D_GNU_SOURCE",
];

/// The end of the window of guests without the POSIX library, in bytes.
const GLOBAL_BASE: u64 = 256 << 20;

/// LMDB's own test programs.
const LMDB_TESTS: &[&str] = &["mtest", "mtest2", "mtest3", "mtest4", "mtest5", "mtest6"];

/// The one that prints keys with a function that only a tracing LMDB has.
const LMDB_TEST_OF_TRACES: &str = "mtest6";

/// The parts of QuickJS.
const QUICKJS: &[&str] = &["quickjs", "libregexp", "libunicode", "cutils", "xsum"];

/// One process has a store, so SQLite needs no locks; there is no folder for temporary files; it may map its database.
const SQLITE: &[&str] = &[
    "-DSQLITE_TEMP_STORE=2",
    "-DSQLITE_DEFAULT_UNIX_VFS=\"unix-none\"",
    "-DSQLITE_MAX_MMAP_SIZE=0x40000000",
    "-DSQLITE_EXTRA_INIT=vmsync_sqlite_init",
    "-DUSE_PREAD",
    "-includesys/mman.h",
];

/// Without files, for a module that imports nothing.
const SQLITE_IN_MEMORY: &[&str] = &[
    "-DSQLITE_OS_OTHER=1",
    "-DSQLITE_THREADSAFE=0",
    "-DSQLITE_TEMP_STORE=3",
    "-DSQLITE_OMIT_LOCALTIME",
];

/// Builds every C guest; the modules, in `target/guests`.
pub fn build(root: &Path, target: &Path) -> Result<Vec<PathBuf>> {
    let builder = Builder::new(root, target)?;
    let mut modules = builder.examples()?;
    let posix = builder.posix()?;
    modules.push(builder.posix_tests(&posix)?);
    let sources = Sources::find(root)?;
    modules.extend(builder.lmdb(&posix, &sources)?);
    modules.extend(builder.sqlite(&posix, &sources)?);
    modules.push(builder.sqlite_kernel(&sources)?);
    modules.push(builder.quickjs(&sources)?);
    Ok(modules)
}

/// Builds the POSIX library, as one object.
pub fn build_posix(root: &Path, target: &Path) -> Result<PathBuf> {
    Builder::new(root, target)?.posix()
}

/// Builds the program that measures LMDB's commits for this machine.
pub fn build_native_lmdb(root: &Path, target: &Path) -> Result<PathBuf> {
    let builder = Builder::new(root, target)?;
    let lmdb = Sources::find(root)?.lmdb;
    let mut clang = builder.toolchain.native();
    clang.args(FOREIGN).arg("-pthread").arg("-I").arg(&lmdb);
    let inputs = [
        root.join("demos/guests/lmdb/commits.c"),
        lmdb.join("mdb.c"),
        lmdb.join("midl.c"),
    ];
    builder.compile(clang, &inputs, "lmdb-commits-native")
}

struct Builder<'a> {
    root: &'a Path,
    guests: PathBuf,
    /// Where objects and programs are written before they are copied.
    build: PathBuf,
    toolchain: CToolchain,
}

impl<'a> Builder<'a> {
    fn new(root: &'a Path, target: &Path) -> Result<Self> {
        let guests = target.join("guests");
        let build = guests.join("build/c");
        fs::create_dir_all(&build).with_context(|| format!("cannot create {}", build.display()))?;
        let toolchain = CToolchain::find()?;
        Ok(Self {
            root,
            guests,
            build,
            toolchain,
        })
    }

    /// The examples of `vmsync.h`, one of them without a C library, as for any other host than a WASI one.
    fn examples(&self) -> Result<Vec<PathBuf>> {
        let freestanding = ["-nostdlib", "-ffreestanding", "-Wl,--no-entry"];
        let examples: [(&str, &str, &[&str]); 2] = [
            ("journal", "wasm32-wasi", &[]),
            ("tally", "wasm32", &freestanding),
        ];
        let build = |(name, triple, flags): (&str, &str, &[&str])| {
            let mut clang = self.header_clang(triple);
            clang.args(flags);
            self.module(clang, &[self.root.join(format!("demos/guests/c/{name}.c"))], name)
        };
        examples.into_iter().map(build).collect()
    }

    /// clang for programs that use `vmsync.h` alone.
    fn header_clang(&self, triple: &str) -> Command {
        let mut clang = self.toolchain.command(triple);
        clang.args(STRICT).arg(format!(
            "-Wl,--stack-first,-z,stack-size=1048576,--global-base={GLOBAL_BASE}"
        ));
        clang.arg("-I").arg(self.root.join("guest-sdk/c/include"));
        clang
    }

    /// clang for programs of the POSIX library.
    fn posix_clang(&self, flags: &[&str]) -> Command {
        let sdk = self.root.join("guest-sdk/c");
        let mut clang = self.toolchain.command("wasm32-wasi");
        clang.args(flags);
        clang.arg("-I").arg(sdk.join("posix/include"));
        clang.arg("-I").arg(sdk.join("include"));
        clang
    }

    /// The library, as one object.
    fn posix(&self) -> Result<PathBuf> {
        let mut clang = self.posix_clang(STRICT);
        clang.args(["-D_GNU_SOURCE", "-r", "-nostdlib"]);
        let sources = files(&self.root.join("guest-sdk/c/posix/src"), "c")?;
        self.compile(clang, &sources, "vmsync-posix.o")
    }

    /// An object of others' sources.
    fn foreign_object(&self, source: &Path, flags: &[&str], name: &str) -> Result<PathBuf> {
        let mut clang = self.posix_clang(FOREIGN);
        clang.args(flags).arg("-c");
        self.compile(clang, &[source.into()], name)
    }

    /// A program of the POSIX library.
    fn posix_program(
        &self,
        posix: &Path,
        mut clang: Command,
        inputs: &[PathBuf],
        name: &str,
    ) -> Result<PathBuf> {
        let arguments = self.root.join("guest-sdk/c/posix/link.args");
        clang.arg(format!("@{}", arguments.display()));
        let inputs = [inputs, &[posix.into()]].concat();
        self.module(clang, &inputs, name)
    }

    fn posix_tests(&self, posix: &Path) -> Result<PathBuf> {
        let mut clang = self.posix_clang(STRICT);
        clang.arg("-D_GNU_SOURCE");
        let sources = files(&self.root.join("guest-sdk/c/tests"), "c")?;
        self.posix_program(posix, clang, &sources, "posix")
    }

    /// LMDB's own tests, as they are and with MDB_WRITEMAP, and programs of ours on LMDB.
    fn lmdb(&self, posix: &Path, sources: &Sources) -> Result<Vec<PathBuf>> {
        let lmdb = &sources.lmdb;
        let ours = self.root.join("demos/guests/lmdb");
        let include = format!("-I{}", lmdb.display());
        let object = |source: &str, flags: &[&str], name: &str| {
            self.foreign_object(&lmdb.join(source), flags, &format!("lmdb-{name}.o"))
        };
        let library = [object("mdb.c", &[], "mdb")?, object("midl.c", &[], "midl")?];
        let mut traced = library.clone();
        traced[0] = object("mdb.c", &["-DMDB_DEBUG=1"], "mdb-traced")?;
        let mut modules = Vec::new();
        for test in LMDB_TESTS {
            let traces = *test == LMDB_TEST_OF_TRACES;
            let mut inputs = if traces { &traced } else { &library }.to_vec();
            inputs.push(lmdb.join(format!("{test}.c")));
            let clang = || {
                let mut clang = self.posix_clang(FOREIGN);
                clang.arg(&include);
                clang
            };
            modules.push(self.posix_program(posix, clang(), &inputs, &format!("lmdb-{test}"))?);
            inputs.push(ours.join("writemap.c"));
            let mut clang = clang();
            clang.arg("-Wl,--wrap=mdb_env_open");
            modules.push(self.posix_program(posix, clang, &inputs, &format!("lmdb-{test}-writemap"))?);
        }
        for name in ["ledger", "commits"] {
            let mut clang = self.posix_clang(STRICT);
            clang.arg("-D_GNU_SOURCE").arg(&include);
            clang.arg("-I").arg(self.root.join("demos/guests/c"));
            let mut inputs = library.to_vec();
            inputs.push(ours.join(format!("{name}.c")));
            modules.push(self.posix_program(posix, clang, &inputs, &format!("lmdb-{name}"))?);
        }
        Ok(modules)
    }

    /// SQLite's speed test, where its source can be had, and a program of ours on SQLite.
    fn sqlite(&self, posix: &Path, sources: &Sources) -> Result<Vec<PathBuf>> {
        let ours = self.root.join("demos/guests/sqlite");
        let include = format!("-I{}", sources.sqlite.display());
        let library = [
            self.foreign_object(&sources.sqlite.join("sqlite3.c"), SQLITE, "sqlite3.o")?,
            self.foreign_object(&ours.join("mmap.c"), &[&include], "sqlite-mmap.o")?,
        ];
        let mut clang = self.posix_clang(STRICT);
        clang.arg("-D_GNU_SOURCE").arg(&include);
        clang.arg("-I").arg(self.root.join("demos/guests/c"));
        let inputs = [&library[..], &[ours.join("ledger.c")]].concat();
        let mut modules = vec![self.posix_program(posix, clang, &inputs, "sqlite-ledger")?];
        match debian_source(&self.guests.join("build/sources"), "sqlite3", "test/speedtest1.c") {
            Ok(speedtest) => {
                let mut clang = self.posix_clang(FOREIGN);
                clang.arg(&include);
                let inputs = [&library[..], &[speedtest]].concat();
                modules.push(self.posix_program(posix, clang, &inputs, "sqlite-speedtest1")?);
            }
            Err(error) => eprintln!("      without SQLite's speed test: {error:#}"),
        }
        Ok(modules)
    }

    /// SQLite over a database in memory, for the benchmark of trackers.
    fn sqlite_kernel(&self, sources: &Sources) -> Result<PathBuf> {
        let mut clang = self.toolchain.command("wasm32-wasi");
        clang.args(FOREIGN).args(SQLITE_IN_MEMORY).arg("-c");
        let library = self.compile(clang, &[sources.sqlite.join("sqlite3.c")], "sqlite3-kernel.o")?;
        let mut clang = self.toolchain.command("wasm32-wasi");
        clang.args(STRICT).arg("-I").arg(&sources.sqlite);
        clang.args([
            "-nostartfiles",
            "-Wl,--no-entry",
            "-Wl,--stack-first,-z,stack-size=1048576",
        ]);
        let kernel = self.root.join("demos/guests/sqlite/kernel.c");
        self.module(clang, &[library, kernel], "sqlite-kernel")
    }

    /// QuickJS with its heap in a region.
    fn quickjs(&self, sources: &Sources) -> Result<PathBuf> {
        let ours = self.root.join("demos/guests/quickjs");
        let mut inputs = vec![ours.join("durable.c"), ours.join("heap.c")];
        for name in QUICKJS {
            let mut clang = self.toolchain.command("wasm32-wasi");
            clang.args(FOREIGN).arg("-c");
            let source = sources.quickjs.join(format!("{name}.c"));
            inputs.push(self.compile(clang, &[source], &format!("quickjs-{name}.o"))?);
        }
        let mut clang = self.header_clang("wasm32-wasi");
        clang.arg("-D_GNU_SOURCE").arg("-isystem").arg(&sources.quickjs);
        self.module(clang, &inputs, "quickjs")
    }

    /// Compiles a module, and puts it where guests are run from.
    fn module(&self, clang: Command, inputs: &[PathBuf], name: &str) -> Result<PathBuf> {
        let name = format!("{name}.wasm");
        copy_if_changed(&self.compile(clang, inputs, &name)?, &self.guests.join(&name))
    }

    /// Runs `clang` over `inputs` if anything has changed since it wrote `name`.
    fn compile(&self, mut clang: Command, inputs: &[PathBuf], name: &str) -> Result<PathBuf> {
        let output = self.build.join(name);
        clang.args(inputs).arg("-o").arg(&output);
        let stamp = self.stamp(&clang, inputs)?;
        let stamp_file = self.build.join(format!("{name}.stamp"));
        let is_current = fs::read_to_string(&stamp_file).is_ok_and(|last| last == stamp);
        if !is_current || !output.exists() {
            run(&mut clang)?;
            fs::write(&stamp_file, stamp)
                .with_context(|| format!("cannot write {}", stamp_file.display()))?;
        }
        Ok(output)
    }

    /// The command, and how new everything is that it may read.
    fn stamp(&self, clang: &Command, inputs: &[PathBuf]) -> Result<String> {
        let mut stamp = format!("{clang:?}\n");
        let sdk = self.root.join("guest-sdk/c");
        let folders = [
            "include",
            "posix",
            "posix/include",
            "posix/include/sys",
            "posix/src",
            "tests",
        ];
        let mut read = inputs.to_vec();
        for folder in folders.map(|folder| sdk.join(folder)) {
            read.extend(files(&folder, "h")?);
            read.extend(files(&folder, "args")?);
        }
        for folder in ["c", "quickjs"] {
            read.extend(files(&self.root.join("demos/guests").join(folder), "h")?);
        }
        for path in read {
            let metadata = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let changed = metadata
                .modified()?
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            stamp += &format!("{} {} {changed:?}\n", path.display(), metadata.len());
        }
        Ok(stamp)
    }
}

/// The files of a folder with an extension, in the order of their names.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    Ok(files)
}
