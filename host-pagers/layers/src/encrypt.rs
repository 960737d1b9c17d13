//! [`Encrypt`]: pages are sealed (XChaCha20-Poly1305) before they reach the pager below.
//!
//! ```text
//!   key id (8 bytes)   nonce (24, random)   ciphertext   tag (16)          bound to: object name, page number, key id
//! ```
//!
//! Invariants:
//! - a nonce is drawn for each page each time that it is written; 24 random bytes do not repeat;
//! - a page that was changed, or moved to another place or object, is refused;
//! - a key that is not the one a page was written with is told from damage, by its id.
//!
//! Not protected: which pages exist and when they change; a whole old version of a page, or none, put back in its place. An
//! object is not bound to one key: a wrong one is told when it is opened, by its first page. Where that was never written it
//! opens, pages of the other key are refused when they are read, and those that are written now have the new one.
//!
//! What it costs: whole pages below for 52 bytes more: pages of 64 KiB over 4 KiB grow by 1/16, pages of 4 KiB double.

use std::sync::Arc;

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305, XNonce};
use vmsync_core::{
    PagerError, PagerErrorKind,
    pager::{ObjectName, Pager},
};

use crate::recode::{Codec, Pages, Recoding};

const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// A secret key. Its id tells keys apart and does not give it away.
pub struct Key {
    id: [u8; ID_BYTES],
    cipher: XChaCha20Poly1305,
}

impl Key {
    /// The key of 32 random bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        let cipher = XChaCha20Poly1305::new(&secret.into());
        // The tag of nothing under a nonce that pages are as good as never given.
        let tag = cipher.encrypt_inout_detached(&XNonce::default(), b"vmsync key id", (&mut [][..]).into());
        let tag = tag.expect("nothing is not too long");
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&tag[..ID_BYTES]);
        Self { id, cipher }
    }
}

/// The codec; [`Encrypt::over`] makes the pager.
pub struct Encrypt {
    keys: Vec<Key>,
}

impl Encrypt {
    /// A pager that keeps `pages`, sealed, in `below`.
    ///
    /// Pages are sealed with the first of `keys` and opened with whichever they were sealed with. So a key is rotated by
    /// putting a new one first; when every page has been written again, the old one can go.
    ///
    /// # Panics
    /// Without keys: a programmer's error.
    pub fn over(below: Arc<dyn Pager>, pages: Pages, keys: Vec<Key>) -> Recoding<Self> {
        assert!(!keys.is_empty(), "give at least one key");
        Recoding::new(below, pages, Self { keys })
    }
}

/// What a page is bound to.
fn place(name: &ObjectName, page: u64, id: &[u8]) -> Vec<u8> {
    [id, &page.to_le_bytes(), name.as_str().as_bytes()].concat()
}

impl Codec for Encrypt {
    const OVERHEAD_MAX: usize = ID_BYTES + NONCE_BYTES + TAG_BYTES;

    fn encode(
        &self,
        name: &ObjectName,
        page: u64,
        bytes: &[u8],
        slot: &mut Vec<u8>,
    ) -> Result<(), PagerError> {
        let key = &self.keys[0];
        let mut nonce = [0; NONCE_BYTES];
        let failed =
            |what: String| PagerError::new(PagerErrorKind::Io, format!("cannot seal a page: {what}: retry"));
        getrandom::fill(&mut nonce).map_err(|error| failed(error.to_string()))?;
        slot.extend_from_slice(&key.id);
        slot.extend_from_slice(&nonce);
        let start = slot.len();
        slot.extend_from_slice(bytes);
        let bound = place(name, page, &key.id);
        let tag = key
            .cipher
            .encrypt_inout_detached(&nonce.into(), &bound, (&mut slot[start..]).into());
        slot.extend_from_slice(&tag.map_err(|error| failed(error.to_string()))?);
        Ok(())
    }

    fn decode(
        &self,
        name: &ObjectName,
        page: u64,
        encoded: &[u8],
        bytes: &mut [u8],
    ) -> Result<(), PagerError> {
        let damaged = || {
            let message = format!("page {page} of \"{name}\" was changed or moved: restore the store");
            PagerError::new(PagerErrorKind::Damaged, message)
        };
        let (id, rest) = encoded.split_first_chunk::<ID_BYTES>().ok_or_else(damaged)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(damaged)?;
        let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(damaged)?;
        let Some(key) = self.keys.iter().find(|key| key.id == *id) else {
            let message = format!("page {page} of \"{name}\" was sealed with another key: give that one too");
            return Err(PagerError::new(PagerErrorKind::Denied, message));
        };
        if sealed.len() != bytes.len() {
            return Err(damaged());
        }
        bytes.copy_from_slice(sealed);
        let bound = place(name, page, id);
        let (nonce, tag) = ((*nonce).into(), (*tag).into());
        let opened = key
            .cipher
            .decrypt_inout_detached(&nonce, &bound, (&mut *bytes).into(), &tag);
        opened.map_err(|_| {
            bytes.fill(0);
            damaged()
        })
    }
}
