/* Put between LMDB's own test programs and LMDB by `--wrap=mdb_env_open`: every environment is opened MDB_WRITEMAP. */
#include <lmdb.h>

int __real_mdb_env_open(MDB_env *env, const char *path, unsigned flags, mdb_mode_t mode);

int __wrap_mdb_env_open(MDB_env *env, const char *path, unsigned flags, mdb_mode_t mode)
{
    return __real_mdb_env_open(env, path, flags & MDB_RDONLY ? flags : flags | MDB_WRITEMAP, mode);
}
