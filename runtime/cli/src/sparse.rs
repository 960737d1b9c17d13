//! [`Sparse`]: writes a file and leaves holes where it would be zero: stores have large parts that were never written.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
};

/// File systems make holes of whole blocks, mostly of this size.
const BLOCK_BYTES: usize = 4096;
const ZEROES: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Writes an empty file from its beginning on.
pub struct Sparse<'a> {
    file: &'a File,
    position: u64,
}

impl<'a> Sparse<'a> {
    pub fn new(file: &'a File) -> Self {
        Self { file, position: 0 }
    }

    /// Gives the file its length, which a hole at its end does not.
    pub fn finish(self) -> io::Result<()> {
        self.file.set_len(self.position)
    }
}

impl Write for Sparse<'_> {
    /// Takes as many blocks as are alike: all zero, or none.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let behind = (self.position % BLOCK_BYTES as u64) as usize;
        let (first, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - behind));
        let is_zero = |block: &[u8]| *block == ZEROES[..block.len()];
        let is_hole = is_zero(first);
        let alike = rest
            .chunks(BLOCK_BYTES)
            .take_while(|block| is_zero(block) == is_hole);
        let count = first.len() + alike.map(<[u8]>::len).sum::<usize>();
        if !is_hole {
            self.file.write_all_at(&bytes[..count], self.position)?;
        }
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn the_file_is_what_was_written_however_it_came() {
        let mut bytes = vec![0; 40 * BLOCK_BYTES + 100];
        for at in [0, 5 * BLOCK_BYTES - 1, 9 * BLOCK_BYTES, 9 * BLOCK_BYTES + 700] {
            bytes[at] = 7;
        }
        for pieces in [1, 100, BLOCK_BYTES, 3 * BLOCK_BYTES + 1, bytes.len()] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let mut sparse = Sparse::new(file.as_file());
            bytes
                .chunks(pieces)
                .for_each(|piece| sparse.write_all(piece).unwrap());
            sparse.finish().unwrap();
            assert!(fs::read(file.path()).unwrap() == bytes, "{pieces}");
            let occupied = file.as_file().metadata().unwrap().blocks() * 512;
            assert!(occupied < 16 * BLOCK_BYTES as u64, "{pieces}: {occupied}");
        }
    }
}
