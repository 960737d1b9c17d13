//! The maps over a real file of the machine that builds them.
#![cfg(target_os = "linux")]

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};

use memmap2::{Advice, Mmap, MmapMut, MmapOptions, MmapRaw, UncheckedAdvice};

/// A file without a name, of `len` bytes.
fn file(len: u64) -> File {
    let path = std::env::temp_dir().join(format!(
        "maps-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(path).unwrap();
    file.set_len(len).unwrap();
    file
}

#[test]
fn stores_reach_the_file_and_other_maps() {
    let mut file = file(10_000);
    // SAFETY: the file is this test's.
    let (mut map, other) = unsafe { (MmapMut::map_mut(&file).unwrap(), Mmap::map(&file).unwrap()) };
    assert_eq!((map.len(), other.len()), (10_000, 10_000));
    map[9_999] = 7;
    map[..5].copy_from_slice(b"hello");
    map.flush().unwrap();
    map.flush_async().unwrap();
    map.flush_range(9_000, 1_000).unwrap();
    map.flush_async_range(1, 1).unwrap();
    assert_eq!(
        map.flush_range(9_000, 1_001).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(
        (&bytes[..5], bytes[9_999], &other[..5]),
        (&b"hello"[..], 7, &b"hello"[..])
    );
}

#[test]
fn any_offset_and_length_will_do() {
    let mut file = file(0);
    let bytes: Vec<u8> = (0..20_000_u32).map(|number| number as u8).collect();
    file.write_all(&bytes).unwrap();
    for (offset, len) in [
        (0, None),
        (1, None),
        (4_096, Some(1)),
        (5_001, Some(9_000)),
        (19_999, None),
        (20_000, None),
    ] {
        let mut options = MmapOptions::new();
        options.offset(offset).populate();
        if let Some(len) = len {
            options.len(len);
        }
        let end = len.map_or(20_000, |len| offset as usize + len);
        // SAFETY: the file is this test's.
        let map = unsafe { options.map_mut(&file).unwrap() };
        assert_eq!(&map[..], &bytes[offset as usize..end], "{offset}");
        map.flush().unwrap();
        map.advise(Advice::Random).unwrap();
    }
    // SAFETY: as above.
    let beyond = unsafe { MmapOptions::new().offset(20_001).map(&file) };
    assert_eq!(beyond.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn copies_keep_their_stores_to_themselves() {
    let file = file(100);
    // SAFETY: the file is this test's.
    let mut copy = unsafe { MmapOptions::new().map_copy(&file).unwrap() };
    copy[0] = 1;
    // SAFETY: as above.
    assert_eq!(unsafe { Mmap::map(&file).unwrap() }[0], 0);
    // SAFETY: as above.
    let shared = unsafe { MmapOptions::new().map_copy_read_only(&file).unwrap() };
    assert_eq!(shared.as_ref().len(), 100);
    let mut writable = shared.make_mut().unwrap();
    writable.as_mut()[0] = 2;
    assert_eq!(writable.make_read_only().unwrap()[0], 2);
}

#[test]
fn memory_without_a_file_is_zero() {
    let mut map = MmapMut::map_anon(5_000).unwrap();
    assert!(map.iter().all(|byte| *byte == 0));
    map.fill(3);
    map.lock().unwrap();
    map.unlock().unwrap();
    // SAFETY: nobody relies on the bytes.
    unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed).unwrap() };
    assert_eq!(map[0], 0);
    assert_eq!(MmapMut::map_anon(0).unwrap().len(), 0);
    assert!(format!("{map:?}").contains("len: 5000"));
}

#[test]
fn raw_maps_are_pointers() {
    let file = file(50);
    let raw = MmapRaw::map_raw(&file).unwrap();
    // SAFETY: 50 bytes are mapped.
    unsafe { raw.as_mut_ptr().add(49).write(9) };
    raw.flush().unwrap();
    // SAFETY: the file is this test's.
    let map = unsafe { Mmap::map(&file).unwrap() };
    assert_eq!((map[49], raw.len()), (9, 50));
    assert_eq!(MmapRaw::from(map).len(), 50);
}
