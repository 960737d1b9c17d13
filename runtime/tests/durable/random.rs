//! Random calls, traps and restarts, against a model.

use vmsync_pager_conformance::random::Random;

use crate::{each, guest, run};

/// What the instance must be.
struct Model {
    memory: Vec<u8>,
    count: i32,
    table: Vec<i32>,
}

#[test]
fn an_instance_is_what_its_successful_calls_made_of_it() {
    each(|folder, kind| {
        let mut random = Random::from_environment("an_instance_is_what_its_successful_calls_made_of_it");
        let mut instance = guest(folder, kind);
        let mut model = Model {
            memory: instance.memory().unwrap().to_vec(),
            count: 40,
            table: vec![0, 1, 2],
        };
        for _ in 0..120 {
            let size = model.memory.len() as u64;
            let at = random.below(size) as i32;
            match random.below(8) {
                0 => {
                    model.count += 1;
                    assert_eq!(run::<_, i32>(&mut instance, "count", ()), model.count);
                }
                1 => {
                    let length = random.below(9000).min(size - at as u64) as i32;
                    let byte = random.number() as u8;
                    run::<_, ()>(&mut instance, "fill", (at, i32::from(byte), length));
                    model.memory[at as usize..(at + length) as usize].fill(byte);
                }
                2 if size < 40 << 16 => {
                    let pages = random.below(4) as i32;
                    run::<_, i32>(&mut instance, "grow", pages);
                    model
                        .memory
                        .resize(model.memory.len() + ((pages as usize) << 16), 0);
                }
                3 => {
                    let (to, from) = (random.below(3), random.below(model.table.len() as u64));
                    run::<_, ()>(&mut instance, "put", (to as i32, from as i32));
                    model.table[to as usize] = model.table[from as usize];
                }
                4 if model.table.len() < 90 => {
                    run::<_, i32>(&mut instance, "grow_table", 2);
                    model.table.extend([3, 3]);
                }
                5 => assert!(instance.call::<_, ()>("trap", at).is_err()),
                6 => {
                    drop(instance);
                    instance = guest(folder, kind);
                }
                _ => {
                    let byte = random.number() as u8;
                    run::<_, ()>(&mut instance, "store", (at, i32::from(byte)));
                    model.memory[at as usize] = byte;
                }
            }
            let memory = instance.memory().unwrap();
            assert_eq!(memory.len(), model.memory.len());
            if memory != model.memory {
                let at = (0..memory.len()).find(|at| memory[*at] != model.memory[*at]);
                panic!("{kind}: byte {at:?} is another one");
            }
        }
        for (index, number) in model.table.iter().enumerate() {
            let called = instance.call::<_, i32>("call", index as i32);
            assert_eq!(called.unwrap_or(0), *number, "element {index}");
        }
    });
}
