//! [`Session`]: one connection with its statements prepared, and [`Server`]: how to make one.
//!
//! Invariants:
//! - a session whose answer did not come in time is not used again;
//! - before another session takes its place, the server ends it, so that nothing it was asked happens later.

use std::{collections::HashMap, env, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tokio_postgres::{
    Client, Config, Row, Statement,
    config::{Host, SslMode},
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use vmsync_core::{PagerError, PagerErrorKind};

use crate::{
    error::{Failure, failure},
    limits::{CONNECT_WAIT_MAX, SERVER_WAIT_MS, STATEMENT_WAIT_MAX, more_time},
    schema,
};

pub(crate) type Step<T> = Result<T, Failure>;

/// Where the store is, and as whom.
#[derive(Clone)]
pub(crate) struct Server {
    config: Config,
    /// For messages: no password in it.
    pub(crate) name: String,
    application: String,
}

impl Server {
    /// Reads `url`; the user, the password and the host that it leaves out come from PGUSER, PGPASSWORD and PGHOST.
    pub(crate) fn new(url: &str, nonce: u64) -> Result<Self, PagerError> {
        let refuse = |error: &dyn std::fmt::Display| {
            let message = format!("not a PostgreSQL URL: {error}: write postgres://USER@HOST/DATABASE");
            PagerError::new(PagerErrorKind::Invalid, message)
        };
        let mut config: Config = url.parse().map_err(|error| refuse(&error))?;
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        if config.get_user().is_none()
            && let Some(user) = variable("PGUSER").or_else(|| variable("USER"))
        {
            config.user(user);
        }
        if config.get_password().is_none()
            && let Some(password) = variable("PGPASSWORD")
        {
            config.password(password);
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host(variable("PGHOST").unwrap_or_else(|| "/var/run/postgresql".into()));
        }
        let application = format!("vmsync {nonce:016x}");
        config
            .application_name(application.as_str())
            .connect_timeout(CONNECT_WAIT_MAX)
            .tcp_user_timeout(STATEMENT_WAIT_MAX)
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3);
        let name = show(&config);
        Ok(Self {
            config,
            name,
            application,
        })
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> Step<Session> {
        let connecting = async {
            if self.config.get_ssl_mode() == SslMode::Disable {
                let (client, connection) = self.config.connect(tokio_postgres::NoTls).await?;
                tokio::spawn(connection);
                return Ok(client);
            }
            let (client, connection) = self.config.connect(tls()).await?;
            tokio::spawn(connection);
            Ok(client)
        };
        let connected = timeout(2 * CONNECT_WAIT_MAX, connecting).await;
        let client = connected
            .map_err(|_| Failure::Lost("no answer to a connection".into()))?
            .map_err(|error| failure(&self.name, &error))?;
        let mut session = Session {
            store: self.name.clone(),
            client,
            pid: 0,
            more: Duration::ZERO,
            statements: HashMap::new(),
        };
        session
            .execute(&format!(
                "SET statement_timeout = {SERVER_WAIT_MS}; SET lock_timeout = {SERVER_WAIT_MS};
                SET idle_in_transaction_session_timeout = {SERVER_WAIT_MS}; SET synchronous_commit TO on"
            ))
            .await?;
        session.pid = session.rows("SELECT pg_backend_pid()", &[]).await?[0].get(0);
        Ok(session)
    }

    /// Has the server end the session with the process `pid`.
    pub(crate) async fn end(&self, session: &mut Session, pid: i32) -> Step<()> {
        let rows = session
            .rows(schema::END_SESSION, &[&pid, &self.application])
            .await;
        rows.map(drop)
    }
}

/// One connection.
pub(crate) struct Session {
    store: String,
    client: Client,
    /// The server's process for it.
    pub(crate) pid: i32,
    /// What statements have on top of their time.
    more: Duration,
    /// What has been prepared.
    statements: HashMap<&'static str, Statement>,
}

impl Session {
    /// Runs statements without an answer.
    pub(crate) async fn execute(&self, statements: &str) -> Step<()> {
        self.bounded(self.client.batch_execute(statements)).await
    }

    /// Runs one statement.
    pub(crate) async fn rows(
        &mut self,
        text: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Step<Vec<Row>> {
        let statement = self.statement(text, &[]).await?;
        self.bounded(self.client.query(&statement, values)).await
    }

    /// The prepared statement; `types` are those of the first parameters, where casts do not say them.
    async fn statement(&mut self, text: &'static str, types: &[Type]) -> Step<Statement> {
        if let Some(statement) = self.statements.get(text) {
            return Ok(statement.clone());
        }
        let statement = self.bounded(self.client.prepare_typed(text, types)).await?;
        self.statements.insert(text, statement.clone());
        Ok(statement)
    }

    /// Runs the statement that commits, with so many bytes of pages; true unless the fence held.
    pub(crate) async fn commit(&mut self, values: &[&(dyn ToSql + Sync)], bytes: usize) -> Step<bool> {
        let more = more_time(bytes);
        if self.more != more {
            let wait = u128::from(SERVER_WAIT_MS) + more.as_millis();
            self.execute(&format!("SET statement_timeout = {wait}")).await?;
            self.more = more;
        }
        let statement = self.statement(schema::COMMIT, &[Type::INT8; 5]).await?;
        let row = self.bounded(self.client.query_one(&statement, values)).await?;
        Ok(row.get::<_, i64>(0) == 1)
    }

    async fn bounded<T>(&self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Step<T> {
        match timeout(STATEMENT_WAIT_MAX + self.more, answer).await {
            Ok(answer) => answer.map_err(|error| failure(&self.store, &error)),
            Err(_) => Err(Failure::Lost("the server does not answer".into())),
        }
    }
}

/// Encryption with the certificates that this machine trusts.
fn tls() -> MakeRustlsConnect {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    MakeRustlsConnect::new(config)
}

/// What to call the store in messages.
fn show(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(folder)) => folder.display().to_string(),
        None => config
            .get_hostaddrs()
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let database = config
        .get_dbname()
        .or_else(|| config.get_user())
        .unwrap_or_default();
    format!("PostgreSQL {host}:{port}/{database}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_password() {
        let server = Server::new("postgres://ann:s3cret@db.example:6543/game", 7).unwrap();
        assert_eq!(server.name, "PostgreSQL db.example:6543/game");
        let error = Server::new("postgres://ann:s3cret@db.example:port/game", 7)
            .err()
            .unwrap();
        assert!(!error.message.contains("s3cret"), "{error}");
        assert!(error.message.contains("postgres://USER@HOST/DATABASE"), "{error}");
    }
}
