//! [`Hooked`]: a store in which a test decides over each put.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// What happens to a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Sound,
    /// It takes place after a while.
    Late(Duration),
    /// It is refused, as everything behind it is.
    Dies,
    /// It takes place and is reported as refused.
    DiesBehind,
    /// It takes place, and fails then: a folder that cannot be synced, an answer that is lost.
    FailsBehind,
    /// It is refused as one of a key that is taken, which it is not: S3's 409, while another request for it is under way.
    Conflicts,
}

/// What is asked ahead of a put.
pub type Before = Box<dyn Fn(&Path, &PutMode) -> Fate + Send + Sync>;

/// A store that asks `before` ahead of each put.
pub struct Hooked {
    pub store: Arc<dyn ObjectStore>,
    pub before: Before,
}

/// Asks ahead of each create.
pub fn before_creates(hook: impl Fn() -> Fate + Send + Sync + 'static) -> Before {
    Box::new(move |_, mode| match mode {
        PutMode::Create => hook(),
        _ => Fate::Sound,
    })
}

impl fmt::Debug for Hooked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(formatter)
    }
}

impl fmt::Display for Hooked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(formatter)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Hooked {
    async fn put_opts(&self, key: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fate = (self.before)(key, &options.mode);
        if let Fate::Late(pause) = fate {
            tokio::time::sleep(pause).await;
        }
        if fate == Fate::Conflicts {
            return Err(Error::AlreadyExists {
                path: key.to_string(),
                source: "ConditionalRequestConflict".into(),
            });
        }
        if fate != Fate::Dies {
            let answer = self.store.put_opts(key, payload, options).await;
            if fate == Fate::FailsBehind {
                return Err(Error::Generic {
                    store: "hooked",
                    source: "it is not synced".into(),
                });
            }
            if fate != Fate::DiesBehind {
                return answer;
            }
        }
        Err(Error::PermissionDenied {
            path: key.to_string(),
            source: "this host is dead".into(),
        })
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(key, options).await
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(key, ranges).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
