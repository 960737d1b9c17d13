//! The wall to the operating system: thin, typed bindings, and nothing that knows of linear memories.

#[cfg(target_os = "linux")]
pub(crate) mod pagemap;
#[cfg(unix)]
pub(crate) mod signal;
#[cfg(target_os = "linux")]
pub(crate) mod uffd;
