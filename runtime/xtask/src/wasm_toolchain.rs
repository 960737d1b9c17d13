//! Finds what compiles guests, and installs it where that is possible.
//!
//! `guests.rs` asks for a Rust target or for C and gets a command to run. For Rust, in this order:
//! 1. the toolchain that runs this program, if it has the target's standard library (`rustup target add`);
//! 2. Debian's `rustc-web`, which builds the standard library from `rust-web-src`;
//! 3. the same, installed by this program if it runs as root where `apt-get` exists;
//! 4. an error that says exactly what to install.
//!
//! Invariant: whatever is used leaves the user's toolchains as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUST_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_WASI_PACKAGES: &[&str] = &["wasi-libc"];
const DEBIAN_C_PACKAGES: &[&str] = &["clang-19", "lld-19", "wasi-libc", "libclang-rt-19-dev-wasm32"];
const WASI_LIBC: &str = "/usr/lib/wasm32-wasi";
const CLANGS: &[&str] = &["clang-19", "clang"];

/// A target that guests are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// No system interface but `vmsync1`.
    Unknown,
    /// WASI preview 1: arguments, files, standard output.
    Wasip1,
}

impl Target {
    /// Its name, as rustc spells it.
    pub fn triple(self) -> &'static str {
        match self {
            Self::Unknown => "wasm32-unknown-unknown",
            Self::Wasip1 => "wasm32-wasip1",
        }
    }

    fn debian_packages(self) -> Vec<&'static str> {
        let wasi = if self == Self::Wasip1 {
            DEBIAN_WASI_PACKAGES
        } else {
            &[]
        };
        [DEBIAN_RUST_PACKAGES, wasi].concat()
    }
}

/// How to compile Rust for a target.
#[derive(Clone, Debug)]
pub enum RustToolchain {
    /// The running toolchain has the target's standard library.
    Installed,
    /// Debian's compiler, with the standard library built from source.
    Debian {
        /// `rust-lld` or `wasm-ld`.
        linker: PathBuf,
    },
}

impl RustToolchain {
    /// Finds, or installs, what compiles for `target`.
    pub fn find(target: Target) -> Result<Self> {
        if has_std(target.triple())? {
            return Ok(Self::Installed);
        }
        Self::find_debian(target)
    }

    /// Finds, or installs, what checks code for `triples`, which are not WebAssembly's.
    pub fn find_for_checks(triples: &[&str]) -> Result<Self> {
        let installed: Result<Vec<bool>> = triples.iter().map(|triple| has_std(triple)).collect();
        if installed?.into_iter().all(|installed| installed) {
            return Ok(Self::Installed);
        }
        // What builds one standard library builds all of them.
        Self::find_debian(Target::Unknown)
    }

    fn find_debian(target: Target) -> Result<Self> {
        if !has_debian(target) {
            let rustup = format!("`rustup target add {}`, or on Debian", target.triple());
            install(&target.debian_packages(), &rustup)?;
        }
        ensure!(
            has_debian(target),
            "{DEBIAN_RUSTC} came without the standard library's source"
        );
        Ok(Self::Debian {
            linker: find_linker()?,
        })
    }

    /// `cargo build` for `target`, without packages and folders.
    pub fn cargo_build(&self, target: Target) -> Command {
        let mut command = self.cargo("build");
        command.args(["--release", "--target", target.triple()]);
        if let Self::Debian { linker } = self {
            command.env(
                "CARGO_ENCODED_RUSTFLAGS",
                debian_rustflags(target, linker).join("\x1f"),
            );
            command.arg("-Zbuild-std=std,panic_abort");
        }
        command
    }

    /// `cargo check` for `triples`, without packages and folders.
    pub fn cargo_check(&self, triples: &[&str]) -> Command {
        let mut command = self.cargo("check");
        triples
            .iter()
            .for_each(|triple| _ = command.args(["--target", triple]));
        if let Self::Debian { .. } = self {
            // Only what the compiler knows of the standard library is needed.
            command
                .env("CARGO_ENCODED_RUSTFLAGS", "-Zno-codegen")
                .arg("-Zbuild-std=std");
        }
        command
    }

    /// Cargo with its verb, apart from the settings of the build that runs this program.
    fn cargo(&self, verb: &str) -> Command {
        let mut command = match self {
            Self::Installed => Command::new(env_or("CARGO", "cargo")),
            Self::Debian { .. } => Command::new(DEBIAN_CARGO),
        };
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
        ] {
            command.env_remove(name);
        }
        command
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("CARGO_TARGET_DIR");
        command.args([verb, "--locked"]);
        if let Self::Debian { .. } = self {
            command
                .env_remove("RUSTUP_TOOLCHAIN")
                .env_remove("LD_LIBRARY_PATH")
                .env_remove("RUSTDOC");
            command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }
}

fn debian_rustflags(target: Target, linker: &Path) -> Vec<String> {
    let mut flags = vec![format!("-Clinker={}", linker.display())];
    if target == Target::Wasip1 {
        flags.push("-Clink-self-contained=no".into());
        flags.push(format!("-Clink-arg={WASI_LIBC}/crt1-command.o"));
        flags.push(format!("-Lnative={WASI_LIBC}"));
    }
    flags
}

/// A C compiler for `wasm32-wasi` and `wasm32`.
#[derive(Clone, Debug)]
pub struct CToolchain {
    clang: PathBuf,
}

impl CToolchain {
    /// Finds, or installs, clang with a linker, a C library and the compiler's runtime library.
    pub fn find() -> Result<Self> {
        if let Some(found) = Self::installed() {
            return Ok(found);
        }
        install(
            DEBIAN_C_PACKAGES,
            "clang, wasm-ld, wasi-libc and its compiler-rt; on Debian",
        )?;
        Self::installed().context("clang cannot link for wasm32-wasi although its packages are installed")
    }

    /// clang for this machine.
    pub fn native(&self) -> Command {
        Command::new(&self.clang)
    }

    /// `clang --target=TRIPLE`.
    pub fn command(&self, triple: &str) -> Command {
        let mut command = Command::new(&self.clang);
        command.arg(format!("--target={triple}"));
        command
    }

    fn installed() -> Option<Self> {
        let has_library = Path::new(WASI_LIBC).join("libc.a").exists();
        let clang = CLANGS.iter().find_map(|name| find_program(name))?;
        let toolchain = Self { clang };
        let printed = |what: &str| stdout(toolchain.command("wasm32-wasi").arg(what)).unwrap_or_default();
        let has_linker = Path::new(printed("-print-prog-name=wasm-ld").trim()).exists()
            || find_program("wasm-ld").is_some();
        let has_runtime = Path::new(printed("-print-libgcc-file-name").trim()).exists();
        (has_library && has_linker && has_runtime).then_some(toolchain)
    }
}

/// Whether the running toolchain has the standard library of the target `triple`.
fn has_std(triple: &str) -> Result<bool> {
    let mut rustc = Command::new(env_or("RUSTC", "rustc"));
    rustc.args(["--print", "target-libdir", "--target", triple]);
    let folder = stdout(&mut rustc)?;
    let Ok(entries) = std::fs::read_dir(folder.trim()) else {
        return Ok(false);
    };
    Ok(entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")))
}

fn has_debian(target: Target) -> bool {
    let source = Path::new("/usr/lib/rustlib/src/rust/library/std/Cargo.toml").exists();
    let libc = target == Target::Unknown || Path::new(WASI_LIBC).join("crt1-command.o").exists();
    let compiler = Path::new(DEBIAN_RUSTC).exists() && Path::new(DEBIAN_CARGO).exists();
    compiler && source && libc
}

/// `rust-lld` of the running toolchain, or a `wasm-ld`.
fn find_linker() -> Result<PathBuf> {
    let sysroot = stdout(Command::new(env_or("RUSTC", "rustc")).args(["--print", "sysroot"]))?;
    let hosts = Path::new(sysroot.trim()).join("lib/rustlib");
    let of_toolchain = std::fs::read_dir(&hosts).into_iter().flatten().flatten();
    let mut of_toolchain = of_toolchain.map(|entry| entry.path().join("bin/rust-lld"));
    if let Some(lld) = of_toolchain.find(|path| path.exists()) {
        return Ok(lld);
    }
    let found = ["wasm-ld", "wasm-ld-19"]
        .iter()
        .find_map(|name| find_program(name));
    found.context("no WebAssembly linker: install rustup's toolchain (it has rust-lld) or Debian's lld-19")
}

/// Installs Debian packages if this process may, else fails with what to do by hand: `or_else`, or that.
pub fn install(packages: &[&str], or_else: &str) -> Result<()> {
    let line = format!("apt-get install {}", packages.join(" "));
    let by_hand = format!("needed: {or_else} `{line}`");
    if find_program("apt-get").is_none() || !is_root() {
        bail!(by_hand);
    }
    eprintln!("{line}");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(std::process::Stdio::null());
        run(&mut command)
    };
    let arguments = [&["install", "-y", "--no-install-recommends"], packages].concat();
    if apt(&arguments).is_err() {
        // A machine that has never looked at its package lists.
        apt(&["update"]).and_then(|()| apt(&arguments)).context(by_hand)?;
    }
    Ok(())
}

/// Whether this process may install packages, and start programs as other users.
pub fn is_root() -> bool {
    stdout(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Runs `command`; its failure is an error that names it.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{status}: {command:?}");
    Ok(())
}

/// Runs `command` and hands out what it prints.
pub fn stdout(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{}: {command:?}: {errors}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The program of this name on the PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

fn env_or(name: &str, otherwise: &str) -> PathBuf {
    std::env::var_os(name).map_or_else(|| otherwise.into(), PathBuf::from)
}
