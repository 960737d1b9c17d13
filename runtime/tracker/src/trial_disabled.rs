//! [`Trial`] without a virtual memory to map: an allocation, and no files.

use vmsync_core::tracker::Backing;

/// An allocation of zeros.
#[derive(Debug)]
pub(crate) struct Trial {
    words: Vec<core::cell::UnsafeCell<u128>>,
}

impl Trial {
    /// Allocates `length` bytes.
    pub fn new(backing: Backing, length: usize) -> Result<Self, String> {
        match backing {
            Backing::Anonymous => {
                let words = (0..length.div_ceil(size_of::<u128>()))
                    .map(|_| 0.into())
                    .collect();
                Ok(Self { words })
            }
            Backing::PrivateFile => Err("this system maps no files".into()),
        }
    }

    /// Its first byte.
    pub fn base(&self) -> *mut u8 {
        self.words.as_ptr().cast::<u8>().cast_mut()
    }
}
