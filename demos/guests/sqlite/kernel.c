/*
 * SQLite as a kernel of the benchmark of trackers: a database in memory, in a module that imports nothing.
 *
 * There are no files, so the one VFS that SQLite asks for opens none. Each run makes the database anew and frees it, so that
 * one run after the other stores to the same places.
 */
#include <sqlite3.h>
#include <stdint.h>
#include <string.h>

#define ROWS 2000

static int open_nothing(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags, int *out)
{
    (void)vfs, (void)name, (void)flags, (void)out;
    file->pMethods = NULL;
    return SQLITE_CANTOPEN;
}

/* The same for each run. */
static int randomness(sqlite3_vfs *vfs, int length, char *out)
{
    (void)vfs;
    memset(out, 1, (size_t)length);
    return length;
}

static int time_of_day(sqlite3_vfs *vfs, double *day)
{
    (void)vfs;
    *day = 2460000.5;
    return SQLITE_OK;
}

int sqlite3_os_init(void)
{
    static sqlite3_vfs none = {
        .iVersion = 1,
        .szOsFile = sizeof(sqlite3_file),
        .mxPathname = 64,
        .zName = "none",
        .xOpen = open_nothing,
        .xRandomness = randomness,
        .xCurrentTime = time_of_day,
    };
    return sqlite3_vfs_register(&none, 1);
}

int sqlite3_os_end(void)
{
    return SQLITE_OK;
}

static void check(int result)
{
    if (result != SQLITE_OK)
        __builtin_trap();
}

static const char CHANGES[] =
    "UPDATE item SET size = size * 7 % 1009 WHERE id % 3 = 0;"
    "DELETE FROM item WHERE size % 11 = 5;"
    "UPDATE item SET name = upper(name) WHERE size BETWEEN 100 AND 300;";

static int64_t number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement;
    check(sqlite3_prepare_v2(db, sql, -1, &statement, NULL));
    if (sqlite3_step(statement) != SQLITE_ROW)
        __builtin_trap();
    int64_t found = sqlite3_column_int64(statement, 0);
    check(sqlite3_finalize(statement));
    return found;
}

__attribute__((export_name("sqlite"))) uint64_t sqlite(void)
{
    sqlite3 *db;
    sqlite3_stmt *insert;
    check(sqlite3_open(":memory:", &db));
    check(sqlite3_exec(db, "CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, size INTEGER);"
                           "CREATE INDEX by_size ON item(size); BEGIN", NULL, NULL, NULL));
    check(sqlite3_prepare_v2(db, "INSERT INTO item VALUES(?1, printf('item %d of %x', ?1, ?2), ?2 % 997)", -1, &insert, NULL));
    for (int64_t id = 0; id < ROWS; id++) {
        check(sqlite3_bind_int64(insert, 1, id));
        check(sqlite3_bind_int64(insert, 2, (id * 2654435761) & 0xffffffff));
        if (sqlite3_step(insert) != SQLITE_DONE)
            __builtin_trap();
        check(sqlite3_reset(insert));
    }
    check(sqlite3_finalize(insert));
    check(sqlite3_exec(db, CHANGES, NULL, NULL, NULL));
    uint64_t found = (uint64_t)number(db, "SELECT sum(size * length(name)) FROM item WHERE size > 50");
    found += (uint64_t)number(db, "SELECT count(*) FROM (SELECT name FROM item ORDER BY name DESC LIMIT 500)");
    check(sqlite3_close(db));
    return found;
}
