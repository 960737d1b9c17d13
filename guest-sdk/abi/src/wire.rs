//! Structs that the host writes into guest memory.

/// What `vm_region` says of a region: `vm_region_basic_info_64` with natural alignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RegionInfo {
    /// Current protection, bits of `VmProt`.
    pub protection: u32,
    /// Highest protection the region may be given.
    pub max_protection: u32,
    /// `Inherit` as a number.
    pub inheritance: i32,
    /// 1 where stores reach a memory object, 0 for anonymous or copy-on-write memory.
    pub shared: u32,
    /// Offset in the memory object, in bytes.
    pub offset: u64,
    /// `Behavior` as a number.
    pub behavior: i32,
    /// How often the region is wired.
    pub user_wired_count: u32,
}

/// What `memory_object_info` says of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ObjectInfo {
    /// Size in bytes, a multiple of the page size.
    pub size: u64,
    /// Number of the last committed call that changed the object; 0: never.
    pub version: u64,
    /// Where it was last mapped, in bytes from the start of linear memory; 0: never.
    pub address: u64,
    /// The VM page, in bytes.
    pub page_size: u32,
    /// [`ObjectInfoFlags`] as a number.
    pub flags: u32,
}

/// The bits of [`ObjectInfo::flags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct ObjectInfoFlags(pub u32);

impl ObjectInfoFlags {
    /// Clean pages are returned as well: the resident page is the only copy.
    pub const PRECIOUS: Self = Self(1);
    /// The task may store to it.
    pub const WRITABLE: Self = Self(2);
}

const _: () = assert!(size_of::<RegionInfo>() == RegionInfo::BYTES);
const _: () = assert!(size_of::<ObjectInfo>() == ObjectInfo::BYTES);

impl RegionInfo {
    /// Size on the wire, in bytes.
    pub const BYTES: usize = 32;
    /// The flavor number that `vm_region` takes (Mach's `VM_REGION_BASIC_INFO_64`).
    pub const FLAVOR: i32 = 9;
    /// Size on the wire in 4-byte words, as `vm_region` counts it.
    pub const COUNT: u32 = 8;

    /// The wire form.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&self.protection.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.max_protection.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.inheritance.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.shared.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.behavior.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.user_wired_count.to_le_bytes());
        bytes
    }
}

impl ObjectInfo {
    /// Size on the wire, in bytes.
    pub const BYTES: usize = 32;

    /// The wire form.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.address.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.page_size.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }
}
