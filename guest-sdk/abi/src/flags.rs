//! The flag words. Each is a transparent newtype over its wire form; unknown bits survive decoding, so that the
//! call that takes the word can refuse them.

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident { $($(#[$bit_doc:meta])* $bit:ident = $value:expr,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// No bit.
            pub const NONE: Self = Self(0);
            $($(#[$bit_doc])* pub const $bit: Self = Self($value);)+
            /// Every bit that has a meaning.
            pub const KNOWN: Self = Self(0 $(| $value)+);

            /// Whether every bit of `other` is set.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any bit of `other` is set.
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// Whether a bit without a meaning is set.
            pub const fn has_unknown(self) -> bool {
                self.0 & !Self::KNOWN.0 != 0
            }

            /// The bits without those of `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }

        impl core::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl core::ops::BitAnd for $name {
            type Output = Self;
            fn bitand(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }
    };
}

flags! {
    /// `vm_sync_t`: what `vm_msync` does to a range.
    VmSync {
        /// Return what is dirty or precious and do not wait for it to be durable.
        ASYNCHRONOUS = 0x01,
        /// Return what is dirty or precious and wait until it is durable.
        SYNCHRONOUS = 0x02,
        /// Drop the resident pages; alone, dirty ones too.
        INVALIDATE = 0x04,
        /// Drop the contents of anonymous memory.
        KILLPAGES = 0x08,
        /// Make the pages the first candidates for eviction.
        DEACTIVATE = 0x10,
        /// A hole in the range is an error (the rest is synced all the same).
        CONTIGUOUS = 0x20,
        /// Accepted, without effect.
        REUSABLEPAGES = 0x40,
    }
}

flags! {
    /// `vm_prot_t`.
    VmProt {
        /// Loads.
        READ = 0x1,
        /// Stores.
        WRITE = 0x2,
    }
}

impl VmProt {
    /// Loads and stores.
    pub const READ_WRITE: Self = Self(0x3);
}

flags! {
    /// Placement flags of `vm_allocate` and `vm_map`. FIXED is the absence of ANYWHERE.
    VmFlags {
        /// The host chooses the address.
        ANYWHERE = 0x1,
        /// The memory may be purged while volatile.
        PURGABLE = 0x2,
        /// FIXED may replace regions that are mapped there.
        OVERWRITE = 0x4000,
    }
}

flags! {
    /// How `memory_object_open` opens an object. READ and WRITE are the bits of [`VmProt`].
    OpenFlags {
        /// Loads.
        READ = 0x1,
        /// Stores.
        WRITE = 0x2,
        /// Create the object if the store does not have it.
        CREATE = 0x4,
    }
}

/// `vm_inherit_t`: what a child task would see. Kept and reported; guests have no fork.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Inherit {
    /// Shared with the child.
    Share = 0,
    /// Copied into the child.
    #[default]
    Copy = 1,
    /// Absent from the child.
    None = 2,
}

impl Inherit {
    /// The value that `code` stands for.
    pub fn from_code(code: i32) -> Option<Self> {
        [Self::Share, Self::Copy, Self::None]
            .into_iter()
            .find(|value| *value as i32 == code)
    }
}

/// `vm_behavior_t`: advice about a range, or one of the two destructive requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Behavior {
    /// No particular order.
    #[default]
    Default = 0,
    /// Random accesses: do not read ahead.
    Random = 1,
    /// Ascending accesses: read ahead.
    Sequential = 2,
    /// The range is needed soon: prefetch it.
    WillNeed = 4,
    /// The range is not needed soon: DEACTIVATE|CONTIGUOUS.
    DontNeed = 5,
    /// The contents of anonymous memory are not needed: KILLPAGES|CONTIGUOUS.
    Free = 6,
    /// The range reads as zero from now on.
    Zero = 12,
}

impl Behavior {
    /// The value that `code` stands for.
    pub fn from_code(code: i32) -> Option<Self> {
        [
            Self::Default,
            Self::Random,
            Self::Sequential,
            Self::WillNeed,
            Self::DontNeed,
            Self::Free,
            Self::Zero,
        ]
        .into_iter()
        .find(|value| *value as i32 == code)
    }
}
