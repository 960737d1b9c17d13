//! The tables of a store, and every statement on them.
//!
//! ```text
//!   vmsync_store    one row: format, page_size, epoch, writer, commits, attempt, calls, object_next
//!   vmsync_objects  (id) -> name, size, version, address
//!   vmsync_pages    (object, page) -> bytes, sum
//! ```
//!
//! Invariants:
//! - a writer changes nothing but through [`COMMIT`], whose every part depends on `fence`: the row of the store with
//!   the writer's epoch and the number of commits that it knows of. So a stale writer, and a statement that arrives
//!   twice, change nothing. Only pages of no object are removed without it ([`REMOVE_PAGES`]): nobody reads them, and
//!   ids are not used again;
//! - a page of zeroes has no row.

/// The version of everything in this file.
pub(crate) const FORMAT_VERSION: i32 = 1;

/// Makes the tables where they are missing; parameters are filled in as numbers.
pub(crate) fn create(page_bytes: u64) -> String {
    format!(
        "BEGIN;
        SELECT pg_advisory_xact_lock(8747339301);
        CREATE TABLE IF NOT EXISTS vmsync_store (
            only_row bool PRIMARY KEY DEFAULT true CHECK (only_row), format int NOT NULL, page_size bigint NOT NULL,
            epoch bigint NOT NULL, writer bigint NOT NULL, commits bigint NOT NULL, attempt bigint NOT NULL,
            calls bigint NOT NULL, object_next bigint NOT NULL);
        CREATE TABLE IF NOT EXISTS vmsync_objects (
            id bigint PRIMARY KEY, name text NOT NULL UNIQUE, size bigint NOT NULL, version bigint NOT NULL,
            address bigint);
        CREATE TABLE IF NOT EXISTS vmsync_pages (
            object bigint NOT NULL, page bigint NOT NULL, bytes bytea NOT NULL, sum bigint NOT NULL,
            PRIMARY KEY (object, page)) WITH (toast_tuple_target = 8160);
        ALTER TABLE vmsync_pages ALTER COLUMN bytes SET STORAGE EXTERNAL;
        INSERT INTO vmsync_store VALUES (true, {FORMAT_VERSION}, {page_bytes}, 0, 0, 0, 0, 0, 1) ON CONFLICT DO NOTHING;
        COMMIT"
    )
}

/// Whether there is a store.
pub(crate) const EXISTS: &str = "SELECT to_regclass('vmsync_store') IS NOT NULL";

/// The store's row.
pub(crate) const STORE: &str =
    "SELECT format, page_size, epoch, commits, attempt, calls, object_next FROM vmsync_store";

/// The same, after every transaction that changes it has ended.
pub(crate) const STORE_SETTLED: &str =
    "SELECT format, page_size, epoch, commits, attempt, calls, object_next FROM vmsync_store FOR UPDATE";

/// Takes the epoch: from now on no other writer commits.
pub(crate) const TAKE: &str = "UPDATE vmsync_store SET epoch = epoch + 1, writer = $1
    RETURNING format, page_size, epoch, commits, attempt, calls, object_next";

/// The objects.
pub(crate) const OBJECTS: &str = "SELECT id, name, size, version, address FROM vmsync_objects";

/// Pages of an object, its version and where the store is; one row without a page where there are none.
pub(crate) const READ: &str =
    "SELECT s.epoch, s.commits, o.version, p.page, p.bytes, p.sum FROM vmsync_store s
    LEFT JOIN vmsync_objects o ON o.id = $1
    LEFT JOIN vmsync_pages p ON p.object = $1 AND p.page >= $2 AND p.page < $3";

/// Ends a connection that was lost on this side, so that nothing of it happens any more.
pub(crate) const END_SESSION: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND application_name = $2";

/// An object that has pages and was removed, for the writer with the epoch. The pages' key is walked from object to object.
pub(crate) const REMOVED: &str = "WITH RECURSIVE ids(id) AS (
        SELECT min(object) FROM vmsync_pages
        UNION ALL SELECT (SELECT min(object) FROM vmsync_pages WHERE object > id) FROM ids WHERE id IS NOT NULL)
    SELECT id FROM ids WHERE id IS NOT NULL AND EXISTS (SELECT FROM vmsync_store WHERE epoch = $1)
        AND NOT EXISTS (SELECT FROM vmsync_objects o WHERE o.id = ids.id) LIMIT 1";

/// Removes pages of an object that was removed, so many at most.
pub(crate) const REMOVE_PAGES: &str = "DELETE FROM vmsync_pages WHERE object = $1
    AND page IN (SELECT page FROM vmsync_pages WHERE object = $1 ORDER BY page LIMIT $2)";

/// A whole batch in one statement, which is one transaction and one round trip. Answers 1, or 0 where the fence held.
pub(crate) const COMMIT: &str = "WITH fence AS (
        UPDATE vmsync_store SET commits = commits + 1, attempt = $3, calls = $4, object_next = $5
        WHERE epoch = $1 AND commits = $2 RETURNING 1),
    objects AS (
        INSERT INTO vmsync_objects (id, name, size, version, address)
        SELECT t.* FROM fence, unnest($6::bigint[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[]) t
        ON CONFLICT (id) DO UPDATE SET size = excluded.size, version = excluded.version, address = excluded.address),
    pages AS (
        INSERT INTO vmsync_pages (object, page, bytes, sum)
        SELECT t.* FROM fence, unnest($11::bigint[], $12::bigint[], $13::bytea[], $14::bigint[]) t
        ON CONFLICT (object, page) DO UPDATE SET bytes = excluded.bytes, sum = excluded.sum),
    zeroes AS (
        DELETE FROM vmsync_pages p USING fence, unnest($15::bigint[], $16::bigint[]) z(object, page)
        WHERE p.object = z.object AND p.page = z.page),
    gone_objects AS (DELETE FROM vmsync_objects o USING fence WHERE o.id = ANY($17::bigint[]))
    SELECT count(*) FROM fence";
