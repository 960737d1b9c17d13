//! [`Compress`]: pages take as many pages below as their compressed bytes need; the others read as zero there, which
//! stores do not keep.
//!
//! So it saves where a page above is several below: 64 KiB over 4 KiB. Random bytes take one page below more.

use std::sync::Arc;

use vmsync_core::{
    PagerError, PagerErrorKind,
    pager::{ObjectName, Pager},
};

use crate::recode::{Codec, Pages, Recoding};

/// As they are.
const RAW: u8 = 0;
/// An LZ4 block.
const LZ4: u8 = 1;

/// The codec; [`Compress::over`] makes the pager.
pub struct Compress(());

impl Compress {
    /// A pager that keeps `pages`, compressed, in `below`.
    pub fn over(below: Arc<dyn Pager>, pages: Pages) -> Recoding<Self> {
        Recoding::new(below, pages, Self(()))
    }
}

impl Codec for Compress {
    const OVERHEAD_MAX: usize = 1;

    fn encode(&self, _: &ObjectName, _: u64, bytes: &[u8], slot: &mut Vec<u8>) -> Result<(), PagerError> {
        let mut packed = vec![0; lz4_flex::block::get_maximum_output_size(bytes.len())];
        // It has room for the worst case; where that were not so, the page would be kept as it is.
        let length = lz4_flex::block::compress_into(bytes, &mut packed).unwrap_or(usize::MAX);
        let packed = packed.get(..length).unwrap_or(bytes);
        let (form, chosen) = if packed.len() < bytes.len() {
            (LZ4, packed)
        } else {
            (RAW, bytes)
        };
        slot.push(form);
        slot.extend_from_slice(chosen);
        Ok(())
    }

    fn decode(
        &self,
        name: &ObjectName,
        page: u64,
        encoded: &[u8],
        bytes: &mut [u8],
    ) -> Result<(), PagerError> {
        let length = match encoded.split_first() {
            Some((&RAW, raw)) if raw.len() == bytes.len() => {
                bytes.copy_from_slice(raw);
                Some(raw.len())
            }
            Some((&LZ4, packed)) => lz4_flex::block::decompress_into(packed, bytes).ok(),
            _ => None,
        };
        if length == Some(bytes.len()) {
            return Ok(());
        }
        let message = format!("page {page} of \"{name}\" does not unpack: restore the store");
        Err(PagerError::new(PagerErrorKind::Damaged, message))
    }
}
