/*
 * A ledger in LMDB that may be killed at any moment: `lmdb-ledger FOLDER COUNT`
 *
 * Checks every account against the number of transactions, prints "found N", goes on for COUNT transactions and prints
 * "at N" after each. Exit 1: an account is wrong; 2: LMDB failed.
 */
#include <ledger.h>
#include <lmdb.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_KEY LEDGER_ACCOUNTS

static void must(int result, const char *what)
{
    if (result == MDB_SUCCESS)
        return;
    fprintf(stderr, "%s: %s\n", what, mdb_strerror(result));
    exit(2);
}

static int64_t get(MDB_txn *txn, MDB_dbi db, unsigned key, int64_t missing)
{
    MDB_val name = {sizeof key, &key};
    MDB_val value;
    int result = mdb_get(txn, db, &name, &value);
    if (result == MDB_NOTFOUND)
        return missing;
    must(result, "get");
    int64_t number;
    memcpy(&number, value.mv_data, sizeof number);
    return number;
}

/* With padding, so that the accounts are spread over pages. */
static void put(MDB_txn *txn, MDB_dbi db, unsigned key, int64_t number)
{
    char padded[500] = {0};
    memcpy(padded, &number, sizeof number);
    MDB_val name = {sizeof key, &key};
    MDB_val value = {sizeof padded, padded};
    must(mdb_put(txn, db, &name, &value, 0), "put");
}

static uint64_t check(MDB_env *env, MDB_dbi db)
{
    MDB_txn *txn;
    int64_t balances[LEDGER_ACCOUNTS];
    must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "begin");
    for (unsigned account = 0; account < LEDGER_ACCOUNTS; ++account)
        balances[account] = get(txn, db, account, LEDGER_START);
    uint64_t count = (uint64_t)get(txn, db, COUNT_KEY, 0);
    mdb_txn_abort(txn);
    if (ledger_check(count, balances) != 0)
        exit(1);
    return count;
}

static void transact(MDB_env *env, MDB_dbi db, uint64_t number)
{
    MDB_txn *txn;
    must(mdb_txn_begin(env, NULL, 0, &txn), "begin");
    for (unsigned pair = 0; pair < LEDGER_PAIRS; ++pair) {
        struct ledger_transfer transfer = ledger_transfer(number, pair);
        put(txn, db, transfer.from, get(txn, db, transfer.from, LEDGER_START) - transfer.amount);
        put(txn, db, transfer.to, get(txn, db, transfer.to, LEDGER_START) + transfer.amount);
    }
    put(txn, db, COUNT_KEY, (int64_t)number + 1);
    must(mdb_txn_commit(txn), "commit");
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: lmdb-ledger FOLDER COUNT\n");
        return 2;
    }
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi db;
    must(mdb_env_create(&env), "create");
    must(mdb_env_set_mapsize(env, 8 << 20), "mapsize");
    must(mdb_env_open(env, argv[1], MDB_WRITEMAP, 0600), "open");
    must(mdb_txn_begin(env, NULL, 0, &txn), "begin");
    must(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &db), "dbi");
    must(mdb_txn_commit(txn), "commit");
    uint64_t count = check(env, db);
    ledger_say("found", count);
    for (uint64_t end = count + strtoull(argv[2], NULL, 10); count < end; ++count) {
        transact(env, db, count);
        ledger_say("at", count + 1);
    }
    mdb_env_close(env);
    return 0;
}
