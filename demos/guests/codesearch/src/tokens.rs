//! Identifiers in source text: runs of ASCII letters, digits and `_` that do not begin with a digit.

/// Longer runs are data, not names.
const IDENTIFIER_BYTES_MAX: usize = 100;

/// Calls `found` with every identifier of `text` and its line, counted from 1.
pub fn identifiers<E>(text: &[u8], mut found: impl FnMut(&str, u32) -> Result<(), E>) -> Result<(), E> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        for word in line.split(|byte| !is_word(byte)) {
            let begins_right = word.first().is_some_and(|byte| !byte.is_ascii_digit());
            if begins_right && word.len() <= IDENTIFIER_BYTES_MAX {
                let word = std::str::from_utf8(word).expect("ASCII is UTF-8");
                found(word, number as u32 + 1)?;
            }
        }
    }
    Ok(())
}
