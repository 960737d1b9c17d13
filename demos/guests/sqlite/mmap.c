/*
 * Lets SQLite map its database: built for WASI it leaves mmap out, and takes it through its own interface for system
 * calls. Compiled in with -DSQLITE_EXTRA_INIT=vmsync_sqlite_init; PRAGMA mmap_size turns it on.
 */
#include <sqlite3.h>
#include <stddef.h>
#include <sys/mman.h>

int vmsync_sqlite_init(const char *unused)
{
    (void)unused;
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    for (; vfs != NULL; vfs = vfs->pNext) {
        if (vfs->iVersion >= 3 && vfs->xSetSystemCall != NULL) {
            vfs->xSetSystemCall(vfs, "mmap", (sqlite3_syscall_ptr)mmap);
            vfs->xSetSystemCall(vfs, "munmap", (sqlite3_syscall_ptr)munmap);
        }
    }
    return SQLITE_OK;
}
