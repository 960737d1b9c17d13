/*
 * A ledger in SQLite that may be killed at any moment: `sqlite-ledger FILE COUNT [JOURNAL]`
 *
 * The rollback journal is in memory: a sync of a file is all or nothing here, so none is needed on disk. JOURNAL is
 * another of SQLite's journal modes, for other hosts. The cache is so small that a transaction writes pages before it
 * commits. Prints and exits as the ledger in LMDB does.
 */
#include <ledger.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

static sqlite3 *db;

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, sqlite3_errmsg(db));
    exit(2);
}

static void run(const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail(sql);
}

static sqlite3_stmt *prepare(const char *sql)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        fail(sql);
    return statement;
}

static void open_database(const char *path, const char *journal)
{
    if (sqlite3_open(path, &db) != SQLITE_OK)
        fail(path);
    char *mode = sqlite3_mprintf("PRAGMA journal_mode = %Q", journal);
    run(mode);
    sqlite3_free(mode);
    run("PRAGMA synchronous = FULL; PRAGMA cache_size = 10; PRAGMA mmap_size = 16777216;");
    run("BEGIN; CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, balance INTEGER, padding BLOB);"
        "CREATE TABLE IF NOT EXISTS transactions (count INTEGER);"
        "INSERT INTO transactions SELECT 0 WHERE NOT EXISTS (SELECT * FROM transactions);"
        "WITH RECURSIVE ids(id) AS (VALUES (0) UNION ALL SELECT id + 1 FROM ids WHERE id < 63)"
        "INSERT OR IGNORE INTO account SELECT id, 1000, zeroblob(1000) FROM ids; COMMIT;");
}

static uint64_t check(void)
{
    int64_t balances[LEDGER_ACCOUNTS] = {0};
    sqlite3_stmt *statement = prepare("PRAGMA integrity_check");
    if (sqlite3_step(statement) != SQLITE_ROW)
        fail("integrity_check");
    const char *verdict = (const char *)sqlite3_column_text(statement, 0);
    if (strcmp(verdict, "ok") != 0) {
        fprintf(stderr, "integrity_check: %s\n", verdict);
        exit(1);
    }
    sqlite3_finalize(statement);
    statement = prepare("SELECT id, balance FROM account");
    while (sqlite3_step(statement) == SQLITE_ROW)
        balances[sqlite3_column_int(statement, 0) % LEDGER_ACCOUNTS] = sqlite3_column_int64(statement, 1);
    sqlite3_finalize(statement);
    statement = prepare("SELECT count FROM transactions");
    if (sqlite3_step(statement) != SQLITE_ROW)
        fail("count");
    uint64_t count = (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    if (ledger_check(count, balances) != 0)
        exit(1);
    return count;
}

static void change(sqlite3_stmt *statement, unsigned account, int64_t amount)
{
    sqlite3_bind_int64(statement, 1, amount);
    sqlite3_bind_int(statement, 2, (int)account);
    if (sqlite3_step(statement) != SQLITE_DONE)
        fail("update");
    sqlite3_reset(statement);
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: sqlite-ledger FILE COUNT [JOURNAL]\n");
        return 2;
    }
    open_database(argv[1], argc == 4 ? argv[3] : "MEMORY");
    uint64_t count = check();
    ledger_say("found", count);
    sqlite3_stmt *update = prepare("UPDATE account SET balance = balance + ?, padding = randomblob(1000) WHERE id = ?");
    for (uint64_t end = count + strtoull(argv[2], NULL, 10); count < end; ++count) {
        run("BEGIN");
        for (unsigned pair = 0; pair < LEDGER_PAIRS; ++pair) {
            struct ledger_transfer transfer = ledger_transfer(count, pair);
            change(update, transfer.from, -transfer.amount);
            change(update, transfer.to, transfer.amount);
        }
        run("UPDATE transactions SET count = count + 1");
        run("COMMIT");
        ledger_say("at", count + 1);
    }
    sqlite3_finalize(update);
    return sqlite3_close(db) == SQLITE_OK ? 0 : 2;
}
