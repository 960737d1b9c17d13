//! Stores for tests: in memory, in a folder, on a real server. Each test program uses a part of it.
#![allow(dead_code)]

pub mod hooked;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, memory::InMemory, path::Path,
};
use vmsync_core::{
    PageSize, PagerError, PagerErrorKind,
    pager::{InitRequest, Pager},
};
use vmsync_pager_conformance::Client;
use vmsync_pager_object::{Location, ObjectStorage, Options, open};

/// The URL of the server's bucket, which `cargo xtask test` starts; `None`, loudly, where there is none.
pub fn server() -> Option<String> {
    let url = std::env::var("VMSYNC_S3").ok();
    if url.is_none() {
        eprintln!(
            "SKIPPED: set VMSYNC_S3 to http://HOST:PORT/BUCKET of an S3 server, or use `cargo xtask test`"
        );
    }
    url
}

/// The server's address.
pub fn address(server: &str) -> SocketAddr {
    let url = url::Url::parse(server).unwrap();
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())
        .parse()
        .unwrap()
}

/// The bucket, reached through `address`, without repetitions by the client: faults arrive as they are.
pub fn bucket(server: &str, address: SocketAddr) -> Arc<dyn ObjectStore> {
    bucket_with(server, address, Duration::from_secs(4))
}

/// The same, where a request may take so long.
pub fn bucket_with(server: &str, address: SocketAddr, wait: Duration) -> Arc<dyn ObjectStore> {
    // The first one to choose a provider decides for the process; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = ClientOptions::new()
        .with_allow_http(true)
        .with_timeout(wait)
        .with_connect_timeout(wait / 2);
    let retry = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let store = AmazonS3Builder::from_env()
        .with_endpoint(format!("http://{address}"))
        .with_region("us-east-1")
        .with_bucket_name(server.rsplit('/').next().unwrap())
        .with_client_options(client)
        .with_retry(retry)
        .build();
    Arc::new(store.unwrap())
}

/// A prefix that nobody else uses.
pub fn prefix() -> Path {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let moment = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    Path::from(format!("test/{moment}-{}-{number}", std::process::id()))
}

pub fn location(store: &Arc<dyn ObjectStore>, prefix: &Path) -> Location {
    Location {
        store: store.clone(),
        prefix: prefix.clone(),
        name: format!("test:{prefix}"),
        sorted: true,
        folder: false,
    }
}

pub fn in_memory() -> Location {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    location(&store, &prefix())
}

pub fn store(location: &Location) -> Arc<ObjectStorage> {
    open(location.clone(), &Options::default()).unwrap()
}

pub fn request(pages: u64) -> InitRequest {
    InitRequest {
        page_size: PageSize::KIB_4,
        size_min: pages * 4096,
        create: true,
        write: true,
    }
}

pub fn client(store: &Arc<ObjectStorage>, name: &str, pages: u64) -> Client {
    Client::open_with(store.clone() as Arc<dyn Pager>, name, request(pages)).unwrap()
}

pub fn kind<T>(answer: Result<T, PagerError>) -> Option<PagerErrorKind> {
    answer.err().map(|error| error.kind)
}
