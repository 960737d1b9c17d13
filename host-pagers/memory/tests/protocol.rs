//! The memory pager against the conformance suite, and what is its own: pages that move.

use std::sync::Arc;

use vmsync_core::{
    PageSize,
    abi::VmProt,
    pager::{CallId, DataSupply, InitRequest, ObjectId, ObjectName, Pager},
};
use vmsync_pager_conformance::{Fixture, Recorder};
use vmsync_pager_memory::{MemoryPager, Options, Supply};

#[test]
fn conforms() {
    vmsync_pager_conformance::run("memory", || Fixture::ephemeral(Arc::new(MemoryPager::default())));
}

#[test]
fn a_page_that_moves_is_precious_and_gone_until_it_comes_back() {
    let pager = MemoryPager::new(Options { supply: Supply::Move });
    let (object, recorder) = (ObjectId(1), Arc::new(Recorder::default()));
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: 8192,
        create: true,
        write: true,
    };
    let name = ObjectName::new("moves").unwrap();
    assert!(
        pager
            .init(object, &name, request, recorder.clone())
            .unwrap()
            .precious
    );
    recorder
        .commit(&pager, CallId(1), object, &[(0, vec![7; 4096])])
        .unwrap();

    let mut page = vec![0; 4096];
    // Whoever only reads never gives a page back.
    for _ in 0..2 {
        let supply = pager.data_request(object, 0, VmProt::READ, &mut page);
        assert_eq!(
            (supply, page[0]),
            (Ok(DataSupply::Supplied { precious: false }), 7)
        );
    }
    let supply = pager.data_request(object, 0, VmProt::READ_WRITE, &mut page);
    assert_eq!(
        (supply, page[0]),
        (Ok(DataSupply::Supplied { precious: true }), 7)
    );
    assert_eq!(
        pager.data_request(object, 0, VmProt::READ_WRITE, &mut page),
        Ok(DataSupply::Unavailable)
    );
    recorder.commit(&pager, CallId(2), object, &[(0, page)]).unwrap();
    assert!(pager.contents(&name).unwrap()[..4096] == [7; 4096]);
}
