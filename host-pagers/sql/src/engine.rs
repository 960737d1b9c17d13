//! [`Postgres`]: the engine of the pager.
//!
//! ```text
//!   Postgres --- writer: Session     one statement at a time
//!        |------ reader: Session     reads
//!        |------ a Session           for each removal of pages, in the background
//!        '------ commits             those that are known to have taken place
//! ```
//!
//! Invariants:
//! - the outcome of a commit whose answer was lost is read back, by the number of the commit and the nonce of the
//!   attempt, after the server ended the session that it was sent on; only then is it repeated;
//! - a commit that was reported as failed and took place all the same stops the store, and is shown by no read: each
//!   tells, from the snapshot that its pages are of, how many commits it shows, and waits for one that is not known yet;
//! - a writer reads only while it has the epoch;
//! - a reader reads an object in the version that it opened.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, time::timeout_at};
use tokio_postgres::{Row, types::ToSql};
use vmsync_core::{PageSize, PagerError, PagerErrorKind, pager::ObjectName};
use vmsync_pager_group::{
    Batch, Bridge, Catalog, Contents, Engine, Entry, Place, Result, fill, limits::ENGINE_WAIT_MAX, nonce,
};

use crate::{
    Options,
    error::{Failure, column, damaged},
    limits::{BYTES_REMOVED_AT_ONCE, PAUSE_FIRST, PAUSE_MAX, more_time},
    parameters::{Parameters, sum},
    schema::{self, FORMAT_VERSION},
    session::{Server, Session, Step},
};

/// A store in PostgreSQL.
pub struct Postgres {
    bridge: Bridge,
    inner: Arc<Inner>,
}

struct Inner {
    server: Server,
    page_size: PageSize,
    /// The writer's; a reader has none.
    epoch: Option<i64>,
    /// Commits that are known to have taken place. Changed with `writer` locked.
    commits: AtomicI64,
    writer: Mutex<Link>,
    reader: Mutex<Link>,
}

/// A session that may be lost.
#[derive(Default)]
struct Link {
    session: Option<Session>,
    /// The server's process for a session that was lost and may still be at work.
    lost: Option<i32>,
}

/// The row of the store.
struct Head {
    format: i32,
    page_size: i64,
    epoch: i64,
    commits: i64,
    attempt: i64,
    calls: i64,
    object_next: i64,
}

impl Head {
    /// The one of `rows`.
    fn of(store: &str, rows: &[Row]) -> Result<Self> {
        let row = rows
            .first()
            .ok_or_else(|| damaged(store, "vmsync_store has no row"))?;
        let number = |index| column(store, row, index);
        Ok(Self {
            format: column(store, row, 0)?,
            page_size: number(1)?,
            epoch: number(2)?,
            commits: number(3)?,
            attempt: number(4)?,
            calls: number(5)?,
            object_next: number(6)?,
        })
    }
}

impl Link {
    /// The session, made where there is none; the one before it is ended first.
    async fn session(&mut self, server: &Server) -> Step<&mut Session> {
        if self.session.is_none() {
            let mut session = server.connect().await?;
            if let Some(pid) = self.lost {
                server.end(&mut session, pid).await?;
                self.lost = None;
            }
            self.session = Some(session);
        }
        Ok(self.session.as_mut().expect("made above"))
    }

    /// Gives the session up.
    fn lose(&mut self) {
        if let Some(session) = self.session.take() {
            self.lost = Some(session.pid);
        }
    }
}

/// Pauses that grow.
struct Pause(Duration);

impl Pause {
    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }
}

impl Postgres {
    /// Opens the store: makes its tables where they are missing, and takes the epoch unless it is to be read only.
    pub(crate) fn open(url: &str, options: &Options) -> Result<Self> {
        let (bridge, nonce, options) = (Bridge::new()?, nonce(), options.clone());
        let server = Server::new(url, nonce)?;
        let deadline = Instant::now() + ENGINE_WAIT_MAX;
        let opening = async move {
            let name = server.name.clone();
            open(server, nonce, &options)
                .await
                .map_err(|failure| failure.into_error(&name))
        };
        let inner = Arc::new(bridge.run("PostgreSQL", deadline, opening)?);
        let engine = Self { bridge, inner };
        // What a writer that ended has left.
        engine.remove_pages();
        Ok(engine)
    }

    /// Removes the pages of removed objects, in the background. What fails is left to the next time.
    fn remove_pages(&self) {
        let inner = self.inner.clone();
        if let Some(epoch) = inner.epoch {
            let removing = async move { drop(inner.remove_pages(epoch).await) };
            self.bridge.background().spawn(removing);
        }
    }

    fn fill(&self, place: Place, version: Option<u64>, buffer: &mut [u8]) -> Result<bool> {
        let page_size = self.inner.page_size;
        let count = page_size.page_of(buffer.len() as u64);
        let pages = self.run(Duration::ZERO, |inner, deadline| async move {
            inner.read(place, count, version, deadline).await
        })?;
        Ok(fill(buffer, page_size, pages))
    }

    fn run<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        more: Duration,
        work: impl FnOnce(Arc<Inner>, Instant) -> F,
    ) -> Result<T> {
        let deadline = Instant::now() + ENGINE_WAIT_MAX;
        // The work ends by itself with what it began before the deadline; this is for a bug in it.
        let late = deadline + ENGINE_WAIT_MAX / 2 + more;
        self.bridge
            .run(&self.inner.server.name, late, work(self.inner.clone(), deadline))
    }
}

async fn open(server: Server, nonce: u64, options: &Options) -> Step<Inner> {
    let mut link = Link::default();
    let session = link.session(&server).await?;
    let refuse = |kind, message: String| Err(Failure::Refused(PagerError::new(kind, message)));
    let exists: bool = session.rows(schema::EXISTS, &[]).await?[0].get(0);
    if !exists {
        if !options.create || options.read_only {
            let message = format!(
                "{}: no store in this database: ask for it to be created",
                server.name
            );
            return refuse(PagerErrorKind::NotFound, message);
        }
        session
            .execute(&schema::create(options.page_size.bytes()))
            .await?;
    }
    let found = Head::of(&server.name, &session.rows(schema::STORE, &[]).await?)?;
    if found.format != FORMAT_VERSION {
        let message = format!(
            "{}: format {}, this program knows {FORMAT_VERSION}",
            server.name, found.format
        );
        return refuse(PagerErrorKind::Version, message);
    }
    let page_size = u64::try_from(found.page_size).ok().and_then(PageSize::new);
    if page_size != Some(options.page_size) {
        let (name, asked) = (&server.name, options.page_size.bytes());
        let message = format!("{name} has pages of {} bytes, not {asked}", found.page_size);
        return refuse(PagerErrorKind::Invalid, message);
    }
    let head = if options.read_only {
        found
    } else {
        let writer = i64::from_ne_bytes(nonce.to_ne_bytes());
        Head::of(&server.name, &session.rows(schema::TAKE, &[&writer]).await?)?
    };
    Ok(Inner {
        server,
        page_size: options.page_size,
        epoch: (!options.read_only).then_some(head.epoch),
        commits: AtomicI64::new(head.commits),
        writer: Mutex::new(link),
        reader: Mutex::default(),
    })
}

impl Inner {
    fn fenced(&self, epoch: i64) -> PagerError {
        let message = format!(
            "{}: another host has taken the store over (epoch {epoch}): this one is fenced, and what it had not \
             committed is lost; go on there, or open the store again to take it back",
            self.server.name
        );
        PagerError::new(PagerErrorKind::Gone, message)
    }

    fn took_place(&self) -> PagerError {
        let message = format!(
            "{}: a call that was reported as failed has taken place all the same: open the store again to go on from it",
            self.server.name
        );
        PagerError::new(PagerErrorKind::Gone, message)
    }

    fn known_commits(&self) -> i64 {
        self.commits.load(Ordering::Acquire)
    }

    /// Refuses to show the last of `commits`, where it was reported as failed.
    async fn require_known(&self, commits: i64, deadline: Instant) -> Result<()> {
        if self.epoch.is_none() || commits <= self.known_commits() {
            return Ok(());
        }
        // It may be under way, and its answer is to come.
        let Ok(_ended) = timeout_at(deadline.into(), self.writer.lock()).await else {
            return Err(Failure::Lost("a commit has no answer".into()).into_error(&self.server.name));
        };
        if commits <= self.known_commits() {
            return Ok(());
        }
        Err(self.took_place())
    }

    /// What a statement of the reader answers.
    async fn rows(
        &self,
        statement: &'static str,
        values: &[&(dyn ToSql + Sync)],
        deadline: Instant,
    ) -> Result<Vec<Row>> {
        let mut link = self.reader.lock().await;
        self.rows_of(&mut link, statement, values, deadline).await
    }

    /// Repeats a statement that may be repeated until it has an answer, or `deadline` is over.
    async fn rows_of(
        &self,
        link: &mut Link,
        statement: &'static str,
        values: &[&(dyn ToSql + Sync)],
        deadline: Instant,
    ) -> Result<Vec<Row>> {
        let mut pause = Pause(PAUSE_FIRST);
        loop {
            let answer = match link.session(&self.server).await {
                Ok(session) => session.rows(statement, values).await,
                Err(failure) => Err(failure),
            };
            match answer {
                Err(Failure::Lost(message)) => {
                    link.lose();
                    if Instant::now() >= deadline {
                        return Err(Failure::Lost(message).into_error(&self.server.name));
                    }
                    pause.wait().await;
                }
                answer => return answer.map_err(|failure| failure.into_error(&self.server.name)),
            }
        }
    }

    async fn load(&self, deadline: Instant) -> Result<Contents> {
        let store = &self.server.name;
        let head = Head::of(store, &self.rows(schema::STORE, &[], deadline).await?)?;
        let rows = self.rows(schema::OBJECTS, &[], deadline).await?;
        let number =
            |value: i64| u64::try_from(value).map_err(|_| damaged(store, &format!("{value} is no count")));
        let mut catalog = Catalog::new();
        for row in rows {
            let name =
                ObjectName::new(column(store, &row, 1)?).map_err(|error| damaged(store, &error.message))?;
            let entry = Entry {
                id: number(column(store, &row, 0)?)?,
                size: number(column(store, &row, 2)?)?,
                version: number(column(store, &row, 3)?)?,
                address: column::<Option<i64>>(store, &row, 4)?.map(number).transpose()?,
            };
            if !self.page_size.is_aligned(entry.size) {
                let what = format!("object \"{name}\" has {} bytes", entry.size);
                return Err(damaged(store, &what));
            }
            catalog.insert(name, entry);
        }
        Ok(Contents {
            calls: number(head.calls)?,
            object_next: number(head.object_next)?,
            catalog,
        })
    }

    /// The pages of an object from `first` on that are stored, by their distance from it.
    async fn read(
        &self,
        (id, first): Place,
        count: u64,
        version: Option<u64>,
        deadline: Instant,
    ) -> Result<Vec<(u64, Vec<u8>)>> {
        let numbers = [id, first, first.saturating_add(count)].map(|number| number as i64);
        let values: [&(dyn ToSql + Sync); 3] = [&numbers[0], &numbers[1], &numbers[2]];
        let rows = self.rows(schema::READ, &values, deadline).await?;
        let store = &self.server.name;
        if rows.is_empty() {
            return Err(damaged(store, "vmsync_store has no row"));
        }
        let mut pages = Vec::new();
        for row in &rows {
            let epoch: i64 = column(store, row, 0)?;
            if self.epoch.is_some_and(|own| own != epoch) {
                return Err(self.fenced(epoch));
            }
            self.require_known(column(store, row, 1)?, deadline).await?;
            if let Some(version) = version
                && column::<Option<i64>>(store, row, 2)? != Some(version as i64)
            {
                let message = format!(
                    "{store}: the object with id {id} has changed since it was opened: close it, and open it again"
                );
                return Err(PagerError::new(PagerErrorKind::Unavailable, message));
            }
            let Some(page) = column::<Option<i64>>(store, row, 3)? else {
                continue;
            };
            let (page, bytes) = (page as u64, column::<Vec<u8>>(store, row, 4)?);
            let written = column::<i64>(store, row, 5)?;
            if bytes.len() as u64 != self.page_size.bytes() || sum((id, page), &bytes) != written {
                let what = format!("page {page} of the object with id {id} is not what was written");
                return Err(damaged(store, &what));
            }
            pages.push((page - first, bytes));
        }
        Ok(pages)
    }

    /// Removes the pages of removed objects, a few at a time: a large object takes longer than a statement may. In a session of its
    /// own, for guests want to read meanwhile.
    async fn remove_pages(&self, epoch: i64) -> Result<()> {
        let mut link = Link::default();
        let at_once = (BYTES_REMOVED_AT_ONCE / self.page_size.bytes()) as i64;
        loop {
            let deadline = Instant::now() + ENGINE_WAIT_MAX;
            let found = self
                .rows_of(&mut link, schema::REMOVED, &[&epoch], deadline)
                .await?;
            let Some(row) = found.first() else { return Ok(()) };
            let object: i64 = column(&self.server.name, row, 0)?;
            let values: [&(dyn ToSql + Sync); 2] = [&object, &at_once];
            self.rows_of(&mut link, schema::REMOVE_PAGES, &values, deadline)
                .await?;
        }
    }

    async fn commit(&self, parameters: Parameters, deadline: Instant) -> Result<()> {
        let Some(epoch) = self.epoch else {
            let message = format!("{} was opened read-only: open it for writing", self.server.name);
            return Err(PagerError::new(PagerErrorKind::Denied, message));
        };
        let mut writer = self.writer.lock().await;
        let attempt = i64::from_ne_bytes(nonce().to_ne_bytes());
        let mut pause = Pause(PAUSE_FIRST);
        loop {
            match self.commit_once(&mut writer, epoch, attempt, &parameters).await {
                Ok(()) => {
                    self.commits.fetch_add(1, Ordering::Release);
                    return Ok(());
                }
                Err(Failure::Lost(message)) => {
                    writer.lose();
                    if Instant::now() >= deadline {
                        return Err(Failure::Lost(message).into_error(&self.server.name));
                    }
                    pause.wait().await;
                }
                Err(Failure::Refused(error)) => return Err(error),
            }
        }
    }

    /// Sends the batch, unless it turns out to be there.
    async fn commit_once(
        &self,
        writer: &mut Link,
        epoch: i64,
        attempt: i64,
        parameters: &Parameters,
    ) -> Step<()> {
        let (known, fresh) = (self.known_commits(), writer.session.is_none());
        let session = writer.session(&self.server).await?;
        if !fresh
            && session
                .commit(&parameters.values(&[&epoch, &known, &attempt]), parameters.bytes)
                .await?
        {
            return Ok(());
        }
        // A new session, or the fence held: what is there decides.
        let head = Head::of(
            &self.server.name,
            &session.rows(schema::STORE_SETTLED, &[]).await?,
        )?;
        if head.epoch != epoch {
            return Err(Failure::Refused(self.fenced(head.epoch)));
        }
        if head.commits == known {
            let session = writer.session(&self.server).await?;
            return match session
                .commit(&parameters.values(&[&epoch, &known, &attempt]), parameters.bytes)
                .await?
            {
                true => Ok(()),
                false => Err(Failure::Lost("the store changed at the same time".into())),
            };
        }
        if head.commits == known + 1 && head.attempt == attempt {
            return Ok(());
        }
        Err(Failure::Refused(self.took_place()))
    }
}

impl Engine for Postgres {
    fn page_size(&self) -> PageSize {
        self.inner.page_size
    }

    fn name(&self) -> &str {
        &self.inner.server.name
    }

    fn load(&self) -> Result<Contents> {
        self.run(Duration::ZERO, |inner, deadline| async move {
            inner.load(deadline).await
        })
    }

    fn read(&self, place: Place, buffer: &mut [u8]) -> Result<bool> {
        self.fill(place, None, buffer)
    }

    fn read_version(&self, place: Place, version: u64, buffer: &mut [u8]) -> Result<bool> {
        self.fill(place, Some(version), buffer)
    }

    fn commit(&self, batch: &Batch) -> Result<()> {
        let parameters = Parameters::new(batch);
        let more = more_time(parameters.bytes);
        self.run(more, |inner, deadline| async move {
            inner.commit(parameters, deadline).await
        })?;
        if !batch.removed.is_empty() {
            self.remove_pages();
        }
        Ok(())
    }
}
