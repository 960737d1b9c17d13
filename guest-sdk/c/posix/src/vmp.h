/*
 * The inside of the POSIX library: files whose bytes are memory objects.
 *
 *     program: open, write, mmap, fsync ...
 *        |  --wrap (link.args)
 *     path.c, descriptor.c, mapping.c      decide whether a path or descriptor is ours; if not, __real_*
 *        |            |
 *     name.c       view.c                  path -> name of an object; what mmap has handed out
 *        |            |
 *     file.c ---- place.c                  a file: one object, mapped once, whole: its home
 *        |
 *     vmsync.h
 *
 * Invariants:
 * - a file has one home, from its first use until the program ends: read and write copy from and to it, and MAP_SHARED
 *   hands out pointers into it. So all of them see the same bytes at once;
 * - the home begins with a page of our own (struct vmp_header), which is committed in the same vm_msync as the bytes;
 * - `high` is at or above every byte that was ever stored to: what lies behind it reads as zero;
 * - what lies behind the end in the file's last page is zeroes when its size changes;
 * - a size is committed together with what the file grew over below `high` and the rest of its last page, which may be
 *   something else in the store.
 */
#ifndef VMP_H
#define VMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <vmsync.h>

/* The VM's page; hosts with another one are refused. */
#define VMP_PAGE ((size_t)4096)

/* The longest name of an object, in bytes. */
#define VMP_NAME_MAX 255

/* The first descriptor of ours: far above those of WASI, which count from 0. */
#define VMP_FD_FIRST 0x10000

#define VMP_MAGIC "vmsfile1"

/* The first page of an object that is a file. */
struct vmp_header {
    char magic[8];
    uint64_t size; /* of the file, in bytes */
    uint64_t high; /* stored to below this, in bytes of the file */
    uint32_t links; /* 0: the file was removed, the object waits for the next of this name */
    uint32_t reserved;
};

struct vmp_file {
    struct vmp_file *next;
    char name[VMP_NAME_MAX + 1];
    mach_port_t port;
    struct vmp_header *header; /* the home */
    size_t mapped;             /* bytes of the home */
    uint64_t stale;            /* since the header was synced old bytes gave way to a new size, up to here; 0: none */
    unsigned opens;            /* descriptors */
    bool writable;
    bool header_dirty; /* may differ from what is durable */
    bool dirty;        /* may hold what was not synced */
    bool guarded;      /* some of its pages may be read-only */
};

/* name.c */

/* Writes the name of the object that stands for `path`; its length, or -1 with errno. */
int vmp_name(const char *path, char name[VMP_NAME_MAX + 1]);

/* place.c */

/* An address with room for `size` bytes of a file's home beside the other homes, `wanted` if that is free; 0: there is
 * none. */
uintptr_t vmp_place(uintptr_t wanted, size_t size);
/* Up to where the other homes let one that begins at `home` grow. */
uintptr_t vmp_place_end(uintptr_t home);

/* file.c; they answer 0, or an errno. */

/* All files that were used so far. */
extern struct vmp_file *vmp_files;

#define VMP_CREATE 1u    /* make the file if there is none */
#define VMP_EXCLUSIVE 2u /* with VMP_CREATE: there must be none */

/* Opens the file `name`. VMP_ELSEWHERE: the host does not grant such a name, the path is not one of ours. */
#define VMP_ELSEWHERE (-1)
int vmp_file_open(const char *name, unsigned flags, struct vmp_file **file);
int vmp_file_write(struct vmp_file *file, const void *bytes, size_t count, uint64_t offset);
size_t vmp_file_read(const struct vmp_file *file, void *bytes, size_t count, uint64_t offset);
int vmp_file_resize(struct vmp_file *file, uint64_t size);
/* Makes the home reach up to `end` of the file, without changing the file's size. */
int vmp_file_reserve(struct vmp_file *file, uint64_t end);
/* Says that bytes below `end` of the file may be stored to behind the library's back. */
void vmp_file_expose(struct vmp_file *file, uint64_t end);
/* vm_msync of `count` bytes from `offset` of the file; with the header if that has changed. */
kern_return_t vmp_file_sync(struct vmp_file *file, uint64_t offset, size_t count, uint32_t flags);
int vmp_file_sync_all(struct vmp_file *file);
int vmp_file_unlink(struct vmp_file *file);
void vmp_file_stat(const struct vmp_file *file, struct stat *status);

/* The file's first byte. */
static inline unsigned char *vmp_bytes(const struct vmp_file *file)
{
    return (unsigned char *)file->header + VMP_PAGE;
}

/* What a failed call means to a POSIX program. */
int vmp_errno(kern_return_t kr);

/* descriptor.c */

struct vmp_descriptor {
    struct vmp_file *file; /* NULL: free */
    uint64_t offset;
    int flags; /* of open */
};

/* The descriptor behind `fd`; NULL: not one of ours. */
struct vmp_descriptor *vmp_descriptor(int fd);
/* A new descriptor for a file; -1 with errno. */
int vmp_descriptor_open(struct vmp_file *file, int flags);

#endif
