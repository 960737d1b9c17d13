//! Which functions of `wasi_snapshot_preview1` write guest memory, and where: of each the parameters that say so.
//!
//! Source: the witx files of preview 1, with pointers, lengths and results as parameters. All of its functions are here.

/// The module that they are imported from.
pub(super) const MODULE: &str = "wasi_snapshot_preview1";

/// What a function may write. Numbers are those of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Out {
    /// So many bytes, at the address in a parameter.
    Bytes { at: u32, len: u32 },
    /// An array at the address in a parameter, of as many elements as another says, each of so many bytes.
    Array { at: u32, count: u32, unit: u32 },
    /// The buffers of a list of `iovec`, of as many as a parameter says.
    Buffers { list: u32, count: u32 },
    /// Nothing says how much.
    Anything,
}

use Out::{Anything, Array, Buffers, Bytes};

/// Functions by name.
#[rustfmt::skip]
pub(super) const FUNCTIONS: &[(&str, &[Out])] = &[
    ("args_get",                &[Anything]),
    ("args_sizes_get",          &[Bytes { at: 0, len: 4 }, Bytes { at: 1, len: 4 }]),
    ("clock_res_get",           &[Bytes { at: 1, len: 8 }]),
    ("clock_time_get",          &[Bytes { at: 2, len: 8 }]),
    ("environ_get",             &[Anything]),
    ("environ_sizes_get",       &[Bytes { at: 0, len: 4 }, Bytes { at: 1, len: 4 }]),
    ("fd_advise",               &[]),
    ("fd_allocate",             &[]),
    ("fd_close",                &[]),
    ("fd_datasync",             &[]),
    ("fd_fdstat_get",           &[Bytes { at: 1, len: 24 }]),
    ("fd_fdstat_set_flags",     &[]),
    ("fd_fdstat_set_rights",    &[]),
    ("fd_filestat_get",         &[Bytes { at: 1, len: 64 }]),
    ("fd_filestat_set_size",    &[]),
    ("fd_filestat_set_times",   &[]),
    ("fd_pread",                &[Buffers { list: 1, count: 2 }, Bytes { at: 4, len: 4 }]),
    ("fd_prestat_dir_name",     &[Array { at: 1, count: 2, unit: 1 }]),
    ("fd_prestat_get",          &[Bytes { at: 1, len: 8 }]),
    ("fd_pwrite",               &[Bytes { at: 4, len: 4 }]),
    ("fd_read",                 &[Buffers { list: 1, count: 2 }, Bytes { at: 3, len: 4 }]),
    ("fd_readdir",              &[Array { at: 1, count: 2, unit: 1 }, Bytes { at: 4, len: 4 }]),
    ("fd_renumber",             &[]),
    ("fd_seek",                 &[Bytes { at: 3, len: 8 }]),
    ("fd_sync",                 &[]),
    ("fd_tell",                 &[Bytes { at: 1, len: 8 }]),
    ("fd_write",                &[Bytes { at: 3, len: 4 }]),
    ("path_create_directory",   &[]),
    ("path_filestat_get",       &[Bytes { at: 4, len: 64 }]),
    ("path_filestat_set_times", &[]),
    ("path_link",               &[]),
    ("path_open",               &[Bytes { at: 8, len: 4 }]),
    ("path_readlink",           &[Array { at: 3, count: 4, unit: 1 }, Bytes { at: 5, len: 4 }]),
    ("path_remove_directory",   &[]),
    ("path_rename",             &[]),
    ("path_symlink",            &[]),
    ("path_unlink_file",        &[]),
    ("poll_oneoff",             &[Array { at: 1, count: 2, unit: 32 }, Bytes { at: 3, len: 4 }]),
    ("proc_exit",               &[]),
    ("proc_raise",              &[]),
    ("random_get",              &[Array { at: 0, count: 1, unit: 1 }]),
    ("sched_yield",             &[]),
    ("sock_accept",             &[Bytes { at: 2, len: 4 }]),
    ("sock_recv",               &[Buffers { list: 1, count: 2 }, Bytes { at: 4, len: 4 }, Bytes { at: 5, len: 2 }]),
    ("sock_send",               &[Bytes { at: 4, len: 4 }]),
    ("sock_shutdown",           &[]),
];

impl Out {
    /// The parameters that are read, which are of type i32.
    pub fn parameters(self) -> impl Iterator<Item = u32> {
        let (first, second) = match self {
            Bytes { at, .. } => (Some(at), None),
            Array { at, count, .. } => (Some(at), Some(count)),
            Buffers { list, count } => (Some(list), Some(count)),
            Anything => (None, None),
        };
        first.into_iter().chain(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_listed_once_in_order() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.0 < b.0));
    }
}
