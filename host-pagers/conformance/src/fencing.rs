//! A store that is taken over by opening it again: what its writer before may still do.

use std::sync::Arc;

use vmsync_core::{
    PageSize, PagerErrorKind,
    abi::VmProt,
    pager::{InitRequest, Pager},
};

use crate::Client;

/// Opens one store twice with `open`: the first writer is fenced, which it is told, and nothing of it is seen.
///
/// # Panics
/// Where it is not so.
pub fn fence_stale_writer(open: impl Fn() -> Arc<dyn Pager>) {
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: 4 * PageSize::KIB_4.bytes(),
        create: true,
        write: true,
    };
    let client = |pager| Client::open_with(pager, "object", request).expect("the object opens");
    let stale = client(open());
    stale.commit_full(0, 1);
    let owner = client(open());
    let call = Client::call();
    stale.give_full(call, 0, 2);
    stale.give_full(call, 1, 2);
    let error = stale.sync(call, 0, 4).expect_err("it is fenced");
    assert_eq!(error.kind, PagerErrorKind::Gone);
    assert!(
        error.message.contains("another host has taken the store over"),
        "{error}"
    );
    assert!(
        stale.recorder.destroyed().is_some(),
        "the object's tasks are told"
    );
    let mut page = [0; 4096];
    let read = stale
        .pager()
        .data_request(stale.object, 0, VmProt::READ, &mut page);
    assert_eq!(read.expect_err("it is fenced").kind, PagerErrorKind::Gone);
    owner.assert_full(0, 1);
    owner.assert_full(1, 0);
    owner.commit_full(0, 3);
    owner.close();
    drop(stale);
    client(open()).assert_full(0, 3);
}
