//! Pages and ranges: the only shifts and masks of the project.
//!
//! A [`ByteRange`] counts bytes and a [`PageRange`] counts pages; only [`PageSize`] turns one into the other. Both
//! are half-open and `start <= end` always holds. Whether a range lies in linear memory or in an object is said by
//! the name of the value that holds it.

/// The size of a VM page: a power of two from 4 KiB to 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageSize {
    shift: u32,
}

impl PageSize {
    /// 4 KiB, the default.
    pub const KIB_4: Self = Self { shift: 12 };
    /// 16 KiB.
    pub const KIB_16: Self = Self { shift: 14 };
    /// 64 KiB, Wasm's own page.
    pub const KIB_64: Self = Self { shift: 16 };

    /// The page size of `bytes` bytes, or `None` where it is not a power of two from 4 KiB to 64 KiB.
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1 << 12 && bytes <= 1 << 16 {
            Some(Self {
                shift: bytes.trailing_zeros(),
            })
        } else {
            None
        }
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.shift
    }

    /// The base-2 logarithm.
    pub const fn shift(self) -> u32 {
        self.shift
    }

    /// Whether `offset` is the first byte of a page.
    pub const fn is_aligned(self, offset: u64) -> bool {
        offset & (self.bytes() - 1) == 0
    }

    /// `offset` rounded down to its page.
    pub const fn round_down(self, offset: u64) -> u64 {
        offset & !(self.bytes() - 1)
    }

    /// `offset` rounded up to a page; `None` where that leaves 64 bits.
    pub const fn round_up(self, offset: u64) -> Option<u64> {
        match offset.checked_add(self.bytes() - 1) {
            Some(sum) => Some(self.round_down(sum)),
            None => None,
        }
    }

    /// The page that holds byte `offset`.
    pub const fn page_of(self, offset: u64) -> u64 {
        offset >> self.shift
    }

    /// The smallest page range that holds `range`: sync ranges widen. `None` where its end leaves 64 bits.
    pub const fn widen(self, range: ByteRange) -> Option<PageRange> {
        match self.round_up(range.end) {
            Some(end) => Some(PageRange {
                start: self.page_of(range.start),
                end: self.page_of(end),
            }),
            None => None,
        }
    }

    /// The largest page range inside `range`: destructive ranges shrink.
    pub const fn shrink(self, range: ByteRange) -> PageRange {
        let end = self.page_of(range.end);
        match self.round_up(range.start) {
            Some(start) if self.page_of(start) < end => PageRange {
                start: self.page_of(start),
                end,
            },
            _ => PageRange { start: end, end },
        }
    }

    /// The bytes of `pages`. The pages must lie below 2^64 bytes.
    pub const fn byte_range(self, pages: PageRange) -> ByteRange {
        ByteRange {
            start: pages.start << self.shift,
            end: pages.end << self.shift,
        }
    }
}

macro_rules! range {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name {
            /// First index in the range.
            pub start: u64,
            /// First index behind the range.
            pub end: u64,
        }

        impl $name {
            /// The range from `start` to `end`.
            ///
            /// # Panics
            /// When `start > end`: a programmer's error, never input.
            pub const fn new(start: u64, end: u64) -> Self {
                assert!(start <= end);
                Self { start, end }
            }

            /// `length` indices from `start`, or `None` where the end leaves 64 bits.
            pub const fn at(start: u64, length: u64) -> Option<Self> {
                match start.checked_add(length) {
                    Some(end) => Some(Self { start, end }),
                    None => None,
                }
            }

            /// How many indices it holds.
            pub const fn len(self) -> u64 {
                self.end - self.start
            }

            /// Whether it holds none.
            pub const fn is_empty(self) -> bool {
                self.start == self.end
            }

            /// Whether `index` is inside.
            pub const fn contains(self, index: u64) -> bool {
                self.start <= index && index < self.end
            }

            /// Whether all of `other` is inside.
            pub const fn covers(self, other: Self) -> bool {
                self.start <= other.start && other.end <= self.end
            }

            /// Whether they share an index.
            pub const fn overlaps(self, other: Self) -> bool {
                self.start < other.end && other.start < self.end && !self.is_empty() && !other.is_empty()
            }

            /// What they share; an empty range where they share nothing.
            #[must_use]
            pub const fn intersect(self, other: Self) -> Self {
                let start = if self.start > other.start { self.start } else { other.start };
                let end = if self.end < other.end { self.end } else { other.end };
                if start < end { Self { start, end } } else { Self { start, end: start } }
            }

            /// The same range, moved so that what was at `from` is at `to`.
            ///
            /// # Panics
            /// When the range begins below `from` or the moved range leaves 64 bits: a programmer's error.
            #[must_use]
            pub const fn rebase(self, from: u64, to: u64) -> Self {
                assert!(self.start >= from);
                Self { start: self.start - from + to, end: self.end - from + to }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(formatter, "{:#x}..{:#x}", self.start, self.end)
            }
        }
    };
}

range! {
    /// A half-open range of bytes.
    ByteRange
}
range! {
    /// A half-open range of pages.
    PageRange
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sync_ranges_widen_and_destructive_ranges_shrink() {
        let page = PageSize::KIB_4;
        assert_eq!(page.widen(ByteRange::new(4095, 4097)), Some(PageRange::new(0, 2)));
        assert_eq!(page.widen(ByteRange::new(u64::MAX - 1, u64::MAX)), None);
        assert!(page.shrink(ByteRange::new(1, 4096)).is_empty());
        assert_eq!(page.shrink(ByteRange::new(1, 8192)), PageRange::new(1, 2));
        assert!(page.shrink(ByteRange::new(u64::MAX - 1, u64::MAX)).is_empty());
    }

    #[test]
    fn page_sizes_are_powers_of_two_from_4_to_64_kib() {
        assert_eq!(PageSize::new(4096), Some(PageSize::KIB_4));
        assert_eq!(PageSize::new(65536), Some(PageSize::KIB_64));
        assert_eq!(PageSize::new(2048), None);
        assert_eq!(PageSize::new(5000), None);
        assert_eq!(PageSize::new(1 << 17), None);
    }
}
