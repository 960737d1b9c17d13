//! The sizes of blocks: 16, 32, 48, 64 bytes, then four to every doubling (80, 96, 112, 128, 160, …).
//!
//! A request is rounded up to the next size, so that at most a fifth of a block above 64 bytes is lost. Blocks carry
//! no header: who frees a block knows its size.

/// Alignment of every block, in bytes.
pub const BLOCK_ALIGN: usize = 16;

/// Sizes per doubling.
const STEPS: usize = 4;

/// The largest block is 2^40 bytes: more than any WebAssembly memory has.
const LARGEST_LOG2: usize = 40;

/// How many sizes there are.
pub const CLASSES: usize = STEPS + (LARGEST_LOG2 - 6) * STEPS;

/// The smallest class that holds `bytes`, if there is one.
pub const fn of(bytes: usize) -> Option<usize> {
    if bytes <= 64 {
        return Some(if bytes == 0 { 0 } else { (bytes - 1) / BLOCK_ALIGN });
    }
    // `bytes - 1` lies in 2^log2 .. 2^(log2 + 1), which is cut into four steps.
    let log2 = (usize::BITS - 1 - (bytes - 1).leading_zeros()) as usize;
    let step = ((bytes - 1) >> (log2 - 2)) & (STEPS - 1);
    let class = STEPS + (log2 - 6) * STEPS + step;
    if class < CLASSES { Some(class) } else { None }
}

/// Bytes of a block of `class`.
pub const fn bytes(class: usize) -> u64 {
    if class < STEPS {
        return ((class + 1) * BLOCK_ALIGN) as u64;
    }
    let log2 = 6 + (class - STEPS) / STEPS;
    let step = (class - STEPS) % STEPS;
    (1 << log2) + ((step as u64 + 1) << (log2 - 2))
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_ALIGN, CLASSES, bytes, of};

    #[test]
    fn a_class_holds_what_it_is_chosen_for_and_the_one_below_does_not() {
        for wanted in (1..70_000).chain((1..24).map(|shift| (1 << 16 << shift) + shift)) {
            let class = of(wanted).unwrap();
            assert!(bytes(class) >= wanted as u64, "{wanted}");
            assert!(class == 0 || bytes(class - 1) < wanted as u64, "{wanted}");
        }
    }

    #[test]
    fn sizes_ascend_and_are_aligned() {
        for class in 0..CLASSES {
            assert_eq!(of(bytes(class) as usize), Some(class));
            assert_eq!(bytes(class) % BLOCK_ALIGN as u64, 0);
        }
        assert_eq!(bytes(CLASSES - 1), 1 << 40);
        assert_eq!(of((1 << 40) + 1), None);
    }
}
