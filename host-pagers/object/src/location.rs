//! [`Location`]: which object store, and where in it; from a URL, with credentials from the environment.

use std::{
    fs::File,
    io::{self, ErrorKind},
    sync::Arc,
    time::Duration,
};

use object_store::{
    ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    path::Path,
};
use url::Url;
use vmsync_core::{PagerError, PagerErrorKind};
use vmsync_pager_group::Result;

use crate::limits::{CONNECT_WAIT_MAX, REQUEST_WAIT_MAX, SEGMENTS_WAIT_MAX};

/// Where the keys of manifests are, under the prefix.
pub(crate) const MANIFESTS: &str = "manifest";

/// Those of segments.
pub(crate) const SEGMENTS: &str = "segment";

/// An object store and a prefix in it.
#[derive(Clone)]
pub struct Location {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// All keys begin with it.
    pub prefix: Path,
    /// For messages.
    pub name: String,
    /// Whether listings come in the order of keys; then finding the newest manifest takes one request.
    pub sorted: bool,
    /// Whether it is a folder: a write that failed there may have left a file whose name is not durable.
    pub folder: bool,
}

impl Location {
    /// What `url` names: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or `file:///FOLDER`.
    ///
    /// Credentials, the region and another endpoint come from the environment, as each provider's own tools read it:
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`,
    /// `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`, …
    ///
    /// # Errors
    /// [`PagerErrorKind::Invalid`]: the URL, or something in the environment that cannot be used.
    pub fn new(text: &str) -> Result<Self> {
        let refuse = |message: String| Err(PagerError::new(PagerErrorKind::Invalid, message));
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                return refuse(format!(
                    "not the URL of an object store: {error}: write s3://BUCKET/PREFIX"
                ));
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("credentials do not belong into the URL: put them into the environment".into());
        }
        let prefix = match Path::from_url_path(url.path()) {
            Ok(prefix) => prefix,
            Err(error) => return refuse(error.to_string()),
        };
        let store = match url.scheme() {
            "s3" | "s3a" => s3(text),
            "gs" => google(text),
            "az" => azure(text),
            "file" => return Self::folder(&url),
            other => {
                return refuse(format!(
                    "\"{other}:\" is no object store: write s3:, gs:, az: or file:"
                ));
            }
        };
        match store {
            Ok(store) => Ok(Self {
                store,
                prefix,
                name: text.to_owned(),
                sorted: true,
                folder: false,
            }),
            Err(error) => refuse(format!("{text}: {error}: check the environment")),
        }
    }

    /// A folder of this machine, which is created where it is missing. Written objects are synced.
    fn folder(url: &Url) -> Result<Self> {
        let refuse = |message: String| PagerError::new(PagerErrorKind::Invalid, message);
        let path = url
            .to_file_path()
            .map_err(|()| refuse(format!("{url} names no folder")))?;
        let made = make_folder(&path).and_then(|()| make_own_folders(&path));
        made.map_err(|error| refuse(format!("{}: {error}", path.display())))?;
        let store = LocalFileSystem::new_with_prefix(&path).map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            store: Arc::new(store.with_fsync(true)),
            prefix: Path::default(),
            name: url.to_string(),
            sorted: false,
            folder: true,
        })
    }
}

/// Makes the folder at `path` and those that it lies in, where they are missing, and their names durable. Also the name of a
/// folder that is there: who made it may have been killed before that was done.
fn make_folder(path: &std::path::Path) -> io::Result<()> {
    let missing = path.ancestors().take_while(|folder| !folder.is_dir()).count();
    std::fs::create_dir_all(path)?;
    for parent in path.ancestors().skip(1).take(missing.max(1)) {
        // Only there is a folder a file that can be synced.
        let synced = match cfg!(unix) {
            true => File::open(parent).and_then(|folder| folder.sync_all()),
            false => Ok(()),
        };
        match synced {
            // Somebody else may own the folder that it lies in.
            Err(error) if missing == 0 && error.kind() == ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// The folders that a store has in its own. The first object in one would make it, too; but where its name could not be synced then,
/// the next try would find it there.
fn make_own_folders(store: &std::path::Path) -> io::Result<()> {
    for folder in [MANIFESTS, SEGMENTS] {
        if let Err(error) = make_folder(&store.join(folder)) {
            match error.kind() {
                // Who only reads need not be able to.
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {}
                _ => return Err(error),
            }
        }
    }
    Ok(())
}

type Built = object_store::Result<Arc<dyn ObjectStore>>;

/// The client repeats a request twice at once; what lasts longer is repeated above, where its outcome is looked up.
fn retries() -> RetryConfig {
    RetryConfig {
        max_retries: 2,
        retry_timeout: REQUEST_WAIT_MAX,
        ..RetryConfig::default()
    }
}

fn client() -> [(ClientConfigKey, String); 3] {
    // The first one to choose a provider decides for the process; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = |wait: Duration| format!("{}ms", wait.as_millis());
    [
        // Shorter ones are bounded above, each by its own limit.
        (ClientConfigKey::Timeout, text(SEGMENTS_WAIT_MAX)),
        (ClientConfigKey::ConnectTimeout, text(CONNECT_WAIT_MAX)),
        (ClientConfigKey::UserAgent, "vmsync".into()),
    ]
}

fn s3(url: &str) -> Built {
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let mut builder = AmazonS3Builder::from_env().with_url(url).with_retry(retries());
    for (key, value) in client() {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    if let Some(endpoint) = endpoint {
        // Whoever names an endpoint without encryption wants it so.
        builder = builder
            .with_allow_http(endpoint.starts_with("http://"))
            .with_endpoint(endpoint);
    }
    Ok(Arc::new(builder.build()?))
}

fn google(url: &str) -> Built {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_url(url)
        .with_retry(retries());
    for (key, value) in client() {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    Ok(Arc::new(builder.build()?))
}

fn azure(url: &str) -> Built {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_url(url)
        .with_retry(retries());
    for (key, value) in client() {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    Ok(Arc::new(builder.build()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_a_store_are_there_before_its_first_object() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}/a/store", folder.path().display());
        // Twice, as they may be there.
        for _ in 0..2 {
            Location::new(&url).unwrap();
            for own in [MANIFESTS, SEGMENTS] {
                assert!(folder.path().join("a/store").join(own).is_dir());
            }
        }
    }

    #[test]
    fn the_folder_that_lies_in_none_is_there() {
        make_folder(std::path::Path::new("/")).unwrap();
    }
}
