/*
 * How long a commit of LMDB takes: `lmdb-commits FOLDER COUNT`, as a guest and native.
 *
 * Each transaction changes one of 1000 records of 100 bytes. Prints the nanoseconds of each commit, one a line.
 */
#include <lmdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RECORDS 1000

static void must(int result, const char *what)
{
    if (result == MDB_SUCCESS)
        return;
    fprintf(stderr, "%s: %s\n", what, mdb_strerror(result));
    exit(2);
}

static void put(MDB_txn *txn, MDB_dbi db, uint32_t key, uint32_t seed)
{
    char bytes[100];
    memset(bytes, (int)(seed % 251), sizeof bytes);
    MDB_val name = {sizeof key, &key};
    MDB_val value = {sizeof bytes, bytes};
    must(mdb_put(txn, db, &name, &value, 0), "put");
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: lmdb-commits FOLDER COUNT\n");
        return 2;
    }
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi db;
    must(mdb_env_create(&env), "create");
    must(mdb_env_set_mapsize(env, 64 << 20), "mapsize");
    must(mdb_env_open(env, argv[1], MDB_WRITEMAP, 0600), "open");
    must(mdb_txn_begin(env, NULL, 0, &txn), "begin");
    must(mdb_dbi_open(txn, NULL, 0, &db), "dbi");
    for (uint32_t key = 0; key < RECORDS; ++key)
        put(txn, db, key, key);
    must(mdb_txn_commit(txn), "commit");
    uint32_t count = (uint32_t)strtoul(argv[2], NULL, 10);
    for (uint32_t number = 0; number < count; ++number) {
        must(mdb_txn_begin(env, NULL, 0, &txn), "begin");
        put(txn, db, number * 2654435761u % RECORDS, number);
        int64_t start = nanoseconds();
        must(mdb_txn_commit(txn), "commit");
        printf("%lld\n", (long long)(nanoseconds() - start));
    }
    mdb_env_close(env);
    return 0;
}
