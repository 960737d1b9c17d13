//! A database for each test. Each test program uses a part of it.
#![allow(dead_code)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio_postgres::{Config, NoTls, config::Host};
use vmsync_core::{
    PageSize,
    pager::{InitRequest, Pager},
};
use vmsync_pager_conformance::Client;
use vmsync_pager_sql::{Options, SqlStore, open};

/// The URL of the server, which `cargo xtask test` starts; `None`, loudly, where there is none.
pub fn server() -> Option<String> {
    let url = std::env::var("VMSYNC_PG").ok();
    if url.is_none() {
        eprintln!("SKIPPED: set VMSYNC_PG to the URL of a PostgreSQL server, or use `cargo xtask test`");
    }
    url
}

/// Runs `work` on a connection of its own.
pub fn with_client<T>(url: &str, work: impl AsyncFnOnce(&tokio_postgres::Client) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        work(&client).await
    })
}

/// A URL for a schema of its own on `server`.
pub fn fresh(server: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let schema = format!("t{}_{number}", std::process::id());
    with_client(server, async |client| {
        let create = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
        client.batch_execute(&create).await.unwrap();
    });
    let separator = if server.contains('?') { '&' } else { '?' };
    format!("{server}{separator}options=-csearch_path%3D{schema}")
}

/// The server's address.
pub fn address(url: &str) -> SocketAddr {
    let config: Config = url.parse().unwrap();
    let Some(Host::Tcp(host)) = config.get_hosts().first() else {
        panic!("a server with a port")
    };
    format!("{host}:{}", config.get_ports()[0]).parse().unwrap()
}

/// The same store, reached through `address`.
pub fn through(url: &str, address: SocketAddr) -> String {
    url.replace(&self::address(url).to_string(), &address.to_string())
}

pub fn store(url: &str) -> Arc<SqlStore> {
    open(url, &Options::default()).unwrap()
}

pub fn client(store: &Arc<SqlStore>, name: &str, pages: u64) -> Client {
    let request = InitRequest {
        page_size: PageSize::KIB_4,
        size_min: pages * 4096,
        create: true,
        write: true,
    };
    Client::open_with(store.clone() as Arc<dyn Pager>, name, request).unwrap()
}

/// How many commits took place, as the store counts them.
pub fn commits(url: &str) -> i64 {
    let select = "SELECT commits FROM vmsync_store";
    with_client(url, async |client| {
        client.query_one(select, &[]).await.unwrap().get(0)
    })
}
