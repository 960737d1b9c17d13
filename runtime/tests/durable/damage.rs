//! A store that holds something else than it should: an error in words, never a panic.

use std::sync::Arc;

use vmsync::{DurableError, Error, Grant, PageSize, Pager, Sandbox, pager::InitRequest};
use vmsync_pager_conformance::{Client, random::Random};
use vmsync_pager_memory::MemoryPager;

use crate::{GUEST, harness::rig::name, run};

/// Overwrites the state of `a` in `pager` with what `change` makes of it.
fn change(pager: &Arc<MemoryPager>, change: impl Fn(&mut [u8])) {
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: 4096,
        create: false,
        write: true,
    };
    let client = Client::open_with(pager.clone() as Arc<dyn Pager>, "a.state.0", request).unwrap();
    let mut bytes = client.read(0, 1);
    change(&mut bytes);
    let call = Client::call();
    client.give(call, 0, &bytes).unwrap();
    client.sync(call, 0, 1).unwrap();
    client.close();
}

fn open(pager: &Arc<MemoryPager>) -> Result<vmsync::DurableInstance<()>, Error> {
    let sandbox = Sandbox::builder().build().unwrap();
    sandbox.durable(GUEST.as_bytes(), Grant::new(pager.clone(), name("a")))
}

#[test]
fn a_state_of_another_format_is_told() {
    let pager = Arc::new(MemoryPager::default());
    open(&pager).unwrap();
    change(&pager, |bytes| bytes[8] = 77);
    assert!(matches!(
        open(&pager),
        Err(Error::Durable(DurableError::Version { found: 77, .. }))
    ));
    change(&pager, |bytes| bytes[0] = 0);
    assert!(matches!(
        open(&pager),
        Err(Error::Durable(DurableError::Damaged { .. }))
    ));
}

#[test]
fn no_damage_makes_the_host_panic() {
    let mut random = Random::from_environment("no_damage_makes_the_host_panic");
    let mut refused = 0;
    for _ in 0..100 {
        let pager = Arc::new(MemoryPager::default());
        run::<_, i32>(&mut open(&pager).unwrap(), "grow_table", 3);
        let (at, value) = (40 + random.below(200) as usize, random.number() as u8);
        change(&pager, |bytes| bytes[at] ^= value | 1);
        match open(&pager) {
            // A number that is different, or behind the end.
            Ok(mut guest) => drop(guest.call::<_, i32>("call", 1)),
            Err(Error::Durable(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 5, "{refused}");
}
