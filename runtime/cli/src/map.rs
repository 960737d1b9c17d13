//! `--map NAME=STORE[:OBJECT]`: which object of which store a guest's name stands for.

use std::str::FromStr;

use vmsync::{Grant, ObjectName};

use crate::{store_name::StoreName, stores::Stores};

/// One `--map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapArgument {
    /// What the guest says.
    pub name: String,
    /// The store.
    pub store: StoreName,
    /// The object in it.
    pub object: ObjectName,
}

impl FromStr for MapArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Not the whole of it in a message: a URL may have a password.
        let (name, rest) = text
            .split_once('=')
            .ok_or("there is no '=': write NAME=STORE or NAME=STORE:OBJECT")?;
        let (store, object) = StoreName::with_object(rest)?;
        if store.is_empty() {
            return Err(format!(
                "\"{name}=\" names no store: write NAME=STORE, where STORE is a folder or a URL"
            ));
        }
        ObjectName::new(name).map_err(|error| error.to_string())?;
        let object = ObjectName::new(object.unwrap_or(name)).map_err(|error| error.to_string())?;
        Ok(Self {
            name: name.into(),
            store,
            object,
        })
    }
}

impl MapArgument {
    /// The object that it names, with the right to open it.
    pub fn grant(&self, stores: &mut Stores) -> anyhow::Result<Grant> {
        let store = stores.open(&self.store)?;
        Ok(stores.grant(&store, self.object.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, String, String) {
        let map: MapArgument = text.parse().unwrap();
        (map.name, map.store.to_string(), map.object.to_string())
    }

    #[test]
    fn the_object_has_the_guests_name_unless_another_is_given() {
        let own = |a: &str, b: &str, c: &str| (a.to_string(), b.to_string(), c.to_string());
        assert_eq!(parse("counter=./store"), own("counter", "./store", "counter"));
        assert_eq!(parse("counter=./store:main"), own("counter", "./store", "main"));
        assert_eq!(
            parse("counter=/a:b/store"),
            own("counter", "/a:b/store", "counter")
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text: &str| text.parse::<MapArgument>().unwrap_err();
        assert!(error("counter").contains("there is no '='"));
        assert!(error("a/b=store").contains("not a letter"));
        assert!(error("a=store:..").contains("begins with a dot"));
        assert!(error("a=").contains("names no store"));
    }
}
