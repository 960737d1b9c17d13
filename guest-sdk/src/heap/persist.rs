//! Which types may live in a heap, and the fingerprint of their layout.
//!
//! Invariants: a [`Persist`] type has the same layout in every build for targets of one pointer width, and points to
//! nothing outside its heap. The [`persist!`](crate::persist) macro makes such structs without `unsafe`.

use core::alloc::Layout;

use super::alloc::Alloc;

/// A type that may live in a heap.
///
/// # Safety
/// - its layout does not depend on the compiler: a number, or `repr(C)` over such types;
/// - it has no pointer but those of this module's collections with the brand `'h`;
/// - two types of different layout have different fingerprints.
pub unsafe trait Persist<'h>: Sized {
    /// The fingerprint of the layout.
    const SCHEMA: u64;

    /// The value that a new heap begins with: 0, or empty.
    fn empty_in(alloc: Alloc<'h>) -> Self;
}

/// The type of a heap's root: a family with one type for each brand. Made by [`persist!`](crate::persist); a
/// collection, whatever its brand, is one too.
pub trait Root {
    /// The root within a heap.
    type In<'h>: Persist<'h>;
}

macro_rules! persist_numbers {
    ($($number:ty),*) => {$(
        // SAFETY: a number of fixed size; `usize` is of the heap's pointer width, which its header names.
        unsafe impl<'h> Persist<'h> for $number {
            const SCHEMA: u64 = schema(stringify!($number), &[]);

            fn empty_in(_alloc: Alloc<'h>) -> Self {
                Self::default()
            }
        }

        impl Root for $number {
            type In<'h> = $number;
        }
    )*};
}

persist_numbers!(
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char
);

// SAFETY: an array has the layout of its elements in a row.
unsafe impl<'h, T: Persist<'h>, const N: usize> Persist<'h> for [T; N] {
    const SCHEMA: u64 = schema("array", &[("", T::SCHEMA), ("", N as u64)]);

    fn empty_in(alloc: Alloc<'h>) -> Self {
        core::array::from_fn(|_| T::empty_in(alloc))
    }
}

/// The fingerprint of a type: FNV-1a over its name and its fields' names and fingerprints.
pub const fn schema(name: &str, fields: &[(&str, u64)]) -> u64 {
    let mut hash = hash_bytes(0xcbf2_9ce4_8422_2325, name.as_bytes());
    let mut index = 0;
    while index < fields.len() {
        let (field, schema) = fields[index];
        hash = hash_bytes(hash, &[0xff]);
        hash = hash_bytes(hash, field.as_bytes());
        hash = hash_bytes(hash, &[0xfe]);
        hash = hash_bytes(hash, &schema.to_le_bytes());
        index += 1;
    }
    hash
}

const fn hash_bytes(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}

/// Fails to compile where `T` has another layout than a `repr(C)` struct of such fields.
pub const fn check_layout<T>(fields: &[Layout]) {
    let mut plain = Layout::new::<()>();
    let mut index = 0;
    while index < fields.len() {
        let Ok((longer, _)) = plain.extend(fields[index]) else {
            panic!("the fields are too large for memory");
        };
        plain = longer;
        index += 1;
    }
    let same = size_of::<T>() == plain.pad_to_align().size() && align_of::<T>() == plain.align();
    assert!(same, "the fingerprint does not tell `packed` or `align`");
}

/// Declares structs that may live in a heap, as its root or in its collections.
///
/// ```
/// use vmsync_guest::{PMap, PString, PVec, persist};
///
/// persist! {
///     /// Where a word occurs.
///     #[derive(Clone, Copy, PartialEq)]
///     pub struct Place { pub file: u32, pub line: u32 }
///
///     /// The root: the brand `'h` stands for the heap.
///     pub struct Index<'h> {
///         pub files_done: u64,
///         pub places: PMap<'h, PString<'h>, PVec<'h, Place>>,
///     }
/// }
/// ```
///
/// Renaming or reordering a field changes the fingerprint: a heap with another one is refused. Fields can be
/// numbers, arrays, this crate's collections, and other structs of this macro; not references or `String`:
///
/// ```compile_fail
/// vmsync_guest::persist! {
///     struct Root { name: std::string::String }
/// }
/// ```
///
/// Nor may an attribute change the layout: the fingerprint is of the fields alone.
///
/// ```compile_fail
/// vmsync_guest::persist! {
///     #[repr(packed)]
///     struct Root { kind: u8, count: u64 }
/// }
/// ```
#[macro_export]
macro_rules! persist {
    () => {};
    (
        $(#[$meta:meta])* $vis:vis struct $name:ident<$brand:lifetime> {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty),* $(,)?
        }
        $($rest:tt)*
    ) => {
        $(#[$meta])*
        #[repr(C)]
        $vis struct $name<$brand> {
            $($(#[$field_meta])* $field_vis $field: $type,)*
        }

        const _: () = {
            const fn check<$brand>(_brand: ::core::marker::PhantomData<&$brand ()>) {
                $crate::heap::check_layout::<$name<$brand>>(&[$(::core::alloc::Layout::new::<$type>()),*]);
            }
            check(::core::marker::PhantomData)
        };

        // SAFETY: `repr(C)`, and every field is `Persist` with the same brand.
        unsafe impl<$brand> $crate::heap::Persist<$brand> for $name<$brand> {
            const SCHEMA: u64 = $crate::heap::schema(stringify!($name), &[
                $((stringify!($field), <$type as $crate::heap::Persist<$brand>>::SCHEMA),)*
            ]);

            fn empty_in(alloc: $crate::heap::Alloc<$brand>) -> Self {
                Self { $($field: <$type as $crate::heap::Persist<$brand>>::empty_in(alloc),)* }
            }
        }

        impl<'any> $crate::heap::Root for $name<'any> {
            type In<'h> = $name<'h>;
        }

        $crate::persist! { $($rest)* }
    };
    (
        $(#[$meta:meta])* $vis:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty),* $(,)?
        }
        $($rest:tt)*
    ) => {
        $(#[$meta])*
        #[repr(C)]
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $type,)*
        }

        const _: () = $crate::heap::check_layout::<$name>(&[$(::core::alloc::Layout::new::<$type>()),*]);

        // SAFETY: `repr(C)`, and every field is `Persist`.
        unsafe impl<'h> $crate::heap::Persist<'h> for $name {
            const SCHEMA: u64 = $crate::heap::schema(stringify!($name), &[
                $((stringify!($field), <$type as $crate::heap::Persist<'h>>::SCHEMA),)*
            ]);

            fn empty_in(_alloc: $crate::heap::Alloc<'h>) -> Self {
                Self { $($field: <$type as $crate::heap::Persist<'h>>::empty_in(_alloc),)* }
            }
        }

        impl $crate::heap::Root for $name {
            type In<'h> = $name;
        }

        $crate::persist! { $($rest)* }
    };
}
