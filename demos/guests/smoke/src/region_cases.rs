//! The cases of regions. Each leaves nothing mapped.

use vmsync_guest::abi::{Behavior, KernReturn, TASK_SELF, VmProt};
use vmsync_guest::{Error, Region, RegionOptions};

const NAME: &str = "smoke";
const BYTES: usize = 4 * 65536;
const PAGE: usize = 4096;

fn region() -> Region {
    Region::map(NAME, BYTES).expect("the object is granted")
}

fn word(region: &mut Region, offset: usize) -> &mut u64 {
    region.view_mut_at(offset).expect("it is within the region")
}

fn refused(result: Result<Region, Error>) -> Error {
    result.map(|_| ()).expect_err("it is refused")
}

pub fn a_flush_outlives_the_mapping() {
    let mut first = region();
    let before = *word(&mut first, 0);
    *word(&mut first, 0) = before + 1;
    first.flush().unwrap();
    drop(first);
    assert_eq!(*word(&mut region(), 0), before + 1);
}

pub fn what_is_not_flushed_is_lost() {
    let mut first = region();
    let before = *word(&mut first, PAGE);
    *word(&mut first, PAGE) = !before;
    drop(first);
    assert_eq!(*word(&mut region(), PAGE), before);
}

pub fn a_region_keeps_its_address() {
    let first = region();
    let address = first.address();
    let other = Region::options().anonymous(BYTES).unwrap();
    drop(first);
    let again = region();
    assert_eq!(again.address(), address);
    assert!(other.address() != address);
    assert_eq!(again.info().unwrap().address, address as u64);
}

pub fn a_range_is_flushed_alone() {
    let mut first = region();
    let before = [PAGE, 2 * PAGE].map(|offset| *word(&mut first, offset));
    *word(&mut first, PAGE) = before[0] + 1;
    *word(&mut first, 2 * PAGE) = before[1] + 1;
    first.flush_range(PAGE..PAGE + 8).unwrap();
    assert!(matches!(
        first.flush_range(0..first.len() + 1),
        Err(Error::OutOfRange { .. })
    ));
    drop(first);
    let mut again = region();
    assert_eq!(
        [PAGE, 2 * PAGE].map(|offset| *word(&mut again, offset)),
        [before[0] + 1, before[1]]
    );
}

pub fn an_async_flush_is_followed_by_a_flush() {
    let mut first = region();
    let before = *word(&mut first, 0);
    *word(&mut first, 0) = before + 1;
    first.flush_async().unwrap();
    first.flush().unwrap();
    drop(first);
    assert_eq!(*word(&mut region(), 0), before + 1);
}

pub fn invalidate_undoes() {
    let mut region = region();
    *word(&mut region, 0) += 1;
    region.flush().unwrap();
    let before = *word(&mut region, 0);
    for round in 0..3 {
        *word(&mut region, 0) = !before;
        *word(&mut region, 3 * PAGE + 8) = round;
        region.invalidate().unwrap();
        assert_eq!(*word(&mut region, 0), before);
    }
    *word(&mut region, 0) = before + 1;
    region.flush().unwrap();
    region.invalidate().unwrap();
    assert_eq!(*word(&mut region, 0), before + 1, "what is durable stays");
}

pub fn a_read_only_region_reads() {
    let value = *word(&mut region(), 0);
    let mut read_only = Region::options().read_only().existing().map(NAME, 0).unwrap();
    assert_eq!(read_only.view::<u64>(), Ok(&value));
    assert_eq!(read_only.view_mut::<u64>().err(), Some(Error::ReadOnly));
    assert!(!read_only.is_writable());
    assert!(read_only.len() >= BYTES);
}

pub fn a_private_region_is_not_durable() {
    let value = *word(&mut region(), 0);
    let mut private = Region::options().private().map(NAME, 0).unwrap();
    assert_eq!(*word(&mut private, 0), value);
    *word(&mut private, 0) = !value;
    private.flush().unwrap();
    assert!(private.invalidate().is_err(), "there is nothing to go back to");
    drop(private);
    assert_eq!(*word(&mut region(), 0), value);
}

pub fn an_object_is_mapped_once() {
    let _first = region();
    assert_eq!(refused(Region::map(NAME, BYTES)), Error::AlreadyMapped);
}

pub fn an_object_grows() {
    let len = region().len();
    let larger = Region::map(NAME, len + 1).unwrap();
    assert!(larger.len() > len);
    assert_eq!(larger.as_slice()[len..].iter().position(|byte| *byte != 0), None);
}

pub fn a_taken_address_is_refused() {
    let address = region().address();
    let _other = Region::options().at(address).anonymous(BYTES).unwrap();
    let error = refused(Region::map(NAME, BYTES));
    assert!(matches!(error, Error::Collision { .. }), "{error}");
    let moved = Region::options().relocatable().map(NAME, BYTES).unwrap();
    assert!(moved.address() != address);
    drop((moved, _other));
    // Back to where it was, for the cases that follow.
    assert_eq!(
        Region::options().at(address).map(NAME, BYTES).unwrap().address(),
        address
    );
}

/// What the POSIX library does beside this crate, say: it takes memory of the window.
mod others {
    #[link(wasm_import_module = "vmsync1")]
    unsafe extern "C" {
        pub fn vm_allocate(task: u32, address: *mut usize, size: usize, flags: u32) -> i32;
        pub fn vm_deallocate(task: u32, address: usize, size: usize) -> i32;
    }
}

pub fn a_region_goes_behind_what_others_have_mapped() {
    let anonymous = |options: RegionOptions| options.anonymous(BYTES);
    let mut address = anonymous(Region::options()).unwrap().address();
    let taken = address;
    // SAFETY: the region that lay there is gone, and `address` is a live word.
    let allocated = unsafe { others::vm_allocate(TASK_SELF, &mut address, BYTES, 0) };
    assert_eq!(allocated, 0);
    assert!(anonymous(Region::options()).unwrap().address() >= taken + BYTES);
    let error = refused(anonymous(Region::options().at(taken + BYTES - 65536)));
    assert!(matches!(error, Error::Collision { .. }), "{error}");
    // SAFETY: nothing refers to it.
    let given_back = unsafe { others::vm_deallocate(TASK_SELF, taken, BYTES) };
    assert_eq!(given_back, 0);
    assert_eq!(anonymous(Region::options().at(taken)).unwrap().address(), taken);
}

pub fn an_object_that_is_not_granted_is_refused() {
    let error = refused(Region::map("smoke-none", BYTES));
    assert_eq!(error.kern_return(), Some(KernReturn::NoAccess), "{error}");
    let error = refused(Region::map("../smoke", BYTES));
    assert!(error.kern_return().is_some(), "{error}");
    assert!(Region::options().existing().map("smoke-none", 0).is_err());
}

pub fn an_anonymous_region_is_zero() {
    for _ in 0..2 {
        let mut region = Region::options().anonymous(1).unwrap();
        assert!(region.as_slice().iter().all(|byte| *byte == 0));
        region.as_mut_slice().fill(7);
        region.flush().unwrap();
        assert!(region.is_anonymous() && region.info().is_err() && region.invalidate().is_err());
        assert_eq!(region.as_slice()[0], 7);
    }
}

pub fn an_anonymous_region_may_be_read_only() {
    let region = Region::options().read_only().anonymous(BYTES).unwrap();
    assert!(!region.is_writable() && region.as_slice().iter().all(|byte| *byte == 0));
    assert_eq!(region.vm_region().unwrap().protection, VmProt::READ.0);
}

pub fn advice_changes_nothing() {
    let mut region = region();
    *word(&mut region, 0) += 1;
    let value = *word(&mut region, 0);
    let all = [
        Behavior::Random,
        Behavior::Sequential,
        Behavior::WillNeed,
        Behavior::DontNeed,
        Behavior::Default,
    ];
    for behavior in all {
        region.advise(0..BYTES, behavior).unwrap();
        assert_eq!(*word(&mut region, 0), value);
    }
}

pub fn a_region_says_what_it_is() {
    let mut region = region();
    *word(&mut region, 0) += 1;
    let version = region.info().unwrap().version;
    region.flush().unwrap();
    let info = region.info().unwrap();
    assert!(info.version > version);
    assert_eq!(info.size, region.len() as u64);
    assert_eq!(info.page_size as usize, PAGE);
    let mapping = region.vm_region().unwrap();
    assert_eq!(
        (mapping.protection, mapping.shared, mapping.offset),
        (VmProt::READ_WRITE.0, 1, 0)
    );
}

pub fn views_are_checked() {
    let mut region = region();
    let len = region.len();
    assert!(matches!(region.view_at::<u64>(1), Err(Error::OutOfRange { .. })));
    assert!(matches!(
        region.view_at::<u64>(len),
        Err(Error::OutOfRange { .. })
    ));
    assert!(region.view_at::<u64>(usize::MAX).is_err());
    assert_eq!(region.view_slice::<[u32; 3]>().len(), len / 12);
    assert_eq!(region.view_mut_slice::<u16>().unwrap().len(), len / 2);
}

/// Stores where the type system forbids it.
fn stray_store(region: &Region) {
    let first = region.as_slice().as_ptr().cast_mut();
    // SAFETY: none: the region is read-only, and the store traps before it does harm.
    unsafe { first.write_volatile(1) };
    println!("the store went through");
}

pub fn trap_store_to_read_only() {
    drop(region());
    stray_store(&Region::options().read_only().existing().map(NAME, 0).unwrap());
}

pub fn trap_store_after_make_read_only() {
    let mut region = region();
    region.make_read_only().unwrap();
    stray_store(&region);
}
