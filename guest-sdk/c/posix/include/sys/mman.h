/*
 * <sys/mman.h> over vmsync's memory objects, in place of wasi-libc's. Part of the POSIX library: see ../../README.md.
 *
 * mmap       MAP_SHARED of a file below a --files folder: the file's own bytes, durable with msync or fsync.
 *            MAP_PRIVATE of any file: a copy. MAP_ANONYMOUS: zeroes.
 * msync      EINVAL: unknown flags, MS_ASYNC with MS_SYNC, an address that is not page-aligned. ENOMEM: a hole in the
 *            range, after the rest is synced. EBUSY: MS_INVALIDATE on locked pages. EIO: nothing of it is durable, and
 *            the changes are kept: call again. ENOSPC: the same, because storage or a quota is full. MS_INVALIDATE
 *            alone writes first: it never drops changes.
 * madvise    MADV_DONTNEED gives up memory of MAP_ANONYMOUS, which is zeroes then; for what shows a file, or a copy of it,
 *            it is a hint, and MADV_FREE is EINVAL.
 * munmap, mprotect, posix_madvise, mlock, munlock: as in POSIX.
 */
#ifndef VMSYNC_POSIX_SYS_MMAN_H
#define VMSYNC_POSIX_SYS_MMAN_H

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PROT_NONE 0
#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4

#define MAP_SHARED 0x01
#define MAP_PRIVATE 0x02
#define MAP_TYPE 0x0f
#define MAP_FIXED 0x10
#define MAP_ANON 0x20
#define MAP_ANONYMOUS MAP_ANON
#define MAP_NORESERVE 0x4000
#define MAP_POPULATE 0x8000
#define MAP_FILE 0
#define MAP_FAILED ((void *)-1)

#define MS_ASYNC 1
#define MS_INVALIDATE 2
#define MS_SYNC 4

#define MADV_NORMAL 0
#define MADV_RANDOM 1
#define MADV_SEQUENTIAL 2
#define MADV_WILLNEED 3
#define MADV_DONTNEED 4
#define MADV_FREE 8

#define POSIX_MADV_NORMAL 0
#define POSIX_MADV_RANDOM 1
#define POSIX_MADV_SEQUENTIAL 2
#define POSIX_MADV_WILLNEED 3
#define POSIX_MADV_DONTNEED 4

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int munmap(void *address, size_t length);
int mprotect(void *address, size_t length, int protection);
int msync(void *address, size_t length, int flags);
int madvise(void *address, size_t length, int advice);
int posix_madvise(void *address, size_t length, int advice);
int mlock(const void *address, size_t length);
int munlock(const void *address, size_t length);

#ifdef __cplusplus
}
#endif

#endif
