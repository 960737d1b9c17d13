//! `--map NAME=STORE[:OBJECT]`: which object of which store a guest's name stands for.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use anyhow::Context;
use vmsync::{Grant, ObjectName, Pager};
use vmsync_pager_file::{FileStore, Options};

/// One `--map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapArgument {
    /// What the guest says.
    pub name: String,
    /// The folder of the store.
    pub store: PathBuf,
    /// The object in it.
    pub object: ObjectName,
}

impl FromStr for MapArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text
            .split_once('=')
            .ok_or_else(|| format!("\"{text}\" has no '=': write NAME=STORE or NAME=STORE:OBJECT"))?;
        // A colon that is followed by a path belongs to the path.
        let (store, object) = match rest.rsplit_once(':') {
            Some((store, object)) if !object.contains('/') && !store.is_empty() => (store, object),
            _ => (rest, name),
        };
        if store.is_empty() {
            return Err(format!(
                "\"{text}\" names no store: write NAME=STORE, where STORE is a folder"
            ));
        }
        ObjectName::new(name).map_err(|error| error.to_string())?;
        let object = ObjectName::new(object).map_err(|error| error.to_string())?;
        Ok(Self {
            name: name.into(),
            store: store.into(),
            object,
        })
    }
}

/// What `--map` stands for.
pub struct Granted {
    /// The guest's names and what they open, in the order of the arguments.
    pub grants: Vec<(String, Grant)>,
    /// The stores behind them, each once.
    pub stores: Vec<Arc<FileStore>>,
}

/// Opens each store once and grants what the arguments say.
pub fn grants(arguments: &[MapArgument], read_only: bool) -> anyhow::Result<Granted> {
    let mut stores: Vec<(PathBuf, Arc<FileStore>)> = Vec::new();
    let mut grants = Vec::new();
    for argument in arguments {
        let known = stores
            .iter()
            .find(|(path, _)| *path == argument.store)
            .map(|(_, store)| store.clone());
        let store = match known {
            Some(store) => store,
            None => {
                let options = Options {
                    read_only,
                    create: !read_only,
                    ..Options::default()
                };
                let store = FileStore::open(&argument.store, &options)
                    .with_context(|| format!("cannot open the store {}", argument.store.display()))?;
                stores.push((argument.store.clone(), store.clone()));
                store
            }
        };
        let pager: Arc<dyn Pager> = store;
        let grant = Grant::new(pager, argument.object.clone());
        grants.push((
            argument.name.clone(),
            if read_only { grant.read_only() } else { grant },
        ));
    }
    Ok(Granted {
        grants,
        stores: stores.into_iter().map(|(_, store)| store).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, String, String) {
        let map: MapArgument = text.parse().unwrap();
        (map.name, map.store.display().to_string(), map.object.to_string())
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
        assert!(error("counter").contains("has no '='"));
        assert!(error("a/b=store").contains("not a letter"));
        assert!(error("a=store:..").contains("begins with a dot"));
        assert!(error("a=").contains("names no store"));
    }
}
