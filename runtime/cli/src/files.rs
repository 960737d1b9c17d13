//! `--files STORE[::GUEST]`: a store whose objects a program of the POSIX library sees as files below GUEST.
//!
//! The library (guest-sdk/c/posix) asks for the object of every path that it opens, under the path with all bytes
//! that names of objects have not spelled `_XX`. So what is a file below GUEST, and which object of the store it is,
//! is said by the name alone, and a path elsewhere is not granted.

use std::{fmt::Write, path::PathBuf, str::FromStr};

use vmsync::{Grant, ObjectName};

use crate::{store_name::StoreName, stores::Stores};

/// One `--files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesArgument {
    /// The folder of the store.
    store: PathBuf,
    /// What the names of its files begin with.
    prefix: String,
}

impl FromStr for FilesArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (store, guest) = text
            .split_once("::")
            .map_or((text, None), |(store, guest)| (store, Some(guest)));
        let folder = StoreName::folder(store)?;
        if folder.as_os_str().is_empty() {
            return Err(format!(
                "\"{text}\" names no store: write STORE or STORE::GUEST, where STORE is a folder"
            ));
        }
        let own = folder.to_string_lossy().into_owned();
        let guest = guest.unwrap_or(&own);
        let mut prefix = String::new();
        for part in guest.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return Err(format!(
                    "\"{guest}\" is no folder of a guest, it has \"..\" in it: write {store}::GUEST"
                ));
            }
            spell(part, &mut prefix);
            prefix.push_str("_2F");
        }
        Ok(Self {
            store: folder,
            prefix,
        })
    }
}

impl FilesArgument {
    /// What is granted under a name; to be asked for every name.
    pub fn grants(&self, stores: &mut Stores) -> anyhow::Result<impl Fn(&str) -> Option<Grant> + use<>> {
        let store = stores.open(&StoreName::Folder(self.store.clone()))?;
        // A grant for any object: the name is put in when it is known.
        let any = stores.grant(&store, ObjectName::new("any")?);
        let prefix = self.prefix.clone();
        Ok(move |name: &str| {
            let object = ObjectName::new(name.strip_prefix(&prefix)?).ok()?;
            Some(any.clone().object(object))
        })
    }
}

/// Appends a component of a path as the POSIX library spells it (guest-sdk/c/posix/src/name.c).
fn spell(part: &str, name: &mut String) {
    let bytes = part.as_bytes();
    let is_code = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    for (index, &byte) in bytes.iter().enumerate() {
        let plain = match byte {
            b'.' => index > 0,
            // Two hexadecimal digits behind it would be read as a code.
            b'_' => !(is_code(bytes.get(index + 1)) && is_code(bytes.get(index + 2))),
            _ => byte.is_ascii_alphanumeric() || byte == b'-',
        };
        if plain {
            name.push(byte.into());
        } else {
            let _ = write!(name, "_{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_spelled_as_the_library_does() {
        let prefix = |text: &str| text.parse::<FilesArgument>().unwrap().prefix;
        assert_eq!(prefix("store"), "store_2F");
        assert_eq!(prefix("file:store"), "store_2F");
        assert_eq!(prefix("store::/data//my db/./"), "data_2Fmy_20db_2F");
        assert_eq!(prefix("store::a_b/_2F/.c.d"), "a_b_2F_5F2F_2F_2Ec.d_2F");
        assert_eq!(prefix("store::/"), "");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text: &str| text.parse::<FilesArgument>().unwrap_err();
        assert!(error("::data").contains("names no store"));
        assert!(error("s3://bucket/files::data").contains("is no folder"));
        assert!(error("../store").contains("write ../store::GUEST"));
    }
}
