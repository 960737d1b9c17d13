//! [`StoreName`]: a store as a person writes it: a folder, or the URL of an engine.
//!
//! | text | store |
//! |---|---|
//! | `FOLDER`, `file:FOLDER` | file store |
//! | `s3://BUCKET/PREFIX`, `gs://…`, `az://…` | object store; credentials from the environment, as its own tools read them |
//! | `postgres://USER@HOST/DATABASE` | PostgreSQL; PGPASSWORD, PGUSER and PGHOST from the environment |
//!
//! Invariant: what is printed of a store has no password.

use std::{fmt, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::builder::{PathBufValueParser, TypedValueParser};
use vmsync::Pager;
use vmsync_pager_file::FileStore;

const OBJECT_SCHEMES: &[&str] = &["s3", "s3a", "gs", "az"];
const SQL_SCHEMES: &[&str] = &["postgres", "postgresql"];

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreName {
    /// A folder of this machine.
    Folder(PathBuf),
    /// The URL of a place in an object store.
    Objects(String),
    /// The URL of a database.
    Sql(String),
}

/// An open store.
pub struct OpenStore {
    pub pager: Arc<dyn Pager>,
    /// The same, where it is a file store.
    pub file: Option<Arc<FileStore>>,
}

impl StoreName {
    /// Reads `text` as `STORE` or `STORE:OBJECT`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn with_object(text: &str) -> Result<(Self, Option<&str>), String> {
        // A colon that is followed by a path belongs to the path.
        let split = |text| match str::rsplit_once(text, ':') {
            Some((store, object)) if !object.contains('/') && !store.is_empty() => (store, Some(object)),
            _ => (text, None),
        };
        let folder = |text| {
            let (store, object) = split(text);
            (Self::Folder(store.into()), object)
        };
        if let Some(path) = text.strip_prefix("file:") {
            // Of `file:///folder` the path is `/folder`.
            return Ok(folder(path.strip_prefix("//").unwrap_or(path)));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(folder(text));
        };
        // A colon in the first part separates a port or a password.
        let object = rest.split_once('/').and_then(|(_, path)| split(path).1);
        let url = object
            .map_or(text, |object| &text[..text.len() - object.len() - 1])
            .to_owned();
        let store = match scheme {
            scheme if OBJECT_SCHEMES.contains(&scheme) => Self::Objects(url),
            scheme if SQL_SCHEMES.contains(&scheme) => Self::Sql(url),
            _ => {
                return Err(format!(
                    "\"{scheme}:\" is no store: write a folder, file:FOLDER, s3://BUCKET/PREFIX (or gs://, az://) or \
                     postgres://USER@HOST/DATABASE"
                ));
            }
        };
        Ok((store, object))
    }

    /// Reads `text` as `FOLDER` or `FOLDER:OBJECT`.
    ///
    /// # Errors
    /// What is wrong with it; a URL is no folder.
    pub fn folder_with_object(text: &str) -> Result<(PathBuf, Option<&str>), String> {
        match Self::with_object(text)? {
            (Self::Folder(folder), object) => Ok((folder, object)),
            (url, _) => Err(format!(
                "{url} is no folder: this is for a store on this machine only"
            )),
        }
    }

    /// Reads `text` as `FOLDER`, in which any other colon is part of the name.
    ///
    /// # Errors
    /// What is wrong with it; a URL is no folder.
    pub fn folder(text: &str) -> Result<PathBuf, String> {
        match text.strip_prefix("file:") {
            Some(path) => Ok(path.strip_prefix("//").unwrap_or(path).into()),
            None if text.contains("://") => Self::folder_with_object(text).map(|(folder, _)| folder),
            None => Ok(text.into()),
        }
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Folder(folder) if folder.as_os_str().is_empty())
    }

    /// Opens it; made where it is missing, unless it is to be read only.
    ///
    /// # Errors
    /// The store's.
    pub fn open(&self, read_only: bool) -> anyhow::Result<OpenStore> {
        let opened = match self {
            Self::Folder(folder) => open_folder(folder, read_only),
            Self::Objects(url) => open_objects(url, read_only),
            Self::Sql(url) => open_sql(url, read_only),
        };
        opened.with_context(|| format!("cannot open the store {self}"))
    }
}

/// Reads an argument that is the folder of a store. What is no text is no URL either.
pub fn folder() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.to_str() {
        Some(text) => StoreName::folder(text),
        None => Ok(path),
    })
}

fn open_folder(folder: &std::path::Path, read_only: bool) -> anyhow::Result<OpenStore> {
    let options = vmsync_pager_file::Options {
        read_only,
        create: !read_only,
        ..Default::default()
    };
    let store = FileStore::open(folder, &options)?;
    Ok(OpenStore {
        pager: store.clone(),
        file: Some(store),
    })
}

fn open_objects(url: &str, read_only: bool) -> anyhow::Result<OpenStore> {
    let options = vmsync_pager_object::Options {
        read_only,
        create: !read_only,
        ..Default::default()
    };
    let location = vmsync_pager_object::Location::new(url)?;
    Ok(OpenStore {
        pager: vmsync_pager_object::open(location, &options)?,
        file: None,
    })
}

fn open_sql(url: &str, read_only: bool) -> anyhow::Result<OpenStore> {
    let options = vmsync_pager_sql::Options {
        read_only,
        create: !read_only,
        ..Default::default()
    };
    Ok(OpenStore {
        pager: vmsync_pager_sql::open(url, &options)?,
        file: None,
    })
}

impl fmt::Display for StoreName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = match self {
            Self::Folder(folder) => return folder.display().fmt(formatter),
            Self::Objects(url) | Self::Sql(url) => url,
        };
        // Neither who nor with which password, nor parameters, which may have one too.
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        write!(formatter, "{scheme}://{host}/{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, Option<&str>) {
        let (store, object) = StoreName::with_object(text).unwrap();
        (store.to_string(), object)
    }

    #[test]
    fn urls_and_folders_may_name_an_object() {
        let own = |store: &str| (store.to_owned(), None);
        assert_eq!(parse("state"), own("state"));
        assert_eq!(parse("file:state"), own("state"));
        assert_eq!(parse("file:state:main"), ("state".into(), Some("main")));
        assert_eq!(parse("file:///a/state"), own("/a/state"));
        assert_eq!(parse("s3://bucket/a/b"), own("s3://bucket/a/b"));
        assert_eq!(
            parse("s3://bucket/a:main"),
            ("s3://bucket/a".into(), Some("main"))
        );
        assert_eq!(parse("postgres://db:5432/game"), own("postgres://db:5432/game"));
        assert_eq!(parse("postgres://db:5432"), own("postgres://db:5432/"));
        let error = StoreName::with_object("ftp://x/y").unwrap_err();
        assert!(error.contains("s3://BUCKET/PREFIX"), "{error}");
    }

    #[test]
    fn a_folder_is_a_name_or_a_file_url() {
        let folder = |text: &str| StoreName::folder(text).map(|folder| folder.display().to_string());
        assert_eq!(folder("state:main"), Ok("state:main".into()));
        assert_eq!(folder("file:state"), Ok("state".into()));
        assert_eq!(folder("file:///a/state"), Ok("/a/state".into()));
        let error = folder("postgres://ann:s3cret@db/game").unwrap_err();
        assert!(error.contains("postgres://db/game is no folder"), "{error}");
    }

    #[test]
    fn a_password_is_not_printed() {
        let text = "postgres://ann:s3cret@db/game?password=hidden";
        let (store, _) = StoreName::with_object(text).unwrap();
        assert_eq!(store.to_string(), "postgres://db/game");
        assert_eq!(store, StoreName::Sql(text.into()));
    }
}
