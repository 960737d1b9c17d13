//! What `vmsync export` and `vmsync import` share with each other and with `sandbox.export()` of a page: a tar file (POSIX
//! ustar) of a store's files, flat, and what is shown meanwhile.
//!
//! Invariant: a name is a store's or is left out, so none leads out of a folder.

use std::{
    io::IsTerminal,
    path::{Component, Path},
};

use indicatif::{ProgressBar, ProgressStyle};

/// The file of the superblock. It is the last of an archive: one that is cut short has none, and is no store.
pub const STORE_FILE: &str = "STORE";

/// Whether a store has a file called `name`; all others in its folder, `LOCK` among them, say nothing of its state.
pub fn is_store_file(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let object = |rest: &str| is_number(rest.strip_suffix(".sums").unwrap_or(rest));
    name == STORE_FILE
        || name.strip_prefix("journal-").is_some_and(is_number)
        || name.strip_prefix("object-").is_some_and(object)
}

/// The last part of a path in an archive, behind any folders; `None` where it is absolute or goes up.
pub fn file_name(path: &Path) -> Option<&str> {
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !path.components().all(inside) {
        return None;
    }
    path.file_name()?.to_str()
}

/// A bar over `bytes` on standard error, where that is a terminal.
pub fn progress(bytes: u64) -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {eta} left")?;
    Ok(ProgressBar::new(bytes).with_style(style))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stores_files_are_known_by_name() {
        for name in ["STORE", "journal-0", "object-12", "object-12.sums"] {
            assert!(is_store_file(name), "{name}");
        }
        for name in [
            "LOCK",
            "LOCK-node",
            "journal-",
            "journal-1.sums",
            "object-x",
            "object-1.sum",
            "store",
        ] {
            assert!(!is_store_file(name), "{name}");
        }
    }

    #[test]
    fn no_name_leads_out() {
        let name = |path: &str| file_name(Path::new(path)).map(String::from);
        assert_eq!(name("./STORE").as_deref(), Some("STORE"));
        assert_eq!(name("state/old/journal-1").as_deref(), Some("journal-1"));
        for path in ["/STORE", "../STORE", "a/../../STORE", "..", "./"] {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
